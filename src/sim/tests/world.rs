//! Functions of a world that only tests use.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::cluster::Replicated;
use crate::cluster::outbox::Awaited;
use crate::record::SharedRecord;
use crate::sim::process::SimNode;
use crate::sim::queue::SimEvent;
use crate::sim::time::now_of;
use crate::sim::{NodeId, World};

impl World {
    /// Publishes records as if this node had accepted them: stamps, births and numbers are the caller's.
    /// Does nothing if the node does not run.
    pub fn publish(&mut self, id: NodeId, records: &[SharedRecord]) {
        if !self.is_running(id) {
            return;
        }
        for record in records {
            self.nodes[id].replica.merge(record.clone());
            self.deliveries.accept(self.now_us, record, true);
        }
        self.with(id, |machine, _, now| machine.handle_published(now, records));
    }

    /// Publishes records, one of which all members are to hold before it is answered.
    ///
    /// # Panics
    /// As soon as the answer says that all members hold it, while one does not that was alive in the
    /// origin's view at acceptance and still is.
    pub fn publish_awaited(&mut self, id: NodeId, awaited: Awaited, records: &[SharedRecord]) {
        self.awaited.wait(&self.nodes, id, awaited.clone());
        self.with(id, |machine, _, now| machine.handle_awaited(now, vec![awaited]));
        self.publish(id, records);
    }

    /// Returns the answer of a node to this token, if it was given.
    pub fn answer(&self, id: NodeId, token: u64) -> Option<Replicated> {
        self.awaited.answer(id, token)
    }

    /// Sends a running node a datagram that says that it comes from this address.
    pub fn forge(&mut self, from: SocketAddr, to: NodeId, bytes: Bytes) {
        let (from, to) = (self.place(from), self.nodes[to].place);
        self.queue.push(self.now_us + 100, SimEvent::Datagram { from, to, bytes });
    }

    /// Returns whether a node was not stopped; it may be paused.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(SimNode::is_up)
    }

    /// Returns the nodes that were not stopped.
    pub fn up(&self) -> impl Iterator<Item = NodeId> {
        (0..self.nodes.len()).map(NodeId).filter(|&id| self.is_up(id))
    }

    /// Returns a node's wall clock, in microseconds since the Unix epoch.
    pub fn wall_us(&self, id: NodeId) -> u64 {
        let offset_us = self.nodes.get(id).map_or(0, |node| node.wall_offset_us);
        now_of(self.now_us, offset_us).wall_us
    }

    /// Makes bytes arrive at an address now, as if another address had sent them.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let (from, to) = (self.place(from), self.place(to));
        self.queue.push(self.now_us, SimEvent::Datagram { from, to, bytes });
    }

    /// Returns the address of another node with this node's name, if its machine reported one.
    pub fn name_taken(&self, id: NodeId) -> Option<SocketAddr> {
        self.nodes[id].name_taken
    }
}
