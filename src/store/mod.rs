//! What survives: the latest record of every source, a ring of those before it, and who the node is.
//!
//! The map in memory is what everyone reads; the store is where it comes from after a restart, and
//! what an answer of level `stored` waits for. So the store is behind a queue: a push under a lock
//! of the map is a few memory writes, and one thread ([`writer`]) writes what waits as one group
//! with one sync. What is durable is a [`Ticket`] that only rises.
//!
//! - [`queue`]: what waits, bounded and merged;
//! - [`writer`]: group commit, retries, catching up;
//! - [`engine`]: the trait behind which the records are kept; [`embedded`] (one redb file) is one.
//!   Another store is another implementation of it and another [`Kind`];
//! - [`memory`]: histories without a file, for tests and caches.
//!
//! Rejected: writing before the map is changed, which puts a sync into the way of every record;
//! a log of our own beside the tables, which doubles what recovery has to prove.

mod embedded;
mod engine;
mod history;
mod memory;
mod queue;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::embedded::medium::{FileMedium, Medium};
use self::embedded::{Birth, Embedded, Settings};
use self::engine::{Engine, Marks};
use self::memory::Memory;
use self::writer::{CLOCK_LEASE_US, Shared, Writer};
use crate::record::{NodeName, Now, Record, SharedRecord, Source, Stamp};

pub use self::engine::{EngineError, LoadReport};
pub use self::history::{CursorError, HistoryCursor, HistoryPage, HistoryQuery};

/// How the store reads the time, which it only measures with and never waits by.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// The tables' file inside the data directory.
const FILE_NAME: &str = "anode.redb";
/// Locked for as long as a process uses the directory.
const LOCK_NAME: &str = "anode.lock";
/// How long dropping the last handle waits for what was pushed. [`StoreHandle::close`] is the way
/// to wait longer, and to know.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where records are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// In one file of the data directory.
    #[default]
    Embedded,
    /// Nowhere: the data directory is not touched.
    Memory,
}

/// How the store is opened.
#[derive(Clone)]
pub struct Options {
    /// Records kept a source, the latest included. More: longer histories, a larger file, no
    /// slower start. 0: no history at all. Default 256.
    pub history: u32,
    /// The node's name. Wins over the one that is kept, and is kept from then on. `None`: the kept
    /// one, else one made up from `seed`.
    pub node_name: Option<NodeName>,
    /// Chance for a name that is made up.
    pub seed: u64,
    /// The time.
    pub clock: Clock,
    /// Memory for pages of the file, in bytes. More: fewer reads when writing to a large file.
    /// Default 128 MiB.
    pub cache_bytes: usize,
}

impl Options {
    /// Defaults.
    pub fn new(clock: Clock, seed: u64) -> Options {
        Options { history: 256, node_name: None, seed, clock, cache_bytes: 128 * 1024 * 1024 }
    }
}

/// Who the node is in this life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub node_name: NodeName,
    /// This life's number: greater than every one before, kept before anyone is told.
    pub boot: u64,
    /// No earlier life issued a stamp over this.
    pub clock_high_water: u64,
    /// When the node last agreed fully with the cluster, in microseconds since the Unix epoch.
    pub agreed_us: Option<u64>,
}

/// Why the store cannot be opened. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("data directory {0:?} is in use by another process")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{path:?}: {source}")]
    Io {
        /// What could not be opened.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged, or no store.
    #[error("{path:?} cannot be opened: {reason}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file was written by another version of the program.
    #[error("the store has format {found}; this program knows format {known}")]
    Format {
        /// In the file.
        found: u64,
        /// In the program.
        known: u64,
    },
    /// The new life could not be counted; it may have been.
    #[error("the store cannot be written: {0}")]
    Write(String),
}

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
    /// Their bytes.
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
    engine: Arc<dyn Engine>,
    history: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Holds the data directory.
    _lock: Option<File>,
}

impl StoreHandle {
    /// Opens the store in `dir`, which is made if need be, for this process alone. The boot number
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
                };
                let inner = Arc::new(Inner::Memory(Memory::new(options.history)));
                Ok((StoreHandle { inner }, identity))
            }
            Kind::Embedded => {
                let lock = lock_dir(dir)?;
                let medium = Box::new(FileMedium::new(dir.join(FILE_NAME)));
                StoreHandle::open_embedded(medium, options, Some(lock))
            }
        }
    }

    fn open_embedded(
        medium: Box<dyn Medium>,
        options: Options,
        lock: Option<File>,
    ) -> Result<(StoreHandle, Identity), OpenError> {
        let birth = birth(&options);
        let lease_us = birth.clock_lease_us;
        let path = medium.path();
        let settings = Settings { history: options.history, cache_bytes: options.cache_bytes };
        let (embedded, identity) = Embedded::open(medium, settings, birth)?;
        let engine: Arc<dyn Engine> = Arc::new(embedded);
        let kept = Marks {
            clock_high_water_us: identity.clock_high_water.max(lease_us),
            agreed_us: identity.agreed_us.unwrap_or(0),
        };
        let shared = Arc::new(Shared::new(options.clock, kept));
        let writer = Writer::new(shared.clone(), engine.clone(), identity.clock_high_water);
        let thread = std::thread::Builder::new()
            .name("anode-store".into())
            .spawn(|| writer.run())
            .map_err(|source| OpenError::Io { path, source })?;
        let writer = Mutex::new(Some(thread));
        let written = Written { shared, engine, history: options.history, writer, _lock: lock };
        Ok((StoreHandle { inner: Arc::new(Inner::Written(written)) }, identity))
    }

    /// Shows the latest record of every source, in order of name, each verified; a damaged one is
    /// counted, logged and skipped. Blocks its thread for as long as that takes.
    pub fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, EngineError> {
        match &*self.inner {
            Inner::Memory(_) => Ok(LoadReport::default()),
            Inner::Written(written) => written.engine.load(each),
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
                written.shared.ring();
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
                written.shared.ring();
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
            Inner::Written(written) => written.shared.queue.waiting_bytes() >= queue::MERGE_BYTES_MIN,
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

    /// Gives the store the map to catch up from.
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
                let stamps: Vec<Stamp> = queue::ascending(&refs).iter().map(|record| record.stamp).collect();
                let hidden = waiting.len().saturating_sub(written.history as usize);
                query.unwritten = &stamps;
                // One more tells whether there is a next page.
                query.limit = limit.saturating_add(1);
                let stored = if removed { Vec::new() } else { written.engine.history(&query)? };
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
            pending_records: queue.records(),
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

fn birth(options: &Options) -> Birth {
    let now = (options.clock)();
    Birth {
        node_name: options.node_name.clone(),
        made_up: made_up_name(options.seed, now),
        boot_min: now.wall_us / 1000,
        clock_lease_us: now.wall_us.saturating_add(CLOCK_LEASE_US),
    }
}

/// A name that no other node will think of.
fn made_up_name(seed: u64, now: Now) -> NodeName {
    let hash = xxh3_64_with_seed(&now.wall_us.to_le_bytes(), seed);
    let name = format!("node-{:012x}", hash & 0xffff_ffff_ffff);
    NodeName::parse(&name).unwrap_or_else(|_| unreachable!("letters, digits and a dash"))
}

fn lock_dir(dir: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    let path = dir.join(LOCK_NAME);
    let lock = File::options().create(true).append(true).open(&path).map_err(failed(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}
