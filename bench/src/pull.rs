//! What pull sources cost: processor time of a node that asks a server once a second for each of many, the time until
//! another member goes on with those of a member that was killed, and whether a node that has no definitions starts as fast as one
//! that has many, and as another program.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use serde_json::Value;

use crate::machine::{Machine, cpu_s};
use crate::median::median;
use crate::node::{Node, get};

/// The arguments of `anode-bench pull`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The anode binary
    #[arg(long, default_value = "target/release/anode")]
    anode: PathBuf,
    /// Pull sources of the node whose processor time is measured
    #[arg(long, default_value_t = 1_000)]
    sources: usize,
    /// Seconds for which it is measured
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Members that are killed, one after another, to see how soon others go on
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Starts of a node of each sort, in turns: in an empty folder, without definitions, and with as many pull sources as
    /// `--sources` says; medians are told
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Another anode binary, such as one from before a change, whose starts without definitions take turns with the others
    #[arg(long)]
    beside: Option<PathBuf>,
}

/// Longest wait for anything that should take seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pull sources of the cluster whose members are killed.
const MOVING: usize = 30;
/// Members of that cluster.
const MEMBERS: usize = 3;
/// Most cores that the contract allows a thousand pull sources.
const CORES_MAX: f64 = 0.5;
/// Longest time in milliseconds that 99 of 100 pull sources may take to move, by the contract.
const MOVED_MS_MAX: u128 = 5_000;
/// Options of every node here: the disk of the machine is not what is measured.
const QUIET: [&str; 4] = ["--store", "memory", "--log-level", "error"];
/// A definition of each of the other kinds, by the path at which it is put.
const OTHER_KINDS: [(&str, &str); 3] = [
    ("/v1/middleware/m", r#"{"on":"none/*","cel":"data"}"#),
    ("/v1/archive/a", r#"{"kind":"ipfs","api":"http://127.0.0.1:9","every":"1h","pattern":"none/*"}"#),
    ("/v1/hook/h", r#"{"on":"none/*","url":"http://127.0.0.1:9/"}"#),
];

/// The last request for each path, with the time at which its connection was opened.
type LastAsked = Arc<Mutex<BTreeMap<String, Instant>>>;

/// A server that answers every request with another number.
struct Server {
    addr: String,
    opened: LastAsked,
    count: Arc<std::sync::atomic::AtomicU64>,
}

impl Server {
    fn start() -> Outcome<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = Server {
            addr: listener.local_addr()?.to_string(),
            opened: LastAsked::default(),
            count: Arc::default(),
        };
        let (opened, count) = (server.opened.clone(), server.count.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (opened, count) = (opened.clone(), count.clone());
                let answers = move || drop(answer_all(stream, &opened, &count));
                // A thousand threads that wait take no more than their stacks.
                let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(answers);
            }
        });
        Ok(server)
    }

    /// Returns whether a path was asked for over a connection that was opened after a moment.
    fn was_asked_anew(&self, path: &str, since: Instant) -> bool {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.get(path).is_some_and(|opened| *opened > since)
    }

    fn count(&self) -> u64 {
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn answer_all(
    mut stream: TcpStream,
    opened: &LastAsked,
    count: &std::sync::atomic::AtomicU64,
) -> std::io::Result<()> {
    let opened_at = Instant::now();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        opened.lock().unwrap_or_else(PoisonError::into_inner).insert(path, opened_at);
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let body = format!("{{\"value\":{number},\"unit\":\"celsius\"}}");
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes())?;
    }
}

/// Puts a pull source that asks for a path of a server at an interval.
fn put(node: &Node, name: &str, server: &str, every: &str) -> Outcome<()> {
    let body = format!(
        "{{\"kind\":\"http\",\"every\":\"{every}\",\"url\":\"http://{server}/{name}\",\"records\":[{{\"source\":\"bench/{name}\"}}]}}",
    );
    put_definition(node, &format!("/v1/pull/{name}"), &body)
}

