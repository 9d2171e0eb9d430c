//! What survives: the latest record of every source, a ring of those before it, and who the node is.
//!
//! The map in memory is what everyone reads; the store is where it comes from after a restart, and
//! what an answer of level `stored` waits for. So the store is behind a queue: a push under a lock
//! of the map is a few memory writes, and one thread (`writer`) writes what waits as one group
//! in one durable commit. What is durable is a [`Ticket`] that only rises.
//!
//! - `queue` and its `log`s: what waits, bounded and merged; `shared`: what is durable, and health;
//! - `writer`: group commit, retries, catching up;
//! - `engine`: the trait behind which the records are kept; `embedded` (one redb file) is one;
//! - `cassandra`: a store that all nodes share, with a writer of its own behind the same queue;
//! - `memory`: histories without a file, for tests and caches.
//!
//! Rejected: writing before the map is changed, which puts a sync into the way of every record;
//! a log of our own beside the tables, which doubles what recovery has to prove.

mod cassandra;
mod embedded;
mod engine;
mod history;
mod log;
mod memory;
mod open;
mod queue;
mod shared;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use self::cassandra::Cassandra;
use self::embedded::medium::{FileMedium, Medium};
use self::embedded::{Bounds, Embedded, Settings};
use self::engine::{Engine, Marks, Reader};
use self::history::HistoryQuery;
use self::memory::Memory;
use self::open::{FILE_NAME, birth, take_dir};
use self::shared::Shared;
use self::writer::Writer;
use crate::cluster::Heads;
use crate::limits::STORE_QUEUE_BYTES_MAX;
use crate::record::{Record, SharedRecord, Source, Stamp};

pub use self::engine::{EngineError, LoadReport};
pub use self::history::{CursorError, HistoryCursor, HistoryPage};
pub use self::open::{Clock, Identity, Kind, OpenError, Options};

/// How long dropping the last handle waits for what was pushed. [`StoreHandle::close`] is the way
/// to wait longer, and to know.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for the pages of a file that holds only who the node is.
const IDENTITY_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Place in the order of what is written: everything pushed with a ticket up to
/// [`StoreHandle::durable`] survives a power cut. Several pushes may share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Whether what is pushed gets written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Open,
    /// It does not, for now: publishes are refused, what is pushed all the same waits.
    Failing {
        /// For people.
        reason: String,
    },
}

/// The map, as the store needs it to catch up after it had to drop what did not fit.
pub trait Latest: Send + Sync {
    /// Shows every record of a shard of the map, deletions and expired ones included.
    fn visit(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord));
    /// Whether the map has any record of a source, deletions included.
    fn holds(&self, source: &str) -> bool;
}

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that wait or are being written.
    pub pending_records: usize,
    /// Of these, those that wait on the disk because Cassandra is away.
    pub spilled_records: usize,
    /// Bytes of those in memory.
    pub queued_bytes: usize,
    /// Records that were merged into a newer one of their source, because the store lagged.
    pub merged_total: u64,
    /// Changes that did not fit; made good when the store works again.
    pub dropped_total: u64,
    /// Groups written.
    pub commits_total: u64,
    /// How long the last one took.
    pub commit_us: u64,
}

/// The store, as everyone uses it. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct StoreHandle {
    inner: Arc<Inner>,
}

enum Inner {
    Memory(Memory),
    Written(Written),
}

/// A store with a writer.
struct Written {
    shared: Arc<Shared>,
    reader: Arc<dyn Reader>,
    /// The reader too, if it is the one that nodes share.
    cassandra: Option<Arc<Cassandra>>,
    /// Records of history a source, as far as the store counts them.
    history: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Holds the data directory.
    _lock: Option<File>,
}

