//! Records that wait on the disk while Cassandra is away.
//!
//! One redb file. `records` holds what waits under (ts, deleted, hash, source), so that reading from
//! the front is reading in order of age; `newest` says which of them is the newest of its source.
//! While there is room every record is kept, so Cassandra's history has no hole afterwards. Past
//! [`SPILL_HISTORY_BYTES`] a record replaces the one before it of its source; past
//! [`SPILL_BYTES_MAX`] nothing new is taken, and the writer must read the map again later.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, TableHandle,
};

use super::rows::{TIE_BYTES, tie};
use crate::limits::{SPILL_BYTES_MAX, SPILL_HISTORY_BYTES};
use crate::record::{Record, SharedRecord, Stamp, wire};
use crate::store::error::StoreError;
use crate::store::private_file;
use crate::store::queue::{WriteGroup, ascending};

/// Table from a [`key`] to a record encoded by [`wire::encode`].
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// Table from a source to the key of its newest record.
const NEWEST: TableDefinition<&str, &[u8]> = TableDefinition::new("newest");
/// Memory for redb's pages, in bytes. Little is enough: this file is written and read in runs.
const SPILL_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Estimated bytes that a record costs besides its own, in both tables and their pages.
const OVERHEAD_BYTES: usize = 96;

/// The reason why the spill failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpillError {
    /// There is no room for another record.
    #[error("the records that wait for Cassandra fill their bound on the disk")]
    Full,
    /// The file cannot be read or written.
    #[error("the records that wait for Cassandra cannot be kept on the disk: {0}")]
    File(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for SpillError {
    fn from(error: E) -> SpillError {
        SpillError::File(Box::new(error.into()))
    }
}

impl From<SpillError> for StoreError {
    fn from(error: SpillError) -> StoreError {
        let text = error.to_string();
        match error {
            SpillError::Full => StoreError::Full(text),
            SpillError::File(error) => StoreError::from(*error).with_text(text),
        }
    }
}

/// The file of records that wait, open.
pub(super) struct Spill {
    database: Database,
    bounds: SpillBounds,
    records: AtomicUsize,
    bytes: AtomicUsize,
}

/// Numbers of bytes at which the spill changes what it keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpillBounds {
    /// Above this number of bytes, a record replaces the one before it of its source.
    pub(super) history_bytes: usize,
    /// A group with which the file would hold more than this is not taken.
    pub(super) max_bytes: usize,
}

impl Default for SpillBounds {
    fn default() -> SpillBounds {
        SpillBounds { history_bytes: SPILL_HISTORY_BYTES, max_bytes: SPILL_BYTES_MAX }
    }
}

/// The oldest records that wait, to be given to [`Spill::forget`] once they are written.
#[derive(Default)]
pub(super) struct Oldest {
    /// Records in order of age. Damaged ones are left out, and are forgotten with the others.
    pub(super) records: Vec<SharedRecord>,
    keys: Vec<Vec<u8>>,
}

struct SpillTables<'a> {
    records: Table<'a, &'static [u8], &'static [u8]>,
    newest: Table<'a, &'static str, &'static [u8]>,
}

impl Spill {
    /// Opens the file, or makes it, and counts the records that an earlier run of the node left in it.
    pub(super) fn open(path: &Path, bounds: SpillBounds) -> Result<Spill, SpillError> {
        let mut builder = Database::builder();
        builder.set_cache_size(SPILL_CACHE_BYTES);
        let database = private_file::open_or_make(path, &builder, RECORDS.name())?;
        let transaction = database.begin_write()?;
        let (mut records, mut bytes) = (0, 0);
        {
            drop(transaction.open_table(NEWEST)?);
            for row in transaction.open_table(RECORDS)?.iter()? {
                let (key, value) = row?;
                records += 1;
                bytes += cost(key.value(), value.value());
            }
        }
        transaction.commit()?;
        Ok(Spill { database, bounds, records: records.into(), bytes: bytes.into() })
    }

    /// Number of records that wait.
    pub(super) fn records(&self) -> usize {
        self.records.load(Relaxed)
    }

    /// Returns whether no record waits.
    pub(super) fn is_empty(&self) -> bool {
        self.records() == 0
    }

    /// Keeps a group, which survives a power cut when this returns. On an error nothing is kept.
    pub(super) fn put(&self, group: &WriteGroup) -> Result<(), SpillError> {
        let (mut records, mut bytes) = (self.records.load(Relaxed), self.bytes.load(Relaxed));
        let transaction = self.begin()?;
        {
            let mut tables = tables(&transaction)?;
            group.each_source(|source, removed, run| {
                if let Some(stamp) = removed {
                    let (fewer, freed) = remove_upto(&mut tables, source.as_str(), stamp)?;
                    records -= fewer;
                    bytes -= freed;
                }
                for record in ascending(run) {
                    let (more, added) = self.put_one(&mut tables, record, bytes)?;
                    records = records.saturating_add_signed(more);
                    bytes = bytes.saturating_add_signed(added);
                }
                Ok::<(), SpillError>(())
            })?;
        }
        transaction.commit()?;
        self.set_counts(records, bytes);
        Ok(())
    }

