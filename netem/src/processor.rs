//! Watches how long the threads of the nodes and of the clients wait for a processor although they want to run.
//!
//! The kernel counts it for each thread (`schedstat`). On a machine that has too much to do, a node answers late and is
//! taken for dead without any fault of its own; this is how a run can tell the difference. What else the kernel tells of a
//! process, and lets others change, is here too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use parking_lot::Mutex;

use crate::checker::{Seen, Waits};
use crate::load::recorder::Recorder;
use crate::world::command::run;

/// Time between two looks.
const BETWEEN: Duration = Duration::from_millis(500);
/// How often it is checked whether the run has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Name of the thread of the run that nobody waits for, and that always has something to do.
pub const CHECKER: &str = "checker";

/// The process of a node, as others may watch it.
#[derive(Clone, Debug, Default)]
pub struct WatchedProcess {
    /// Number of the process; 0 while there is none.
    pub pid: Arc<AtomicU32>,
    /// True while a fault of the run gives the process a part of a processor only.
    pub is_bounded: Arc<AtomicBool>,
}

/// The thread that watches. It ends when this is dropped.
pub struct ProcessorWatch {
    is_over: Arc<AtomicBool>,
    waits: Arc<Mutex<Waits>>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessorWatch {
    /// Begins to watch the processes of nodes, and this one.
    pub fn start(nodes: Vec<WatchedProcess>, recorder: &Recorder) -> Outcome<ProcessorWatch> {
        let (is_over, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Waits::default())));
        let own = WatchedProcess { pid: Arc::new(std::process::id().into()), ..WatchedProcess::default() };
        let mut threads = Threads { processes: nodes, delays: HashMap::new(), bounded: BTreeSet::new() };
        threads.processes.push(own);
        let (is_ended, all, recorder) = (is_over.clone(), waits.clone(), recorder.clone());
        let thread = std::thread::Builder::new().name("processor".to_owned()).spawn(move || {
            threads.longest_wait_us(Duration::ZERO);
            let mut us = 0;
            while !is_ended.load(Relaxed) {
                let at_us = recorder.now_us();
                all.lock().handle_waited(at_us, us);
                recorder.see_at(at_us, Seen::Waited { us });
                let begin = Instant::now();
                while begin.elapsed() < BETWEEN && !is_ended.load(Relaxed) {
                    std::thread::sleep(LOOK);
                }
                us = threads.longest_wait_us(begin.elapsed());
            }
        })?;
        Ok(ProcessorWatch { is_over, waits, thread: Some(thread) })
    }

    /// Returns whether the machine was so busy between two times of the run, in microseconds, that no time can be held
    /// against the nodes.
    pub fn is_scarce(&self, from_us: u64, until_us: u64) -> bool {
        self.waits.lock().is_scarce(from_us, until_us)
    }
}

impl Drop for ProcessorWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A watcher that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// How long a thread has waited for a processor since it was started, and how often it got one.
#[derive(Clone, Copy, Debug, Default)]
struct Delay {
    ns: u64,
    turns: u64,
}

impl Delay {
    /// Returns how long the thread has waited for a turn since `before`, which was `elapsed_ns` nanoseconds ago: the mean,
    /// or, if that is more, what it must have waited in one piece. The kernel counts a wait when it ends, so what is more
    /// than has elapsed was begun before.
    fn wait_since_ns(&self, before: Delay, elapsed_ns: u64) -> u64 {
        let all_ns = self.ns.saturating_sub(before.ns);
        let mean_ns = all_ns / self.turns.saturating_sub(before.turns).max(1);
        mean_ns.max(all_ns.saturating_sub(elapsed_ns))
    }
}

/// The threads of all processes.
struct Threads {
    processes: Vec<WatchedProcess>,
    delays: HashMap<(u32, u32), Delay>,
    /// Processes that were bounded at the last look.
    bounded: BTreeSet<usize>,
}

