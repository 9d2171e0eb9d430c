//! One shard of the map: its table, names, fingerprint and version, and when its records are due.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::Change;
use super::guards::{Guard, Guards};
use super::names::{Cursor, Names, TREE_KEY_BYTES};
use crate::limits::{EXPIRED_PART, SHARDS, TOMBSTONE_BYTES_MAX};
use crate::record::cost::name_bytes;
use crate::record::{Pattern, SharedRecord, Source};

/// A record in the table, with values that would otherwise be computed again at every access.
struct Entry {
    /// The source's name as the shard's ordered names have it. It is kept here, too, so that comparing names need
    /// not fetch the record.
    source: Source,
    /// Hash of the source's name, kept so that growing the table hashes nothing.
    hash: u64,
    /// When the record expires, leaves or may be collected, as a wall clock in microseconds; 0: never.
    due_us: u64,
    /// The shard's version at the last change of this source.
    version: u64,
    record: SharedRecord,
}

impl Entry {
    /// Returns whether the record is a value whose time to live has ended, which subscribers were told.
    fn is_told_expired(&self) -> bool {
        is_told_expired(&self.record, self.due_us)
    }

    /// Returns how many bytes the record occupies. A record that a peer sent has its own copy of the name.
    fn cost_bytes(&self) -> usize {
        self.record.cost_bytes() + own_name_bytes(&self.source, &self.record)
    }
}

#[inline]
fn is_told_expired(record: &SharedRecord, due_us: u64) -> bool {
    // Until its expiry is told, a record with a time to live is due at its expiry.
    record.ttl_ms > 0 && !record.stamp.deleted && record.expires_us().is_some_and(|at_us| due_us != at_us)
}

/// Returns how many bytes the shard's own copy of a name takes, if the record does not share it.
#[inline]
fn own_name_bytes(source: &Source, record: &SharedRecord) -> usize {
    match source.as_str().as_ptr() == record.source.as_str().as_ptr() {
        true => 0,
        false => name_bytes(source.as_str()),
    }
}

/// The state of a shard, which its lock guards.
#[derive(Default)]
pub(super) struct Shard {
    table: HashTable<Entry>,
    names: Names,
    /// When records expire and deletions may be collected, as a wall clock in microseconds, with the hashes of
    /// their sources' names.
    due: BTreeSet<(u64, u64)>,
    /// The same for values that have expired: when guards take their places.
    expired: BTreeSet<(u64, u64)>,
    guards: Guards,
    /// XOR of the checksums of all records that nodes exchange.
    pub(super) fingerprint: u64,
    /// Number of changes so far. It never falls.
    pub(super) version: u64,
    /// Memory of all records, in bytes.
    record_bytes: usize,
    /// Memory of the tables and trees, in bytes.
    frame_bytes: usize,
    /// Part of `record_bytes` that is held by deletions.
    tombstone_bytes: usize,
    /// Whether the size may have changed since it was told to the sums over all shards.
    is_resized: bool,
    /// The size that was told last.
    told: ShardSize,
}

/// What a shard holds, for the sums over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardSize {
    /// Memory of everything, in bytes.
    pub(super) bytes: usize,
    /// Number of sources with a record.
    pub(super) sources: usize,
    /// Number of these whose values have expired.
    pub(super) expired: usize,
    /// Number of guards.
    pub(super) guards: usize,
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

/// When a record is due, and in which of the shard's lists that is kept.
#[derive(Clone, Copy)]
struct Deadline {
    /// As a wall clock in microseconds; 0: never.
    at_us: u64,
    is_expired: bool,
}

impl Deadline {
    #[inline]
    fn of(record: &SharedRecord, wall_us: u64, tombstones_us: u64) -> Deadline {
        if record.ttl_ms == 0 && !record.stamp.deleted {
            return Deadline { at_us: 0, is_expired: false };
        }
        match record.expires_us() {
            Some(at_us) if at_us > wall_us && !record.stamp.deleted => Deadline { at_us, is_expired: false },
            _ => {
                let at_us = record.exchanged_until_us(tombstones_us).unwrap_or(0);
                Deadline { at_us, is_expired: !record.stamp.deleted }
            }
        }
    }
}

impl Shard {
    fn size(&self) -> ShardSize {
        ShardSize {
            bytes: self.record_bytes + self.frame_bytes,
            sources: self.table.len(),
            expired: self.expired.len(),
            guards: self.guards.len(),
        }
    }

    /// Returns the sizes at the last call and now, if they may differ. This is asked after every change of the
    /// shard, most of which leave its size as it is.
    #[inline]
    pub(super) fn take_resized(&mut self) -> Option<(ShardSize, ShardSize)> {
        if !self.is_resized {
            debug_assert_eq!(self.told, self.size(), "every change of the size is noted");
            return None;
        }
        self.is_resized = false;
        let now = self.size();
        Some((std::mem::replace(&mut self.told, now), now))
    }

