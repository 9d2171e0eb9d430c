//! The queue of changes that wait for the store: bounded in bytes, and merged when the store lags.
//!
//! The queue is a few append-only logs (lanes), chosen by a hash of the source, so that pushes of
//! different map shards seldom meet at one lock. Three regimes, by the bytes that wait ([`QueueBounds`]):
//!
//! - few: every change is appended, so history gets every record;
//! - from `merge_bytes`: a push replaces its source's chain by itself, so what waits grows with
//!   the number of sources and no longer with the rate. Only history loses by it;
//! - at `max_bytes`: what does not fit is dropped and counted, and the queue remembers
//!   since when. The map still holds it; the writer reads the map again when the store works.
//!
//! A ticket is the number of the group a push will be written with at the latest, not a count of
//! pushes: a push then touches no shared counter, and durability is one number per group. Rejected:
//! a ticket per record, which needs one lock for all lanes or a table of holes; one log for all,
//! whose lock every worker would share; merging always, which would lose history with no need.

mod group;
mod log;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub(super) use self::group::{WriteGroup, ascending};
pub(super) use self::log::CHANGE_BYTES;
use self::log::{ChangeLog, LogSize, QueuedChange, hash_of};
use crate::record::hash::name_hash;
use crate::record::{SharedRecord, Source, Stamp};

/// Number of lanes, each with a lock of its own: enough that the workers of one machine seldom meet.
const LANES: usize = 16;
/// Value of `lost_from` while no group has lost anything.
const NEVER: u64 = u64::MAX;

/// Place in the order of what is written: everything pushed with a ticket up to the store's durable mark
/// survives a power cut. Several pushes may share one ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Numbers of bytes that wait at which the queue changes its regime.
#[derive(Clone, Copy, Debug)]
struct QueueBounds {
    /// Number of bytes from which on a push replaces the waiting record of its source.
    merge_bytes: usize,
    /// Number of bytes from which on the store counts as failing and publishes are refused. The room beyond
    /// is for records of peers.
    full_bytes: usize,
    /// A change with which more than this would wait is dropped.
    max_bytes: usize,
}

impl QueueBounds {
    /// Half of `bytes_max` may wait; as much again may be in the group that is being written.
    fn within(bytes_max: usize) -> QueueBounds {
        let max_bytes = bytes_max / 2;
        QueueBounds { merge_bytes: max_bytes / 2, full_bytes: max_bytes / 8 * 7, max_bytes }
    }
}

#[derive(Default)]
struct QueueLane {
    waiting: ChangeLog,
    /// Changes that the writer took and has not yet committed.
    flying: Option<Arc<ChangeLog>>,
}

/// Records of one source that are not in the store yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unwritten {
    /// Whether a removal comes before the records, so that nothing of the source that is in the store
    /// counts.
    pub(super) is_removed: bool,
    /// Records in the order of their pushes.
    pub(super) records: Vec<SharedRecord>,
}

/// The queue between everyone who pushes and the one thread that writes. Every method is a short
/// critical section in memory and never waits for the store.
///
/// The writer alone calls [`WriteQueue::take`], and [`WriteQueue::handle_written`] before it takes again.
pub(super) struct WriteQueue {
    lanes: [Mutex<QueueLane>; LANES],
    bounds: QueueBounds,
    /// Number of the group that a push now belongs to at the latest; the first group is 1.
    group: AtomicU64,
    waiting_bytes: AtomicUsize,
    waiting_records: AtomicUsize,
    flying_records: AtomicUsize,
    /// The first group that a dropped change belonged to, or [`NEVER`].
    lost_from: AtomicU64,
}

impl WriteQueue {
    /// An empty queue that will take at most `bytes_max`, what is being written included.
    pub(super) fn new(bytes_max: usize) -> WriteQueue {
        WriteQueue {
            bounds: QueueBounds::within(bytes_max),
            lanes: Default::default(),
            group: AtomicU64::new(1),
            waiting_bytes: AtomicUsize::new(0),
            waiting_records: AtomicUsize::new(0),
            flying_records: AtomicUsize::new(0),
            lost_from: AtomicU64::new(NEVER),
        }
    }

