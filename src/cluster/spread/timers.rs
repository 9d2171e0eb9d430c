//! What is due when. A timer is data: whoever finds one that no longer fits ignores it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::batch::BatchId;
use super::link::PartId;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Nothing was heard of what was sent.
    Try(PartId),
    /// A receipt must go.
    Receipt { link: usize },
    /// The link's pace allows more.
    Pace { link: usize },
    /// A gap is to be asked for.
    Gap { line: u64 },
    /// Tallies of a batch may have been lost; how often they were asked for, this time included.
    Count { batch: BatchId, polls: u32 },
    /// An answer that waits for all members is to be seen to.
    Await,
    /// Idle links are to be closed.
    Sweep,
}

/// Timers by time, in microseconds on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(u64, Timer)>>);

impl Timers {
    /// Sets one.
    pub fn push(&mut self, at_us: u64, timer: Timer) {
        self.0.push(Reverse((at_us, timer)));
    }

    /// The first, if it is due.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, Timer)> {
        self.first().filter(|timer| timer.0 <= now_us)?;
        self.pop()
    }

    /// Takes the first away.
    pub fn pop(&mut self) -> Option<(u64, Timer)> {
        self.0.pop().map(|timer| timer.0)
    }

    /// The first.
    pub fn first(&self) -> Option<(u64, Timer)> {
        self.0.peek().map(|timer| timer.0)
    }

    /// When the first is due.
    pub fn next_us(&self) -> Option<u64> {
        self.first().map(|timer| timer.0)
    }
}
