//! One shard of the map: its table, fingerprint and version, and when its records are due.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::Change;
use crate::limits::{SHARDS, TOMBSTONE_BYTES_MAX};
use crate::record::merge::order;
use crate::record::{SharedRecord, Source};

/// A record in the table, with values that would otherwise be computed again at every access.
struct Entry {
    /// The record's source, kept here so that comparing names need not fetch the record.
    source: Source,
    /// Hash of the source's name, kept so that growing the table hashes nothing.
    hash: u64,
    /// When the record expires or may be collected, as a wall clock in microseconds; 0: never.
    due_us: u64,
    /// The shard's version at the last change of this source.
    version: u64,
    record: SharedRecord,
}

impl Entry {
    /// Returns whether subscribers were told that the record's time to live has ended.
    fn is_told_expired(&self) -> bool {
        // Until its expiry is told, a record with a time to live is due at its expiry.
        !self.record.stamp.deleted && self.record.expires_us().is_some_and(|at_us| self.due_us != at_us)
    }
}

/// The state of a shard, which its lock guards.
#[derive(Default)]
pub(super) struct Shard {
    table: HashTable<Entry>,
    /// The sources whose records will expire or may be collected, each with the time of that on the wall
    /// clock, in microseconds.
    due: BTreeSet<(u64, Source)>,
    /// XOR of the checksums of all records.
    pub(super) fingerprint: u64,
    /// Number of changes so far. It never falls.
    pub(super) version: u64,
    /// Memory held by all records, in bytes.
    pub(super) bytes: usize,
    /// Part of `bytes` that is held by deletions.
    tombstone_bytes: usize,
}

/// The time and the limits of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// The wall clock, in microseconds.
    pub wall_us: u64,
    /// How long tombstones (records of deletions) are kept, in microseconds.
    pub tombstones_us: u64,
    /// Whether tombstones may be collected. They may not while a member is away that could bring the data
    /// back, unless they hold more than [`TOMBSTONE_BYTES_MAX`].
    pub may_collect: bool,
    /// Most records that one call handles.
    pub budget: usize,
}

/// The action of a sweep on a record.
pub enum Swept {
    /// The record's time to live has ended: subscribers are to be told.
    Expired(Change),
    /// The record, a deletion or long expired, was taken out of the map.
    Collected(SharedRecord),
}

/// Time for which a collection that is not allowed yet is put off, in microseconds.
const PUT_OFF_US: u64 = 30_000_000;

impl Shard {
    /// Returns the number of records.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns the record of a source, whose hash is given.
    pub(super) fn find(&self, hash: u64, source: &str) -> Option<&SharedRecord> {
        self.table.find(hash, |entry| is_of(entry, hash, source)).map(|entry| &entry.record)
    }

    /// Returns all records, in no order.
    pub(super) fn records(&self) -> impl Iterator<Item = &SharedRecord> {
        self.table.iter().map(|entry| &entry.record)
    }

    /// Returns the last change of every source that changed after `version`.
    pub(super) fn changes_since(&self, index: u16, version: u64) -> impl Iterator<Item = Change> {
        let is_later = move |entry: &&Entry| entry.version > version;
        self.table.iter().filter(is_later).map(move |entry| Change {
            record: entry.record.clone(),
            is_expiry: entry.is_told_expired(),
            shard: index,
            version: entry.version,
        })
    }

    /// Returns the place of a source's record in the table.
    fn position(&self, hash: u64, source: &str) -> Option<usize> {
        self.table.find_bucket_index(hash, |entry| is_of(entry, hash, source))
    }

    /// Puts a record in the place of the one at `position`, or in a new place if there is none. Returns the
    /// place. `version` is the new version of the source; 0 leaves it as it is.
    #[inline]
    fn put(
        &mut self,
        position: Option<usize>,
        hash: u64,
        due_us: u64,
        version: u64,
        record: SharedRecord,
    ) -> usize {
        self.fingerprint ^= record.checksum;
        self.bytes += record.cost_bytes();
        self.tombstone_bytes += tombstone_bytes(&record);
        if due_us > 0 {
            self.due.insert((due_us, record.source.clone()));
        }
        match position.and_then(|at| Some((at, self.table.get_bucket_mut(at)?))) {
            Some((at, place)) => {
                debug_assert_eq!(place.source.as_str(), record.source.as_str(), "another source's place");
                if version > 0 {
                    debug_assert!(version > place.version, "versions of a shard rise");
                    place.version = version;
                }
                // A record from a peer has its own copy of the name: then only that copy is held, not both.
                if place.source.as_str().as_ptr() != record.source.as_str().as_ptr() {
                    place.source = record.source.clone();
                }
                let old = std::mem::replace(&mut place.record, record);
                let old_due_us = std::mem::replace(&mut place.due_us, due_us);
                self.forget(&old, old_due_us, due_us);
                at
            }
            None => {
                let entry = Entry { source: record.source.clone(), hash, due_us, version, record };
                self.table.insert_unique(hash, entry, |entry| entry.hash).bucket_index()
            }
        }
    }