    /// Counts the memory of the tables and trees anew. To be called when any of them has grown or shrunk.
    fn count_frame(&mut self) {
        let (guards, guard_keys) = self.guards.size();
        let keys = self.names.len() + self.due.len() + self.expired.len() + guard_keys;
        self.frame_bytes = self.table.allocation_size() + guards + keys * TREE_KEY_BYTES;
        self.is_resized = true;
    }

    /// Returns the record of a source, whose hash is given.
    pub(super) fn find(&self, hash: u64, source: &str) -> Option<&SharedRecord> {
        self.table.find(hash, |entry| is_of(entry, hash, source)).map(|entry| &entry.record)
    }

    /// Returns what is left of the expired value of a source, if nothing else is.
    pub(super) fn find_guard(&self, hash: u64) -> Option<Guard> {
        if self.guards.len() == 0 { None } else { self.guards.get(hash) }
    }

    /// Shows up to `count` records after `cursor` to `visit`, in the order of names, each with the version of its
    /// last change. `hash_of` returns the hash of a name.
    pub(super) fn walk_all(
        &self,
        cursor: &mut Cursor,
        count: usize,
        hash_of: impl Fn(&str) -> u64,
        visit: &mut dyn FnMut(&SharedRecord, u64),
    ) {
        self.names.walk_all(cursor, count, &mut |name| {
            if let Some(entry) = self.entry(hash_of(name.as_str()), name) {
                visit(&entry.record, entry.version);
            }
        });
    }

    /// Shows the records after `cursor` that the pattern matches to `visit`, in the order of names, each with the
    /// version of its last change, until `visit` returns `false` or the steps are used up.
    pub(super) fn walk(
        &self,
        pattern: &Pattern,
        cursor: &mut Cursor,
        steps: &mut usize,
        hash_of: impl Fn(&str) -> u64,
        visit: &mut dyn FnMut(&SharedRecord, u64) -> bool,
    ) {
        self.names.walk(pattern, cursor, steps, &mut |name| {
            let entry = self.entry(hash_of(name.as_str()), name);
            entry.is_none_or(|entry| visit(&entry.record, entry.version))
        });
    }

    /// Collects the last changes of up to `count` sources after `cursor`, as far as their versions are in
    /// `versions`: greater than the first number, and at most the second.
    pub(super) fn changes(
        &self,
        index: u16,
        cursor: &mut Cursor,
        count: usize,
        versions: (u64, u64),
        hash_of: impl Fn(&str) -> u64,
        changes: &mut impl Extend<Change>,
    ) {
        self.names.walk_all(cursor, count, &mut |name| {
            let entry = self.entry(hash_of(name.as_str()), name);
            let is_wanted = |entry: &&Entry| entry.version > versions.0 && entry.version <= versions.1;
            changes.extend(entry.filter(is_wanted).map(|entry| Change {
                record: entry.record.clone(),
                is_expiry: entry.is_told_expired(),
                shard: index,
                version: entry.version,
            }));
        });
    }

    fn entry(&self, hash: u64, name: &Source) -> Option<&Entry> {
        let entry = self.table.find(hash, |entry| is_of(entry, hash, name.as_str()));
        debug_assert!(entry.is_some(), "the names are those of the records");
        entry
    }

    /// Returns the place of a source's record in the table.
    #[inline]
    pub(super) fn position(&self, hash: u64, source: &str) -> Option<usize> {
        self.table.find_bucket_index(hash, |entry| is_of(entry, hash, source))
    }

    /// Puts a record in the place of the one at `position`, or in a new place if there is none. Returns the
    /// place. `version` is the new version of the source; 0 leaves it as it is.
    #[inline]
    fn put(
        &mut self,
        position: Option<usize>,
        hash: u64,
        deadline: Deadline,
        version: u64,
        record: SharedRecord,
    ) -> usize {
        match position.and_then(|at| Some((at, self.table.get_bucket_mut(at)?))) {
            Some((at, place)) => {
                debug_assert_eq!(place.source.as_str(), record.source.as_str(), "another source's place");
                if version > 0 {
                    debug_assert!(version > place.version, "versions of a shard rise");
                    place.version = version;
                }
                let new_bytes = record.data_cost_bytes() + own_name_bytes(&place.source, &record);
                let old_bytes = place.record.data_cost_bytes() + own_name_bytes(&place.source, &place.record);
                if new_bytes != old_bytes {
                    self.record_bytes = self.record_bytes + new_bytes - old_bytes;
                    self.is_resized = true;
                }
                if record.stamp.deleted || place.record.stamp.deleted {
                    self.tombstone_bytes += tombstone_bytes(&record);
                    self.tombstone_bytes -= tombstone_bytes(&place.record);
                }
                self.fingerprint ^= record.checksum ^ place.record.checksum;
                let old = std::mem::replace(&mut place.record, record);
                let old_due_us = std::mem::replace(&mut place.due_us, deadline.at_us);
                if old_due_us != deadline.at_us {
                    self.move_deadline(hash, old_due_us, is_told_expired(&old, old_due_us), deadline);
                }
                at
            }
            None => self.insert(hash, deadline, version, record),
        }
    }

