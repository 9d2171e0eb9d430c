//! Measures the round trip to a peer, and decides how long to wait for its answers.

/// Least allowance for a late receipt over the smoothed round trip, in microseconds: as long as a receipt
/// may wait for other content to travel with.
const RTO_MARGIN_US: u64 = 1_000;
/// Least allowance for a peer whose receipts are late, in microseconds: its machine may schedule it that
/// late.
const PATIENCE_MARGIN_US: u64 = 4_000;
/// Longest time to wait for a receipt, in microseconds.
const RTO_US_MAX: u64 = 1_000_000;

/// A smoothed round-trip time and its variation, as in RFC 6298.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    smooth_us: u64,
    var_us: u64,
}

impl Rtt {
    /// The estimate after a first sample, in microseconds.
    pub fn new(sample_us: u64) -> Rtt {
        Rtt { smooth_us: sample_us, var_us: sample_us / 2 }
    }

    /// The estimate after a first sample on a link, where the round trips of others are as in `typical`: a
    /// link with about the same round trip is taken to vary as much.
    pub fn like(typical: Rtt, sample_us: u64) -> Rtt {
        if sample_us / 2 > typical.smooth_us || sample_us < typical.smooth_us / 2 {
            return Rtt::new(sample_us);
        }
        let mut rtt = typical;
        rtt.sample(sample_us);
        rtt
    }

    /// Takes one more sample, in microseconds.
    pub fn sample(&mut self, us: u64) {
        self.var_us = (3 * self.var_us + self.smooth_us.abs_diff(us)) / 4;
        self.smooth_us = (7 * self.smooth_us + us) / 8;
    }

    /// The smoothed round trip, in microseconds.
    pub fn smooth_us(self) -> u64 {
        self.smooth_us
    }

    /// How long to wait before asking whether a part arrived, in microseconds: shorter than the wait before
    /// sending it again, since a needless question costs little.
    pub fn ask_us(self) -> u64 {
        self.smooth_us + (2 * self.var_us).max(RTO_MARGIN_US / 2)
    }

    /// How long to wait for the receipt of a peer that is busy rather than out of reach, in microseconds.
    pub fn patient_us(self) -> u64 {
        (self.smooth_us + (4 * self.var_us).max(PATIENCE_MARGIN_US)).min(RTO_US_MAX)
    }

    /// How long to wait for a receipt at try number `tries`, in microseconds: no backoff for the first four
    /// tries, then half as much again each time.
    pub fn timeout_us(self, tries: u32) -> u64 {
        let base = self.smooth_us + (4 * self.var_us).max(RTO_MARGIN_US);
        let mut timeout = base;
        for _ in 4..tries.min(32) {
            timeout = (timeout + timeout / 2).min(RTO_US_MAX);
        }
        timeout.clamp(RTO_MARGIN_US, RTO_US_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_only_after_four_tries_and_never_without_end() {
        let rtt = Rtt::new(10_000);
        let waits: Vec<u64> = (0..40).map(|tries| rtt.timeout_us(tries)).collect();
        assert!(waits[..5].iter().all(|wait| *wait == 30_000), "{waits:?}");
        assert_eq!((waits[5], waits[6]), (45_000, 67_500));
        assert!(waits.is_sorted() && waits[39] == RTO_US_MAX);
        assert!(rtt.ask_us() < waits[0] && rtt.patient_us() >= waits[0]);
    }

    #[test]
    fn a_first_sample_takes_over_the_variation_of_links_of_its_kind() {
        let mut typical = Rtt::new(1_000);
        (0..100).for_each(|_| typical.sample(1_000));
        let (near, far) = (Rtt::like(typical, 1_100), Rtt::like(typical, 9_000));
        assert!(near.timeout_us(0) < Rtt::new(1_100).timeout_us(0));
        assert_eq!(far.timeout_us(0), Rtt::new(9_000).timeout_us(0));
    }
}
