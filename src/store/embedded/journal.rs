//! Changes that are durable and not yet in the tables of records.
//!
//! A record that goes into the tables costs two pages, wherever in the file they come to lie, and a
//! disk takes scattered pages tens of times slower than as many bytes in one piece. So a group of
//! some size is written into a third table in one piece, the journal, and is durable with it. Every
//! commit moves a share of what waits in the journal to its place, in order of name, round and round:
//! the more has gathered since the last round, the more records of a source share a page. The share
//! grows with what waits, until a commit moves as much as it adds.
//!
//! The journal is a table of the same file, changed in the same transactions: a record is in it or in its
//! tables, and recovery is left to redb alone. Changes that an earlier run of the node left there go on
//! waiting; moving one twice has the effect of moving it once, as all writes compare stamps.
//!
//! Only the places of the waiting records are in memory (`index`). A commit that moves records, and readers,
//! read them from their rows (`row`), which the page cache of the system holds. The changes of a group are
//! written in order of name, so that the records that are moved together share rows.
//!
//! A row is removed one commit after the last of its records was moved. So whatever the index names is in the
//! file before that commit and after it, and a reader who looks at the index and the file at once finds it.
//!
//! Rejected: a log beside the file, with a recovery of its own; moving all that has gathered at once,
//! which makes one group of many wait for a second; the waiting records in memory, which took 130 MB and left
//! as much unused when they were moved.

mod index;
mod row;

use std::collections::VecDeque;

use redb::{ReadableTable, Table};

use self::index::{JournalIndex, WaitingSource};
use self::row::{ChangePlace, ROW_NUMBERS, RowWriter, WrittenChange, decode_row, read_records};
use crate::record::{SharedRecord, Source, Stamp};
use crate::store::open::JOURNAL_BYTES;
use crate::store::queue::WriteGroup;

/// Number of bytes of records that are read from the journal at a time.
const READ_BYTES: usize = 1024 * 1024;
/// The index may take one byte of memory for this many that wait in the file.
const WAITING_BYTES_A_INDEX_BYTE: usize = 8;

/// Bounds that decide when the journal is used, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalBounds {
    /// Groups of fewer records go right into the tables, if nothing waits.
    pub(super) group_records_min: usize,
    /// Bytes of the file that the journal's rows take when the load is high, at most twice this and a group.
    /// More: fewer pages written a record, a larger file, a longer start after a kill.
    pub(super) waiting_bytes: usize,
    /// Memory that the index of the rows takes when the load is high, at most twice this and that of a group.
    pub(super) index_bytes: usize,
    /// Bytes that a commit moves if it has nothing else to do.
    pub(super) idle_bytes: usize,
    /// Most sources that a commit moves while at most `waiting_bytes` wait: each is a scattered page or
    /// two, so this many take some milliseconds.
    pub(super) sources_max: usize,
}

impl JournalBounds {
    /// The bounds of a journal of which this many bytes wait when the load is high.
    pub(super) fn of(waiting_bytes: usize) -> JournalBounds {
        JournalBounds {
            group_records_min: 64,
            waiting_bytes,
            index_bytes: waiting_bytes / WAITING_BYTES_A_INDEX_BYTE,
            idle_bytes: 256 * 1024,
            sources_max: 96,
        }
    }
}

impl Default for JournalBounds {
    fn default() -> JournalBounds {
        JournalBounds::of(JOURNAL_BYTES)
    }
}

/// The rule by which a commit decides how much of what waits it moves.
#[derive(Clone, Copy, Debug)]
pub(super) enum MoveRule {
    /// Everything that waits.
    All,
    /// A share that grows with what waits.
    ByLoad(JournalBounds),
}

/// The share of the waiting changes that a commit moves: it moves sources until either number is reached.
#[derive(Clone, Copy, Debug)]
struct MoveShare {
    bytes: usize,
    sources: usize,
}

/// The position up to which changes were moved: the number of rounds done, and the last source moved in this
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct MovePosition {
    rounds: u64,
    source: Option<Source>,
}

