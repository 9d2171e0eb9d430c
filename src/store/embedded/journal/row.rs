//! Rows of the journal's table: how changes are written into them, and read back from their places.
//!
//! Rows are small, because a record is read back with its whole row.

use std::sync::Arc;

use redb::{ReadableTable, Table};

use super::super::rows;
use crate::record::{Record, SharedRecord, Source, Stamp, wire};

/// Largest number of bytes in a row that has more than one change: with what redb adds, a row of this size fills
/// a page of 16 KiB.
const JOURNAL_ROW_BYTES_MAX: usize = 16 * 1024 - 64;
/// First byte of a change in a row, if the change is a record.
const RECORD: u8 = 1;
/// First byte of a change in a row, if the change is a removal.
const REMOVAL: u8 = 2;
/// Bytes before a change in a row: its first byte, and the length of the rest (4).
const CHANGE_HEAD_BYTES: usize = 5;

/// Bits of a place that hold the class of the change's size.
const CLASS_BITS: u32 = 4;
/// Bits of a place that hold the offset in the row.
const OFFSET_BITS: u32 = 16;
/// Largest number of bytes of a change in the lowest class of sizes. Each class is twice the one before.
const CLASS_BYTES: usize = 256;

const _: () = assert!(JOURNAL_ROW_BYTES_MAX < 1 << OFFSET_BITS);
const _: () = assert!(crate::limits::STREAM_FRAME_BYTES_MAX <= CLASS_BYTES << ((1 << CLASS_BITS) - 1));

/// Numbers of rows are below this. It is so large that no store has so many rows in its life.
pub(super) const ROW_NUMBERS: u64 = 1 << (u64::BITS - OFFSET_BITS - CLASS_BITS);

/// Place of a change in the journal's table: the number of the row, the offset in the row, and roughly the size.
/// The order of places is that in which the changes were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangePlace(u64);

impl ChangePlace {
    /// The place of a change of this many bytes.
    fn new(row: u64, offset: usize, bytes: usize) -> ChangePlace {
        debug_assert!(row < ROW_NUMBERS, "rows are fewer than their numbers");
        debug_assert!(offset < 1 << OFFSET_BITS, "a row is too long");
        let class =
            bytes.div_ceil(CLASS_BYTES).next_power_of_two().trailing_zeros().min((1 << CLASS_BITS) - 1);
        ChangePlace((row << OFFSET_BITS | offset as u64) << CLASS_BITS | u64::from(class))
    }

    fn row(self) -> u64 {
        self.0 >> (OFFSET_BITS + CLASS_BITS)
    }

    fn offset(self) -> usize {
        (self.0 >> CLASS_BITS) as usize & ((1 << OFFSET_BITS) - 1)
    }

    /// Upper bound of the bytes of the change: less than twice as many as it has, and at least 256.
    pub(super) fn bytes_max(self) -> usize {
        CLASS_BYTES << (self.0 & ((1 << CLASS_BITS) - 1))
    }
}

/// A change of a source, as the journal remembers it.
#[derive(Clone, Copy, Debug)]
pub(super) enum ChangeKind {
    /// Every record of the source with a stamp up to this one is removed.
    Removal(Stamp),
    /// A record with this stamp becomes the latest. Its content is at this place.
    Record(Stamp, ChangePlace),
}

/// A change that stands in a row.
#[derive(Clone, Debug)]
pub(super) struct WrittenChange {
    pub(super) source: Source,
    pub(super) kind: ChangeKind,
    /// Number of bytes that the change takes in its row.
    pub(super) row_bytes: usize,
}

/// Writes changes into rows, one after the other.
pub(super) struct RowWriter<'a, 'table> {
    table: &'a mut Table<'table, u64, &'static [u8]>,
    number: u64,
    row: Vec<u8>,
    change: Vec<u8>,
    /// Bytes of the rows before the current one.
    full_bytes: usize,
}

impl<'a, 'table> RowWriter<'a, 'table> {
    /// Begins with the row of this number, which must be greater than those of all rows whose changes wait.
    pub(super) fn begin(
        table: &'a mut Table<'table, u64, &'static [u8]>,
        number: u64,
    ) -> RowWriter<'a, 'table> {
        let row = Vec::with_capacity(JOURNAL_ROW_BYTES_MAX);
        RowWriter { table, number, row, change: Vec::new(), full_bytes: 0 }
    }

