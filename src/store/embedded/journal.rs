//! What is durable and not yet in its tables.
//!
//! A record that goes into the tables costs two pages, wherever in the file they come to lie, and a
//! disk takes scattered pages tens of times slower than as many bytes in one piece. So a group of
//! some size is written into a third table in one piece, the journal, and is durable with it. Every
//! commit moves a share of what waits in the journal to its place, in order of name, round and round:
//! the more has gathered since the last round, the more records of a source share a page. The share
//! ([`Share`]) grows with what waits, until a commit moves as much as it adds.
//!
//! The journal is a table of the same file, changed in the same transactions: a record is in it or
//! in its tables, and recovery is redb's and nobody else's. What an earlier life left there waits on;
//! moving twice is moving once, as all writes compare stamps. What waits is also in memory, for
//! those who move it and for readers.
//!
//! Rejected: a log beside the file, with a recovery of its own; moving all that has gathered at once,
//! which makes one group of many wait for a second.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition};

use super::rows;
use crate::record::{SharedRecord, Source, Stamp, wire};
use crate::store::log::{CHANGE_BYTES, Group};

/// Number of a row → changes ([`encode`]), in the order in which they were made.
pub(super) const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");

/// Bytes of a row: with what redb adds it fills a page of 64 KiB.
const ROW_BYTES: usize = 64 * 1024 - 64;
/// First byte of a change in a row.
const RECORD: u8 = 1;
const REMOVAL: u8 = 2;
/// That byte and the length of what follows.
const HEAD_BYTES: usize = 5;

/// When the journal is used, and how much it holds; bytes are those of the records in memory.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Bounds {
    /// Smaller groups go right into the tables, if nothing waits.
    pub(in crate::store) group_records_min: usize,
    /// What waits when the load is high. More: fewer pages written a record, more memory (at most
    /// twice this and a group), a longer start after a kill.
    pub(in crate::store) waiting_bytes: usize,
    /// Moved by a commit that has nothing else to do.
    pub(in crate::store) idle_bytes: usize,
    /// Most sources that a commit moves while no more waits than that: each is a scattered page or two,
    /// so this many are some milliseconds.
    pub(in crate::store) sources_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        let (waiting_bytes, idle_bytes) = (16 * 1024 * 1024, 256 * 1024);
        Bounds { group_records_min: 64, waiting_bytes, idle_bytes, sources_max: 96 }
    }
}

/// How much of what waits a commit moves: until either is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    bytes: usize,
    sources: usize,
}

impl Share {
    /// Everything.
    pub(super) const ALL: Share = Share { bytes: usize::MAX, sources: usize::MAX };
}

/// One change of a source.
#[derive(Clone)]
enum Link {
    /// Everything up to this stamp goes.
    Removal(Stamp),
    Record(SharedRecord),
}

impl Link {
    fn cost_bytes(&self) -> usize {
        match self {
            Link::Removal(_) => CHANGE_BYTES,
            Link::Record(record) => CHANGE_BYTES + record.cost_bytes(),
        }
    }
}

/// How far the moving has come: rounds done, and the last source moved in this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    rounds: u64,
    source: Option<Source>,
}

/// What a transaction did, to be known once it is committed.
pub(super) struct Step {
    next_row: u64,
    position: Position,
    moved: Vec<Source>,
}

/// What waits in the journal.
#[derive(Default)]
pub(super) struct Journal {
    /// By source, oldest first.
    waiting: BTreeMap<Source, Vec<Link>>,
    bytes: usize,
    position: Position,
    /// Rows before a number, and the position at which they were written: a round later all of
    /// them are moved.
    written: VecDeque<(u64, Position)>,
    next_row: u64,
}

impl Journal {
    /// Reads what an earlier life left.
    pub(super) fn read(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Journal, redb::Error> {
        let mut journal = Journal::default();
        for row in table.iter()? {
            let (number, row) = row?;
            decode(number.value(), row.value(), |source, link| journal.add(source, link));
            journal.next_row = number.value() + 1;
        }
        journal.written.push_back((journal.next_row, Position::default()));
        Ok(journal)
    }

    /// Everything is in its tables.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of what waits.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, source: &Source, link: Link) {
        self.bytes += link.cost_bytes();
        match self.waiting.get_mut(source) {
            Some(links) => links.push(link),
            None => drop(self.waiting.insert(source.clone(), vec![link])),
        }
    }

