//! A replicated map as small as it can be: what the machines of a simulated world merge into.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::{Arrival, Replica};
use crate::limits::SHARDS;
use crate::record::{Now, Record, SharedRecord};

/// The latest record of every source: nine bytes and a share of the record for each. What is seen
/// of its order depends on nothing but what was put in.
#[derive(Debug)]
pub struct SimReplica {
    records: HashTable<SharedRecord>,
    fingerprints: Box<[u64; SHARDS]>,
}

/// What became of a record that was merged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// It is the latest now, and this one was before.
    Latest(Option<SharedRecord>),
    /// There was a newer one, or itself.
    Stale,
}

impl Default for SimReplica {
    fn default() -> SimReplica {
        SimReplica { records: HashTable::new(), fingerprints: Box::new([0; SHARDS]) }
    }
}

impl SimReplica {
    /// All records, by name of source. Made anew at every call: to compare many maps, compare
    /// their [`SimReplica::digest`] first.
    pub fn records(&self) -> BTreeMap<&str, &SharedRecord> {
        self.records.iter().map(|record| (record.source.as_str(), record)).collect()
    }

    /// All records, in no stated order, the same in every run.
    pub fn iter(&self) -> impl Iterator<Item = &SharedRecord> {
        self.records.iter()
    }

    /// The latest record of a source, deletions and expired ones included.
    pub fn latest(&self, source: &str) -> Option<&SharedRecord> {
        let is_it = |record: &SharedRecord| record.source.as_str() == source;
        self.records.find(xxh3_64(source.as_bytes()), is_it)
    }

    /// How many sources, and XOR of all fingerprints: equal maps have the same, and others but by
    /// chance of one in 2^64 do not.
    pub fn digest(&self) -> (usize, u64) {
        (self.records.len(), self.fingerprints.iter().fold(0, |all, print| all ^ print))
    }

    /// Merges a record.
    pub(super) fn merge(&mut self, record: SharedRecord) -> Merged {
        let hash = hash_of(&record);
        let fingerprint = &mut self.fingerprints[shard_of(hash)];
        let is_it = |known: &SharedRecord| known.source == record.source;
        if let Some(known) = self.records.find_mut(hash, is_it) {
            if order(&record, known) != Ordering::Greater {
                return Merged::Stale;
            }
            *fingerprint ^= record.checksum ^ known.checksum;
            return Merged::Latest(Some(std::mem::replace(known, record)));
        }
        *fingerprint ^= record.checksum;
        self.records.insert_unique(hash, record, hash_of);
        Merged::Latest(None)
    }
}

/// Which of two records of a source wins. Of equal stamps the greater birth is kept.
pub(super) fn order(a: &Record, b: &Record) -> Ordering {
    a.stamp.cmp(&b.stamp).then_with(|| a.birth.cmp(&b.birth))
}

fn hash_of(record: &SharedRecord) -> u64 {
    xxh3_64(record.source.as_str().as_bytes())
}

fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

impl Replica for SimReplica {
    fn apply(&mut self, _now: Now, record: SharedRecord, _arrival: Arrival) -> bool {
        self.merge(record) != Merged::Stale
    }

    fn discard(&mut self, record: &SharedRecord) {
        let hash = hash_of(record);
        if let Ok(entry) = self.records.find_entry(hash, |known| known == record) {
            entry.remove();
            self.fingerprints[shard_of(hash)] ^= record.checksum;
        }
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.latest(source).cloned()
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        *self.fingerprints
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        let records = self.records.iter().filter(|record| shard_of(hash_of(record)) == shard);
        records.for_each(visit);
    }
}
