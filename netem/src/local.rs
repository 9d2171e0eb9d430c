//! A node on the loopback of this machine, for runs that need no network of their own.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anode_loadgen::Outcome;

/// How long a node may take until it serves.
const READY: Duration = Duration::from_secs(60);
/// Bytes of the end of a log that are told when a node does not start.
const LOG_END: usize = 2_000;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct LocalStart {
    /// The program to start.
    pub binary: PathBuf,
    /// Name of the node.
    pub name: String,
    /// Directory of its data.
    pub data_dir: PathBuf,
    /// Further options of `anode serve`.
    pub options: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
    /// File to which its log is appended.
    pub log: PathBuf,
}

/// A running node. It is killed when this is dropped.
pub struct LocalNode {
    child: Child,
    /// Address for clients.
    pub http: SocketAddr,
    /// Address for other nodes.
    pub gossip: SocketAddr,
}

impl LocalNode {
    /// Starts a node and waits until it serves. Without `--http` and `--gossip` among the options it takes any free
    /// ports. Fails with the end of its log if it ends before it serves.
    pub fn start(start: &LocalStart) -> Outcome<LocalNode> {
        let log = OpenOptions::new().create(true).append(true).open(&start.log)?;
        let mut command = Command::new(&start.binary);
        command.args(["serve", "--node-name", &start.name, "--data-dir"]).arg(&start.data_dir);
        for option in ["--http", "--gossip"] {
            if !start.options.iter().any(|given| given == option) {
                command.args([option, "127.0.0.1:0"]);
            }
        }
        command.args(&start.options).envs(start.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", start.binary.display()))?;
        let Some(stdout) = child.stdout.take() else { return Err("the node has no output".into()) };
        let (tell, told) = channel();
        std::thread::Builder::new().name(format!("out-{}", start.name)).spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            // The one who waits is gone after the deadline, and does not want to know any more.
            let _ = tell.send(lines.read_line(&mut line).map(|_| line));
            // The rest is read, so that the node never waits for a full pipe.
            let _ = lines.read_to_end(&mut Vec::new());
        })?;
        let line = told.recv_timeout(READY).map_err(|_| "no line".to_owned());
        let line = line.and_then(|line| line.map_err(|error| error.to_string()));
        match line.as_deref().map(parse_ready) {
            Ok(Some((http, gossip))) => Ok(LocalNode { child, http, gossip }),
            _ => {
                // It may have ended by itself.
                let _ = child.kill();
                let status = child.wait()?;
                let log = std::fs::read_to_string(&start.log).unwrap_or_default();
                let end: String = log.chars().skip(log.chars().count().saturating_sub(LOG_END)).collect();
                Err(format!("{} does not serve ({status}): {}", start.name, end.trim()).into())
            }
        }
    }

    /// Kills the process without warning, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads the addresses in the line by which a node tells that it serves.
fn parse_ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.strip_prefix("ready ")?.split_whitespace();
    let mut of = |name: &str| words.find_map(|word| word.strip_prefix(name))?.parse().ok();
    Some((of("http=")?, of("gossip=")?))
}

/// The program to run: the given one, else `anode` beside this program or one directory above it.
pub fn find_binary(given: Option<&Path>, name: &str) -> Outcome<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let found = beside.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| format!("there is no {name} beside {}: build it first", own.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_lines_are_read() {
        let line = "ready node=a http=127.0.0.1:7070 gossip=127.0.0.1:7946\n";
        let (http, gossip) = parse_ready(line).expect("a ready line");
        assert_eq!((http.port(), gossip.port()), (7070, 7946));
        assert_eq!(parse_ready("error: no"), None);
    }
}
