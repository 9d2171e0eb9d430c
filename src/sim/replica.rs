//! A small replicated map, into which the machines of a simulated world merge.

#[cfg(test)]
use std::collections::BTreeMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::{Arrival, Replica};
use crate::limits::SHARDS;
use crate::record::merge::judge;
use crate::record::{Now, SharedRecord};

/// The latest record of every source. It takes nine bytes for each, and all maps share the records. The
/// order of iteration depends on nothing but the records that were merged.
#[derive(Debug)]
pub struct SimReplica {
    records: HashTable<SharedRecord>,
    fingerprints: Box<[u64; SHARDS]>,
}

/// The result of merging a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// The record is the latest of its source from now on. Holds the record that it replaced, if any.
    Latest(Option<SharedRecord>),
    /// The record, or a newer one of its source, was there already.
    Stale,
}

impl Default for SimReplica {
    fn default() -> SimReplica {
        SimReplica { records: HashTable::new(), fingerprints: Box::new([0; SHARDS]) }
    }
}

impl SimReplica {
    /// Returns all records by the name of their source. It is made anew at every call: to compare many
    /// maps, compare their [`SimReplica::digest`] first.
    #[cfg(test)]
    pub fn records(&self) -> BTreeMap<&str, &SharedRecord> {
        self.records.iter().map(|record| (record.source.as_str(), record)).collect()
    }

    /// Returns all records, in an order that is the same in every run.
    pub fn iter(&self) -> impl Iterator<Item = &SharedRecord> {
        self.records.iter()
    }

    /// Returns the latest record of a source, deletions and expired ones included.
    pub fn latest(&self, source: &str) -> Option<&SharedRecord> {
        let is_it = |record: &SharedRecord| record.source.as_str() == source;
        self.records.find(xxh3_64(source.as_bytes()), is_it)
    }

    /// Returns the number of sources and the XOR of all fingerprints: equal for equal maps, and for
    /// different ones only by a chance of one in 2^64.
    pub fn digest(&self) -> (usize, u64) {
        (self.records.len(), self.fingerprints.iter().fold(0, |all, print| all ^ print))
    }

    /// Merges a record by the one merge rule.
    pub(super) fn merge(&mut self, record: SharedRecord) -> Merged {
        let hash = hash_of(&record);
        let fingerprint = &mut self.fingerprints[shard_of(hash)];
        let is_it = |known: &SharedRecord| known.source == record.source;
        if let Some(known) = self.records.find_mut(hash, is_it) {
            if !judge(Some(known), &record).replaces() {
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

    fn discard(&mut self, _now: Now, record: &SharedRecord) {
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
