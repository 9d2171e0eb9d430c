//! The records that a node writes into its store: the whole difference between a store that is one
//! node's and one that all nodes share.
//!
//! Into a store of its own a node writes everything that becomes the latest there. Into a shared one
//! each node writes the records that it accepted from clients, so that every record is written once;
//! and when a node is gone, the survivors write what it had not ([`Takeover`]).

mod takeover;

use crate::record::{NodeName, Record, Source};

pub(crate) use self::takeover::{MARK_TTL_MS, NodeLife, Survivor, Takeover};

/// Whether a store holds the records of one node or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// One node's: every node has a store of its own.
    Private,
    /// All nodes': they read and write the same.
    Shared,
}

/// Decides which records this node writes into its store.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    sharing: Sharing,
    /// Name of this node.
    node: NodeName,
}

impl Placement {
    /// The policy of the node with this name.
    pub(super) fn new(sharing: Sharing, node: NodeName) -> Placement {
        Placement { sharing, node }
    }

    /// Returns whether all nodes share the store.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// Returns whether this node writes a record that became the latest here. The marks that nodes
    /// publish about a shared store are not written into it.
    pub(crate) fn writes(&self, record: &Record) -> bool {
        !self.is_shared() || (self.is_own(record) && !Source::is_system(record.source.as_str()))
    }

    /// Returns whether this node writes a record that it already holds, because a client asked that it
    /// be stored and sent nothing newer. In a shared store another node writes it, at some time that
    /// the client is not to wait for.
    pub(crate) fn writes_for_asker(&self, winner: &Record) -> bool {
        self.is_shared() && !self.is_own(winner)
    }

    /// Returns whether a record that leaves the map is removed from the store. Before it is due, at
    /// `wall_us` and with deletions kept for `tombstones_us`, the copy that is dropped is this node's
    /// alone, and a shared store keeps the record for the others.
    pub(crate) fn removes(&self, record: &Record, wall_us: u64, tombstones_us: u64) -> bool {
        // A value that has expired is gone for all nodes. How long each remembers that depends on its memory.
        let kept_us = if record.stamp.deleted { tombstones_us } else { 0 };
        !self.is_shared() || record.collect_us(kept_us).is_some_and(|due_us| due_us <= wall_us)
    }

    fn is_own(&self, record: &Record) -> bool {
        record.birth.origin == self.node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{deletion, record};

    fn placement(sharing: Sharing, node: &str) -> Placement {
        Placement::new(sharing, NodeName::parse(node).expect("name"))
    }

    #[test]
    fn a_private_store_is_given_everything() {
        let private = placement(Sharing::Private, "n2");
        for record in [record("a", 1, b"1"), record("$anode/x", 1, b"1"), deletion("a", 1)] {
            assert!(private.writes(&record) && private.removes(&record, 0, 10));
            assert!(!private.writes_for_asker(&record));
        }
    }

    #[test]
    fn of_a_shared_store_each_node_writes_what_it_accepted() {
        // The records of these tests were accepted by n1.
        let (n1, n2) = (placement(Sharing::Shared, "n1"), placement(Sharing::Shared, "n2"));
        let (plain, system) = (record("a", 1, b"1"), record("$anode/stored/n1/1", 1, b"1"));
        assert!(n1.writes(&plain) && !n1.writes(&system) && !n2.writes(&plain));
        assert!(!n1.writes_for_asker(&plain) && n2.writes_for_asker(&plain));
    }

    #[test]
    fn a_shared_store_keeps_what_one_node_drops_too_early() {
        let shared = placement(Sharing::Shared, "n1");
        let deleted = deletion("a", 100);
        assert!(!shared.removes(&deleted, 109, 10) && shared.removes(&deleted, 110, 10));
        assert!(!shared.removes(&record("a", 100, b"1"), u64::MAX, 10), "a value without an end stays");
    }
}
