//! The trait of all guards, and the draft with its circumstances that they check.

use crate::auth::PublishRights;
use crate::ingest::downstream::Downstream;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::Refusal;
use crate::record::Now;

/// A draft that asks to pass the gate, with everything that guards may look at.
pub(in crate::ingest) struct Entrant<'a, D> {
    /// The time of the publish.
    pub(in crate::ingest) now: Now,
    /// The publish that the client asks for.
    pub(in crate::ingest) draft: &'a Draft<'a>,
    /// The rights of the client; `None` if the node has no file of rights.
    pub(in crate::ingest) rights: Option<&'a PublishRights>,
    /// The places where the record will go.
    pub(in crate::ingest) downstream: &'a D,
}

/// One check that a draft must pass.
pub(super) trait Guard {
    /// Refuses the draft, or lets it pass. Must not change anything that a refusal would have to undo.
    fn check<D: Downstream>(&self, entrant: &Entrant<'_, D>) -> Result<(), Refusal>;
}
