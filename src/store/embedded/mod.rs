//! The embedded store: one redb file in the data directory.
//!
//! Two tables carry the records, and a third what waits for them (`journal`). `latest` maps a source to its
//! newest record, so that a start reads one value a source, whatever the history. `history` holds the records that were the latest before, under
//! (source, stamp), so a source's ring is one contiguous, ordered run of keys: a page of history is a
//! range, and trimming removes the run's first key. A latest value begins with its stamp and the
//! length of its ring, so that a write compares stamps and trims without decoding or counting.
//!
//! A group is one durable transaction ([`redb::Durability::Immediate`]). Sources come into the tables in
//! order of name, the order in which neighbours share a page. redb verifies checksums of its pages
//! when it recovers, the record's own checksum is verified on every read.
//!
//! Commits are redb's two-phase ones with quick repair: the pages are synced, then the header that
//! points to them. That buys three things for the second sync. A start after a kill reads the state of
//! the allocator instead of walking the file (a file of 136 MiB opens in 2 ms, else 176 ms). A header never
//! points to pages that may be missing. And a failed sync, after which the kernel may count lost
//! pages as written (PostgreSQL, 2018), does no harm: the lost pages belong to no header, and the
//! next try writes all of its own again.
//!
//! After an I/O error redb refuses all further work on the open file, so [`Engine::recover`] opens it
//! again.
//!
//! Rejected: one table for latest and history, which makes every start read the whole history; a
//! ring of numbered slots, which hides the order in time and needs a search for `from` and `to`.

mod birth;
mod journal;
pub(super) mod medium;
mod rows;
#[cfg(test)]
pub(super) mod tests;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

pub(super) use self::birth::Birth;
use self::birth::be_born;
pub(super) use self::journal::Bounds;
use self::journal::{JOURNAL, Journal, Share, Step};
use self::medium::Medium;
use self::rows::{LatestRow, history_bounds, history_key, stamp_of_history_key};
use super::engine::{Engine, EngineError, LoadReport, Marks, Reader};
use super::history::{HistoryQuery, page};
use super::log::{Group, ascending};
use super::{Identity, OpenError};
use crate::cluster::Heads;
use crate::record::{Record, SharedRecord, Stamp, wire};

/// Source → [`LatestRow`].
const LATEST: TableDefinition<&str, &[u8]> = TableDefinition::new("latest");
/// [`history_key`] → [`wire::encode`]d record.
const HISTORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("history");
/// Numbers about the node, by name.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// Origin and life → up to which number its records are held. Empty while the store is open.
const HEADS: TableDefinition<(&str, u64), u64> = TableDefinition::new("heads");
/// Texts about the node, by name.
const TEXTS: TableDefinition<&str, &str> = TableDefinition::new("texts");

const FORMAT: &str = "format";
const BOOT: &str = "boot";
const CLOCK_HIGH_WATER_US: &str = "clock_high_water_us";
const AGREED_US: &str = "agreed_us";
const NODE_NAME: &str = "node_name";
/// Version of the tables above. A file of another version is refused, not guessed at.
const FORMAT_VERSION: u64 = 2;
/// The version before had no journal: all else is the same, so its files are taken as they are.
const FORMAT_WITHOUT_JOURNAL: u64 = 1;

/// What the embedded store is opened with.
pub(super) struct Settings {
    /// Records kept a source, the latest included.
    pub(super) history: u32,
    /// Memory for redb's pages, in bytes.
    pub(super) cache_bytes: usize,
    /// When groups go into the journal first.
    pub(super) journal: Bounds,
}

/// The tables in one file.
pub(super) struct Embedded {
    medium: Box<dyn Medium>,
    settings: Settings,
    /// `None` while it cannot be opened, and once it is closed. Commits and readers share the lock;
    /// only opening it again takes it alone.
    database: RwLock<Option<Database>>,
    /// What is durable and not yet in the tables. Only who holds `writing` changes it.
    journal: RwLock<Journal>,
    /// One transaction that moves records at a time.
    writing: Mutex<()>,
}

impl Embedded {
    /// Opens or makes the file and counts the node's new life, which survives a power cut.
    pub(super) fn open(
        medium: Box<dyn Medium>,
        settings: Settings,
        birth: Birth,
    ) -> Result<(Embedded, Identity), OpenError> {
        let database = open_database(&*medium, settings.cache_bytes)?;
        let identity = be_born(&database, birth)?;
        let failed = |error: EngineError| OpenError::Write(error.to_string());
        let journal = read_journal(&database).map_err(|error| failed(engine_error(error)))?;
        let (database, journal) = (RwLock::new(Some(database)), RwLock::new(journal));
        Ok((Embedded { medium, settings, database, journal, writing: Mutex::new(()) }, identity))
    }

