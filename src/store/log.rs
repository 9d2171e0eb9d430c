//! Changes in the order of their pushes: what a lane of the queue holds, and what one commit writes.
//!
//! The changes of one source form a chain from the newest to the oldest, and an index finds the
//! newest. A chain holds at most one removal, and everything older than it goes with it, so a chain
//! reads: perhaps a removal, then the records that were the latest one after the other.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::record::{Record, SharedRecord, Source, Stamp};

/// What a change costs beside its record: its place in the log and in the index.
pub(super) const CHANGE_BYTES: usize = 64;
/// End of a chain.
const NONE: u32 = u32::MAX;

const _: () = assert!(crate::limits::STORE_QUEUE_BYTES_MAX / CHANGE_BYTES < NONE as usize);

/// A source that was collected: everything up to this stamp goes.
struct Removal {
    source: Source,
    stamp: Stamp,
}

/// One push. With both parts, the removal comes first. With neither, it was merged away.
#[derive(Default)]
pub(super) struct Change {
    removal: Option<Box<Removal>>,
    pub(super) record: Option<SharedRecord>,
    /// The change of the same source before it, or [`NONE`]; set when it is appended.
    older: u32,
}

impl Change {
    pub(super) fn of_record(record: &SharedRecord) -> Change {
        Change { removal: None, record: Some(record.clone()), older: NONE }
    }

    pub(super) fn of_removal(source: &Source, stamp: Stamp) -> Change {
        let removal = Some(Box::new(Removal { source: source.clone(), stamp }));
        Change { removal, record: None, older: NONE }
    }

    fn source(&self) -> Option<&Source> {
        match (&self.record, &self.removal) {
            (Some(record), _) => Some(&record.source),
            (None, Some(removal)) => Some(&removal.source),
            (None, None) => None,
        }
    }

    pub(super) fn cost_bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, |record| record.cost_bytes());
        let removal = self.removal.as_ref().map_or(0, |r| size_of::<Removal>() + r.source.as_str().len());
        record + removal + CHANGE_BYTES
    }
}

/// Changes in the order of their pushes, with an index of the newest of each source.
#[derive(Default)]
pub(super) struct Log {
    changes: Vec<Change>,
    newest: HashTable<u32>,
    /// Records in it.
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// What merging freed.
#[derive(Default)]
pub(super) struct Freed {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Log {
    pub(super) fn newest(&self, hash: u64, source: &str) -> Option<u32> {
        self.newest.find(hash, |&at| self.is_of(at, source)).copied()
    }

    /// The change in a place.
    pub(super) fn change(&self, at: u32) -> Option<&Change> {
        self.changes.get(at as usize)
    }

    /// Whether nothing was pushed.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn is_of(&self, at: u32, source: &str) -> bool {
        self.changes.get(at as usize).and_then(Change::source).is_some_and(|s| s.as_str() == source)
    }

