//! One node of a run: its program, started in its namespace, and everything that can be done to it.

use std::fs::OpenOptions;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use rustix::process::Signal;

use crate::clock::NodeClock;
use crate::http;
use crate::processor::{self, WatchedProcess};
use crate::target::Target;
use crate::world::cgroup::Cgroup;
use crate::world::leftovers::signal;

/// Port of clients.
pub const HTTP_PORT: u16 = 7070;
/// Port of traffic between nodes.
pub const GOSSIP_PORT: u16 = 7946;
/// How long an orderly end may take.
const END: Duration = Duration::from_secs(20);

/// What a node is started with, each time.
#[derive(Clone, Debug)]
pub struct Start {
    /// Name of the node, of its namespace, and of the run.
    pub name: String,
    /// Namespace in which it runs.
    pub namespace: String,
    /// The program that it runs.
    pub binary: PathBuf,
    /// Words of its command line.
    pub words: Vec<String>,
    /// Path at which it answers with status 200 when clients may be sent to it.
    pub ready: &'static str,
    /// File to which the log is appended.
    pub log: PathBuf,
    /// Address at which the runner reaches it.
    pub watched_at: SocketAddrV4,
    /// Address at which clients reach it.
    pub clients_at: SocketAddrV4,
}

/// A node and its process, if it runs.
pub struct Node {
    start: Start,
    child: Option<Child>,
    cgroup: Option<Cgroup>,
    clock: Option<NodeClock>,
    process: WatchedProcess,
    clients_at: Target,
    watched_at: Target,
    /// How often it was started.
    pub starts: u32,
}

impl Node {
    /// Makes a node that does not run.
    pub fn new(start: Start, cgroup: Option<Cgroup>, clock: Option<NodeClock>) -> Node {
        let target = |address| Target::from(SocketAddr::V4(address));
        let (clients_at, watched_at) = (target(start.clients_at), target(start.watched_at));
        let process = WatchedProcess::default();
        Node { start, child: None, cgroup, clock, process, clients_at, watched_at, starts: 0 }
    }

    /// Returns the name of the node.
    pub fn name(&self) -> &str {
        &self.start.name
    }

    /// Returns where clients reach it.
    pub fn clients_at(&self) -> &Target {
        &self.clients_at
    }

    /// Returns where the runner reaches it, whatever the links do.
    pub fn watched_at(&self) -> &Target {
        &self.watched_at
    }

    /// Returns the file of its log.
    pub fn log(&self) -> &Path {
        &self.start.log
    }

    /// Returns the process of the node for those who watch it.
    pub fn process(&self) -> &WatchedProcess {
        &self.process
    }

    /// Returns the clock of the node, if it has its own.
    pub fn clock(&self) -> Option<&NodeClock> {
        self.clock.as_ref()
    }

    /// Returns the bounds on processor time and memory, if there are any.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Lets the node run another program from its next start on.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.start.binary = binary;
    }

    /// Lets the node start without anybody to join from its next start on.
    pub fn join_nobody(&mut self) {
        if let Some(at) = self.start.words.iter().position(|word| word == "--join") {
            self.start.words.drain(at..at + 2);
        }
    }

    /// Starts the process.
    pub fn start(&mut self) -> Outcome<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.start.log)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.start.namespace]);
        command.arg(&self.start.binary).args(&self.start.words);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        // `ip netns exec` becomes the program, so the child is the node itself.
        let child = command.spawn().map_err(|error| format!("ip netns exec: {error}"))?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.take(child.id())?;
        }
        self.process.pid.store(child.id(), Relaxed);
        self.child = Some(child);
        self.starts += 1;
        Ok(())
    }

    fn take(&mut self) -> Option<Child> {
        self.process.pid.store(0, Relaxed);
        self.child.take()
    }

    /// Returns whether the process was started, and has not been ended by [`Node::kill`] or [`Node::end`].
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Says how the process ended by itself, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.take();
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("with exit code {code}"),
            (None, Some(signal)) => format!("by signal {signal}"),
            (None, None) => "in an unknown way".to_owned(),
        };
        Some(format!("{} ended by itself {how}", self.start.name))
    }

    /// Kills the process without warning, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.take() {
            // Both fail only if the process has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to end. Fails if it has not ended in time; then it is killed.
    pub fn end(&mut self) -> Outcome<()> {
        let Some(mut child) = self.take() else { return Ok(()) };
        signal(child.id() as i32, Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < END {
            if let Some(status) = child.try_wait()? {
                return match status.success() {
                    true => Ok(()),
                    false => Err(format!("{} ended with {status} on SIGTERM", self.start.name).into()),
                };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        Err(format!("{} has not ended {} s after SIGTERM", self.start.name, END.as_secs()).into())
    }

    /// Stops the process as it is, or lets it go on.
    pub fn freeze(&self, is_frozen: bool) {
        if let Some(child) = &self.child {
            signal(child.id() as i32, if is_frozen { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Bounds the files that the process may open to those that it has open and `more`; `None` removes the bound.
    pub fn bound_files(&self, more: Option<u64>) -> Outcome<()> {
        let Some(child) = &self.child else { return Ok(()) };
        processor::bound_files(child.id(), more)
    }

    /// Returns whether the node says that clients may be sent to it.
    pub fn is_ready(&self, timeout: Duration) -> bool {
        self.readiness(timeout).is_ok_and(|(status, _)| status == 200)
    }

    /// Asks the node whether clients may be sent to it, and returns the status and the words of its answer.
    pub fn readiness(&self, timeout: Duration) -> Outcome<(u16, String)> {
        let (status, body) = http::get(self.watched_at(), self.start.ready, timeout)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
