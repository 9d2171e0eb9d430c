//! A replicated map as small as it can be: what the machines of a simulated world merge into.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::{Arrival, Replica};
use crate::limits::SHARDS;
use crate::record::{Now, Record, SharedRecord};

/// The latest record of every source, in order of name.
#[derive(Debug)]
pub struct SimReplica {
    records: BTreeMap<String, SharedRecord>,
    fingerprints: Box<[u64; SHARDS]>,
}

impl Default for SimReplica {
    fn default() -> SimReplica {
        SimReplica { records: BTreeMap::new(), fingerprints: Box::new([0; SHARDS]) }
    }
}

impl SimReplica {
    /// All records, by name of source.
    pub fn records(&self) -> &BTreeMap<String, SharedRecord> {
        &self.records
    }

    /// Merges a record: `true` if it is the latest now.
    pub fn merge(&mut self, record: SharedRecord) -> bool {
        let name = record.source.as_str();
        let known = self.records.get(name);
        if known.is_some_and(|known| order(&record, known) != Ordering::Greater) {
            return false;
        }
        let fingerprint = &mut self.fingerprints[shard_of(name)];
        *fingerprint ^= record.checksum ^ known.map_or(0, |known| known.checksum);
        self.records.insert(name.into(), record);
        true
    }
}

/// Which of two records of a source wins. Of equal stamps the greater birth is kept.
fn order(a: &Record, b: &Record) -> Ordering {
    a.stamp.cmp(&b.stamp).then_with(|| a.birth.cmp(&b.birth))
}

fn shard_of(source: &str) -> usize {
    (xxh3_64(source.as_bytes()) >> 32) as usize % SHARDS
}

impl Replica for SimReplica {
    fn apply(&mut self, _now: Now, record: SharedRecord, _arrival: Arrival) -> bool {
        self.merge(record)
    }

    fn discard(&mut self, record: &SharedRecord) {
        let name = record.source.as_str();
        if self.records.get(name).is_some_and(|known| known == record) {
            self.records.remove(name);
            self.fingerprints[shard_of(name)] ^= record.checksum;
        }
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.records.get(source).cloned()
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        *self.fingerprints
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        let records = self.records.iter().filter(|(name, _)| shard_of(name) == shard);
        records.for_each(|(_, record)| visit(record));
    }

    fn len(&self) -> usize {
        self.records.len()
    }
}
