//! The parts of the machine that streams are for, borrowed for the time of one call.
//!
//! Each stream is for one part, by its purpose. A stream that a peer opened is handed to its part together
//! with the answer to the question whether the peer is a member; no part looks that up by itself.

use super::Replica;
use super::purpose::Purpose;
use super::reconcile::Reconcile;
use super::routing::StreamPeer;
use super::spread::Spread;
use super::streams::{StreamEvent, StreamId};
use super::swim::Swim;
use crate::record::Now;

/// The parts of a machine, and the map of its node.
pub(super) struct Parts<'a> {
    /// The membership, which knows who is a member.
    pub swim: &'a mut Swim,
    /// Spreading of new records.
    pub spread: &'a mut Spread,
    /// Comparison and repair of whole maps.
    pub reconcile: &'a mut Reconcile,
    /// The records that this node holds.
    pub replica: &'a mut dyn Replica,
}

impl Parts<'_> {
    /// Hands an event of a stream to the part that the stream is for.
    pub fn route(&mut self, now: Now, stream: StreamId, purpose: Purpose, event: StreamEvent) {
        match purpose {
            Purpose::Members => self.swim.handle_stream(now, stream, event),
            Purpose::Reconcile => {
                let heads = || self.spread.heads();
                self.reconcile.handle_stream(now, stream, event, &heads, self.replica);
            }
            Purpose::Bodies => {
                let ring = self.swim.ring().clone();
                self.spread.handle_stream(now, stream, event, &ring, self.replica);
            }
        }
    }

    /// Hands over a stream that a peer opened. Returns `false` if the peer is a stranger and may not ask for
    /// what the stream is for. Strangers may get the member list and reconcile, because a node that joins is a
    /// stranger at first; members alone pull batches.
    pub fn accept(
        &mut self,
        now: Now,
        stream: StreamId,
        purpose: Purpose,
        peer: StreamPeer,
        is_member: bool,
    ) -> bool {
        match purpose {
            Purpose::Members => self.swim.accept(now, stream, peer.address.ip(), is_member),
            Purpose::Reconcile => self.reconcile.accept(now, stream, is_member),
            Purpose::Bodies if is_member => {
                self.route(now, stream, purpose, StreamEvent::Accepted { from: peer.address });
            }
            Purpose::Bodies => return false,
        }
        true
    }

    /// Returns whether the first whole frame of the peer that opened this stream has come, and was one that a
    /// node would send.
    pub fn has_introduced(&self, stream: StreamId) -> bool {
        self.swim.has_spoken(stream) || self.reconcile.has_greeted(stream)
    }
}
