//! Changes that are durable and not yet in the tables of records.
//!
//! A record that goes into the tables costs two pages, wherever in the file they come to lie, and a
//! disk takes scattered pages tens of times slower than as many bytes in one piece. So a group of
//! some size is written into a third table in one piece, the journal, and is durable with it. Every
//! commit moves a share of what waits in the journal to its place, in order of name, round and round:
//! the more has gathered since the last round, the more records of a source share a page. The share
//! ([`MoveShare`]) grows with what waits, until a commit moves as much as it adds.
//!
//! The journal is a table of the same file, changed in the same transactions: a record is in it or in its
//! tables, and recovery is left to redb alone. Changes that an earlier run of the node left there go on
//! waiting; moving one twice has the effect of moving it once, as all writes compare stamps. The waiting
//! changes are also in memory, for the commits that move them and for readers.
//!
//! Rejected: a log beside the file, with a recovery of its own; moving all that has gathered at once,
//! which makes one group of many wait for a second.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use redb::{ReadableTable, Table};

use super::rows;
use crate::record::{SharedRecord, Source, Stamp, wire};
use crate::store::open::JOURNAL_BYTES;
use crate::store::queue::{CHANGE_BYTES, WriteGroup};

/// Largest number of bytes in a row: with what redb adds, a row of this size fills a page of 64 KiB.
const JOURNAL_ROW_BYTES_MAX: usize = 64 * 1024 - 64;
/// First byte of a change in a row, if the change is a record.
const RECORD: u8 = 1;
/// First byte of a change in a row, if the change is a removal.
const REMOVAL: u8 = 2;
/// Bytes before a change in a row: its first byte, and the length of the rest (4).
const CHANGE_HEAD_BYTES: usize = 5;

/// Bounds that decide when the journal is used, and how much it holds. Bytes are those that records take in
/// memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalBounds {
    /// Groups of fewer records go right into the tables, if nothing waits.
    pub(super) group_records_min: usize,
    /// Bytes that wait when the load is high. More: fewer pages written a record, more memory (at most
    /// twice this and a group), a longer start after a kill.
    pub(super) waiting_bytes: usize,
    /// Bytes that a commit moves if it has nothing else to do.
    pub(super) idle_bytes: usize,
    /// Most sources that a commit moves while at most `waiting_bytes` wait: each is a scattered page or
    /// two, so this many take some milliseconds.
    pub(super) sources_max: usize,
}

impl Default for JournalBounds {
    fn default() -> JournalBounds {
        JournalBounds {
            group_records_min: 64,
            waiting_bytes: JOURNAL_BYTES,
            idle_bytes: 256 * 1024,
            sources_max: 96,
        }
    }
}

/// The share of the waiting changes that a commit moves: it moves sources until either number is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoveShare {
    bytes: usize,
    sources: usize,
}

impl MoveShare {
    /// Everything that waits.
    pub(super) const ALL: MoveShare = MoveShare { bytes: usize::MAX, sources: usize::MAX };
}

/// One change of a source.
#[derive(Clone)]
enum JournalEntry {
    /// Every record of the source with a stamp up to this one is removed.
    Removal(Stamp),
    Record(SharedRecord),
}

impl JournalEntry {
    fn cost_bytes(&self) -> usize {
        match self {
            JournalEntry::Removal(_) => CHANGE_BYTES,
            JournalEntry::Record(record) => CHANGE_BYTES + record.cost_bytes(),
        }
    }
}

/// The position up to which changes were moved: the number of rounds done, and the last source moved in this
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct MovePosition {
    rounds: u64,
    source: Option<Source>,
}

/// The effect of a transaction on the journal, to be noted once it is committed.
pub(super) struct JournalStep {
    next_row: u64,
    position: MovePosition,
    moved: Vec<Source>,
}

/// Changes that wait in the journal.
#[derive(Default)]
pub(super) struct Journal {
    /// Changes of each source, the oldest first.
    waiting: BTreeMap<Source, Vec<JournalEntry>>,
    bytes: usize,
    position: MovePosition,
    /// Numbers of rows, each with the position at which all rows before it were written: a round later
    /// all of them are moved.
    written: VecDeque<(u64, MovePosition)>,
    next_row: u64,
}

impl Journal {
    /// Reads the changes that an earlier run of the node left in the table.
    pub(super) fn read(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Journal, redb::Error> {
        let mut journal = Journal::default();
        for row in table.iter()? {
            let (number, row) = row?;
            decode(number.value(), row.value(), |source, entry| journal.add(source, entry));
            journal.next_row = number.value() + 1;
        }
        journal.written.push_back((journal.next_row, MovePosition::default()));
        Ok(journal)
    }

    /// Returns whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Memory that the waiting changes take, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, source: &Source, entry: JournalEntry) {
        self.bytes += entry.cost_bytes();
        match self.waiting.get_mut(source) {
            Some(entries) => entries.push(entry),
            None => drop(self.waiting.insert(source.clone(), vec![entry])),
        }
    }

