//! How long things take: the intervals of each profile, and Lifeguard's awareness of oneself.
//!
//! What decides is when a silent member is given up: `probe_total_us + suspicion_min_us` after the
//! probe that found it silent, if enough others confirm. That must be longer than the longest pause
//! of a healthy node (1 s on a LAN) with room for its refutation, and everything else short.

use crate::cluster::Profile;

/// Intervals of one profile, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Between two probes of a node. Shorter: found sooner, more idle traffic (some 180 bytes each).
    pub probe_interval_us: u64,
    /// Until others are asked to probe too.
    pub probe_timeout_us: u64,
    /// Until the probed member is suspected.
    pub probe_total_us: u64,
    /// From suspected to dead when others confirm.
    pub suspicion_min_us: u64,
    /// Between two rounds of gossip, while there is something to tell.
    pub gossip_interval_us: u64,
    /// First retry of a join target; grows by half to [`JOIN_RETRY_US_MAX`].
    pub join_retry_us: u64,
    /// How long after its last change a member list may still differ from others' for good reason.
    pub settle_us: u64,
}

/// From suspected to dead when nobody confirms, as a multiple of the least time.
pub(super) const SUSPICION_MAX_FACTOR: u64 = 3;
/// Confirmations by others after which the least time holds.
pub(super) const CONFIRMATIONS: usize = 3;
/// Members asked to probe one that did not answer.
pub(super) const INDIRECT_PROBES: usize = 3;
/// Accusers told of: the first, and those that confirm it.
pub(super) const ACCUSERS_MAX: usize = CONFIRMATIONS + 1;
/// Followers on the ring that probe a suspect at once when they hear of it, so that confirmations
/// do not wait for everybody's round to come by.
pub(super) const WITNESSES: usize = 4;
/// Members told in a round of gossip.
pub(super) const GOSSIP_FANOUT: usize = 3;
/// An update is told this many times the decimal logarithm of the cluster's size.
pub(super) const RETRANSMIT_FACTOR: u32 = 4;
/// The least logarithm, so that a few losses while a cluster is small cost nothing.
pub(super) const RETRANSMIT_LOG_MIN: u32 = 2;
/// Between two tries to reach one dead member or join target, so that partitions heal.
pub(super) const CONTACT_INTERVAL_US: u64 = 1_000_000;
/// Longest pause between two tries of a join target while alone.
pub(super) const JOIN_RETRY_US_MAX: u64 = 2_000_000;
/// How long the dead are remembered, and probed: three days.
pub(super) const DEAD_US: u64 = 3 * 24 * 3600 * 1_000_000;
/// How long those that left are remembered, so that stale news does not revive them: an hour.
pub(super) const LEFT_US: u64 = 3600 * 1_000_000;
/// How often the dead and left are looked through.
pub(super) const FORGET_INTERVAL_US: u64 = 10_000_000;
/// Between two exchanges of lists with the same end in view: equal views.
pub(super) const LISTS_INTERVAL_US: u64 = 5_000_000;
/// The same, after exchanges that did not help.
pub(super) const LISTS_INTERVAL_US_MAX: u64 = 60_000_000;

impl Timing {
    /// The intervals of a profile.
    pub fn of(profile: Profile) -> Timing {
        match profile {
            Profile::Lan => Timing {
                probe_interval_us: 225_000,
                probe_timeout_us: 100_000,
                probe_total_us: 300_000,
                suspicion_min_us: 900_000,
                gossip_interval_us: 200_000,
                join_retry_us: 200_000,
                settle_us: 1_000_000,
            },
            Profile::Wan => Timing {
                probe_interval_us: 1_000_000,
                probe_timeout_us: 500_000,
                probe_total_us: 1_500_000,
                suspicion_min_us: 4_000_000,
                gossip_interval_us: 500_000,
                join_retry_us: 500_000,
                settle_us: 10_000_000,
            },
            Profile::Local => Timing {
                probe_interval_us: 150_000,
                probe_timeout_us: 80_000,
                probe_total_us: 240_000,
                suspicion_min_us: 700_000,
                gossip_interval_us: 100_000,
                join_retry_us: 100_000,
                settle_us: 500_000,
            },
        }
    }

    /// Least time from suspected to dead in a cluster of `live` members: news takes longer to go
    /// round a larger one.
    pub fn suspicion_min_us(&self, live: usize) -> u64 {
        let scale = (live.max(1) as f64).log10() / 2.0;
        (self.suspicion_min_us as f64 * scale.max(1.0)) as u64
    }

    /// Time from suspected to dead: it falls with the logarithm of the confirmations (Lifeguard's
    /// "dogpile"), from the greatest to the least.
    pub fn suspicion_us(&self, live: usize, confirmations: usize) -> u64 {
        let least = self.suspicion_min_us(live);
        // In a small cluster there is nobody to wait for: the accused and this node do not count.
        let expected = CONFIRMATIONS.min(live.saturating_sub(2));
        if confirmations >= expected {
            return least;
        }
        let greatest = least * SUSPICION_MAX_FACTOR;
        let fallen = (confirmations as f64 + 1.0).ln() / (expected as f64 + 1.0).ln();
        greatest - ((greatest - least) as f64 * fallen) as u64
    }
}

/// Lifeguard's local health: how much this node should distrust its own clockwork before it
/// distrusts others. 0 is healthy; timeouts are multiplied by one more than this.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health(u32);

/// A node that is cut off must still find out within seconds: the multiplier stays small.
const HEALTH_MAX: u32 = 4;

impl Health {
    /// Something went wrong that may be this node's own fault.
    pub fn worsen(&mut self, by: u32) {
        self.0 = self.0.saturating_add(by).min(HEALTH_MAX);
    }

    /// A probe was answered in time.
    pub fn improve(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// A timeout as it is to be used now.
    pub fn scaled_us(self, us: u64) -> u64 {
        us * u64::from(self.0 + 1)
    }

    /// 0: healthy.
    pub fn score(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_falls_with_confirmations() {
        let timing = Timing::of(Profile::Lan);
        let times: Vec<u64> = (0..5).map(|confirmations| timing.suspicion_us(100, confirmations)).collect();
        assert_eq!((times[0], times[3], times[4]), (2_700_000, 900_000, 900_000));
        assert!(times.windows(2).all(|pair| pair[0] >= pair[1]));
        assert_eq!(timing.suspicion_us(2, 0), 900_000);
        assert!(timing.suspicion_us(10_000, 3) == 1_800_000);
    }

    #[test]
    fn a_pause_of_a_second_is_survived() {
        let timing = Timing::of(Profile::Lan);
        assert!(timing.probe_total_us + timing.suspicion_min_us >= 1_200_000);
    }
}
