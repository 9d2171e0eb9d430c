//! The records that a node of the test world got, in place of a map.

use std::collections::BTreeMap;

use crate::cluster::{Arrival, BatchOutcome, ReceivedBatch, Replica};
use crate::limits::SHARDS;
use crate::record::merge::judge;
use crate::record::{NodeName, Now, SharedRecord, Source};

/// When and how each record arrived at a node, by origin and number; the newest record of each source; and, if
/// the node lets another thread apply batches, those that are to be applied.
#[derive(Default)]
pub(in crate::cluster::spread) struct Arrivals(
    pub BTreeMap<(NodeName, u64), (u64, Arrival)>,
    pub BTreeMap<Source, SharedRecord>,
    pub Option<Vec<ReceivedBatch>>,
);

impl Replica for Arrivals {
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        let birth = (record.birth.origin.clone(), record.birth.seq);
        let is_new = !self.0.contains_key(&birth);
        self.0.entry(birth).or_insert((now.mono_us, arrival));
        let held = self.1.entry(record.source.clone()).or_insert_with(|| record.clone());
        if judge(Some(held), &record).replaces() {
            *held = record;
        }
        is_new
    }
    fn take_batch(&mut self, now: Now, batch: ReceivedBatch) -> Option<BatchOutcome> {
        match &mut self.2 {
            Some(later) => later.push(batch),
            None => return Some(batch.apply_to(now, self)),
        }
        None
    }
    fn discard(&mut self, _now: Now, _record: &SharedRecord) {}
    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.1.get(&Source::parse(source).ok()?).cloned()
    }
    fn fingerprints(&self) -> [u64; SHARDS] {
        [0; SHARDS]
    }
    fn visit_shard(&self, _shard: usize, _visit: &mut dyn FnMut(&SharedRecord)) {}
}
