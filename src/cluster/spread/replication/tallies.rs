//! Counts the members that hold a batch, from the leaves of the tree up to its origin.
//!
//! Ordinary batches are passed on and forgotten. For a batch with a record that an answer waits for, every
//! holder remembers for a few seconds which parts it handed on and which peers asked it for a tally. Once all
//! its parts have reported, it adds itself and reports to the peer that handed it the range: how many members
//! hold the batch, and the XOR of the hashes of their lives. So a report has the same few bytes for one
//! member and for half the cluster. A report may come twice, late, or never: a node that misses one asks for
//! it again, and members below a node that forgot are asked by the origin itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cluster::spread::batch::BatchId;
use crate::cluster::spread::link::PeerLife;
use crate::cluster::spread::span::Span;
use crate::cluster::spread::tally::Tally;

/// Time for which a batch is remembered, in microseconds: no answer waits longer.
const COUNTED_US_MAX: u64 = 6_000_000;
/// Most parts and askers that are remembered, all batches together: about 24 MiB. For more, the oldest batch
/// is forgotten.
const ENTRIES_MAX: usize = 128 * 1024;

/// A part of a counted batch that was handed on.
#[derive(Clone, Debug)]
pub(super) struct CountedPart {
    /// The part's range.
    pub span: Span,
    /// Only members of this zone are in the part.
    pub zone: Arc<str>,
    /// The tally that was reported, or the empty tally if the part was given up; `None` while neither
    /// happened.
    pub tally: Option<Tally>,
    /// Address of the peer that the part went to last, and its first number on that link.
    handed: Option<(SocketAddr, u64)>,
}

/// A peer that handed a range to this node and is to be told the range's tally.
#[derive(Clone, Debug)]
struct Asker {
    peer: PeerLife,
    /// The part's number on the peer's link.
    number: u64,
    /// The range that the peer handed over.
    span: Span,
    /// Whether the peer was told.
    is_told: bool,
}

/// A batch that is counted: the parts that were handed on, and the peers that asked.
#[derive(Debug, Default)]
struct Counted {
    parts: Vec<CountedPart>,
    askers: Vec<Asker>,
    /// Keys of this batch in [`Tallies::handed`].
    handed: Vec<(SocketAddr, u64)>,
}

impl Counted {
    /// Number of entries that count against [`ENTRIES_MAX`].
    fn entries(&self) -> usize {
        1 + self.parts.len() + self.askers.len() + self.handed.len()
    }

    /// The members that the parts inside `span` (or all parts) reported; `None` while one has not reported.
    fn tally(&self, span: Option<Span>) -> Option<Tally> {
        let is_inside = |part: &&CountedPart| span.is_none_or(|span| span.includes(part.span));
        let parts = self.parts.iter().filter(is_inside);
        parts.map(|part| part.tally).try_fold(Tally::default(), |sum, tally| Some(sum.plus(tally?)))
    }
}

/// A part that went to a peer.
#[derive(Clone, Copy, Debug)]
struct HandedPart {
    batch: BatchId,
    part: usize,
    fragments: u32,
}

/// A complete tally, and the peer to which it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TallyReport {
    /// The peer that asked.
    pub peer: PeerLife,
    /// The part's number on the peer's link.
    pub number: u64,
    /// The members of the part that hold the batch, this node included.
    pub tally: Tally,
}

/// All batches that are counted here. Bounded in entries.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    batches: BTreeMap<BatchId, Counted>,
    /// Batches in the order in which their counts began, with the time in microseconds.
    order: VecDeque<(u64, BatchId)>,
    /// Parts by the address of their peer and their first number on its link.
    handed: BTreeMap<(SocketAddr, u64), HandedPart>,
    /// Batches by the address of a peer that asked for a tally, and the number of its part.
    asked: BTreeMap<(SocketAddr, u64), BatchId>,
    /// Number of entries of all batches.
    entries: usize,
}

