//! The guard that checks the draft itself: the size of its data, its name, and its stamp.

use super::guard::{Entrant, Guard};
use crate::auth::PublishRights;
use crate::ingest::downstream::Downstream;
use crate::limits::FUTURE_US_MAX;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Source;

/// Refuses data that is too large, names that are the system's unless an admin uses them, and stamps that are too
/// far ahead.
pub(super) struct FormGuard {
    /// Largest data of a record, in bytes.
    record_bytes_max: usize,
}

impl FormGuard {
    pub(super) fn new(record_bytes_max: usize) -> FormGuard {
        FormGuard { record_bytes_max }
    }
}

impl Guard for FormGuard {
    fn check<D: Downstream>(&self, entrant: &Entrant<'_, D>) -> Result<(), Refusal> {
        let (now, draft) = (entrant.now, entrant.draft);
        let (bytes, allowed) = (draft.payload.bytes().len(), self.record_bytes_max);
        if bytes > allowed {
            let message = format!("data has {bytes} bytes; at most {allowed}");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let is_admin = || entrant.rights.is_some_and(PublishRights::may_change_system);
        if Source::is_system(&draft.source) && !is_admin() {
            let message = format!("source {:?} is the system's", draft.source);
            return Err(Refusal::new(Code::Forbidden, message));
        }
        // A stamp far ahead would win over every later record of its source.
        if let Some(ahead_us) = draft.ts.and_then(|ts| ts.checked_sub(now.wall_us))
            && ahead_us > FUTURE_US_MAX
        {
            let (ahead_s, most_s) = (ahead_us.div_ceil(1_000_000), FUTURE_US_MAX / 1_000_000);
            let message = format!("ts is {ahead_s} s ahead of this node's clock; at most {most_s} s");
            return Err(Refusal::new(Code::FutureTimestamp, message));
        }
        Ok(())
    }
}
