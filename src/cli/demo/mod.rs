//! `anode demo`: runs a whole cluster in one process to watch it.
//!
//! It starts N real nodes on loopback, each with its own sockets and a store in a temporary folder. One
//! thread ([`feed`]) publishes figures of this machine at the first node. Another ([`watch`]) subscribes at
//! the last node, measures how long the records took, and counts those that are missing or came twice. After ten seconds
//! the second node is killed, and a little later it is started again: the list of members shows it, the feed goes on, and
//! the demo tells when the second node holds what the first one does ([`catch_up`]). The main thread draws the screen
//! ([`screen`]).

mod catch_up;
mod feed;
mod figures;
mod screen;
mod watch;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::client::{Interrupt, NodeUrl, TrustArguments};
use super::machine::this_machine;
use super::members::{self, Member};
use super::serve::start_log;
use super::{CliError, whole_number};
use crate::config::{Config, Raw, check};
use crate::server::{Node, NodeHandle, clock};

/// Most nodes. Each has threads and files of its own.
const NODES_MAX: u64 = 64;
/// Address of the first node, if it is free. The other commands use it by default and then need no URL.
const FIRST_ADDRESS: &str = "127.0.0.1:7070";
/// When the second node is killed and when it is started again, in microseconds from the start.
const OUTAGE_US: (u64, u64) = (10_000_000, 18_000_000);
/// Interval at which the screen is drawn on a terminal, and at which a line is printed elsewhere, in
/// microseconds.
const DRAW_US: u64 = 250_000;
const LINE_US: u64 = 1_000_000;

/// The arguments of `anode demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode demo\n\
    \x20 anode demo --nodes 5 --seconds 30 | cat\n\n\
    The first node serves its page and all commands at 127.0.0.1:7070, unless that port is taken.")]
pub struct Arguments {
    /// Number of nodes, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = whole_number(1..=NODES_MAX))]
    nodes: u64,
    /// End after this number of seconds [default: run until Ctrl-C]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = whole_number(1..=u64::MAX))]
    seconds: Option<u64>,
    /// PEM file of a certificate of 127.0.0.1, with which the nodes speak TLS [default: the nodes speak plainly]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<String>,
    /// PEM file of the private key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
}

/// Runs the demo until Ctrl-C, or for as long as asked.
pub fn run(arguments: Arguments) -> Result<(), CliError> {
    let interrupt = Interrupt::watch()?;
    let folder = Folder::make()?;
    let mut cluster = Cluster::start(&arguments, folder.path())?;
    let ending = Arc::new(AtomicBool::new(false));
    let (first, last) = (cluster.endpoint(0)?, cluster.endpoint(cluster.configs.len() - 1)?);
    let seen = Arc::new(watch::Seen::default());
    let feeder = thread::Builder::new().name("feed".into()).spawn({
        let (ending, first) = (ending.clone(), first.clone());
        move || feed::run(&first, &ending)
    })?;
    let watcher = thread::Builder::new().name("watch".into()).spawn({
        let (ending, seen) = (ending.clone(), seen.clone());
        move || watch::run(last, &seen, &ending)
    })?;
    let drawn = show(&mut cluster, &first, &seen, &interrupt, arguments.seconds);
    ending.store(true, Relaxed);
    let ended = [feeder.join(), watcher.join()].into_iter().any(|joined| joined.is_err());
    cluster.kill();
    drop(folder);
    match ended {
        true => Err(CliError::Failed("a thread of the demo panicked".into())),
        false => drawn,
    }
}

/// Draws the screen, and kills and restarts the second node, until the demo ends.
fn show(
    cluster: &mut Cluster,
    first: &NodeUrl,
    seen: &watch::Seen,
    interrupt: &Interrupt,
    seconds: Option<u64>,
) -> Result<(), CliError> {
    let started_us = clock::mono_us();
    let mut screen = screen::Screen::new();
    let every_us = if screen.is_terminal() { DRAW_US } else { LINE_US };
    let mut draw_at_us = 0;
    while !interrupt.came() {
        let up_us = clock::mono_us() - started_us;
        if seconds.is_some_and(|seconds| up_us >= seconds * 1_000_000) {
            break;
        }
        cluster.play(up_us)?;
        if up_us >= draw_at_us {
            draw_at_us = up_us - up_us % every_us + every_us;
            // If the member list cannot be read this time, it is read again for the next drawing.
            let members = members::ask(first).unwrap_or_default();
            cluster.look_at_second(up_us, first);
            let told = cluster.told(up_us, first, members)?;
            match screen.draw(&told, seen) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                other => other?,
            }
        }
        clock::sleep(20_000);
    }
    Ok(())
}

/// The nodes of the demo, and a line that tells what is happening to them.
struct Cluster {
    configs: Vec<Config>,
    nodes: Vec<Option<NodeHandle>>,
    trust: TrustArguments,
    story: String,
    /// Tells that a port was taken, if one was.
    notice: Option<String>,
    /// Whether the second node was started again and may not hold everything yet.
    is_catching_up: bool,
}

