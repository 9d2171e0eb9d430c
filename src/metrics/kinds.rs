//! The kinds of metrics: counters, gauges and histograms.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one to the counter.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds a number to the counter.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Adds one at a fraction of the cost. May only be called under a lock under which all updates of this
    /// counter happen.
    pub fn increment_alone(&self) {
        self.0.store(self.get() + 1, Relaxed);
    }

    /// Returns the current value of the counter.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that can go up and down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets the gauge to `value`.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `difference`, which may be negative.
    pub fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Relaxed);
    }

    /// Returns the current value of the gauge.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// The part that one of several queues has in a gauge that tells their sum. What it holds leaves the gauge when it is
/// dropped.
#[derive(Debug)]
pub struct GaugeShare<'a> {
    gauge: &'a Gauge,
    value: Cell<i64>,
}

impl<'a> GaugeShare<'a> {
    /// Makes a share of `gauge` that holds nothing.
    pub fn of(gauge: &'a Gauge) -> GaugeShare<'a> {
        GaugeShare { gauge, value: Cell::new(0) }
    }

    /// Sets what this share holds.
    pub fn set(&self, value: i64) {
        self.gauge.add(value - self.value.replace(value));
    }
}

impl Drop for GaugeShare<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Upper bounds of the buckets, in microseconds: from a hop over loopback to the healing of a partition.
pub(super) const BUCKETS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000, 60_000_000,
];

/// A distribution of durations, counted in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    pub(super) buckets: [Counter; BUCKETS_US.len() + 1],
    pub(super) sum_us: Counter,
}

/// Durations that were counted by one thread, to be added to a [`Histogram`] all at once.
#[derive(Debug, Default)]
pub struct DurationTally {
    buckets: [u64; BUCKETS_US.len() + 1],
    sum_us: u64,
}

impl DurationTally {
    /// Counts one duration of `us` microseconds.
    pub fn record_us(&mut self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum_us += us;
    }
}

impl Histogram {
    /// Adds what was counted elsewhere.
    pub fn add(&self, tally: &DurationTally) {
        for (counter, &count) in self.buckets.iter().zip(&tally.buckets).filter(|(_, count)| **count > 0) {
            counter.add(count);
        }
        self.sum_us.add(tally.sum_us);
    }

    /// Counts one duration of `us` microseconds.
    pub fn record_us(&self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.increment();
        }
        self.sum_us.add(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_gauge_add_up_and_leave_it() {
        let gauge = Gauge::default();
        let (first, second) = (GaugeShare::of(&gauge), GaugeShare::of(&gauge));
        first.set(5);
        second.set(7);
        first.set(3);
        assert_eq!(gauge.get(), 10);
        drop(first);
        assert_eq!(gauge.get(), 7);
        drop(second);
        assert_eq!(gauge.get(), 0);
    }
}
