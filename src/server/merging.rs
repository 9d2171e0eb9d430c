//! Shares the merging of what peers send among the workers.
//!
//! Worker 0 alone reads the cluster's sockets and drives the cluster machine. To decode the records of a batch,
//! verify them, merge them and deliver them is most of the work with it, and needs no more than the batch and
//! the map. So worker 0 hands batches to the other workers ([`MergeSharing`]) through queues ([`super::merge_queue`]),
//! and is told the outcomes, which the machine needs for its receipts.
//!
//! - The batches of one life of an origin go to one worker for as long as any of them waits, so that
//!   subscribers see the records of a source in order. Of different origins, batches are merged side by side.
//! - While little comes, worker 0 merges everything by itself: to wake another thread takes longer than to merge
//!   some records. The same holds for a node with one worker.
//! - The queue of each worker is bounded. What does not fit, worker 0 merges by itself, out of its turn, as if a
//!   datagram before it had been late. Meanwhile it receives nothing, and the peers slow down. So nothing is
//!   dropped, and no more waits than the bound allows.
//!
//! Rejected: threads of their own for merging, which would compete with the workers for the same cores; queues
//! by shard of the map, for which worker 0 would have to decode the records.

use std::collections::BTreeMap;
use std::mem;

use super::mailbox::Mailbox;
use super::merge_queue::{MergeQueues, MergedBatch};
use super::shared::Shared;
use crate::cluster::{AppliedBatch, Arrival, BatchOutcome, ReceivedBatch, Replica};
use crate::limits::SHARDS;
use crate::metrics::Metrics;
use crate::record::{Now, SharedRecord, Stamp};

/// Most bytes of batches that wait for one worker, those that it merges included: it merges them in about
/// ten milliseconds, so that receipts are not late. A single larger batch may wait alone.
const MERGE_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Most batches that wait for one worker, those that it merges included.
const MERGE_QUEUE_BATCHES_MAX: usize = 1024;
/// Number of batches for one worker that worker 0 collects before it puts them into the queue.
const STAGED_MAX: usize = 16;
/// Load of a turn, in records, from which on batches are handed to other workers.
const SHARED_FROM: usize = 16;
/// While batches are handed to other workers: load of a turn, in records, below which that ends. The turns of
/// worker 0 are shorter meanwhile, so less comes in each.
const SHARED_UNTIL: usize = 4;
/// Once a turn has brought this load, in records, the rest of it is handed over, whatever came in turns before.
const BURST: usize = 64;
/// Number of bytes that count as much as one record, because they are copied and their checksum is computed.
const BYTES_PER_RECORD: usize = 1024;
/// Factor by which the usual load is kept greater than it is, for the sake of its fractions.
const LOAD_SCALE: usize = 16;
/// Number of turns in which the usual load follows the present one.
const LOAD_TURNS: usize = 8;
/// Number of origins whose worker is remembered. Those of which nothing waits are forgotten beyond that.
const LINES_REMEMBERED_MAX: usize = 1024;

/// The batches that were handed to one worker and are not reported back.
#[derive(Debug, Default)]
struct WorkerShare {
    /// Batches that are still to be put into the worker's queue.
    staged: Vec<ReceivedBatch>,
    /// Number of batches, those in `staged` included.
    batches: usize,
    /// Memory of these batches, in bytes.
    bytes: usize,
}

impl WorkerShare {
    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= MERGE_QUEUE_BYTES_MAX && self.batches < MERGE_QUEUE_BATCHES_MAX;
        fits || self.batches == 0
    }
}

/// The worker that merges the batches of one life of an origin, and the number of them that wait there.
#[derive(Clone, Copy, Debug)]
struct LineShare {
    worker: usize,
    batches: usize,
}

/// Worker 0's end of the queues: decides which batches are handed over, and to whom.
#[derive(Debug)]
pub struct MergeSharing {
    /// The batches on their way, by worker. Worker 0 itself never has any.
    workers: Vec<WorkerShare>,
    /// Where the batches of each life of an origin are.
    lines: BTreeMap<u64, LineShare>,
    /// Load of the present turn, in records.
    load: usize,
    /// Load of a usual turn in which anything came, in records times [`LOAD_SCALE`].
    usual_load: usize,
    /// Whether batches are handed over.
    is_sharing: bool,
    /// Batches of the present turn that were handed over, and those that were merged by worker 0.
    counts: (u64, u64),
    /// The outcomes that were taken last.
    merged: Vec<MergedBatch>,
    applied: Vec<AppliedBatch>,
}

impl MergeSharing {
    /// Of a node with this number of workers.
    pub fn new(workers: usize) -> MergeSharing {
        MergeSharing {
            workers: (0..workers).map(|_| WorkerShare::default()).collect(),
            lines: BTreeMap::new(),
            load: 0,
            usual_load: 0,
            is_sharing: false,
            counts: (0, 0),
            merged: Vec::new(),
            applied: Vec::new(),
        }
    }

    /// The map as the cluster machine is to use it, for one or some calls. To be followed by
    /// [`MergeSharing::flush`].
    pub fn replica<'a>(&'a mut self, shared: &'a Shared) -> PeerReplica<'a> {
        PeerReplica { shared, sharing: self }
    }

    /// Puts all batches that were collected into the workers' queues, and wakes the workers.
    pub fn flush(&mut self, queues: &MergeQueues, mailboxes: &[Mailbox]) {
        (1..self.workers.len()).for_each(|worker| self.flush_to(worker, queues, mailboxes));
    }

