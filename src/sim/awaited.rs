//! Answers that wait until all members hold a record, and the check that they are true.

use std::collections::{BTreeMap, BTreeSet};

use super::ahead::Nodes;
use super::place::NodeId;
use crate::cluster::Replicated;
use crate::cluster::outbox::Awaited;
use crate::cluster::ring::RingEntry;

/// The members that were alive in a node's view at some time: their names and boot numbers.
type View = BTreeSet<(String, u64)>;

/// The answers of all nodes, by node and token.
#[derive(Debug, Default)]
pub(super) struct AwaitedAnswers {
    /// The answers that have not been given yet, with the origin's view at acceptance.
    waiting: BTreeMap<(NodeId, u64), (Awaited, View)>,
    given: BTreeMap<(NodeId, u64), Replicated>,
}

impl AwaitedAnswers {
    /// Returns whether any answer has not been given yet.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Notes that a node waits for all members to hold a record that it accepts now.
    #[cfg(test)]
    pub fn wait(&mut self, nodes: &Nodes, id: NodeId, awaited: Awaited) {
        self.waiting.insert((id, awaited.token), (awaited, view_of(nodes, id)));
    }

    /// Returns the answer of a node to this token, if it was given.
    #[cfg(test)]
    pub fn answer(&self, id: NodeId, token: u64) -> Option<Replicated> {
        self.given.get(&(id, token)).copied()
    }

    /// Notes that a node's machine gave an answer, and checks it.
    ///
    /// # Panics
    /// If the answer says that all members hold the record, while one does not that was alive in the
    /// origin's view at acceptance and still is, or if it counts others than those.
    pub fn settle(&mut self, nodes: &Nodes, id: NodeId, replicated: Replicated) {
        let key = (id, replicated.token);
        let Some((awaited, then)) = self.waiting.remove(&key) else { return };
        let both: View = then.intersection(&view_of(nodes, id)).cloned().collect();
        for node in nodes.iter().filter(|node| node.is_up()) {
            let member = (node.config.name.to_string(), node.config.boot);
            debug_assert_eq!(node.machine.identity().boot, node.config.boot, "a boot number is kept");
            let held = node.replica.latest(awaited.source.as_str());
            let holds = held.is_some_and(|held| held.stamp >= awaited.stamp);
            let is_meant = replicated.is_whole && both.contains(&member);
            assert!(holds || !is_meant, "{replicated:?} at {}, and {member:?} lacks it", id.0);
        }
        if replicated.is_whole {
            assert_eq!(replicated.nodes as usize, both.len(), "{replicated:?} at {}", id.0);
        }
        self.given.insert(key, replicated);
    }
}

fn view_of(nodes: &Nodes, id: NodeId) -> View {
    let machine = &nodes[id].machine;
    let me = machine.identity();
    let boot = |entry: &RingEntry| match *entry.name() == me.name {
        // A boot number that the node itself takes while it runs changes nothing for its own answers.
        true => entry.start_boot(),
        false => entry.boot(),
    };
    machine.ring().entries().iter().map(|entry| (entry.name().to_string(), boot(entry))).collect()
}
