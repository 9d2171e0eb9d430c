//! Who was alive when: so that an answer can wait for those who were there when its record was
//! accepted, less those who have gone, without a copy of the member list for every one that waits.
//!
//! It is the list of now, and of those who joined lately when they did. Whoever is in it and was in it
//! before is waited for; who comes back after it was given up counts as one that joined.

use std::collections::BTreeMap;

use crate::cluster::ring::{Ring, RingEntry};
use crate::cluster::spread::batch::line_hash;
use crate::cluster::spread::tally::Tally;

/// One member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    /// Place on the ring.
    pub place: u64,
    /// Hash of the member's life.
    pub life: u64,
}

/// A member that has gone, and since when it had been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departed {
    /// Hash of its life.
    pub member: u64,
    /// The period in which it joined; 0: before all that are remembered.
    pub joined: u64,
}

/// The live members, and when they joined.
#[derive(Debug, Default)]
pub(super) struct Roster {
    version: Option<u64>,
    /// In the ring's order.
    seats: Vec<Seat>,
    tally: Tally,
    /// Counts changes.
    period: u64,
    joined: BTreeMap<u64, u64>,
}

impl Roster {
    /// Whether it is as the ring is.
    pub fn is_current(&self, ring: &Ring) -> bool {
        self.version == Some(ring.version())
    }

    /// Takes the ring as it is now; returns who has gone since the last time.
    pub fn refresh(&mut self, ring: &Ring) -> Vec<Departed> {
        if self.is_current(ring) {
            return Vec::new();
        }
        let entries = ring.entries().iter();
        let seat =
            |entry: &RingEntry| Seat { place: entry.hash, life: line_hash(entry.name(), entry.boot()) };
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

    /// Nobody waits any more: who joined when is of no interest.
    pub fn forget_joined(&mut self) {
        self.joined.clear();
    }

    /// The period of now: who is there now is in it.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// All who are there now.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether a member that is there now was there in `period`.
    pub fn was_there(&self, member: u64, period: u64) -> bool {
        self.joined.get(&member).is_none_or(|joined| *joined <= period)
    }

    /// The members, in the ring's order: as many, in the same order, as the ring had entries.
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

        // It comes back after it was given up: for those that waited it stays gone.
        ring.insert(identity(0), State::Alive);
        assert!(roster.refresh(&ring).is_empty());
        assert!(!roster.was_there(life(0), period));
        // Only suspected: no change.
        ring.insert(identity(1), State::Suspect);
        assert!(roster.refresh(&ring).is_empty() && roster.was_there(life(1), period));
    }
}
