//! Parts that wait for bodies, and bodies that came for them.

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
    /// What the part asks of this node.
    pub header: PartHeader,
    /// When the part came, in microseconds.
    pub since_us: u64,
}

impl BodyWaiter {
    /// Whether both are the same part.
    pub fn is_same(&self, other: &BodyWaiter) -> bool {
        (self.from, self.number) == (other.from, other.number)
    }
}

/// A body that came, as long as it was announced; its checksum is not verified.
#[derive(Debug)]
pub(in crate::cluster::spread) struct PulledBody {
    /// What was said of it.
    pub announced: Announced,
    /// The batch as it was packed.
    pub body: Bytes,
    /// The parts that waited for it.
    pub waiters: Vec<BodyWaiter>,
}
