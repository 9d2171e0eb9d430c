//! Comparing this node's wall clock with those of its peers.
//!
//! An answer to a probe carries the peer's wall clock, which is taken to have been read half a round trip
//! before the answer came, as in NTP. What is kept is the difference between the peer's wall clock and our
//! *monotonic* clock, so that a step of our own wall clock shows at once against the old measurements.

use std::collections::VecDeque;

use super::slot::Slot;
use crate::limits::CLOCK_SKEW_US_MAX;
use crate::record::Now;

/// Most measurements kept, each of another peer: enough for a median that one wrong clock does not move.
const PEERS_MAX: usize = 15;
/// Least number of clocks for a verdict, this node's among them: of two clocks nobody can say which is wrong.
const CLOCKS_MIN: usize = 3;
/// Time after the first answer by which a node that joins knows the other members, in microseconds.
const LISTED_US: u64 = 2_000_000;
/// Age from which on measurements are dropped, in microseconds.
const AGE_US_MAX: u64 = 60_000_000;
/// Longest round trip that says anything about clocks, in microseconds.
const RTT_US_MAX: u64 = 1_000_000;

/// The verdict on this node's wall clock, by comparison with the members' clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockVerdict {
    /// Our wall clock minus the median of three or more clocks, ours among them, or minus that of the only peer,
    /// in microseconds; `None` before a peer was measured.
    pub offset_us: Option<i64>,
    /// Whether our wall clock is too far off the median of three or more clocks.
    pub is_skewed: bool,
    /// Whether our wall clock has been compared with a member's. If the two contradict each other and there are
    /// more members, one of them must have answered as well.
    pub is_compared: bool,
}

#[derive(Clone, Copy, Debug)]
struct Measurement {
    peer: Slot,
    at_us: u64,
    /// The peer's wall clock minus our monotonic clock, in microseconds.
    wall_less_mono_us: i64,
}

/// The latest measurement of each of the last peers, oldest first.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    measurements: VecDeque<Measurement>,
    latest: Now,
    /// When the first peer answered, however long that took, on the monotonic clock in microseconds; `None` if
    /// none has.
    first_us: Option<u64>,
}

impl Clocks {
    /// Notes what our own clocks show.
    pub fn set_now(&mut self, now: Now) {
        self.latest = now;
    }

    /// Takes in a peer's wall clock, which was read half a round trip ago.
    pub fn measured(&mut self, now: Now, peer: Slot, peer_wall_us: u64, rtt_us: u64) {
        self.latest = now;
        self.first_us.get_or_insert(now.mono_us);
        if rtt_us > RTT_US_MAX {
            return;
        }
        self.measurements.retain(|known| known.peer != peer && now.mono_us < known.at_us + AGE_US_MAX);
        if self.measurements.len() >= PEERS_MAX {
            self.measurements.pop_front();
        }
        let read_us = now.mono_us as i64 - (rtt_us / 2) as i64;
        let wall_less_mono_us = (peer_wall_us as i64).wrapping_sub(read_us);
        self.measurements.push_back(Measurement { peer, at_us: now.mono_us, wall_less_mono_us });
    }

    /// Our wall clock minus that of the only peer measured, or minus the median of all clocks, ours among them,
    /// in microseconds; `None` if no peer has been measured. Of an even number of clocks the median is the mean
    /// of the two in the middle.
    pub fn offset_us(&self) -> Option<i64> {
        let own = (self.latest.wall_us as i64).wrapping_sub(self.latest.mono_us as i64);
        let mut offsets: Vec<i64> =
            self.measurements.iter().map(|peer| own.wrapping_sub(peer.wall_less_mono_us)).collect();
        if offsets.len() > 1 {
            offsets.push(0);
        }
        offsets.sort_unstable();
        let upper = *offsets.get(offsets.len() / 2)?;
        let lower = *offsets.get((offsets.len() - 1) / 2)?;
        Some(lower.midpoint(upper))
    }

    /// Returns whether our wall clock is too far off the others. With fewer than three clocks there is no
    /// verdict, and it is not.
    pub fn is_skewed(&self) -> bool {
        self.measurements.len() + 1 >= CLOCKS_MIN && self.is_far_off()
    }

    /// Returns whether our wall clock has been compared with a peer's. If the only peer measured contradicts our
    /// clock, another one is needed to decide which of the two is wrong. If `peers`, the number of other members,
    /// is only one after so long a time that further ones would be known, there is no other.
    pub fn is_compared(&self, peers: usize) -> bool {
        let Some(first_us) = self.first_us else { return false };
        let has_nobody_else =
            peers + 1 < CLOCKS_MIN && self.latest.mono_us >= first_us.saturating_add(LISTED_US);
        let is_decided = self.measurements.len() + 1 >= CLOCKS_MIN || has_nobody_else;
        is_decided || !self.is_far_off()
    }

