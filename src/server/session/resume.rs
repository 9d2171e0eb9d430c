//! Resume tokens: when they are sent, and when one that comes back proves something.

use hashbrown::HashSet;

use super::checkpoint::HeadsProof;
use super::turn::Turn;
use crate::limits::{EXPIRED_PART, FUTURE_US_MAX, RESUME_US};
use crate::protocol::token::{SharedHeads, Token, head_key};
use crate::record::hash::NameState;
use crate::record::{Now, Pattern};

/// A token may be younger than the oldest expired value that is kept whole by this much, in microseconds, so that
/// clocks that differ do no harm.
const AGE_MARGIN_US: u64 = 1_800_000_000;

/// Expiries that lie up to this long before a token was made are reported again, in microseconds: clocks
/// differ, and expiries are reported a little late.
pub(super) const EXPIRY_SLACK_US: u64 = 30_000_000;

/// The schedule by which a subscriber gets its tokens.
#[derive(Debug, Default)]
pub(super) struct TokenSchedule {
    /// Monotonic time of the next token; `None` before the first subscription is live.
    due_us: Option<u64>,
    /// The heads of the next token, which may be sent once the mailbox is drained far enough.
    proof: Option<HeadsProof>,
    /// Whether a token waits in the queue.
    is_queued: bool,
}

impl TokenSchedule {
    /// Starts the schedule when a subscription is live, unless it runs already.
    pub(super) fn start(&mut self, now: Now) {
        self.due_us.get_or_insert(now.mono_us + RESUME_US);
    }

    /// Returns whether a token is due and can be made now.
    pub(super) fn is_due(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.is_queued || self.due_us.is_none_or(|due_us| turn.now.mono_us < due_us) {
            return false;
        }
        let proof = self.proof.get_or_insert_with(|| turn.work.checkpoint.recent(turn.now, turn.host));
        turn.mailbox_position >= proof.position
    }

    /// Makes the token that is due, for the [`subscription_key`]s of the live subscriptions.
    pub(super) fn take(&mut self, turn: &mut Turn<'_>, live: impl Iterator<Item = u64>) -> String {
        let proof = self.proof.take();
        let proof = proof.unwrap_or_else(|| turn.work.checkpoint.fresh(turn.now, turn.host));
        self.is_queued = true;
        token(turn, live, proof.heads, proof.issued_us)
    }

    /// Starts the time of the next token: the token that was queued has been written.
    pub(super) fn handle_sent(&mut self, now: Now) {
        self.is_queued = false;
        self.due_us = Some(now.mono_us + RESUME_US);
    }

    /// Monotonic time at which the next token is due, in microseconds; `None` while one waits in the queue.
    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        if self.is_queued { None } else { self.due_us }
    }

    /// Returns whether the next token waits only for the mailbox to be drained.
    pub(super) fn waits_for_mailbox(&self) -> bool {
        self.proof.is_some()
    }
}

/// Makes a token of these [`subscription_key`]s and heads. `issued_us` is the wall clock at which the heads were read.
pub(super) fn token(
    turn: &Turn<'_>,
    patterns: impl Iterator<Item = u64>,
    heads: SharedHeads,
    issued_us: u64,
) -> String {
    let mut patterns: Vec<_> = patterns.collect();
    patterns.sort_unstable();
    patterns.dedup();
    Token { cluster: turn.host.facts().cluster, issued_us, patterns, heads }.encode()
}

/// Returns whether this node can tell by the token what the subscriber lacks of these patterns with the filter of this
/// hash.
pub(super) fn is_proved(token: &Token, patterns: &[Pattern], filter_key: u64, turn: &mut Turn<'_>) -> bool {
    let facts = turn.host.facts();
    // Of values that expired earlier nobody knows the names any more. Deletions are kept for longer than that.
    let kept_us = facts.tombstones_us / EXPIRED_PART;
    let age_us_max = kept_us - AGE_MARGIN_US.min(kept_us / 2);
    // A node without memory to spare forgets names early.
    let forgotten_us = match turn.host.latest().names_lost_us() {
        0 => 0,
        lost_us => lost_us.saturating_add(EXPIRY_SLACK_US),
    };
    let now_us = turn.now.wall_us;
    token.cluster == facts.cluster
        && token.issued_us <= now_us.saturating_add(FUTURE_US_MAX)
        && now_us.saturating_sub(token.issued_us) <= age_us_max
        && token.issued_us >= forgotten_us
        && patterns.iter().all(|pattern| token.covers_pattern(pattern, filter_key))
        && reach(token, turn) == Reach::Now
}

/// Says when a node has all records that a token says were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The node has them.
    Now,
    /// The node lacks some, and all of these are of origins that are alive, so they will come.
    Soon,
    /// The node lacks some that may never come: records that their origin had sent to nobody when it died.
    Perhaps,
}

/// Returns when this node has all records that the token says were seen. A subscriber that went on before that would
/// get records again that it has seen, and of some sources values that are older than those it holds.
pub(super) fn reach(token: &Token, turn: &mut Turn<'_>) -> Reach {
    let own = turn.work.checkpoint.heads(turn.host);
    let is_reached = |(key, seq): &&(u64, u64)| {
        let place = own.binary_search_by_key(key, |head| head.0);
        place.is_ok_and(|place| own.get(place).is_some_and(|head| head.1 >= *seq))
    };
    let mut lacking = token.heads.iter().filter(|head| !is_reached(head)).peekable();
    if lacking.peek().is_none() {
        return Reach::Now;
    }
    let members = turn.host.members();
    let live: HashSet<u64, NameState> = members
        .iter()
        .filter(|member| !member.state.is_gone())
        .map(|member| head_key(&member.identity.name, member.identity.start_boot()))
        .collect();
    if lacking.all(|(key, _)| live.contains(key)) { Reach::Soon } else { Reach::Perhaps }
}
