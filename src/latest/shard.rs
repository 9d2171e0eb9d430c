//! One shard of the map: table, fingerprint, version, and what is due when.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::Change;
use crate::limits::{SHARDS, TOMBSTONE_BYTES_MAX};
use crate::record::{SharedRecord, Source};

/// A record in the table, with what would have to be computed again at every look.
struct Entry {
    /// The record's own, so that it is fetched while the name is still compared.
    source: Source,
    /// Of the source's name, so that growing the table hashes nothing.
    hash: u64,
    /// When something happens to the record by itself: it expires, or may be collected. 0: never.
    due_us: u64,
    /// The shard's count of changes at this source's last one.
    version: u64,
    record: SharedRecord,
}

impl Entry {
    /// Whether it was told that the record's time to live is over.
    fn is_told_expired(&self) -> bool {
        // Until then, that is what it is due for.
        !self.record.stamp.deleted && self.record.expires_us().is_some_and(|at_us| self.due_us != at_us)
    }
}

/// What the lock guards.
#[derive(Default)]
pub(super) struct Shard {
    table: HashTable<Entry>,
    due: BTreeSet<(u64, Source)>,
    pub(super) fingerprint: u64,
    pub(super) version: u64,
    pub(super) bytes: usize,
    /// Of `bytes`, what deletions hold.
    tombstone_bytes: usize,
}

/// What a sweep goes by.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// The wall clock, in microseconds.
    pub wall_us: u64,
    /// How long tombstones are kept, in microseconds.
    pub tombstones_us: u64,
    /// Whether tombstones may go: not while a member that could bring the data back is away, unless
    /// they hold more than [`TOMBSTONE_BYTES_MAX`].
    pub may_collect: bool,
    /// How many records one call handles at most.
    pub budget: usize,
}

/// What a sweep found.
pub enum Swept {
    /// A record's time to live is over.
    Expired(Change),
    /// A tombstone, or a record long expired, is gone from the map.
    Collected(SharedRecord),
}

/// How long a collection that is not allowed yet is put off.
const PUT_OFF_US: u64 = 30_000_000;

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn find(&self, hash: u64, source: &str) -> Option<&SharedRecord> {
        self.table.find(hash, |entry| is_of(entry, hash, source)).map(|entry| &entry.record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &SharedRecord> {
        self.table.iter().map(|entry| &entry.record)
    }

    /// The sources that changed after `version`, as changes.
    pub(super) fn changes_since(&self, index: u16, version: u64) -> impl Iterator<Item = Change> {
        let is_later = move |entry: &&Entry| entry.version > version;
        self.table.iter().filter(is_later).map(move |entry| Change {
            record: entry.record.clone(),
            is_expiry: entry.is_told_expired(),
            shard: index,
            version: entry.version,
        })
    }

    /// Where the source's record stands in the table.
    fn position(&self, hash: u64, source: &str) -> Option<usize> {
        self.table.find_bucket_index(hash, |entry| is_of(entry, hash, source))
    }

    /// Puts the record in the place of the one at `position`, or, where there is none, in a new one.
    /// Returns its position. With `version` 0 the place keeps the one it has.
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
                if version > 0 {
                    place.version = version;
                }
                // A record from a peer brings a name of its own: one copy is held, not two.
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

    /// Takes a record that left the table, and was due then, out of the sums. Another one may be due at
    /// `due_us`.
    #[inline]
    fn forget(&mut self, old: &SharedRecord, old_due_us: u64, due_us: u64) {
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

/// What a record holds as a deletion, in bytes.
fn tombstone_bytes(record: &SharedRecord) -> usize {
    if record.stamp.deleted { record.cost_bytes() } else { 0 }
}

#[inline]
fn is_of(entry: &Entry, hash: u64, source: &str) -> bool {
    entry.hash == hash && entry.source.as_str() == source
}

/// The place of one source, under its shard's lock. It is looked up once.
pub struct Slot<'a> {
    shard: &'a mut Shard,
    hash: u64,
    source: &'a str,
    index: u16,
    /// In the table, if the source is there.
    position: Option<usize>,
}

impl<'a> Slot<'a> {
    #[inline]
    pub(super) fn new(shard: &'a mut Shard, hash: u64, source: &'a str, index: u16) -> Slot<'a> {
        let position = shard.position(hash, source);
        Slot { shard, hash, source, index, position }
    }

    /// The record that is there.
    #[inline]
    pub fn current(&self) -> Option<&SharedRecord> {
        self.shard.table.get_bucket(self.position?).map(|entry| &entry.record)
    }

    /// The source's name: the one in the map, shared, if there is one.
    pub fn shared_name(&self) -> Option<Source> {
        self.current().map(|record| record.source.clone())
    }

    /// Makes `record` the latest, and says how that change is told. What expired before it came is
    /// told as a deletion.
    #[inline]
    pub fn replace(&mut self, record: SharedRecord, wall_us: u64, tombstones_us: u64) -> Change {
        let is_expiry = !record.stamp.deleted && !record.is_visible(wall_us);
        self.shard.version += 1;
        self.put(&record, wall_us, tombstones_us, self.shard.version);
        Change { record, is_expiry, shard: self.index, version: self.shard.version }
    }

    /// Puts `record`, equal in the order to the one that is there, in its place: nothing to tell.
    pub fn replace_silently(&mut self, record: &SharedRecord, wall_us: u64, tombstones_us: u64) {
        self.put(record, wall_us, tombstones_us, 0);
    }

    /// Takes the source out of the map, if `record` is still its latest.
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
        let expires = record.expires_us().filter(|&at| at > wall_us);
        let due_us = expires.or_else(|| record.collect_us(tombstones_us)).unwrap_or(0);
        self.position = Some(self.shard.put(self.position, self.hash, due_us, version, record.clone()));
    }
}
