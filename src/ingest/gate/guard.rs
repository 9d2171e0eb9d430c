//! What a guard is.

use crate::ingest::downstream::Downstream;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::Refusal;
use crate::record::Now;

/// A draft before the gate, and what guards may look at.
pub(in crate::ingest) struct Entrant<'a, D> {
    /// The time of the publish.
    pub(in crate::ingest) now: Now,
    /// What the client asks to be published.
    pub(in crate::ingest) draft: &'a Draft<'a>,
    /// Where the record will go.
    pub(in crate::ingest) downstream: &'a D,
}

/// One thing that a draft must pass.
pub(super) trait Guard {
    /// Refuses the draft, or lets it pass. Must not change anything that a refusal would have to undo.
    fn check<D: Downstream>(&self, entrant: &Entrant<'_, D>) -> Result<(), Refusal>;
}
