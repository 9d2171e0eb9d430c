//! The handle by which the rest of the node uses its store.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::backend::{Backend, Intake, LoadReport, OpenBackend};
use super::data_dir::DirLock;
use super::error::StoreError;
use super::history::page;
use super::open::{BackendKind, NodeIdentity, OpenError, StoreOptions};
use super::placement::Placement;
use super::queue::{Ticket, ascending};
use super::rings::HistoryRings;
use super::write_path::{LatestRecords, StoreHealth, StoreStats, WritePath};
use super::{cassandra, embedded, memory};
use crate::cluster::Heads;
use crate::record::{HistoryPage, HistoryQuery, Now, Record, SharedRecord, Source, Stamp};

/// Longest time for which dropping the last handle waits until pushed records are written.
/// [`StoreHandle::close`] can wait longer, and returns whether they were.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a backend: one line for each kind.
fn open_backend(kind: BackendKind, dir: &Path, options: StoreOptions) -> Result<OpenBackend, OpenError> {
    match kind {
        BackendKind::Embedded => embedded::open(dir, options),
        BackendKind::Memory => memory::open(options),
        BackendKind::Cassandra(config) => cassandra::open(&config, dir, options),
    }
}

/// The handle of a store. Clones share the store; when the last one is dropped, it is closed.
#[derive(Clone)]
pub struct StoreHandle {
    inner: Arc<OpenStore>,
}

struct OpenStore {
    path: Arc<WritePath>,
    /// Takes every push at once, if the store has no thread that writes.
    memory: Option<Arc<HistoryRings>>,
    backend: Arc<dyn Backend>,
    placement: Placement,
    writer: Mutex<Option<JoinHandle<()>>>,
    lock: Option<DirLock>,
}

impl StoreHandle {
    /// Opens the store in `dir`, which is made if need be, for this process alone; `DIR/*` is one of
    /// several numbered ones. The boot number survives a power cut when this returns.
    pub fn open(
        kind: BackendKind,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<(StoreHandle, NodeIdentity), OpenError> {
        open_backend(kind, dir, options).and_then(StoreHandle::start)
    }

    /// Starts the thread that writes, if the backend has one.
    pub(super) fn start(opened: OpenBackend) -> Result<(StoreHandle, NodeIdentity), OpenError> {
        let OpenBackend { identity, path, backend, intake, place, lock } = opened;
        let (memory, writer) = match intake {
            Intake::Memory(rings) => (Some(rings), None),
            Intake::Queue(run) => {
                let thread = std::thread::Builder::new().name("anode-store".into()).spawn(run);
                (None, Some(thread.map_err(|source| OpenError::Io { path: place, source })?))
            }
        };
        let placement = Placement::new(backend.sharing(), identity.node_name.clone());
        let writer = Mutex::new(writer);
        let inner = OpenStore { path, memory, backend, placement, writer, lock };
        Ok((StoreHandle { inner: Arc::new(inner) }, identity))
    }

    /// Passes the latest record of every source to `each`, each verified; a damaged one is counted, logged
    /// and skipped. Blocks its thread for as long as that takes.
    pub fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, StoreError> {
        self.inner.backend.load(each)
    }

    /// Notes that the data directory is in use, for the choice among numbered ones after a `kill -9`.
    pub(crate) fn note_use(&self, now: Now) {
        if let Some(lock) = &self.inner.lock {
            lock.note_use(now);
        }
    }

    /// Returns whether a load that was partial can be repeated now.
    pub(crate) fn is_load_owed(&self) -> bool {
        self.inner.backend.is_load_owed()
    }

    /// The policy that decides which records this node writes into the store.
    pub(crate) fn placement(&self) -> &Placement {
        &self.inner.placement
    }

    /// Takes a record that has become the latest of its source. Called under the lock of the
    /// source's map shard, in the order in which its records were applied: memory only, never waits.
    pub fn push(&self, record: &SharedRecord) -> Ticket {
        let OpenStore { path, memory, .. } = &*self.inner;
        if let Some(rings) = memory {
            rings.push(record);
            return Ticket(0);
        }
        let ticket = path.queue.push(record);
        path.bell.ring_for_push();
        ticket
    }

    /// Removes a source that was collected: its latest record, if its stamp is not greater than `stamp`, and
    /// its history. Called under the same lock as [`StoreHandle::push`].
    pub(crate) fn remove(&self, source: &Source, stamp: Stamp) -> Ticket {
        let OpenStore { path, memory, .. } = &*self.inner;
        if let Some(rings) = memory {
            rings.remove(source, stamp);
            return Ticket(0);
        }
        let ticket = path.queue.remove(source, stamp);
        path.bell.ring_for_push();
        ticket
    }

    /// Returns the ticket that covers everything pushed so far, and wakes the writer.
    pub(crate) fn barrier(&self) -> Ticket {
        let OpenStore { path, memory, .. } = &*self.inner;
        if memory.is_some() {
            return Ticket(0);
        }
        let ticket = path.queue.open_group();
        path.bell.ring();
        ticket
    }

    /// The store's mark: everything up to this ticket survives a power cut. A store in memory gives out no
    /// ticket greater than its mark, since what is pushed there is at once as durable as it will ever be.
    pub(crate) fn durable(&self) -> Ticket {
        self.inner.path.durable().get()
    }

    /// Returns whether pushed records get written, and the reason if not.
    pub(crate) fn health(&self) -> StoreHealth {
        self.inner.path.health()
    }

    /// The reason why nothing becomes durable for now, although pushed records are taken; `None` if there is
    /// none.
    pub(crate) fn away(&self) -> Option<String> {
        self.inner.path.away()
    }

    /// Returns whether the queue already merges: peers that send a whole map should be read more slowly.
    pub fn is_lagging(&self) -> bool {
        self.inner.path.queue.is_lagging()
    }

    /// Gives the store the map to catch up from. Only once the map holds what
    /// [`StoreHandle::load`] showed: catching up removes what the map does not hold.
    pub(crate) fn attach(&self, latest: Arc<dyn LatestRecords>) {
        self.inner.path.attach(latest);
    }

    /// Calls `subscriber` whenever [`StoreHandle::durable`] or [`StoreHandle::health`] has changed,
    /// from the writer's thread: it must be short and must not subscribe.
    pub(crate) fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.inner.path.subscribe(subscriber);
    }

