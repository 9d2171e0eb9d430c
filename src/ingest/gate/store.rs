//! The guard that checks whether the store takes records.

use super::guard::{Entrant, Guard};
use crate::ingest::downstream::Downstream;
use crate::protocol::refusal::{Code, Refusal};

/// Refuses every draft while the store takes no records.
pub(super) struct StoreGuard;

impl Guard for StoreGuard {
    fn check<D: Downstream>(&self, entrant: &Entrant<'_, D>) -> Result<(), Refusal> {
        let health = entrant.downstream.store_health();
        health.map_err(|reason| Refusal::new(Code::StoreUnavailable, reason))
    }
}
