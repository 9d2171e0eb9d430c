//! What waits for the store: bounded in bytes, and merged when the store lags.
//!
//! The queue is a few append-only logs (lanes), chosen by a hash of the source, so that pushes of
//! different map shards seldom meet at one lock. Inside a log the changes of one source form a chain
//! from the newest to the oldest. Three regimes, by the bytes that wait:
//!
//! - few: every change is appended, so history gets every record;
//! - over [`MERGE_BYTES_MIN`]: a push replaces its source's chain by itself, so what waits grows with
//!   the number of sources and no longer with the rate. Only history loses by it;
//! - at [`WAITING_BYTES_MAX`]: what does not fit is dropped and counted, and the queue remembers
//!   since when. The map still holds it; the writer reads the map again when the store works.
//!
//! A ticket is the number of the group a push will be written with at the latest, not a count of
//! pushes: a push then touches no shared counter, and durability is one number per group. Rejected:
//! a ticket per record, which needs one lock for all lanes or a table of holes; one log for all,
//! whose lock every worker would share; merging always, which would lose history with no need.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::Ticket;
use crate::limits::STORE_QUEUE_BYTES_MAX;
use crate::record::{Record, SharedRecord, Source, Stamp};

/// Locks of the queue: enough that the workers of one machine seldom meet.
const LANES: usize = 16;
/// Bytes that may wait. As many again may be in the group that is being written.
pub(super) const WAITING_BYTES_MAX: usize = STORE_QUEUE_BYTES_MAX / 2;
/// From here on a push replaces what waits of its source.
pub(super) const MERGE_BYTES_MIN: usize = WAITING_BYTES_MAX / 2;
/// From here on the store counts as failing, and publishes are refused; the rest is for peers.
pub(super) const FULL_BYTES_MIN: usize = WAITING_BYTES_MAX / 8 * 7;
/// What a change costs beside its record: its place in the log and in the index.
const CHANGE_BYTES: usize = 64;
/// End of a chain.
const NONE: u32 = u32::MAX;
/// No group has lost anything.
const NEVER: u64 = u64::MAX;

const _: () = assert!(MERGE_BYTES_MIN < FULL_BYTES_MIN && FULL_BYTES_MIN < WAITING_BYTES_MAX);
const _: () = assert!(WAITING_BYTES_MAX / CHANGE_BYTES < NONE as usize);

/// A source that was collected: everything up to this stamp goes.
struct Removal {
    source: Source,
    stamp: Stamp,
}

/// One push. With both parts, the removal comes first. With neither, it was merged away.
#[derive(Default)]
struct Change {
    removal: Option<Box<Removal>>,
    record: Option<SharedRecord>,
    /// The change of the same source before it, or [`NONE`]; set when it is appended.
    older: u32,
}

impl Change {
    fn source(&self) -> Option<&Source> {
        match (&self.record, &self.removal) {
            (Some(record), _) => Some(&record.source),
            (None, Some(removal)) => Some(&removal.source),
            (None, None) => None,
        }
    }

    fn cost_bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, |record| record.cost_bytes());
        let removal = self.removal.as_ref().map_or(0, |r| size_of::<Removal>() + r.source.as_str().len());
        record + removal + CHANGE_BYTES
    }
}

/// Changes in the order of their pushes, with an index of the newest of each source.
#[derive(Default)]
pub(super) struct Log {
    changes: Vec<Change>,
    newest: HashTable<u32>,
    /// Records in it.
    records: usize,
    bytes: usize,
}

/// What merging freed.
#[derive(Default)]
struct Freed {
    records: usize,
    bytes: usize,
}

impl Log {
    fn newest(&self, hash: u64, source: &str) -> Option<u32> {
        self.newest.find(hash, |&at| self.is_of(at, source)).copied()
    }

    fn is_of(&self, at: u32, source: &str) -> bool {
        self.changes.get(at as usize).and_then(Change::source).is_some_and(|s| s.as_str() == source)
    }

