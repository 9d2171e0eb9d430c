//! The result of a publish: what became of the record, and the ack level that it reached.

use super::AckLevel;

/// The effect of a publish on the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record is the newest of its source now.
    Applied,
    /// The map held this very record already.
    Duplicate,
    /// The source has a newer record, which stays.
    Stale {
        /// `ts` of the newer record, in microseconds.
        current_ts: u64,
    },
    /// A middleware has dropped the record: the publisher is not at fault, and nothing changes.
    Dropped,
}

/// The answer to a publish that reached its ack level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Timestamp of the record in microseconds, given by the publisher or by the node.
    pub ts: u64,
    /// The effect of the publish on the map.
    pub outcome: Outcome,
    /// The ack level that was reached.
    pub level: AckLevel,
    /// Number of members that hold the record. Present with the level `replicated`; 0 for a record that was dropped.
    pub nodes: Option<u32>,
}
