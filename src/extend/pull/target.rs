//! Where the records of pull sources go: the node, or the terminal of who tries out a definition.

use std::sync::Arc;

use super::mapped::{PullData, PullDraft};
use crate::extend::ExtendHost;
use crate::extend::state::StateWriter;
use crate::ingest::Accepted;
use crate::metrics::PullCounters;
use crate::protocol::refusal::Refusal;
use crate::record::{Now, Payload};

/// What takes the records of a pull source.
pub(crate) trait PullTarget {
    /// The time on the clocks.
    fn now(&self) -> Now;
    /// Name of the node; `None` if this is none.
    fn node(&self) -> Option<&str>;
    /// Publishes a record.
    fn publish(&self, draft: &PullDraft) -> Result<Accepted, Refusal>;
    /// Returns whether publishers are to wait.
    fn is_congested(&self) -> bool;
    /// Returns whether the latest record of the source has this data, and this timestamp if the draft has one.
    fn is_latest(&self, draft: &PullDraft) -> bool;
    /// Tells a state at once. Returns the reason why it cannot be told, if there is one.
    fn tell_state(&self, state: &StateWriter) -> Result<(), String>;
    /// The counters of all pull sources together.
    fn counters(&self) -> &PullCounters;
}

/// The node that runs the pull source.
pub(super) struct NodeTarget(pub Arc<dyn ExtendHost>);

impl PullTarget for NodeTarget {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn node(&self) -> Option<&str> {
        Some(self.0.name())
    }

    fn publish(&self, draft: &PullDraft) -> Result<Accepted, Refusal> {
        self.0.publish(&draft.as_draft())
    }

    fn is_congested(&self) -> bool {
        self.0.is_congested()
    }

    fn tell_state(&self, state: &StateWriter) -> Result<(), String> {
        state.tell_now(&*self.0).map_err(|refusal| format!("the state cannot be told now: {refusal}"))
    }

    fn counters(&self) -> &PullCounters {
        &self.0.metrics().pull
    }

    fn is_latest(&self, draft: &PullDraft) -> bool {
        let Some(record) = self.0.get(&draft.source) else { return false };
        let is_same_data = match (&record.payload, &draft.data) {
            (Payload::Json(bytes), PullData::Json(text)) => bytes.as_ref() == text.as_bytes(),
            (Payload::Binary(bytes), PullData::Binary(data)) => bytes.as_ref() == data.as_slice(),
            (Payload::Deleted, PullData::Deleted) => true,
            _ => false,
        };
        is_same_data && draft.ts.is_none_or(|ts| ts == record.stamp.ts)
    }
}
