//! The phases of a node, from the first load to the last flush, and the failures that end it.
//!
//! The phase is one number that only grows. Whoever stops the node advances it, step by step, and waits after
//! each step until every worker has reported that the work of the phase is done.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU64};

use parking_lot::{Condvar, Mutex};

use super::clock;
use crate::record::Now;

/// The phases of a node, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The store's records are read into the map; the control plane alone is served.
    Loading,
    /// Clients and peers are served.
    Serving,
    /// New publishes are refused; those under way are finished.
    Draining,
    /// Clients are told to go to other nodes.
    Closing,
    /// The cluster is told that the node leaves.
    Leaving,
    /// The event loops end.
    Stopped,
    /// The event loops end at once: nothing is flushed, and neither clients nor peers are told.
    Killed,
}

/// All phases, each at the place that its number says.
const PHASES: [Phase; 7] = [
    Phase::Loading,
    Phase::Serving,
    Phase::Draining,
    Phase::Closing,
    Phase::Leaving,
    Phase::Stopped,
    Phase::Killed,
];

/// An event loop that has not turned for this long, in microseconds, is stuck.
const STUCK_LOOP_US: u64 = 10_000_000;

/// A failure that ends the node. Any thread may report one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// Another node of the cluster has the same name.
    #[error("the name {name} is taken: a node of that name is alive at {by}")]
    NameTaken {
        /// This node's name.
        name: String,
        /// The address of the other node.
        by: std::net::SocketAddr,
    },
    /// The store's records cannot be read.
    #[error("the store cannot be read: {0}")]
    Load(String),
    /// The poll of an event loop failed.
    #[error("an event loop failed: {0}")]
    Loop(String),
}

/// The phase of a node, and the progress of its workers.
pub struct Lifecycle {
    phase: AtomicU8,
    /// Monotonic time at which each worker began its last turn, in microseconds.
    turned_us: Vec<AtomicU64>,
    progress: Mutex<Progress>,
    /// Notified when any worker is done with a phase.
    progressed: Condvar,
    on_end: Box<dyn Fn() + Send + Sync>,
}

/// The progress of the workers, for whoever stops the node and waits for them.
#[derive(Debug, Default)]
struct Progress {
    /// For each worker: the last phase whose work it has done.
    done: Vec<Option<Phase>>,
    /// The first failure that was reported.
    fatal: Option<Fatal>,
}

impl Lifecycle {
    /// Makes the state of a node that is loading. `on_end` is called, from any thread, whenever a failure
    /// is reported and when the node is asked to stop.
    pub fn new(now: Now, workers: usize, on_end: Box<dyn Fn() + Send + Sync>) -> Lifecycle {
        Lifecycle {
            phase: AtomicU8::new(Phase::Loading as u8),
            turned_us: (0..workers).map(|_| AtomicU64::new(now.mono_us)).collect(),
            progress: Mutex::new(Progress { done: vec![None; workers], fatal: None }),
            progressed: Condvar::new(),
            on_end,
        }
    }

    /// The phase that the node is in.
    pub fn phase(&self) -> Phase {
        PHASES.get(usize::from(self.phase.load(SeqCst))).copied().unwrap_or(Phase::Killed)
    }

    /// Goes on to `phase`, never back: a node in a later phase stays there.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, SeqCst);
        debug_assert!(self.phase() >= phase, "a phase was gone back on");
    }

    /// Notes that a worker begins a turn.
    pub fn handle_turn(&self, now: Now, worker: usize) {
        if let Some(turned_us) = self.turned_us.get(worker) {
            turned_us.store(now.mono_us, Relaxed);
        }
    }

    /// Returns whether every worker has begun a turn within [`STUCK_LOOP_US`].
    pub fn is_turning(&self, now: Now) -> bool {
        let is_recent =
            |turned_us: &AtomicU64| now.mono_us.saturating_sub(turned_us.load(Relaxed)) < STUCK_LOOP_US;
        self.turned_us.iter().all(is_recent)
    }

    /// Notes that a worker has done the work of a phase. May be called more than once for a phase.
    pub fn set_done(&self, worker: usize, phase: Phase) {
        debug_assert!(phase <= self.phase(), "the work of a phase that has not begun is done");
        let mut progress = self.progress.lock();
        if let Some(done) = progress.done.get_mut(worker)
            && done.is_none_or(|done| done < phase)
        {
            *done = Some(phase);
            self.progressed.notify_all();
        }
    }

    /// Waits until every worker has done what `phase` asks. Returns `false` if that takes longer than
    /// `timeout_us` microseconds.
    pub fn wait_done(&self, phase: Phase, timeout_us: u64) -> bool {
        let deadline_us = clock::mono_us() + timeout_us;
        let mut progress = self.progress.lock();
        while !progress.done.iter().all(|done| done.is_some_and(|done| done >= phase)) {
            let left_us = deadline_us.saturating_sub(clock::mono_us());
            if left_us == 0 {
                return false;
            }
            self.progressed.wait_for(&mut progress, std::time::Duration::from_micros(left_us));
        }
        true
    }

    /// Asks whoever runs the node to stop it in good order.
    pub fn ask_to_stop(&self) {
        (self.on_end)();
    }

    /// Reports a failure that the node cannot go on with. The first one is kept as the reason.
    pub fn fail(&self, fatal: Fatal) {
        self.progress.lock().fatal.get_or_insert(fatal);
        (self.on_end)();
    }

    /// The failure that the node cannot go on with, if there is one.
    pub fn fatal(&self) -> Option<Fatal> {
        self.progress.lock().fatal.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn loading(workers: usize) -> Lifecycle {
        Lifecycle::new(Now { mono_us: 5, wall_us: 5 }, workers, Box::new(|| {}))
    }

    #[test]
    fn phases_never_go_back() {
        let life = loading(1);
        for (asked, is) in [
            (Phase::Serving, Phase::Serving),
            (Phase::Closing, Phase::Closing),
            (Phase::Draining, Phase::Closing),
            (Phase::Killed, Phase::Killed),
            (Phase::Stopped, Phase::Killed),
        ] {
            life.phase.fetch_max(asked as u8, SeqCst);
            assert_eq!(life.phase(), is);
        }
        assert!(PHASES.iter().enumerate().all(|(at, phase)| *phase as usize == at));
    }

    #[test]
    fn a_phase_is_done_when_every_worker_has_said_so() {
        let life = loading(2);
        life.advance(Phase::Closing);
        life.set_done(0, Phase::Closing);
        life.set_done(1, Phase::Draining);
        assert!(life.wait_done(Phase::Draining, 1_000_000));
        assert!(!life.wait_done(Phase::Closing, 1_000));
        life.set_done(1, Phase::Closing);
        assert!(life.wait_done(Phase::Closing, 1_000_000));
    }

    #[test]
    fn a_worker_that_stands_still_is_seen() {
        let life = loading(2);
        let at = |mono_us| Now { mono_us, wall_us: 0 };
        assert!(life.is_turning(at(4 + STUCK_LOOP_US)));
        life.handle_turn(at(1_000), 0);
        assert!(!life.is_turning(at(5 + STUCK_LOOP_US)), "the other one has not turned");
    }

    #[test]
    fn the_first_failure_is_the_reason() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        let on_fatal = move || {
            count.fetch_add(1, SeqCst);
        };
        let life = Lifecycle::new(Now::default(), 1, Box::new(on_fatal));
        life.fail(Fatal::Load("first".into()));
        life.fail(Fatal::Loop("second".into()));
        assert_eq!((life.fatal(), told.load(SeqCst)), (Some(Fatal::Load("first".into())), 2));
    }
}
