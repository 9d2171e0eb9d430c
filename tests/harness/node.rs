//! Real nodes: the binary, its ports, its data directory and its log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::command::{Background, binary};
use super::http::{Http, metric};
use super::ports;
use super::wait::{self, Deadline, PATIENCE, eventually};
use super::ws::Client;

/// How a node is started. What is not said is as a test wants it: loopback, ports of its own, the
/// fast membership profile, an embedded store in a directory that goes with the node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `--node-name`.
    pub name: String,
    /// `--http`.
    pub http: String,
    /// `--gossip`.
    pub gossip: String,
    /// `--advertise`.
    pub advertise: Option<String>,
    /// `--join`.
    pub join: Vec<String>,
    /// `--cluster-name`: one for each test, so that a port used again meets strangers.
    pub cluster_name: String,
    /// `--profile`.
    pub profile: &'static str,
    /// `--store`.
    pub store: &'static str,
    /// `--data-dir`; by default one that goes with the node.
    pub data_dir: Option<PathBuf>,
    /// More flags.
    pub flags: Vec<String>,
}

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

impl NodeConfig {
    /// A node of that name, in a cluster of its own.
    pub fn named(name: &str) -> NodeConfig {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        NodeConfig {
            name: name.into(),
            http: format!("127.0.0.1:{}", ports::free()),
            gossip: format!("127.0.0.1:{}", ports::free()),
            advertise: None,
            join: Vec::new(),
            cluster_name: format!("test-{}-{number}", std::process::id()),
            profile: "local",
            store: "embedded",
            data_dir: None,
            flags: Vec::new(),
        }
    }

    /// A node of that name which joins the cluster of `other`.
    pub fn joining(name: &str, other: &Node) -> NodeConfig {
        NodeConfig {
            join: vec![other.advertised().to_owned()],
            cluster_name: other.config.cluster_name.clone(),
            ..NodeConfig::named(name)
        }
    }

    /// The same with more flags.
    pub fn with(mut self, flags: &[&str]) -> NodeConfig {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// The same without a disk.
    pub fn in_memory(mut self) -> NodeConfig {
        self.store = "memory";
        self
    }

    fn command(&self, data_dir: &std::path::Path) -> std::process::Command {
        let mut command = binary();
        command.args(["serve", "--profile", self.profile, "--log-level", "info"]);
        command.args(["--http", &self.http, "--gossip", &self.gossip, "--node-name", &self.name]);
        command.args(["--cluster-name", &self.cluster_name, "--store", self.store]);
        command.arg("--data-dir").arg(data_dir);
        if let Some(advertise) = &self.advertise {
            command.args(["--advertise", advertise]);
        }
        if !self.join.is_empty() {
            command.args(["--join", &self.join.join(",")]);
        }
        command.args(&self.flags);
        command
    }
}

/// A running node, or one that was stopped and may come back. Killed when it goes out of scope; its
/// log is shown if the test failed, and must hold no error if it did not.
pub struct Node {
    /// Its name.
    pub id: String,
    /// `host:port` of HTTP and WebSocket.
    pub http: String,
    /// `host:port` of gossip, as the ready line has it.
    pub gossip: String,
    /// What it was started with.
    pub config: NodeConfig,
    /// Log lines that hold one of these are no failure.
    pub allowed_errors: Vec<&'static str>,
    dir: Arc<tempfile::TempDir>,
    process: Background,
}

impl Node {
    /// Starts a node and waits for its ready line and for `/readyz`.
    pub fn start(config: NodeConfig) -> Node {
        let node = Node::spawn(config);
        node.wait_ready();
        node
    }

    /// Starts a node and waits for its ready line alone.
    pub fn spawn(config: NodeConfig) -> Node {
        let dir = match tempfile::tempdir() {
            Ok(dir) => Arc::new(dir),
            Err(error) => panic!("no temporary directory: {error}"),
        };
        let data_dir = config.data_dir.clone().unwrap_or_else(|| dir.path().join("data"));
        let mut process = Background::start(&mut config.command(&data_dir));
        let (id, http, gossip) = read_ready(&mut process);
        Node { id, http, gossip, config, allowed_errors: Vec::new(), dir, process }
    }

