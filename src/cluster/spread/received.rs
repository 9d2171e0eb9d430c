//! Batches that came from peers, from the time their headers are read until their records are in the map.
//!
//! The header of a batch is enough to pass it on. To decode its records, verify them and merge them takes most
//! of the time, and needs nothing but the batch and the map. So [`Replica::take_batch`] is given the batch as
//! a [`ReceivedBatch`]: a driver with several threads lets another one do this work, and reports the outcome
//! later.

use std::sync::Arc;

use super::batch::{Batch, BatchId};
use super::codec::read_records;
use crate::cluster::{Arrival, Replica};
use crate::record::Now;
#[cfg(test)]
use crate::record::SharedRecord;

/// Names a [`ReceivedBatch`] in the report of its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTicket {
    /// The name of the batch.
    pub(super) batch: BatchId,
    /// Distinguishes this arrival of the batch from others.
    pub(super) number: u64,
}

/// The outcome for a batch that came from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// All records are merged: the map holds each of them, or a newer one of its source.
    Held,
    /// All records are merged but for some that the map refuses, because their timestamps are too far ahead.
    HeldInPart,
    /// A record is damaged. Nothing was merged.
    Damaged,
}

/// The report on a batch whose outcome was not known at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedBatch {
    /// The ticket of the batch.
    pub ticket: BatchTicket,
    /// The outcome for the records of the batch.
    pub outcome: BatchOutcome,
}

/// A batch that came from a peer, whose header was verified, and whose records were not.
#[derive(Clone, Debug)]
pub struct ReceivedBatch {
    batch: Arc<Batch>,
    ticket: BatchTicket,
    /// How the records came; `None`: they are held already, and only the bytes of the batch must be verified.
    arrival: Option<Arrival>,
}

impl ReceivedBatch {
    /// A batch that came by `arrival`; `None`: its records are held already.
    pub(super) fn new(batch: Arc<Batch>, ticket: BatchTicket, arrival: Option<Arrival>) -> ReceivedBatch {
        ReceivedBatch { batch, ticket, arrival }
    }

    /// The batch of one record, as if it had come from the life `boot` of `origin`.
    #[cfg(test)]
    pub(crate) fn of_one(origin: &str, boot: u64, record: &SharedRecord) -> ReceivedBatch {
        use super::codec::pack;
        use crate::record::NodeName;

        let origin = NodeName::parse(origin).expect("a name");
        let seq = record.birth.seq;
        let batch = Arc::new(pack(&origin, boot, seq - 1, 0, std::slice::from_ref(record)).remove(0));
        let ticket = BatchTicket { batch: batch.id, number: seq };
        ReceivedBatch::new(batch, ticket, Some(Arrival::Tree { hops: 1 }))
    }

    /// The ticket under which the outcome is reported.
    pub fn ticket(&self) -> BatchTicket {
        self.ticket
    }

    /// A number that all batches of one life of an origin have in common, and hardly any others. Batches with
    /// the same number are to be applied in the order in which they came, so that subscribers see the records
    /// of a source in the order in which they were published.
    pub fn line(&self) -> u64 {
        self.ticket.batch.line
    }

    /// Number of records in the batch.
    pub fn records(&self) -> usize {
        self.batch.records.count as usize
    }

    /// Memory that the batch takes, in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.batch.cost_bytes()
    }

    /// Decodes and verifies all records, and hands them to the map if none is damaged.
    pub fn apply_to<R: Replica + ?Sized>(&self, now: Now, replica: &mut R) -> BatchOutcome {
        let Some(records) = read_records(&self.batch) else { return BatchOutcome::Damaged };
        let Some(arrival) = self.arrival else { return BatchOutcome::Held };
        let is_in_part = records.iter().any(|record| record.is_far_ahead(now.wall_us));
        for record in records {
            replica.apply(now, record, arrival);
        }
        if is_in_part { BatchOutcome::HeldInPart } else { BatchOutcome::Held }
    }
}
