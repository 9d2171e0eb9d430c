//! Watches the nodes of a run: the members that each knows, their memory, and the bytes that they send each other. A
//! thread for each node, because one that stands still does not answer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::checker::{MemberSeen, MemberState, Name, Seen};
use crate::http;
use crate::load::recorder::Recorder;
use crate::processor::WatchedProcess;
use crate::target::Target;

/// Time between two looks at a node.
const BETWEEN: Duration = Duration::from_millis(500);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_millis(400);
/// How often it is checked whether the run has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The threads that watch.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch nodes.
    pub fn start(nodes: Vec<(Name, Target)>, recorder: &Recorder) -> Outcome<Watch> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut watch = Watch { is_over: is_over.clone(), threads: Vec::new() };
        for (node, target) in nodes {
            let (is_over, recorder) = (is_over.clone(), recorder.clone());
            let name = format!("watch-{node}");
            watch.threads.push(std::thread::Builder::new().name(name).spawn(move || {
                while !is_over.load(Relaxed) {
                    let (begin, begun_us) = (Instant::now(), recorder.now_us());
                    if let Ok(members) = members(&target) {
                        recorder.see(Seen::Members { seen_by: node.clone(), begun_us, members });
                    }
                    while begin.elapsed() < BETWEEN && !is_over.load(Relaxed) {
                        std::thread::sleep(LOOK);
                    }
                }
            })?);
        }
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A watcher that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// The threads that measure how long nodes take from the start of their process until they are ready.
pub struct StartWatch {
    is_over: Arc<AtomicBool>,
    slowest: Arc<Mutex<Option<Start>>>,
    threads: Vec<JoinHandle<()>>,
}

/// The start of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Name of the node.
    pub node: Name,
    /// Time at which the process was started, in microseconds since the begin of the run.
    pub began_us: u64,
    /// Time until it was ready, in microseconds.
    pub took_us: u64,
}

impl StartWatch {
    /// Begins to watch nodes that run or will.
    pub fn start(nodes: Vec<(Name, Target, WatchedProcess)>, recorder: &Recorder) -> Outcome<StartWatch> {
        let (is_over, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let mut watch =
            StartWatch { is_over: is_over.clone(), slowest: slowest.clone(), threads: Vec::new() };
        for (node, target, process) in nodes {
            let (is_over, slowest, recorder) = (is_over.clone(), slowest.clone(), recorder.clone());
            let name = format!("start-{node}");
            watch.threads.push(std::thread::Builder::new().name(name).spawn(move || {
                let mut known = process.pid.load(Relaxed);
                while !is_over.load(Relaxed) {
                    std::thread::sleep(LOOK);
                    let pid = process.pid.load(Relaxed);
                    if pid == known || pid == 0 {
                        continue;
                    }
                    let began_us = recorder.now_us();
                    let is_watched = || process.pid.load(Relaxed) == pid && !is_over.load(Relaxed);
                    if !wait_ready(&target, is_watched) {
                        // A process that has ended before counts for nothing, and the next one is looked at.
                        continue;
                    }
                    known = pid;
                    let took_us = recorder.now_us() - began_us;
                    let mut slowest = slowest.lock();
                    if slowest.as_ref().is_none_or(|start: &Start| start.took_us < took_us) {
                        *slowest = Some(Start { node: node.clone(), began_us, took_us });
                    }
                }
            })?);
        }
        Ok(watch)
    }

    /// Returns the start that took longest, of those that were seen from begin to end.
    pub fn slowest(&self) -> Option<Start> {
        self.slowest.lock().clone()
    }
}

/// Waits until a node says that clients may be sent to it. Returns false if `is_watched` said no before.
fn wait_ready(target: &Target, is_watched: impl Fn() -> bool) -> bool {
    while is_watched() {
        if http::get(target, "/readyz", ANSWER).is_ok_and(|(status, _)| status == 200) {
            return is_watched();
        }
        std::thread::sleep(LOOK);
    }
    false
}

impl Drop for StartWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A watcher that panicked has said so.
            let _ = thread.join();
        }
    }
}

#[derive(Deserialize)]
struct List {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    id: String,
    state: String,
    incarnation: u64,
    boot: u64,
    /// Missing while the member takes no part, and in what older programs tell.
    joined: Option<u64>,
}

/// Asks a node for the members that take part or have taken part.
pub fn members(target: &Target) -> Outcome<Vec<MemberSeen>> {
    let list: List = serde_json::from_str(&http::get_text(target, "/v1/members", ANSWER)?)?;
    let members = list.members.into_iter().filter_map(|member| {
        let state = match member.state.as_str() {
            "alive" => MemberState::Alive,
            "suspect" => MemberState::Suspect,
            "dead" => MemberState::Dead,
            "left" => MemberState::Left,
            // A node that is joining takes no part so far.
            _ => return None,
        };
        let (incarnation, boot) = (member.incarnation, member.boot);
        Some(MemberSeen { node: member.id.into(), state, incarnation, boot, joined: member.joined })
    });
    Ok(members.collect())
}

/// Returns the sum of a metric at a node.
pub fn metric(target: &Target, name: &str) -> Outcome<f64> {
    let text = http::get_text(target, "/metrics", ANSWER)?;
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
    });
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Returns the bytes that nodes have sent each other by their own account. One that does not answer counts for nothing.
pub fn sent_bytes(nodes: &[(Name, Target)]) -> u64 {
    let sent = |(_, target): &(Name, Target)| metric(target, "anode_gossip_bytes_sent_total").unwrap_or(0.0);
    nodes.iter().map(sent).sum::<f64>() as u64
}
