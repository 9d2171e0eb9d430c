//! The timers of spreading. A timer is never cancelled: one that has become obsolete is ignored when it is
//! due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::batch::BatchId;

/// A timer, by the action that is taken when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A part of a link was not acknowledged in time, or has waited long enough for budget to be sent again.
    /// A link has one such timer, for the first of its parts.
    Parts { link: usize },
    /// A receipt must be sent to the peer of a link.
    Receipt { link: usize },
    /// The pace of a link allows the next packet.
    Pace { link: usize },
    /// The gap of a line is to be asked for.
    Gap { line: u64 },
    /// Missing tallies of a batch are to be asked for, for the `polls`-th time.
    Count { batch: BatchId, polls: u32 },
    /// An answer that waits for all members is due.
    Await,
    /// Idle links, old fragments, unused streams and old tallies are to be dropped.
    Sweep,
}

/// All timers by time, in microseconds on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(u64, Timer)>>);

impl Timers {
    /// Sets a timer for this time, in microseconds.
    pub fn push(&mut self, at_us: u64, timer: Timer) {
        self.0.push(Reverse((at_us, timer)));
    }

    /// Removes and returns the first timer, if it is due.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, Timer)> {
        self.first().filter(|timer| timer.0 <= now_us)?;
        self.pop()
    }

    /// Removes and returns the first timer.
    pub fn pop(&mut self) -> Option<(u64, Timer)> {
        self.0.pop().map(|timer| timer.0)
    }

    /// The first timer, and when it is due.
    pub fn first(&self) -> Option<(u64, Timer)> {
        self.0.peek().map(|timer| timer.0)
    }

    /// When the first timer is due, in microseconds.
    pub fn next_us(&self) -> Option<u64> {
        self.first().map(|timer| timer.0)
    }
}
