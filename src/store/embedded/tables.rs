//! Records in the tables: how the changes of a source are written, and how a page of its history is read.

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::rows::{LatestRow, history_bounds, history_key, stamp_of_history_key};
use super::schema::{HISTORY, LATEST};
use crate::record::{HistoryQuery, Record, SharedRecord, Stamp, wire};
use crate::store::queue::ascending;

/// The two tables of records, opened in a transaction that writes.
pub(super) struct RecordTables<'a> {
    latest: Table<'a, &'static str, &'static [u8]>,
    history: Table<'a, &'static [u8], &'static [u8]>,
    /// Number of records kept of each source besides the latest.
    ring: u32,
}

impl<'a> RecordTables<'a> {
    /// Opens the tables; `history` records of each source are kept, the latest included.
    pub(super) fn open(
        transaction: &'a WriteTransaction,
        history: u32,
    ) -> Result<RecordTables<'a>, redb::Error> {
        Ok(RecordTables {
            latest: transaction.open_table(LATEST)?,
            history: transaction.open_table(HISTORY)?,
            ring: history.saturating_sub(1),
        })
    }

    /// Writes the changes of one source: everything up to `removed`, if any, is removed; then each of the
    /// records becomes the latest, one after the other. Records that are older than the latest are skipped.
    pub(super) fn write_source(
        &mut self,
        source: &str,
        removed: Option<Stamp>,
        records: &[&SharedRecord],
    ) -> Result<(), redb::Error> {
        let (mut current, mut kept) = self.current(source, removed, records)?;
        if removed.is_some_and(|stamp| current.as_ref().is_none_or(|row| row.stamp <= stamp)) {
            self.latest.remove(source)?;
            let (from, to) = history_bounds(source);
            self.history.retain_in::<&[u8], _>(from.as_slice()..to.as_slice(), |_, _| false)?;
            (current, kept) = (None, 0);
        }
        let mut run = ascending(records);
        let newest_kept = current.as_ref().map(|row| row.stamp);
        run.retain(|record| newest_kept.is_none_or(|kept| record.stamp >= kept));
        let Some((newest, before)) = run.split_last() else { return Ok(()) };
        let replaced = newest_kept.is_some_and(|kept| run.first().is_some_and(|first| first.stamp == kept));
        let wire = wire::encode(newest);
        // A writer that catches up writes every record of the map, and most are in the table already.
        if replaced && before.is_empty() && current.as_ref().is_some_and(|row| *row.wire == *wire) {
            return Ok(());
        }
        // The record that was the latest so far moves into the history, unless the same record comes again;
        // all records of the group but the last follow it.
        let old = current.filter(|_| !replaced && before.len() < self.ring as usize);
        if let Some(row) = old {
            self.history.insert(history_key(source, row.stamp).as_slice(), &*row.wire)?;
            kept += 1;
        }
        for record in before.iter().skip(before.len().saturating_sub(self.ring as usize)) {
            let key = history_key(source, record.stamp);
            let known = self.history.insert(key.as_slice(), wire::encode(record).as_slice())?.is_some();
            kept += u32::from(!known);
        }
        kept = self.trim(source, kept)?;
        let row = LatestRow { stamp: newest.stamp, older: kept, wire: wire.into() };
        self.latest.insert(source, row.encode().as_slice())?;
        Ok(())
    }

    /// Returns the latest row of a source, and the number of records in its history. A row that would win over any of the
    /// changes is read to its end first: the stamp of a damaged one says nothing, so it is as if it were not there.
    fn current(
        &self,
        source: &str,
        removed: Option<Stamp>,
        records: &[&SharedRecord],
    ) -> Result<(Option<LatestRow<'static>>, u32), redb::Error> {
        let Some(bytes) = self.latest.get(source)? else { return Ok((None, 0)) };
        let mut stamps = records.iter().map(|record| record.stamp).chain(removed);
        let row = LatestRow::parse(bytes.value())
            .filter(|row| !stamps.any(|stamp| stamp < row.stamp) || record_of(source, row).is_some());
        if let Some(row) = row {
            let older = row.older;
            return Ok((Some(row.into_owned()), older));
        }
        let (from, to) = history_bounds(source);
        let kept = self.history.range::<&[u8]>(from.as_slice()..to.as_slice())?.count();
        Ok((None, u32::try_from(kept).unwrap_or(u32::MAX)))
    }

    /// Removes the oldest of the `kept` records in a source's history until they fit the ring. Returns
    /// how many are left.
    fn trim(&mut self, source: &str, mut kept: u32) -> Result<u32, redb::Error> {
        let (from, to) = history_bounds(source);
        while kept > self.ring {
            let first = match self.history.range::<&[u8]>(from.as_slice()..to.as_slice())?.next() {
                Some(row) => row?.0.value().to_vec(),
                None => return Ok(0),
            };
            self.history.remove(first.as_slice())?;
            kept -= 1;
        }
        Ok(kept)
    }
}

/// Reads a page of what is in the tables of a source whose latest row is `row`. The newest records,
/// those of `unwritten` among them, take the `history` places of the source; older ones are left out.
pub(super) fn read_history(
    transaction: &ReadTransaction,
    query: &HistoryQuery,
    unwritten: &[Stamp],
    row: &LatestRow<'_>,
    history: u32,
) -> Result<Vec<Record>, redb::Error> {
    let mut records = Vec::new();
    let newer = unwritten.iter().filter(|&&stamp| stamp > row.stamp).count() as u64;
    let hidden = (newer + 1 + u64::from(row.older)).saturating_sub(u64::from(history));
    if query.selects(row.stamp) && hidden <= u64::from(row.older) {
        records.extend(wire::decode(&row.wire).ok());
    }
    let table = transaction.open_table(HISTORY)?;
    let source = query.source.as_str();
    let (from, to) = history_bounds(source);
    let oldest = match table.range::<&[u8]>(from.as_slice()..to.as_slice())?.nth(hidden as usize) {
        Some(row) => row?.0.value().to_vec(),
        None => return Ok(records),
    };
    let first_at = |ts| history_key(source, Stamp { ts, deleted: false, hash: 0 });
    let least = first_at(query.from_us).max(oldest);
    let end = match query.after {
        Some(after) if after.0.ts <= query.to_us => history_key(source, after.0),
        _ => first_at(query.to_us.saturating_add(1)),
    };
    if least >= end {
        return Ok(records);
    }
    for row in table.range::<&[u8]>(least.as_slice()..end.as_slice())?.rev() {
        if records.len() >= query.limit {
            break;
        }
        let (key, row) = row?;
        match wire::decode(row.value()) {
            Ok(record) => records.push(record),
            Err(error) => {
                let ts = stamp_of_history_key(key.value()).map(|stamp| stamp.ts);
                tracing::error!(source, ?ts, %error, "stored history is damaged; skipped");
            }
        }
    }
    Ok(records)
}

/// Decodes a row of the latest table; `None` if its bytes are damaged.
pub(super) fn decode_latest(source: &str, row: &[u8]) -> Option<Record> {
    record_of(source, &LatestRow::parse(row)?)
}

/// The record in a row of a source; `None` if it is damaged, or not the one that the row says.
pub(super) fn record_of(source: &str, row: &LatestRow<'_>) -> Option<Record> {
    let record = wire::decode(&row.wire).ok()?;
    (record.source.as_str() == source && record.stamp == row.stamp).then_some(record)
}
