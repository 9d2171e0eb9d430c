//! Changes in the order of their pushes: what a lane of the queue holds, and what one commit writes.
//!
//! The changes of one source form a chain from the newest to the oldest, and an index finds the
//! newest. A chain holds at most one removal, and everything older than the removal is dropped with
//! it, so a chain reads: perhaps a removal, then the records that were the latest one after the other.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::record::hash::name_hash;
use crate::record::{SharedRecord, Source, Stamp};

/// Estimated bytes that a change costs besides its record: its place in the log and in the index.
pub(in crate::store) const CHANGE_BYTES: usize = 64;
/// Marks the end of a chain.
const NONE: u32 = u32::MAX;

const _: () = assert!(crate::limits::STORE_QUEUE_BYTES_MAX / CHANGE_BYTES < NONE as usize);

/// A source that was collected: its records with stamps up to this one are to be removed.
struct Removal {
    source: Source,
    stamp: Stamp,
}

/// One push. If it has both a removal and a record, the removal comes first. If it has neither, it
/// was merged into a later change.
#[derive(Default)]
pub(super) struct QueuedChange {
    removal: Option<Box<Removal>>,
    record: Option<SharedRecord>,
    /// Index of the change of the same source before this one, or [`NONE`]; set by
    /// [`ChangeLog::append`].
    older: u32,
}

impl QueuedChange {
    /// A record that became the latest of its source.
    pub(super) fn of_record(record: &SharedRecord) -> QueuedChange {
        QueuedChange { removal: None, record: Some(record.clone()), older: NONE }
    }

    /// A removal of the source's records with stamps up to `stamp`.
    pub(super) fn of_removal(source: &Source, stamp: Stamp) -> QueuedChange {
        let removal = Some(Box::new(Removal { source: source.clone(), stamp }));
        QueuedChange { removal, record: None, older: NONE }
    }

    /// The record, unless the change is only a removal.
    pub(super) fn record(&self) -> Option<&SharedRecord> {
        self.record.as_ref()
    }

    fn source(&self) -> Option<&Source> {
        match (&self.record, &self.removal) {
            (Some(record), _) => Some(&record.source),
            (None, Some(removal)) => Some(&removal.source),
            (None, None) => None,
        }
    }

    /// Memory that the change takes, in bytes, as the queue's bounds count it.
    pub(super) fn cost_bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, |record| record.cost_bytes());
        let removal = self.removal.as_ref().map_or(0, |r| size_of::<Removal>() + r.source.as_str().len());
        record + removal + CHANGE_BYTES
    }
}

/// Number of records, and of bytes as the bounds count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogSize {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// Changes in the order of their pushes, with an index of the newest change of each source.
#[derive(Default)]
pub(in crate::store) struct ChangeLog {
    changes: Vec<QueuedChange>,
    newest: HashTable<u32>,
    size: LogSize,
}

impl ChangeLog {
    /// Index of the newest change of a source, if the log has any. `hash` is that of [`hash_of`].
    pub(super) fn newest(&self, hash: u64, source: &str) -> Option<u32> {
        self.newest.find(hash, |&at| self.is_of(at, source)).copied()
    }

    /// The change with this index.
    pub(super) fn change(&self, at: u32) -> Option<&QueuedChange> {
        self.changes.get(at as usize)
    }

    /// Records and bytes that the log holds.
    pub(super) fn size(&self) -> LogSize {
        self.size
    }

    /// Returns whether nothing was appended.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Counts records and bytes anew, to check [`ChangeLog::size`]. Slow: it visits every change. Those
    /// that were merged into later ones do not count.
    pub(super) fn recount(&self) -> LogSize {
        let counted = self.changes.iter().filter(|change| change.source().is_some());
        counted.fold(LogSize::default(), |sum, change| LogSize {
            records: sum.records + usize::from(change.record.is_some()),
            bytes: sum.bytes + change.cost_bytes(),
        })
    }

    fn is_of(&self, at: u32, source: &str) -> bool {
        self.changes.get(at as usize).and_then(QueuedChange::source).is_some_and(|s| s.as_str() == source)
    }

    /// Appends a change as the newest of its source.
    pub(super) fn append(&mut self, hash: u64, source: &str, mut change: QueuedChange) {
        self.size.bytes += change.cost_bytes();
        self.size.records += usize::from(change.record.is_some());
        let at = self.changes.len() as u32;
        let changes = &self.changes;
        let same = |&of: &u32| {
            changes.get(of as usize).and_then(QueuedChange::source).is_some_and(|s| s.as_str() == source)
        };
        let rehash = |&of: &u32| changes.get(of as usize).and_then(QueuedChange::source).map_or(0, hash_of);
        change.older = NONE;
        match self.newest.entry(hash, same, rehash) {
            Entry::Occupied(mut entry) => {
                change.older = *entry.get();
                *entry.get_mut() = at;
            }
            Entry::Vacant(entry) => {
                entry.insert(at);
            }
        }
        self.changes.push(change);
    }

