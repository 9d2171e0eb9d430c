//! The latest record of every source: a lock-sharded last-writer-wins map.
//!
//! A shard is a table, the names of its sources in order (`names`), a fingerprint (XOR of the checksums of its
//! records, kept on every change, so that two nodes see in one comparison whether they agree), a version (its
//! count of changes, which orders what subscribers are sent against snapshots of the shard), and the instants at
//! which its records expire or may be collected.
//!
//! A source's name is hashed twice. The hash that names its shard is the same at all nodes, because they compare
//! their maps shard by shard. The hash that names its place in the shard's table is seeded with a number that
//! clients do not know, because otherwise a client could choose names that all have the same hash, and every
//! lookup would compare all of them. No order in which the table has its records is ever seen from outside.
//!
//! The map does not decide which record wins: [`Latest::update`] shows the current one under the lock, and
//! `ingest` asks the merge rule (`record::merge`) and acts, so that everything that must happen in the same
//! order as the merges (numbering, delivery, the store's queue) happens under that lock. These are pushes
//! into memory, never I/O.
//!
//! **Scans** look at many records and are cut into parts. No part holds a lock for more than [`STEPS_PER_LOCK`]
//! steps, and whoever scans goes on with the [`Cursor`] that is left. What changed between two parts is told by
//! the versions.
//!
//! **Expired values.** The end of a value is told to subscribers, and then its record is kept whole for a quarter
//! of the time for which deletions are kept (six hours of a day). In that time nodes that compare their maps still
//! exchange it, and a client that resumes is told that the source is gone. Afterwards a guard takes its place
//! (`guards`): the hash of the name and the stamp, which keep an older value of the source from coming back until
//! the time of deletions has passed. A record that ends by itself ends at every node, so nothing needs to be sent
//! about it, while a deletion keeps its name to the end, because it must be sent to nodes that lack it.
//!
//! If the map is full, [`Latest::relieve`] replaces expired values by guards early, and then lets guards go, in
//! both cases those that expired first before the others. An expired value that becomes a guard early stays in
//! the fingerprint until the other nodes have let it go, so that nodes with different memory still agree.
//!
//! Rejected: a lock-free map, since the merge, its fingerprint and its deliveries must be one step; a
//! reader-writer lock, since nearly every access writes and a short mutex is cheaper; guards for deletions, since
//! a hash cannot be sent to a node that lacks the deletion; making guards at once when values expire, since
//! clients that resume could then never be told which sources are gone, and would need whole snapshots.

mod guards;
mod listing;
mod names;
mod shard;
mod slot;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::SHARDS;
use crate::record::hash::NameKey;
use crate::record::{Pattern, SharedRecord, Stamp};

use shard::{Shard, ShardSize};

pub use guards::Guard;
pub use listing::Listing;
pub use names::Cursor;
pub use shard::{Due, Swept};
pub use slot::Slot;

/// Most steps for which a scan holds the lock of a shard: some ten microseconds. Tests have few sources, and cut their scans into as small parts as that allows.
pub const STEPS_PER_LOCK: usize = if cfg!(test) { 3 } else { 256 };
/// Number of expired values or guards of one shard that are let go at a time when the map is full.
const RELIEVED_PER_LOCK: usize = 16;

/// The map of the latest record of every source. All threads share it.
pub struct Latest {
    shards: Box<[Aligned]>,
    /// Key of the hashes by which records are found in their shards.
    key: NameKey,
    bytes: AtomicUsize,
    sources: AtomicUsize,
    expired: AtomicUsize,
    guards: AtomicUsize,
    /// The shard that is relieved next.
    relieved: AtomicUsize,
    /// Greatest time of expiry among the values that became guards early, as a wall clock in microseconds.
    names_lost_us: AtomicU64,
}

/// A shard on cache lines of its own, so that neighbours' locks do not slow each other.
#[repr(align(128))]
#[derive(Default)]
struct Aligned(Mutex<Shard>);

/// A change of the map, as subscribers and the store's queue get it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The record that is the latest of its source from now on.
    pub record: SharedRecord,
    /// Whether the record's time to live has ended: then subscribers see a deletion.
    pub is_expiry: bool,
    /// The shard of the record's source.
    pub shard: u16,
    /// The version of the shard: its number of changes, this one included.
    pub version: u64,
}

/// Returns the shard that a source belongs to. Which shard that is belongs to the wire format: nodes compare
/// their maps shard by shard.
#[inline]
pub fn shard_of(source: &str) -> usize {
    (xxh3_64(source.as_bytes()) >> 32) as usize % SHARDS
}