    /// What waits of a source, oldest first, and up to where what is in the tables goes before it.
    pub(super) fn of_source(&self, source: &str) -> (Option<Stamp>, Vec<SharedRecord>) {
        self.waiting.get(source).map_or_else(Default::default, |links| sum_of(links))
    }

    /// The same of all sources, but of the records the newest alone.
    pub(super) fn newest(&self) -> BTreeMap<Source, (Option<Stamp>, Option<SharedRecord>)> {
        let newest = |links: &Vec<Link>| {
            let (removed, mut records) = sum_of(links);
            (removed, records.pop())
        };
        self.waiting.iter().map(|(source, links)| (source.clone(), newest(links))).collect()
    }

    /// How much of what waits a commit of this group moves: at `waiting_bytes` as much as it adds, at
    /// twice that twice as much, and few sources until the former is passed. So what came in a
    /// flood, after the disk stood still, is first made durable and moved later.
    pub(super) fn share(&self, group: &Group, bounds: Bounds) -> Share {
        if group.is_empty() {
            return Share { bytes: bounds.idle_bytes, sources: bounds.sources_max };
        }
        let wanted = bounds.waiting_bytes.max(1) as u64;
        let part = |of: usize, over: usize| (of as u64 * over as u64 / wanted) as usize;
        let over = self.bytes.saturating_sub(bounds.waiting_bytes);
        let sources = match over < bounds.waiting_bytes {
            true => bounds.sources_max + part(self.waiting.len(), over),
            false => usize::MAX,
        };
        Share { bytes: part(group.bytes(), self.bytes), sources }
    }