/// Puts a definition in JSON at its path.
fn put_definition(node: &Node, path: &str, body: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(&node.http)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let host = &node.http;
    let head = format!("PUT {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // An answer that came too late says that the definition was taken.
    match answer.starts_with("HTTP/1.1 200") || answer.contains("\"applied\":true") {
        true => Ok(()),
        false => Err(answer.into()),
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        // A node that is starting may not answer.
        if is_so().unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("not within {PATIENCE:?}: {what}").into())
}

/// Measures what is asked for, and prints the figures. Fails if one is beyond what the contract allows.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    println!("{}", Machine::look(&arguments.anode)?);
    if arguments.starts > 0 {
        measure_starts(arguments)?;
    }
    if arguments.sources > 0 && arguments.seconds > 0 {
        measure_cost(arguments)?;
    }
    match arguments.kills {
        0 => Ok(()),
        _ => measure_moves(arguments),
    }
}

/// A node that is started again and again, with an embedded store.
struct Starter {
    /// What the node finds in its folder, for people.
    what: String,
    anode: PathBuf,
    data: PathBuf,
    /// The folder is removed before each start.
    is_emptied: bool,
    /// Times in milliseconds from the start of the process until the node answers that it is ready.
    times_ms: Vec<f64>,
}

impl Starter {
    fn start(&self) -> Outcome<Node> {
        let node = Node::start(&self.anode, &self.data, &["--log-level", "error"])?;
        node.wait_ready(PATIENCE)?;
        Ok(node)
    }

    fn measure(&mut self) -> Outcome<()> {
        if self.is_emptied {
            std::fs::remove_dir_all(&self.data)?;
        }
        let begun = Instant::now();
        let node = self.start()?;
        self.times_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        drop(node);
        Ok(())
    }
}

/// Puts pull sources that ask for nothing for an hour, and a definition of each other kind.
fn put_all(node: &Node, sources: usize) -> Outcome<()> {
    for source in 0..sources {
        put(node, &format!("s{source}"), "127.0.0.1:9", "1h")?;
    }
    OTHER_KINDS.iter().try_for_each(|(path, body)| put_definition(node, path, body))
}

/// Starts nodes in turns: in an empty folder, with a store that has no definitions, and with one that has definitions of all
/// kinds. If there is a program beside, it starts without definitions, too.
fn measure_starts(arguments: &Arguments) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut starters: Vec<Starter> = Vec::new();
    let mut add = |what: String, anode: &Path, is_emptied: bool| {
        let data = folder.path().join(starters.len().to_string());
        starters.push(Starter { what, anode: anode.to_owned(), data, is_emptied, times_ms: Vec::new() });
    };
    let beside = arguments.beside.as_ref().map(|beside| (beside, ", by the program beside"));
    for (anode, by) in [(&arguments.anode, "")].into_iter().chain(beside) {
        add(format!("in an empty folder{by}"), anode, true);
        add(format!("without definitions{by}"), anode, false);
    }
    add(
        format!("with {} pull sources and a definition of each other kind", arguments.sources),
        &arguments.anode,
        false,
    );
    for (index, starter) in starters.iter().enumerate() {
        let node = starter.start()?;
        if index + 1 == starters.len() {
            put_all(&node, arguments.sources)?;
        }
    }
    for _ in 0..arguments.starts {
        for starter in &mut starters {
            starter.measure()?;
        }
    }
    for starter in &starters {
        let (starts, time_ms) = (starter.times_ms.len(), median(&starter.times_ms));
        println!("{starts} starts {}: {time_ms:.1} ms until ready", starter.what);
    }
    Ok(())
}

fn measure_cost(arguments: &Arguments) -> Outcome<()> {
    let (server, folder) = (Server::start()?, tempfile::tempdir()?);
    let node = Node::start(&arguments.anode, folder.path(), &QUIET)?;
    node.wait_ready(PATIENCE)?;
    let idle = processor_share(&node, 5);
    for source in 0..arguments.sources {
        put(&node, &format!("s{source}"), &server.addr, "1s")?;
    }
    wait("all pull sources run", || Ok(node.metric("anode_pull_running")? >= arguments.sources as f64))?;
    std::thread::sleep(Duration::from_secs(5));
    let before = server.count();
    let busy = processor_share(&node, arguments.seconds);
    let polls = (server.count() - before) as f64 / arguments.seconds as f64;
    let errors = node.metric("anode_pull_errors_total")?;
    println!(
        "{} pull sources, {polls:.0} requests a second, {errors} errors: {busy:.3} cores, {idle:.3} without",
        arguments.sources
    );
    match arguments.sources > 1_000 || busy <= CORES_MAX {
        true => Ok(()),
        false => Err(format!("{busy:.3} cores; at most {CORES_MAX}").into()),
    }
}

