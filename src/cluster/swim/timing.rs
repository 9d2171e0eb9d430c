//! The intervals of each profile, and Lifeguard's local health.
//!
//! The most important time is that until a silent member is given up: `probe_total_us + suspicion_min_us`
//! after the probe that got no answer, if enough others confirm. That must be longer than the longest pause
//! of a healthy node (1 s on a LAN) with its refutation, and apart from that as short as possible.

use crate::cluster::Profile;

/// Intervals of one profile, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Time between two probes of a node. With a shorter one silent members are found sooner, and there is
    /// more idle traffic (some 180 bytes a probe).
    pub probe_interval_us: u64,
    /// Time from the beginning of a probe until others are asked to probe too.
    pub probe_timeout_us: u64,
    /// Time from the beginning of a probe until the probed member is suspected.
    pub probe_total_us: u64,
    /// Time from suspected to dead when enough others confirm, in a small cluster.
    pub suspicion_min_us: u64,
    /// Time between two rounds of gossip, while there is something to tell.
    pub gossip_interval_us: u64,
    /// Time until the first retry of a join target. It grows by half each time, up to [`JOIN_RETRY_US_MAX`].
    pub join_retry_us: u64,
    /// Time after its last change for which a member list may differ from those of others while news is on
    /// its way.
    pub settle_us: u64,
}

/// Time from suspected to dead when nobody confirms, as a multiple of that when enough others do.
pub(super) const SUSPICION_MAX_FACTOR: u64 = 3;
/// Number of confirmations by others after which the shortest time holds.
pub(super) const CONFIRMATIONS: usize = 3;
/// Number of members that are asked to probe one that did not answer.
pub(super) const INDIRECT_PROBES: usize = 3;
/// Most accusers that news of a suspicion names: the first one, and those that confirm it.
pub(super) const ACCUSERS_MAX: usize = CONFIRMATIONS + 1;
/// Number of members after a suspect on the ring that probe it at once when they hear of the suspicion, so
/// that confirmations do not wait for their usual rounds.
pub(super) const WITNESSES: usize = 4;
/// Number of members that are told in one round of gossip.
pub(super) const GOSSIP_FANOUT: usize = 3;
/// Number of times that an update is told, as a multiple of the decimal logarithm of the cluster's size.
pub(super) const RETRANSMIT_FACTOR: u32 = 4;
/// Least logarithm that is used with [`RETRANSMIT_FACTOR`], so that a few losses in a small cluster do no
/// harm.
pub(super) const RETRANSMIT_LOG_MIN: u32 = 2;
/// Time between two tries to reach a dead member or a join target, so that partitions heal, in microseconds.
pub(super) const CONTACT_INTERVAL_US: u64 = 1_000_000;
/// Longest time between two tries of a join target while this node is alone, in microseconds.
pub(super) const JOIN_RETRY_US_MAX: u64 = 2_000_000;
/// Time for which dead members are remembered and contacted, in microseconds: three days.
pub(super) const DEAD_US: u64 = 3 * 24 * 3600 * 1_000_000;
/// Time for which members that left are remembered, so that stale news does not revive them, in microseconds:
/// an hour.
pub(super) const LEFT_US: u64 = 3600 * 1_000_000;
/// Time between two searches for members to forget, in microseconds.
pub(super) const FORGET_INTERVAL_US: u64 = 10_000_000;
/// Least time between two exchanges of lists because views differ, in microseconds.
pub(super) const LISTS_INTERVAL_US: u64 = 5_000_000;
/// Longest time between two such exchanges, to which it grows while exchanges do not make views equal, in
/// microseconds.
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

    /// Shortest time from suspected to dead in a cluster of `live` members, in microseconds: news takes
    /// longer to spread in a larger cluster.
    pub fn suspicion_min_us(&self, live: usize) -> u64 {
        let scale = (live.max(1) as f64).log10() / 2.0;
        (self.suspicion_min_us as f64 * scale.max(1.0)) as u64
    }

    /// Time from suspected to dead in a cluster of `live` members, in microseconds. It falls with the
    /// logarithm of the number of confirmations, from the longest to the shortest (Lifeguard's "dogpile").
    pub fn suspicion_us(&self, live: usize, confirmations: usize) -> u64 {
        let least = self.suspicion_min_us(live);
        // In a small cluster there are fewer to wait for: the suspect and this node do not count.
        let expected = CONFIRMATIONS.min(live.saturating_sub(2));
        if confirmations >= expected {
            return least;
        }
        let greatest = least * SUSPICION_MAX_FACTOR;
        let fallen = (confirmations as f64 + 1.0).ln() / (expected as f64 + 1.0).ln();
        greatest - ((greatest - least) as f64 * fallen) as u64
    }
}

/// Lifeguard's local health: how much this node should doubt itself before it
/// doubts others. 0 is healthy; timeouts are multiplied by one more than this score.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LocalHealth(u32);

/// Greatest score. It is small, because a node that is cut off must still notice within seconds.
const HEALTH_MAX: u32 = 4;

impl LocalHealth {
    /// Raises the score, because something went wrong that may be this node's own fault.
    pub fn worsen(&mut self, by: u32) {
        self.0 = self.0.saturating_add(by).min(HEALTH_MAX);
    }

    /// Lowers the score by one, because a probe was answered in time.
    pub fn improve(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// Returns the timeout to be used now in place of `us`, in microseconds.
    pub fn scaled_us(self, us: u64) -> u64 {
        us * u64::from(self.0 + 1)
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
