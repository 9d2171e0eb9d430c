//! How fast a pull source goes: the bound on records a second, and the waits after failures.

use crate::cluster::random::Random;

/// Hands out records of a bucket that is filled at a constant rate and holds what is filled in a second.
#[derive(Debug)]
pub(super) struct RecordPace {
    per_s: u64,
    /// Millionths of a record in the bucket. Below zero, records were handed out ahead.
    level: i64,
    filled_us: u64,
}

/// Doubles the wait from failure to failure, and draws every wait between nothing and that (full jitter), so that
/// sources that fail together do not come back together.
#[derive(Debug)]
pub(super) struct PullBackoff {
    least_us: u64,
    most_us: u64,
    failures: u32,
    random: Random,
}

impl RecordPace {
    /// A full bucket at the monotonic time `now_us`.
    pub fn new(per_s: u64, now_us: u64) -> RecordPace {
        RecordPace { per_s, level: full(per_s), filled_us: now_us }
    }

    /// Takes one record. Returns the time in microseconds for which the caller must wait before it publishes it.
    pub fn take(&mut self, now_us: u64) -> u64 {
        let passed_us = now_us.saturating_sub(self.filled_us);
        let filled = i64::try_from(passed_us.saturating_mul(self.per_s)).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(filled).min(full(self.per_s)) - 1_000_000;
        self.filled_us = now_us;
        self.level.min(0).unsigned_abs().div_ceil(self.per_s)
    }

    /// Takes one record if there is one. Returns whether there was.
    pub fn take_if_free(&mut self, now_us: u64) -> bool {
        let is_free = self.take(now_us) == 0;
        if !is_free {
            self.level += 1_000_000;
        }
        is_free
    }
}

fn full(per_s: u64) -> i64 {
    i64::try_from(per_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

impl PullBackoff {
    /// Waits of up to `least_us` after the first failure, and never more than `most_us`.
    pub fn new(least_us: u64, most_us: u64, seed: u64) -> PullBackoff {
        PullBackoff { least_us, most_us: most_us.max(least_us), failures: 0, random: Random::new(seed) }
    }

    /// Returns the wait after one more failure, in microseconds. It is never less than a tenth of the first bound, so
    /// that what fails at once does not keep a core busy.
    pub fn next_us(&mut self) -> u64 {
        let bound_us = self.least_us.saturating_mul(1 << self.failures.min(32)).min(self.most_us);
        self.failures = self.failures.saturating_add(1);
        self.random.below(bound_us.saturating_add(1)).max(self.least_us / 10)
    }

    /// Notes that it works again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Draws a time of up to `us`, in microseconds.
    pub fn spread_us(&mut self, us: u64) -> u64 {
        self.random.below(us.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_handed_out_at_the_rate() {
        let mut pace = RecordPace::new(100, 5);
        assert!((0..100).all(|_| pace.take(5) == 0), "a second's worth at once");
        assert_eq!(pace.take(5), 10_000);
        assert_eq!(pace.take(5), 20_000);
        assert_eq!(pace.take(5 + 30_000), 0, "what was handed out ahead was filled again");
        // However long nothing is taken, no more than a second's worth is there.
        let later = 3_600_000_000;
        assert_eq!((0..101).filter(|_| pace.take(later) == 0).count(), 100);
        let mut slow = RecordPace::new(1, 0);
        assert_eq!((slow.take(0), slow.take(0)), (0, 1_000_000));
    }

    #[test]
    fn waits_double_up_to_the_most_and_differ() {
        let mut backoff = PullBackoff::new(1_000, 60_000, 7);
        let waits: Vec<u64> = (0..200).map(|_| backoff.next_us()).collect();
        for (failures, wait) in waits.iter().enumerate() {
            let bound = (1_000 << failures.min(6)).min(60_000);
            assert!((100..=bound).contains(wait), "{wait} us after {failures} failures");
        }
        assert!(
            waits.iter().max() > Some(&50_000) && waits[20..].iter().min() < Some(&10_000),
            "full jitter"
        );
        backoff.reset();
        assert!(backoff.next_us() <= 1_000);
    }
}