impl Threads {
    /// Returns for how many microseconds the thread has waited for a turn that waited longest since the last look, which was
    /// `elapsed` ago.
    fn longest_wait_us(&mut self, elapsed: Duration) -> u64 {
        let elapsed_ns = elapsed.as_nanos() as u64;
        let mut longest_ns = 0;
        let before = std::mem::take(&mut self.delays);
        for (index, process) in self.processes.iter().enumerate() {
            let pid = process.pid.load(Relaxed);
            let is_bounded = process.is_bounded.load(Relaxed);
            let was_bounded =
                if is_bounded { !self.bounded.insert(index) } else { self.bounded.remove(&index) };
            for (thread, delay) in delays(pid) {
                self.delays.insert((pid, thread), delay);
                // A thread that was not there before has begun at 0.
                let last = before.get(&(pid, thread)).copied().unwrap_or_default();
                if !is_bounded && !was_bounded && !before.is_empty() {
                    longest_ns = longest_ns.max(delay.wait_since_ns(last, elapsed_ns));
                }
            }
        }
        longest_ns / 1_000
    }
}

/// Returns the threads of a process, each with its waits for a processor so far.
fn delays(pid: u32) -> Vec<(u32, Delay)> {
    let Some(tasks) = (pid > 0).then(|| std::fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten() else {
        return Vec::new();
    };
    let is_own = pid == std::process::id();
    let delay = |entry: std::fs::DirEntry| {
        let path = entry.path();
        if is_own && std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == CHECKER) {
            return None;
        }
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let thread = entry.file_name().to_str()?.parse().ok()?;
        let mut fields = text.split_whitespace().skip(1).map(|field| field.parse().ok());
        Some((thread, Delay { ns: fields.next()??, turns: fields.next()?? }))
    };
    tasks.flatten().filter_map(delay).collect()
}

/// Returns the bytes of memory that a process holds.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bounds the files that a process may open to those that it has open and `more`; `None` removes the bound.
pub fn bound_files(pid: u32, more: Option<u64>) -> Outcome<()> {
    let soft = match more {
        Some(more) => (std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64 + more).to_string(),
        None => hard_file_limit(pid)?,
    };
    run(&format!("prlimit --pid {pid} --nofile={soft}:")).map(drop)
}

fn hard_file_limit(pid: u32) -> Outcome<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4));
    Ok(hard.ok_or("no limit of open files")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_this_process_are_seen() {
        assert!(!delays(std::process::id()).is_empty());
        assert!(delays(0).is_empty());
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 0));
        assert_eq!(resident_bytes(0), None);
    }

    #[test]
    fn many_short_waits_are_no_long_one() {
        let before = Delay { ns: 1_000, turns: 10 };
        assert_eq!(Delay { ns: 501_000, turns: 1_010 }.wait_since_ns(before, 600_000), 500);
        assert_eq!(Delay { ns: 501_000, turns: 11 }.wait_since_ns(before, 600_000), 500_000);
        assert_eq!(before.wait_since_ns(before, 600_000), 0);
    }

    // A node without a processor for 1.2 s was declared dead, and the many short waits after that one hid it.
    #[test]
    fn many_short_waits_hide_no_long_one() {
        let (before, elapsed_ns) = (Delay { ns: 0, turns: 10 }, 500_000_000);
        let after = Delay { ns: 1_250_000_000, turns: 410 };
        assert_eq!(after.wait_since_ns(before, elapsed_ns), 750_000_000);
    }

    #[test]
    fn a_process_that_is_bounded_on_purpose_is_left_out_until_the_look_after() {
        let process = WatchedProcess::default();
        process.pid.store(std::process::id(), Relaxed);
        process.is_bounded.store(true, Relaxed);
        let mut threads = Threads {
            processes: vec![process.clone()],
            delays: HashMap::from([((0, 0), Delay::default())]),
            bounded: BTreeSet::new(),
        };
        assert_eq!(threads.longest_wait_us(BETWEEN), 0);
        process.is_bounded.store(false, Relaxed);
        threads.delays.values_mut().for_each(|delay| *delay = Delay::default());
        assert_eq!(threads.longest_wait_us(BETWEEN), 0);
        assert!(threads.bounded.is_empty());
    }
}
