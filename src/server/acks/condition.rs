//! What each ack level requires before a publish is answered, and the refusals when that is not reached.
//!
//! This file is the only one that distinguishes the levels.

use crate::auth::PublishRights;
use crate::ingest::Accepted;
use crate::limits::{REPLICATED_US_MAX, STORED_US_MAX};
use crate::memory::MemoryUse;
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::answer::{Outcome, Published};
use crate::protocol::draft::Draft;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Time that a publish waits for the cluster machine beyond the machine's own timeout, in microseconds.
const GRACE_US: u64 = 1_000_000;

/// The state of the node by which answers are settled.
pub(crate) trait AnswerState {
    /// The store's mark: every ticket up to this one is durable.
    fn durable(&self) -> u64;
    /// Returns an error with the reason if the store takes no records.
    fn store_health(&self) -> Result<(), String>;
    /// The reason why nothing becomes durable for now although records are taken, if there is one.
    fn store_away(&self) -> Option<String>;
    /// The counters of the node.
    fn metrics(&self) -> &Metrics;
    /// Counts a client that was refused because it would have held too much memory.
    fn memory_refused(&self, wanted: MemoryUse) {
        self.metrics().memory_refused(wanted);
    }
}

/// Whose publishes are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByWhom<'a> {
    /// Number of the connection, if the host has connections.
    pub(crate) connection: usize,
    /// The rights of the client; `None` if the node has no file of rights.
    pub(crate) rights: Option<&'a PublishRights>,
}

/// The node as a publisher reaches it: a way to apply records, and the state by which they are answered.
pub(crate) trait PublishHost {
    /// Applies a publish.
    fn publish(&self, now: Now, draft: &Draft<'_>, by: ByWhom<'_>) -> Result<Accepted, Refusal>;
    /// Applies a publish whose record every live member is to hold. The cluster machine answers later for the
    /// token that is returned.
    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        by: ByWhom<'_>,
    ) -> Result<(Accepted, u64), Refusal>;
    /// The state of the node.
    fn state(&self) -> &dyn AnswerState;
}

/// Number of members that hold a record: `Ok` if these are all, `Err` if the time ran out before that.
pub(crate) type Reached = Result<u32, u32>;

/// The condition under which a publish is answered with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The store's mark reaches this ticket.
    Stored(u64),
    /// Every member holds the record that was published under this token.
    Replicated(u64),
}

impl Condition {
    /// Monotonic time after which the condition is not waited for any longer, if the wait begins at
    /// `now_us`.
    pub(super) fn deadline_us(self, now_us: u64) -> u64 {
        match self {
            Condition::Stored(_) => now_us + STORED_US_MAX,
            Condition::Replicated(_) => now_us + REPLICATED_US_MAX + GRACE_US,
        }
    }
}

/// Time since a publish began to wait, if its deadline is `deadline_us`, in microseconds.
pub(super) fn waited_us(condition: Condition, deadline_us: u64, now_us: u64) -> u64 {
    let begun_us = deadline_us.saturating_sub(condition.deadline_us(0));
    now_us.saturating_sub(begun_us)
}

/// Publishes a draft. Returns the result, and the condition that it waits for, if that does not hold yet.
pub(super) fn publish<H: PublishHost + ?Sized>(
    host: &H,
    now: Now,
    draft: &Draft<'_>,
    level: AckLevel,
    by: ByWhom<'_>,
) -> Result<(Published, Option<Condition>), Refusal> {
    let published =
        |accepted: &Accepted| Published { ts: accepted.ts, outcome: accepted.outcome, level, nodes: None };
    match level {
        AckLevel::Accepted => Ok((published(&host.publish(now, draft, by)?), None)),
        AckLevel::Stored => {
            let accepted = host.publish(now, draft, by)?;
            let published = published(&accepted);
            if accepted.ticket <= host.state().durable() {
                return Ok((published, None));
            }
            match host.state().store_health() {
                Ok(()) => Ok((published, Some(Condition::Stored(accepted.ticket)))),
                Err(reason) => Err(below_level(&published, store_failed(reason))),
            }
        }
        AckLevel::Replicated => {
            let (accepted, token) = host.publish_awaited(now, draft, by)?;
            if accepted.outcome == Outcome::Dropped {
                return Ok((Published { nodes: Some(0), ..published(&accepted) }, None));
            }
            Ok((published(&accepted), Some(Condition::Replicated(token))))
        }
    }
}

/// The answer to a publish whose record `reached` this number of members.
pub(super) fn replicated(published: &Published, reached: Reached) -> Result<Published, Refusal> {
    match reached {
        Ok(nodes) => Ok(Published { nodes: Some(nodes), ..*published }),
        Err(nodes) => {
            let message = format!("not on every node within {} s", REPLICATED_US_MAX / 1_000_000);
            let refusal = Refusal { nodes: Some(nodes), ..Refusal::new(Code::Timeout, message) };
            Err(below_level(published, refusal))
        }
    }
}

/// The refusal of a record that is not durable because the store takes no records.
pub(super) fn store_failed(reason: String) -> Refusal {
    Refusal::new(Code::StoreUnavailable, reason)
}

/// The refusal of a record that is not durable in time. `away` is the reason, if one is known.
pub(super) fn store_too_late(away: Option<String>) -> Refusal {
    let late = format!("not stored within {} s", STORED_US_MAX / 1_000_000);
    match away {
        Some(reason) => Refusal::new(Code::StoreUnavailable, format!("{late}: {reason}")),
        None => Refusal::new(Code::Timeout, late),
    }
}

/// The refusal of a record that did not reach its level: it says that the record was applied. A stale
/// record was not, and sending it again changes nothing.
pub(super) fn below_level(published: &Published, refusal: Refusal) -> Refusal {
    match published.outcome {
        Outcome::Applied | Outcome::Duplicate => refusal.after_applying(published.ts),
        Outcome::Stale { .. } | Outcome::Dropped => refusal,
    }
}
