//! The embedded store: one redb file in the data directory.
//!
//! Two tables carry the records (`tables`), and a third what waits to be moved into them (`journal`).
//! `latest` maps a source to its newest record, so that a start reads one value a source, whatever the
//! history. `history` holds the records that were the latest before, under (source, stamp), so a
//! source's ring is one contiguous, ordered run of keys: a page of history is a range, and trimming
//! removes the run's first key. A latest value begins with its stamp and the length of its ring, so
//! that a write compares stamps and trims without decoding or counting.
//!
//! A group is one durable transaction ([`redb::Durability::Immediate`]). Sources come into the tables in
//! order of name, the order in which neighbours share a page. redb verifies checksums of its pages
//! when it recovers; the record's own checksum is verified on every read.
//!
//! Commits are redb's two-phase ones with quick repair: the pages are synced, then the header that
//! points to them. That buys three things for the second sync. A start after a kill reads the state of
//! the allocator instead of walking the file (a file of 136 MiB opens in 2 ms, else 176 ms). A header never
//! points to pages that may be missing. And a failed sync, after which the kernel may count lost
//! pages as written (PostgreSQL, 2018), does no harm: the lost pages belong to no header, and the
//! next try writes all of its own again.
//!
//! After an I/O error redb refuses all further work on the open file, so [`StoreEngine::recover`] opens it
//! again.
//!
//! Rejected: one table for latest and history, which makes every start read the whole history; a
//! ring of numbered slots, which hides the order in time and needs a search for `from` and `to`.

mod birth;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod guarded;
mod journal;
pub(super) mod medium;
mod rows;
mod schema;
mod tables;
#[cfg(test)]
pub(super) mod tests;

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use self::birth::count_life;
use self::guarded::guarded;
use self::journal::{Journal, JournalBounds, JournalStep, MoveRule};
use self::medium::{FileMedium, Medium};
use self::rows::LatestRow;
use self::schema::{AGREED_US, BOOT, HEADS, JOURNAL, LATEST, NUMBERS, begin};
use self::tables::{RecordTables, decode_latest, read_history, record_of};
use super::backend::{Backend, Intake, LoadReport, OpenBackend};
use super::data_dir::{DirLock, FILE_NAME, take_dir};
use super::engine::StoreEngine;
use super::error::StoreError;
use super::history::page;
use super::life::NewLife;
use super::open::{NodeIdentity, OpenError, StoreOptions};
use super::placement::Sharing;
use super::queue::WriteGroup;
use super::write_path::{Marks, WritePath};
use super::writer::GroupWriter;
use crate::cluster::Heads;
use crate::limits::STORE_QUEUE_BYTES_MAX;
use crate::record::{HistoryQuery, Record, SharedRecord, Stamp};

/// Memory for the pages of a file that holds only the node's identity, in bytes.
const IDENTITY_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Opens the embedded store of a data directory, and makes it if need be.
pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<OpenBackend, OpenError> {
    let (dir, lock) = take_dir(dir)?;
    open_medium(Box::new(FileMedium::new(dir.join(FILE_NAME))), options, Some(lock))
}

/// Opens the embedded store in any medium, so that tests can bring one that fails.
pub(super) fn open_medium(
    medium: Box<dyn Medium>,
    options: StoreOptions,
    lock: Option<DirLock>,
) -> Result<OpenBackend, OpenError> {
    let place = medium.path();
    let (embedded, identity, path) = open_file(medium, &options)?;
    let embedded = Arc::new(embedded);
    let writer = GroupWriter::new(path.clone(), embedded.clone());
    let intake = Intake::Queue(Box::new(|| writer.run()));
    Ok(OpenBackend { identity, path, backend: embedded, intake, place, lock })
}

/// Opens only the node's identity from the embedded store of a directory, for a backend that keeps its
/// records elsewhere. The tables of records stay empty.
pub(super) fn open_identity(
    dir: &Path,
    options: StoreOptions,
) -> Result<(Embedded, NodeIdentity, Arc<WritePath>), OpenError> {
    let options = StoreOptions { history: 1, cache_bytes: IDENTITY_CACHE_BYTES, ..options };
    open_file(Box::new(FileMedium::new(dir.join(FILE_NAME))), &options)
}

/// Opens the file, counts the start of the node, and makes the write path in front of it.
fn open_file(
    medium: Box<dyn Medium>,
    options: &StoreOptions,
) -> Result<(Embedded, NodeIdentity, Arc<WritePath>), OpenError> {
    let life = NewLife::begin(options);
    let journal = JournalBounds::of(options.journal_bytes);
    let settings = Settings { history: options.history, cache_bytes: options.cache_bytes, journal };
    let (embedded, identity) = Embedded::open(medium, settings, life)?;
    let kept = Marks { agreed_us: identity.agreed_us.unwrap_or(0), boot: 0 };
    let queue_bytes_max = options.queue_bytes_max.min(STORE_QUEUE_BYTES_MAX);
    let path = WritePath::new(options.clock.clone(), queue_bytes_max, kept);
    Ok((embedded, identity, Arc::new(path)))
}