    /// A single node with nothing special about it.
    pub fn single() -> Node {
        Node::start(NodeConfig::named("a"))
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_ready(&self) {
        eventually(&format!("{} is ready", self.id), PATIENCE, || {
            let answer = Http::attempt(&self.http, "GET", "/readyz", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// The gossip address that others know it by.
    pub fn advertised(&self) -> &str {
        self.config.advertise.as_deref().unwrap_or(&self.gossip)
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process.kill();
        self.check_log();
    }

    /// SIGTERM, and waits for its end; the exit code.
    pub fn sigterm(&mut self) -> Option<i32> {
        self.process.signal("TERM");
        let code = self.process.wait(Duration::from_secs(15));
        self.check_log();
        code
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// The process, for what has no shorthand.
    pub fn process(&mut self) -> &mut Background {
        &mut self.process
    }

    /// Starts it again: the same name, ports and data directory.
    pub fn restart(&mut self) {
        self.restart_unready();
        self.wait_ready();
    }

    /// As `restart`, without waiting for `/readyz`.
    pub fn restart_unready(&mut self) {
        assert!(!self.process.is_running(), "{} still runs", self.id);
        let data_dir = self.data_dir();
        let gossip = self.config.gossip.clone();
        let mut process = Background::start(&mut self.config.command(&data_dir));
        let (id, http, _) = read_ready(&mut process);
        assert_eq!((id.as_str(), http.as_str()), (self.id.as_str(), self.http.as_str()));
        self.process = process;
        self.gossip = gossip;
    }

    /// Removes everything it stored; to be called while it is stopped.
    pub fn forget_data(&self) {
        let removed = std::fs::remove_dir_all(self.data_dir());
        assert!(removed.is_ok(), "data of {} cannot be removed: {removed:?}", self.id);
    }

    /// Memory of its process that is in RAM, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Processor time that its process has used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid())).unwrap_or_default();
        // The second field is the program's name in parentheses; utime and stime are the 14th and 15th,
        // in hundredths of a second.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> Http {
        Http::get(&self.http, path)
    }

    /// Publishes one record over HTTP; its answer.
    pub fn post(&self, body: Value) -> Http {
        Http::post(&self.http, "/v1/publish", &body.to_string())
    }

    /// Publishes one record over HTTP, which must be applied; its stamp.
    pub fn put(&self, source: &str, data: Value) -> u64 {
        let answer = self.post(serde_json::json!({"source": source, "data": data}));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["outcome"], "applied", "{answer:?}");
        answer.json()["ts"].as_u64().unwrap_or_default()
    }

    /// The latest record of a source; `None` if readers see none.
    pub fn latest(&self, source: &str) -> Option<Value> {
        let path: Vec<String> = source.split('/').map(super::encode).collect();
        let answer = self.get(&format!("/v1/sources/{}", path.join("/")));
        (answer.status == 200).then(|| answer.json())
    }

    /// Every record that readers see, in order of name, through pages.
    pub fn all_records(&self, pattern: &str) -> Vec<Value> {
        let mut records = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/sources?pattern={}&limit=1000{after}", super::encode(pattern));
            let answer = self.get(&path);
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.json();
            records.extend(page["records"].as_array().cloned().unwrap_or_default());
            match page["after"].as_str() {
                Some(cursor) => after = format!("&after={}", super::encode(cursor)),
                None => return records,
            }
        }
    }

    /// A sample of `/metrics`; 0 where there is none yet.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.get("/metrics").body, name, labels).unwrap_or(0.0)
    }

    /// Members by state, as this node sees them.
    pub fn member_state(&self, id: &str) -> Option<String> {
        let answer = Http::attempt(&self.http, "GET", "/v1/members", &[], b"").ok()?;
        let members = answer.json();
        let member = members["members"].as_array()?.iter().find(|member| member["id"] == id)?.clone();
        member["state"].as_str().map(str::to_owned)
    }

    /// Waits until this node sees `id` in that state.
    pub fn wait_member(&self, id: &str, state: &str, within: Duration) {
        eventually(&format!("{} sees {id} as {state}", self.id), within, || {
            (self.member_state(id).as_deref() == Some(state)).then_some(())
        });
    }

    /// How many members this node sees alive, itself included.
    pub fn alive(&self) -> usize {
        let Ok(answer) = Http::attempt(&self.http, "GET", "/v1/members", &[], b"") else { return 0 };
        let members = answer.json();
        let list = members["members"].as_array().cloned().unwrap_or_default();
        list.iter().filter(|member| member["state"] == "alive").count()
    }

    /// Waits until this node sees so many members alive.
    pub fn wait_alive(&self, count: usize) {
        eventually(&format!("{} sees {count} alive", self.id), PATIENCE, || {
            (self.alive() == count).then_some(())
        });
    }

    /// Waits until the latest of `source` has this `ts` here.
    pub fn wait_ts(&self, source: &str, ts: u64) {
        eventually(&format!("{} holds {source} of {ts}", self.id), PATIENCE, || {
            self.latest(source).filter(|record| record["ts"] == ts)
        });
    }

    /// A connection to `/publish`, greeted.
    pub fn publisher(&self) -> Client {
        Client::open(&self.http, "/publish")
    }

    /// A connection to `/subscribe?query`, greeted.
    pub fn subscriber(&self, query: &str) -> Client {
        Client::open(&self.http, &format!("/subscribe?{query}"))
    }

    fn check_log(&self) {
        let log = self.log();
        let is_error = |line: &str| {
            let said = line.contains(" ERROR ")
                || line.contains("\"level\":\"ERROR\"")
                || line.contains("panicked at");
            said && !self.allowed_errors.iter().any(|allowed| line.contains(allowed))
        };
        let errors: Vec<&str> = log.lines().filter(|line| is_error(line)).collect();
        assert!(errors.is_empty(), "{} logged errors:\n{}", self.id, errors.join("\n"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(60);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("--- the end of the log of {} ---\n{}", self.id, tail.join("\n"));
        } else {
            self.check_log();
        }
    }
}

/// Reads `ready node=ID http=ADDR gossip=ADDR`.
fn read_ready(process: &mut Background) -> (String, String, String) {
    let deadline = Deadline::after(PATIENCE * 2);
    let Some(line) = process.line(deadline.left().unwrap_or_default()) else {
        let code = process.wait(wait::PATIENCE);
        panic!("the node exited with {code:?} before it was ready; stderr:\n{}", process.stderr());
    };
    let mut words = line.split(' ');
    let mut word = |prefix: &str| match words.next().and_then(|word| word.strip_prefix(prefix)) {
        Some(value) => value.to_owned(),
        None => panic!("no {prefix:?} at its place in the ready line {line:?}"),
    };
    assert_eq!(word("ready"), "");
    (word("node="), word("http="), word("gossip="))
}

/// Some nodes that know each other.
pub struct Cluster {
    /// Named `a`, `b`, `c`, …; the later ones joined through the first.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts `count` nodes and waits until each sees all alive.
    pub fn start(count: usize) -> Cluster {
        Cluster::start_with(count, &[])
    }

    /// The same with more flags for every node.
    pub fn start_with(count: usize, flags: &[&str]) -> Cluster {
        Cluster::configured(count, |config| config.with(flags))
    }

    /// The same, each node's configuration changed by `change`.
    pub fn configured(count: usize, change: impl Fn(NodeConfig) -> NodeConfig) -> Cluster {
        let mut nodes: Vec<Node> = Vec::new();
        for index in 0..count {
            let name = char::from(b'a' + index as u8).to_string();
            let config = match nodes.first() {
                Some(first) => NodeConfig::joining(&name, first),
                None => NodeConfig::named(&name),
            };
            nodes.push(Node::spawn(change(config)));
        }
        let cluster = Cluster { nodes };
        cluster.wait_whole();
        cluster
    }

    /// Waits until every node is ready and sees all the others alive.
    pub fn wait_whole(&self) {
        for node in &self.nodes {
            node.wait_alive(self.nodes.len());
            node.wait_ready();
        }
    }

    /// Waits until all nodes show the same records of `pattern`; what they show.
    pub fn wait_equal(&self, pattern: &str, within: Duration) -> Vec<Value> {
        eventually("all nodes show the same", within, || {
            let first = self.nodes.first()?.all_records(pattern);
            let same = self.nodes.iter().skip(1).all(|node| node.all_records(pattern) == first);
            same.then_some(first)
        })
    }
}

impl std::ops::Index<usize> for Cluster {
    type Output = Node;
    fn index(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

impl std::ops::IndexMut<usize> for Cluster {
    fn index_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }
}
