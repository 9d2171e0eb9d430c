//! What waits for the store: bounded in bytes, and merged when the store lags.
//!
//! The queue is a few append-only logs (lanes), chosen by a hash of the source, so that pushes of
//! different map shards seldom meet at one lock. Three regimes, by the bytes that wait ([`Bounds`]):
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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::Ticket;
use super::log::{CHANGE_BYTES, Change, Freed, Group, Log, hash_of};
use crate::record::{SharedRecord, Source, Stamp};

/// Locks of the queue: enough that the workers of one machine seldom meet.
const LANES: usize = 16;
/// No group has lost anything.
const NEVER: u64 = u64::MAX;

/// When the queue changes its ways, in bytes that wait.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// From here on a push replaces what waits of its source.
    merge_bytes: usize,
    /// From here on the store counts as failing, and publishes are refused; the rest is for peers.
    full_bytes: usize,
    /// More does not fit.
    max_bytes: usize,
}

impl Bounds {
    /// Half of `bytes_max` may wait; as much again may be in the group that is being written.
    fn within(bytes_max: usize) -> Bounds {
        let max_bytes = bytes_max / 2;
        Bounds { merge_bytes: max_bytes / 2, full_bytes: max_bytes / 8 * 7, max_bytes }
    }
}

#[derive(Default)]
struct Lane {
    waiting: Log,
    /// What the writer took and has not yet committed.
    flying: Option<Arc<Log>>,
}

/// The queue. Everything on it is a short critical section in memory.
pub(super) struct Queue {
    lanes: [Mutex<Lane>; LANES],
    bounds: Bounds,
    /// The group that a push now belongs to, at the latest. From 1.
    group: AtomicU64,
    waiting_bytes: AtomicUsize,
    waiting_records: AtomicUsize,
    flying_bytes: AtomicUsize,
    flying_records: AtomicUsize,
    merged: AtomicU64,
    dropped: AtomicU64,
    /// The first group that a dropped change belonged to, or [`NEVER`].
    lost_from: AtomicU64,
}

