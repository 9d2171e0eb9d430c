//! Comparing this node's wall clock with those of its peers.
//!
//! An answer to a probe carries the peer's wall clock, which is taken to have been read half a round trip
//! before the answer came, as in NTP. What is kept is the difference between the peer's wall clock and our
//! *monotonic* clock, so that a step of our own wall clock shows at once against the old measurements.

use std::collections::VecDeque;

use super::slot::Slot;
use crate::record::Now;

/// Most measurements kept, each of another peer: enough for a median that one wrong clock does not move.
const PEERS_MAX: usize = 15;
/// Least number of peers for a median.
const PEERS_MIN: usize = 3;
/// Age from which on measurements are dropped, in microseconds.
const AGE_US_MAX: u64 = 60_000_000;
/// Longest round trip that says anything about clocks, in microseconds.
const RTT_US_MAX: u64 = 1_000_000;

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
}

impl Clocks {
    /// Notes what our own clocks show.
    pub fn set_now(&mut self, now: Now) {
        self.latest = now;
    }

    /// Takes in a peer's wall clock, which was read half a round trip ago.
    pub fn measured(&mut self, now: Now, peer: Slot, peer_wall_us: u64, rtt_us: u64) {
        self.latest = now;
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

    /// Our wall clock minus the median of the peers' clocks, in microseconds; `None` with too few peers.
    pub fn offset_us(&self) -> Option<i64> {
        let mut offsets: Vec<i64> = self.measurements.iter().map(|known| known.wall_less_mono_us).collect();
        if offsets.len() < PEERS_MIN {
            return None;
        }
        offsets.sort_unstable();
        let own = (self.latest.wall_us as i64).wrapping_sub(self.latest.mono_us as i64);
        offsets.get(offsets.len() / 2).map(|median| own.wrapping_sub(*median))
    }

    /// Our wall clock, in microseconds, at an instant of the monotonic clock.
    pub fn wall_us(&self, mono_us: u64) -> u64 {
        self.latest.wall_us.saturating_add(mono_us).saturating_sub(self.latest.mono_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_three() {
        let mut clocks = Clocks::default();
        let now = Now { mono_us: 1_000, wall_us: 50_000_000 };
        // Read 100 us ago by clocks that are right, 2 s ahead, and an hour ahead.
        clocks.measured(now, 1, 49_999_900, 200);
        clocks.measured(now, 2, 51_999_900, 200);
        assert_eq!(clocks.offset_us(), None);
        clocks.measured(now, 3, 3_649_999_900, 200);
        assert_eq!(clocks.offset_us(), Some(-2_000_000));
        // Our own clock is set 10 s forward.
        clocks.set_now(Now { mono_us: 2_000, wall_us: 60_001_000 });
        assert_eq!(clocks.offset_us(), Some(8_000_000));
    }

    #[test]
    fn measurements_are_bounded_and_age() {
        let mut clocks = Clocks::default();
        for peer in 0..100 {
            clocks.measured(Now { mono_us: 9, wall_us: 9 }, peer, 9, 0);
        }
        assert_eq!(clocks.measurements.len(), PEERS_MAX);
        clocks.measured(Now { mono_us: 9 + AGE_US_MAX, wall_us: 9 }, 200, 9, 0);
        assert_eq!((clocks.measurements.len(), clocks.offset_us()), (1, None));
    }
}
