//! The state that the handles of a store and the thread that writes it share.
//!
//! A push goes into the [`queue`](WritePath::queue) and rings the [`bell`](WritePath::bell); the thread takes
//! what waits, writes it, and raises the [`durable`](WritePath::durable) mark. Besides, the thread reports
//! the condition of the store, and keeps the node's [`marks`](WritePath::marks).

mod bell;
mod durable;
mod health;
mod marks;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub(super) use self::bell::Bell;
pub(super) use self::durable::DurableMark;
use self::health::StoreCondition;
pub use self::health::StoreHealth;
pub(super) use self::marks::{Marks, NodeMarks};
use super::open::Clock;
use super::queue::{Ticket, WriteQueue};
use crate::record::SharedRecord;

/// The map of latest records, as the store needs it to catch up after it had to drop what did not fit.
pub trait LatestRecords: Send + Sync {
    /// Shows every record of a shard of the map, deletions and expired ones included.
    fn visit(&self, shard: usize, each: &mut dyn FnMut(&SharedRecord));
    /// Returns whether the map has any record of a source, a deletion included.
    fn holds(&self, source: &str) -> bool;
}

/// A function that is told how long a group of records took to become durable, in microseconds.
pub(super) type CommitObserver = Box<dyn Fn(u64) + Send + Sync>;

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of records that wait or are being written.
    pub pending_records: usize,
    /// Memory of the records that wait, in bytes, without those that are being written.
    pub pending_bytes: usize,
    /// Number of records that wait on the disk because Cassandra is away.
    pub spilled_records: usize,
}

/// The state that the handles and the thread that writes share. The handles push, wait and query; the thread
/// takes, writes and reports.
pub(super) struct WritePath {
    /// The changes that wait to be written.
    pub(super) queue: WriteQueue,
    /// Wakes the thread that writes.
    pub(super) bell: Bell,
    /// The node's marks, and whether they must be written.
    pub(super) marks: NodeMarks,
    /// Reads the time.
    pub(super) clock: Clock,
    durable: DurableMark,
    condition: StoreCondition,
    subscribers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    latest: Mutex<Option<Arc<dyn LatestRecords>>>,
    /// Whether subscribers were last notified of good health by [`WritePath::announce_health`].
    was_open: AtomicBool,
    /// Number of records that wait on the disk.
    spilled: AtomicUsize,
    /// Called with the time that a group took to become durable, in microseconds.
    commit_observer: OnceLock<CommitObserver>,
}

impl WritePath {
    /// `kept`: the marks as the store has them after opening.
    pub(super) fn new(clock: Clock, queue_bytes_max: usize, kept: Marks) -> WritePath {
        WritePath {
            queue: WriteQueue::new(queue_bytes_max),
            bell: Bell::default(),
            marks: NodeMarks::new(kept),
            clock,
            durable: DurableMark::default(),
            condition: StoreCondition::default(),
            subscribers: Mutex::default(),
            latest: Mutex::default(),
            was_open: AtomicBool::new(true),
            spilled: AtomicUsize::new(0),
            commit_observer: OnceLock::new(),
        }
    }

    /// The durable mark, to read and to wait for.
    pub(super) fn durable(&self) -> &DurableMark {
        &self.durable
    }

    /// Raises the durable mark to `written`, or to the ticket before the first one that was `lost`.
    pub(super) fn raise_durable(&self, written: Ticket, lost: Option<Ticket>) {
        let durable = lost.map_or(written, |lost| written.min(Ticket(lost.0.saturating_sub(1))));
        debug_assert!(durable < self.queue.open_group(), "only what was taken can be durable");
        if self.durable.raise(durable) {
            self.notify();
        }
    }

    /// Notes that a group and these marks were committed.
    pub(super) fn handle_committed(&self, marks: Marks) {
        self.marks.handle_kept(marks);
        self.set_trouble(None);
    }

