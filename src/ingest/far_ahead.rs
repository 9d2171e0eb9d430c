//! Says in the log that records of peers were refused because their timestamps are too far ahead.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::record::{Now, Record};

/// Least time between two lines in the log, in microseconds.
const LOG_US: u64 = 60_000_000;

/// Writes at most one line a minute, whatever peers send.
#[derive(Debug, Default)]
pub(super) struct FarAheadLog {
    /// Time from which the next line may be logged, on the monotonic clock in microseconds.
    due_us: AtomicU64,
}

impl FarAheadLog {
    /// Notes that `record` was refused. `total` is the number of records refused so far. Returns whether a line
    /// was written.
    #[cold]
    pub(super) fn note(&self, now: Now, record: &Record, total: u64) -> bool {
        let due_us = self.due_us.load(Relaxed);
        let next_us = now.mono_us.saturating_add(LOG_US);
        if now.mono_us < due_us || self.due_us.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_err() {
            return false;
        }
        let (source, origin, ts) = (record.source.as_str(), record.birth.origin.as_str(), record.stamp.ts);
        let ahead_s = ts.saturating_sub(now.wall_us) / 1_000_000;
        tracing::warn!(
            source,
            origin,
            ts,
            ahead_s,
            total,
            "a peer's record is refused: its ts is more than a day ahead of this node's clock"
        );
        true
    }
}
