//! A list of the members that also knows which of them were alive in the past.
//!
//! An answer waits for the members that were alive when its record was accepted, less those that have gone
//! since. The roster knows them without a copy of the member list for every answer: it has the list as it is
//! now, and for members that joined lately the period in which they did. A member that comes back after it
//! was given up counts as one that joined.

use std::collections::BTreeMap;

use crate::cluster::ring::{Ring, RingEntry};
use crate::cluster::spread::batch::line_hash;
use crate::cluster::spread::tally::Tally;

/// A member of the cluster in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    /// The member's place on the ring.
    pub place: u64,
    /// Hash of the member's life.
    pub life: u64,
}

/// A member that has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departed {
    /// Hash of the member's life.
    pub member: u64,
    /// Period in which it had joined; 0: before all periods that are remembered.
    pub joined: u64,
}

/// The live members, and in which period each joined. A period lasts until the members change.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// Version of the ring that was seen last.
    version: Option<u64>,
    /// All members, in the ring's order.
    seats: Vec<Seat>,
    /// All members as a set.
    tally: Tally,
    /// Number of the current period.
    period: u64,
    /// Periods in which members joined, by the hash of their life. Others joined before.
    joined: BTreeMap<u64, u64>,
}

impl Roster {
    /// Returns whether the roster has the members of this ring.
    pub fn is_current(&self, ring: &Ring) -> bool {
        self.version == Some(ring.version())
    }

    /// Takes the ring as it is now; returns the members that have gone since the last call.
    pub fn refresh(&mut self, ring: &Ring) -> Vec<Departed> {
        if self.is_current(ring) {
            return Vec::new();
        }
        let entries = ring.entries().iter();
        let seat =
            |entry: &RingEntry| Seat { place: entry.hash, life: line_hash(entry.name(), entry.start_boot()) };
        let seats: Vec<Seat> = entries.map(seat).collect();
        let before = std::mem::replace(&mut self.seats, seats);
        self.version = Some(ring.version());
        self.period += 1;
        let sorted = |mut members: Vec<u64>| {
            members.sort_unstable();
            members
        };
        let old = sorted(before.iter().map(|seat| seat.life).collect());
        let new = sorted(self.seats.iter().map(|seat| seat.life).collect());
        let mut gone = Vec::new();
        for member in old.iter().filter(|member| new.binary_search(member).is_err()) {
            gone.push(Departed { member: *member, joined: self.joined.remove(member).unwrap_or(0) });
        }
        for member in new.iter().filter(|member| old.binary_search(member).is_err()) {
            self.joined.insert(*member, self.period);
        }
        self.tally = new.into_iter().fold(Tally::default(), |sum, member| sum.plus(Tally::of(member)));
        gone
    }

    /// Forgets when members joined. To be called when no answer waits any more.
    pub fn forget_joined(&mut self) {
        self.joined.clear();
    }

    /// Number of the current period.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// The set of all members.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns whether a member that is alive now was alive in `period`. `member`: the hash of its life.
    pub fn was_there(&self, member: u64, period: u64) -> bool {
        self.joined.get(&member).is_none_or(|joined| *joined <= period)
    }

    /// All members, in the order of the ring's entries.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::members::State;
    use crate::cluster::spread::harness::{identity, ring_of};

    #[test]
    fn knows_who_was_there() {
        let mut ring = ring_of(3);
        let mut roster = Roster::default();
        let life = |index: usize| line_hash(&identity(index).name, identity(index).boot);
        assert!(roster.refresh(&ring).is_empty());
        roster.forget_joined();
        let period = roster.period();
        assert_eq!(roster.tally(), Tally { count: 3, members: life(0) ^ life(1) ^ life(2) });

        ring.insert(identity(3), State::Alive);
        ring.remove(identity(0).ring_hash(), "node-0");
        assert_eq!(roster.refresh(&ring), [Departed { member: life(0), joined: 0 }]);
        assert!(roster.was_there(life(1), period) && !roster.was_there(life(3), period));
        assert!(roster.was_there(life(3), roster.period()));

        // The member comes back after it was given up: for answers that waited it stays gone.
        ring.insert(identity(0), State::Alive);
        assert!(roster.refresh(&ring).is_empty());
        assert!(!roster.was_there(life(0), period));
        // A suspected member is still a member.
        ring.insert(identity(1), State::Suspect);
        assert!(roster.refresh(&ring).is_empty() && roster.was_there(life(1), period));
    }
}
