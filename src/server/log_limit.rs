//! Events that are counted, and logged once a minute however often they happen.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Least time between two lines in the log about the same kind of event, in microseconds.
const LINE_US: u64 = 60_000_000;

/// Counts the events of one kind between two lines of the log. All threads share it.
#[derive(Debug, Default)]
pub struct LogLimit {
    unlogged: AtomicU64,
    /// When the next line may be written, on the monotonic clock.
    next_us: AtomicU64,
}

impl LogLimit {
    /// Counts one event. Returns the number of events since the last line if another line is due.
    pub fn count(&self, now_us: u64) -> Option<u64> {
        self.unlogged.fetch_add(1, Relaxed);
        let due_us = self.next_us.load(Relaxed);
        let next_us = now_us + LINE_US;
        let is_due =
            now_us >= due_us && self.next_us.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_ok();
        is_due.then(|| self.unlogged.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty lines a second filled the disk of a node that was out of file descriptors.
    #[test]
    fn events_are_one_line_a_minute() {
        let limit = LogLimit::default();
        let minute = |minute: u64| {
            let events = (0..600).map(|event| 5 + minute * LINE_US + event * 100_000);
            events.filter_map(|now_us| limit.count(now_us)).collect::<Vec<u64>>()
        };
        assert_eq!((minute(0), minute(1), minute(2)), (vec![1], vec![600], vec![600]));
    }
}