    /// Takes a record that became the latest of its source.
    pub(super) fn push(&self, record: &SharedRecord) -> Ticket {
        let hash = hash_of(&record.source);
        let source = record.source.as_str();
        let cost = record.cost_bytes() + CHANGE_BYTES;
        let mut lane = self.lane(hash).lock();
        // Read under the lane's lock: the writer raises it before it takes the lane.
        let ticket = self.group.load(Ordering::Acquire);
        if self.waiting_bytes.load(Ordering::Relaxed) + cost > self.bounds.merge_bytes {
            if let Some(newest) = lane.waiting.newest(hash, source) {
                return self.merge(&mut lane.waiting, newest, record, Ticket(ticket));
            }
            if !self.fits(cost) {
                self.freed(lane.waiting.merge_all());
                if !self.fits(cost) {
                    return self.drop_change(ticket);
                }
            }
        }
        lane.waiting.append(hash, source, QueuedChange::of_record(record));
        self.added(LogSize { records: 1, bytes: cost });
        Ticket(ticket)
    }

    /// Lets a record take the place of everything that waits of its source.
    fn merge(&self, waiting: &mut ChangeLog, newest: u32, record: &SharedRecord, ticket: Ticket) -> Ticket {
        self.freed(waiting.merge_chain(newest));
        let change = waiting.change(newest);
        // A record that is written for a node that is gone may have been overtaken by a newer one.
        if change.and_then(QueuedChange::record).is_some_and(|waits| waits.stamp > record.stamp) {
            return ticket;
        }
        let old = change.map_or(0, QueuedChange::cost_bytes);
        if !self.fits((record.cost_bytes() + CHANGE_BYTES).saturating_sub(old)) {
            return self.drop_change(ticket.0);
        }
        self.added(LogSize { records: 1, bytes: record.cost_bytes() });
        self.freed(waiting.replace_newest(newest, record));
        ticket
    }

    /// Takes the removal of a source, unless a newer record of it waits.
    pub(super) fn remove(&self, source: &Source, stamp: Stamp) -> Ticket {
        let hash = hash_of(source);
        let mut lane = self.lane(hash).lock();
        let ticket = self.group.load(Ordering::Acquire);
        let change = QueuedChange::of_removal(source, stamp);
        let newest = lane.waiting.newest(hash, source.as_str());
        let newest = newest.and_then(|at| lane.waiting.change(at)?.record());
        if newest.is_some_and(|record| record.stamp > stamp) {
            return Ticket(ticket);
        }
        let cost = change.cost_bytes();
        if !self.fits(cost) {
            return self.drop_change(ticket);
        }
        // The removal covers the records that were pushed before it, so they need not be written.
        lane.waiting.append(hash, source.as_str(), change);
        self.added(LogSize { records: 0, bytes: cost });
        if let Some(newest) = lane.waiting.newest(hash, source.as_str()) {
            let freed = lane.waiting.merge_chain(newest);
            self.waiting_bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
            self.waiting_records.fetch_sub(freed.records, Ordering::Relaxed);
        }
        Ticket(ticket)
    }

    /// Closes the open group and takes everything that waits. The number of the group is the ticket
    /// that is durable once this group, and all before it, is written.
    pub(super) fn take(&self) -> (Ticket, WriteGroup) {
        let closed = self.group.fetch_add(1, Ordering::AcqRel);
        let mut taken = LogSize::default();
        let mut logs = Vec::new();
        for lane in &self.lanes {
            let mut lane = lane.lock();
            debug_assert!(lane.flying.is_none(), "the group before is written");
            if lane.waiting.is_empty() {
                continue;
            }
            let log = Arc::new(std::mem::take(&mut lane.waiting));
            debug_assert_eq!(log.size(), log.recount(), "a log's size is that of its changes");
            taken.records += log.size().records;
            taken.bytes += log.size().bytes;
            lane.flying = Some(log.clone());
            logs.push(log);
        }
        let records = self.waiting_records.fetch_sub(taken.records, Ordering::Relaxed);
        let bytes = self.waiting_bytes.fetch_sub(taken.bytes, Ordering::Relaxed);
        debug_assert!(records >= taken.records && bytes >= taken.bytes, "all that waits is counted");
        self.flying_records.fetch_add(taken.records, Ordering::Relaxed);
        (Ticket(closed), WriteGroup::of_logs(logs))
    }

