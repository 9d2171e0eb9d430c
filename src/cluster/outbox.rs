//! Records this node accepted from clients, numbered, on their way to the cluster machine.
//!
//! Numbering and queueing are one step under one short lock, so the queue is in the order of the
//! numbers. When records wait, those of the same source are merged to the newest; a number that is
//! missing in the queue was superseded, and the batch that covers it says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::HashSet;

use crate::limits::OUTBOX_BYTES_MERGED;
use crate::record::hash::NameState;
use crate::record::{Birth, NodeName, Record, SharedRecord, Source, Stamp};

/// A record that every live member is to hold before its publisher is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Number that the caller gave to the answer.
    pub token: u64,
    /// Source of the record.
    pub source: Source,
    /// Stamp of the record. Every member must hold this one or a newer one of the source.
    pub stamp: Stamp,
    /// Birth of the record that has this stamp on this node.
    pub birth: Birth,
    /// Whether the record was put into the outbox just now. If not, it was accepted earlier, or by another
    /// node.
    pub is_fresh: bool,
}

/// The queue of accepted records. The caller keeps it behind a mutex.
///
/// Invariants: numbers ascend without end from 1, also over records that were taken out; `bytes` is the sum
/// of the costs of the records that wait.
#[derive(Debug)]
pub struct Outbox {
    origin: NodeName,
    boot: u64,
    last_seq: u64,
    waiting: VecDeque<SharedRecord>,
    bytes: usize,
    /// Copy of `bytes` that is read without the lock.
    told_bytes: Arc<AtomicUsize>,
    awaited: Vec<Awaited>,
    /// Number of bytes above which the waiting records are merged next.
    merge_at_bytes: usize,
    /// Number of records that were dropped because a newer one of the same source waited, too.
    merged: u64,
}

impl Outbox {
    /// An empty queue of the life `boot` of the node named `origin`.
    pub fn new(origin: NodeName, boot: u64) -> Outbox {
        Outbox {
            origin,
            boot,
            last_seq: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            told_bytes: Arc::default(),
            awaited: Vec::new(),
            merge_at_bytes: OUTBOX_BYTES_MERGED,
            merged: 0,
        }
    }

    /// Builds a record with the next number of this node's life, and queues it.
    pub fn accept(&mut self, build: impl FnOnce(Birth) -> Record) -> SharedRecord {
        self.last_seq += 1;
        let birth = Birth { origin: self.origin.clone(), boot: self.boot, seq: self.last_seq };
        let record = Arc::new(build(birth));
        debug_assert_eq!(record.birth.seq, self.last_seq, "a record keeps the birth it is given");
        debug_assert!(self.waiting.back().is_none_or(|last| last.birth.seq < record.birth.seq));
        self.bytes += record.cost_bytes();
        self.waiting.push_back(record.clone());
        if self.bytes > self.merge_at_bytes {
            self.merge();
        }
        self.told_bytes.store(self.bytes, Relaxed);
        record
    }

    /// Moves records of up to `max_bytes` (at least one) from the front into `out`.
    pub fn take(&mut self, max_bytes: usize, out: &mut Vec<SharedRecord>) {
        let mut taken = 0;
        while let Some(record) = self.waiting.front() {
            let cost = record.cost_bytes();
            if taken > 0 && taken + cost > max_bytes {
                break;
            }
            taken += cost;
            self.bytes -= cost;
            debug_assert!(out.last().is_none_or(|last| last.birth.seq < record.birth.seq));
            out.extend(self.waiting.pop_front());
        }
        debug_assert!(
            !self.waiting.is_empty() || self.bytes == 0,
            "an empty queue holds {} bytes",
            self.bytes
        );
        self.told_bytes.store(self.bytes, Relaxed);
        // The threshold falls only when the queue is this short: just after a merge hardly any records could
        // be merged again.
        if self.bytes < OUTBOX_BYTES_MERGED / 2 {
            self.merge_at_bytes = OUTBOX_BYTES_MERGED;
        }
    }

    /// Lets the answer `token` wait until every live member holds the record or a newer one. The
    /// caller bounds how many answers wait.
    pub fn await_everywhere(&mut self, token: u64, record: &Record, is_fresh: bool) {
        let (source, birth) = (record.source.clone(), record.birth.clone());
        self.awaited.push(Awaited { token, source, stamp: record.stamp, birth, is_fresh });
    }