/// Settings of an embedded store.
struct Settings {
    /// Number of records kept of each source, the latest included.
    history: u32,
    /// Memory for redb's pages, in bytes.
    cache_bytes: usize,
    /// Bounds that decide when groups go into the journal first.
    journal: JournalBounds,
}

/// The tables in one file.
pub(super) struct Embedded {
    medium: Box<dyn Medium>,
    settings: Settings,
    /// `None` while the file cannot be opened, and once it is closed. Commits and readers share the lock;
    /// only opening the file again takes it alone.
    database: RwLock<Option<Database>>,
    /// Changes that are durable and not yet in the tables. Only the holder of `writing` changes it.
    journal: RwLock<Journal>,
    /// Held by the one transaction at a time that moves records.
    writing: Mutex<()>,
}

impl Embedded {
    /// Opens or makes the file and counts the start of the node, which survives a power cut.
    fn open(
        medium: Box<dyn Medium>,
        settings: Settings,
        life: NewLife,
    ) -> Result<(Embedded, NodeIdentity), OpenError> {
        let path = medium.path();
        let opened = || Embedded::open_sound(medium, settings, life);
        guarded(opened, |reason| OpenError::Database { path, reason })
    }

    /// The same for a file whose pages are those that were written.
    fn open_sound(
        medium: Box<dyn Medium>,
        settings: Settings,
        life: NewLife,
    ) -> Result<(Embedded, NodeIdentity), OpenError> {
        let database = medium
            .open(&builder(settings.cache_bytes))
            .map_err(StoreError::from)
            .map_err(|reason| OpenError::Database { path: medium.path(), reason })?;
        let identity = count_life(&database, life)?;
        let journal =
            read_journal(&database, settings.history).map_err(|error| OpenError::Write(error.into()))?;
        let (database, journal) = (RwLock::new(Some(database)), RwLock::new(journal));
        Ok((Embedded { medium, settings, database, journal, writing: Mutex::new(()) }, identity))
    }

    fn with_database<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        match &*self.database.read() {
            Some(database) => act(database).map_err(StoreError::from),
            None => Err(StoreError::Away("the store's file is not open".into())),
        }
    }

    /// The latest record of a source.
    pub(super) fn latest(&self, source: &str) -> Result<Option<Record>, StoreError> {
        self.settle()?;
        self.with_database(|database| {
            let latest = database.begin_read()?.open_table(LATEST)?;
            Ok(latest.get(source)?.and_then(|row| decode_latest(source, row.value())))
        })
    }

    /// The marks as the file has them.
    pub(super) fn marks(&self) -> Result<Marks, StoreError> {
        self.with_database(|database| {
            let numbers = database.begin_read()?.open_table(NUMBERS)?;
            Ok(Marks { agreed_us: numbers.get(AGREED_US)?.map_or(0, |number| number.value()), boot: 0 })
        })
    }

    /// Moves everything that the journal holds into the tables.
    fn settle(&self) -> Result<(), StoreError> {
        while self.has_deferred_work() {
            self.write(&WriteGroup::default(), None, MoveRule::All)?;
        }
        Ok(())
    }

    /// Writes in one transaction the group, the marks, and a share of the journal into the tables.
    fn write(&self, group: &WriteGroup, marks: Option<Marks>, rule: MoveRule) -> Result<(), StoreError> {
        let _alone = self.writing.lock();
        let step = self.with_database(|database| {
            let transaction = begin(database)?;
            let step = self.write_group(&transaction, group, rule)?;
            if let Some(marks) = marks {
                let mut numbers = transaction.open_table(NUMBERS)?;
                numbers.insert(AGREED_US, marks.agreed_us)?;
                if marks.boot > 0 {
                    numbers.insert(BOOT, marks.boot)?;
                }
            }
            transaction.commit()?;
            Ok(step)
        })?;
        if let Some(step) = step {
            self.journal.write().handle_committed(step);
        }
        Ok(())
    }

    /// Looks at the journal and at the file at once. A record that is moved meanwhile is then seen twice and not
    /// missed: the file is as the journal says, or one commit further.
    fn look<T>(
        &self,
        database: &Database,
        at: impl FnOnce(&Journal) -> T,
    ) -> Result<(T, ReadTransaction), redb::Error> {
        let journal = self.journal.read();
        let transaction = database.begin_read()?;
        Ok((at(&journal), transaction))
    }

    /// Writes a group straight into the tables if it is small and the journal is empty, else into the
    /// journal.
    fn write_group(
        &self,
        transaction: &WriteTransaction,
        group: &WriteGroup,
        rule: MoveRule,
    ) -> Result<Option<JournalStep>, redb::Error> {
        let mut tables = RecordTables::open(transaction, self.settings.history)?;
        let mut write =
            |source: &str, removed, records: &[&SharedRecord]| tables.write_source(source, removed, records);
        let journal = self.journal.read();
        if journal.is_empty() && group.records() < self.settings.journal.group_records_min {
            group.each_source(|source, removed, records| write(source.as_str(), removed, records))?;
            return Ok(None);
        }
        let mut table = transaction.open_table(JOURNAL)?;
        journal.write(&mut table, group, rule, &mut write).map(Some)
    }
}