    /// Writes a record that becomes the latest of its source.
    pub(super) fn push_record(&mut self, record: &Record) -> Result<WrittenChange, redb::Error> {
        self.change.clear();
        wire::write(&mut self.change, record);
        let (place, row_bytes) = self.push(RECORD)?;
        let kind = ChangeKind::Record(record.stamp, place);
        Ok(WrittenChange { source: record.source.clone(), kind, row_bytes })
    }

    /// Writes that all records of the source up to this stamp are removed.
    pub(super) fn push_removal(
        &mut self,
        source: &Source,
        stamp: Stamp,
    ) -> Result<WrittenChange, redb::Error> {
        self.change.clear();
        rows::write_stamp(&mut self.change, stamp);
        self.change.extend_from_slice(source.as_str().as_bytes());
        let (_, row_bytes) = self.push(REMOVAL)?;
        Ok(WrittenChange { source: source.clone(), kind: ChangeKind::Removal(stamp), row_bytes })
    }

    fn push(&mut self, kind: u8) -> Result<(ChangePlace, usize), redb::Error> {
        let bytes = CHANGE_HEAD_BYTES + self.change.len();
        if self.row.len() + bytes > JOURNAL_ROW_BYTES_MAX {
            self.end_row()?;
        }
        let place = ChangePlace::new(self.number, self.row.len(), bytes);
        self.row.push(kind);
        self.row.extend_from_slice(&(self.change.len() as u32).to_le_bytes());
        self.row.extend_from_slice(&self.change);
        Ok((place, bytes))
    }

    fn end_row(&mut self) -> Result<(), redb::Error> {
        if !self.row.is_empty() {
            self.table.insert(self.number, self.row.as_slice())?;
            self.number += 1;
            self.full_bytes += self.row.len();
            self.row.clear();
        }
        Ok(())
    }

    /// Ends the last row. Returns the number of the row that comes next, and the bytes of all rows.
    pub(super) fn end(mut self) -> Result<(u64, usize), redb::Error> {
        self.end_row()?;
        Ok((self.number, self.full_bytes))
    }
}

/// Reads the records at these places, in the order of the places. `None` stands for a record that is damaged,
/// which is logged. Every row is read once.
pub(super) fn read_records(
    table: &impl ReadableTable<u64, &'static [u8]>,
    places: &[ChangePlace],
) -> Result<Vec<Option<SharedRecord>>, redb::Error> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_unstable_by_key(|&at| places[at]);
    let mut records = vec![None; places.len()];
    let mut current = None;
    for at in order {
        let place = places[at];
        let row = match current.take() {
            Some((number, row)) if number == place.row() => row,
            _ => table.get(place.row())?,
        };
        records[at] = row.as_ref().and_then(|row| record_at(row.value(), place.offset()));
        if records[at].is_none() {
            tracing::error!(?place, "a change in the journal is damaged; skipped");
        }
        current = Some((place.row(), row));
    }
    Ok(records)
}

fn record_at(row: &[u8], offset: usize) -> Option<SharedRecord> {
    match split(row.get(offset..)?)? {
        (RECORD, change, _) => wire::decode(change).ok().map(Arc::new),
        _ => None,
    }
}

/// Decodes the changes of a row. A damaged one is logged and skipped.
pub(super) fn decode_row(number: u64, row: &[u8], mut each: impl FnMut(WrittenChange)) {
    let mut rest = row;
    while !rest.is_empty() {
        let offset = row.len() - rest.len();
        let Some((kind, change, after)) = split(rest).filter(|_| offset < 1 << OFFSET_BITS) else {
            tracing::error!(number, "a row of the journal is damaged; its rest is skipped");
            return;
        };
        let row_bytes = rest.len() - after.len();
        let place = || ChangePlace::new(number, offset, row_bytes);
        match decode_change(kind, change, place) {
            Some((source, kind)) => each(WrittenChange { source, kind, row_bytes }),
            None => tracing::error!(number, "a change in the journal is damaged; skipped"),
        }
        rest = after;
    }
}

fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (change, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((kind, change, rest))
}

fn decode_change(kind: u8, change: &[u8], place: impl Fn() -> ChangePlace) -> Option<(Source, ChangeKind)> {
    match kind {
        RECORD => {
            let record = wire::decode(change).ok()?;
            Some((record.source, ChangeKind::Record(record.stamp, place())))
        }
        REMOVAL => {
            let (stamp, name) = change.split_at_checked(rows::STAMP_BYTES)?;
            let source = Source::parse(std::str::from_utf8(name).ok()?).ok()?;
            Some((source, ChangeKind::Removal(rows::read_stamp(stamp)?)))
        }
        _ => None,
    }
}
