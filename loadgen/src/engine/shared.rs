//! What the threads of a run tell each other. Each counter is written by one thread, once per turn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::plan::Published;

/// The counters of one thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Number of connections that are ready.
    pub ready: AtomicU64,
    /// Number of messages sent.
    pub sent: AtomicU64,
    /// Number of deliveries that the sent messages must lead to.
    pub expected: AtomicU64,
    /// Number of deliveries so far.
    pub delivered: AtomicU64,
    /// Number of expected deliveries that cannot happen any more, because their connections are lost.
    pub given_up: AtomicU64,
    /// Number of bytes received.
    pub received_bytes: AtomicU64,
    /// Number of messages answered.
    pub acked: AtomicU64,
    /// Whether the thread's subscribers have everything that was published for them.
    pub is_complete: AtomicBool,
}

/// The state that all threads of a run share.
pub struct Shared {
    /// The counters of each thread.
    pub counters: Vec<Counters>,
    /// When publishing begins, in absolute nanoseconds; 0: not known yet.
    pub start_ns: AtomicU64,
    /// Whether publishers are to stop before the planned end of the run.
    pub is_over: AtomicBool,
    /// Whether all threads are to end.
    pub stop: AtomicBool,
    /// Number of messages published of each source, once all publishers are done.
    pub published: OnceLock<Published>,
    /// The reason why the run cannot go on, if there is one.
    failure: Mutex<Option<String>>,
}

impl Shared {
    /// Makes the shared state of so many threads.
    pub fn new(threads: usize) -> Shared {
        Shared {
            counters: (0..threads).map(|_| Counters::default()).collect(),
            start_ns: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            published: OnceLock::new(),
            failure: Mutex::new(None),
        }
    }

    /// Returns the sum of one counter over all threads.
    pub fn sum(&self, of: fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum()
    }

    /// Ends the run for a reason; the first reason is kept.
    pub fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.stop.store(true, Ordering::Release);
    }

    /// Returns why the run cannot go on, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
