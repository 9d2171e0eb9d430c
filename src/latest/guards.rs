//! What is left of expired values: it keeps older values of their sources from coming back.
//!
//! A guard has the hash of the source's name and what orders records, and no name, so it costs a fifth of the
//! smallest record. The hash is seeded with a number that clients do not know, and guards are compared within
//! one shard alone: with ten million guards and as many other sources, the chance that any of these sources is
//! mistaken for a guarded one is at most one in ten million.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use hashbrown::HashTable;

use crate::record::Stamp;
use crate::record::merge::Verdict;

/// What is left of the expired value of one source.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// Hash of the source's name.
    hash: u64,
    /// The `ts` of the value.
    ts: u64,
    /// The upper half of the hash of the value's data.
    data: u64,
    /// The checksum of the record if it is still part of the shard's fingerprint, else 0.
    pub(super) checksum: u64,
    /// When the record leaves the fingerprint, and afterwards when the guard goes, as a wall clock in
    /// microseconds.
    pub(super) due_us: u64,
}

impl Guard {
    pub(super) fn new(hash: u64, stamp: Stamp, checksum: u64, due_us: u64) -> Guard {
        debug_assert!(!stamp.deleted, "a deletion keeps its name");
        Guard { hash, ts: stamp.ts, data: (stamp.hash >> 64) as u64, checksum, due_us }
    }

    /// The same guard out of the fingerprint, to be kept until `due_us`.
    pub(super) fn until(self, due_us: u64) -> Guard {
        Guard { checksum: 0, due_us, ..self }
    }

    /// Timestamp of the value, in microseconds.
    pub fn ts(&self) -> u64 {
        self.ts
    }

    /// Judges a record of the source, with this stamp, against the value that has expired.
    pub fn judge(&self, stamp: &Stamp) -> Verdict {
        let guarded = (self.ts, false, self.data);
        match (stamp.ts, stamp.deleted, (stamp.hash >> 64) as u64).cmp(&guarded) {
            Ordering::Greater => Verdict::Newer,
            // Which of two records with equal stamps is kept cannot be told. The value is the same.
            Ordering::Equal => Verdict::Same,
            Ordering::Less => Verdict::Older,
        }
    }
}

/// The guards of a shard.
#[derive(Debug, Default)]
pub(super) struct Guards {
    table: HashTable<Guard>,
    /// When each guard is due, with the hash of its source's name.
    due: BTreeSet<(u64, u64)>,
}

impl Guards {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Memory of the table in bytes, and the number of keys of the tree beside it.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.table.allocation_size(), self.due.len())
    }

    pub(super) fn get(&self, hash: u64) -> Option<Guard> {
        self.table.find(hash, |guard| guard.hash == hash).copied()
    }

    pub(super) fn insert(&mut self, guard: Guard) {
        debug_assert!(self.get(guard.hash).is_none(), "a source is guarded once");
        self.due.insert((guard.due_us, guard.hash));
        self.table.insert_unique(guard.hash, guard, |guard| guard.hash);
    }

    /// Takes a guard out. Returns it, if it was there.
    pub(super) fn remove(&mut self, hash: u64) -> Option<Guard> {
        let place = self.table.find_entry(hash, |guard| guard.hash == hash).ok()?;
        let (guard, _) = place.remove();
        self.due.remove(&(guard.due_us, hash));
        // Tables that kept their size would count against the map for ever. A table from which guards are taken out
        // grows now and then although it has places left, so it is made smaller again before it is nearly empty.
        let len = self.table.len();
        if 5 * len < 2 * self.table.capacity() {
            self.table.shrink_to(len + len / 4, |guard| guard.hash);
        }
        Some(guard)
    }

    /// Returns when the next guard is due, as a wall clock in microseconds, and the hash of its source's name.
    pub(super) fn first(&self) -> Option<(u64, u64)> {
        self.due.first().copied()
    }
}
