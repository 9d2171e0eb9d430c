//! The systems that are measured, and how a server of each is started, alone on its core.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::plan::{Format, Target, Transport};

use super::install::Programs;

/// The core on which servers run.
pub const SERVER_CORE: usize = 0;
/// The core on which the load runs.
pub const LOAD_CORE: usize = 1;

/// How long a server may take to listen.
const DEADLINE: Duration = Duration::from_secs(20);

/// A system that is measured.
#[derive(Clone, Debug)]
pub struct System {
    /// Name of the system in tables.
    pub name: &'static str,
    /// Version of the program, as it prints it.
    pub version: String,
    /// The kind of server, which decides how it is started.
    kind: Kind,
    program: PathBuf,
    modules: PathBuf,
}

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node with these options, and clients that use this format.
    Anode(&'static [&'static str], bool),
    /// The relay that this program has itself; the flag tells whether it writes every frame by itself.
    Relay(bool),
    /// A nats-server, over WebSocket.
    Nats,
    /// A redis-server, over TCP.
    Redis,
    /// Mosquitto over WebSocket.
    Mosquitto,
    /// A relay on uWebSockets in Bun.
    Bun,
    /// A relay on the package ws of node.
    Ws,
}

const MEMORY: &[&str] = &["--store", "memory", "--workers", "1"];
const EMBEDDED: &[&str] = &["--store", "embedded", "--workers", "1"];
const BUSY_POLL: &[&str] = &["--store", "memory", "--workers", "1", "--busy-poll-us", "150"];
const TWO_WORKERS: &[&str] = &["--store", "memory", "--workers", "2"];

/// Name in tables of aNode with JSON and a store in memory.
pub const ANODE: &str = "aNode";
/// Name in tables of aNode with protobuf.
pub const PROTOBUF: &str = "aNode, protobuf";
/// Name in tables of aNode with the embedded store.
pub const STORED: &str = "aNode, embedded store";
/// Name in tables of aNode that polls for a while before it sleeps.
pub const BUSY: &str = "aNode, busy poll";
/// Name in tables of aNode with two workers on two cores.
pub const TWO: &str = "aNode, two workers";
/// Name in tables of the bare relay.
pub const LIMIT: &str = "limit: bare relay";
/// Name in tables of the bare relay that writes every frame by itself.
pub const SINGLY: &str = "the same, a write a frame";
/// Name in tables of NATS.
pub const NATS: &str = "NATS, WebSocket";

/// Returns all systems whose programs are there, and of the others why they are not.
pub fn systems(anode: &Path, version: &str, programs: &Programs) -> (Vec<System>, Vec<String>) {
    let own = std::env::current_exe().unwrap_or_default();
    let here = |name, kind, program: &Path, version: &str| System {
        name,
        version: version.to_owned(),
        kind,
        program: program.to_owned(),
        modules: programs.modules.clone(),
    };
    let mut found = vec![
        here(ANODE, Kind::Anode(MEMORY, false), anode, version),
        here(PROTOBUF, Kind::Anode(MEMORY, true), anode, version),
        here(STORED, Kind::Anode(EMBEDDED, false), anode, version),
        here(BUSY, Kind::Anode(BUSY_POLL, false), anode, version),
        here(TWO, Kind::Anode(TWO_WORKERS, false), anode, version),
        here(LIMIT, Kind::Relay(false), &own, version),
        here(SINGLY, Kind::Relay(true), &own, version),
    ];
    let mut missing = Vec::new();
    let others = [
        (NATS, Kind::Nats, &programs.nats),
        ("Redis, TCP", Kind::Redis, &programs.redis),
        ("uWebSockets (Bun)", Kind::Bun, &programs.bun),
        ("Mosquitto, WebSocket", Kind::Mosquitto, &programs.mosquitto),
        ("node ws", Kind::Ws, &programs.node),
    ];
    for (name, kind, program) in others {
        match program {
            Ok((program, version)) => found.push(here(name, kind, program, version)),
            Err(reason) => missing.push(format!("{name}: NOT MEASURED: {reason}")),
        }
    }
    (found, missing)
}

