//! Estimates how long the tree takes to deliver: a running 99th percentile in one number.

/// Least step by which the estimate changes, in microseconds.
const STEP_US_MIN: u64 = 20;

/// Estimate of the time within which 99 of 100 parts arrive. A sample above the estimate raises it by 99
/// small steps, one below lowers it by one step, so it settles where one sample in a hundred is above.
#[derive(Debug, Default)]
pub(super) struct Latency {
    p99_us: u64,
}

impl Latency {
    /// Takes one sample, in microseconds.
    pub fn sample(&mut self, us: u64) {
        let step = (self.p99_us / 2_000).max(STEP_US_MIN);
        match us > self.p99_us {
            true => self.p99_us = (self.p99_us + 99 * step).min(us.max(STEP_US_MIN)),
            false => self.p99_us = self.p99_us.saturating_sub(step),
        }
    }

    /// The estimate, in microseconds; 0 before the first sample.
    pub fn p99_us(&self) -> u64 {
        self.p99_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_near_the_percentile() {
        let mut latency = Latency::default();
        for round in 0..20_000u64 {
            latency.sample(1_000 + (round * 7_919) % 10_000);
        }
        assert!((9_000..=11_000).contains(&latency.p99_us()), "{}", latency.p99_us());
    }
}