/// Returns how many cores a node uses on average over some seconds.
fn processor_share(node: &Node, seconds: u64) -> f64 {
    let (begun, before) = (Instant::now(), cpu_s(node.pid()));
    std::thread::sleep(Duration::from_secs(seconds));
    (cpu_s(node.pid()) - before) / begun.elapsed().as_secs_f64()
}

fn measure_moves(arguments: &Arguments) -> Outcome<()> {
    let (server, folder) = (Server::start()?, tempfile::tempdir()?);
    let start = |index: usize, seeds: &str| -> Outcome<Node> {
        let name = format!("n{index}");
        let mut flags = vec!["--node-name", &name];
        flags.extend(QUIET);
        if !seeds.is_empty() {
            flags.extend(["--join", seeds]);
        }
        Node::start(&arguments.anode, &folder.path().join(&name), &flags)
    };
    let mut nodes = vec![start(0, "")?];
    for index in 1..MEMBERS {
        let seeds = nodes[0].gossip.clone();
        nodes.push(start(index, &seeds)?);
    }
    for source in 0..MOVING {
        put(&nodes[0], &format!("m{source}"), &server.addr, "100ms")?;
    }
    let mut moves_ms = Vec::new();
    for kill in 0..arguments.kills {
        wait("every pull source is run once, by the member that is elected", || is_settled(&nodes))?;
        let victim = kill % MEMBERS;
        let survivor = (victim + 1) % MEMBERS;
        let moving = run_by(&nodes[survivor], &format!("n{victim}"))?;
        let seeds = nodes[survivor].gossip.clone();
        let killed = Instant::now();
        nodes.remove(victim).kill()?;
        for name in &moving {
            wait("another member goes on", || Ok(server.was_asked_anew(&format!("/{name}"), killed)))?;
            moves_ms.push(killed.elapsed().as_millis());
        }
        nodes.insert(victim, start(victim, &seeds)?);
        for node in &nodes {
            node.wait_ready(PATIENCE)?;
            node.wait_members(MEMBERS, PATIENCE)?;
        }
    }
    moves_ms.sort_unstable();
    let quantile = |share: f64| moves_ms.get((moves_ms.len() as f64 * share) as usize).copied().unwrap_or(0);
    let (kills, moves, most) = (arguments.kills, moves_ms.len(), moves_ms.last().copied().unwrap_or(0));
    let (half, p99) = (quantile(0.5), quantile(0.99));
    println!("{kills} kills, {moves} pull sources moved: median {half} ms, p99 {p99} ms, most {most} ms");
    match p99 <= MOVED_MS_MAX {
        true => Ok(()),
        false => Err(format!("p99 {p99} ms; at most {MOVED_MS_MAX}").into()),
    }
}

/// Returns whether all members run all pull sources among them, each as many as every member says that it should.
fn is_settled(nodes: &[Node]) -> Outcome<bool> {
    let mut running = 0.0;
    for (index, node) in nodes.iter().enumerate() {
        let own = node.metric("anode_pull_running")?;
        running += own;
        for other in nodes {
            if own == 0.0 || run_by(other, &format!("n{index}"))?.len() as f64 != own {
                return Ok(false);
            }
        }
    }
    Ok(running == MOVING as f64)
}

/// Returns the names of the pull sources that a member runs.
fn run_by(node: &Node, member: &str) -> Outcome<Vec<String>> {
    let answer = get(&node.http, "/v1/pull", "1.0")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).ok_or("no body")?;
    let all: Value = serde_json::from_str(body)?;
    let all = all["pull"].as_array().ok_or("no list")?;
    let names = all.iter().filter(|one| one["runner"] == member).filter_map(|one| one["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
