//! The parts that this node answers for, from the time it takes them on until they are settled or given up.
//!
//! Custody of a range with a batch begins when this node gives a receipt for it, or takes a client's record.
//! It then hands the parts of the range to members, and keeps each as a duty until its member gives a receipt
//! in turn, or no member is left to try.
//!
//! - [`handover`] cuts ranges and chooses who gets a part;
//! - [`sending`] puts parts that wait into packets;
//! - [`receipts`] settles what a peer acknowledges;
//! - [`retry`] answers silence: it tries again, moves a part to another member, or gives it up;
//! - [`duties`] keeps the parts and counts their bytes; [`offers`] has the batches that peers may pull;
//!   [`budget`] bounds what is sent again.

mod budget;
mod duties;
mod handover;
mod offers;
mod receipts;
mod retry;
mod sending;
#[cfg(test)]
mod tests;

use self::budget::RetryBudget;
use self::duties::Duties;
use super::batch::{Batch, BatchId};
use super::links::Links;
use super::tree::FANOUT;
use crate::cluster::stats::QueueGauge;
use crate::limits::RECORD_BYTES_CEILING;

/// Most bytes of this node's own parts that wait to be sent for the first time, on all links.
const OWN_UNSENT_BYTES_MAX: usize = 512 * 1024;
/// Memory of batches on duty beyond which no further custody is taken, in bytes.
const DUTY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The parts that this node answers for, and the budget for sending them again.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// The parts that were handed to members and are not settled.
    duties: Duties,
    /// Bytes that may be sent again.
    budget: RetryBudget,
}

impl Custody {
    /// Number of bytes of this node's own records that can be taken now; 0 while the links are full.
    pub fn room_bytes(&self) -> usize {
        let on_links = OWN_UNSENT_BYTES_MAX.saturating_sub(self.duties.own_unsent_bytes()) / FANOUT;
        on_links.min(self.duties.offer_room_bytes())
    }

    /// Returns whether so many bytes are on duty that no further custody may be taken.
    pub fn is_full(&self) -> bool {
        self.duties.batch_bytes() > DUTY_BYTES_MAX
    }

    /// Returns whether each of this node's own records was acknowledged by another member, or was given up.
    pub fn is_drained(&self) -> bool {
        !self.duties.has_own()
    }

    /// The batch of this name, if it is too large for datagrams and was announced to peers.
    pub fn offered(&self, id: BatchId) -> Option<&Batch> {
        self.duties.offered(id)
    }

    /// First numbers of the batches of a line that are on their way to the peer of a link to fill a gap.
    pub fn repairs_underway(&self, links: &Links, link: usize, line: u64) -> Vec<u64> {
        let Some(link) = links.get(link) else { return Vec::new() };
        let duties = link.unsettled().iter().filter_map(|sent| self.duties.get(sent.duty));
        let repairs = duties.filter(|duty| duty.is_repair && duty.batch.id.line == line);
        repairs.map(|duty| duty.batch.id.first_seq).collect()
    }

    /// Calls `visit` with the number of bytes that wait and that are on duty, and their bounds.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        // The room that [`Custody::room_bytes`] returns is for records without headers: the parts of records
        // that fill it may take an eighth more.
        let own_max = OWN_UNSENT_BYTES_MAX + OWN_UNSENT_BYTES_MAX / FANOUT;
        visit(QueueGauge::new("bytes of own parts that wait", self.duties.own_unsent_bytes(), own_max));
        // A part is refused once there is too much on duty. The last one before may be the largest record,
        // and be cut into as many parts as there can be.
        let duty_max = DUTY_BYTES_MAX + FANOUT * RECORD_BYTES_CEILING;
        visit(QueueGauge::new("bytes of batches on duty", self.duties.batch_bytes(), duty_max));
    }

    /// Number of parts that are not settled.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.duties.len()
    }

    /// Memory of the batches on duty, bytes of own parts that were never sent, and bytes of own batches that
    /// are offered for pulling.
    #[cfg(test)]
    pub fn bytes(&self) -> (usize, usize, usize) {
        (self.duties.batch_bytes(), self.duties.own_unsent_bytes(), self.duties.own_offered_bytes())
    }
}