    /// Takes the answers that wait since the last call. They are to be handed to the machine before the
    /// records are.
    pub fn take_awaited(&mut self) -> Vec<Awaited> {
        std::mem::take(&mut self.awaited)
    }

    /// Number of bytes that wait in the queue.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of records that other nodes never get, because a newer one of the same source waited with them.
    pub fn merged(&self) -> u64 {
        self.merged
    }

    /// The number of bytes that wait, readable without the lock: every publish looks at it.
    pub fn told_bytes(&self) -> Arc<AtomicUsize> {
        self.told_bytes.clone()
    }

    /// Sequence number of the record that was accepted last; 0 if there was none.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Keeps only the newest waiting record of each source, which is the one queued last.
    fn merge(&mut self) {
        let mut seen = HashSet::with_capacity_and_hasher(self.waiting.len(), NameState);
        let mut kept: VecDeque<SharedRecord> = VecDeque::with_capacity(self.waiting.len());
        for record in self.waiting.drain(..).rev() {
            if seen.insert(record.source.clone()) {
                kept.push_front(record);
            } else {
                self.bytes -= record.cost_bytes();
                self.merged += 1;
            }
        }
        debug_assert_eq!(self.bytes, kept.iter().map(|record| record.cost_bytes()).sum::<usize>());
        self.waiting = kept;
        self.merge_at_bytes = (2 * self.bytes).max(OUTBOX_BYTES_MERGED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Payload, Source, Stamp};

    fn build(source: &str, size: usize) -> impl FnOnce(Birth) -> Record {
        let source = Source::parse(source).expect("source");
        let data = vec![b'1'; size];
        move |birth| {
            Record::new(source, Stamp::of_data(birth.seq, &data), Payload::Json(data.into()), birth, 0, 0)
        }
    }

    #[test]
    fn numbers_from_one_and_hands_out_in_order() {
        let mut outbox = Outbox::new(NodeName::parse("n").expect("name"), 3);
        for _ in 0..5 {
            outbox.accept(build("a", 10));
        }
        let mut out = Vec::new();
        outbox.take(1, &mut out);
        outbox.take(usize::MAX, &mut out);
        let seqs: Vec<u64> = out.iter().map(|record| record.birth.seq).collect();
        assert_eq!((seqs, outbox.bytes()), (vec![1, 2, 3, 4, 5], 0));
    }

    /// A queue that stood at its bound was merged anew for every few records, though hardly two of them were
    /// of one source: a cluster that had once fallen behind stayed so at a load that it had carried before.
    #[test]
    fn what_was_merged_is_not_merged_again_before_much_is_added() {
        let mut outbox = Outbox::new(NodeName::parse("n").expect("name"), 3);
        let mut number = 0;
        let mut add = |outbox: &mut Outbox| {
            number += 1;
            outbox.accept(build(&format!("s/{number}"), 16 * 1024));
        };
        while outbox.bytes() <= OUTBOX_BYTES_MERGED {
            add(&mut outbox);
        }
        let mut out = Vec::new();
        let mut merges = 0;
        for _ in 0..1_000 {
            outbox.take(1, &mut out);
            let before = outbox.merge_at_bytes;
            add(&mut outbox);
            merges += usize::from(outbox.merge_at_bytes != before);
        }
        assert!(merges <= 1, "{merges} merges, and {} bytes wait", outbox.bytes());
    }

    /// Unbounded queues under load: hashicorp/consul#9927, prometheus/alertmanager#1409.
    #[test]
    fn what_waits_is_merged_to_the_newest_of_each_source() {
        let mut outbox = Outbox::new(NodeName::parse("n").expect("name"), 3);
        for n in 0..3_000 {
            outbox.accept(build(if n % 2 == 0 { "a" } else { "b" }, 16 * 1024));
        }
        assert!(outbox.bytes() <= OUTBOX_BYTES_MERGED);
        let waiting = outbox.waiting.len() as u64;
        assert_eq!(outbox.merged(), 3_000 - waiting);
        let mut out = Vec::new();
        outbox.take(usize::MAX, &mut out);
        assert_eq!(out.last().map(|record| record.birth.seq), Some(3_000));
        assert!(out.windows(2).all(|pair| pair[0].birth.seq < pair[1].birth.seq));
    }
}
