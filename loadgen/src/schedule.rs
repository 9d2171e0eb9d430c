//! When each message is due, in nanoseconds from the start of publishing. Pure.
//!
//! Latencies count from these times, so they depend on nothing that happens during the run.

use crate::random::Random;

/// The distribution of a rate over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Equal gaps between messages; the publishers take turns.
    Constant,
    /// Independent arrivals: exponential gaps with the rate's mean.
    Poisson,
    /// This many messages at one instant, then silence until the rate is met.
    Burst(u32),
    /// A rate that changes linearly from this many messages per second to the rate of the run.
    Ramp(f64),
    /// Messages are sent as fast as the target takes them.
    Saturate,
}

/// The times at which messages of one publisher are due, never decreasing.
#[derive(Clone, Debug)]
pub struct Schedule {
    shape: Shape,
    /// Number of messages per second, all publishers together.
    rate_per_s: f64,
    publisher: u64,
    publishers: u64,
    /// Length of the ramp, in nanoseconds.
    whole_ns: u64,
    random: Random,
    count: u64,
    /// The last time of a Poisson schedule, not rounded.
    at_ns: f64,
}

const SECOND_NS: f64 = 1e9;

impl Schedule {
    /// Makes the schedule of one of several publishers that share `rate_per_s` for `whole_ns` nanoseconds.
    pub fn new(
        shape: Shape,
        rate_per_s: f64,
        (publisher, publishers): (u64, u64),
        whole_ns: u64,
        random: Random,
    ) -> Schedule {
        let publishers = publishers.max(1);
        Schedule { shape, rate_per_s, publisher, publishers, whole_ns, random, count: 0, at_ns: 0.0 }
    }

    /// Returns when the next message is due, in nanoseconds. With [`Shape::Saturate`] that is always 0: a
    /// message is due when it is sent.
    pub fn next_ns(&mut self) -> u64 {
        let n = self.count;
        self.count += 1;
        let in_all = (n * self.publishers + self.publisher) as f64;
        let gap_ns = SECOND_NS / self.rate_per_s;
        match self.shape {
            Shape::Constant => (in_all * gap_ns) as u64,
            Shape::Poisson => {
                self.at_ns -= self.random.unit().ln() * gap_ns * self.publishers as f64;
                self.at_ns as u64
            }
            Shape::Burst(size) => {
                let size = u64::from(size.max(1));
                let burst = n / size * self.publishers + self.publisher;
                ((burst * size) as f64 * gap_ns) as u64
            }
            Shape::Ramp(from_per_s) => self.ramp_ns(from_per_s, in_all),
            Shape::Saturate => 0,
        }
    }

    /// Solves `from·t + (to − from)·t² / 2T = n` for `t`; after the ramp the rate stays.
    fn ramp_ns(&self, from_per_s: f64, n: f64) -> u64 {
        let whole_s = self.whole_ns as f64 / SECOND_NS;
        let in_ramp = (from_per_s + self.rate_per_s) / 2.0 * whole_s;
        if n >= in_ramp {
            return ((whole_s + (n - in_ramp) / self.rate_per_s) * SECOND_NS) as u64;
        }
        let slope = (self.rate_per_s - from_per_s) / whole_s;
        // This form of the root stays exact when the rate hardly changes.
        let root = (from_per_s * from_per_s + 2.0 * slope * n).max(0.0).sqrt();
        (2.0 * n / (from_per_s + root).max(f64::MIN_POSITIVE) * SECOND_NS) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the times of all publishers within `seconds`, in order.
    fn times(shape: Shape, rate_per_s: f64, publishers: u64, seconds: u64) -> Vec<u64> {
        let whole_ns = seconds * 1_000_000_000;
        let mut all = Vec::new();
        for publisher in 0..publishers {
            let random = Random::new(3, publisher);
            let mut schedule = Schedule::new(shape, rate_per_s, (publisher, publishers), whole_ns, random);
            let mut last = 0;
            loop {
                let due = schedule.next_ns();
                assert!(due >= last, "{shape:?}: {due} after {last}");
                last = due;
                if due >= whole_ns {
                    break;
                }
                all.push(due);
            }
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn constant_has_equal_gaps_over_all_publishers() {
        let all = times(Shape::Constant, 1_000.0, 8, 1);
        assert_eq!(all.len(), 1_000);
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(1_000_000) <= 1));
    }

    #[test]
    fn bursts_come_at_once() {
        let all = times(Shape::Burst(50), 1_000.0, 2, 1);
        assert_eq!(all.len(), 1_000);
        for burst in all.chunks(50) {
            assert!(burst.iter().all(|due| *due == burst[0]));
        }
        assert_eq!(all[50] - all[0], 50_000_000);
    }

    #[test]
    fn a_ramp_has_a_quarter_in_its_first_half() {
        let all = times(Shape::Ramp(0.0), 10_000.0, 3, 2);
        assert!(all.len().abs_diff(10_000) <= 3, "{}", all.len());
        let early = all.iter().filter(|due| **due < 1_000_000_000).count();
        assert!(early.abs_diff(2_500) <= 3, "{early}");
    }

    #[test]
    fn poisson_gaps_vary_as_they_must() {
        let all = times(Shape::Poisson, 20_000.0, 4, 2);
        assert!(all.len().abs_diff(40_000) < 1_200, "{}", all.len());
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1, "{}", variance.sqrt() / mean);
    }

    proptest! {
        #[test]
        fn every_shape_keeps_its_rate(rate in 1u32..2_000, publishers in 1u64..20, from in 1u32..2_000) {
            for (shape, wanted) in [
                (Shape::Constant, f64::from(rate)),
                (Shape::Burst(10), f64::from(rate)),
                (Shape::Ramp(f64::from(from)), f64::midpoint(f64::from(rate), f64::from(from))),
            ] {
                let count = times(shape, f64::from(rate), publishers, 1).len() as f64;
                // Each publisher may have begun one burst more or less than its share.
                let slack = 12.0 * publishers as f64;
                prop_assert!((count - wanted).abs() <= slack, "{shape:?} {count} {wanted}");
            }
        }
    }
}
