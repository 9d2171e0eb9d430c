//! The narrow interface between the writer thread and a place that keeps one node's records.
//!
//! The writer calls [`StoreEngine::commit`] with one [`WriteGroup`] at a time and retries the same group
//! until it succeeds. A commit is idempotent: every write compares stamps, so a group that was half
//! written, or written without its answer having come back, may be written again.

use super::error::StoreError;
use super::queue::WriteGroup;
use super::write_path::Marks;
use crate::cluster::Heads;
use crate::record::Stamp;

/// A place that keeps the latest record of every source and the ring of those before it.
pub(super) trait StoreEngine: Send + Sync {
    /// Writes a group and the marks. Returns once they survive a power cut.
    fn commit(&self, group: &WriteGroup, marks: Marks) -> Result<(), StoreError>;
    /// Writes the marks at an orderly end, however young those are that were written last. A failure is
    /// logged.
    fn keep_last_marks(&self, marks: Marks) {
        if let Err(error) = self.commit(&WriteGroup::default(), marks) {
            tracing::warn!(%error, "the last marks were not kept");
        }
    }
    /// Returns whether work was put off that commits of empty groups would do.
    fn has_deferred_work(&self) -> bool;
    /// Keeps the heads of what is written, for the next time it is opened, and for that time alone.
    fn keep_heads(&self, heads: &Heads) -> Result<(), StoreError>;
    /// Makes the engine usable again after an error, if that is possible.
    fn recover(&self) -> Result<(), StoreError>;
    /// Shows at most `limit` names that follow `after`, in order, with the stamps of their latest records.
    fn sources(
        &self,
        after: Option<&str>,
        limit: usize,
        each: &mut dyn FnMut(&str, Stamp),
    ) -> Result<(), StoreError>;
    /// Closes the files cleanly. Every later call is an error.
    fn close(&self);
}
