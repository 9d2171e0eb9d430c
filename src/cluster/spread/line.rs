//! The state of one line, that is of one life of one origin: which records are held, and which batches are
//! kept.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::batch::Batch;
use super::seqs::{SeqRange, SeqSet};
use super::span::{Rest, Span, Spans};
use crate::record::NodeName;

/// Number of kept batches of a line that are compared one by one, from the newest on, before a binary search
/// among all of them.
const NEWEST_LOOKED_AT: usize = 32;
/// Number of times that peers are told a head that changed.
const TELLINGS: u8 = 3;

/// A kept batch, and the places of the ring that this node answers for with it.
#[derive(Debug)]
struct KeptBatch {
    /// The batch's first number. It stands here as well, so that a search reads no batch, which lie all over
    /// the memory.
    first_seq: u64,
    batch: Arc<Batch>,
    custody: Spans,
}

/// The state of one line, that is of one life of one origin.
#[derive(Debug, Default)]
pub(super) struct OriginLine {
    /// Name and boot number of the origin. `None` while only heads spoke of the line.
    birth: Option<(NodeName, u64)>,
    /// Numbers of the records that are held, or known to be superseded.
    have: SeqSet,
    /// The greatest number known to exist.
    seen: u64,
    /// The search for the records that are missing.
    pub search: GapSearch,
    /// Recent batches, ascending by number.
    kept: VecDeque<KeptBatch>,
    /// When records of the line last became held, in microseconds.
    changed_us: u64,
    /// The head that peers are told.
    head: u64,
    /// Number of further times that peers are told the head because it changed.
    tellings: u8,
}

/// The search for the missing records of one line: who may have them, and when they are asked for again.
#[derive(Clone, Debug, Default)]
pub(super) struct GapSearch {
    /// The peer that last said that it holds more than this node.
    pub holder: Option<SocketAddr>,
    /// Time at which the missing records are asked for next, in microseconds; 0: they are not asked for.
    pub due_us: u64,
    /// Greatest number that existed when the current wait began: only records up to it are asked for.
    pub asked_to: u64,
    /// Number of times that the missing records were asked for without progress.
    pub asks: u32,
    /// Holes up to this sequence number are left to reconciliation, because no peer that was asked could fill
    /// them.
    abandoned: u64,
}

impl GapSearch {
    /// Leaves the records that were asked for to reconciliation.
    pub fn abandon(&mut self) {
        self.abandoned = self.abandoned.max(self.asked_to);
    }
}

impl OriginLine {
    /// A line of which nothing is known, first heard of at `now_us`.
    pub fn new(now_us: u64) -> OriginLine {
        OriginLine { changed_us: now_us, ..OriginLine::default() }
    }

    /// Name and boot number of the origin. `None` while only heads spoke of the line.
    pub fn birth(&self) -> Option<&(NodeName, u64)> {
        self.birth.as_ref()
    }

    /// Returns whether this is the line of the life with this boot number, of all lives that have the hash of the line.
    pub fn is_of(&self, boot: u64) -> bool {
        self.birth.as_ref().is_some_and(|birth| birth.1 == boot)
    }

    /// Sets name and boot number of the origin, if they are not known.
    pub fn set_birth(&mut self, origin: &NodeName, boot: u64) {
        if self.birth.is_none() {
            self.birth = Some((origin.clone(), boot));
        }
    }

    /// The greatest number up to which every record is held, or known to be superseded.
    pub fn head(&self) -> u64 {
        self.have.head()
    }

    /// The greatest number known to exist.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Notes that records up to number `seq` exist.
    pub fn see(&mut self, seq: u64) {
        self.seen = self.seen.max(seq);
    }