    fn flush_to(&mut self, worker: usize, queues: &MergeQueues, mailboxes: &[Mailbox]) {
        let Some(share) = self.workers.get_mut(worker).filter(|share| !share.staged.is_empty()) else {
            return;
        };
        queues.put(worker, &mut share.staged);
        if let Some(mailbox) = mailboxes.get(worker) {
            mailbox.wake();
        }
    }

    /// Returns the outcomes for batches that other workers have merged since the last call.
    pub fn take_applied(&mut self, queues: &MergeQueues) -> &[AppliedBatch] {
        self.applied.clear();
        queues.take_merged(&mut self.merged);
        for MergedBatch { worker, line, cost_bytes, applied } in self.merged.drain(..) {
            if let Some(share) = self.workers.get_mut(worker) {
                debug_assert!(share.batches > 0 && share.bytes >= cost_bytes, "more came back than was sent");
                share.batches = share.batches.saturating_sub(1);
                share.bytes = share.bytes.saturating_sub(cost_bytes);
            }
            if let Some(share) = self.lines.get_mut(&line) {
                share.batches = share.batches.saturating_sub(1);
            }
            self.applied.push(applied);
        }
        &self.applied
    }

    /// Ends a turn of worker 0: what came in it decides whether batches are handed over in the next.
    pub fn end_turn(&mut self, metrics: &Metrics) {
        let load = mem::take(&mut self.load);
        if load == 0 {
            return;
        }
        self.usual_load = (self.usual_load * (LOAD_TURNS - 1) + load * LOAD_SCALE) / LOAD_TURNS;
        let from = if self.is_sharing { SHARED_UNTIL } else { SHARED_FROM };
        self.is_sharing = self.usual_load >= from * LOAD_SCALE;
        let (handed, kept) = mem::take(&mut self.counts);
        metrics.peer_batches_handed.add(handed);
        metrics.peer_batches_kept.add(kept);
    }

    /// Chooses the worker that a batch is handed to; `None`: worker 0 merges it by itself.
    fn choose(&mut self, batch: &ReceivedBatch) -> Option<usize> {
        self.load += batch.records() + batch.cost_bytes() / BYTES_PER_RECORD;
        if self.workers.len() <= 1 {
            return None;
        }
        let known = self.lines.get(&batch.line()).copied();
        let worker = match known {
            // Behind the others of its line, however little comes.
            Some(LineShare { worker, batches: 1.. }) => worker,
            _ if !self.is_sharing && self.load < BURST => return None,
            _ => self.least_busy(known.map(|share| share.worker))?,
        };
        self.workers.get(worker)?.has_room(batch.cost_bytes()).then_some(worker)
    }

    /// The worker other than worker 0 for which least waits; among equals `preferred`, whose caches may know the
    /// sources.
    fn least_busy(&self, preferred: Option<usize>) -> Option<usize> {
        let others = self.workers.iter().enumerate().skip(1);
        let least = others.min_by_key(|(worker, share)| (share.bytes, Some(*worker) != preferred));
        least.map(|(worker, _)| worker)
    }

    /// Hands a batch to a worker that has room for it. Returns whether enough was collected for the worker to put
    /// it into its queue.
    fn hand(&mut self, worker: usize, batch: ReceivedBatch) -> bool {
        if self.lines.len() >= LINES_REMEMBERED_MAX {
            self.lines.retain(|_, share| share.batches > 0);
        }
        let line = self.lines.entry(batch.line()).or_insert(LineShare { worker, batches: 0 });
        line.worker = worker;
        line.batches += 1;
        let Some(share) = self.workers.get_mut(worker) else { return false };
        share.batches += 1;
        share.bytes += batch.cost_bytes();
        share.staged.push(batch);
        share.staged.len() >= STAGED_MAX
    }
}

/// The map as the cluster machine uses it: batches may be merged by other workers.
pub struct PeerReplica<'a> {
    shared: &'a Shared,
    sharing: &'a mut MergeSharing,
}

impl Replica for PeerReplica<'_> {
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool {
        self.shared.ingest.apply(now, record, arrival)
    }

    fn take_batch(&mut self, now: Now, batch: ReceivedBatch) -> Option<BatchOutcome> {
        match self.sharing.choose(&batch) {
            Some(worker) => {
                self.sharing.counts.0 += 1;
                if self.sharing.hand(worker, batch) {
                    self.sharing.flush_to(worker, &self.shared.merging, self.shared.mailboxes());
                }
                None
            }
            None => {
                self.sharing.counts.1 += 1;
                Some(batch.apply_to(now, &mut &self.shared.ingest))
            }
        }
    }

    fn discard(&mut self, now: Now, record: &SharedRecord) {
        (&self.shared.ingest).discard(now, record);
    }

    fn get(&self, source: &str) -> Option<SharedRecord> {
        (&self.shared.ingest).get(source)
    }

    fn holds(&self, source: &str, stamp: Stamp) -> bool {
        (&self.shared.ingest).holds(source, stamp)
    }

    fn fingerprints(&self) -> [u64; SHARDS] {
        (&self.shared.ingest).fingerprints()
    }

    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord)) {
        (&self.shared.ingest).visit_shard(shard, visit);
    }
}

#[cfg(test)]
mod tests;
