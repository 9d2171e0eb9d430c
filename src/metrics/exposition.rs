//! Prometheus' text format.

use std::fmt::Write;

use super::kinds::{BUCKETS_US, Counter, Gauge, Histogram};

/// Writes Prometheus' text format. Adds `anode_` in front of every name.
pub(super) struct Exposition<'a> {
    pub(super) out: &'a mut String,
}

impl Exposition<'_> {
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.raw(format_args!("# HELP anode_{name} {help}\n# TYPE anode_{name} {kind}\n"));
    }

    pub(super) fn line(&mut self, sample: std::fmt::Arguments<'_>) {
        self.raw(format_args!("anode_{sample}\n"));
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.total(name, help, counter.get());
    }

    pub(super) fn total(&mut self, name: &str, help: &str, total: u64) {
        self.head(name, "counter", help);
        self.line(format_args!("{name} {total}"));
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, gauge: &Gauge) {
        self.head(name, "gauge", help);
        self.line(format_args!("{name} {}", gauge.get()));
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        self.series(name, "", histogram);
    }

    /// Appends one series of a histogram, with these labels, or none.
    pub(super) fn series(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let separator = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bound_us, bucket) in BUCKETS_US.iter().zip(&histogram.buckets) {
            count += bucket.get();
            let bound = Seconds::from_us(*bound_us as i64);
            self.line(format_args!("{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}"));
        }
        count += histogram.buckets.last().map_or(0, Counter::get);
        self.line(format_args!("{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}"));
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.line(format_args!("{name}_sum{braced} {}", Seconds::from_us(histogram.sum_us.get() as i64)));
        self.line(format_args!("{name}_count{braced} {count}"));
    }

    /// Appends formatted text. Writing to a `String` cannot fail, so there is no result.
    pub(super) fn raw(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(text);
    }
}

/// A duration that is written in seconds.
pub(super) struct Seconds(f64);

impl Seconds {
    pub(super) fn from_us(us: i64) -> Seconds {
        Seconds(us as f64 / 1e6)
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