/// Rows that were written by one commit. A round after `position` all of their changes are moved.
#[derive(Debug)]
struct WrittenRows {
    /// Number of the row that comes after them.
    end: u64,
    bytes: usize,
    /// The position up to which changes had been moved when the rows were written.
    position: MovePosition,
}

/// The effect of a transaction on the journal, to be noted once it is committed.
pub(super) struct JournalStep {
    added: Vec<WrittenChange>,
    added_bytes: usize,
    next_row: u64,
    position: MovePosition,
    moved: Vec<Source>,
    /// Rows before this one were removed.
    first_row: u64,
}

/// Changes that wait in the journal.
#[derive(Debug)]
pub(super) struct Journal {
    waiting: JournalIndex,
    position: MovePosition,
    /// Rows that are in the table, the oldest first.
    written: VecDeque<WrittenRows>,
    /// Bytes of the rows that are in the table.
    row_bytes: usize,
    next_row: u64,
}

impl Journal {
    /// Reads the changes that an earlier run of the node left in the table. `history` records of each source are
    /// kept.
    pub(super) fn read(
        table: &impl ReadableTable<u64, &'static [u8]>,
        history: u32,
    ) -> Result<Journal, redb::Error> {
        let (mut waiting, mut row_bytes, mut next_row) = (JournalIndex::new(history as usize), 0, 0);
        for row in table.iter()? {
            let (number, row) = row?;
            // The last number has no successor, which the next row needs.
            if number.value() >= ROW_NUMBERS - 1 {
                tracing::error!(
                    number = number.value(),
                    "a row of the journal has no possible number; skipped"
                );
                continue;
            }
            decode_row(number.value(), row.value(), |change| waiting.add(change));
            row_bytes += row.value().len();
            next_row = number.value() + 1;
        }
        let position = MovePosition::default();
        let mut written = VecDeque::new();
        if row_bytes > 0 {
            written.push_back(WrittenRows { end: next_row, bytes: row_bytes, position: position.clone() });
        }
        Ok(Journal { waiting, position, written, row_bytes, next_row })
    }

