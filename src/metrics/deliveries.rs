//! Metrics of what leaves the cluster: webhooks and archives.

use super::exposition::{Exposition, Seconds};
use super::kinds::{Counter, Gauge};

/// What the webhooks that this node runs have sent since its start.
#[derive(Debug, Default)]
pub struct HookCounters {
    /// Records that receivers have taken.
    pub records: Counter,
    /// Batches that receivers have taken.
    pub batches: Counter,
    /// Batches that were not taken, each time that they were sent.
    pub failures: Counter,
    /// Webhooks that have ended, because a receiver said so or took nothing for a day.
    pub ended: Counter,
}

/// What this node has written to archives since its start, and read from them.
#[derive(Debug, Default)]
pub struct ArchiveCounters {
    /// Archives that were written as a whole.
    pub written: Counter,
    /// Archives that could not be written.
    pub failures: Counter,
    /// Records in the archives that were written.
    pub records: Counter,
    /// Bytes of the archives that were written, compressed.
    pub bytes: Counter,
    /// Archives that were removed because newer ones are kept.
    pub removed: Counter,
    /// Records that restores have published.
    pub restored: Counter,
    /// Time at which the last archive was written, in microseconds since the Unix epoch; 0 if none was.
    pub last_us: Gauge,
}

impl HookCounters {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        for (name, help, counter) in [
            ("hook_records_total", "Records that receivers of webhooks have taken.", &self.records),
            ("hook_batches_total", "Batches that receivers of webhooks have taken.", &self.batches),
            (
                "hook_failures_total",
                "Batches of webhooks that were not taken and are sent again.",
                &self.failures,
            ),
            ("hook_ended_total", "Webhooks that have ended.", &self.ended),
        ] {
            text.counter(name, help, counter);
        }
    }
}

impl ArchiveCounters {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.head("archives_total", "counter", "Archives, by whether they were written.");
        for (outcome, counter) in [("written", &self.written), ("failed", &self.failures)] {
            text.line(format_args!("archives_total{{outcome=\"{outcome}\"}} {}", counter.get()));
        }
        for (name, help, counter) in [
            ("archive_records_total", "Records in the archives that were written.", &self.records),
            ("archive_bytes_total", "Compressed bytes of the archives that were written.", &self.bytes),
            ("archives_removed_total", "Archives that were removed, as newer ones are kept.", &self.removed),
            ("archive_restored_total", "Records that restores have published.", &self.restored),
        ] {
            text.counter(name, help, counter);
        }
        text.head("archive_last_success_seconds", "gauge", "When the last archive was written, since 1970.");
        let last = Seconds::from_us(self.last_us.get());
        text.line(format_args!("archive_last_success_seconds {last}"));
    }
}
