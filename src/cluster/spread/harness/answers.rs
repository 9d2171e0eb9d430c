//! Publishes whose answer waits until all nodes hold the record, and the check of these answers.

use super::World;
use super::members::{Node, identity, record};
use crate::cluster::outbox::Awaited;
use crate::record::SharedRecord;

impl World {
    /// A node publishes one record, and waits until all hold it; returns the record's number, which is also
    /// the token of the answer.
    pub fn publish_awaited(&mut self, node: usize, len: usize) -> u64 {
        let publisher = &self.nodes[node];
        let (seq, boot) = (publisher.next_seq, publisher.boot);
        let awaited = record(&identity(node).name, boot, seq, len);
        self.await_held(node, seq, &awaited, true);
        self.publish(node, 1, len)
    }

    /// A node waits until all hold a record.
    pub fn await_held(&mut self, node: usize, token: u64, record: &SharedRecord, is_fresh: bool) {
        let (source, stamp, birth) = (record.source.clone(), record.stamp, record.birth.clone());
        let awaited = Awaited { token, source, stamp, birth, is_fresh };
        self.awaited.insert((node, token), awaited.clone());
        let (now, ring) = (self.now(), self.nodes[node].ring.clone());
        self.nodes[node].spread.handle_awaited(now, vec![awaited], &ring);
        self.pump(node);
    }

    /// Takes the answers of a node, each with the number of nodes that lack the record at this instant.
    pub(super) fn take_answers(&mut self, index: usize) {
        while let Some(replicated) = self.nodes[index].spread.poll_replicated() {
            let key = (index, replicated.token);
            let awaited = &self.awaited[&key];
            let holds = |node: &Node| {
                let held = node.arrivals.1.get(&awaited.source);
                held.is_some_and(|held| held.stamp >= awaited.stamp)
            };
            let others = self.nodes.iter().enumerate().filter(|node| node.0 != index && node.1.is_up);
            let lacking = others.filter(|node| !holds(node.1)).count();
            let before = self.answers.insert(key, (replicated, self.now_us, lacking));
            assert!(before.is_none(), "answered once");
        }
    }
}
