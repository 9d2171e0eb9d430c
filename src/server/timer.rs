//! When to look at which connection again.
//!
//! Timers are data with a token. A connection keeps at most one live entry: the earliest at which it
//! may have something to do. When that is due it says anew when the next is; what moved later in the
//! meantime (a ping deadline moves with every byte) costs nothing, and an entry of a connection that
//! is gone is ignored, not searched for. Rejected: a hashed wheel, since one entry a connection in a
//! heap is small and exact.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Whose timer: a place in the worker's table, and which of the connections that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerToken {
    /// Place.
    pub key: usize,
    /// Counts the connections that stood there.
    pub generation: u64,
}

/// The timers of one worker.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, TimerToken)>>,
}

impl Timers {
    /// Makes `token` due at `at_us`.
    pub fn arm(&mut self, at_us: u64, token: TimerToken) {
        self.heap.push(Reverse((at_us, token)));
    }

    /// The next one due at `now_us`, if any, and when it was due.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, TimerToken)> {
        let Reverse((at_us, _)) = self.heap.peek()?;
        if *at_us > now_us {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the next one is due.
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