impl Cluster {
    fn start(arguments: &Arguments, folder: &Path) -> Result<Cluster, CliError> {
        let mut cluster = Cluster {
            configs: Vec::new(),
            nodes: Vec::new(),
            trust: arguments.trust.clone(),
            story: match arguments.nodes {
                0..3 => "all nodes run".into(),
                _ => "all nodes run; node-2 will be killed after 10 s".into(),
            },
            notice: None,
            is_catching_up: false,
        };
        let ports = ports(arguments.nodes)?;
        let origins = origins(&ports, arguments.tls_cert.is_some());
        for (number, port) in (1..=arguments.nodes).zip(ports) {
            let join = cluster.nodes.iter().flatten().next().map(|node| node.gossip.to_string());
            let configured = |http: &str| -> Result<Config, CliError> {
                let raw = Raw {
                    http: Some(http.into()),
                    tls_cert: arguments.tls_cert.as_deref().map(Into::into),
                    tls_key: arguments.tls_key.as_deref().map(Into::into),
                    gossip: Some("127.0.0.1:0".into()),
                    join: join.as_deref().map(Into::into),
                    cluster_name: Some("anode-demo".into()),
                    node_name: Some(format!("node-{number}").as_str().into()),
                    data_dir: Some(folder.join(format!("node-{number}")).to_string_lossy().as_ref().into()),
                    workers: Some("1".into()),
                    // The page of a node that is killed goes on at another one.
                    allow_origin: Some(origins.as_str().into()),
                    max_memory: Some("256MiB".into()),
                    max_client_memory: Some("64MiB".into()),
                    profile: Some("local".into()),
                    log_level: Some("error".into()),
                    ..Raw::default()
                };
                Ok(check(&raw, this_machine())?)
            };
            let any = configured(&format!("127.0.0.1:{port}"))?;
            if number == 1 {
                let _ = start_log(&any);
            }
            let node = match number {
                1 => Node::start(configured(FIRST_ADDRESS)?).or_else(|error| {
                    let node = Node::start(any.clone())
                        .or_else(|_| Node::start(configured("127.0.0.1:0")?).map_err(CliError::from))?;
                    tracing::debug!(%error, "the usual address cannot be had");
                    cluster.notice =
                        Some(format!("{FIRST_ADDRESS} is taken: node-1 is at {} instead", node.http));
                    Ok::<_, CliError>(node)
                })?,
                // A program that has taken the port meanwhile is evaded. The pages of the others are not allowed there.
                _ => Node::start(any.clone())
                    .or_else(|_| Node::start(configured("127.0.0.1:0")?).map_err(CliError::from))?,
            };
            node.wait_loaded()?;
            // The node has ports of its own now. With them, a restarted node is reachable at the same
            // addresses.
            cluster.configs.push(Config { http: node.http, gossip: node.gossip, ..any });
            cluster.nodes.push(Some(node));
        }
        Ok(cluster)
    }

    fn endpoint(&self, index: usize) -> Result<NodeUrl, CliError> {
        let config = self.configs.get(index).ok_or_else(|| CliError::Failed("no such node".into()))?;
        let scheme = if config.tls.is_some() { "wss" } else { "ws" };
        NodeUrl::parse(&format!("{scheme}://{}", config.http), "from", &self.trust)
    }

    /// Returns what is drawn.
    fn told(&self, up_us: u64, first: &NodeUrl, members: Vec<Member>) -> Result<screen::Told, CliError> {
        let last = self.endpoint(self.configs.len() - 1)?;
        Ok(screen::Told {
            up_us,
            nodes: self.configs.len(),
            page: first.http_url("/"),
            urls: [first.http_url(""), last.http_url("")],
            story: self.story.clone(),
            notice: self.notice.clone(),
            members,
        })
    }

    /// Tells when the second node, after it was started again, holds everything that the first one does.
    fn look_at_second(&mut self, up_us: u64, first: &NodeUrl) {
        if !self.is_catching_up {
            return;
        }
        // A node that cannot be asked now is asked again when the screen is drawn next.
        let Ok(held) = self.endpoint(1).and_then(|second| catch_up::compare(first, &second)) else { return };
        let after_s = (up_us - OUTAGE_US.1) as f64 / 1e6;
        if held.is_all() {
            self.is_catching_up = false;
            self.story = format!("node-2 has caught up: {held} of node-1, {after_s:.1} s after its start");
        } else {
            self.story = format!("node-2 is back and catches up: {held} of node-1");
        }
    }

    /// Kills the second node and starts it again, each when it is due after `up_us` microseconds. With fewer
    /// than three nodes it does nothing.
    fn play(&mut self, up_us: u64) -> Result<(), CliError> {
        if self.nodes.len() < 3 {
            return Ok(());
        }
        let (Some(node), Some(config)) = (self.nodes.get_mut(1), self.configs.get(1)) else { return Ok(()) };
        let is_down = (OUTAGE_US.0..OUTAGE_US.1).contains(&up_us);
        if is_down && let Some(running) = node.take() {
            running.kill();
            self.story = "node-2 was killed: watch its state; the feed goes on".into();
        } else if up_us >= OUTAGE_US.1 && node.is_none() {
            match Node::start(config.clone()) {
                Ok(running) => *node = Some(running),
                // Another process has taken its port in the meantime. The next turn tries again.
                Err(error) => {
                    tracing::warn!(%error, "node-2 cannot come back yet");
                    return Ok(());
                }
            }
            self.story = "node-2 is back: what it missed comes by itself".into();
            self.is_catching_up = true;
        }
        Ok(())
    }

    fn kill(self) {
        for node in self.nodes.into_iter().flatten() {
            node.kill();
        }
    }
}

/// Finds a free port for each node. They are known before the first node starts, since each node is told the pages of
/// all others.
fn ports(nodes: u64) -> io::Result<Vec<u16>> {
    // All are held until the last one is found, so that none is found twice.
    let bound =
        (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<TcpListener>>>()?;
    bound.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The origins of the pages of all nodes, at these ports and at the first node's usual one, separated by commas.
fn origins(ports: &[u16], is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    let usual = FIRST_ADDRESS.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
    let all = ports.iter().map(u16::to_string).chain([usual]);
    let of_port = |port: String| format!("{scheme}://127.0.0.1:{port},{scheme}://localhost:{port}");
    all.map(of_port).collect::<Vec<String>>().join(",")
}

/// A temporary folder that is removed when this value is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("anode-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the demo's folder stays");
        }
    }
}
