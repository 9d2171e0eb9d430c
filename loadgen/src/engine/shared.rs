//! What the threads of a run tell each other. Each counter is written by one thread, once a turn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::plan::Published;

/// One thread's counters.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections that are ready.
    pub ready: AtomicU64,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Deliveries that the sent messages must make.
    pub expected: AtomicU64,
    /// Deliveries.
    pub delivered: AtomicU64,
    /// Deliveries that lost connections will never make.
    pub given_up: AtomicU64,
    /// Bytes that came.
    pub received_bytes: AtomicU64,
    /// Messages answered.
    pub acked: AtomicU64,
    /// Whether its subscribers have all that was published.
    pub is_complete: AtomicBool,
}

/// What all threads see.
pub struct Shared {
    /// Of each thread.
    pub counters: Vec<Counters>,
    /// When publishing begins; 0: not yet known.
    pub start_ns: AtomicU64,
    /// Publishers end before their time.
    pub is_over: AtomicBool,
    /// Everyone ends.
    pub stop: AtomicBool,
    /// What was published, once all publishers are done.
    pub published: OnceLock<Published>,
    /// Why the run cannot go on.
    failure: Mutex<Option<String>>,
}

impl Shared {
    /// For so many threads.
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

    /// One counter's sum over all threads.
    pub fn sum(&self, of: fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum()
    }

    /// Ends the run; the first reason is kept.
    pub fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.stop.store(true, Ordering::Release);
    }

    /// Why the run ended early.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
