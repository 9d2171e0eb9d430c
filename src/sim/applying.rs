//! A node's replica while its machine is called: it merges, and checks every record that arrives.

use std::collections::VecDeque;

use super::accepted::{AcceptedRecords, Noted, Rule};
use super::act::Act;
use super::later::LaterBatches;
use super::replica::{Merged, SimReplica};
use crate::cluster::{Arrival, BatchOutcome, ReceivedBatch, Replica};
use crate::limits::SHARDS;
use crate::record::merge::order;
use crate::record::{Now, SharedRecord};

/// A replica that adds an act with its finding for every record that arrives.
pub(super) struct Applying<'a> {
    /// The map of the node.
    pub replica: &'a mut SimReplica,
    /// The records that were accepted so far.
    pub accepted: &'a AcceptedRecords,
    /// The world's time, in microseconds, at which the node handles the event that it is called with.
    pub at_us: u64,
    /// Longest time until another thread has merged a batch, in microseconds; 0: it is merged at once.
    pub merge_us: u64,
    /// The batches that other threads merge.
    pub later: &'a mut LaterBatches,
    /// The acts of the call, to which the findings are added.
    pub acts: &'a mut VecDeque<Act>,
}

impl Applying<'_> {
    fn note(&mut self, noted: Noted) {
        self.acts.push_back(Act::Noted(noted));
    }

    fn violate(&mut self, rule: Rule, record: &SharedRecord) {
        self.note(Noted::Broken { rule, at_us: self.at_us, record: record.clone() });
    }
}

impl Replica for Applying<'_> {
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        let at_us = self.at_us;
        // A server refuses it as well.
        if record.is_far_ahead(now.wall_us) {
            return false;
        }
        let Some((index, known, accepted_us)) = self.accepted.find(&record) else {
            self.violate(Rule::OnlyAccepted, &record);
            return self.replica.merge(record) != Merged::Stale;
        };
        if accepted_us > at_us {
            self.violate(Rule::AfterAcceptance, &record);
            return self.replica.merge(record) != Merged::Stale;
        }
        // All replicas share one copy of every record.
        match self.replica.merge(known.clone()) {
            Merged::Stale => {
                self.note(Noted::Stale { index });
                false
            }
            Merged::Latest(before) => {
                if before.is_some_and(|before| order(&before, known).is_ge()) {
                    self.violate(Rule::NeverBack, known);
                }
                self.note(Noted::Applied { index, at_us, arrival });
                true
            }
        }
    }

    fn take_batch(&mut self, now: Now, batch: ReceivedBatch) -> Option<BatchOutcome> {
        if self.merge_us == 0 {
            return Some(batch.apply_to(now, self));
        }
        self.later.push(self.at_us, self.merge_us, batch);
        None
    }

    fn discard(&mut self, now: Now, record: &SharedRecord) {
        self.replica.discard(now, record);
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        self.replica.get(source)
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        self.replica.fingerprints()
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        self.replica.visit_shard(shard, visit);
    }
}