    fn is_far_off(&self) -> bool {
        self.offset_us().is_some_and(|offset_us| offset_us.unsigned_abs() > CLOCK_SKEW_US_MAX)
    }

    /// Our wall clock, in microseconds, at an instant of the monotonic clock.
    pub fn wall_us(&self, mono_us: u64) -> u64 {
        self.latest.wall_us.saturating_add(mono_us).saturating_sub(self.latest.mono_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const NOW: Now = Now { mono_us: 1_000, wall_us: 50_000_000 };

    /// This node's clock, and peers whose clocks are `ahead_s` seconds ahead of it.
    fn clocks_of(ahead_s: &[i64]) -> Clocks {
        let mut clocks = Clocks::default();
        for (peer, ahead_s) in (1..).zip(ahead_s) {
            // The peer read its clock half a round trip of 200 us ago.
            let wall_us = (NOW.wall_us - 100).saturating_add_signed(ahead_s * SECOND_US as i64);
            clocks.measured(NOW, peer, wall_us, 200);
        }
        clocks
    }

    #[test]
    fn the_offset_is_known_from_the_first_peer_on() {
        let offset_s = |ahead_s| clocks_of(ahead_s).offset_us().map(|us| us / SECOND_US as i64);
        assert_eq!(offset_s(&[]), None);
        assert_eq!(offset_s(&[7]), Some(-7));
        assert_eq!(offset_s(&[7, 7]), Some(-7));
        assert_eq!(offset_s(&[7, 0]), Some(0));
        assert_eq!(offset_s(&[2, 2, 3600]), Some(-2));
        assert_eq!(offset_s(&[-8, -8, -8, -8]), Some(8));
        // Our own clock is set 10 s forward.
        let mut clocks = clocks_of(&[2, 2]);
        clocks.set_now(Now { mono_us: NOW.mono_us + 1_000, wall_us: NOW.wall_us + 10 * SECOND_US + 1_000 });
        assert_eq!(clocks.offset_us(), Some(8 * SECOND_US as i64));
    }

    /// Two peers are enough for a verdict; three were wanted, so nothing guarded a cluster of three.
    #[test]
    fn three_clocks_decide() {
        let is_skewed = |ahead_s: &[i64]| clocks_of(ahead_s).is_skewed();
        assert!(!is_skewed(&[]) && !is_skewed(&[60]));
        assert!(is_skewed(&[6, 6]) && is_skewed(&[-6, -6]));
        assert!(!is_skewed(&[5, 5]) && !is_skewed(&[60, 0]) && !is_skewed(&[60, -60]));
        assert!(is_skewed(&[60, 60, 0]) && !is_skewed(&[60, 0, 0]));
        assert!(is_skewed(&[60, 60, 60]));
    }

    #[test]
    fn a_clock_is_compared_once_nothing_contradicts_it_or_others_can_decide() {
        assert!(!clocks_of(&[]).is_compared(0) && !clocks_of(&[]).is_compared(3));
        assert!(clocks_of(&[1]).is_compared(1) && clocks_of(&[1]).is_compared(3));
        // Of two clocks nobody can say which is wrong, unless there is a third.
        assert!(!clocks_of(&[60]).is_compared(1) && !clocks_of(&[60]).is_compared(2));
        let mut clocks = clocks_of(&[60]);
        clocks.set_now(NOW.plus_us(LISTED_US));
        assert!(clocks.is_compared(1) && !clocks.is_compared(2));
        assert!(clocks_of(&[60, 60]).is_compared(2));
        // An answer that took long measures nothing, but a member was there.
        let mut clocks = Clocks::default();
        clocks.measured(NOW, 1, 9, RTT_US_MAX + 1);
        assert!(clocks.is_compared(3) && clocks.offset_us().is_none());
    }

    #[test]
    fn clocks_that_no_machine_has_do_no_harm() {
        for wall_us in [0, 1 << 63, u64::MAX] {
            let mut clocks = clocks_of(&[0, 0]);
            clocks.measured(NOW, 9, wall_us, 0);
            clocks.measured(NOW, 10, wall_us, 0);
            let _ = (clocks.offset_us(), clocks.is_skewed(), clocks.is_compared(4));
        }
    }

    #[test]
    fn measurements_are_bounded_and_age() {
        let mut clocks = Clocks::default();
        for peer in 0..100 {
            clocks.measured(Now { mono_us: 9, wall_us: 9 }, peer, 9, 0);
        }
        assert_eq!(clocks.measurements.len(), PEERS_MAX);
        clocks.measured(Now { mono_us: 9 + AGE_US_MAX, wall_us: 9 }, 200, 9, 0);
        assert_eq!((clocks.measurements.len(), clocks.is_skewed()), (1, false));
    }
}
