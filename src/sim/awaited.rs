//! Answers that wait until all members hold a record, and what was true when they went.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::NodeId;
use super::world::World;
use crate::cluster::Replicated;
use crate::cluster::outbox::Awaited;
use crate::record::SharedRecord;

/// Who was alive in the origin's view when a record was accepted: names and boots.
type View = BTreeSet<(String, u64)>;

/// What waits, and what was answered, by node and token.
#[derive(Debug, Default)]
pub(super) struct AwaitedAnswers {
    waiting: BTreeMap<(NodeId, u64), (Awaited, View)>,
    answered: BTreeMap<(NodeId, u64), Replicated>,
}

impl AwaitedAnswers {
    /// Whether one is still to go.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl World {
    /// Publishes records that this node accepted, of which one is to be with all members before it is
    /// answered.
    ///
    /// # Panics
    /// As soon as an answer says that all have it, while one does not that was alive in the origin's
    /// view when it was accepted, and still is.
    pub fn publish_awaited(&mut self, id: NodeId, awaited: Awaited, records: &[SharedRecord]) {
        let view = self.view_of(id);
        self.awaited.waiting.insert((id, awaited.token), (awaited.clone(), view));
        self.with(id, |machine, _, now| machine.handle_awaited(now, vec![awaited]));
        self.publish(id, records);
    }

    /// The answer of this token at a node, if it went.
    pub fn answer(&self, id: NodeId, token: u64) -> Option<Replicated> {
        self.awaited.answered.get(&(id, token)).copied()
    }

    fn view_of(&self, id: NodeId) -> View {
        let entries = self.machine(id).ring().entries().iter();
        entries.map(|entry| (entry.name().to_string(), entry.boot())).collect()
    }

    pub(super) fn handle_replicated(&mut self, id: NodeId, replicated: Replicated) {
        let key = (id, replicated.token);
        let Some((awaited, then)) = self.awaited.waiting.remove(&key) else { return };
        let now = self.view_of(id);
        let both: View = then.intersection(&now).cloned().collect();
        for node in self.up() {
            let config = &self.nodes[node].config;
            let member = (config.name.to_string(), config.boot);
            let held = self.replica(node).latest(awaited.source.as_str());
            let holds = held.is_some_and(|held| held.stamp >= awaited.stamp);
            let is_meant = replicated.is_whole && both.contains(&member);
            assert!(holds || !is_meant, "{replicated:?} at {}, and {member:?} lacks it", id.0);
        }
        if replicated.is_whole {
            assert_eq!(replicated.nodes as usize, both.len(), "{replicated:?} at {}", id.0);
        }
        self.awaited.answered.insert(key, replicated);
    }
}