    #[inline]
    fn move_deadline(&mut self, hash: u64, old_us: u64, was_expired: bool, new: Deadline) {
        if old_us > 0 {
            let list = if was_expired { &mut self.expired } else { &mut self.due };
            list.remove(&(old_us, hash));
        }
        if new.at_us > 0 {
            let list = if new.is_expired { &mut self.expired } else { &mut self.due };
            list.insert((new.at_us, hash));
        }
        self.count_frame();
    }

    #[cold]
    fn insert(&mut self, hash: u64, deadline: Deadline, version: u64, record: SharedRecord) -> usize {
        if let Some(guard) = self.find_guard(hash) {
            self.guards.remove(hash);
            self.fingerprint ^= guard.checksum;
        }
        self.fingerprint ^= record.checksum;
        self.tombstone_bytes += tombstone_bytes(&record);
        self.record_bytes += record.cost_bytes();
        let source = record.source.clone();
        self.names.insert(source.clone());
        let entry = Entry { source, hash, due_us: deadline.at_us, version, record };
        let at = self.table.insert_unique(hash, entry, |entry| entry.hash).bucket_index();
        self.move_deadline(hash, 0, false, deadline);
        at
    }

    /// Takes the record at a place out of the table and out of all sums.
    pub(super) fn take_out(&mut self, at: usize) -> Option<SharedRecord> {
        let (old, _) = self.table.get_bucket_entry(at).ok()?.remove();
        debug_assert!(self.record_bytes >= old.cost_bytes(), "a record that was not counted");
        self.fingerprint ^= old.record.checksum;
        self.record_bytes -= old.cost_bytes();
        self.tombstone_bytes -= tombstone_bytes(&old.record);
        self.names.remove(old.source.as_str());
        // A table that kept its size would count against the map for ever.
        if 4 * self.table.len() < self.table.capacity() {
            self.table.shrink_to(2 * self.table.len(), |entry| entry.hash);
        }
        self.move_deadline(
            old.hash,
            old.due_us,
            old.is_told_expired(),
            Deadline { at_us: 0, is_expired: false },
        );
        Some(old.record)
    }

    /// Handles what is due, and returns when the next record is, as a wall clock in microseconds.
    pub(super) fn sweep(&mut self, index: u16, due: Due, swept: &mut dyn FnMut(Swept)) -> Option<u64> {
        let is_due = |first: Option<&(u64, u64)>| first.copied().filter(|(at, _)| *at <= due.wall_us);
        for _ in 0..due.budget {
            if let Some((at, hash)) = is_due(self.due.first()) {
                self.handle_due(index, hash, at, due, swept);
            } else if let Some((at, hash)) = is_due(self.expired.first()) {
                self.guard_expired(hash, at, swept);
            } else if let Some((_, hash)) = is_due(self.guards.first().as_ref()) {
                self.handle_guard(hash, due);
            } else {
                break;
            }
        }
        let firsts = [self.due.first().copied(), self.expired.first().copied(), self.guards.first()];
        firsts.into_iter().flatten().map(|(at, _)| at).min()
    }

    /// Returns the place of the record with this hash that is due at this time. Two names may have one hash.
    fn due_position(&self, hash: u64, at: u64) -> Option<usize> {
        self.table.find_bucket_index(hash, |entry| entry.hash == hash && entry.due_us == at)
    }