impl Default for Latest {
    fn default() -> Latest {
        Latest::seeded(0)
    }
}

impl Latest {
    /// Makes an empty map. Clients must not be able to guess the seed of its hashes.
    pub fn seeded(seed: u64) -> Latest {
        Latest {
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            key: NameKey::seeded(seed),
            bytes: AtomicUsize::new(0),
            sources: AtomicUsize::new(0),
            expired: AtomicUsize::new(0),
            guards: AtomicUsize::new(0),
            relieved: AtomicUsize::new(0),
            names_lost_us: AtomicU64::new(0),
        }
    }

    /// Returns the hash of a name by which its record is found in its shard.
    #[inline]
    fn hash(&self, source: &str) -> u64 {
        self.key.hash(source)
    }

    /// Returns the latest record of a source, deletions and expired ones included.
    pub fn get(&self, source: &str) -> Option<SharedRecord> {
        self.get_versioned(source).0
    }

    /// Returns the latest record of a source, and the version of its shard: later changes have greater
    /// versions.
    pub fn get_versioned(&self, source: &str) -> (Option<SharedRecord>, u64) {
        let hash = self.hash(source);
        let shard = self.shards[shard_of(source)].0.lock();
        (shard.find(hash, source).cloned(), shard.version)
    }

    /// Returns whether a record of the source with this stamp or a greater one is, or was, the latest here.
    pub fn holds(&self, source: &str, stamp: Stamp) -> bool {
        let hash = self.hash(source);
        let shard = self.shards[shard_of(source)].0.lock();
        match shard.find(hash, source) {
            Some(record) => record.stamp >= stamp,
            None => shard.find_guard(hash).is_some_and(|guard| !guard.judge(&stamp).replaces()),
        }
    }

    /// Shows the slot of a source to `decide`, under the shard's lock.
    pub fn update<R>(&self, source: &str, decide: impl FnOnce(&mut Slot<'_>) -> R) -> R {
        let (hash, index) = (self.hash(source), shard_of(source));
        let mut shard = self.shards[index].0.lock();
        let result = decide(&mut Slot::new(&mut shard, hash, source, index as u16));
        self.account(&mut shard);
        result
    }

    /// Shows the records of a shard after `cursor` that the pattern matches to `visit`, in the order of names, each
    /// with the version of its last change, under the shard's lock. Ends when `visit` returns `false`, when the
    /// steps are used up, or after [`STEPS_PER_LOCK`]; the cursor is then behind what was looked at. Takes the steps
    /// off `steps`: one for each name, and a few for each place where names are looked up. Returns the version of
    /// the shard.
    pub fn scan(
        &self,
        shard: usize,
        pattern: &Pattern,
        cursor: &mut Cursor,
        steps: &mut usize,
        visit: &mut dyn FnMut(&SharedRecord, u64) -> bool,
    ) -> u64 {
        let part = (*steps).min(STEPS_PER_LOCK);
        let mut left = part;
        let shard = self.shards[shard].0.lock();
        shard.walk(pattern, cursor, &mut left, |name| self.hash(name), visit);
        *steps -= part - left;
        shard.version
    }

    /// Shows every record of a shard to `visit`, deletions and expired ones included, in the order of names. The
    /// shard's lock is held while `visit` is called, but not from the first record to the last.
    pub fn scan_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        let mut cursor = Cursor::default();
        while !cursor.is_over() {
            let shard = self.shards[shard].0.lock();
            let hash = |name: &str| self.hash(name);
            shard.walk_all(&mut cursor, STEPS_PER_LOCK, hash, &mut |record, _| visit(record));
        }
    }

    /// Collects the last change of sources of a shard that changed after the version `after`, of a few hundred
    /// sources after `cursor`. `upto` is the version of the shard when the collection began, which is set by the
    /// first call; what changed later is left out. All changes have been collected when the cursor is over.
    pub fn changes_since(
        &self,
        shard: usize,
        (after, upto): (u64, &mut Option<u64>),
        cursor: &mut Cursor,
        changes: &mut impl Extend<Change>,
    ) -> u64 {
        let index = shard as u16;
        let shard = self.shards[shard].0.lock();
        let upto = *upto.get_or_insert(shard.version);
        let hash = |name: &str| self.hash(name);
        if upto == after {
            cursor.finish();
        }
        shard.changes(index, cursor, STEPS_PER_LOCK, (after, upto), hash, changes);
        upto
    }

