//! Real nodes: the binary with its ports, its data directory and its log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::clock::ShiftedClock;
use super::command::{Background, binary};
use super::file_size;
use super::http::{Http, metric};
use super::ports;
use super::wait::{self, Deadline, PATIENCE, eventually};
use super::ws::Client;

/// How a node is started. The defaults suit most tests: loopback, ports of its own, the fast membership
/// profile, and an embedded store in a directory that is removed with the node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Value of `--node-name`.
    pub name: String,
    /// Value of `--http`.
    pub http: String,
    /// Value of `--gossip`.
    pub gossip: String,
    /// Value of `--advertise`, if it is given.
    pub advertise: Option<String>,
    /// Values of `--join`.
    pub join: Vec<String>,
    /// Value of `--cluster-name`. Every test has a cluster name of its own, so that nodes of another test
    /// that used the same port before are ignored.
    pub cluster_name: String,
    /// Value of `--profile`.
    pub profile: &'static str,
    /// Value of `--store`.
    pub store: &'static str,
    /// Value of `--data-dir`. By default, a directory that is removed with the node.
    pub data_dir: Option<PathBuf>,
    /// Further flags of the command line.
    pub flags: Vec<String>,
    /// The wall clock of the node, if it is not the machine's.
    pub clock: Option<ShiftedClock>,
    /// Further variables of its environment.
    pub env: Vec<(String, String)>,
    /// Whether the node lives on when [`file_size::set_writable`] lets its writes fail.
    pub survives_failing_writes: bool,
}

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

