//! The records that clients published so far. Nodes that are called side by side look up here each record
//! that arrives, and report what they found as a [`Noted`].

use hashbrown::HashTable;

use crate::cluster::Arrival;
use crate::record::SharedRecord;

/// A rule that must hold at every delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A record that arrives was accepted at some node, and has not been changed since.
    OnlyAccepted,
    /// A record arrives no sooner than it was accepted.
    AfterAcceptance,
    /// The latest record of a source is never replaced by an older one.
    NeverBack,
}

/// The finding of a node about a record that arrived.
#[derive(Debug)]
pub(super) enum Noted {
    /// The record is the latest of its source at that node from now on. `index` counts accepted records from
    /// 0.
    Applied { index: u32, at_us: u64, arrival: Arrival },
    /// The record, or a newer one of its source, was there already.
    Stale { index: u32 },
    /// The record must not have arrived, or not in this way: it broke `rule`.
    Broken { rule: Rule, at_us: u64, record: SharedRecord },
}

/// All records that were accepted, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct AcceptedRecords {
    /// Places in `records`, by checksum.
    index: HashTable<u32>,
    /// Each record with the world's time of its acceptance in microseconds, in that order.
    records: Vec<(SharedRecord, u64)>,
}

impl AcceptedRecords {
    /// Adds a record that was accepted at `at_us`.
    pub fn add(&mut self, record: SharedRecord, at_us: u64) {
        let (index, checksum) = (self.records.len() as u32, record.checksum);
        self.records.push((record, at_us));
        let records = &self.records;
        self.index.insert_unique(checksum, index, |&index| {
            records.get(index as usize).map_or(0, |(record, _)| record.checksum)
        });
    }

    /// Finds an accepted record that equals this one in every field: its number, the shared copy, and
    /// the time of its acceptance. The checksum covers every field and was verified by the decoder, so
    /// records that agree in it and in the stamp (which holds the data's hash) are the same.
    pub fn find(&self, record: &SharedRecord) -> Option<(u32, &SharedRecord, u64)> {
        let is_same = |it: &SharedRecord| it.checksum == record.checksum && it.stamp == record.stamp;
        let is_it = |&index: &u32| self.records.get(index as usize).is_some_and(|(it, _)| is_same(it));
        let &index = self.index.find(record.checksum, is_it)?;
        self.records.get(index as usize).map(|(record, at_us)| (index, record, *at_us))
    }
}