impl StoreHandle {
    /// Opens the store in `dir`, which is made if need be, for this process alone; `DIR/*` is one of
    /// several numbered ones. The boot number
    /// survives a power cut when this returns.
    pub fn open(kind: Kind, dir: &Path, options: Options) -> Result<(StoreHandle, Identity), OpenError> {
        match kind {
            Kind::Memory => {
                let birth = birth(&options);
                let identity = Identity {
                    node_name: birth.node_name.unwrap_or(birth.made_up),
                    boot: birth.boot_min,
                    clock_high_water: 0,
                    agreed_us: None,
                    heads: Heads::new(),
                };
                let inner = Arc::new(Inner::Memory(Memory::new(options.history)));
                Ok((StoreHandle { inner }, identity))
            }
            Kind::Embedded => {
                let (dir, lock) = take_dir(dir)?;
                let medium = Box::new(FileMedium::new(dir.join(FILE_NAME)));
                StoreHandle::open_embedded(medium, options, Some(lock))
            }
            Kind::Cassandra(config) => StoreHandle::open_cassandra(&config, dir, options),
        }
    }

    fn open_cassandra(
        config: &crate::config::cassandra::Cassandra,
        dir: &Path,
        options: Options,
    ) -> Result<(StoreHandle, Identity), OpenError> {
        let (dir, lock) = take_dir(dir)?;
        let medium = Box::new(FileMedium::new(dir.join(FILE_NAME)));
        // Its tables of records stay empty.
        let options = Options { history: 1, cache_bytes: IDENTITY_CACHE_BYTES, ..options };
        let (embedded, identity, shared) = open_identity(medium, &options)?;
        let (reader, driver) =
            cassandra::open(config, &dir, embedded, shared.clone(), identity.clock_high_water)?;
        let reader = Arc::new(reader);
        let writer = spawn_writer(move || driver.run(), &dir)?;
        let cassandra = Some(reader.clone());
        let written = Written { shared, reader, cassandra, history: u32::MAX, writer, _lock: Some(lock) };
        Ok((StoreHandle { inner: Arc::new(Inner::Written(written)) }, identity))
    }

    fn open_embedded(
        medium: Box<dyn Medium>,
        options: Options,
        lock: Option<File>,
    ) -> Result<(StoreHandle, Identity), OpenError> {
        let path = medium.path();
        let (embedded, identity, shared) = open_identity(medium, &options)?;
        let engine: Arc<dyn Engine> = Arc::new(embedded);
        let writer = Writer::new(shared.clone(), engine.clone(), identity.clock_high_water);
        let writer = spawn_writer(|| writer.run(), &path)?;
        let history = options.history;
        let written = Written { shared, reader: engine, cassandra: None, history, writer, _lock: lock };
        Ok((StoreHandle { inner: Arc::new(Inner::Written(written)) }, identity))
    }

    /// Shows the latest record of every source, in order of name, each verified; a damaged one is
    /// counted, logged and skipped. Blocks its thread for as long as that takes.
    pub fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, EngineError> {
        match &*self.inner {
            Inner::Memory(_) => Ok(LoadReport::default()),
            Inner::Written(written) => written.reader.load(each),
        }
    }

    /// Takes a record that has become the latest of its source. Called under the lock of the
    /// source's map shard, in the order in which its records were applied: memory only, never waits.
    pub fn push(&self, record: &SharedRecord) -> Ticket {
        match &*self.inner {
            Inner::Memory(memory) => {
                memory.push(record);
                Ticket(0)
            }
            Inner::Written(written) => {
                let ticket = written.shared.queue.push(record);
                written.shared.ring_for_push();
                ticket
            }
        }
    }

    /// Takes back a source that was collected: its latest record, if its stamp is not over `stamp`,
    /// and its history go. Called under the same lock as [`StoreHandle::push`].
    pub fn remove(&self, source: &Source, stamp: Stamp) -> Ticket {
        match &*self.inner {
            Inner::Memory(memory) => {
                memory.remove(source, stamp);
                Ticket(0)
            }
            Inner::Written(written) => {
                let ticket = written.shared.queue.remove(source, stamp);
                written.shared.ring_for_push();
                ticket
            }
        }
    }

    /// The ticket that covers everything pushed so far.
    pub fn barrier(&self) -> Ticket {
        match &*self.inner {
            Inner::Memory(_) => Ticket(0),
            Inner::Written(written) => {
                let ticket = written.shared.queue.open_group();
                written.shared.ring();
                ticket
            }
        }
    }