    fn with_database<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, EngineError> {
        match &*self.database.read() {
            Some(database) => act(database).map_err(engine_error),
            None => Err(EngineError("the store's file is not open".into())),
        }
    }

    /// The latest record of a source.
    pub(super) fn latest(&self, source: &str) -> Result<Option<Record>, EngineError> {
        self.settle()?;
        self.with_database(|database| {
            let latest = database.begin_read()?.open_table(LATEST)?;
            Ok(latest.get(source)?.and_then(|row| decode_latest(source, row.value())))
        })
    }

    /// The marks as they are kept.
    pub(super) fn marks(&self) -> Result<Marks, EngineError> {
        self.with_database(|database| {
            let numbers = database.begin_read()?.open_table(NUMBERS)?;
            let number = |name| Ok::<_, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
            Ok(Marks { clock_high_water_us: number(CLOCK_HIGH_WATER_US)?, agreed_us: number(AGREED_US)? })
        })
    }

    /// Moves all that the journal holds into the tables.
    fn settle(&self) -> Result<(), EngineError> {
        while self.owes() {
            self.write(&Group::default(), None, Share::ALL)?;
        }
        Ok(())
    }

    /// One transaction: the group, the marks, and a share of the journal into the tables.
    fn write(&self, group: &Group, marks: Option<Marks>, share: Share) -> Result<(), EngineError> {
        let _alone = self.writing.lock();
        let step = self.with_database(|database| {
            let transaction = begin(database)?;
            let step = self.write_group(&transaction, group, share)?;
            if let Some(marks) = marks {
                let mut numbers = transaction.open_table(NUMBERS)?;
                numbers.insert(CLOCK_HIGH_WATER_US, marks.clock_high_water_us)?;
                numbers.insert(AGREED_US, marks.agreed_us)?;
            }
            transaction.commit()?;
            Ok(step)
        })?;
        if let Some(step) = step {
            self.journal.write().advance(step, group);
        }
        Ok(())
    }

    /// Writes a group where it belongs: a small one into its tables, unless some of the journal has to
    /// come before it.
    fn write_group(
        &self,
        transaction: &WriteTransaction,
        group: &Group,
        share: Share,
    ) -> Result<Option<Step>, redb::Error> {
        let mut tables =
            Tables { latest: transaction.open_table(LATEST)?, history: transaction.open_table(HISTORY)? };
        let mut write = |source: &str, removed, records: &[&SharedRecord]| {
            self.write_source(&mut tables, source, removed, records)
        };
        let journal = self.journal.read();
        if journal.is_empty() && group.records() < self.settings.journal.group_records_min {
            group.each_source(write)?;
            return Ok(None);
        }
        let mut table = transaction.open_table(JOURNAL)?;
        journal.write(&mut table, group, share, &mut write).map(Some)
    }

    /// A page of what is in the tables of a source whose latest row is this.
    fn history_of_tables(
        &self,
        transaction: &ReadTransaction,
        query: &HistoryQuery<'_>,
        row: &LatestRow<'_>,
    ) -> Result<Vec<Record>, redb::Error> {
        let mut records = Vec::new();
        let newer = query.unwritten.iter().filter(|&&stamp| stamp > row.stamp).count() as u64;
        let hidden = (newer + 1 + u64::from(row.older)).saturating_sub(u64::from(self.settings.history));
        if query.shows(row.stamp) && hidden <= u64::from(row.older) {
            records.extend(wire::decode(Bytes::copy_from_slice(&row.wire)).ok());
        }
        let history = transaction.open_table(HISTORY)?;
        let (from, to) = history_bounds(query.source);
        let oldest = match history.range::<&[u8]>(from.as_slice()..to.as_slice())?.nth(hidden as usize) {
            Some(row) => row?.0.value().to_vec(),
            None => return Ok(records),
        };
        let least =
            history_key(query.source, Stamp { ts: query.from_us, deleted: false, hash: 0 }).max(oldest);
        let end = match query.before {
            Some(before) if before.ts <= query.to_us => history_key(query.source, before),
            _ => history_key(
                query.source,
                Stamp { ts: query.to_us.saturating_add(1), deleted: false, hash: 0 },
            ),
        };
        if least >= end {
            return Ok(records);
        }
        for row in history.range::<&[u8]>(least.as_slice()..end.as_slice())?.rev() {
            if records.len() >= query.limit {
                break;
            }
            let (key, row) = row?;
            match wire::decode(Bytes::copy_from_slice(row.value())) {
                Ok(record) => records.push(record),
                Err(error) => {
                    let ts = stamp_of_history_key(key.value()).map(|stamp| stamp.ts);
                    tracing::error!(source = query.source, ?ts, %error, "stored history is damaged; skipped");
                }
            }
        }
        Ok(records)
    }

