//! The guard that checks whether the cluster keeps up with the records that this node accepts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::guard::{Entrant, Guard};
use crate::ingest::downstream::Downstream;
use crate::limits::OUTBOX_BYTES_HARD;
use crate::protocol::refusal::{Code, Refusal};

/// Refuses every draft while too many accepted records wait for the cluster.
pub(super) struct BacklogGuard {
    /// Number of bytes that wait in the outbox.
    outbox_bytes: Arc<AtomicUsize>,
}

impl BacklogGuard {
    pub(super) fn new(outbox_bytes: Arc<AtomicUsize>) -> BacklogGuard {
        BacklogGuard { outbox_bytes }
    }
}

impl Guard for BacklogGuard {
    fn check<D: Downstream>(&self, _: &Entrant<'_, D>) -> Result<(), Refusal> {
        if self.outbox_bytes.load(Relaxed) > OUTBOX_BYTES_HARD {
            return Err(Refusal::new(Code::Overloaded, "too many records wait for the cluster"));
        }
        Ok(())
    }
}
