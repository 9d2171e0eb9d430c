//! Metrics of pull sources: what the cluster fetches from, as far as this node runs it.

use super::exposition::Exposition;
use super::kinds::{Counter, Gauge};

/// Figures of all pull sources that this node runs, together. Those of each are in its state.
#[derive(Debug, Default)]
pub struct PullCounters {
    /// Pull sources that this node runs now.
    pub running: Gauge,
    /// Records that were published.
    pub published: Counter,
    /// Records that were left out because they had not changed.
    pub unchanged: Counter,
    /// Records that the node refused.
    pub refused: Counter,
    /// Records that could not be made of what came.
    pub failed: Counter,
    /// Bytes of data that were published.
    pub bytes: Counter,
    /// Records that waited because of the bound on records a second.
    pub slowed: Counter,
    /// Errors of all kinds: servers that do not answer, programs that end, records that fail.
    pub errors: Counter,
}

impl PullCounters {
    /// Appends the metrics.
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.gauge("pull_running", "Pull sources that this node runs.", &self.running);
        text.head("pull_records_total", "counter", "Records of pull sources, by what became of them.");
        for (outcome, counter) in [
            ("published", &self.published),
            ("unchanged", &self.unchanged),
            ("refused", &self.refused),
            ("failed", &self.failed),
        ] {
            text.line(format_args!("pull_records_total{{outcome=\"{outcome}\"}} {}", counter.get()));
        }
        text.counter("pull_bytes_total", "Bytes of data that pull sources published.", &self.bytes);
        let help = "Records that waited for the bound on records a second of their pull source.";
        text.counter("pull_slowed_total", help, &self.slowed);
        text.counter("pull_errors_total", "Errors of pull sources, of all kinds.", &self.errors);
    }
}
