//! The places that applied records go to: the workers' mailboxes and the store.

use std::sync::Arc;

use super::mailbox::{self, Mailbox};
use super::watches::Watches;
use crate::extend::SystemChanges;
use crate::ingest::{Change, Downstream};
use crate::record::{Now, SharedRecord};
use crate::store::{StoreHandle, StoreHealth};

/// The mailboxes and the store of a node.
pub struct Outlets {
    /// Mailboxes, by worker.
    pub mailboxes: Vec<Mailbox>,
    /// The requests that wait for a change of one source.
    pub watches: Watches,
    /// The way to tell the extensions that records of the system's names have changed.
    pub system_changes: Arc<SystemChanges>,
    /// Store of the node.
    pub store: StoreHandle,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
}

impl Downstream for Outlets {
    fn deliver(&self, change: Change) {
        self.watches.handle_change(&change);
        self.system_changes.handle_change(change.record.source.as_str());
        mailbox::deliver(&self.mailboxes, change);
    }

    fn store(&self, record: &SharedRecord) -> u64 {
        if self.store.placement().writes(record) { self.store.push(record).0 } else { 0 }
    }

    fn store_winner(&self, winner: &SharedRecord) -> u64 {
        if self.store.placement().writes_for_asker(winner) {
            self.store.push(winner).0
        } else {
            self.store.barrier().0
        }
    }

    fn forget(&self, now: Now, record: &SharedRecord) {
        if self.store.placement().removes(record, now.wall_us, self.tombstones_us) {
            self.store.remove(&record.source, record.stamp);
        }
    }

    fn store_health(&self) -> Result<(), String> {
        match self.store.health() {
            StoreHealth::Open => Ok(()),
            StoreHealth::Failing { reason } => Err(reason),
        }
    }
}