    /// Removes a deletion that is due if it may be collected, or reports that a value has expired, and sets when
    /// it is due next.
    fn handle_due(&mut self, index: u16, hash: u64, at: u64, due: Due, swept: &mut dyn FnMut(Swept)) {
        let Some(position) = self.due_position(hash, at) else {
            debug_assert!(false, "nothing is due that is not held");
            self.due.remove(&(at, hash));
            return;
        };
        let may_collect = due.may_collect || self.tombstone_bytes > TOMBSTONE_BYTES_MAX / SHARDS;
        let Some(entry) = self.table.get_bucket_mut(position) else { return };
        let record = entry.record.clone();
        if record.stamp.deleted && may_collect {
            swept(Swept::Collected(record));
            self.take_out(position);
            return;
        }
        let next_us = match record.stamp.deleted {
            true => due.wall_us + PUT_OFF_US,
            false => record.exchanged_until_us(due.tombstones_us).unwrap_or(u64::MAX),
        };
        entry.due_us = next_us;
        let is_expired = !record.stamp.deleted;
        if is_expired {
            self.version += 1;
            entry.version = self.version;
        }
        self.move_deadline(hash, at, false, Deadline { at_us: next_us, is_expired });
        if is_expired {
            let version = self.version;
            swept(Swept::Expired(Change { record, is_expiry: true, shard: index, version }));
        }
    }

    /// Replaces a value that has expired by a guard. `at` is when nodes cease to exchange it.
    fn guard_expired(&mut self, hash: u64, at: u64, swept: &mut dyn FnMut(Swept)) {
        let Some(record) = self.due_position(hash, at).and_then(|position| self.take_out(position)) else {
            debug_assert!(false, "nothing has expired that is not held");
            self.expired.remove(&(at, hash));
            return;
        };
        // Of two names with one hash, which hardly ever occur, only one is guarded.
        if self.guards.get(hash).is_none() {
            // The record stays in the fingerprint for as long as other nodes have it there.
            self.fingerprint ^= record.checksum;
            self.guards.insert(Guard::new(hash, record.stamp, record.checksum, at));
        }
        self.count_frame();
        swept(Swept::Collected(record));
    }

    /// Takes a guard out of the fingerprint or out of the shard, whichever is due.
    fn handle_guard(&mut self, hash: u64, due: Due) {
        let Some(guard) = self.guards.remove(hash) else { return };
        if guard.checksum != 0 {
            self.fingerprint ^= guard.checksum;
            let kept_us = due.tombstones_us / EXPIRED_PART;
            self.guards.insert(guard.until(guard.due_us + (due.tombstones_us - kept_us)));
        } else if !due.may_collect {
            self.guards.insert(guard.until(due.wall_us + PUT_OFF_US));
        }
        self.count_frame();
    }

    /// Replaces up to `count` expired values by guards, those that expired first before the others, although nodes
    /// still exchange them. Returns their number.
    pub(super) fn guard_early(&mut self, count: usize, due: Due, swept: &mut dyn FnMut(Swept)) -> usize {
        let kept_us = due.tombstones_us / EXPIRED_PART;
        let mut guarded = 0;
        while guarded < count
            && let Some((at, hash)) = self.expired.first().copied()
            // A store may remove no record before its own timestamp.
            && at.saturating_sub(kept_us) <= due.wall_us
        {
            self.guard_expired(hash, at, swept);
            guarded += 1;
        }
        guarded
    }

    /// Lets up to `count` guards go, those first that would go first anyway. Returns their number.
    pub(super) fn drop_guards(&mut self, count: usize) -> usize {
        let mut dropped = 0;
        while dropped < count
            && let Some((_, hash)) = self.guards.first()
            && let Some(guard) = self.guards.remove(hash)
        {
            self.fingerprint ^= guard.checksum;
            dropped += 1;
        }
        self.count_frame();
        dropped
    }

    /// Makes `record` the latest of its source at `position`. Returns the new place. `is_told` says whether that is
    /// a change that subscribers are told, which has a version of its own.
    #[inline]
    pub(super) fn replace(
        &mut self,
        (position, hash): (Option<usize>, u64),
        record: &SharedRecord,
        (wall_us, tombstones_us): (u64, u64),
        is_told: bool,
    ) -> usize {
        let version = if is_told {
            self.version += 1;
            self.version
        } else {
            0
        };
        let deadline = Deadline::of(record, wall_us, tombstones_us);
        self.put(position, hash, deadline, version, record.clone())
    }

    /// Returns the record at a place of the table.
    #[inline]
    pub(super) fn at(&self, position: usize) -> Option<&SharedRecord> {
        self.table.get_bucket(position).map(|entry| &entry.record)
    }

    /// Returns the shard's own copy of a source's name, to be shared.
    pub(super) fn shared_name(&self, position: usize) -> Option<Source> {
        self.table.get_bucket(position).map(|entry| entry.source.clone())
    }
}

/// Returns the memory held by a record if it is a deletion, in bytes; 0 for a value.
#[inline]
fn tombstone_bytes(record: &SharedRecord) -> usize {
    if record.stamp.deleted { record.cost_bytes() } else { 0 }
}

#[inline]
fn is_of(entry: &Entry, hash: u64, source: &str) -> bool {
    entry.hash == hash && entry.source.as_str() == source
}
