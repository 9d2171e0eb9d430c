//! All middlewares of a node, in their order: what the gate asks about every draft.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::Notify;

use super::bounds::{MANY_RECORDS_MAX, MIDDLEWARES_US_PER_TURN};
use super::link::{MiddlewareLink, OnFailure};
use super::rule::{GivenDraft, RecordReader, RuleFailure, Ruling};
use crate::ingest::{RevisedDraft, Reviser, Revision};
use crate::metrics::Metrics;
use crate::protocol::draft::Draft;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

thread_local! {
    /// The monotonic time at which the current turn of this thread began, and the time that middlewares have taken in
    /// it, both in microseconds.
    static TURN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// What links need of their node.
#[derive(Clone)]
pub struct ChainEnv {
    /// The records that rules may look up.
    pub reader: Arc<dyn RecordReader>,
    /// Reads the node's clocks.
    pub clock: Arc<dyn Fn() -> Now + Send + Sync>,
    /// The counters of the node.
    pub metrics: Arc<Metrics>,
    /// Told when a link was switched off.
    pub switched_off: Arc<Notify>,
}

/// The middlewares in force, in their order.
pub struct MiddlewareChain {
    links: Vec<Arc<MiddlewareLink>>,
    env: ChainEnv,
}

impl MiddlewareChain {
    /// Makes a chain of links in any order.
    pub fn new(mut links: Vec<Arc<MiddlewareLink>>, env: ChainEnv) -> MiddlewareChain {
        links.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        MiddlewareChain { links, env }
    }

    /// Asks one link about a draft, and counts what it says. A draft that the link refuses is an error.
    fn ask(&self, link: &MiddlewareLink, given: &GivenDraft<'_>, turn_us: u64) -> Result<Ruling, Refusal> {
        let Some(rule) = &link.rule else { return not_ready(link) };
        let spent_us = spent_us(turn_us);
        if spent_us > MIDDLEWARES_US_PER_TURN {
            let message = "middlewares take too long for so many records at once";
            return Err(Refusal::new(Code::Overloaded, message));
        }
        let begun_us = (self.env.clock)().mono_us;
        let verdict = rule.decide(given, &self.env.reader);
        let took_us = (self.env.clock)().mono_us.saturating_sub(begun_us);
        TURN.set((turn_us, spent_us + took_us));
        let counters = &self.env.metrics.middlewares;
        counters.runs.record_us(took_us);
        match verdict {
            Ok(verdict) => {
                link.health.note_success();
                match verdict {
                    Ruling::Reject(reason) => {
                        counters.rejected.increment();
                        Err(Refusal::new(Code::Rejected, reason))
                    }
                    verdict => Ok(verdict),
                }
            }
            Err(failure) => self.fail(link, &failure),
        }
    }

    /// Decides about a draft in place of a link that has failed.
    #[cold]
    fn fail(&self, link: &MiddlewareLink, failure: &RuleFailure) -> Result<Ruling, Refusal> {
        self.env.metrics.middlewares.failed.increment();
        if link.health.note_failure(failure) {
            self.env.switched_off.notify_one();
        }
        match link.on_failure {
            OnFailure::Pass => Ok(Ruling::Pass),
            OnFailure::Refuse => {
                let message = format!("middleware {:?}: {}", link.name, failure.0);
                Err(Refusal::new(Code::MiddlewareFailed, message))
            }
        }
    }

    /// Lets one link decide about what earlier ones have made of a draft.
    fn ask_about(
        &self,
        link: &MiddlewareLink,
        drafts: Vec<RevisedDraft>,
        (now, token): (Now, &str),
    ) -> Result<Vec<RevisedDraft>, Refusal> {
        let mut made = Vec::with_capacity(drafts.len());
        for revised in drafts {
            if !link.pattern.matches(&revised.source) {
                made.push(revised);
                continue;
            }
            let given = GivenDraft { draft: &revised.as_draft(), now_us: now.wall_us, token };
            match made_of(self.ask(link, &given, now.mono_us)?, given.draft) {
                Some(drafts) => made.extend(drafts),
                None => made.push(revised),
            }
            if made.len() > MANY_RECORDS_MAX {
                let failure = RuleFailure(format!("more than {MANY_RECORDS_MAX} records were made of one"));
                self.fail(link, &failure)?;
                made.truncate(MANY_RECORDS_MAX);
            }
        }
        Ok(made)
    }
}

impl Reviser for MiddlewareChain {
    fn revise(&self, now: Now, draft: &Draft<'_>, publisher: &str) -> Result<Revision, Refusal> {
        let mut made: Option<Vec<RevisedDraft>> = None;
        for link in self.links.iter().filter(|link| !link.health.is_off()) {
            made = match made {
                Some(drafts) => Some(self.ask_about(link, drafts, (now, publisher))?),
                None if !link.pattern.matches(&draft.source) => continue,
                None => {
                    let given = GivenDraft { draft, now_us: now.wall_us, token: publisher };
                    made_of(self.ask(link, &given, now.mono_us)?, draft)
                }
            };
            if made.as_ref().is_some_and(Vec::is_empty) {
                self.env.metrics.middlewares.dropped.increment();
                break;
            }
        }
        Ok(made.map_or(Revision::Unchanged, Revision::Changed))
    }
}

/// The drafts that a verdict makes of a draft; `None` if it stays as it is.
pub fn made_of(verdict: Ruling, draft: &Draft<'_>) -> Option<Vec<RevisedDraft>> {
    match verdict {
        Ruling::Pass => None,
        Ruling::Data(payload) => {
            let source = draft.source.as_ref().into();
            Some(vec![RevisedDraft { source, ts: draft.ts, payload, ttl_ms: draft.ttl_ms }])
        }
        Ruling::Records(drafts) => Some(drafts),
        Ruling::Drop | Ruling::Reject(_) => Some(Vec::new()),
    }
}

/// The time that middlewares have taken in the turn of this thread that began at `turn_us`, in microseconds.
fn spent_us(turn_us: u64) -> u64 {
    let (begun_us, spent_us) = TURN.get();
    if begun_us == turn_us { spent_us } else { 0 }
}

/// The answer for a link that is being prepared, which takes from milliseconds to seconds after the start of a node.
#[cold]
fn not_ready(link: &MiddlewareLink) -> Result<Ruling, Refusal> {
    match link.on_failure {
        OnFailure::Pass => Ok(Ruling::Pass),
        OnFailure::Refuse => {
            let message = format!("middleware {:?} is being prepared", link.name);
            Err(Refusal::new(Code::Overloaded, message))
        }
    }
}

#[cfg(test)]
mod tests;
