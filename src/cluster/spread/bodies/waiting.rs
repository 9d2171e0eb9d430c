//! Parts that wait for the bodies of their batches, and bodies that have arrived.

use bytes::Bytes;

use crate::cluster::spread::batch::Announced;
use crate::cluster::spread::link::PeerLife;
use crate::cluster::spread::wire::PartHeader;

/// A part that waits for its body.
#[derive(Debug)]
pub(in crate::cluster::spread) struct BodyWaiter {
    /// The peer that sent the part.
    pub from: PeerLife,
    /// The part's number.
    pub number: u64,
    /// The header of the part, with the request to this node.
    pub header: PartHeader,
    /// Time at which the part arrived, in microseconds.
    pub since_us: u64,
}

impl BodyWaiter {
    /// Returns whether both stand for the same part.
    pub fn is_same(&self, other: &BodyWaiter) -> bool {
        (self.from, self.number) == (other.from, other.number)
    }
}

/// A body that came and has the announced length; its checksum is not verified yet.
#[derive(Debug)]
pub(in crate::cluster::spread) struct PulledBody {
    /// The announcement of the body.
    pub announced: Announced,
    /// The encoded batch, as its origin packed it.
    pub body: Bytes,
    /// The parts that waited for the body.
    pub waiters: Vec<BodyWaiter>,
}