    /// Takes a record that left the table out of the sums, and out of what is due, unless the record that
    /// replaces it is due at the same time, `due_us`.
    #[inline]
    fn forget(&mut self, old: &SharedRecord, old_due_us: u64, due_us: u64) {
        debug_assert!(self.bytes >= old.cost_bytes(), "a record that was not counted");
        self.fingerprint ^= old.checksum;
        self.bytes -= old.cost_bytes();
        self.tombstone_bytes -= tombstone_bytes(old);
        if old_due_us > 0 && old_due_us != due_us {
            self.due.remove(&(old_due_us, old.source.clone()));
        }
    }

    pub(super) fn sweep(&mut self, index: u16, due: Due, swept: &mut dyn FnMut(Swept)) -> Option<u64> {
        for _ in 0..due.budget {
            let (at, source) = self.due.first()?;
            if *at > due.wall_us {
                break;
            }
            let (at, source) = (*at, source.clone());
            let hash = super::place(source.as_str()).0;
            self.due.pop_first();
            self.handle_due(index, hash, at, &source, due, swept);
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// Removes a record that is due if it may be collected, or reports that it has expired, and sets when it
    /// is due next.
    fn handle_due(
        &mut self,
        index: u16,
        hash: u64,
        at: u64,
        source: &Source,
        due: Due,
        swept: &mut dyn FnMut(Swept),
    ) {
        let is_it = |entry: &Entry| is_of(entry, hash, source.as_str());
        let Ok(mut place) = self.table.find_entry(hash, is_it) else { return };
        let record = place.get().record.clone();
        let collect_us = record.collect_us(due.tombstones_us).unwrap_or(u64::MAX);
        let may_collect = due.may_collect || self.tombstone_bytes > TOMBSTONE_BYTES_MAX / SHARDS;
        if due.wall_us >= collect_us && may_collect {
            let (old, _) = place.remove();
            self.forget(&old.record, old.due_us, at);
            swept(Swept::Collected(old.record));
            return;
        }
        let next = if collect_us > due.wall_us { collect_us } else { due.wall_us + PUT_OFF_US };
        place.get_mut().due_us = next;
        self.due.insert((next, source.clone()));
        if record.expires_us() == Some(at) {
            self.version += 1;
            let version = self.version;
            if let Some(entry) = self.table.find_mut(hash, is_it) {
                entry.version = version;
            }
            swept(Swept::Expired(Change { record, is_expiry: true, shard: index, version }));
        }
    }
}

/// Returns the memory held by a record if it is a deletion, in bytes; 0 for a value.
fn tombstone_bytes(record: &SharedRecord) -> usize {
    if record.stamp.deleted { record.cost_bytes() } else { 0 }
}

#[inline]
fn is_of(entry: &Entry, hash: u64, source: &str) -> bool {
    entry.hash == hash && entry.source.as_str() == source
}

/// The place of one source in its shard, under the shard's lock. The source is looked up only once.
pub struct Slot<'a> {
    shard: &'a mut Shard,
    hash: u64,
    source: &'a str,
    index: u16,
    /// The place in the table, if the source is there.
    position: Option<usize>,
}

impl<'a> Slot<'a> {
    #[inline]
    pub(super) fn new(shard: &'a mut Shard, hash: u64, source: &'a str, index: u16) -> Slot<'a> {
        let position = shard.position(hash, source);
        Slot { shard, hash, source, index, position }
    }

    /// Returns the record that is held now, if any.
    #[inline]
    pub fn current(&self) -> Option<&SharedRecord> {
        self.shard.table.get_bucket(self.position?).map(|entry| &entry.record)
    }

    /// Returns the map's own copy of the source's name, to be shared, if the source is held.
    pub fn shared_name(&self) -> Option<Source> {
        self.current().map(|record| record.source.clone())
    }

    /// Makes `record` the latest of its source, and returns the change that subscribers are to be told. A
    /// record that has expired already counts as a deletion there.
    #[inline]
    pub fn replace(&mut self, record: SharedRecord, wall_us: u64, tombstones_us: u64) -> Change {
        let is_expiry = !record.stamp.deleted && !record.is_visible(wall_us);
        self.shard.version += 1;
        self.put(&record, wall_us, tombstones_us, self.shard.version);
        Change { record, is_expiry, shard: self.index, version: self.shard.version }
    }

    /// Makes `record` the latest of its source without a change that subscribers are told: the versions stay.
    pub fn replace_silently(&mut self, record: &SharedRecord, wall_us: u64, tombstones_us: u64) {
        self.put(record, wall_us, tombstones_us, 0);
    }

    /// Takes the source out of the map, if `record` is still its latest. Returns whether it was.
    pub fn remove(&mut self, record: &SharedRecord) -> bool {
        let Some(at) = self.position else { return false };
        let Ok(place) = self.shard.table.get_bucket_entry(at) else { return false };
        if place.get().record.checksum != record.checksum {
            return false;
        }
        let (old, _) = place.remove();
        self.position = None;
        self.shard.forget(&old.record, old.due_us, 0);
        true
    }

    #[inline]
    fn put(&mut self, record: &SharedRecord, wall_us: u64, tombstones_us: u64, version: u64) {
        debug_assert_eq!(record.source.as_str(), self.source);
        debug_assert!(self.current().is_none_or(|held| order(record, held).is_ge()), "a source goes back");
        let expires = record.expires_us().filter(|&at| at > wall_us);
        let due_us = expires.or_else(|| record.collect_us(tombstones_us)).unwrap_or(0);
        self.position = Some(self.shard.put(self.position, self.hash, due_us, version, record.clone()));
    }
}
