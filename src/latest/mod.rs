//! The latest record of every source: a lock-sharded last-writer-wins map.
//!
//! A source's name is hashed once; the hash names its shard and its place in the shard's table. A
//! shard is a table, a fingerprint (XOR of the checksums of its records, kept on every change, so
//! that two nodes see in one comparison whether they agree), a version (its count of changes, which
//! orders what subscribers are sent against snapshots of the shard), and the instants at which its
//! records expire or may be collected.
//!
//! The map does not decide which record wins: [`Latest::update`] shows the current one under the lock, and
//! `ingest` asks the merge rule (`record::merge`) and acts, so that everything that must happen in the same
//! order as the merges (numbering, delivery, the store's queue) happens under that lock. These are pushes
//! into memory, never I/O.
//!
//! Rejected: a lock-free map, since the merge, its fingerprint and its deliveries must be one step;
//! a reader-writer lock, since nearly every access writes and a short mutex is cheaper.

mod shard;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::SHARDS;
use crate::record::{Pattern, SharedRecord};

use shard::Shard;
pub use shard::{Due, Slot, Swept};

/// The map of the latest record of every source. All threads share it.
pub struct Latest {
    shards: Box<[Aligned]>,
    bytes: AtomicUsize,
    sources: AtomicUsize,
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

/// Returns the hash of a source's name, and the source's shard. Which shard that is belongs to the wire
/// format: nodes compare their maps shard by shard.
fn place(source: &str) -> (u64, usize) {
    let hash = xxh3_64(source.as_bytes());
    // The table uses the lowest and the highest bits of the hash; the shard follows from bits between.
    (hash, (hash >> 32) as usize % SHARDS)
}

/// Returns the shard that a source belongs to.
pub fn shard_of(source: &str) -> usize {
    place(source).1
}

impl Default for Latest {
    fn default() -> Latest {
        Latest {
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            bytes: AtomicUsize::new(0),
            sources: AtomicUsize::new(0),
        }
    }
}

impl Latest {
    /// Returns the latest record of a source, deletions and expired ones included.
    pub fn get(&self, source: &str) -> Option<SharedRecord> {
        let (hash, shard) = place(source);
        self.shards[shard].0.lock().find(hash, source).cloned()
    }

    /// Returns the latest record of a source, and the version of its shard: later changes have greater
    /// versions.
    pub fn get_versioned(&self, source: &str) -> (Option<SharedRecord>, u64) {
        let (hash, shard) = place(source);
        let shard = self.shards[shard].0.lock();
        (shard.find(hash, source).cloned(), shard.version)
    }

    /// Shows the slot of a source to `decide`, under the shard's lock.
    pub fn update<R>(&self, source: &str, decide: impl FnOnce(&mut Slot<'_>) -> R) -> R {
        let (hash, index) = place(source);
        let mut shard = self.shards[index].0.lock();
        let before = (shard.bytes, shard.len());
        let result = decide(&mut Slot::new(&mut shard, hash, source, index as u16));
        self.account(before, (shard.bytes, shard.len()));
        result
    }

    /// Shows every record of a shard to `visit`, deletions and expired ones included, under the shard's lock.
    /// Returns the shard's version: all changes up to it are in what was shown.
    pub fn scan_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) -> u64 {
        let shard = self.shards[shard].0.lock();
        shard.records().for_each(visit);
        shard.version
    }

    /// Collects the last change of every source of a shard that changed after `version`. Returns the shard's
    /// version: later changes have greater versions.
    pub fn changes_since(&self, shard: usize, version: u64, changes: &mut impl Extend<Change>) -> u64 {
        let index = shard as u16;
        let shard = self.shards[shard].0.lock();
        changes.extend(shard.changes_since(index, version));
        shard.version
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
        let before = (shard.bytes, shard.len());
        let next = shard.sweep(index, due, swept);
        self.account(before, (shard.bytes, shard.len()));
        next
    }

    /// Returns the first `limit` visible records that match, in the order of their names, after the name
    /// `after`.
    pub fn list(
        &self,
        pattern: &Pattern,
        after: Option<&str>,
        limit: usize,
        wall_us: u64,
    ) -> Vec<SharedRecord> {
        let mut least = BinaryHeap::new();
        for shard in 0..SHARDS {
            self.scan_shard(shard, &mut |record| {
                let name = record.source.as_str();
                let wanted = after.is_none_or(|after| name > after)
                    && record.is_visible(wall_us)
                    && (least.len() < limit || least.peek().is_some_and(|last: &ByName| name < last.name()))
                    && pattern.matches(name);
                if wanted {
                    least.push(ByName(record.clone()));
                    if least.len() > limit {
                        least.pop();
                    }
                }
            });
        }
        least.into_sorted_vec().into_iter().map(|ByName(record)| record).collect()
    }

    /// Returns how many sources are held, deleted ones included.
    pub fn len(&self) -> usize {
        self.sources.load(Relaxed)
    }

    /// Returns whether no source is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the memory held by the records, in bytes ([`crate::record::Record::cost_bytes`]).
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Adds the change of a shard's memory in bytes and number of records, given before and after, to the
    /// totals.
    fn account(&self, before: (usize, usize), after: (usize, usize)) {
        // All shards share the totals, so these are written only where something changed.
        if after.0 != before.0 {
            self.bytes.fetch_add(after.0.wrapping_sub(before.0), Relaxed);
        }
        if after.1 != before.1 {
            self.sources.fetch_add(after.1.wrapping_sub(before.1), Relaxed);
        }
    }
}

/// A record that is ordered by the name of its source.
struct ByName(SharedRecord);

impl ByName {
    fn name(&self) -> &str {
        self.0.source.as_str()
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &ByName) -> bool {
        self.name() == other.name()
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &ByName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &ByName) -> Ordering {
        self.name().cmp(other.name())
    }
}
