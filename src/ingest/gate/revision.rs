//! The place of what users add to change or refuse drafts before they are judged.
//!
//! A [`Reviser`] is shown every draft with data that has passed the guards, and says what is to be merged in its
//! place. While there is none, a draft costs one load of an atomic here. The gate knows nothing of what revises:
//! it is called through a table, which costs little beside what it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::refusal::Refusal;
use crate::record::{Now, Payload};

/// Changes, drops or refuses drafts before they are judged. It must answer within a bounded time, because an event
/// loop waits for it.
pub(crate) trait Reviser: Send + Sync {
    /// Revises a draft. `publisher` is the name of the token that it came with; empty if there is none.
    fn revise(&self, now: Now, draft: &Draft<'_>, publisher: &str) -> Result<Revision, Refusal>;
}

/// The answer of a [`Reviser`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revision {
    /// The draft is merged as it is.
    Unchanged,
    /// These drafts are merged instead, in their order. None: the draft is dropped.
    Changed(Vec<RevisedDraft>),
}

/// A draft that takes the place of a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisedDraft {
    /// Name of the source, which has been checked.
    pub(crate) source: Box<str>,
    /// Timestamp in microseconds since the Unix epoch; `None` if the node is to give one.
    pub(crate) ts: Option<u64>,
    /// The data that takes the place of the client's.
    pub(crate) payload: Payload,
    /// Time to live in milliseconds; 0 means for ever.
    pub(crate) ttl_ms: u64,
}

impl RevisedDraft {
    /// The draft in the form that guards and the map take.
    pub(crate) fn as_draft(&self) -> Draft<'_> {
        let payload = match &self.payload {
            Payload::Json(bytes) => DraftPayload::Json(bytes),
            Payload::Binary(bytes) => DraftPayload::Binary((&**bytes).into()),
            Payload::Deleted => DraftPayload::Deleted,
        };
        Draft { source: (&*self.source).into(), ts: self.ts, payload, ttl_ms: self.ttl_ms, ack: None }
    }
}

/// The reviser of a node, if it has one.
#[derive(Default)]
pub(super) struct RevisionPlace {
    is_used: AtomicBool,
    reviser: RwLock<Option<Arc<dyn Reviser>>>,
}

impl RevisionPlace {
    /// Puts another reviser in place, or none. Drafts that are with the old one are finished by it.
    pub(super) fn set(&self, reviser: Option<Arc<dyn Reviser>>) {
        let mut place = self.reviser.write();
        self.is_used.store(reviser.is_some(), Relaxed);
        let old = std::mem::replace(&mut *place, reviser);
        drop(place);
        drop(old);
    }

    /// The reviser, if there is one.
    #[inline]
    pub(super) fn get(&self) -> Option<Arc<dyn Reviser>> {
        if self.is_used.load(Relaxed) { self.reviser.read().clone() } else { None }
    }
}