/// A running server. It is killed when this is dropped.
pub struct Server {
    process: Child,
    /// Address for clients, `host:port`.
    pub address: String,
}

impl System {
    /// Returns whether aNode's figures are compared with those of this system.
    pub fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Anode(..) | Kind::Relay(_))
    }

    /// Returns the options of the load generator for this kind of server.
    pub fn speaks(&self) -> (Target, Transport, Format) {
        match self.kind {
            Kind::Anode(_, true) => (Target::Anode, Transport::Ws, Format::Protobuf),
            Kind::Anode(..) | Kind::Relay(_) | Kind::Bun | Kind::Ws => {
                (Target::Anode, Transport::Ws, Format::Json)
            }
            Kind::Nats => (Target::Nats, Transport::Ws, Format::Json),
            Kind::Redis => (Target::Redis, Transport::Tcp, Format::Json),
            Kind::Mosquitto => (Target::Mqtt, Transport::Ws, Format::Json),
        }
    }

    /// Starts a server with its data in `folder` and waits until it listens.
    pub fn start(&self, folder: &Path) -> Outcome<Server> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let cores = if self.name == TWO { "0,1".to_owned() } else { SERVER_CORE.to_string() };
        let mut command = Command::new("taskset");
        command.args(["-c", &cores]).arg(&self.program).current_dir(folder);
        self.arguments(&mut command, folder, port)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let process = command.stdout(log.try_clone()?).stderr(log).spawn();
        let process = process.map_err(|error| format!("starting taskset for {}: {error}", self.name))?;
        let mut server = Server { process, address };
        server.wait_listening(self.name, folder)?;
        Ok(server)
    }

    fn arguments(&self, command: &mut Command, folder: &Path, port: u16) -> Outcome<()> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/websocket");
        let port_text = port.to_string();
        let address = format!("127.0.0.1:{port}");
        match self.kind {
            Kind::Anode(options, _) => {
                command.args(["serve", "--http", &address, "--gossip", "127.0.0.1:0", "--log-level", "warn"]);
                command.args(options).arg("--data-dir").arg(folder.join("data"))
            }
            Kind::Relay(is_singly) => {
                command.args(["relay", "--listen", &address]);
                command.args(if is_singly { &["--singly"][..] } else { &[] })
            }
            Kind::Nats => {
                let config = folder.join("nats.conf");
                // A client may have as much waiting as with the other systems.
                let text = format!(
                    "listen: \"127.0.0.1:{}\"\nmax_pending: 1GB\nmax_connections: 200000\n\
                    websocket {{ listen: \"{address}\", no_tls: true, compression: false }}\n",
                    free_port()?
                );
                std::fs::write(&config, text)?;
                command.arg("-c").arg(config)
            }
            Kind::Redis => command
                .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(["--maxclients", "100000", "--client-output-buffer-limit", "pubsub 0 0 0"]),
            Kind::Mosquitto => {
                let config = folder.join("mosquitto.conf");
                // Version 2.0.11 does not start if its only listener is for WebSockets.
                let plain = free_port()?;
                let text = format!(
                    "listener {plain} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n\
                    max_queued_messages 0\nmax_queued_bytes 0\npersistence false\nset_tcp_nodelay true\n"
                );
                std::fs::write(&config, text)?;
                command.arg("-c").arg(config)
            }
            Kind::Bun => command.arg(scripts.join("uwebsockets.js")).arg(&port_text),
            Kind::Ws => command.env("NODE_PATH", &self.modules).arg(scripts.join("ws.cjs")).arg(&port_text),
        };
        Ok(())
    }
}

impl Server {
    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn wait_listening(&mut self, name: &str, folder: &Path) -> Outcome<()> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            if TcpStream::connect(&self.address).is_ok() {
                // The server may still load or warm up something that belongs before the first client.
                std::thread::sleep(Duration::from_millis(200));
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("{name} ended with {status}: {}", log.trim_end()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{name} does not listen on {} after {DEADLINE:?}", self.address).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It does not matter if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a port that is free at the moment.
fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