    /// Appends a change as the newest of its source.
    pub(super) fn append(&mut self, hash: u64, source: &str, mut change: Change) {
        self.bytes += change.cost_bytes();
        self.records += usize::from(change.record.is_some());
        let at = self.changes.len() as u32;
        let changes = &self.changes;
        let same = |&of: &u32| {
            changes.get(of as usize).and_then(Change::source).is_some_and(|s| s.as_str() == source)
        };
        let rehash = |&of: &u32| changes.get(of as usize).and_then(Change::source).map_or(0, hash_of);
        change.older = NONE;
        match self.newest.entry(hash, same, rehash) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => {
                change.older = *entry.get();
                *entry.get_mut() = at;
            }
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(at);
            }
        }
        self.changes.push(change);
    }

    /// Leaves of a chain its newest record and its removal, both in the newest place.
    pub(super) fn merge_chain(&mut self, newest: u32) -> Freed {
        let Some(head) = self.changes.get_mut(newest as usize) else { return Freed::default() };
        let mut at = std::mem::replace(&mut head.older, NONE);
        let mut kept = Change { removal: head.removal.take(), record: head.record.take(), older: NONE };
        let mut before = kept.cost_bytes();
        let mut records = 0;
        while let Some(change) = self.changes.get_mut(at as usize) {
            before += change.cost_bytes();
            records += usize::from(change.record.is_some());
            at = change.older;
            kept.removal = match (kept.removal.take(), std::mem::take(change).removal) {
                (Some(one), Some(other)) if other.stamp > one.stamp => Some(other),
                (one, other) => one.or(other),
            };
        }
        let freed = Freed { records, bytes: before - kept.cost_bytes() };
        if let Some(head) = self.changes.get_mut(newest as usize) {
            *head = kept;
        }
        self.records -= freed.records;
        self.bytes -= freed.bytes;
        freed
    }

    /// Merges every chain and gives back the places of what was merged away.
    pub(super) fn merge_all(&mut self) -> Freed {
        let mut freed = Freed::default();
        if self.newest.len() == self.changes.len() {
            return freed;
        }
        for newest in self.newest.iter().copied().collect::<Vec<_>>() {
            let one = self.merge_chain(newest);
            freed.records += one.records;
            freed.bytes += one.bytes;
        }
        let old = std::mem::take(&mut self.changes);
        self.newest.clear();
        (self.records, self.bytes) = (0, 0);
        for change in old {
            if let Some(source) = change.source().cloned() {
                self.append(hash_of(&source), source.as_str(), change);
            }
        }
        freed
    }

    /// Puts `record` in the place of the newest record of its source.
    pub(super) fn replace_newest(&mut self, newest: u32, record: &SharedRecord) -> Freed {
        let Some(change) = self.changes.get_mut(newest as usize) else { return Freed::default() };
        let old = change.record.replace(record.clone());
        let freed =
            Freed { records: usize::from(old.is_some()), bytes: old.map_or(0, |record| record.cost_bytes()) };
        self.bytes = self.bytes + record.cost_bytes() - freed.bytes;
        self.records = self.records + 1 - freed.records;
        freed
    }

    /// The newest change of each source, in no order that anyone may see.
    pub(super) fn newest_of_each(&self) -> impl Iterator<Item = (&Source, u32)> {
        self.newest.iter().filter_map(|&at| Some((self.changes.get(at as usize)?.source()?, at)))
    }

    /// The chain of a source, oldest first: a removal that comes before all, and the records.
    pub(super) fn chain<'a>(&'a self, newest: u32, records: &mut Vec<&'a SharedRecord>) -> Option<Stamp> {
        records.clear();
        let mut removed = None;
        let mut at = newest;
        while let Some(change) = self.changes.get(at as usize) {
            records.extend(&change.record);
            if let Some(removal) = &change.removal {
                removed = Some(removal.stamp);
                break;
            }
            at = change.older;
        }
        records.reverse();
        removed
    }
}

/// What one commit writes: logs that no push reaches any more.
#[derive(Clone, Default)]
pub struct Group {
    pub(super) logs: Vec<Arc<Log>>,
}

impl Group {
    /// A group of records alone, one or more a source in order.
    pub(super) fn of_records(records: &[SharedRecord]) -> Group {
        let mut log = Log::default();
        for record in records {
            log.append(hash_of(&record.source), record.source.as_str(), Change::of_record(record));
        }
        Group { logs: vec![Arc::new(log)] }
    }

    /// A group of removals alone.
    pub(super) fn of_removals(removals: Vec<(Source, Stamp)>) -> Group {
        let mut log = Log::default();
        for (source, stamp) in removals {
            log.append(hash_of(&source), source.as_str(), Change::of_removal(&source, stamp));
        }
        Group { logs: vec![Arc::new(log)] }
    }

    /// Records in it.
    pub fn records(&self) -> usize {
        self.logs.iter().map(|log| log.records).sum()
    }

    /// Bytes of it in memory.
    pub fn bytes(&self) -> usize {
        self.logs.iter().map(|log| log.bytes).sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.logs.iter().all(|log| log.newest.is_empty())
    }