    /// Everything up to this ticket survives a power cut (memory: everything, at once).
    pub fn durable(&self) -> Ticket {
        match &*self.inner {
            Inner::Memory(_) => Ticket(0),
            Inner::Written(written) => written.shared.durable(),
        }
    }

    /// Whether what is pushed gets written.
    pub fn health(&self) -> Health {
        match &*self.inner {
            Inner::Memory(_) => Health::Open,
            Inner::Written(written) => written.shared.health(),
        }
    }

    /// Whether the queue already merges: peers that send a whole map should be read more slowly.
    pub fn is_lagging(&self) -> bool {
        match &*self.inner {
            Inner::Memory(_) => false,
            Inner::Written(written) => written.shared.queue.is_lagging(),
        }
    }

    /// Whether changes were dropped that the store has not caught up with yet. It catches up by
    /// itself once it works and [`StoreHandle::attach`] was called.
    pub fn needs_resync(&self) -> bool {
        match &*self.inner {
            Inner::Memory(_) => false,
            Inner::Written(written) => written.shared.needs_resync(),
        }
    }

    /// Why nothing becomes durable for now, although what is pushed is taken: Cassandra is away.
    pub fn away(&self) -> Option<String> {
        match &*self.inner {
            Inner::Memory(_) => None,
            Inner::Written(written) => written.shared.away(),
        }
    }

    /// Whether all nodes share the store: then each writes the records that it accepted, and a node
    /// that forgets its own copy must not take the record back from the others.
    pub fn is_shared(&self) -> bool {
        matches!(&*self.inner, Inner::Written(Written { cassandra: Some(_), .. }))
    }

    /// Whether a load that was partial can be repeated now.
    pub fn is_load_owed(&self) -> bool {
        match &*self.inner {
            Inner::Written(Written { cassandra: Some(cassandra), .. }) => cassandra.is_load_owed(),
            _ => false,
        }
    }

    /// Gives the store the map to catch up from. Only once the map holds what
    /// [`StoreHandle::load`] showed: catching up removes what the map does not hold.
    pub fn attach(&self, latest: Arc<dyn Latest>) {
        if let Inner::Written(written) = &*self.inner {
            written.shared.attach(latest);
        }
    }

