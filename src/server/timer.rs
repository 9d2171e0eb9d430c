//! The timers of a worker's connections.
//!
//! Timers are data with a token. A connection has at most one live entry: the earliest time at which it
//! may have something to do. When that entry is due, the connection says when it may have something next.
//! So a deadline that moves later in the meantime costs nothing (that of a ping moves with every byte),
//! and an entry of a connection that is gone is ignored, not searched for. Rejected: a hashed wheel, since
//! one entry a connection in a heap is small and exact.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Identifies the connection that a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerToken {
    /// The connection's place in the worker's table.
    pub key: usize,
    /// Distinguishes the connection from others that have or had this place.
    pub generation: u64,
}

/// The timers of all connections of one worker.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, TimerToken)>>,
}

impl Timers {
    /// Makes `token` due at `at_us`, on the monotonic clock.
    pub fn arm(&mut self, at_us: u64, token: TimerToken) {
        self.heap.push(Reverse((at_us, token)));
    }

    /// Removes the timer that has been due for longest, if any is due at `now_us`. Returns when it was due,
    /// and its token.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, TimerToken)> {
        let Reverse((at_us, _)) = self.heap.peek()?;
        if *at_us > now_us {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Monotonic time at which the next timer is due, in microseconds.
    pub fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_us, _))| *at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_ones_come_in_order_and_only_then() {
        let mut timers = Timers::default();
        let token = |key| TimerToken { key, generation: 0 };
        timers.arm(30, token(3));
        timers.arm(10, token(1));
        timers.arm(20, token(2));
        assert_eq!(timers.next_us(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(25), Some((10, token(1))));
        assert_eq!(timers.pop_due(25), Some((20, token(2))));
        assert_eq!(timers.pop_due(25), None);
        assert_eq!(timers.next_us(), Some(30));
    }
}