    /// Sets when the node last agreed fully with the cluster, in microseconds since the Unix epoch. Kept with
    /// the next commit, and within a minute of advance in any case.
    pub(crate) fn set_agreed(&self, us: u64) {
        self.inner.path.set_agreed(us);
    }

    /// Sets a boot number that the node has taken while it runs, greater than that of its start. It is written at
    /// once, so that the next start takes a greater one.
    pub(crate) fn set_boot(&self, boot: u64) {
        self.inner.path.set_boot(boot);
    }

    /// Sets the heads of the records that this node holds, all of them pushed already. If the store then ends
    /// in order with nothing lost, the next start finds the heads in its [`NodeIdentity`]; after a kill it
    /// does not.
    pub(crate) fn keep_heads(&self, heads: Heads) {
        self.inner.path.marks.set_heads(heads);
    }

    /// A page of the records of a source that were the latest here, newest first, including records that are
    /// not written yet.
    pub(crate) fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        let OpenStore { path, backend, .. } = &*self.inner;
        // The queue is read first: a record that is written meanwhile is then seen twice and not missed.
        let waiting = path.queue.unwritten(&query.source);
        let refs: Vec<&SharedRecord> = waiting.records.iter().collect();
        let stamps: Vec<Stamp> = ascending(&refs).iter().map(|record| record.stamp).collect();
        let hidden = waiting.records.len().saturating_sub(backend.history_len_max());
        let written = if waiting.is_removed {
            Vec::new()
        } else {
            // One more record tells whether there is a next page.
            let one_more = HistoryQuery { limit: query.limit.saturating_add(1), ..query.clone() };
            backend.history(&one_more, &stamps)?
        };
        Ok(page(query, &waiting.records[hidden..], written))
    }

    /// Sets a function that is told how long each group of records took to become durable, in microseconds. It is called
    /// by the thread that writes.
    pub fn observe_commits(&self, observer: Box<dyn Fn(u64) + Send + Sync>) {
        self.inner.path.observe_commits(observer);
    }

    /// Figures for the metrics.
    pub fn stats(&self) -> StoreStats {
        self.inner.path.stats()
    }

    /// Waits until everything pushed so far is durable. Returns `false` if that takes longer than
    /// `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.inner.path.durable().wait(self.barrier(), timeout)
    }

    /// Writes what waits and closes the store. Returns `false` if that took longer than `timeout`, and
    /// what was not written is given up. What is pushed afterwards is never durable.
    pub fn close(&self, timeout: Duration) -> bool {
        self.inner.close(timeout)
    }

    /// Returns whether changes were dropped that the store has not caught up with yet.
    #[cfg(test)]
    pub(super) fn needs_resync(&self) -> bool {
        self.inner.path.needs_resync()
    }
}

impl OpenStore {
    fn close(&self, timeout: Duration) -> bool {
        let Some(thread) = self.writer.lock().take() else { return true };
        self.path.bell.stop(false);
        if !self.path.durable().wait_ended(timeout) {
            self.path.bell.stop(true);
            return false;
        }
        thread.join().is_ok()
    }
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        self.close(DROP_TIMEOUT);
    }
}
