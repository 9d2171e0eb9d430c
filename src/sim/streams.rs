//! Streams between nodes: in order, made good by their senders, closed from either side.

use super::network::Network;
use super::nodes::{NodeId, Place};
use super::queue::Event;
use super::world::World;
use crate::cluster::{StreamEvent, StreamId};
use crate::limits::DATAGRAM_HEADER_BYTES;

/// Until a connection that nothing comes back on is given up.
const CONNECT_US_MAX: u64 = 3_000_000;
/// From a write until the socket has taken it.
const DRAIN_US: u64 = 10;

/// The other end of a stream, and when what was sent to it last arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    peer: NodeId,
    peer_stream: StreamId,
    arrives_us: u64,
}

impl World {
    /// A machine wants a connection.
    pub(super) fn request(&mut self, from: NodeId, stream: StreamId, to: Option<Place>) {
        let target = to.and_then(|to| self.hosts.node_at(to)).unwrap_or(from);
        let at_us = self.network.stream(self.now_us, from, target, DATAGRAM_HEADER_BYTES);
        let life = self.life(from);
        self.queue.push(at_us, Event::Connect { from, life, stream, to });
    }

    /// A connection request arrives.
    pub(super) fn connect(&mut self, from: NodeId, life: u32, stream: StreamId, to: Option<Place>) {
        if self.life(from) != life {
            return;
        }
        let target = to.and_then(|to| self.hosts.node_at(to));
        let way_back = target.unwrap_or(from);
        let back_us = self.network.stream(self.now_us, way_back, from, DATAGRAM_HEADER_BYTES);
        let is_open = |network: &Network, a, b| network.is_open(a, b) && network.is_open(b, a);
        let target = target.filter(|&target| is_open(&self.network, from, target));
        let Some(target) = target else {
            // Refused where the machine is up but nobody listens, else nothing comes back.
            let is_refused = way_back == from;
            let at_us = if is_refused { back_us } else { self.now_us + CONNECT_US_MAX };
            return self.stream_event(at_us, from, stream, StreamEvent::Closed);
        };
        let node = &mut self.nodes[target];
        node.streams_accepted += 1;
        let peer_stream = StreamId(2 * node.streams_accepted);
        self.ends.insert((from, stream), End { peer: target, peer_stream, arrives_us: self.now_us });
        let end = End { peer: from, peer_stream: stream, arrives_us: back_us };
        self.ends.insert((target, peer_stream), end);
        let accepted = StreamEvent::Accepted { from: self.nodes[from].address };
        self.stream_event(self.now_us, target, peer_stream, accepted);
        self.stream_event(back_us, from, stream, StreamEvent::Opened);
    }

    /// A machine writes.
    pub(super) fn write(&mut self, id: NodeId, stream: StreamId, bytes: bytes::Bytes) {
        self.send_on(id, stream, StreamEvent::Received(bytes));
        if self.ends.contains_key(&(id, stream)) {
            self.stream_event(self.now_us + DRAIN_US, id, stream, StreamEvent::Drained);
        }
    }

    /// Something goes to the other end, behind what was sent before.
    fn send_on(&mut self, id: NodeId, stream: StreamId, event: StreamEvent) {
        let Some(&end) = self.ends.get(&(id, stream)) else { return };
        if !self.network.is_open(id, end.peer) {
            // It is sent again and again, and given up at last.
            for (to, stream) in [(id, stream), (end.peer, end.peer_stream)] {
                self.ends.remove(&(to, stream));
                self.stream_event(self.now_us + CONNECT_US_MAX, to, stream, StreamEvent::Closed);
            }
            return;
        }
        let bytes = if let StreamEvent::Received(bytes) = &event { bytes.len() } else { 0 };
        let arrives_us =
            self.network.stream(self.now_us, id, end.peer, bytes + DATAGRAM_HEADER_BYTES).max(end.arrives_us);
        if let Some(end) = self.ends.get_mut(&(id, stream)) {
            end.arrives_us = arrives_us;
        }
        self.stream_event(arrives_us, end.peer, end.peer_stream, event);
    }

    /// One side is done with a stream; the other hears of it after all that was written.
    pub(super) fn close(&mut self, id: NodeId, stream: StreamId) {
        self.send_on(id, stream, StreamEvent::Closed);
        if let Some(end) = self.ends.remove(&(id, stream)) {
            self.ends.remove(&(end.peer, end.peer_stream));
        }
    }

    /// A node is no more: its streams are closed.
    pub(super) fn close_all(&mut self, id: NodeId) {
        let all = self.ends.range((id, StreamId(0))..=(id, StreamId(u64::MAX)));
        let streams: Vec<StreamId> = all.map(|(&(_, stream), _)| stream).collect();
        for stream in streams {
            self.close(id, stream);
        }
    }

    fn stream_event(&mut self, at_us: u64, to: NodeId, stream: StreamId, event: StreamEvent) {
        let life = self.life(to);
        self.queue.push(at_us, Event::Stream { to, life, stream, event });
    }
}