    /// Sums up what waits of a source: the stamp up to which records in the tables do not count any more,
    /// if there is one, and the records that wait, the oldest first.
    pub(super) fn of_source(&self, source: &str) -> (Option<Stamp>, Vec<SharedRecord>) {
        self.waiting.get(source).map_or_else(Default::default, |entries| sum_of(entries))
    }

    /// Sums up what waits of every source like [`Journal::of_source`], but with the newest record alone.
    pub(super) fn newest(&self) -> BTreeMap<Source, (Option<Stamp>, Option<SharedRecord>)> {
        let newest = |entries: &Vec<JournalEntry>| {
            let (removed, mut records) = sum_of(entries);
            (removed, records.pop())
        };
        self.waiting.iter().map(|(source, entries)| (source.clone(), newest(entries))).collect()
    }

    /// Returns the share of the waiting changes that a commit of this group is to move. If `waiting_bytes`
    /// wait it moves as many bytes as it adds, if twice that wait, twice as many; and until `waiting_bytes`
    /// are passed it moves few sources. So changes that came in a flood, after the disk stood still, are
    /// first made durable and moved later.
    pub(super) fn share(&self, group: &WriteGroup, bounds: JournalBounds) -> MoveShare {
        if group.is_empty() {
            return MoveShare { bytes: bounds.idle_bytes, sources: bounds.sources_max };
        }
        let wanted = bounds.waiting_bytes.max(1) as u64;
        let part = |of: usize, over: usize| (of as u64 * over as u64 / wanted) as usize;
        let over = self.bytes.saturating_sub(bounds.waiting_bytes);
        let sources = match over < bounds.waiting_bytes {
            true => bounds.sources_max + part(self.waiting.len(), over),
            false => usize::MAX,
        };
        MoveShare { bytes: part(group.bytes(), self.bytes), sources }
    }

