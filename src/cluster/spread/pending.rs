//! The batches that were handed to another thread to be applied, and the parts that brought them.
//!
//! A batch is passed on as soon as it has come. Everything that promises that this node holds it waits here for
//! the report that it was applied: the receipt of each part, the tally, and the head of its line. A part that
//! comes again meanwhile is neither applied nor answered a second time.
//!
//! The time of a report is not bounded, so a batch is forgotten after a while, and when the map is emptied. Its
//! report is then ignored, no receipt is given, and the peers send the batch again.

use std::sync::Arc;

use super::batch::{Batch, BatchId};
use super::duty::RangeTask;
use super::link::{PartId, PeerLife};
use super::received::BatchTicket;
use super::seqs::SeqRange;
use super::span::{Rest, Span, Spans};
use super::tree::mix;
use crate::cluster::by_key::{ByKey, Key};
use crate::cluster::stats::QueueGauge;

/// Most bytes of batches that wait to be applied. Beyond that, a batch is applied before anything else is done.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most parts that wait for one batch to be applied. Others get no answer, and come again.
const PARTS_MAX: usize = 16;
/// A batch is forgotten if no report on it came for this long, in microseconds.
const PENDING_US_MAX: u64 = 10_000_000;

impl Key for BatchId {
    fn hash(self) -> u64 {
        mix(self.line ^ mix(self.first_seq))
    }
}

/// The request in the header of a part.
#[derive(Debug)]
pub(super) struct CustodyRequest {
    /// The range that this node is to serve, and how.
    pub task: RangeTask,
    /// In a part of two members, the place of the member other than this node.
    pub other: Option<u64>,
    /// Number under which the tally of the range is to be reported; `None`: it is not to be reported.
    pub counted: Option<u64>,
}

/// A part that is answered when its batch was applied.
#[derive(Debug)]
pub(super) struct PendingPart {
    /// The peer that sent the part.
    pub from: PeerLife,
    /// Number of the part. If it came in fragments, that of the last fragment to come.
    pub number: u64,
    /// The first fragment, if the part came in fragments. They are kept until the part is answered: if the last
    /// one comes again without the others, it must not be taken for the first of a new batch.
    pub fragments: Option<PartId>,
    /// The request that came with the part; `None`: the part fills a gap, and asks for nothing.
    pub request: Option<CustodyRequest>,
    /// Whether the range that was asked for has other members.
    pub is_relay: bool,
}

/// A batch that waits to be applied.
#[derive(Debug)]
pub(super) struct PendingBatch {
    /// The batch, whose header is verified and whose records are not.
    pub batch: Arc<Batch>,
    /// The parts that brought it.
    pub parts: Vec<PendingPart>,
    number: u64,
    /// The ranges that this node serves with the batch already.
    custody: Spans,
    since_us: u64,
}

/// All batches that wait to be applied.
#[derive(Debug, Default)]
pub(super) struct PendingBatches {
    batches: ByKey<BatchId, PendingBatch>,
    bytes: usize,
    /// Number of tickets that were given out so far.
    tickets: u64,
}

impl PendingBatches {
    /// Calls `visit` with the number of bytes that wait, and its bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("bytes of batches being applied", self.bytes, PENDING_BYTES_MAX));
    }

    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.len() == 0
    }

    /// Returns whether a batch that takes `bytes` bytes may wait as well.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= PENDING_BYTES_MAX
    }

    /// A new ticket for a batch.
    pub fn ticket(&mut self, batch: BatchId) -> BatchTicket {
        self.tickets += 1;
        BatchTicket { batch, number: self.tickets }
    }

    /// Lets a batch wait until its outcome is reported under `ticket`.
    pub fn begin(&mut self, now_us: u64, batch: &Arc<Batch>, ticket: BatchTicket) {
        debug_assert!(self.batch(batch.id).is_none(), "a batch is applied twice");
        self.bytes += batch.cost_bytes();
        let pending = PendingBatch {
            batch: batch.clone(),
            parts: Vec::new(),
            number: ticket.number,
            custody: Spans::default(),
            since_us: now_us,
        };
        self.batches.insert(batch.id, pending);
    }

    /// The batch of this name, if it waits.
    pub fn batch(&self, id: BatchId) -> Option<&Arc<Batch>> {
        if self.is_empty() {
            return None;
        }
        self.batches.get(id).map(|pending| &pending.batch)
    }

    /// Returns whether a batch with some of these numbers of a line waits.
    pub fn has_any(&self, line: u64, numbers: SeqRange) -> bool {
        let is_in = |batch: &Batch| {
            batch.id.line == line && batch.id.first_seq <= numbers.last && batch.last_seq >= numbers.first
        };
        self.batches.iter().any(|(_, pending)| is_in(&pending.batch))
    }

    /// Returns whether this part waits for the batch already.
    pub fn has_part(&self, id: BatchId, from: PeerLife, number: u64) -> bool {
        let is_it = |part: &PendingPart| (part.from, part.number) == (from, number);
        self.batches.get(id).is_some_and(|pending| pending.parts.iter().any(is_it))
    }

    /// Returns whether one more part may wait for the batch.
    pub fn has_room_for_part(&self, id: BatchId) -> bool {
        self.batches.get(id).is_some_and(|pending| pending.parts.len() < PARTS_MAX)
    }

    /// Lets a part wait for the batch.
    pub fn add_part(&mut self, id: BatchId, part: PendingPart) {
        if let Some(pending) = self.batches.get_mut(id) {
            pending.parts.push(part);
        }
    }

    /// Notes that this node serves a range with the batch, as asked for after `hops` hand-overs. Returns the
    /// parts of the range that it did not serve before.
    pub fn take_custody(&mut self, id: BatchId, span: Span, hops: u32) -> Rest {
        let pending = self.batches.get_mut(id);
        pending.map_or_else(|| Rest::whole(span), |pending| pending.custody.insert(span, hops))
    }

    /// Removes a batch whose outcome is known. `None`: it was forgotten meanwhile.
    pub fn end(&mut self, ticket: BatchTicket) -> Option<PendingBatch> {
        let place = self.batches.place(ticket.batch)?;
        if self.batches.at(place)?.number != ticket.number {
            return None;
        }
        self.remove(place)
    }

    /// Forgets all batches: what was applied of them may be gone from the map.
    pub fn forget(&mut self) {
        self.remove_if(|_| true);
    }

    /// Forgets the batches on which no report came for long.
    pub fn sweep(&mut self, now_us: u64) {
        self.remove_if(|pending| now_us.saturating_sub(pending.since_us) > PENDING_US_MAX);
    }

    fn remove_if(&mut self, is_over: impl Fn(&PendingBatch) -> bool) {
        let over = self.batches.iter().filter(|(_, pending)| is_over(pending));
        let places: Vec<usize> = over.map(|(place, _)| place).collect();
        places.into_iter().for_each(|place| drop(self.remove(place)));
    }

    fn remove(&mut self, place: usize) -> Option<PendingBatch> {
        let pending = self.batches.remove(place)?;
        self.bytes = self.bytes.saturating_sub(pending.batch.cost_bytes());
        debug_assert!(!self.is_empty() || self.bytes == 0, "{} bytes of no batches", self.bytes);
        Some(pending)
    }
}
