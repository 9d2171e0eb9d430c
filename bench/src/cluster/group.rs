//! Servers that form one cluster: aNode's nodes, or nats-servers joined by routes.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::machine::cpu_seconds;

use crate::node;
use crate::propagation::Cluster;

/// How long the servers may take to find each other.
const DEADLINE: Duration = Duration::from_secs(60);
/// Number of times that the servers of NATS are started if they do not find each other.
const STARTS_MAX: usize = 3;

/// Servers are at rest while all of them together use fewer cores than this.
const RESTING_CORES: f64 = 0.1;
/// Interval over which the processor time of the servers is measured.
const SETTLE_LOOK: Duration = Duration::from_millis(500);
/// How long to wait at most until servers are at rest.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// A running cluster. The servers are killed when this is dropped.
pub enum Group {
    /// Nodes of aNode.
    Anode(Cluster),
    /// Servers of NATS, joined by routes.
    Nats(Vec<Nats>),
}

impl Group {
    /// Returns the addresses for clients, one for each server.
    pub fn addresses(&self) -> Vec<String> {
        match self {
            Group::Anode(cluster) => cluster.nodes.iter().map(|node| node.http.clone()).collect(),
            Group::Nats(servers) => servers.iter().map(|server| server.client.clone()).collect(),
        }
    }

    /// Returns the process ids of the servers.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Group::Anode(cluster) => cluster.nodes.iter().map(node::Node::pid).collect(),
            Group::Nats(servers) => servers.iter().map(|server| server.process.id()).collect(),
        }
    }

    /// Waits until the servers are at rest, so that work left by one rate does not count for the next.
    pub fn settle(&self) -> Outcome<()> {
        let pids = self.pids();
        let begun = Instant::now();
        let mut before_s = cpu_seconds(&pids)?;
        while begun.elapsed() < SETTLE_MAX {
            std::thread::sleep(SETTLE_LOOK);
            let now_s = cpu_seconds(&pids)?;
            if now_s - before_s < RESTING_CORES * SETTLE_LOOK.as_secs_f64() {
                return Ok(());
            }
            before_s = now_s;
        }
        println!("    {} servers were still busy after {SETTLE_MAX:?}", pids.len());
        Ok(())
    }

    /// Returns how many bytes the servers have sent to each other so far. aNode counts the headers of
    /// datagrams, too, NATS only messages.
    pub fn bytes_between(&self) -> Outcome<f64> {
        match self {
            Group::Anode(cluster) => Ok(cluster.traffic()?.bytes),
            Group::Nats(servers) => servers.iter().map(Nats::bytes_sent).sum(),
        }
    }
}

/// One nats-server of a cluster.
pub struct Nats {
    process: Child,
    client: String,
    monitor: String,
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It does not matter if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nats {
    /// Starts `count` servers that know each other. An address that was free may be taken by a connection before its
    /// server listens there, and the server ends: then all are started again.
    pub fn start(program: &Path, folder: &Path, count: usize) -> Outcome<Vec<Nats>> {
        for _ in 1..STARTS_MAX {
            match Nats::start_once(program, folder, count) {
                Ok(servers) => return Ok(servers),
                Err(error) => println!("    NATS is started again: {error}"),
            }
        }
        Nats::start_once(program, folder, count)
    }

    fn start_once(program: &Path, folder: &Path, count: usize) -> Outcome<Vec<Nats>> {
        std::fs::create_dir_all(folder)?;
        let routes: Vec<String> = (0..count).map(|_| free_address()).collect::<Outcome<_>>()?;
        let all = routes.iter().map(|route| format!("\"nats://{route}\"")).collect::<Vec<_>>().join(", ");
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let (plain, client, monitor) = (free_address()?, free_address()?, free_address()?);
            let text = format!(
                "listen: \"{plain}\"\nhttp: \"{monitor}\"\nserver_name: \"n{number}\"\nmax_pending: 1GB\n\
                websocket {{ listen: \"{client}\", no_tls: true, compression: false }}\n\
                cluster {{ name: \"bench\", listen: \"{route}\", routes: [{all}] }}\n"
            );
            let config = folder.join(format!("{number}.conf"));
            std::fs::write(&config, text)?;
            let process = Command::new(program)
                .arg("-c")
                .arg(config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            servers.push(Nats { process, client, monitor });
        }
        for server in &servers {
            server.wait_routes(count - 1)?;
        }
        Ok(servers)
    }

    fn wait_routes(&self, count: usize) -> Outcome<()> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let peers = self.routes().map(|routes| {
                let mut peers: Vec<_> =
                    routes.iter().filter_map(|route| route["remote_id"].as_str()).collect();
                peers.sort_unstable();
                peers.dedup();
                peers.len()
            });
            if peers.is_ok_and(|peers| peers >= count) && TcpStream::connect(&self.client).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("{} has not {count} peers after {DEADLINE:?}", self.monitor).into())
    }

    fn routes(&self) -> Outcome<Vec<serde_json::Value>> {
        // HTTP 1.0 has no chunks, so the body comes in one piece.
        let answer = node::get(&self.monitor, "/routez", "1.0")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let answer: serde_json::Value = serde_json::from_str(body)?;
        Ok(answer["routes"].as_array().cloned().unwrap_or_default())
    }

    fn bytes_sent(&self) -> Outcome<f64> {
        Ok(self.routes()?.iter().filter_map(|route| route["out_bytes"].as_f64()).sum())
    }
}

/// Returns an address of loopback on which nobody listens at the moment.
fn free_address() -> Outcome<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