    /// Returns the versions of all shards.
    pub fn versions(&self) -> [u64; SHARDS] {
        std::array::from_fn(|shard| self.shards[shard].0.lock().version)
    }

    /// Returns the fingerprints of all shards.
    pub fn fingerprints(&self) -> [u64; SHARDS] {
        std::array::from_fn(|shard| self.shards[shard].0.lock().fingerprint)
    }

    /// Waits until every change that is under way has been completed.
    pub fn barrier(&self) {
        for shard in &self.shards {
            drop(shard.0.lock());
        }
    }

    /// Handles the records of one shard that have expired or may be collected, and shows each to `swept`.
    /// Returns when the next one is due, as a wall clock in microseconds.
    pub fn sweep_shard(&self, shard: usize, due: Due, swept: &mut dyn FnMut(Swept)) -> Option<u64> {
        let index = shard as u16;
        let mut shard = self.shards[shard].0.lock();
        let next = shard.sweep(index, due, swept);
        self.account(&mut shard);
        next
    }

    /// Gives memory back until the map holds at most `bytes_max` bytes, or `due.budget` sources were let go, or
    /// nothing is left to be let go: expired values become guards, and then guards go. Shows each record that is
    /// let go to `swept`.
    pub fn relieve(&self, bytes_max: usize, due: Due, swept: &mut dyn FnMut(Swept)) {
        let mut budget = due.budget;
        for is_guarding in [true, false] {
            let mut idle = 0;
            while self.bytes() > bytes_max && budget > 0 && idle < SHARDS {
                let left = if is_guarding { &self.expired } else { &self.guards };
                if left.load(Relaxed) == 0 {
                    break;
                }
                let count = self.relieve_next(is_guarding, due, swept);
                idle = if count == 0 { idle + 1 } else { 0 };
                budget = budget.saturating_sub(count);
            }
        }
    }

    /// Lets a few expired values or guards of one shard go. Returns their number.
    fn relieve_next(&self, is_guarding: bool, due: Due, swept: &mut dyn FnMut(Swept)) -> usize {
        let mut shard = self.shards[self.relieved.fetch_add(1, Relaxed) % SHARDS].0.lock();
        let count = if is_guarding {
            shard.guard_early(RELIEVED_PER_LOCK, due, &mut |gone| {
                if let Swept::Collected(record) = &gone {
                    self.lose_names(record.expires_us().unwrap_or(0));
                }
                swept(gone);
            })
        } else {
            shard.drop_guards(RELIEVED_PER_LOCK)
        };
        self.account(&mut shard);
        count
    }

    /// Returns a wall clock in microseconds: of the values that expired up to then, some became guards early, and
    /// clients can no longer be told of their end. 0 if there was none.
    pub fn names_lost_us(&self) -> u64 {
        self.names_lost_us.load(Relaxed)
    }

    /// Notes that names of values that expired up to `wall_us`, a wall clock in microseconds, may be unknown.
    pub fn lose_names(&self, wall_us: u64) {
        self.names_lost_us.fetch_max(wall_us, Relaxed);
    }

    /// Returns how many sources are held, deleted and expired ones included.
    pub fn len(&self) -> usize {
        self.sources.load(Relaxed)
    }

    /// Returns whether no source is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many guards are held.
    pub fn guards(&self) -> usize {
        self.guards.load(Relaxed)
    }

    /// Returns the memory of the map in bytes: of the records ([`crate::record::Record::cost_bytes`]), and of the
    /// tables and trees by which they are found.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Adds the change of a shard's size since the last call to the totals.
    #[inline]
    fn account(&self, shard: &mut Shard) {
        // Most changes only put a record in the place of another one of the same size.
        if let Some((before, after)) = shard.take_resized() {
            self.add_to_totals(before, after);
        }
    }

    #[cold]
    fn add_to_totals(&self, before: ShardSize, after: ShardSize) {
        // All shards share the totals, so these are written only where something changed.
        let add = |total: &AtomicUsize, before: usize, after: usize| {
            if after != before {
                total.fetch_add(after.wrapping_sub(before), Relaxed);
            }
        };
        add(&self.bytes, before.bytes, after.bytes);
        add(&self.sources, before.sources, after.sources);
        add(&self.expired, before.expired, after.expired);
        add(&self.guards, before.guards, after.guards);
    }
}

#[cfg(test)]
mod tests;