    /// Forgets the group that was taken last, because it is written.
    pub(super) fn handle_written(&self) {
        for lane in &self.lanes {
            lane.lock().flying = None;
        }
        self.flying_records.store(0, Ordering::Relaxed);
    }

    /// Records of a source that wait or are being written.
    pub(super) fn unwritten(&self, source: &str) -> Unwritten {
        let hash = name_hash(source);
        let lane = self.lane(hash).lock();
        let (mut unwritten, mut part) = (Unwritten::default(), Vec::new());
        for log in lane.flying.as_deref().into_iter().chain([&lane.waiting]) {
            let Some(newest) = log.newest(hash, source) else { continue };
            if log.chain(newest, &mut part).is_some() {
                unwritten = Unwritten { is_removed: true, records: Vec::new() };
            }
            unwritten.records.extend(part.iter().map(|&record| record.clone()));
        }
        unwritten
    }

    /// The ticket that a push would get now.
    pub(super) fn open_group(&self) -> Ticket {
        Ticket(self.group.load(Ordering::Acquire))
    }

    /// The first ticket that cannot become durable, because a change of its group was dropped.
    pub(super) fn lost_from(&self) -> Option<Ticket> {
        Some(self.lost_from.load(Ordering::Acquire)).filter(|&from| from != NEVER).map(Ticket)
    }

    /// Returns [`WriteQueue::lost_from`] and resets it, so that later losses are counted anew. For a writer
    /// that is about to make up for the losses.
    pub(super) fn take_lost(&self) -> Option<Ticket> {
        Some(self.lost_from.swap(NEVER, Ordering::AcqRel)).filter(|&from| from != NEVER).map(Ticket)
    }

    /// Notes that a group that was taken cannot be written: its ticket and later ones are lost.
    pub(super) fn lose(&self, ticket: Ticket) {
        debug_assert!(ticket < self.open_group(), "only a group that was taken can be lost");
        self.lost_from.fetch_min(ticket.0, Ordering::AcqRel);
    }

    /// Returns whether nothing waits; a group may still be in writing.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting_bytes.load(Ordering::Acquire) == 0
    }

    /// Returns whether pushes are merged.
    pub(super) fn is_lagging(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) >= self.bounds.merge_bytes
    }

    /// Returns whether the queue is so full that only peers' records are still taken.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) >= self.bounds.full_bytes
    }

    /// Number of records that wait or are being written.
    pub(super) fn records(&self) -> usize {
        self.waiting_records.load(Ordering::Relaxed) + self.flying_records.load(Ordering::Relaxed)
    }

    /// Memory of the records that wait, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    fn lane(&self, hash: u64) -> &Mutex<QueueLane> {
        // The lanes are chosen by upper bits, which the lanes' own tables use least.
        &self.lanes[(hash >> 32) as usize % LANES]
    }

    fn fits(&self, more: usize) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) + more <= self.bounds.max_bytes
    }

    fn added(&self, size: LogSize) {
        self.waiting_bytes.fetch_add(size.bytes, Ordering::Relaxed);
        self.waiting_records.fetch_add(size.records, Ordering::Relaxed);
    }

    fn freed(&self, freed: LogSize) {
        self.waiting_bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
        self.waiting_records.fetch_sub(freed.records, Ordering::Relaxed);
    }

    fn drop_change(&self, ticket: u64) -> Ticket {
        self.lost_from.fetch_min(ticket, Ordering::AcqRel);
        Ticket(ticket)
    }
}