impl Queue {
    /// A queue of at most `bytes_max`, what is being written included.
    pub(super) fn new(bytes_max: usize) -> Queue {
        Queue {
            bounds: Bounds::within(bytes_max),
            lanes: Default::default(),
            group: AtomicU64::new(1),
            waiting_bytes: AtomicUsize::new(0),
            waiting_records: AtomicUsize::new(0),
            flying_bytes: AtomicUsize::new(0),
            flying_records: AtomicUsize::new(0),
            merged: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
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
                self.freed(lane.waiting.merge_chain(newest));
                let old = lane.waiting.change(newest).map_or(0, Change::cost_bytes);
                if !self.fits(cost.saturating_sub(old)) {
                    return self.drop_change(ticket);
                }
                self.added(record.cost_bytes(), 1);
                self.freed(lane.waiting.replace_newest(newest, record));
                return Ticket(ticket);
            }
            if !self.fits(cost) {
                self.freed(lane.waiting.merge_all());
                if !self.fits(cost) {
                    return self.drop_change(ticket);
                }
            }
        }
        lane.waiting.append(hash, source, Change::of_record(record));
        self.added(cost, 1);
        Ticket(ticket)
    }

    /// Takes the removal of a source, unless a newer record of it waits.
    pub(super) fn remove(&self, source: &Source, stamp: Stamp) -> Ticket {
        let hash = hash_of(source);
        let mut lane = self.lane(hash).lock();
        let ticket = self.group.load(Ordering::Acquire);
        let change = Change::of_removal(source, stamp);
        let newest = lane.waiting.newest(hash, source.as_str());
        let newest = newest.and_then(|at| lane.waiting.change(at)?.record.as_ref());
        if newest.is_some_and(|record| record.stamp > stamp) {
            return Ticket(ticket);
        }
        let cost = change.cost_bytes();
        if !self.fits(cost) {
            return self.drop_change(ticket);
        }
        // What was pushed before goes with the removal: it need not be written at all.
        lane.waiting.append(hash, source.as_str(), change);
        self.added(cost, 0);
        if let Some(newest) = lane.waiting.newest(hash, source.as_str()) {
            let freed = lane.waiting.merge_chain(newest);
            self.waiting_bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
            self.waiting_records.fetch_sub(freed.records, Ordering::Relaxed);
        }
        Ticket(ticket)
    }

    /// Closes the open group and takes everything that waits; its number is the ticket that is
    /// durable once the group, and all before it, is written.
    pub(super) fn take(&self) -> (Ticket, Group) {
        let closed = self.group.fetch_add(1, Ordering::AcqRel);
        let (mut records, mut bytes) = (0, 0);
        let mut group = Group::default();
        for lane in &self.lanes {
            let mut lane = lane.lock();
            if lane.waiting.is_empty() {
                continue;
            }
            let log = Arc::new(std::mem::take(&mut lane.waiting));
            records += log.records;
            bytes += log.bytes;
            lane.flying = Some(log.clone());
            group.logs.push(log);
        }
        self.waiting_records.fetch_sub(records, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.flying_records.fetch_add(records, Ordering::Relaxed);
        self.flying_bytes.fetch_add(bytes, Ordering::Relaxed);
        (Ticket(closed), group)
    }

    /// Forgets the group taken last: it is written.
    pub(super) fn written(&self) {
        for lane in &self.lanes {
            lane.lock().flying = None;
        }
        self.flying_records.store(0, Ordering::Relaxed);
        self.flying_bytes.store(0, Ordering::Relaxed);
    }

    /// What waits or is being written of a source, oldest first; `true` with it: a removal comes
    /// before, so nothing that is in the store counts.
    pub(super) fn unwritten(&self, source: &str) -> (bool, Vec<SharedRecord>) {
        let hash = xxh3_64(source.as_bytes());
        let lane = self.lane(hash).lock();
        let (mut removed, mut all, mut part) = (false, Vec::new(), Vec::new());
        for log in lane.flying.as_deref().into_iter().chain([&lane.waiting]) {
            let Some(newest) = log.newest(hash, source) else { continue };
            if log.chain(newest, &mut part).is_some() {
                removed = true;
                all.clear();
            }
            all.extend(part.iter().map(|&record| record.clone()));
        }
        (removed, all)
    }

    /// The group that a push now would belong to.
    pub(super) fn open_group(&self) -> Ticket {
        Ticket(self.group.load(Ordering::Acquire))
    }

    /// The first ticket that cannot become durable, because something of it was dropped.
    pub(super) fn lost_from(&self) -> Option<Ticket> {
        Some(self.lost_from.load(Ordering::Acquire)).filter(|&from| from != NEVER).map(Ticket)
    }

    /// Starts to make up for the losses: what is lost from now on counts anew.
    pub(super) fn take_lost(&self) -> Option<Ticket> {
        Some(self.lost_from.swap(NEVER, Ordering::AcqRel)).filter(|&from| from != NEVER).map(Ticket)
    }

    /// A group that was taken cannot be written: its records count as dropped.
    pub(super) fn lose(&self, ticket: Ticket) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.lost_from.fetch_min(ticket.0, Ordering::AcqRel);
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting_bytes.load(Ordering::Acquire) == 0
    }

    /// Whether pushes are merged.
    pub(super) fn is_lagging(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) >= self.bounds.merge_bytes
    }

    /// Whether only peers' records are still taken.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) >= self.bounds.full_bytes
    }

    /// Waiting and being written.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed) + self.flying_bytes.load(Ordering::Relaxed)
    }

    /// Waiting and being written.
    pub(super) fn records(&self) -> usize {
        self.waiting_records.load(Ordering::Relaxed) + self.flying_records.load(Ordering::Relaxed)
    }

    pub(super) fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lane(&self, hash: u64) -> &Mutex<Lane> {
        // Bits that the lanes' own tables use least.
        &self.lanes[(hash >> 32) as usize % LANES]
    }

    fn fits(&self, more: usize) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) + more <= self.bounds.max_bytes
    }

    fn added(&self, bytes: usize, records: usize) {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waiting_records.fetch_add(records, Ordering::Relaxed);
    }

    fn freed(&self, freed: Freed) {
        self.waiting_bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
        self.waiting_records.fetch_sub(freed.records, Ordering::Relaxed);
        self.merged.fetch_add(freed.records as u64, Ordering::Relaxed);
    }

    fn drop_change(&self, ticket: u64) -> Ticket {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.lost_from.fetch_min(ticket, Ordering::AcqRel);
        Ticket(ticket)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::Record;
    use crate::store::testing::{record, shared};

    fn written(group: &Group) -> Vec<Record> {
        let mut all = Vec::new();
        let read: Result<(), ()> = group.each_source(|_, _, records| {
            all.extend(records.iter().map(|&record| (**record).clone()));
            Ok(())
        });
        assert_eq!(read, Ok(()));
        all
    }

    #[test]
    fn a_ticket_is_covered_by_the_take_that_follows() {
        let queue = Queue::new(1 << 20);
        let first = queue.push(&shared("a", 1));
        let (taken, group) = queue.take();
        assert!(first <= taken && group.records() == 1);
        let second = queue.push(&shared("a", 2));
        assert!(second > taken);
        assert_eq!((queue.records(), queue.unwritten("a").1.len()), (2, 2));
        queue.written();
        assert_eq!((queue.records(), queue.unwritten("a").1.len()), (1, 1));
    }

    /// hashicorp/consul#9927, prometheus/alertmanager#1409: queues without a bound under load. Here
    /// the bytes are bounded whatever is pushed, the newest of a source is kept, and what does not
    /// fit is counted and holds its tickets back.
    #[test]
    fn bytes_are_bounded_and_the_newest_stays() {
        let queue = Queue::new(64 * 1024);
        for ts in 1..=5_000 {
            for source in 0..8 {
                queue.push(&shared(&format!("s/{source}"), ts));
                assert!(queue.bytes() <= 32 * 1024);
            }
        }
        assert!(queue.merged() > 0 && !queue.is_full());
        assert_eq!((queue.dropped(), queue.lost_from()), (0, None));
        let (_, group) = queue.take();
        assert_eq!(queue.merged() + group.records() as u64, 8 * 5_000);
        let records = written(&group);
        for source in 0..8 {
            let name = format!("s/{source}");
            let last = records.iter().rfind(|record| record.source.as_str() == name);
            assert_eq!(last.map(|record| record.stamp.ts), Some(5_000));
        }
        queue.written();
        assert_eq!((queue.bytes(), queue.records()), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_holds_its_tickets_back() {
        let queue = Queue::new(64 * 1024);
        // Chains first, then so many sources that even the newest of each is too much.
        for ts in 1..=40 {
            queue.push(&shared("chain", ts));
        }
        let sources: Vec<String> = (0..300).map(|n| format!("s/{n}")).collect();
        let tickets: Vec<Ticket> = sources.iter().map(|name| queue.push(&shared(name, 1))).collect();
        assert!(queue.bytes() <= 32 * 1024 && queue.is_full());
        assert!(queue.dropped() > 0 && queue.records() < 300);
        assert_eq!(queue.lost_from(), Some(tickets[0]));
        // A record too large for what is left is dropped; the older one of its source still waits.
        let before = queue.dropped();
        let large = Arc::new(record("chain", 99, &vec![b'1'; 20_000]));
        queue.push(&large);
        assert_eq!(queue.dropped(), before + 1);
        assert_eq!(queue.unwritten("chain").1.last().map(|record| record.stamp.ts), Some(40));
        assert_eq!(queue.take_lost(), Some(tickets[0]));
        assert_eq!(queue.lost_from(), None);
    }

    #[test]
    fn a_removal_takes_what_waits_but_not_what_is_newer() {
        let queue = Queue::new(1 << 20);
        let (old, new) = (shared("a", 1), shared("a", 2));
        queue.push(&old);
        queue.push(&new);
        queue.remove(&old.source, old.stamp);
        assert_eq!(queue.unwritten("a"), (false, vec![old.clone(), new.clone()]));
        queue.remove(&new.source, new.stamp);
        assert_eq!(queue.unwritten("a"), (true, Vec::new()));
        queue.push(&old);
        assert_eq!(queue.unwritten("a"), (true, vec![old]));
        assert_eq!(queue.records(), 1);
    }
}
