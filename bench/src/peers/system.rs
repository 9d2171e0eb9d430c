//! The systems that are measured, and how a server of each is started, alone on its core.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::plan::{Format, Target, Transport};

use super::install::Programs;

/// The core that servers run on, and the load's.
pub const SERVER_CORE: usize = 0;
/// The load's.
pub const LOAD_CORE: usize = 1;

/// How long a server may take to listen.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Clone, Debug)]
pub struct System {
    /// In tables.
    pub name: &'static str,
    /// Of its program, as that says it.
    pub version: String,
    /// The kind of server.
    kind: Kind,
    program: PathBuf,
    modules: PathBuf,
}

/// Kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With these options, in this format.
    Anode(&'static [&'static str], bool),
    /// A relay of this program's own.
    Relay(bool),
    /// NATS over WebSocket.
    Nats,
    /// Redis over TCP.
    Redis,
    /// Mosquitto over WebSocket.
    Mosquitto,
    /// uWebSockets in Bun.
    Bun,
    /// ws on node.
    Ws,
}

const MEMORY: &[&str] = &["--store", "memory", "--workers", "1"];
const EMBEDDED: &[&str] = &["--store", "embedded", "--workers", "1"];
const BUSY_POLL: &[&str] = &["--store", "memory", "--workers", "1", "--busy-poll-us", "150"];
const TWO_WORKERS: &[&str] = &["--store", "memory", "--workers", "2"];

/// Names in tables.
pub const ANODE: &str = "aNode";
/// In protobuf.
pub const PROTOBUF: &str = "aNode, protobuf";
/// With the embedded store.
pub const STORED: &str = "aNode, embedded store";
/// Looking for what comes next before it sleeps.
pub const BUSY: &str = "aNode, busy poll";
/// With two workers, on two cores.
pub const TWO: &str = "aNode, two workers";
/// The bare relay.
pub const LIMIT: &str = "limit: bare relay";
/// The bare relay that writes every frame by itself.
pub const SINGLY: &str = "the same, a write a frame";
/// NATS.
pub const NATS: &str = "NATS, WebSocket";

/// All systems that there are programs for; of the others, why not.
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

/// A running server; it ends with this.
pub struct Server {
    process: Child,
    /// `host:port` of its clients.
    pub address: String,
}

impl System {
    /// Whether it is one of those that the figures compare with.
    pub fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Anode(..) | Kind::Relay(_))
    }

    /// What the generator must speak.
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
                // What is written for a client may wait as long as it may elsewhere.
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
                // 2.0.11 does not start if it has no listener but for WebSockets.
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
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn wait_listening(&mut self, name: &str, folder: &Path) -> Outcome<()> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            if TcpStream::connect(&self.address).is_ok() {
                // What is to be loaded or warmed before the first client is.
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
        // Already over is as good as killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody has at this instant.
fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