    /// Shows the changes source by source, in order of name, which is the order that a B-tree
    /// takes best: everything up to the stamp, if any, goes; then the records are the latest, one
    /// after the other. Stops at the first error.
    pub fn each_source<'a, E>(
        &'a self,
        mut each: impl FnMut(&'a str, Option<Stamp>, &[&'a SharedRecord]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chains = Vec::new();
        for log in &self.logs {
            chains.extend(log.newest_of_each().map(|(source, at)| (source.as_str(), log, at)));
        }
        chains.sort_unstable_by_key(|&(source, _, _)| source);
        let mut records = Vec::new();
        for (source, log, at) in chains {
            let removed = log.chain(at, &mut records);
            each(source, removed, &records)?;
        }
        Ok(())
    }
}

/// Places a source among lanes and in their indexes.
pub(super) fn hash_of(source: &Source) -> u64 {
    xxh3_64(source.as_str().as_bytes())
}

/// Keeps of a chain what is a history: ascending stamps, the last of equal ones.
pub(super) fn ascending<'a>(records: &[&'a SharedRecord]) -> Vec<&'a Record> {
    let mut run: Vec<&Record> = Vec::with_capacity(records.len());
    for &record in records {
        match run.last() {
            Some(last) if record.stamp < last.stamp => {}
            Some(last) if record.stamp == last.stamp => {
                run.pop();
                run.push(record);
            }
            _ => run.push(record),
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::testing::shared;

    type Model = BTreeMap<String, (Option<Stamp>, Vec<SharedRecord>)>;

    fn of_group(log: Log) -> Model {
        let (records, mut model) = (log.records, Model::new());
        let group = Group { logs: vec![Arc::new(log)] };
        assert_eq!(group.records(), records);
        let read: Result<(), ()> = group.each_source(|source, removed, records| {
            let known = model.insert(source.into(), (removed, records.iter().map(|&r| r.clone()).collect()));
            assert!(known.is_none());
            Ok(())
        });
        assert_eq!(read, Ok(()));
        model
    }

    proptest! {
        /// Appending keeps everything since the last removal; merging keeps the newest and the
        /// greatest removal; the count of bytes is that of what is there.
        #[test]
        fn a_log_is_its_model(
            pushes in proptest::collection::vec((0u8..5, 1u64..40, 0u8..4), 1..80),
            merge_at in 0usize..80,
        ) {
            let (mut log, mut model) = (Log::default(), Model::new());
            for (at, &(source, ts, what)) in pushes.iter().enumerate() {
                let name = format!("s/{source}");
                let record = shared(&name, ts);
                let hash = hash_of(&record.source);
                let entry = model.entry(name.clone()).or_default();
                if what == 0 {
                    log.append(hash, &name, Change::of_removal(&record.source, record.stamp));
                    let newest = log.newest(hash, &name).expect("appended");
                    log.merge_chain(newest);
                    *entry = (entry.0.max(Some(record.stamp)), Vec::new());
                } else if let (1, Some(newest)) = (what, log.newest(hash, &name)) {
                    log.merge_chain(newest);
                    log.replace_newest(newest, &record);
                    entry.1 = vec![record];
                } else {
                    log.append(hash, &name, Change::of_record(&record));
                    entry.1.push(record);
                }
                if at == merge_at {
                    log.merge_all();
                    prop_assert_eq!(log.newest.len(), log.changes.len());
                    for (_, records) in model.values_mut() {
                        records.drain(..records.len().saturating_sub(1));
                    }
                }
            }
            log.merge_all();
            for (_, records) in model.values_mut() {
                records.drain(..records.len().saturating_sub(1));
            }
            prop_assert_eq!(log.bytes, log.changes.iter().map(Change::cost_bytes).sum::<usize>());
            prop_assert_eq!(of_group(log), model);
        }
    }

    #[test]
    fn a_history_ascends() {
        let records = [3, 1, 3, 4, 2, 9].map(|ts| shared("a", ts));
        let refs: Vec<&SharedRecord> = records.iter().collect();
        let kept: Vec<u64> = ascending(&refs).iter().map(|record| record.stamp.ts).collect();
        assert_eq!(kept, [3, 4, 9]);
    }
}
