//! The store that a node is configured for.

use std::sync::Arc;

use super::clock;
use crate::config::{Config, StoreKind};
use crate::store::{BackendKind, NodeIdentity, OpenError, StoreHandle, StoreOptions};

/// Least number of bytes that may wait in the store's journal. The number is a 64th of the memory for the
/// map, between this bound and [`JOURNAL_BYTES_MAX`]. At 57,000 records a second a commit takes 47 ms with
/// the least, and 3 ms with the largest.
const JOURNAL_BYTES_MIN: usize = 16 * 1024 * 1024;
/// Largest number of bytes that may wait in the store's journal.
const JOURNAL_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Opens the store, and returns it with what it knows of this node.
pub fn open(config: &Config) -> Result<(StoreHandle, NodeIdentity), OpenError> {
    let kind = match (config.store, &config.cassandra) {
        (StoreKind::Memory, _) => BackendKind::Memory,
        (StoreKind::Cassandra, Some(cassandra)) => BackendKind::Cassandra(Box::new(cassandra.clone())),
        _ => BackendKind::Embedded,
    };
    let options = StoreOptions {
        history: config.history.get(),
        node_name: config.node_name.clone(),
        journal_bytes: (config.max_memory_bytes / 64).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX),
        ..StoreOptions::new(Arc::new(clock::now), clock::chance())
    };
    StoreHandle::open(kind, &config.data_dir, options)
}
