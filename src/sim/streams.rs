//! TCP connections between nodes: bytes arrive in order and none are lost; either side may close.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ahead::Nodes;
use super::network::Network;
use super::place::{Hosts, NodeId, Place};
use super::queue::{EventQueue, SimEvent};
use crate::cluster::{StreamEvent, StreamId};
use crate::limits::DATAGRAM_HEADER_BYTES;

/// How long a sender to which nothing comes back tries before its connection is closed, in microseconds.
const GIVE_UP_US: u64 = 3_000_000;
/// How long a socket takes from a write until it has taken all of it, in microseconds.
const DRAIN_US: u64 = 10;

/// All connections of a world.
#[derive(Debug, Default)]
pub(super) struct SimStreams {
    /// The other end of every open connection, by the node and the stream at this end. Every connection is in
    /// here twice, once for each end.
    ends: BTreeMap<(NodeId, StreamId), OtherEnd>,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
struct OtherEnd {
    peer: NodeId,
    peer_stream: StreamId,
    /// Time at which the last bytes sent to that end arrive, in microseconds of the world.
    arrives_us: u64,
}

/// The parts of the world that connections need, lent for one call.
pub(super) struct StreamWorld<'a> {
    /// Time of the world, in microseconds.
    pub now_us: u64,
    /// The links between the nodes.
    pub network: &'a mut Network,
    /// The events that will happen.
    pub queue: &'a mut EventQueue,
    /// The nodes that listen at each address.
    pub hosts: &'a Hosts,
    /// All nodes of the world.
    pub nodes: &'a mut Nodes,
}

impl StreamWorld<'_> {
    fn tell(&mut self, at_us: u64, to: NodeId, stream: StreamId, event: StreamEvent) {
        let life = self.nodes.life(to);
        self.queue.push(at_us, SimEvent::Stream { to, life, stream, event });
    }
}

impl SimStreams {
    /// Sends the request for a connection that a machine asked for.
    pub fn request(&mut self, world: StreamWorld<'_>, from: NodeId, stream: StreamId, to: Place) {
        let target = world.hosts.node_at(to).unwrap_or(from);
        let at_us = world.network.stream(world.now_us, from, target, DATAGRAM_HEADER_BYTES);
        let life = world.nodes.life(from);
        world.queue.push(at_us, SimEvent::Connect { from, life, stream, to });
    }

    /// Handles the arrival of a request that the node `from` made in its life `life`.
    pub fn connect(
        &mut self,
        mut world: StreamWorld<'_>,
        from: NodeId,
        life: u32,
        stream: StreamId,
        to: Place,
    ) {
        if world.nodes.life(from) != life {
            return;
        }
        let target = world.hosts.node_at(to);
        let way_back = target.unwrap_or(from);
        let back_us = world.network.stream(world.now_us, way_back, from, DATAGRAM_HEADER_BYTES);
        let is_open = |network: &Network, a, b| network.is_open(a, b) && network.is_open(b, a);
        let Some(target) = target.filter(|&target| is_open(world.network, from, target)) else {
            // The request is refused where the computer is up but no process listens; otherwise nothing comes
            // back.
            let is_refused = way_back == from;
            let at_us = if is_refused { back_us } else { world.now_us + GIVE_UP_US };
            return world.tell(at_us, from, stream, StreamEvent::Closed);
        };
        let node = &mut world.nodes[target];
        node.streams_accepted += 1;
        // Streams that a node accepts have even numbers: its machine gives odd ones to those it opens.
        let peer_stream = StreamId(2 * node.streams_accepted);
        let there = OtherEnd { peer: target, peer_stream, arrives_us: world.now_us };
        let here = OtherEnd { peer: from, peer_stream: stream, arrives_us: back_us };
        self.ends.insert((from, stream), there);
        self.ends.insert((target, peer_stream), here);
        let accepted = StreamEvent::Accepted { from: world.nodes[from].address };
        world.tell(world.now_us, target, peer_stream, accepted);
        world.tell(back_us, from, stream, StreamEvent::Opened);
    }

    /// Sends bytes that a machine writes on a connection.
    pub fn write(&mut self, mut world: StreamWorld<'_>, id: NodeId, stream: StreamId, bytes: Bytes) {
        self.send(&mut world, id, stream, StreamEvent::Received(bytes));
        if self.ends.contains_key(&(id, stream)) {
            world.tell(world.now_us + DRAIN_US, id, stream, StreamEvent::Drained);
        }
    }

    /// Closes a connection for one side. The other side learns of it after all bytes that were written
    /// before.
    pub fn close(&mut self, world: &mut StreamWorld<'_>, id: NodeId, stream: StreamId) {
        self.send(world, id, stream, StreamEvent::Closed);
        if let Some(end) = self.ends.remove(&(id, stream)) {
            let other = self.ends.remove(&(end.peer, end.peer_stream));
            debug_assert!(other.is_some(), "a connection has two ends");
        }
    }

    /// Closes all connections of a node that has stopped.
    pub fn close_all(&mut self, mut world: StreamWorld<'_>, id: NodeId) {
        let all = self.ends.range((id, StreamId(0))..=(id, StreamId(u64::MAX)));
        let streams: Vec<StreamId> = all.map(|(&(_, stream), _)| stream).collect();
        for stream in streams {
            self.close(&mut world, id, stream);
        }
    }

    /// Sends something to the other end, so that it arrives behind what was sent before.
    fn send(&mut self, world: &mut StreamWorld<'_>, id: NodeId, stream: StreamId, event: StreamEvent) {
        let Some(end) = self.ends.get_mut(&(id, stream)) else { return };
        let (peer, peer_stream) = (end.peer, end.peer_stream);
        if !world.network.is_open(id, peer) {
            // TCP sends it again and again, and gives up at last.
            for (to, stream) in [(id, stream), (peer, peer_stream)] {
                self.ends.remove(&(to, stream));
                world.tell(world.now_us + GIVE_UP_US, to, stream, StreamEvent::Closed);
            }
            return;
        }
        let bytes = if let StreamEvent::Received(bytes) = &event { bytes.len() } else { 0 };
        let arrives_us = world.network.stream(world.now_us, id, peer, bytes + DATAGRAM_HEADER_BYTES);
        end.arrives_us = end.arrives_us.max(arrives_us);
        let arrives_us = end.arrives_us;
        world.tell(arrives_us, peer, peer_stream, event);
    }
}
