//! The gate before the map: what a client's draft must pass before it is judged.
//!
//! Each guard is one file of this folder with one type, and one line of [`Gate::admit`]. The guards
//! are asked in their order, and the first refusal is the answer; nothing has changed by then. They
//! stand before the lock of the source's shard, so a guard that takes its time holds up nobody else's
//! records. What a guard may look at is an [`Entrant`]: a guard that needs to know more of the client
//! adds a field there. Behind the guards, users' middlewares may change the draft ([`Reviser`]); what they make of
//! it must pass those guards again that look at the record itself.
//!
//! The types are known at compile time, so nothing is called through a table, and a guard that is
//! switched off should cost no more than one load of an atomic.
//!
//! Only clients' drafts pass the gate. A peer's record was admitted by the node that accepted it, and records
//! that the node publishes about itself are not checked. Rejected: a list of boxed guards, which costs every
//! record a dynamic call for each.

mod backlog;
mod form;
mod guard;
mod node;
mod revision;
mod rights;
mod store;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use self::backlog::BacklogGuard;
use self::form::FormGuard;
use self::guard::Guard;
use self::node::NodeGuard;
use self::revision::RevisionPlace;
use self::rights::RightsGuard;
use self::store::StoreGuard;
use super::downstream::Downstream;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::refusal::Refusal;

pub(super) use self::guard::Entrant;
pub(crate) use self::revision::{RevisedDraft, Reviser, Revision};

/// A draft that has passed the gate.
pub(super) enum Admitted<'a> {
    /// It is merged as the client sent it.
    AsSent(&'a Draft<'a>),
    /// These drafts are merged in its place, in their order; it is dropped if there are none.
    Revised(Vec<RevisedDraft>),
}

/// All guards of a node.
pub(super) struct Gate {
    form: FormGuard,
    node: NodeGuard,
    backlog: BacklogGuard,
    revision: RevisionPlace,
}

impl Gate {
    /// A gate that takes records of up to `record_bytes_max` bytes of data. `outbox_bytes` is the number
    /// of bytes that wait for the cluster.
    pub(super) fn new(record_bytes_max: usize, outbox_bytes: Arc<AtomicUsize>) -> Gate {
        Gate {
            form: FormGuard::new(record_bytes_max),
            node: NodeGuard::default(),
            backlog: BacklogGuard::new(outbox_bytes),
            revision: RevisionPlace::default(),
        }
    }

    /// Returns what is to be merged, or the first refusal.
    pub(super) fn admit<'a, D: Downstream>(&self, entrant: &Entrant<'a, D>) -> Result<Admitted<'a>, Refusal> {
        self.check(entrant)?;
        match self.revision.get() {
            None => Ok(Admitted::AsSent(entrant.draft)),
            Some(reviser) => self.revise(&*reviser, entrant),
        }
    }

    /// Asks all guards, and no middleware.
    #[inline]
    pub(super) fn check<D: Downstream>(&self, entrant: &Entrant<'_, D>) -> Result<(), Refusal> {
        self.form.check(entrant)?;
        RightsGuard.check(entrant)?;
        self.node.check(entrant)?;
        StoreGuard.check(entrant)?;
        self.backlog.check(entrant)
    }

    /// Lets a reviser decide what is to be merged. Deletions have no data, and pass as they are.
    #[inline(never)]
    fn revise<'a, D: Downstream>(
        &self,
        reviser: &dyn Reviser,
        entrant: &Entrant<'a, D>,
    ) -> Result<Admitted<'a>, Refusal> {
        if entrant.draft.payload == DraftPayload::Deleted {
            return Ok(Admitted::AsSent(entrant.draft));
        }
        let publisher = entrant.rights.map_or("", |rights| rights.access().name());
        match reviser.revise(entrant.now, entrant.draft, publisher)? {
            Revision::Unchanged => Ok(Admitted::AsSent(entrant.draft)),
            Revision::Changed(drafts) => {
                for revised in &drafts {
                    let draft = &revised.as_draft();
                    self.form.check(&Entrant { draft, ..*entrant })?;
                    if draft.source != entrant.draft.source
                        && let Some(rights) = entrant.rights
                    {
                        rights.check(&draft.source)?;
                    }
                }
                Ok(Admitted::Revised(drafts))
            }
        }
    }

    /// Puts another reviser in place, or none.
    pub(super) fn set_reviser(&self, reviser: Option<Arc<dyn Reviser>>) {
        self.revision.set(reviser);
    }

    /// Closes the gate while this node's clock is too far off its peers' clocks, and opens it again.
    pub(super) fn set_skewed(&self, is_skewed: bool) {
        self.node.set_skewed(is_skewed);
    }

    /// Opens the gate once the node's clock has been compared with a member's, or closes it until then.
    pub(super) fn set_clock_compared(&self, is_compared: bool) {
        self.node.set_clock_compared(is_compared);
    }

    /// Closes the gate for good: the node shuts down.
    pub(super) fn set_draining(&self) {
        self.node.set_draining();
    }
}
