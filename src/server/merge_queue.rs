//! The queues through which batches of peers reach the workers that merge them, and the outcomes come back.
//!
//! Every thread may hold them; [`super::merging`] says who puts what into them. How much waits is bounded by
//! worker 0, which knows of every batch that it handed over and that was not reported back.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;

use super::clock;
use crate::cluster::{AppliedBatch, ReceivedBatch};
use crate::ingest::{Downstream, Ingest};

/// Number of batches that a worker takes out of its queue at a time.
const MERGED_AT_ONCE: usize = 32;
/// Longest part of a turn that a worker merges batches, in microseconds.
const MERGE_US_MAX: u64 = 1_000;

/// The batches that wait for workers, and the outcomes that wait for worker 0.
#[derive(Debug)]
pub struct MergeQueues {
    queues: Vec<MergeQueue>,
    merged: Mutex<Vec<MergedBatch>>,
    has_merged: AtomicBool,
}

/// The batches that wait for one worker.
#[derive(Debug, Default)]
struct MergeQueue {
    waiting: Mutex<VecDeque<ReceivedBatch>>,
    /// Copy of the number of batches, to be read without the lock.
    len: AtomicUsize,
}

/// A batch that a worker has merged.
#[derive(Debug)]
pub struct MergedBatch {
    /// The worker that merged it.
    pub worker: usize,
    /// Number that the batches of one life of an origin have in common.
    pub line: u64,
    /// Memory that the batch took, in bytes.
    pub cost_bytes: usize,
    /// The report for the cluster machine.
    pub applied: AppliedBatch,
}

impl MergeQueues {
    /// Empty queues of a node with this number of workers.
    pub fn new(workers: usize) -> MergeQueues {
        MergeQueues {
            queues: (0..workers).map(|_| MergeQueue::default()).collect(),
            merged: Mutex::default(),
            has_merged: AtomicBool::new(false),
        }
    }

    /// Puts batches into the queue of a worker, which is to be woken then.
    pub fn put(&self, worker: usize, batches: &mut Vec<ReceivedBatch>) {
        if let Some(queue) = self.queues.get(worker) {
            queue.put(batches);
        }
    }

    /// Merges the batches that wait for `worker`, for some time. `None`: none waits. Returns whether more wait;
    /// worker 0 is to be woken then, because outcomes wait for it.
    pub fn work<D: Downstream>(&self, worker: usize, ingest: &Ingest<D>) -> Option<bool> {
        let queue = self.queues.get(worker).filter(|queue| !queue.is_empty())?;
        let begun = clock::now();
        let (mut now, mut taken, mut merged) = (begun, Vec::new(), Vec::new());
        while now.mono_us < begun.mono_us + MERGE_US_MAX && queue.take(&mut taken) {
            for batch in taken.drain(..) {
                let outcome = batch.apply_to(now, &mut &*ingest);
                let applied = AppliedBatch { ticket: batch.ticket(), outcome };
                let (line, cost_bytes) = (batch.line(), batch.cost_bytes());
                merged.push(MergedBatch { worker, line, cost_bytes, applied });
            }
            self.merged.lock().append(&mut merged);
            self.has_merged.store(true, SeqCst);
            now = clock::now();
        }
        Some(!queue.is_empty())
    }

    /// Memory of the batches that wait for all workers, in bytes. For the metrics: it looks at every batch.
    pub fn waiting_bytes(&self) -> usize {
        let of =
            |queue: &MergeQueue| queue.waiting.lock().iter().map(ReceivedBatch::cost_bytes).sum::<usize>();
        self.queues.iter().map(of).sum()
    }

    /// Exchanges the outcomes that wait with `taken`, which must be empty.
    pub fn take_merged(&self, taken: &mut Vec<MergedBatch>) {
        if self.has_merged.load(SeqCst) {
            self.has_merged.store(false, SeqCst);
            mem::swap(&mut *self.merged.lock(), taken);
        }
    }
}

impl MergeQueue {
    fn is_empty(&self) -> bool {
        self.len.load(SeqCst) == 0
    }

    fn put(&self, batches: &mut Vec<ReceivedBatch>) {
        let mut waiting = self.waiting.lock();
        waiting.extend(batches.drain(..));
        self.len.store(waiting.len(), SeqCst);
    }

    /// Moves the oldest batches to `taken`; `false`: nothing waits.
    fn take(&self, taken: &mut Vec<ReceivedBatch>) -> bool {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(MERGED_AT_ONCE);
        taken.extend(waiting.drain(..count));
        self.len.store(waiting.len(), SeqCst);
        count > 0
    }
}
