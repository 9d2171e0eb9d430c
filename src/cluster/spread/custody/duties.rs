//! The parts that this node handed to members and answers for, and the bytes that they cost.

use std::sync::Arc;

use slab::Slab;

use super::offers::Offers;
use crate::cluster::spread::batch::{Announced, Batch, BatchId};
use crate::cluster::spread::duty::Duty;
use crate::cluster::spread::unsettled::UnsettledPart;

/// All parts that were handed to members and are not settled, by number.
#[derive(Debug, Default)]
pub(super) struct Duties {
    slab: Slab<Duty>,
    /// Memory of the batches of all parts, in bytes. A batch that is in several parts counts for each.
    batch_bytes: usize,
    /// Bytes of this node's own parts that wait to be sent for the first time.
    own_unsent_bytes: usize,
    /// Batches too large for datagrams, which are announced to peers and may be pulled.
    offers: Offers,
}

impl Duties {
    /// Adds a part; returns its number.
    pub fn insert(&mut self, duty: Duty) -> usize {
        debug_assert_eq!(duty.left, duty.fragments, "a new part has nothing acknowledged");
        self.batch_bytes += duty.batch.cost_bytes();
        if Announced::of(&duty.batch).is_some() {
            self.offers.add(&duty.batch, duty.part.is_own);
        }
        self.slab.insert(duty)
    }

    /// The part of this number.
    pub fn get(&self, id: usize) -> Option<&Duty> {
        self.slab.get(id)
    }

    /// The part of this number, to be changed. Its batch must stay.
    pub fn get_mut(&mut self, id: usize) -> Option<&mut Duty> {
        self.slab.get_mut(id)
    }

    /// Numbers of all parts with this very batch.
    pub fn with_batch(&self, batch: &Arc<Batch>) -> Vec<usize> {
        let of_batch = self.slab.iter().filter(|(_, duty)| Arc::ptr_eq(&duty.batch, batch));
        of_batch.map(|(id, _)| id).collect()
    }

    /// Removes a part, which is settled or withdrawn, and returns it.
    pub fn remove(&mut self, id: usize) -> Option<Duty> {
        let duty = self.slab.try_remove(id)?;
        let bytes = duty.batch.cost_bytes();
        debug_assert!(bytes <= self.batch_bytes, "{bytes} of {} bytes", self.batch_bytes);
        self.batch_bytes = self.batch_bytes.saturating_sub(bytes);
        if Announced::of(&duty.batch).is_some() {
            self.offers.remove(&duty.batch);
        }
        debug_assert!(!self.slab.is_empty() || self.batch_bytes == 0, "{} bytes", self.batch_bytes);
        Some(duty)
    }

    /// Notes that one fragment of a part was acknowledged. The part is settled with the last one.
    pub fn settle_fragment(&mut self, id: usize) {
        let Some(duty) = self.slab.get_mut(id) else { return };
        debug_assert!(duty.left > 0, "a part without open fragments is settled");
        duty.left = duty.left.saturating_sub(1);
        if duty.left == 0 {
            self.remove(id);
        }
    }

    /// Notes that a fragment of a part was queued on a link for the first time.
    pub fn note_queued(&mut self, is_own: bool, bytes: usize) {
        if is_own {
            self.own_unsent_bytes += bytes;
        }
    }

    /// Notes that a fragment no longer waits on a link, because it was sent or withdrawn. Only a fragment
    /// that had never been sent counts.
    pub fn note_unqueued(&mut self, is_own: bool, sent: &UnsettledPart) {
        if is_own && sent.tries == 0 {
            let bytes = sent.bytes as usize;
            debug_assert!(bytes <= self.own_unsent_bytes, "{} bytes", self.own_unsent_bytes);
            self.own_unsent_bytes = self.own_unsent_bytes.saturating_sub(bytes);
        }
    }

    /// Memory of the batches on duty, in bytes.
    pub fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Bytes of this node's own parts that wait to be sent for the first time.
    pub fn own_unsent_bytes(&self) -> usize {
        self.own_unsent_bytes
    }

    /// Bytes of this node's own batches that may be offered for pulling now.
    pub fn offer_room_bytes(&self) -> usize {
        self.offers.room_bytes()
    }

    /// The batch of this name, if peers may pull it.
    pub fn offered(&self, id: BatchId) -> Option<&Batch> {
        self.offers.get(id)
    }

    /// Returns whether there is a part of this node's own records.
    pub fn has_own(&self) -> bool {
        self.slab.iter().any(|(_, duty)| duty.part.is_own)
    }

    /// Number of parts.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Bytes of this node's own batches that are offered for pulling.
    #[cfg(test)]
    pub fn own_offered_bytes(&self) -> usize {
        self.offers.own_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::spread::codec::pack;
    use crate::cluster::spread::duty::RangeTask;
    use crate::cluster::spread::harness::{identity, record};
    use crate::cluster::spread::span::Span;

    fn duty(batch: &Arc<Batch>, fragments: u32) -> Duty {
        let task = RangeTask::of_origin(Span::whole_after(0), "".into());
        Duty { fragments, left: fragments, ..Duty::new(batch.clone(), task, 0) }
    }

    /// The batch of one record of `len` bytes.
    fn batch(len: usize) -> Arc<Batch> {
        let origin = identity(0);
        Arc::new(pack(&origin.name, 1, 0, 0, &[record(&origin.name, 1, 1, len)]).remove(0))
    }

    #[test]
    fn bytes_are_those_of_the_parts_that_are_left() {
        let (mut duties, small) = (Duties::default(), batch(100));
        let (first, second) = (duties.insert(duty(&small, 2)), duties.insert(duty(&small, 1)));
        assert_eq!(duties.batch_bytes(), 2 * small.cost_bytes(), "a batch counts for each of its parts");
        duties.settle_fragment(first);
        assert_eq!(duties.len(), 2, "one of two fragments");
        duties.settle_fragment(first);
        duties.settle_fragment(first);
        assert_eq!((duties.len(), duties.batch_bytes()), (1, small.cost_bytes()));
        assert!(duties.has_own() && duties.remove(second).is_some() && duties.remove(second).is_none());
        assert_eq!((duties.batch_bytes(), duties.has_own()), (0, false));
    }

    #[test]
    fn a_large_batch_is_offered_for_as_long_as_a_part_with_it_is_left() {
        let (mut duties, large) = (Duties::default(), batch(100_000));
        let room_bytes = duties.offer_room_bytes();
        let (first, second) = (duties.insert(duty(&large, 1)), duties.insert(duty(&large, 1)));
        assert_eq!(duties.own_offered_bytes(), large.encoded.len(), "it counts once");
        duties.settle_fragment(first);
        assert!(duties.offered(large.id).is_some() && duties.offer_room_bytes() < room_bytes);
        duties.settle_fragment(second);
        assert!(duties.offered(large.id).is_none() && duties.offer_room_bytes() == room_bytes);
    }

    #[test]
    fn only_own_parts_that_were_never_sent_wait() {
        let mut duties = Duties::default();
        let sent = |tries| UnsettledPart { tries, ..UnsettledPart::new(0, 0, 500, false) };
        duties.note_queued(true, 500);
        duties.note_queued(false, 500);
        assert_eq!(duties.own_unsent_bytes(), 500);
        duties.note_unqueued(true, &sent(1));
        duties.note_unqueued(false, &sent(0));
        assert_eq!(duties.own_unsent_bytes(), 500);
        duties.note_unqueued(true, &sent(0));
        assert_eq!(duties.own_unsent_bytes(), 0);
    }
}