    /// Returns whether nothing waits, and no row is left to be removed.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.written.is_empty()
    }

    /// Bytes that the rows in the table take.
    #[cfg(test)]
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Memory that the index of the rows takes, in bytes.
    #[cfg(test)]
    pub(super) fn index_bytes(&self) -> usize {
        self.waiting.bytes()
    }

    /// Sums up what waits of a source: the stamp up to which records in the tables do not count any more,
    /// if there is one, and the places of the records that wait, the oldest first.
    pub(super) fn of_source(&self, source: &str) -> WaitingPlaces {
        let waiting = self.waiting.get(source);
        WaitingPlaces {
            removed: waiting.and_then(WaitingSource::removed),
            places: waiting.map_or_else(Vec::new, |waiting| waiting.places().iter().copied().collect()),
        }
    }

    /// Sums up what waits of every source like [`Journal::of_source`], but with the newest record alone.
    pub(super) fn newest(&self) -> NewestWaiting {
        let newest = |(source, waiting): (&Source, &WaitingSource)| {
            (source.clone(), waiting.removed(), waiting.places().back().copied())
        };
        let rest: Vec<_> = self.waiting.iter().map(newest).collect();
        NewestWaiting { rest: rest.into_iter(), read: VecDeque::new() }
    }

    /// Returns the share of the waiting changes that a commit is to move that adds this many bytes. If
    /// `waiting_bytes` wait it moves as many bytes as it adds, if twice that wait, twice as many; and until
    /// `waiting_bytes` are passed it moves few sources. So changes that came in a flood, after the disk stood
    /// still, are first made durable and moved later.
    fn share(&self, rule: MoveRule, added_bytes: usize) -> MoveShare {
        let bounds = match rule {
            MoveRule::All => return MoveShare { bytes: usize::MAX, sources: usize::MAX },
            MoveRule::ByLoad(bounds) => bounds,
        };
        if added_bytes == 0 {
            return MoveShare { bytes: bounds.idle_bytes, sources: bounds.sources_max };
        }
        let part =
            |of: usize, some: usize, all: usize| (of as u64 * some as u64 / all.max(1) as u64) as usize;
        // Memory counts as the bytes of the file for which it would be just enough.
        let by_index = part(bounds.waiting_bytes, self.waiting.bytes(), bounds.index_bytes);
        let waiting_bytes = self.row_bytes.max(by_index);
        let over = waiting_bytes.saturating_sub(bounds.waiting_bytes);
        let sources = match over < bounds.waiting_bytes {
            true => bounds.sources_max + part(self.waiting.len(), over, bounds.waiting_bytes),
            false => usize::MAX,
        };
        MoveShare { bytes: part(added_bytes, waiting_bytes, bounds.waiting_bytes), sources }
    }

    /// Writes a group into the table, and shows `each` a share of what is next to be moved into the tables
    /// of records: if there is a stamp, everything of the source up to it is removed first; then the
    /// records are the latest, one after the other.
    pub(super) fn write(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        group: &WriteGroup,
        rule: MoveRule,
        each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<JournalStep, redb::Error> {
        let mut rows = RowWriter::begin(table, self.next_row);
        let mut added = Vec::with_capacity(group.records());
        group.each_source(|source, removed, records| {
            if let Some(stamp) = removed {
                added.push(rows.push_removal(source, stamp)?);
            }
            for record in records {
                added.push(rows.push_record(record)?);
            }
            Ok::<(), redb::Error>(())
        })?;
        let (next_row, added_bytes) = rows.end()?;
        let share = self.share(rule, added_bytes);
        let (position, moved) = self.show(table, share, each)?;
        // What this transaction moves is not removed yet, because the index names it until the commit is known.
        let first_row = self.moved_rows().last().map_or(0, |rows| rows.end);
        if first_row > 0 {
            table.retain_in::<u64, _>(..first_row, |_, _| false)?;
        }
        Ok(JournalStep { added, added_bytes, next_row, position, moved, first_row })
    }

    /// Rows of which all changes are moved.
    fn moved_rows(&self) -> impl Iterator<Item = &WrittenRows> {
        let is_moved =
            |rows: &&WrittenRows| self.waiting.is_empty() || is_round_later(&self.position, &rows.position);
        self.written.iter().take_while(is_moved)
    }

    /// Shows whole sources until the share is reached. Returns where that was, and the sources shown.
    fn show(
        &self,
        table: &impl ReadableTable<u64, &'static [u8]>,
        share: MoveShare,
        mut each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<(MovePosition, Vec<Source>), redb::Error> {
        let (mut position, mut moved, mut shown_bytes) = (self.position.clone(), Vec::new(), 0);
        let mut batch = MoveBatch::default();
        for (is_past_end, source, waiting) in self.waiting.round_after(self.position.source.as_ref()) {
            if shown_bytes >= share.bytes || moved.len() >= share.sources {
                break;
            }
            batch.begin_source(source, waiting.removed());
            for &place in waiting.places() {
                if batch.bytes >= READ_BYTES {
                    batch.show(table, &mut each)?;
                    batch.begin_source(source, None);
                }
                batch.push(place);
            }
            shown_bytes += waiting.row_bytes();
            moved.push(source.clone());
            let rounds = self.position.rounds + u64::from(is_past_end);
            position = MovePosition { rounds, source: Some(source.clone()) };
        }
        batch.show(table, &mut each)?;
        Ok((position, moved))
    }

    /// Notes that the transaction that took this step is committed.
    pub(super) fn handle_committed(&mut self, step: JournalStep) {
        debug_assert!(step.next_row >= self.next_row, "the numbers of rows never fall");
        while let Some(rows) = self.written.pop_front_if(|rows| rows.end <= step.first_row) {
            self.row_bytes -= rows.bytes;
        }
        step.moved.iter().for_each(|source| self.waiting.remove(source));
        self.position = step.position;
        if step.added_bytes > 0 {
            let (end, bytes) = (step.next_row, step.added_bytes);
            self.written.push_back(WrittenRows { end, bytes, position: self.position.clone() });
            self.row_bytes += bytes;
            self.next_row = end;
        }
        step.added.into_iter().for_each(|change| self.waiting.add(change));
        debug_assert_eq!(self.written.is_empty(), self.row_bytes == 0, "bytes are those of the rows");
    }
}

/// Returns whether everything that was written at the position `before` has been moved by now.
fn is_round_later(now: &MovePosition, before: &MovePosition) -> bool {
    (now.rounds, &now.source) >= (before.rounds + 1, &before.source)
}

/// Changes of some sources that are read and moved together.
#[derive(Default)]
struct MoveBatch<'a> {
    /// Sources, each with the stamp up to which its records are removed, and the end of its places.
    sources: Vec<(&'a Source, Option<Stamp>, usize)>,
    places: Vec<ChangePlace>,
    /// Upper bound of the bytes of the records at these places.
    bytes: usize,
}

impl<'a> MoveBatch<'a> {
    fn begin_source(&mut self, source: &'a Source, removed: Option<Stamp>) {
        self.sources.push((source, removed, self.places.len()));
    }

    fn push(&mut self, place: ChangePlace) {
        self.places.push(place);
        self.bytes += place.bytes_max();
        if let Some((_, _, end)) = self.sources.last_mut() {
            *end = self.places.len();
        }
    }

    /// Reads the records, shows them source by source, and forgets them.
    fn show(
        &mut self,
        table: &impl ReadableTable<u64, &'static [u8]>,
        each: &mut impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let records = read_records(table, &self.places)?;
        let (mut begin, mut of_source) = (0, Vec::new());
        for &(source, removed, end) in &self.sources {
            of_source.clear();
            of_source.extend(records.get(begin..end).into_iter().flatten().flatten());
            each(source.as_str(), removed, &of_source)?;
            begin = end;
        }
        self.sources.clear();
        self.places.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// The records and the removal of one source that wait in the journal to be moved to their places.
pub(super) struct WaitingPlaces {
    /// Stamp up to which records in the tables do not count any more, if there is one.
    pub(super) removed: Option<Stamp>,
    places: Vec<ChangePlace>,
}

impl WaitingPlaces {
    /// Reads the records that wait, the oldest first.
    pub(super) fn read(
        &self,
        table: &impl ReadableTable<u64, &'static [u8]>,
    ) -> Result<Vec<SharedRecord>, redb::Error> {
        Ok(read_records(table, &self.places)?.into_iter().flatten().collect())
    }
}

/// The newest of what waits of a source, as [`NewestWaiting`] reads it.
pub(super) struct NewestOfSource {
    pub(super) source: Source,
    /// Stamp up to which records in the tables do not count any more, if there is one.
    pub(super) removed: Option<Stamp>,
    pub(super) record: Option<SharedRecord>,
}

/// The newest of what waits of every source, in order of name. The records are read some at a time.
pub(super) struct NewestWaiting {
    rest: std::vec::IntoIter<(Source, Option<Stamp>, Option<ChangePlace>)>,
    read: VecDeque<NewestOfSource>,
}

impl NewestWaiting {
    /// Returns the next source if its name is wanted.
    pub(super) fn next_if(
        &mut self,
        table: &impl ReadableTable<u64, &'static [u8]>,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<NewestOfSource>, redb::Error> {
        if self.read.is_empty() {
            self.read_more(table)?;
        }
        Ok(self.read.pop_front_if(|newest| is_wanted(newest.source.as_str())))
    }

    fn read_more(&mut self, table: &impl ReadableTable<u64, &'static [u8]>) -> Result<(), redb::Error> {
        let (mut sources, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < READ_BYTES
            && let Some((source, removed, place)) = self.rest.next()
        {
            bytes += place.map_or(0, ChangePlace::bytes_max);
            places.extend(place);
            sources.push((source, removed, place.is_some()));
        }
        let mut records = read_records(table, &places)?.into_iter();
        for (source, removed, has_record) in sources {
            let record = if has_record { records.next().flatten() } else { None };
            self.read.push_back(NewestOfSource { source, removed, record });
        }
        Ok(())
    }
}
