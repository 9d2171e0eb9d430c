//! The merging of the drafts that a reviser made of one publish.

use super::Accepted;
use super::gate::RevisedDraft;
use crate::protocol::answer::Outcome;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::Refusal;
use crate::record::Now;

/// Merges drafts in their order with `merge`, which is told whether a draft is the first. The answer is that of the
/// first, and its ticket covers all. If the map does not take one of them, the others are merged all the same, and
/// the answer is the first refusal. If none was made, `sent`, which the client has sent, was dropped.
pub(super) fn merge_all(
    now: Now,
    sent: &Draft<'_>,
    drafts: &[RevisedDraft],
    mut merge: impl FnMut(&Draft<'_>, bool) -> Result<Accepted, Refusal>,
) -> Result<Accepted, Refusal> {
    let ts = sent.ts.unwrap_or(now.wall_us);
    let mut answer = Ok(Accepted { ts, outcome: Outcome::Dropped, ticket: 0 });
    for (at, draft) in drafts.iter().enumerate() {
        let merged = merge(&draft.as_draft(), at == 0);
        answer = match (answer, merged) {
            (_, merged) if at == 0 => merged,
            (Ok(first), Ok(merged)) => Ok(Accepted { ticket: first.ticket.max(merged.ticket), ..first }),
            (Err(refusal), _) | (Ok(_), Err(refusal)) => Err(refusal),
        };
    }
    answer
}