    /// Calls `subscriber` whenever [`StoreHandle::durable`] or [`StoreHandle::health`] has changed,
    /// from the writer's thread: it must be short and must not subscribe.
    pub fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        if let Inner::Written(written) = &*self.inner {
            written.shared.subscribe(subscriber);
        }
    }

    /// Says up to where stamps have been issued. The store keeps a mark ahead of it, so that a life
    /// after a kill issues nothing twice.
    pub fn set_clock_high_water(&self, us: u64) {
        if let Inner::Written(written) = &*self.inner {
            written.shared.set_clock_high_water(us);
        }
    }

    /// Says when the node last agreed fully with the cluster. Kept with the next commit, and within
    /// a minute of advance in any case.
    pub fn set_agreed(&self, us: u64) {
        if let Inner::Written(written) = &*self.inner {
            written.shared.set_agreed(us);
        }
    }

    /// Says what is held of every origin's life, all of it pushed already. If the store then ends in
    /// order with nothing lost, the next life finds it in its [`Identity`]; after a kill it does not.
    pub fn keep_heads(&self, heads: Heads) {
        if let Inner::Written(written) = &*self.inner {
            written.shared.keep_heads(heads);
        }
    }

    /// A page of at most `limit` of the records of a source that were the latest here, newest first, with `ts`
    /// in `from_us ..= to_us`; `after`: where the page before ended. Sees what is not yet written too.
    pub fn history(
        &self,
        source: &str,
        from_us: u64,
        to_us: u64,
        limit: usize,
        after: Option<HistoryCursor>,
    ) -> Result<HistoryPage, EngineError> {
        let before = after.map(|cursor| cursor.0);
        let mut query = HistoryQuery { source, from_us, to_us, before, limit, unwritten: &[] };
        match &*self.inner {
            Inner::Memory(memory) => Ok(memory.history(&query, limit)),
            Inner::Written(written) if written.history == 0 => Ok((Vec::new(), None)),
            Inner::Written(written) => {
                // First what waits: what is written in between is then seen twice, not missed.
                let (removed, waiting) = written.shared.queue.unwritten(source);
                let refs: Vec<&SharedRecord> = waiting.iter().collect();
                let stamps: Vec<Stamp> = log::ascending(&refs).iter().map(|record| record.stamp).collect();
                let hidden = waiting.len().saturating_sub(written.history as usize);
                query.unwritten = &stamps;
                // One more tells whether there is a next page.
                query.limit = limit.saturating_add(1);
                let stored = if removed { Vec::new() } else { written.reader.history(&query)? };
                Ok(history::page(&query, &waiting[hidden..], stored, limit))
            }
        }
    }

    /// Figures for the metrics.
    pub fn stats(&self) -> Stats {
        let Inner::Written(written) = &*self.inner else { return Stats::default() };
        let (commits_total, commit_us) = written.shared.commits();
        let queue = &written.shared.queue;
        Stats {
            pending_records: queue.records() + written.shared.spilled(),
            spilled_records: written.shared.spilled(),
            queued_bytes: queue.bytes(),
            merged_total: queue.merged(),
            dropped_total: queue.dropped(),
            commits_total,
            commit_us,
        }
    }

    /// Records that wait or are being written.
    pub fn pending_records(&self) -> usize {
        self.stats().pending_records
    }

    /// Bytes of what waits or is being written.
    pub fn queued_bytes(&self) -> usize {
        self.stats().queued_bytes
    }

    /// Records merged into a newer one of their source, because the store lagged.
    pub fn merged_total(&self) -> u64 {
        self.stats().merged_total
    }

    /// Waits until everything pushed so far is durable; `false` if it is not within `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        match &*self.inner {
            Inner::Memory(_) => true,
            Inner::Written(written) => written.shared.wait_durable(self.barrier(), timeout),
        }
    }

    /// Writes what waits and closes the file; `false` if that took longer than `timeout`, and what
    /// was not written is given up. What is pushed afterwards is never durable.
    pub fn close(&self, timeout: Duration) -> bool {
        match &*self.inner {
            Inner::Memory(_) => true,
            Inner::Written(written) => written.close(timeout),
        }
    }
}

/// Opens the embedded store of a directory, counts the node's life, and makes what is shared.
fn open_identity(
    medium: Box<dyn Medium>,
    options: &Options,
) -> Result<(Embedded, Identity, Arc<Shared>), OpenError> {
    let birth = birth(options);
    let lease_us = birth.clock_lease_us;
    let (history, cache_bytes) = (options.history, options.cache_bytes);
    let journal = Bounds { waiting_bytes: options.journal_bytes, ..Bounds::default() };
    let settings = Settings { history, cache_bytes, journal };
    let (embedded, identity) = Embedded::open(medium, settings, birth)?;
    let kept = Marks {
        clock_high_water_us: identity.clock_high_water.max(lease_us),
        agreed_us: identity.agreed_us.unwrap_or(0),
    };
    let queue_bytes_max = options.queue_bytes_max.min(STORE_QUEUE_BYTES_MAX);
    let shared = Arc::new(Shared::new(options.clock.clone(), queue_bytes_max, kept));
    Ok((embedded, identity, shared))
}

fn spawn_writer(
    run: impl FnOnce() + Send + 'static,
    path: &Path,
) -> Result<Mutex<Option<JoinHandle<()>>>, OpenError> {
    let thread = std::thread::Builder::new().name("anode-store".into()).spawn(run);
    thread
        .map(|thread| Mutex::new(Some(thread)))
        .map_err(|source| OpenError::Io { path: path.into(), source })
}

impl Written {
    fn close(&self, timeout: Duration) -> bool {
        let Some(thread) = self.writer.lock().take() else { return true };
        self.shared.stop(false);
        if !self.shared.wait_stopped(timeout) {
            self.shared.stop(true);
            return false;
        }
        thread.join().is_ok()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.close(DROP_TIMEOUT);
    }
}