impl Tallies {
    /// Returns whether nothing is counted.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        (self.entries, self.handed.len(), self.asked.len()) == (0, 0, 0) && self.batches.is_empty()
    }

    /// Returns whether a batch is counted.
    pub fn has(&self, batch: BatchId) -> bool {
        !self.batches.is_empty() && self.batches.contains_key(&batch)
    }

    /// Counts a batch from now on. `false`: it is counted already.
    pub fn start(&mut self, now_us: u64, batch: BatchId) -> bool {
        if self.has(batch) {
            return false;
        }
        while self.entries >= ENTRIES_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.remove(oldest);
        }
        self.batches.insert(batch, Counted::default());
        self.order.push_back((now_us, batch));
        self.entries += 1;
        true
    }

    /// Adds a part that is to be handed on; returns its index. `None`: the batch is not counted.
    pub fn open_part(&mut self, batch: BatchId, span: Span, zone: &Arc<str>) -> Option<usize> {
        let counted = self.batches.get_mut(&batch)?;
        let part = CountedPart { span, zone: zone.clone(), tally: None, handed: None };
        self.entries += 1;
        counted.parts.push(part);
        Some(counted.parts.len() - 1)
    }

    /// Notes that a part was sent to the peer at the address `to`, and the first number of the part on that
    /// link.
    pub fn hand(&mut self, batch: BatchId, index: usize, (to, first): (SocketAddr, u64), fragments: u32) {
        let Some(counted) = self.batches.get_mut(&batch) else { return };
        let Some(part) = counted.parts.get_mut(index) else { return };
        part.handed = Some((to, first));
        counted.handed.push((to, first));
        self.entries += 1;
        self.handed.insert((to, first), HandedPart { batch, part: index, fragments });
    }

    /// Batch and index of the part that has this number on the link to this peer.
    pub fn find(&self, to: SocketAddr, number: u64) -> Option<(BatchId, usize)> {
        let (found, handed) = self.handed.range(..=(to, number)).next_back()?;
        let is_it = found.0 == to && number - found.1 < u64::from(handed.fragments.max(1));
        is_it.then_some((handed.batch, handed.part))
    }

    /// Takes the tally of a part. Returns whether none was known before.
    pub fn close_part(&mut self, batch: BatchId, index: usize, tally: Tally) -> bool {
        let part = self.batches.get_mut(&batch).and_then(|counted| counted.parts.get_mut(index));
        match part {
            Some(part) if part.tally.is_none() => {
                part.tally = Some(tally);
                true
            }
            _ => false,
        }
    }

    /// Notes that a peer handed over a range of a batch that this node holds, and is to be told the range's
    /// tally.
    pub fn ask(&mut self, batch: BatchId, peer: PeerLife, number: u64, span: Span) {
        let Some(counted) = self.batches.get_mut(&batch) else { return };
        counted.askers.push(Asker { peer, number, span, is_told: false });
        self.entries += 1;
        self.asked.insert((peer.address, number), batch);
    }

    /// Notes that a peer is to be told the tally of a part again, because it may not have got it. Returns the
    /// part's batch.
    pub fn ask_again(&mut self, peer: PeerLife, number: u64) -> Option<BatchId> {
        let batch = *self.asked.get(&(peer.address, number))?;
        let askers = &mut self.batches.get_mut(&batch)?.askers;
        let is_it = |asker: &&mut Asker| (asker.peer, asker.number) == (peer, number);
        askers.iter_mut().rfind(is_it)?.is_told = false;
        Some(batch)
    }

    /// Takes the tallies of a batch that are complete and were not sent. From now on they count as sent.
    /// `own` is the hash of this node's life.
    pub fn take_reports(&mut self, batch: BatchId, own: u64) -> Vec<TallyReport> {
        let Some(counted) = self.batches.get_mut(&batch) else { return Vec::new() };
        let mut askers = std::mem::take(&mut counted.askers);
        let mut reports = Vec::new();
        for asker in askers.iter_mut().filter(|asker| !asker.is_told) {
            let Some(tally) = counted.tally(Some(asker.span)) else { continue };
            asker.is_told = true;
            let tally = tally.plus(Tally::of(own));
            reports.push(TallyReport { peer: asker.peer, number: asker.number, tally });
        }
        counted.askers = askers;
        reports
    }

    /// The members that all parts of a batch reported, without this node; `None` while one has not reported.
    pub fn total(&self, batch: BatchId) -> Option<Tally> {
        self.batches.get(&batch)?.tally(None)
    }

    /// The parts of a batch, in the order in which they were handed on.
    pub fn parts(&self, batch: BatchId) -> &[CountedPart] {
        self.batches.get(&batch).map_or(&[], |counted| &counted.parts)
    }

    /// Parts that have not reported: the address of the peer, and the number on its link.
    pub fn overdue(&self, batch: BatchId) -> Vec<(SocketAddr, u64)> {
        let open = self.parts(batch).iter().filter(|part| part.tally.is_none());
        open.filter_map(|part| part.handed).collect()
    }

    /// Forgets a batch, which is counted no longer.
    pub fn remove(&mut self, batch: BatchId) {
        let Some(counted) = self.batches.remove(&batch) else { return };
        self.entries -= counted.entries();
        for key in &counted.handed {
            if self.handed.get(key).is_some_and(|handed| handed.batch == batch) {
                self.handed.remove(key);
            }
        }
        for asker in &counted.askers {
            let key = (asker.peer.address, asker.number);
            if self.asked.get(&key) == Some(&batch) {
                self.asked.remove(&key);
            }
        }
        debug_assert!(!self.batches.is_empty() || self.entries == 0, "{} entries", self.entries);
    }

    /// Forgets batches that are so old that no answer waits for them.
    pub fn expire(&mut self, now_us: u64) {
        while self.order.front().is_some_and(|(since_us, _)| since_us + COUNTED_US_MAX < now_us)
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: BatchId = BatchId { line: 7, first_seq: 1 };

    fn id(line: u64) -> BatchId {
        BatchId { line, first_seq: 1 }
    }

    fn peer(index: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, index], 7946))
    }

    fn life(index: u8, boot: u64) -> PeerLife {
        PeerLife { address: peer(index), boot }
    }

    fn span(from: u64, to: u64) -> Span {
        Span { from, to }
    }

    #[test]
    fn reports_once_all_parts_have() {
        let (mut tallies, zone) = (Tallies::default(), Arc::from(""));
        assert!(tallies.start(0, BATCH) && !tallies.start(0, BATCH));
        tallies.ask(BATCH, life(1, 5), 40, span(100, 200));
        let first = tallies.open_part(BATCH, span(100, 150), &zone).expect("counted");
        let second = tallies.open_part(BATCH, span(150, 200), &zone).expect("counted");
        tallies.hand(BATCH, first, (peer(2), 9), 3);
        tallies.hand(BATCH, second, (peer(3), 9), 1);
        assert_eq!(tallies.overdue(BATCH), [(peer(2), 9), (peer(3), 9)]);
        assert_eq!(tallies.find(peer(2), 11), Some((BATCH, first)), "any of its fragments");
        assert_eq!((tallies.find(peer(2), 12), tallies.find(peer(4), 9)), (None, None));

        assert!(tallies.close_part(BATCH, first, Tally { count: 2, members: 6 }));
        assert!(tallies.take_reports(BATCH, 1).is_empty());
        assert!(tallies.close_part(BATCH, second, Tally::of(8)));
        assert!(!tallies.close_part(BATCH, second, Tally::default()), "the first report stands");
        let report = TallyReport { peer: life(1, 5), number: 40, tally: Tally { count: 4, members: 15 } };
        assert_eq!(tallies.take_reports(BATCH, 1), [report]);
        assert!(tallies.take_reports(BATCH, 1).is_empty());
        assert_eq!(tallies.ask_again(life(1, 6), 40), None, "another life of the asker");
        assert_eq!(tallies.ask_again(life(1, 5), 40), Some(BATCH));
        assert_eq!(tallies.take_reports(BATCH, 1), [report]);
        assert_eq!(tallies.total(BATCH), Some(Tally { count: 3, members: 14 }));
    }

    #[test]
    fn a_range_asked_for_later_counts_what_lies_in_it() {
        let (mut tallies, zone) = (Tallies::default(), Arc::from(""));
        tallies.start(0, BATCH);
        for (from, member) in [(10, 2), (20, 4), (30, 8)] {
            let part = tallies.open_part(BATCH, span(from, from + 10), &zone).expect("counted");
            tallies.close_part(BATCH, part, Tally::of(member));
        }
        tallies.ask(BATCH, life(1, 1), 1, span(20, 40));
        tallies.ask(BATCH, life(2, 1), 1, span(0, 0));
        let told: Vec<Tally> =
            tallies.take_reports(BATCH, 1).into_iter().map(|report| report.tally).collect();
        assert_eq!(told, [Tally { count: 3, members: 13 }, Tally { count: 4, members: 15 }]);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let (mut tallies, zone) = (Tallies::default(), Arc::from(""));
        for batch in 0..ENTRIES_MAX as u64 {
            tallies.start(batch, id(batch));
            let part = tallies.open_part(id(batch), span(0, 0), &zone).expect("counted");
            tallies.hand(id(batch), part, (peer(1), batch), 1);
            tallies.ask(id(batch), life(1, 1), batch, span(0, 0));
            assert!(tallies.entries <= ENTRIES_MAX + 4);
        }
        assert!(!tallies.has(id(0)));
        tallies.expire(u64::MAX);
        assert_eq!((tallies.entries, tallies.handed.len(), tallies.asked.len()), (0, 0, 0));
    }
}
