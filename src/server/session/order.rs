//! A check that no source goes back on a connection; in builds with debug assertions only.

#[cfg(debug_assertions)]
use hashbrown::HashMap;

use crate::latest::Change;
#[cfg(debug_assertions)]
use crate::record::hash::NameState;

/// The changes that one connection was handed, as far as that is needed to see their order.
///
/// A change of a source must have a greater version than the one before: versions grow with every
/// change of a shard, and a record takes the place of another only if its stamp is greater.
#[derive(Debug, Default)]
pub(super) struct ChangeOrder {
    /// The version that each source had last, by its [`name_key`](super::names::name_key).
    #[cfg(debug_assertions)]
    versions: HashMap<u64, u64, NameState>,
}

impl ChangeOrder {
    /// Checks that the change is newer than what this connection was handed of its source.
    #[cfg(debug_assertions)]
    pub(super) fn check(&mut self, change: &Change) {
        let source = change.record.source.as_str();
        let before = self.versions.insert(super::names::name_key(source), change.version);
        debug_assert!(
            before.is_none_or(|before| before < change.version),
            "{source} goes back from version {before:?} to {}",
            change.version
        );
    }

    /// Does nothing in builds without debug assertions.
    #[cfg(not(debug_assertions))]
    pub(super) fn check(&mut self, _: &Change) {}
}
