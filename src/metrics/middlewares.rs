//! Metrics of the middlewares that users add.

use super::exposition::Exposition;
use super::kinds::{Counter, Gauge, Histogram};

/// What middlewares have done at this node since the start.
#[derive(Debug, Default)]
pub struct MiddlewareCounters {
    /// Middlewares that are in force at this node, those included that were switched off.
    pub in_force: Gauge,
    /// Middlewares of them that were switched off because they failed.
    pub switched_off: Gauge,
    /// Times that a middleware has decided about a record, and how long that took.
    pub runs: Histogram,
    /// Times that a middleware has failed.
    pub failed: Counter,
    /// Records that middlewares have refused.
    pub rejected: Counter,
    /// Records that middlewares have dropped.
    pub dropped: Counter,
}

impl MiddlewareCounters {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.gauge("middlewares", "Middlewares in force at this node.", &self.in_force);
        let help = "Middlewares that are switched off because they failed.";
        text.gauge("middlewares_switched_off", help, &self.switched_off);
        let help = "Time that one middleware took for one record.";
        text.histogram("middleware_seconds", help, &self.runs);
        let help = "Times that a middleware failed, took too long or gave no usable result.";
        text.counter("middleware_failures_total", help, &self.failed);
        text.counter("middleware_rejected_total", "Records that middlewares refused.", &self.rejected);
        text.counter("middleware_dropped_total", "Records that middlewares dropped.", &self.dropped);
    }
}