    /// Writes what became of one source.
    fn write_source(
        &self,
        tables: &mut Tables<'_>,
        source: &str,
        removed: Option<Stamp>,
        records: &[&SharedRecord],
    ) -> Result<(), redb::Error> {
        let mut current = match tables.latest.get(source)? {
            Some(row) => LatestRow::parse(row.value()).map(|row| row.into_owned()),
            None => None,
        };
        if removed.is_some_and(|stamp| current.as_ref().is_none_or(|row| row.stamp <= stamp)) {
            tables.latest.remove(source)?;
            let (from, to) = history_bounds(source);
            tables.history.retain_in::<&[u8], _>(from.as_slice()..to.as_slice(), |_, _| false)?;
            current = None;
        }
        let mut run = ascending(records);
        let newest_kept = current.as_ref().map(|row| row.stamp);
        run.retain(|record| newest_kept.is_none_or(|kept| record.stamp >= kept));
        let Some((newest, before)) = run.split_last() else { return Ok(()) };
        let mut kept = current.as_ref().map_or(0, |row| row.older);
        let ring = self.settings.history.saturating_sub(1);
        let replaced = newest_kept.is_some_and(|kept| run.first().is_some_and(|first| first.stamp == kept));
        let wire = wire::encode(newest);
        // Catching up shows every record of the map; most are there.
        if replaced && before.is_empty() && current.as_ref().is_some_and(|row| *row.wire == *wire) {
            return Ok(());
        }
        // The latest so far, unless the same record comes again, then those of the group but the last.
        let old = current.filter(|_| !replaced && before.len() < ring as usize);
        if let Some(row) = old {
            tables.history.insert(history_key(source, row.stamp).as_slice(), &*row.wire)?;
            kept += 1;
        }
        for record in before.iter().skip(before.len().saturating_sub(ring as usize)) {
            let key = history_key(source, record.stamp);
            let known = tables.history.insert(key.as_slice(), wire::encode(record).as_slice())?.is_some();
            kept += u32::from(!known);
        }
        kept = trim(&mut tables.history, source, kept, ring)?;
        let row = LatestRow { stamp: newest.stamp, older: kept, wire: wire.into() };
        tables.latest.insert(source, row.encode().as_slice())?;
        Ok(())
    }
}

struct Tables<'a> {
    latest: Table<'a, &'static str, &'static [u8]>,
    history: Table<'a, &'static [u8], &'static [u8]>,
}

impl Reader for Embedded {
    fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, EngineError> {
        // First the journal: what is moved in between is then seen twice, not missed.
        let mut waiting = self.journal.read().newest().into_iter().peekable();
        self.with_database(|database| {
            let mut report = LoadReport::default();
            let mut show = |record| {
                report.records += 1;
                each(record);
            };
            let latest = database.begin_read()?.open_table(LATEST)?;
            for row in latest.iter()? {
                let (source, row) = row?;
                let source = source.value();
                while let Some((_, (_, newest))) = waiting.next_if(|(waits, _)| waits.as_str() < source) {
                    newest.iter().for_each(|newest| show(Record::clone(newest)));
                }
                let same = waiting.next_if(|(waits, _)| waits.as_str() == source);
                let (removed, newest) = same.map(|(_, sum)| sum).unwrap_or_default();
                let found = decode_latest(source, row.value());
                if found.is_none() {
                    report.damaged += 1;
                    tracing::error!(source, "stored record is damaged; skipped");
                }
                let found = found.filter(|found| removed.is_none_or(|stamp| found.stamp > stamp));
                match (found, newest) {
                    (Some(found), Some(newest)) if newest.stamp <= found.stamp => show(found),
                    (_, Some(newest)) => show(Record::clone(&newest)),
                    (Some(found), None) => show(found),
                    (None, None) => {}
                }
            }
            waiting.filter_map(|(_, (_, newest))| newest).for_each(|newest| show(Record::clone(&newest)));
            Ok(report)
        })
    }

