//! A walk through records, in parts.

use super::SharedRecord;

/// A walk through all records that match a pattern, deletions included, in parts that take about a millisecond.
pub trait RecordWalk: Send {
    /// Returns the next records, of about `bytes` bytes of memory together; fewer if there is no time for more. Called on
    /// a thread for blocking work.
    fn next_part(&mut self, bytes: usize) -> Vec<SharedRecord>;
    /// Returns whether all records have been returned.
    fn is_over(&self) -> bool;
}