    /// Keeps one record, where `bytes` are kept already. Returns by how many records and bytes the file grew.
    fn put_one(
        &self,
        tables: &mut SpillTables<'_>,
        record: &Record,
        bytes: usize,
    ) -> Result<(isize, isize), SpillError> {
        let source = record.source.as_str();
        let (new, value) = (key(record.stamp, source), wire::encode(record));
        let known = tables.newest.get(source)?.map(|key| key.value().to_vec());
        let (mut more, mut added) = (0, 0);
        let replaced = known.as_ref().filter(|known| bytes > self.bounds.history_bytes && **known < new);
        if let Some(old) = replaced
            && let Some(row) = tables.records.remove(old.as_slice())?
        {
            more -= 1;
            added -= cost(old, row.value()) as isize;
        }
        if bytes.saturating_add_signed(added) + cost(&new, &value) > self.bounds.max_bytes {
            return Err(SpillError::Full);
        }
        let before =
            tables.records.insert(new.as_slice(), value.as_slice())?.map(|row| cost(&new, row.value()));
        more += isize::from(before.is_none());
        added += cost(&new, &value) as isize - before.unwrap_or(0) as isize;
        if known.is_none_or(|known| known < new) {
            tables.newest.insert(source, new.as_slice())?;
        }
        Ok((more, added))
    }

    /// Reads the oldest records, at most `limit`.
    pub(super) fn oldest(&self, limit: usize) -> Result<Oldest, SpillError> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let mut oldest = Oldest::default();
        for row in table.iter()?.take(limit) {
            let (key, value) = row?;
            oldest.keys.push(key.value().to_vec());
            match wire::decode(value.value()) {
                Ok(record) => oldest.records.push(record.into()),
                Err(error) => {
                    tracing::error!(%error, "a record that waited for Cassandra is damaged; skipped")
                }
            }
        }
        Ok(oldest)
    }

    /// Forgets the records that [`Spill::oldest`] read.
    pub(super) fn forget(&self, oldest: &Oldest) -> Result<(), SpillError> {
        let (mut records, mut bytes) = (self.records.load(Relaxed), self.bytes.load(Relaxed));
        let transaction = self.begin()?;
        {
            let mut tables = tables(&transaction)?;
            for key in &oldest.keys {
                if let Some(row) = tables.records.remove(key.as_slice())? {
                    records -= 1;
                    bytes -= cost(key, row.value());
                }
                let Some(source) = source_of(key) else { continue };
                let is_newest =
                    tables.newest.get(source)?.is_some_and(|newest| newest.value() == key.as_slice());
                if is_newest {
                    tables.newest.remove(source)?;
                }
            }
        }
        transaction.commit()?;
        self.set_counts(records, bytes);
        Ok(())
    }

    /// Shows the newest record of every source.
    pub(super) fn newest(&self, each: &mut dyn FnMut(Record)) -> Result<(), SpillError> {
        let transaction = self.database.begin_read()?;
        let (records, newest) = (transaction.open_table(RECORDS)?, transaction.open_table(NEWEST)?);
        if records.is_empty()? {
            return Ok(());
        }
        for row in newest.iter()? {
            let (_, key) = row?;
            let Some(value) = records.get(key.value())? else { continue };
            if let Ok(record) = wire::decode(value.value()) {
                each(record);
            }
        }
        Ok(())
    }

    fn set_counts(&self, records: usize, bytes: usize) {
        debug_assert_eq!(records == 0, bytes == 0, "bytes are those of the records");
        self.records.store(records, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    /// Begins a transaction that writes.
    fn begin(&self) -> Result<redb::WriteTransaction, SpillError> {
        let mut transaction = self.database.begin_write()?;
        // With this a start after a kill reads the state of the allocator instead of the whole file.
        transaction.set_quick_repair(true);
        Ok(transaction)
    }
}

fn tables(transaction: &redb::WriteTransaction) -> Result<SpillTables<'_>, SpillError> {
    Ok(SpillTables { records: transaction.open_table(RECORDS)?, newest: transaction.open_table(NEWEST)? })
}