    fn history(&self, query: &HistoryQuery<'_>) -> Result<Vec<Record>, EngineError> {
        if self.settings.history == 0 {
            return Ok(Vec::new());
        }
        // First the journal: what is moved in between is then seen twice, not missed.
        let (removed, waiting) = self.journal.read().of_source(query.source);
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let latest = transaction.open_table(LATEST)?.get(query.source)?;
            let row = latest.as_ref().and_then(|row| LatestRow::parse(row.value()));
            let row = row.filter(|row| removed.is_none_or(|stamp| row.stamp > stamp));
            let is_newer = |record: &SharedRecord| row.as_ref().is_none_or(|row| record.stamp > row.stamp);
            let waiting: Vec<SharedRecord> = waiting.into_iter().filter(is_newer).collect();
            let newest = waiting.last().map(|record| record.stamp);
            let newer = query.unwritten.iter().filter(|&&stamp| Some(stamp) > newest).count();
            let ring = (self.settings.history as usize).saturating_sub(newer);
            let mut unwritten: Vec<Stamp> = waiting.iter().map(|record| record.stamp).collect();
            unwritten.extend_from_slice(query.unwritten);
            unwritten.sort_unstable();
            unwritten.dedup();
            let query = HistoryQuery { unwritten: &unwritten, ..*query };
            let stored = match &row {
                Some(row) => self.history_of_tables(&transaction, &query, row)?,
                None => Vec::new(),
            };
            Ok(page(&query, &waiting[waiting.len().saturating_sub(ring)..], stored, query.limit).0)
        })
    }
}

impl Engine for Embedded {
    fn commit(&self, group: &Group, marks: Marks) -> Result<(), EngineError> {
        let share = self.journal.read().share(group, self.settings.journal);
        self.write(group, Some(marks), share)
    }

    fn owes(&self) -> bool {
        !self.journal.read().is_empty()
    }

    fn keep_heads(&self, heads: &Heads) -> Result<(), EngineError> {
        self.with_database(|database| {
            let transaction = begin(database)?;
            {
                let mut table = transaction.open_table(HEADS)?;
                for ((origin, boot), seq) in heads {
                    table.insert((origin.as_str(), *boot), *seq)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn recover(&self) -> Result<(), EngineError> {
        let mut database = self.database.write();
        // The old one first: it holds the file's lock.
        *database = None;
        *database = Some(
            open_database(&*self.medium, self.settings.cache_bytes)
                .map_err(|error| EngineError(error.to_string()))?,
        );
        Ok(())
    }

    fn sources(
        &self,
        after: Option<&str>,
        limit: usize,
        each: &mut dyn FnMut(&str, Stamp),
    ) -> Result<(), EngineError> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.settle()?;
        self.with_database(|database| {
            let latest = database.begin_read()?.open_table(LATEST)?;
            let from = after.map_or(Unbounded, Excluded);
            for row in latest.range::<&str>((from, Unbounded))?.take(limit) {
                let (source, row) = row?;
                // A damaged row goes with any removal.
                let stamp = LatestRow::parse(row.value()).map_or(Stamp::of_deletion(0), |row| row.stamp);
                each(source.value(), stamp);
            }
            Ok(())
        })
    }

    fn close(&self) {
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "the next start moves what the journal holds");
        }
        if let Some(Err(error)) = self.database.write().take().map(Database::close) {
            tracing::warn!(%error, "the store's file was not closed cleanly; the next start repairs it");
        }
    }
}

/// Removes the oldest of a source until at most `ring` are left; gives what is left.
fn trim(
    history: &mut Table<'_, &'static [u8], &'static [u8]>,
    source: &str,
    mut kept: u32,
    ring: u32,
) -> Result<u32, redb::Error> {
    let (from, to) = history_bounds(source);
    while kept > ring {
        let first = match history.range::<&[u8]>(from.as_slice()..to.as_slice())?.next() {
            Some(row) => row?.0.value().to_vec(),
            None => return Ok(0),
        };
        history.remove(first.as_slice())?;
        kept -= 1;
    }
    Ok(kept)
}

fn decode_latest(source: &str, row: &[u8]) -> Option<Record> {
    let row = LatestRow::parse(row)?;
    let record = wire::decode(Bytes::copy_from_slice(&row.wire)).ok()?;
    (record.source.as_str() == source && record.stamp == row.stamp).then_some(record)
}

fn open_database(medium: &dyn Medium, cache_bytes: usize) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    medium
        .open(&builder)
        .map_err(|error| OpenError::Database { path: medium.path(), reason: error.to_string() })
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    // Not only for speed: see the module's head before turning it off.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn engine_error(error: redb::Error) -> EngineError {
    EngineError(error.to_string())
}

fn read_journal(database: &Database) -> Result<Journal, redb::Error> {
    Journal::read(&database.begin_read()?.open_table(JOURNAL)?)
}