    /// Appends a change as the newest of its source.
    fn append(&mut self, hash: u64, source: &str, mut change: Change) {
        self.bytes += change.cost_bytes();
        self.records += usize::from(change.record.is_some());
        let at = self.changes.len() as u32;
        let changes = &self.changes;
        let same = |&of: &u32| {
            changes.get(of as usize).and_then(Change::source).is_some_and(|s| s.as_str() == source)
        };
        let rehash = |&of: &u32| changes.get(of as usize).and_then(Change::source).map_or(0, hash_of);
        change.older = NONE;
        match self.newest.entry(hash, same, rehash) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => {
                change.older = *entry.get();
                *entry.get_mut() = at;
            }
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(at);
            }
        }
        self.changes.push(change);
    }

    /// Leaves of a chain its newest record and its removal, both in the newest place.
    fn merge_chain(&mut self, newest: u32) -> Freed {
        let Some(head) = self.changes.get_mut(newest as usize) else { return Freed::default() };
        let mut at = std::mem::replace(&mut head.older, NONE);
        let mut kept = Change { removal: head.removal.take(), record: head.record.take(), older: NONE };
        let mut before = kept.cost_bytes();
        let mut records = 0;
        while let Some(change) = self.changes.get_mut(at as usize) {
            before += change.cost_bytes();
            records += usize::from(change.record.is_some());
            at = change.older;
            kept.removal = match (kept.removal.take(), std::mem::take(change).removal) {
                (Some(one), Some(other)) if other.stamp > one.stamp => Some(other),
                (one, other) => one.or(other),
            };
        }
        let freed = Freed { records, bytes: before - kept.cost_bytes() };
        if let Some(head) = self.changes.get_mut(newest as usize) {
            *head = kept;
        }
        self.records -= freed.records;
        self.bytes -= freed.bytes;
        freed
    }

    /// Merges every chain and gives back the places of what was merged away.
    fn merge_all(&mut self) -> Freed {
        let mut freed = Freed::default();
        if self.newest.len() == self.changes.len() {
            return freed;
        }
        for newest in self.newest.iter().copied().collect::<Vec<_>>() {
            let one = self.merge_chain(newest);
            freed.records += one.records;
            freed.bytes += one.bytes;
        }
        let old = std::mem::take(&mut self.changes);
        self.newest.clear();
        (self.records, self.bytes) = (0, 0);
        for change in old {
            if let Some(source) = change.source().cloned() {
                self.append(hash_of(&source), source.as_str(), change);
            }
        }
        freed
    }

    /// Puts `record` in the place of the newest record of its source.
    fn replace_newest(&mut self, newest: u32, record: &SharedRecord) -> Freed {
        let Some(change) = self.changes.get_mut(newest as usize) else { return Freed::default() };
        let old = change.record.replace(record.clone());
        let freed =
            Freed { records: usize::from(old.is_some()), bytes: old.map_or(0, |record| record.cost_bytes()) };
        self.bytes = self.bytes + record.cost_bytes() - freed.bytes;
        self.records = self.records + 1 - freed.records;
        freed
    }

    /// The chain of a source, oldest first: a removal that comes before all, and the records.
    fn chain<'a>(&'a self, newest: u32, records: &mut Vec<&'a SharedRecord>) -> Option<Stamp> {
        records.clear();
        let mut removed = None;
        let mut at = newest;
        while let Some(change) = self.changes.get(at as usize) {
            records.extend(&change.record);
            if let Some(removal) = &change.removal {
                removed = Some(removal.stamp);
                break;
            }
            at = change.older;
        }
        records.reverse();
        removed
    }
}

/// What one commit writes: logs that no push reaches any more.
#[derive(Clone, Default)]
pub struct Group {
    logs: Vec<Arc<Log>>,
}