impl Backend for Embedded {
    /// Shows the records in order of name.
    fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, StoreError> {
        self.with_database(|database| {
            let (mut waiting, transaction) = self.look(database, Journal::newest)?;
            let (latest, journal) = (transaction.open_table(LATEST)?, transaction.open_table(JOURNAL)?);
            let mut report = LoadReport::default();
            let mut show = |record| {
                report.records += 1;
                each(record);
            };
            for row in latest.iter()? {
                let (source, row) = row?;
                let source = source.value();
                while let Some(newer) = waiting.next_if(&journal, |waits| waits < source)? {
                    newer.record.iter().for_each(|newest| show(Record::clone(newest)));
                }
                let same = waiting.next_if(&journal, |waits| waits == source)?;
                let (removed, newest) = same.map(|same| (same.removed, same.record)).unwrap_or_default();
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
            while let Some(newer) = waiting.next_if(&journal, |_| true)? {
                newer.record.iter().for_each(|newest| show(Record::clone(newest)));
            }
            Ok(report)
        })
    }

    fn history(&self, query: &HistoryQuery, unwritten: &[Stamp]) -> Result<Vec<Record>, StoreError> {
        let history = self.settings.history;
        if history == 0 {
            return Ok(Vec::new());
        }
        self.with_database(|database| {
            let (places, transaction) = self.look(database, |journal| journal.of_source(&query.source))?;
            let (removed, waiting) = (places.removed, places.read(&transaction.open_table(JOURNAL)?)?);
            let latest = transaction.open_table(LATEST)?.get(query.source.as_str())?;
            let row = latest.as_ref().and_then(|row| LatestRow::parse(row.value()));
            let row = row.filter(|row| removed.is_none_or(|stamp| row.stamp > stamp));
            // The stamp of a damaged row says nothing.
            let sound = row.as_ref().filter(|row| record_of(&query.source, row).is_some());
            let is_newer = |record: &SharedRecord| sound.is_none_or(|row| record.stamp > row.stamp);
            let waiting: Vec<SharedRecord> = waiting.into_iter().filter(is_newer).collect();
            let newest = waiting.last().map(|record| record.stamp);
            let newer = unwritten.iter().filter(|&&stamp| Some(stamp) > newest).count();
            let places = (history as usize).saturating_sub(newer);
            let mut not_in_tables: Vec<Stamp> = waiting.iter().map(|record| record.stamp).collect();
            not_in_tables.extend_from_slice(unwritten);
            not_in_tables.sort_unstable();
            not_in_tables.dedup();
            let stored = match &row {
                Some(row) => read_history(&transaction, query, &not_in_tables, row, history)?,
                None => Vec::new(),
            };
            Ok(page(query, &waiting[waiting.len().saturating_sub(places)..], stored).records)
        })
    }

    fn history_len_max(&self) -> usize {
        self.settings.history as usize
    }

    fn sharing(&self) -> Sharing {
        Sharing::Private
    }
}

impl StoreEngine for Embedded {
    fn commit(&self, group: &WriteGroup, marks: Marks) -> Result<(), StoreError> {
        self.write(group, Some(marks), MoveRule::ByLoad(self.settings.journal))
    }

    fn has_deferred_work(&self) -> bool {
        !self.journal.read().is_empty()
    }

    fn keep_heads(&self, heads: &Heads) -> Result<(), StoreError> {
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

    fn recover(&self) -> Result<(), StoreError> {
        let mut database = self.database.write();
        // The old one is dropped first, because it holds the file's lock.
        *database = None;
        let open = || {
            let opened = self.medium.reopen(&builder(self.settings.cache_bytes));
            opened.map_err(StoreError::from)
        };
        *database = Some(guarded(open, |damaged| damaged).map_err(|error| {
            let text = format!("{:?} cannot be opened: {error}", self.medium.path());
            error.with_text(text)
        })?);
        Ok(())
    }

    fn sources(
        &self,
        after: Option<&str>,
        limit: usize,
        each: &mut dyn FnMut(&str, Stamp),
    ) -> Result<(), StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.settle()?;
        self.with_database(|database| {
            let latest = database.begin_read()?.open_table(LATEST)?;
            let from = after.map_or(Unbounded, Excluded);
            for row in latest.range::<&str>((from, Unbounded))?.take(limit) {
                let (source, row) = row?;
                // With this stamp a damaged row is removed by any removal.
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

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

fn read_journal(database: &Database, history: u32) -> Result<Journal, redb::Error> {
    Journal::read(&database.begin_read()?.open_table(JOURNAL)?, history)
}