impl NodeConfig {
    /// Makes the configuration of a node with this name in a cluster of its own.
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
            clock: None,
            env: Vec::new(),
            survives_failing_writes: false,
        }
    }

    /// Makes the configuration of a node with this name that joins the cluster of `other`.
    pub fn joining(name: &str, other: &Node) -> NodeConfig {
        NodeConfig {
            join: vec![other.advertised().to_owned()],
            cluster_name: other.config.cluster_name.clone(),
            ..NodeConfig::named(name)
        }
    }

    /// Adds flags to the configuration.
    pub fn with(mut self, flags: &[&str]) -> NodeConfig {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Adds a variable to the environment.
    pub fn with_variable(mut self, name: &str, value: &str) -> NodeConfig {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Changes the configuration to `--store memory`.
    pub fn in_memory(mut self) -> NodeConfig {
        self.store = "memory";
        self
    }

    /// Adds a variable to the environment of the node.
    pub fn with_env(mut self, name: &str, value: &str) -> NodeConfig {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the node a wall clock of its own.
    pub fn with_clock(mut self, clock: &ShiftedClock) -> NodeConfig {
        self.clock = Some(clock.clone());
        self
    }

    fn command(&self, data_dir: &std::path::Path) -> std::process::Command {
        let mut command = binary();
        command.args(["serve", "--profile", self.profile]);
        if !self.flags.iter().any(|flag| flag == "--log-level") {
            command.args(["--log-level", "info"]);
        }
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
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        if self.survives_failing_writes { file_size::without_signal(&command) } else { command }
    }
}

/// A running node, or one that was stopped and may be started again. It is killed when this value is dropped.
/// If the test has failed, the end of its log is printed; otherwise its log must have no errors.
pub struct Node {
    /// Name of the node.
    pub id: String,
    /// Address for clients, `host:port`.
    pub http: String,
    /// Address for other nodes, `host:port`, as printed in the ready line.
    pub gossip: String,
    /// The configuration that it was started with.
    pub config: NodeConfig,
    /// Errors in the log that contain one of these texts do not fail the test.
    pub allowed_errors: Vec<&'static str>,
    dir: Arc<tempfile::TempDir>,
    process: Background,
}

impl Node {
    /// Starts a node and waits for its ready line and until `/readyz` answers 200.
    pub fn start(config: NodeConfig) -> Node {
        let node = Node::spawn(config);
        node.wait_ready();
        node
    }

    /// Starts a node and waits for its ready line only.
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

    /// Starts a single node with the default configuration.
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

    /// Returns the node's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// Returns the gossip address that other nodes are told.
    pub fn advertised(&self) -> &str {
        self.config.advertise.as_deref().unwrap_or(&self.gossip)
    }

    /// Kills the node with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill();
        self.check_log();
    }

    /// Sends SIGTERM, waits until the node has ended, and returns its exit code.
    pub fn sigterm(&mut self) -> Option<i32> {
        self.process.signal("TERM");
        let code = self.process.wait(Duration::from_secs(15));
        self.check_log();
        code
    }

    /// Sends a signal, given by name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Returns the process, for everything that has no method here.
    pub fn process(&mut self) -> &mut Background {
        &mut self.process
    }

    /// Starts a stopped node again with the same name, ports and data directory, and waits until it is ready.
    pub fn restart(&mut self) {
        self.restart_unready();
        self.wait_ready();
    }

    /// Starts a stopped node again as `restart` does, but waits only for its ready line.
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

    /// Removes the data directory. The node must not be running.
    pub fn forget_data(&self) {
        let removed = std::fs::remove_dir_all(self.data_dir());
        assert!(removed.is_ok(), "data of {} cannot be removed: {removed:?}", self.id);
    }

    /// Returns how much RAM the process occupies, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Returns the processor time that the process has used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid())).unwrap_or_default();
        // The second field is the program's name in parentheses, which may contain spaces. The 14th and 15th
        // are user and system time in hundredths of a second.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Sends `GET path` to the node.
    pub fn get(&self, path: &str) -> Http {
        Http::get(&self.http, path)
    }

    /// Publishes one record over HTTP and returns the answer.
    pub fn post(&self, body: Value) -> Http {
        Http::post(&self.http, "/v1/publish", &body.to_string())
    }

    /// Publishes one record over HTTP and returns its timestamp. Fails unless it is applied.
    pub fn put(&self, source: &str, data: Value) -> u64 {
        let answer = self.post(serde_json::json!({"source": source, "data": data}));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["outcome"], "applied", "{answer:?}");
        answer.json()["ts"].as_u64().unwrap_or_default()
    }

    /// Returns the newest record of a source; `None` if readers see none.
    pub fn latest(&self, source: &str) -> Option<Value> {
        let path: Vec<String> = source.split('/').map(super::encode).collect();
        let answer = self.get(&format!("/v1/sources/{}", path.join("/")));
        (answer.status == 200).then(|| answer.json())
    }

    /// Returns all records that readers see and that match `pattern`, ordered by name. They are read page by
    /// page.
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

    /// Returns the value of a metric; 0 if it has none yet.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.get("/metrics").body, name, labels).unwrap_or(0.0)
    }

    /// Returns the state of the member `id` as this node sees it.
    pub fn member_state(&self, id: &str) -> Option<String> {
        let answer = Http::attempt(&self.http, "GET", "/v1/members", &[], b"").ok()?;
        let members = answer.json();
        let member = members["members"].as_array()?.iter().find(|member| member["id"] == id)?.clone();
        member["state"].as_str().map(str::to_owned)
    }

    /// Waits until this node sees `id` in the given state.
    pub fn wait_member(&self, id: &str, state: &str, within: Duration) {
        eventually(&format!("{} sees {id} as {state}", self.id), within, || {
            (self.member_state(id).as_deref() == Some(state)).then_some(())
        });
    }

    /// Returns how many members this node sees alive, including itself.
    pub fn alive(&self) -> usize {
        let Ok(answer) = Http::attempt(&self.http, "GET", "/v1/members", &[], b"") else { return 0 };
        let members = answer.json();
        let list = members["members"].as_array().cloned().unwrap_or_default();
        list.iter().filter(|member| member["state"] == "alive").count()
    }

    /// Waits until this node sees `count` members alive, including itself.
    pub fn wait_alive(&self, count: usize) {
        eventually(&format!("{} sees {count} alive", self.id), PATIENCE, || {
            (self.alive() == count).then_some(())
        });
    }

    /// Waits until the newest record of `source` at this node has this `ts`.
    pub fn wait_ts(&self, source: &str, ts: u64) {
        eventually(&format!("{} holds {source} of {ts}", self.id), PATIENCE, || {
            self.latest(source).filter(|record| record["ts"] == ts)
        });
    }

    /// Opens a connection to `/publish` and reads the first message.
    pub fn publisher(&self) -> Client {
        Client::open(&self.http, "/publish")
    }

    /// Opens a connection to `/subscribe?query` and reads the first message.
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

/// Reads the line `ready node=ID http=ADDR gossip=ADDR` and returns its three values.
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

/// Several nodes that form a cluster.
pub struct Cluster {
    /// The nodes, named `a`, `b`, `c`, …. All join through the first.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts `count` nodes and waits until each sees all of them alive.
    pub fn start(count: usize) -> Cluster {
        Cluster::start_with(count, &[])
    }

    /// Starts a cluster whose nodes all have further flags.
    pub fn start_with(count: usize, flags: &[&str]) -> Cluster {
        Cluster::configured(count, |config| config.with(flags))
    }

    /// Starts a cluster whose nodes have configurations that are changed by `change`.
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

    /// Waits until all nodes return the same records that match `pattern`, and returns these.
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