impl Group {
    /// A group of records alone, one or more a source in order.
    pub(super) fn of_records(records: &[SharedRecord]) -> Group {
        let mut log = Log::default();
        for record in records {
            let change = Change { record: Some(record.clone()), ..Change::default() };
            log.append(hash_of(&record.source), record.source.as_str(), change);
        }
        Group { logs: vec![Arc::new(log)] }
    }

    /// A group of removals alone.
    pub(super) fn of_removals(removals: Vec<(Source, Stamp)>) -> Group {
        let mut log = Log::default();
        for (source, stamp) in removals {
            let removal = Some(Box::new(Removal { source: source.clone(), stamp }));
            log.append(hash_of(&source), source.as_str(), Change { removal, ..Change::default() });
        }
        Group { logs: vec![Arc::new(log)] }
    }

    /// Records in it.
    pub fn records(&self) -> usize {
        self.logs.iter().map(|log| log.records).sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.logs.iter().all(|log| log.newest.is_empty())
    }

    /// Shows the changes source by source, in order of name, which is the order that a B-tree
    /// takes best: everything up to the stamp, if any, goes; then the records are the latest, one
    /// after the other. Stops at the first error.
    pub fn each_source<E>(
        &self,
        mut each: impl FnMut(&str, Option<Stamp>, &[&SharedRecord]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chains = Vec::new();
        for log in &self.logs {
            chains.extend(
                log.newest
                    .iter()
                    .filter_map(|&at| Some((log.changes.get(at as usize)?.source()?.as_str(), log, at))),
            );
        }
        chains.sort_unstable_by_key(|&(source, _, _)| source);
        let mut records = Vec::new();
        for (source, log, at) in chains {
            let removed = log.chain(at, &mut records);
            each(source, removed, &records)?;
        }
        Ok(())
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
    pub(super) fn new() -> Queue {
        Queue {
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
        if self.waiting_bytes.load(Ordering::Relaxed) + cost > MERGE_BYTES_MIN {
            if let Some(newest) = lane.waiting.newest(hash, source) {
                self.freed(lane.waiting.merge_chain(newest));
                let old = lane.waiting.changes.get(newest as usize).map_or(0, Change::cost_bytes);
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
        let change = Change { record: Some(record.clone()), ..Change::default() };
        lane.waiting.append(hash, source, change);
        self.added(cost, 1);
        Ticket(ticket)
    }

    /// Takes the removal of a source, unless a newer record of it waits.
    pub(super) fn remove(&self, source: &Source, stamp: Stamp) -> Ticket {
        let hash = hash_of(source);
        let mut lane = self.lane(hash).lock();
        let ticket = self.group.load(Ordering::Acquire);
        let removal = Some(Box::new(Removal { source: source.clone(), stamp }));
        let change = Change { removal, ..Change::default() };
        let newest = lane.waiting.newest(hash, source.as_str());
        let newest = newest.and_then(|at| lane.waiting.changes.get(at as usize)?.record.as_ref());
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
            if lane.waiting.changes.is_empty() {
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

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting_bytes.load(Ordering::Acquire) == 0
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Waiting and being written.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes() + self.flying_bytes.load(Ordering::Relaxed)
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
        self.waiting_bytes.load(Ordering::Relaxed) + more <= WAITING_BYTES_MAX
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

fn hash_of(source: &Source) -> u64 {
    xxh3_64(source.as_str().as_bytes())
}

/// Keeps of a chain what is a history: ascending stamps, the last of equal ones.
pub(super) fn ascending<'a>(records: &[&'a SharedRecord]) -> Vec<&'a Record> {
    let mut run: Vec<&Record> = Vec::with_capacity(records.len());
    for &record in records {
        match run.last() {
            Some(last) if record.stamp < last.stamp => {}
            Some(last) if record.stamp == last.stamp => {
                run.pop();
                run.push(record);
            }
            _ => run.push(record),
        }
    }
    run
}