    /// Reduces a chain to its newest record and its removal, both at the index of the newest change.
    /// Returns what that freed.
    pub(super) fn merge_chain(&mut self, newest: u32) -> LogSize {
        let Some(head) = self.changes.get_mut(newest as usize) else { return LogSize::default() };
        let mut at = std::mem::replace(&mut head.older, NONE);
        let mut kept = QueuedChange { removal: head.removal.take(), record: head.record.take(), older: NONE };
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
        let freed = LogSize { records, bytes: before - kept.cost_bytes() };
        if let Some(head) = self.changes.get_mut(newest as usize) {
            *head = kept;
        }
        self.size.records -= freed.records;
        self.size.bytes -= freed.bytes;
        freed
    }

    /// Merges every chain and gives back the memory of the changes that were merged away. Returns what
    /// that freed.
    pub(super) fn merge_all(&mut self) -> LogSize {
        let mut freed = LogSize::default();
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
        self.size = LogSize::default();
        for change in old {
            if let Some(source) = change.source().cloned() {
                self.append(hash_of(&source), source.as_str(), change);
            }
        }
        freed
    }

    /// Puts `record` in the place of the newest record of its source, which must not be newer. Returns
    /// what the replaced record took.
    pub(super) fn replace_newest(&mut self, newest: u32, record: &SharedRecord) -> LogSize {
        let Some(change) = self.changes.get_mut(newest as usize) else { return LogSize::default() };
        let old = change.record.replace(record.clone());
        debug_assert!(old.as_ref().is_none_or(|old| old.stamp <= record.stamp), "the newest record is kept");
        let freed = LogSize {
            records: usize::from(old.is_some()),
            bytes: old.map_or(0, |record| record.cost_bytes()),
        };
        self.size.bytes = self.size.bytes + record.cost_bytes() - freed.bytes;
        self.size.records = self.size.records + 1 - freed.records;
        freed
    }

    /// Iterates over the sources and the index of the newest change of each. The order is arbitrary, so
    /// it must not reach anything that can be seen.
    pub(in crate::store) fn newest_of_each(&self) -> impl Iterator<Item = (&Source, u32)> {
        self.newest.iter().filter_map(|&at| Some((self.changes.get(at as usize)?.source()?, at)))
    }

    /// Reads the chain of a source from the index of its newest change. Fills `records` with its
    /// records, the oldest first, and returns the stamp of the removal that comes before all of them,
    /// if there is one.
    pub(in crate::store) fn chain<'a>(
        &'a self,
        newest: u32,
        records: &mut Vec<&'a SharedRecord>,
    ) -> Option<Stamp> {
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

/// Hash of a source's name, which chooses its lane and its place in the lane's index.
pub(super) fn hash_of(source: &Source) -> u64 {
    name_hash(source.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::group::WriteGroup;
    use super::*;
    use crate::store::testing::shared;

    type Model = BTreeMap<String, (Option<Stamp>, Vec<SharedRecord>)>;

    fn of_group(log: ChangeLog) -> Model {
        let (records, mut model) = (log.size().records, Model::new());
        let group = WriteGroup::of_logs(vec![Arc::new(log)]);
        assert_eq!(group.records(), records);
        let read: Result<(), ()> = group.each_source(|source, removed, records| {
            let known =
                model.insert(source.as_str().into(), (removed, records.iter().map(|&r| r.clone()).collect()));
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
            let (mut log, mut model) = (ChangeLog::default(), Model::new());
            for (at, &(source, ts, what)) in pushes.iter().enumerate() {
                let name = format!("s/{source}");
                let record = shared(&name, ts);
                let hash = hash_of(&record.source);
                let entry = model.entry(name.clone()).or_default();
                let newest = log.newest(hash, &name);
                let newest_stamp = newest.and_then(|at| log.change(at)?.record()).map(|record| record.stamp);
                if what == 0 {
                    log.append(hash, &name, QueuedChange::of_removal(&record.source, record.stamp));
                    let newest = log.newest(hash, &name).expect("appended");
                    log.merge_chain(newest);
                    *entry = (entry.0.max(Some(record.stamp)), Vec::new());
                } else if let (1, Some(newest), true) = (what, newest, newest_stamp <= Some(record.stamp)) {
                    log.merge_chain(newest);
                    log.replace_newest(newest, &record);
                    entry.1 = vec![record];
                } else {
                    log.append(hash, &name, QueuedChange::of_record(&record));
                    entry.1.push(record);
                }
                if at == merge_at {
                    log.merge_all();
                    prop_assert_eq!(log.newest.len(), log.changes.len());
                    for (_, records) in model.values_mut() {
                        records.drain(..records.len().saturating_sub(1));
                    }
                }
                prop_assert_eq!(log.size(), log.recount());
            }
            log.merge_all();
            for (_, records) in model.values_mut() {
                records.drain(..records.len().saturating_sub(1));
            }
            prop_assert_eq!(log.size(), log.recount());
            prop_assert_eq!(of_group(log), model);
        }
    }
}
