//! The guard that checks whether the client may publish to the source, and how often.

use super::guard::{Entrant, Guard};
use crate::ingest::downstream::Downstream;
use crate::protocol::refusal::Refusal;

/// Refuses drafts that the client's rights do not allow, and those beyond its rate.
pub(super) struct RightsGuard;

impl Guard for RightsGuard {
    fn check<D: Downstream>(&self, entrant: &Entrant<'_, D>) -> Result<(), Refusal> {
        match entrant.rights {
            None => Ok(()),
            Some(rights) => rights.admit(entrant.now, &entrant.draft.source),
        }
    }
}