    /// Returns whether all records of `first..=last` are held, or known to be superseded.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        self.have.covers(first, last)
    }

    /// Counts all records up to number `seq` as held.
    pub fn raise(&mut self, seq: u64) {
        self.see(seq);
        self.have.raise(seq);
    }

    /// Counts the records of a batch as held, and keeps the batch; `false`: it was kept already.
    pub fn hold(&mut self, now_us: u64, batch: &Arc<Batch>) -> bool {
        self.see(batch.last_seq);
        self.have.insert(batch.id.first_seq, batch.last_seq);
        self.changed_us = now_us;
        self.keep(batch)
    }

    /// Notes that records of the line became held.
    pub fn touch(&mut self, now_us: u64) {
        self.changed_us = now_us;
    }

    /// When records of the line last became held, in microseconds.
    pub fn changed_us(&self) -> u64 {
        self.changed_us
    }

    /// Forgets which records are held. Batches stay, and with them the knowledge of what was passed on.
    pub fn forget_held(&mut self) {
        let (birth, kept) = (self.birth.take(), std::mem::take(&mut self.kept));
        *self = OriginLine { birth, kept, ..OriginLine::new(self.changed_us) };
    }

    /// Checks whether the head changed since the last call; if it did, it is to be told a few times. `None`:
    /// it did not change. `true`: the line is new among those whose heads are to be told.
    pub fn take_changed_head(&mut self) -> Option<bool> {
        let head = self.have.head();
        debug_assert!(self.head <= head, "the head fell from {} to {head}", self.head);
        if self.head == head {
            return None;
        }
        self.head = head;
        Some(std::mem::replace(&mut self.tellings, TELLINGS) == 0)
    }

    /// Counts that peers are told the changed head once more. Returns whether they are to be told it again.
    pub fn tell_head(&mut self) -> bool {
        self.tellings = self.tellings.saturating_sub(1);
        self.tellings > 0
    }

    /// The kept batch with this first number.
    pub fn batch(&self, first_seq: u64) -> Option<&Arc<Batch>> {
        self.find_kept(first_seq).ok().and_then(|at| self.kept.get(at)).map(|kept| &kept.batch)
    }

    /// Takes custody of a span for a kept batch, as asked for after `hops` hand-overs. Returns the parts of
    /// the span that were not in custody. `None`: the batch is not kept.
    pub fn take_custody(&mut self, first_seq: u64, span: Span, hops: u32) -> Option<Rest> {
        let at = self.find_kept(first_seq).ok()?;
        Some(self.kept.get_mut(at)?.custody.insert(span, hops))
    }

    /// The first ranges of missing records that are worth asking for, at most `count`.
    pub fn gaps(&self, count: usize) -> Vec<SeqRange> {
        if self.head() >= self.seen {
            return Vec::new();
        }
        let mut holes = self.have.holes(self.seen, count);
        holes.retain(|hole| hole.last > self.search.abandoned);
        holes
    }

    /// Kept batches that overlap `first..=last`, ascending.
    pub fn kept(&self, first: u64, last: u64) -> impl Iterator<Item = &Arc<Batch>> {
        let from = self.kept.partition_point(|kept| kept.first_seq <= first).saturating_sub(1);
        let batches = self.kept.range(from..).map(|kept| &kept.batch);
        batches
            .take_while(move |batch| batch.id.first_seq <= last)
            .filter(move |batch| batch.last_seq >= first)
    }

    /// Index of the kept batch with this first number; as an error, the index at which it would be.
    fn find_kept(&self, first_seq: u64) -> Result<usize, usize> {
        // A batch that is added is nearly always the newest, and batches that were sent together come in
        // another order, but not in a very different one.
        let newest = self.kept.iter().enumerate().rev().take(NEWEST_LOOKED_AT);
        for (at, kept) in newest {
            match kept.first_seq.cmp(&first_seq) {
                Ordering::Equal => return Ok(at),
                Ordering::Less => return Err(at + 1),
                Ordering::Greater => {}
            }
        }
        self.kept.binary_search_by_key(&first_seq, |kept| kept.first_seq)
    }

    /// Keeps a batch; `false`: it was kept already.
    fn keep(&mut self, batch: &Arc<Batch>) -> bool {
        let first_seq = batch.id.first_seq;
        let Err(at) = self.find_kept(first_seq) else { return false };
        if self.kept.is_empty() {
            // Many lines have only one batch for a long time.
            self.kept.reserve_exact(1);
        }
        let kept = KeptBatch { first_seq, batch: batch.clone(), custody: Spans::default() };
        match at == self.kept.len() {
            true => self.kept.push_back(kept),
            false => self.kept.insert(at, kept),
        }
        let around = self.kept.range(at.saturating_sub(1)..self.kept.len().min(at + 2));
        debug_assert!(around.is_sorted_by_key(|kept| kept.first_seq), "not ascending");
        true
    }

    /// Drops a batch, and with it the record of its custody.
    pub fn drop_kept(&mut self, first_seq: u64) {
        if self.kept.front().is_some_and(|oldest| oldest.first_seq == first_seq) {
            self.kept.pop_front();
        } else if let Ok(at) = self.find_kept(first_seq) {
            self.kept.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spread::codec::pack;
    use crate::cluster::spread::harness::{identity, record};

    /// A batch that covers `first..=last`.
    fn batch(first: u64, last: u64) -> Arc<Batch> {
        let origin = identity(0);
        Arc::new(pack(&origin.name, 1, first - 1, 0, &[record(&origin.name, 1, last, 10)]).remove(0))
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first, last }
    }

    #[test]
    fn gaps_are_what_exists_and_is_not_held_and_was_not_given_up() {
        let mut line = OriginLine::new(0);
        assert!(line.hold(1, &batch(1, 2)) && line.hold(2, &batch(5, 6)) && !line.hold(3, &batch(5, 6)));
        line.see(9);
        assert_eq!((line.head(), line.seen(), line.changed_us()), (2, 9, 3));
        assert_eq!(line.gaps(9), [range(3, 4), range(7, 9)]);
        assert_eq!(line.gaps(1), [range(3, 4)]);
        line.search.asked_to = 6;
        line.search.abandon();
        assert_eq!(line.gaps(9), [range(7, 9)]);
        line.raise(4);
        assert_eq!((line.head(), line.covers(5, 6), line.covers(6, 7)), (6, true, false));
    }

    #[test]
    fn batches_are_found_whatever_their_order() {
        let mut line = OriginLine::new(0);
        let firsts: Vec<u64> = (0..200).map(|index| 1 + 3 * (index * 77 % 200)).collect();
        firsts.iter().for_each(|first| assert!(line.hold(0, &batch(*first, first + 1))));
        for first in 1..=600 {
            let found = line.batch(first).map(|batch| batch.id.first_seq);
            assert_eq!(found, (first % 3 == 1).then_some(first));
        }
        let kept: Vec<u64> = line.kept(6, 10).map(|batch| batch.id.first_seq).collect();
        assert_eq!(kept, [7, 10], "those that overlap");
        line.drop_kept(7);
        assert!(line.batch(7).is_none() && line.take_custody(7, Span::whole_after(0), 1).is_none());
    }

    #[test]
    fn custody_ends_with_the_batch_and_not_with_what_is_held() {
        let (mut line, span) = (OriginLine::new(0), Span { from: 10, to: 20 });
        line.set_birth(&identity(0).name, 1);
        line.hold(0, &batch(1, 1));
        let taken = |line: &mut OriginLine| line.take_custody(1, span, 1).map(Iterator::count);
        assert_eq!((taken(&mut line), taken(&mut line)), (Some(1), Some(0)));
        line.forget_held();
        assert_eq!((line.head(), line.birth().is_some()), (0, true));
        assert_eq!(taken(&mut line), Some(0));
        line.drop_kept(1);
        assert_eq!(taken(&mut line), None);
    }

    #[test]
    fn a_changed_head_is_told_a_few_times() {
        let mut line = OriginLine::new(0);
        assert_eq!(line.take_changed_head(), None);
        line.raise(1);
        assert_eq!((line.take_changed_head(), line.take_changed_head()), (Some(true), None));
        assert!(line.tell_head());
        line.raise(2);
        assert_eq!(line.take_changed_head(), Some(false), "it is still being told");
        let tellings = (0..10).take_while(|_| line.tell_head()).count();
        assert_eq!(tellings + 1, usize::from(TELLINGS));
    }
}