/// Forgets the newest record of a source if its stamp is not greater than `stamp`. Returns the number of
/// records and bytes that this freed. Older records are still written, since Cassandra's removal covers them.
fn remove_upto(
    tables: &mut SpillTables<'_>,
    source: &str,
    stamp: Stamp,
) -> Result<(usize, usize), SpillError> {
    let Some(newest) = tables.newest.get(source)?.map(|key| key.value().to_vec()) else { return Ok((0, 0)) };
    if newest > key(stamp, source) {
        return Ok((0, 0));
    }
    tables.newest.remove(source)?;
    let freed = tables.records.remove(newest.as_slice())?.map(|row| cost(&newest, row.value()));
    Ok((usize::from(freed.is_some()), freed.unwrap_or(0)))
}

/// The key of a record: its order among all records, then its source.
fn key(stamp: Stamp, source: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + TIE_BYTES + source.len());
    key.extend_from_slice(&stamp.ts.to_be_bytes());
    key.extend_from_slice(&tie(stamp));
    key.extend_from_slice(source.as_bytes());
    key
}

fn source_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(8 + TIE_BYTES..)?).ok()
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    2 * key.len() + value.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::shared;

    fn spill(bounds: SpillBounds) -> (tempfile::TempDir, Spill) {
        let dir = tempfile::tempdir().expect("directory");
        let spill = Spill::open(&dir.path().join("spill.redb"), bounds).expect("opens");
        (dir, spill)
    }

    fn group(records: &[(&str, u64)]) -> WriteGroup {
        WriteGroup::of_records(&records.iter().map(|&(source, ts)| shared(source, ts)).collect::<Vec<_>>())
    }

    fn shown(oldest: &Oldest) -> Vec<(String, u64)> {
        oldest.records.iter().map(|r| (r.source.as_str().to_owned(), r.stamp.ts)).collect()
    }

    #[test]
    fn what_waits_comes_back_in_order_of_age_also_after_a_kill() {
        let (dir, spill) = spill(SpillBounds::default());
        spill.put(&group(&[("b", 3), ("b", 7), ("a", 5)])).expect("kept");
        spill.put(&group(&[("c", 1), ("b", 7)])).expect("kept");
        assert_eq!(spill.records(), 4);
        let bytes = spill.bytes.load(Relaxed);
        drop(spill);
        let spill = Spill::open(&dir.path().join("spill.redb"), SpillBounds::default()).expect("opens");
        assert_eq!((spill.records(), spill.bytes.load(Relaxed)), (4, bytes));
        let first = spill.oldest(2).expect("read");
        assert_eq!(shown(&first), [("c".into(), 1), ("b".into(), 3)]);
        spill.forget(&first).expect("forgotten");
        let mut newest = Vec::new();
        spill
            .newest(&mut |record| newest.push((record.source.as_str().to_owned(), record.stamp.ts)))
            .expect("read");
        assert_eq!(newest, [("a".to_owned(), 5), ("b".to_owned(), 7)]);
        let rest = spill.oldest(9).expect("read");
        assert_eq!(shown(&rest), [("a".into(), 5), ("b".into(), 7)]);
        spill.forget(&rest).expect("forgotten");
        assert!(spill.is_empty() && spill.bytes.load(Relaxed) == 0);
    }

    /// hashicorp/consul#9927, prometheus/alertmanager#1409: queues without a bound. What waits on the
    /// disk is bounded too, and of each source the newest is the last to be given up.
    #[test]
    fn past_its_bounds_only_the_newest_of_each_source_is_kept() {
        let bounds = SpillBounds { history_bytes: 2_000, max_bytes: 4_000 };
        let (_dir, spill) = spill(bounds);
        for ts in 1..=500 {
            spill.put(&group(&[("a", ts), ("b", ts)])).expect("kept");
            assert!(spill.bytes.load(Relaxed) <= 2_600);
        }
        let mut newest = Vec::new();
        spill.newest(&mut |record| newest.push(record.stamp.ts)).expect("read");
        assert_eq!(newest, [500, 500]);
        let many: Vec<(String, u64)> = (0..100).map(|n| (format!("s/{n}"), 1)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(source, ts)| (source.as_str(), *ts)).collect();
        let before = spill.records();
        assert!(matches!(spill.put(&group(&many)), Err(SpillError::Full)));
        assert_eq!(spill.records(), before);
    }

    #[test]
    fn a_source_that_was_collected_does_not_wait() {
        let (_dir, spill) = spill(SpillBounds::default());
        spill.put(&group(&[("a", 1), ("a", 2), ("b", 9)])).expect("kept");
        let (a, b) = (shared("a", 2), shared("b", 3));
        spill
            .put(&WriteGroup::of_removals(vec![(a.source.clone(), a.stamp), (b.source.clone(), b.stamp)]))
            .expect("kept");
        assert_eq!(shown(&spill.oldest(9).expect("read")), [("a".into(), 1), ("b".into(), 9)]);
    }
}
