//! Short rests between the turns of a busy node of a cluster, so that records share what a turn costs.
//!
//! A node that takes a turn for every record that comes makes a datagram, a receipt, several system calls and
//! a change of threads for each of them, on this node and on every peer. If it rests for some hundred
//! microseconds after a turn in which it had nothing left to do, all records of that time share one datagram
//! for each peer, one receipt and one write for each subscriber, at a small cost in delay. Where records are
//! few a rest would save nothing, so there is none; where they are many a short one suffices. Network cards
//! moderate their interrupts by the same rule.
//!
//! Rejected: a wait of each link for itself, which saves datagrams but none of the turns that the records of
//! clients and the datagrams of peers start.

/// Longest time from the beginning of one turn to that of the next for the sake of a rest, in microseconds.
const REST_US_MAX: u64 = 500;
/// Time over which the rate of records is averaged, in microseconds.
const AVERAGED_US: f64 = 10_000.0;
/// Records in [`REST_US_MAX`] up to which there is no rest: it would save less than it costs in delay.
const FEW_RECORDS: f64 = 2.0;
/// Records in [`REST_US_MAX`] from which on a rest may be as long as that.
const MANY_RECORDS: f64 = 8.0;
/// Records of one turn that are enough: beyond these a longer rest saves hardly anything more.
const ENOUGH_RECORDS: f64 = 32.0;

/// Decides from the rate of the records that come from and go to peers how long a worker rests between turns.
#[derive(Debug, Default)]
pub struct Rest {
    /// When the current turn began, on the monotonic clock in microseconds.
    began_us: u64,
    /// Number of records that had come and gone when the current turn began.
    moved: u64,
    /// Average rate of the records, in records per microsecond.
    rate: f64,
}

impl Rest {
    /// Notes that a turn begins. `moved` is the number of records that have come from peers and gone to them
    /// since the start of the node.
    pub fn begin_turn(&mut self, now_us: u64, moved: u64) {
        let (since_us, count) = (now_us.saturating_sub(self.began_us), moved.saturating_sub(self.moved));
        (self.began_us, self.moved) = (now_us, moved);
        if since_us == 0 {
            return;
        }
        let seen = count as f64 / since_us as f64;
        let weight = (since_us as f64 / AVERAGED_US).min(1.0);
        self.rate += weight * (seen - self.rate);
    }

    /// How long the worker rests before it looks for events again, if the current turn has left nothing over;
    /// in microseconds, 0 for no rest.
    pub fn rest_us(&self, now_us: u64) -> u64 {
        let in_longest = self.rate * REST_US_MAX as f64;
        if in_longest <= FEW_RECORDS {
            return 0;
        }
        let worth = ((in_longest - FEW_RECORDS) / (MANY_RECORDS - FEW_RECORDS)).min(1.0);
        let enough_us = ENOUGH_RECORDS / self.rate;
        let apart_us = (REST_US_MAX as f64 * worth).min(enough_us) as u64;
        (self.began_us + apart_us).saturating_sub(now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest after a turn of 20 µs, of a node that moves `per_s` records a second.
    fn rest_at(per_s: u64) -> u64 {
        let mut rest = Rest::default();
        let (mut now_us, mut moved) = (1_000_000, 0);
        rest.begin_turn(now_us, moved);
        for turn in 1..=1_000 {
            now_us += 100;
            moved = per_s * turn * 100 / 1_000_000;
            rest.begin_turn(now_us, moved);
        }
        rest.rest_us(now_us + 20)
    }

    #[test]
    fn follows_what_it_saves() {
        assert_eq!(rest_at(0), 0);
        assert_eq!(rest_at(1_000), 0);
        assert_eq!(rest_at(3_500), 0);
        assert!((100..300).contains(&rest_at(10_000)), "{}", rest_at(10_000));
        assert!((400..=480).contains(&rest_at(20_000)), "{}", rest_at(20_000));
        assert!((250..350).contains(&rest_at(100_000)), "{}", rest_at(100_000));
        assert!(rest_at(1_000_000) <= 32);
    }

    #[test]
    fn a_long_turn_is_not_followed_by_a_rest() {
        let mut rest = Rest::default();
        rest.begin_turn(1_000_000, 0);
        rest.begin_turn(1_010_000, 200);
        assert!(rest.rest_us(1_010_020) > 0);
        assert_eq!(rest.rest_us(1_010_600), 0);
        rest.begin_turn(1_030_000, 200);
        assert_eq!(rest.rest_us(1_030_000), 0, "nothing came for longer than the average goes back");
    }
}
