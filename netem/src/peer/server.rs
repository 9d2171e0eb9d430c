//! The program nats-server: where it is found, and how it is started on a machine of a run.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anode_loadgen::Outcome;
use serde::Deserialize;

use super::config::{CLIENT_PORT, MONITOR_PORT, ServerConfig};
use crate::checker::Name;
use crate::http;
use crate::node::Start;
use crate::target::Target;
use crate::world::World;

/// Least number of servers: each replica of the bucket needs one.
pub const NODES_MIN: usize = super::bucket::REPLICAS;
/// Name of the program.
const PROGRAM: &str = "nats-server";
/// Path at which a server says whether its JetStream takes part in the cluster.
const READY: &str = "/healthz?js-server-only=true";
/// How long a server may take to tell what it has sent.
const ANSWER: Duration = Duration::from_millis(400);

/// A nats-server program.
#[derive(Clone, Debug)]
pub struct Server {
    /// Path of the program.
    pub program: PathBuf,
    /// Version of the program, as it prints it.
    pub version: String,
}

impl Server {
    /// Takes the program that is given, or looks for it in the directories of `PATH`.
    pub fn find(given: Option<&Path>) -> Outcome<Server> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = match given {
            Some(given) => given
                .canonicalize()
                .map_err(|error| format!("--nats-server {}: {error}", given.display()))?,
            None => std::env::split_paths(&path)
                .map(|dir| dir.join(PROGRAM))
                .find(|program| program.is_file())
                .ok_or(
                    "--peer jetstream: there is no nats-server in PATH. Debian has it as the package `nats-server`, and \
                     `go install github.com/nats-io/nats-server/v2@latest` builds it; --nats-server FILE names one that \
                     is elsewhere",
                )?,
        };
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || !version.starts_with(PROGRAM) {
            let said = version.lines().next().unwrap_or_default();
            return Err(format!(
                "{}: it is no nats-server; to --version it says {said:?}",
                program.display()
            )
            .into());
        }
        Ok(Server { program, version })
    }

    /// Returns what is started on a machine instead of a node of aNode, and writes the configuration for it.
    pub fn in_place_of(&self, start: Start, world: &World, index: usize, store_dir: &Path) -> Outcome<Start> {
        let others = (0..world.nodes()).filter(|other| *other != index);
        let config = ServerConfig {
            name: &start.name,
            store_dir,
            binds: world.own_address(index),
            reached_at: world.link_address(index),
            others: others.map(|other| world.link_address(other)).collect(),
        };
        let file = world.node_dir(index).join("nats.conf");
        std::fs::write(&file, config.text())?;
        Ok(Start {
            binary: self.program.clone(),
            words: vec!["--config".to_owned(), file.display().to_string()],
            ready: READY,
            watched_at: SocketAddrV4::new(*start.watched_at.ip(), MONITOR_PORT),
            clients_at: SocketAddrV4::new(*start.clients_at.ip(), CLIENT_PORT),
            ..start
        })
    }
}

#[derive(Deserialize)]
struct Routes {
    routes: Option<Vec<Route>>,
}

#[derive(Deserialize)]
struct Route {
    out_bytes: u64,
}

/// Returns the bytes of the messages that servers have sent each other by their own account, over the routes that are there
/// now. One that does not answer counts for nothing.
pub fn sent_bytes(nodes: &[(Name, Target)]) -> u64 {
    let sent = |target: &Target| {
        let text = http::get_text(target, "/routez", ANSWER).ok()?;
        let routes: Routes = serde_json::from_str(&text).ok()?;
        Some(routes.routes.unwrap_or_default().iter().map(|route| route.out_bytes).sum::<u64>())
    };
    nodes.iter().filter_map(|(_, target)| sent(target)).sum()
}
