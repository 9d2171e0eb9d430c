//! The group of changes that one commit writes.

use std::sync::Arc;

use super::log::{ChangeLog, QueuedChange, hash_of};
use crate::record::{Record, SharedRecord, Source, Stamp};

/// A group of changes that is written in one durable commit. No push reaches it any more, so it may be
/// written again and again until a commit succeeds.
#[derive(Clone, Default)]
pub(in crate::store) struct WriteGroup {
    logs: Vec<Arc<ChangeLog>>,
}

impl WriteGroup {
    /// A group of everything in these logs. No source may be in two of them.
    pub(super) fn of_logs(logs: Vec<Arc<ChangeLog>>) -> WriteGroup {
        WriteGroup { logs }
    }

    /// A group of records alone. Those of one source must be in the order in which they were the latest.
    pub(in crate::store) fn of_records(records: &[SharedRecord]) -> WriteGroup {
        let mut log = ChangeLog::default();
        for record in records {
            log.append(hash_of(&record.source), record.source.as_str(), QueuedChange::of_record(record));
        }
        WriteGroup { logs: vec![Arc::new(log)] }
    }

    /// A group of removals alone, each of everything up to the stamp.
    pub(in crate::store) fn of_removals(removals: Vec<(Source, Stamp)>) -> WriteGroup {
        let mut log = ChangeLog::default();
        for (source, stamp) in removals {
            log.append(hash_of(&source), source.as_str(), QueuedChange::of_removal(&source, stamp));
        }
        WriteGroup { logs: vec![Arc::new(log)] }
    }

    /// Number of records in the group; removals are not counted.
    pub(in crate::store) fn records(&self) -> usize {
        self.logs.iter().map(|log| log.size().records).sum()
    }

    /// Memory that the group takes, in bytes.
    #[cfg(test)]
    pub(in crate::store) fn bytes(&self) -> usize {
        self.logs.iter().map(|log| log.size().bytes).sum()
    }

    /// Returns whether there is nothing to write.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.logs.iter().all(|log| log.is_empty())
    }

    /// Shows the changes source by source, in order of name, which is the order that a B-tree
    /// takes best. If there is a stamp, everything of the source up to it is to be removed first; then
    /// the records are the latest, one after the other. Stops at the first error.
    pub(in crate::store) fn each_source<'a, E>(
        &'a self,
        mut each: impl FnMut(&'a Source, Option<Stamp>, &[&'a SharedRecord]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chains = Vec::new();
        for log in &self.logs {
            chains.extend(log.newest_of_each().map(|(source, at)| (source, log, at)));
        }
        chains.sort_unstable_by_key(|&(source, _, _)| source);
        debug_assert!(chains.is_sorted_by(|a, b| a.0 < b.0), "a source is in one log only");
        let mut records = Vec::new();
        for (source, log, at) in chains {
            let removed = log.chain(at, &mut records);
            each(source, removed, &records)?;
        }
        Ok(())
    }
}

/// Reduces a chain to a history: records with ascending stamps, of equal stamps the last one. Records
/// that came after a newer one are left out.
pub(in crate::store) fn ascending<'a>(records: &[&'a SharedRecord]) -> Vec<&'a Record> {
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
    debug_assert!(run.is_sorted_by(|older, newer| older.stamp < newer.stamp), "a history ascends");
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::shared;

    #[test]
    fn a_history_ascends() {
        let records = [3, 1, 3, 4, 2, 9].map(|ts| shared("a", ts));
        let refs: Vec<&SharedRecord> = records.iter().collect();
        let kept: Vec<u64> = ascending(&refs).iter().map(|record| record.stamp.ts).collect();
        assert_eq!(kept, [3, 4, 9]);
    }
}
