//! Batches that are too large for datagrams: they are announced to peers, which may pull them over a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::spread::batch::{Batch, BatchId};

/// Most bytes of this node's own batches that others still have to pull.
const OWN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A batch that peers may pull.
#[derive(Debug)]
struct Offer {
    batch: Arc<Batch>,
    /// Number of unsettled parts that announce the batch.
    parts: usize,
    /// Bytes that the batch counts as this node's own; 0 if another node is its origin.
    own_bytes: usize,
}

/// All batches that peers may pull: each for as long as a part with the batch is not settled.
#[derive(Debug, Default)]
pub(super) struct Offers {
    batches: BTreeMap<BatchId, Offer>,
    /// Bytes of the batches that are this node's own.
    own_bytes: usize,
}

impl Offers {
    /// Notes that a part announces this batch. `is_own`: this node is the origin of the batch.
    pub fn add(&mut self, batch: &Arc<Batch>, is_own: bool) {
        let new = || Offer { batch: batch.clone(), parts: 0, own_bytes: 0 };
        let offer = self.batches.entry(batch.id).or_insert_with(new);
        offer.parts += 1;
        if is_own && offer.own_bytes == 0 {
            offer.own_bytes = batch.encoded.len();
            self.own_bytes += offer.own_bytes;
        }
    }

    /// Notes that a part that announced this batch is settled or withdrawn.
    pub fn remove(&mut self, batch: &Batch) {
        let Some(offer) = self.batches.get_mut(&batch.id) else { return };
        debug_assert!(offer.parts > 0, "an offer without parts is removed");
        offer.parts -= 1;
        if offer.parts == 0 {
            self.own_bytes -= offer.own_bytes;
            self.batches.remove(&batch.id);
        }
        debug_assert!(!self.batches.is_empty() || self.own_bytes == 0, "{} bytes", self.own_bytes);
    }

    /// The batch of this name, if it is on offer.
    pub fn get(&self, id: BatchId) -> Option<&Batch> {
        self.batches.get(&id).map(|offer| &*offer.batch)
    }

    /// Bytes of own batches that may be offered now.
    pub fn room_bytes(&self) -> usize {
        OWN_BYTES_MAX.saturating_sub(self.own_bytes)
    }

    /// Bytes of own batches that are on offer.
    #[cfg(test)]
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }
}
