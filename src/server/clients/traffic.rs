//! What the connections of a worker read, wrote and were sent, on its way to the metrics.

use super::Clients;

/// What was read and written, and how many patterns there were, when the metrics were last told.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// Number of patterns that the gauge counts.
    pub(super) patterns: usize,
    /// Number of filters that the gauge counts.
    pub(super) filters: usize,
}

impl Clients {
    /// Adds what was delivered, read and written since the last call to the metrics.
    pub(super) fn tell_metrics(&mut self) {
        let metrics = &self.env.host.shared.metrics;
        metrics.deliveries.add(std::mem::take(&mut self.env.work.deliveries));
        metrics.conflated.add(std::mem::take(&mut self.env.work.conflated));
        metrics.scan_steps.add(self.env.work.scans.take_count());
        metrics.clients.received_bytes.add(std::mem::take(&mut self.traffic.received_bytes));
        metrics.clients.sent_bytes.add(std::mem::take(&mut self.traffic.sent_bytes));
        let patterns = self.env.work.index.len();
        let before = std::mem::replace(&mut self.traffic.patterns, patterns);
        if before != patterns {
            metrics.clients.patterns.add(patterns as i64 - before as i64);
        }
        self.count_filters();
    }
}
