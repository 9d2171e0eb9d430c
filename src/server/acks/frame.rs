//! A publish frame some of whose items may still be open.

use super::condition::{self, Condition, Reached};
use crate::metrics::Metrics;
use crate::protocol::answer::Published;
use crate::protocol::draft::{OwnedRequestId, RequestId};
use crate::protocol::refusal::Refusal;
use crate::protocol::reply::{FrameReply, ItemReply, PublishAnswer};

/// The items of a publish frame that have, or may get, an answer.
///
/// A frame that is no batch has one item, which is kept whether or not it has an id. Of a batch, an item
/// without an id is kept only if it was refused or waits for its condition, since it gets no other answer.
#[derive(Debug)]
pub(crate) struct PendingFrame {
    items: Vec<PendingItem>,
    is_batch: bool,
}

/// One item and the condition that its answer waits for.
#[derive(Debug)]
struct PendingItem {
    id: Option<OwnedRequestId>,
    /// Position in the batch, from 0.
    index: usize,
    answer: Result<Published, Refusal>,
    condition: Option<Condition>,
}

impl PendingFrame {
    /// A frame without items.
    pub(super) fn new(is_batch: bool) -> PendingFrame {
        PendingFrame { items: Vec::with_capacity(usize::from(!is_batch)), is_batch }
    }

    /// Adds the item at position `index` of the frame.
    pub(super) fn push(
        &mut self,
        id: Option<&RequestId<'_>>,
        index: usize,
        answer: Result<Published, Refusal>,
        condition: Option<Condition>,
    ) {
        debug_assert!(condition.is_none() || answer.is_ok(), "a refused item waits for nothing");
        self.items.push(PendingItem { id: id.map(RequestId::to_owned), index, answer, condition });
    }

    /// Returns whether the answer is an array.
    pub(crate) fn is_batch(&self) -> bool {
        self.is_batch
    }

    /// Returns whether any item waits for its condition.
    pub(crate) fn is_open(&self) -> bool {
        self.items.iter().any(|item| item.condition.is_some())
    }

    /// The greatest ticket that an item waits for.
    pub(super) fn ticket(&self) -> Option<u64> {
        let tickets = self.items.iter().filter_map(|item| match item.condition {
            Some(Condition::Stored(ticket)) => Some(ticket),
            _ => None,
        });
        tickets.max()
    }

    /// The tokens that items wait for, in ascending order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u64> {
        self.items.iter().filter_map(|item| match item.condition {
            Some(Condition::Replicated(token)) => Some(token),
            _ => None,
        })
    }

    /// Settles the items whose tickets are at most `durable`, the store's mark.
    pub(super) fn settle_stored(&mut self, durable: u64) {
        for item in &mut self.items {
            if matches!(item.condition, Some(Condition::Stored(ticket)) if ticket <= durable) {
                item.condition = None;
            }
        }
    }

    /// Refuses the items that wait for the store and whose tickets are greater than `durable`, the store's
    /// mark.
    pub(super) fn refuse_stored(&mut self, durable: u64, refusal: &Refusal, metrics: &Metrics) {
        self.settle_stored(durable);
        for item in &mut self.items {
            if matches!(item.condition, Some(Condition::Stored(_))) {
                item.settle(|published| Err(condition::below_level(published, refusal.clone())), metrics);
            }
        }
    }

    /// Settles the item that waits for `token`.
    pub(super) fn settle_replicated(&mut self, token: u64, reached: Reached, metrics: &Metrics) {
        let awaited = Some(Condition::Replicated(token));
        if let Some(item) = self.items.iter_mut().find(|item| item.condition == awaited) {
            item.settle(|published| condition::replicated(published, reached), metrics);
        }
    }

    /// The answers as a codec takes them, items without an id that were not refused included.
    pub(crate) fn answers(&self) -> impl Iterator<Item = PublishAnswer<'_>> {
        self.items.iter().map(|item| PublishAnswer {
            id: item.id.as_ref().map(OwnedRequestId::as_id),
            index: self.is_batch.then_some(item.index),
            answer: &item.answer,
        })
    }

    /// The answers for a request over HTTP.
    pub(super) fn into_reply(mut self) -> FrameReply {
        if !self.is_batch
            && let Some(only) = self.items.pop()
        {
            return FrameReply::One(only.answer);
        }
        let told = self.items.into_iter().filter(|item| item.id.is_some() || item.answer.is_err());
        let reply = |item: PendingItem| ItemReply { id: item.id, index: item.index, answer: item.answer };
        FrameReply::Batch(told.map(reply).collect())
    }

    /// Memory that the items hold, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let texts = self.items.iter().map(|item| {
            let id = item.id.as_ref().map_or(0, OwnedRequestId::heap_bytes);
            id + item.answer.as_ref().err().map_or(0, |refusal| refusal.message.capacity())
        });
        self.items.capacity() * size_of::<PendingItem>() + texts.sum::<usize>()
    }
}

impl PendingItem {
    /// Replaces the result by what `answer` makes of it, and counts it if that is a refusal.
    fn settle(&mut self, answer: impl FnOnce(&Published) -> Result<Published, Refusal>, metrics: &Metrics) {
        self.condition = None;
        if let Ok(published) = &self.answer {
            self.answer = answer(published);
            if let Err(refusal) = &self.answer {
                metrics.refused(refusal.code);
            }
        }
    }
}
