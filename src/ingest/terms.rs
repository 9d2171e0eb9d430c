//! The bounds within which records are taken, and what is said of one that was.

use crate::protocol::answer::Outcome;

/// Bounds that are configured at the start and never change.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest data of a record, in bytes.
    pub record_bytes_max: usize,
    /// Size of the map in bytes above which clients may add no new source.
    pub map_bytes_max: usize,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
}

/// A publish that was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The record's stamp: the publisher's, or the node's.
    pub ts: u64,
    /// The outcome of the record: applied, duplicate or stale.
    pub outcome: Outcome,
    /// The store's ticket of the record that won: the record is durable once the store's mark has reached it.
    pub ticket: u64,
}