    /// Writes a group into the table, and shows a share of what is next to be moved: everything of the
    /// source up to the stamp, if any, goes; then the records are the latest, one after the other.
    pub(super) fn write(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        group: &Group,
        share: Share,
        each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<Step, redb::Error> {
        let mut next_row = self.next_row;
        for row in encode(group) {
            table.insert(next_row, row.as_slice())?;
            next_row += 1;
        }
        let (position, moved) = self.show(share, each)?;
        let is_moved = |written: &&(u64, Position)| {
            moved.len() == self.waiting.len() || is_round_later(&position, &written.1)
        };
        if let Some((end, _)) = self.written.iter().take_while(is_moved).last() {
            table.retain_in::<u64, _>(..end, |_, _| false)?;
        }
        Ok(Step { next_row, position, moved })
    }

    /// Shows whole sources; gives where it stopped.
    fn show(
        &self,
        share: Share,
        mut each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
    ) -> Result<(Position, Vec<Source>), redb::Error> {
        let (mut position, mut moved, mut shown) = (self.position.clone(), Vec::new(), 0);
        let mut records = Vec::new();
        let (after, upto) = match &self.position.source {
            Some(source) => (Excluded(source), Included(source)),
            None => (Unbounded, Unbounded),
        };
        let round = self.waiting.range::<Source, _>((after, Unbounded)).map(|entry| (0, entry));
        let next = self.waiting.range::<Source, _>((Unbounded, upto)).map(|entry| (1, entry));
        for (more, (source, links)) in round.chain(next.filter(|_| self.position.source.is_some())) {
            if shown >= share.bytes || moved.len() >= share.sources {
                break;
            }
            show_source(source, links, &mut records, &mut each)?;
            shown += links.iter().map(Link::cost_bytes).sum::<usize>();
            moved.push(source.clone());
            position = Position { rounds: self.position.rounds + more, source: Some(source.clone()) };
        }
        Ok((position, moved))
    }

    /// The transaction is committed.
    pub(super) fn advance(&mut self, step: Step, group: &Group) {
        for source in &step.moved {
            let links = self.waiting.remove(source).unwrap_or_default();
            self.bytes -= links.iter().map(Link::cost_bytes).sum::<usize>();
        }
        self.position = step.position;
        while let Some((_, written)) = self.written.front()
            && (self.waiting.is_empty() || is_round_later(&self.position, written))
        {
            self.written.pop_front();
        }
        if step.next_row > self.next_row {
            self.next_row = step.next_row;
            self.written.push_back((step.next_row, self.position.clone()));
            each_link(group, |source, link| self.add(source, link));
        }
    }
}

/// What changes of one source come to: up to where what was there before goes, and the records after that.
fn sum_of(links: &[Link]) -> (Option<Stamp>, Vec<SharedRecord>) {
    let (mut removed, mut records) = (None, Vec::<SharedRecord>::new());
    for link in links {
        match link {
            // A removal reaches all of a source or nothing.
            Link::Removal(stamp) if records.iter().any(|record| record.stamp > *stamp) => {}
            Link::Removal(stamp) => {
                removed = removed.max(Some(*stamp));
                records.clear();
            }
            Link::Record(record) if records.last().is_some_and(|last| record.stamp <= last.stamp) => {}
            Link::Record(record) => records.push(record.clone()),
        }
    }
    (removed, records)
}

/// Whether all that was written at `before` is moved now.
fn is_round_later(now: &Position, before: &Position) -> bool {
    (now.rounds, &now.source) >= (before.rounds + 1, &before.source)
}

/// Shows what waits of one source.
fn show_source<'a>(
    source: &Source,
    links: &'a [Link],
    records: &mut Vec<&'a SharedRecord>,
    each: &mut impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut removed = None;
    records.clear();
    for link in links {
        match link {
            Link::Record(record) => records.push(record),
            Link::Removal(stamp) => {
                // What came before may be newer than the removal reaches.
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

/// Shows the changes of a group, those of one source in order.
fn each_link(group: &Group, mut each: impl FnMut(&Source, Link)) {
    let mut records = Vec::new();
    for log in &group.logs {
        for (source, newest) in log.newest_of_each() {
            if let Some(stamp) = log.chain(newest, &mut records) {
                each(source, Link::Removal(stamp));
            }
            for &record in &records {
                each(source, Link::Record(record.clone()));
            }
        }
    }
}

/// A group as rows.
fn encode(group: &Group) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let mut change = Vec::new();
    each_link(group, |source, link| {
        change.clear();
        let kind = match link {
            Link::Record(record) => {
                wire::write(&mut change, &record, false);
                RECORD
            }
            Link::Removal(stamp) => {
                rows::write_stamp(&mut change, stamp);
                change.extend_from_slice(source.as_str().as_bytes());
                REMOVAL
            }
        };
        let fits = |row: &&mut Vec<u8>| row.len() + HEAD_BYTES + change.len() <= ROW_BYTES;
        let row = match rows.last_mut().filter(fits) {
            Some(row) => row,
            None => {
                rows.push(Vec::with_capacity(ROW_BYTES));
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

/// Shows the changes of a row. One that is damaged is skipped, as in the tables.
fn decode(number: u64, row: &[u8], mut each: impl FnMut(&Source, Link)) {
    let mut rest = row;
    while !rest.is_empty() {
        let Some((kind, change, after)) = split(rest) else {
            tracing::error!(number, "a row of the journal is damaged; its rest is skipped");
            return;
        };
        rest = after;
        match decode_link(kind, change) {
            Some((source, link)) => each(&source, link),
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

fn decode_link(kind: u8, change: &[u8]) -> Option<(Source, Link)> {
    match kind {
        RECORD => {
            let record = Arc::new(wire::decode(Bytes::copy_from_slice(change)).ok()?);
            Some((record.source.clone(), Link::Record(record)))
        }
        REMOVAL => {
            let (stamp, name) = change.split_at_checked(rows::STAMP_BYTES)?;
            let source = Source::parse(std::str::from_utf8(name).ok()?).ok()?;
            Some((source, Link::Removal(rows::read_stamp(stamp)?)))
        }
        _ => None,
    }
}