    /// Writes a group into the table, and shows `each` a share of what is next to be moved into the tables
    /// of records: if there is a stamp, everything of the source up to it is removed first; then the
    /// records are the latest, one after the other.
    pub(super) fn write(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        group: &WriteGroup,
        share: MoveShare,
        each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<JournalStep, redb::Error> {
        let mut next_row = self.next_row;
        for row in encode(group) {
            table.insert(next_row, row.as_slice())?;
            next_row += 1;
        }
        let (position, moved) = self.show(share, each)?;
        let is_moved = |written: &&(u64, MovePosition)| {
            moved.len() == self.waiting.len() || is_round_later(&position, &written.1)
        };
        if let Some((end, _)) = self.written.iter().take_while(is_moved).last() {
            table.retain_in::<u64, _>(..end, |_, _| false)?;
        }
        Ok(JournalStep { next_row, position, moved })
    }

    /// Shows whole sources until the share is reached. Returns where that was, and the sources shown.
    fn show(
        &self,
        share: MoveShare,
        mut each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<(MovePosition, Vec<Source>), redb::Error> {
        let (mut position, mut moved, mut shown) = (self.position.clone(), Vec::new(), 0);
        let mut records = Vec::new();
        let (after, upto) = match &self.position.source {
            Some(source) => (Excluded(source), Included(source)),
            None => (Unbounded, Unbounded),
        };
        let round = self.waiting.range::<Source, _>((after, Unbounded)).map(|entry| (0, entry));
        let next = self.waiting.range::<Source, _>((Unbounded, upto)).map(|entry| (1, entry));
        for (more, (source, entries)) in round.chain(next.filter(|_| self.position.source.is_some())) {
            if shown >= share.bytes || moved.len() >= share.sources {
                break;
            }
            show_source(source, entries, &mut records, &mut each)?;
            shown += entries.iter().map(JournalEntry::cost_bytes).sum::<usize>();
            moved.push(source.clone());
            position = MovePosition { rounds: self.position.rounds + more, source: Some(source.clone()) };
        }
        Ok((position, moved))
    }

    /// Notes that the transaction that took this step and wrote this group is committed.
    pub(super) fn handle_committed(&mut self, step: JournalStep, group: &WriteGroup) {
        for source in &step.moved {
            let entries = self.waiting.remove(source).unwrap_or_default();
            self.bytes -= entries.iter().map(JournalEntry::cost_bytes).sum::<usize>();
        }
        debug_assert!(step.next_row >= self.next_row, "the numbers of rows never fall");
        debug_assert_eq!(self.waiting.is_empty(), self.bytes == 0, "bytes are those of what waits");
        self.position = step.position;
        while let Some((_, written)) = self.written.front()
            && (self.waiting.is_empty() || is_round_later(&self.position, written))
        {
            self.written.pop_front();
        }
        if step.next_row > self.next_row {
            self.next_row = step.next_row;
            self.written.push_back((step.next_row, self.position.clone()));
            each_entry(group, |source, entry| self.add(source, entry));
        }
    }
}

/// Sums up the changes of one source: the greatest stamp of a removal, if there is one, and the records
/// that come after all removals.
fn sum_of(entries: &[JournalEntry]) -> (Option<Stamp>, Vec<SharedRecord>) {
    let (mut removed, mut records) = (None, Vec::<SharedRecord>::new());
    for entry in entries {
        match entry {
            // A removal removes all of a source or, if a newer record came before it, nothing.
            JournalEntry::Removal(stamp) if records.iter().any(|record| record.stamp > *stamp) => {}
            JournalEntry::Removal(stamp) => {
                removed = removed.max(Some(*stamp));
                records.clear();
            }
            JournalEntry::Record(record) if records.last().is_some_and(|last| record.stamp <= last.stamp) => {
            }
            JournalEntry::Record(record) => records.push(record.clone()),
        }
    }
    (removed, records)
}

/// Returns whether everything that was written at the position `before` has been moved by now.
fn is_round_later(now: &MovePosition, before: &MovePosition) -> bool {
    (now.rounds, &now.source) >= (before.rounds + 1, &before.source)
}

/// Shows the changes of one source, cut before every removal but the first.
fn show_source<'a>(
    source: &Source,
    entries: &'a [JournalEntry],
    records: &mut Vec<&'a SharedRecord>,
    each: &mut impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut removed = None;
    records.clear();
    for entry in entries {
        match entry {
            JournalEntry::Record(record) => records.push(record),
            JournalEntry::Removal(stamp) => {
                // A record that came before may be newer than the removal's stamp.
                if removed.is_some() || !records.is_empty() {
                    each(source.as_str(), removed, records)?;
                    records.clear();
                }
                removed = Some(*stamp);
            }
        }
    }
    each(source.as_str(), removed, records)
}

/// Shows the changes of a group; those of one source come in their order.
fn each_entry(group: &WriteGroup, mut each: impl FnMut(&Source, JournalEntry)) {
    let mut records = Vec::new();
    for log in group.logs() {
        for (source, newest) in log.newest_of_each() {
            if let Some(stamp) = log.chain(newest, &mut records) {
                each(source, JournalEntry::Removal(stamp));
            }
            for &record in &records {
                each(source, JournalEntry::Record(record.clone()));
            }
        }
    }
}

/// Encodes a group as rows of the table.
fn encode(group: &WriteGroup) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let mut change = Vec::new();
    each_entry(group, |source, entry| {
        change.clear();
        let kind = match entry {
            JournalEntry::Record(record) => {
                wire::write(&mut change, &record);
                RECORD
            }
            JournalEntry::Removal(stamp) => {
                rows::write_stamp(&mut change, stamp);
                change.extend_from_slice(source.as_str().as_bytes());
                REMOVAL
            }
        };
        let fits = |row: &&mut Vec<u8>| row.len() + CHANGE_HEAD_BYTES + change.len() <= JOURNAL_ROW_BYTES_MAX;
        let row = match rows.last_mut().filter(fits) {
            Some(row) => row,
            None => {
                rows.push(Vec::with_capacity(JOURNAL_ROW_BYTES_MAX));
                let last = rows.len() - 1;
                &mut rows[last]
            }
        };
        row.push(kind);
        row.extend_from_slice(&(change.len() as u32).to_le_bytes());
        row.extend_from_slice(&change);
    });
    rows
}

/// Decodes the changes of a row. A damaged one is logged and skipped.
fn decode(number: u64, row: &[u8], mut each: impl FnMut(&Source, JournalEntry)) {
    let mut rest = row;
    while !rest.is_empty() {
        let Some((kind, change, after)) = split(rest) else {
            tracing::error!(number, "a row of the journal is damaged; its rest is skipped");
            return;
        };
        rest = after;
        match decode_entry(kind, change) {
            Some((source, entry)) => each(&source, entry),
            None => tracing::error!(number, "a change in the journal is damaged; skipped"),
        }
    }
}

fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (change, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((kind, change, rest))
}

fn decode_entry(kind: u8, change: &[u8]) -> Option<(Source, JournalEntry)> {
    match kind {
        RECORD => {
            let record = Arc::new(wire::decode(change).ok()?);
            Some((record.source.clone(), JournalEntry::Record(record)))
        }
        REMOVAL => {
            let (stamp, name) = change.split_at_checked(rows::STAMP_BYTES)?;
            let source = Source::parse(std::str::from_utf8(name).ok()?).ok()?;
            Some((source, JournalEntry::Removal(rows::read_stamp(stamp)?)))
        }
        _ => None,
    }
}