    /// Notifies subscribers if the health has changed since the last call, as when the queue became full. The
    /// writer calls this after each turn; errors are notified where they happen.
    pub(super) fn announce_health(&self) {
        let is_open = self.health() == StoreHealth::Open;
        if self.was_open.swap(is_open, Ordering::Relaxed) != is_open {
            self.notify();
        }
    }

    /// Sets the number of records that wait on the disk.
    pub(super) fn set_spilled(&self, records: usize) {
        self.spilled.store(records, Ordering::Relaxed);
    }

    /// Sets the function that is told how long each group took to become durable. The first one stays.
    pub(super) fn observe_commits(&self, observer: CommitObserver) {
        let _ = self.commit_observer.set(observer);
    }

    /// Tells how long a group took to become durable, in microseconds.
    pub(super) fn note_commit(&self, took_us: u64) {
        if let Some(observer) = self.commit_observer.get() {
            observer(took_us);
        }
    }

    /// Figures for the metrics.
    pub(super) fn stats(&self) -> StoreStats {
        let spilled_records = self.spilled.load(Ordering::Relaxed);
        let pending_bytes = self.queue.bytes();
        StoreStats { pending_records: self.queue.records() + spilled_records, pending_bytes, spilled_records }
    }

    /// Returns whether pushed records get written, and the reason if not.
    pub(super) fn health(&self) -> StoreHealth {
        self.condition.health(&self.queue)
    }

    /// Returns whether changes were dropped that the store has not caught up with yet.
    pub(super) fn needs_resync(&self) -> bool {
        self.condition.needs_resync(&self.queue)
    }

    /// The reason why nothing becomes durable for now, although pushed records are taken; `None` if there is
    /// none.
    pub(super) fn away(&self) -> Option<String> {
        self.condition.away()
    }

    /// Sets why commits fail; `None` when they succeed.
    pub(super) fn set_trouble(&self, reason: Option<String>) {
        if self.condition.set_trouble(reason) {
            self.notify();
        }
    }

    /// Sets why nothing becomes durable for now; `None` when it does again.
    pub(super) fn set_away(&self, reason: Option<String>) {
        if self.condition.set_away(reason) {
            self.notify();
        }
    }

    /// Sets whether the map is being read again to make up for what was dropped.
    pub(super) fn set_resyncing(&self, is_resyncing: bool) {
        if self.condition.set_resyncing(is_resyncing) {
            self.notify();
        }
    }

    /// Notes when the node last agreed fully with the cluster, and has that written if need be.
    pub(super) fn set_agreed(&self, us: u64) {
        if self.marks.raise_agreed(us) {
            self.bell.ring();
        }
    }

    /// Notes a boot number that the node has taken while it runs, and has it written.
    pub(super) fn set_boot(&self, boot: u64) {
        if self.marks.raise_boot(boot) {
            self.bell.ring();
        }
    }

    /// The map to catch up from, once it is attached.
    pub(super) fn latest(&self) -> Option<Arc<dyn LatestRecords>> {
        self.latest.lock().clone()
    }

    /// Sets the map to catch up from.
    pub(super) fn attach(&self, latest: Arc<dyn LatestRecords>) {
        *self.latest.lock() = Some(latest);
        self.bell.ring();
    }

    /// Adds a function to be called whenever the durable mark or the health has changed.
    pub(super) fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.subscribers.lock().push(subscriber);
    }

    /// Calls every subscriber.
    pub(super) fn notify(&self) {
        for subscriber in &*self.subscribers.lock() {
            subscriber();
        }
    }
}

/// Guard of the thread that writes: when it is dropped, at an orderly end or in a panic, everyone learns
/// that nothing is written any more.
pub(super) struct WriterGuard(pub(super) Arc<WritePath>);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "the store's writer died" } else { "the store is closed" };
        self.0.set_trouble(Some(reason.into()));
        self.0.durable.set_ended();
    }
}
