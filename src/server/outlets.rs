//! The places that applied records go to: the workers' mailboxes and the store.

use std::sync::Arc;

use super::mailbox::{self, Mailbox};
use super::traces::Traces;
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
    /// The traces of records; `None` if none are traced.
    pub traces: Option<Arc<Traces>>,
    /// Store of the node.
    pub store: StoreHandle,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
}

impl Outlets {
    /// Looks at a change for requests that wait for it, and for its trace.
    #[cold]
    fn look(&self, change: &Change) {
        self.watches.handle_change(change);
        let Some(traces) = &self.traces else { return };
        if !change.is_expiry && traces.is_sampled(&change.record) {
            // The record is in the store's queue already, so this ticket covers it.
            let is_stored = self.store.placement().writes(&change.record);
            let ticket = is_stored.then(|| self.store.barrier().0).filter(|ticket| *ticket > 0);
            traces.handle_applied(&change.record, ticket);
            // The writer may have been faster.
            traces.handle_durable(self.store.durable().0);
        }
    }
}

impl Downstream for Outlets {
    fn deliver(&self, change: Change) {
        if !self.watches.is_idle() {
            self.look(&change);
        }
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
