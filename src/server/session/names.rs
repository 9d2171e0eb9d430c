//! Hashes that stand for the names of sources where many are remembered.

use hashbrown::HashSet;

use crate::record::hash::{NameState, name_hash};

/// A set of hashes by [`name_key`], or of other numbers that are hashes already.
pub(super) type Names = HashSet<u64, NameState>;

/// The hash of a source's name.
pub(super) fn name_key(source: &str) -> u64 {
    name_hash(source)
}
