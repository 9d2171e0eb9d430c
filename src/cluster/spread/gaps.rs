//! Gaps: records of a line that are known to exist and are not held.
//!
//! The tree is late more often than it loses something, so a gap is only asked for after twice the time in
//! which records nearly always arrive. Then one peer is asked at a time, a random one, the origin every third
//! time, until the gap is filled or nobody could fill it; what is missing then is left to reconciliation.
//! Records that arrive this way are kept and delivered, and not spread any further.

use std::net::SocketAddr;
use std::sync::Arc;

use super::batch::Batch;
use super::bodies::Bodies;
use super::custody::Custody;
use super::env::{Base, Env};
use super::latency::Latency;
use super::line::OriginLine;
use super::link::{NO_LINE, Note};
use super::pending::PendingBatches;
use super::seqs::SeqRange;
use super::timers::Timer;
use super::wire::Want;
use crate::cluster::random::Random;
use crate::cluster::ring::Ring;

/// Least time a gap must have stood before it is asked for, in microseconds.
const ASK_US_MIN: u64 = 50_000;
/// Least time that a peer is given to answer, in microseconds.
const GAP_ANSWER_US_MIN: u64 = 20_000;
/// Time for which a node that starts leaves its gaps to the first reconciliation, in microseconds.
const ASK_DELAY_AT_START_US: u64 = 5_000_000;
/// Most ranges in one want.
const RANGES_MAX: usize = 16;
/// Gaps of more records than this are left to reconciliation.
const NUMBERS_MAX: u64 = 64 * 1024;
/// Number of times that a gap is asked for without progress until it is left to reconciliation.
const GAP_ASKS_MAX: u32 = 9;
/// Most bytes of batches that are sent in answer to one want; one batch is sent in any case.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Wants are not answered on a link where this many bytes wait.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Most members that are looked at to find one that is not silent.
const GAP_CANDIDATES_MAX: usize = 16;
/// Every question with a number divisible by this goes to the origin itself.
const ORIGIN_EVERY: u32 = 3;

/// Decides when gaps are asked for, and which peer is asked. The state of each search is kept with its line.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Time until which gaps are left to the first reconciliation, in microseconds.
    ask_from_us: u64,
    /// Estimate of the time that the tree takes to deliver.
    latency: Latency,
    /// Chooses peers and spreads the times of questions.
    random: Random,
}

/// The result of looking up the ranges that a peer wants.
#[derive(Debug, Default)]
struct Found {
    /// Kept batches that are to be sent.
    batches: Vec<Arc<Batch>>,
    /// Ranges of which no batch is kept.
    lacking: Vec<SeqRange>,
}

impl Gaps {
    /// Begins without gaps. `has_peers`: this node looks for others, and will reconcile with one first.
    pub fn new(seed: u64, now_us: u64, has_peers: bool) -> Gaps {
        Gaps {
            ask_from_us: if has_peers { now_us + ASK_DELAY_AT_START_US } else { 0 },
            latency: Latency::default(),
            random: Random::new(seed),
        }
    }

    /// Notes that a reconciliation ended: gaps are no longer left to the first one.
    pub fn handle_reconciled(&mut self) {
        self.ask_from_us = 0;
    }

    /// Notes that a part came down the tree `age_us` microseconds after its batch was packed.
    pub fn sample_latency(&mut self, age_us: u64) {
        self.latency.sample(age_us);
    }

    /// Time that a gap must have stood before it is asked for, in microseconds.
    pub fn delay_us(&self) -> u64 {
        ASK_US_MIN.max(2 * self.latency.p99_us())
    }

    /// Notes that the peer `holder` holds a line up to `seq`. If that is more than this node holds, there is
    /// a gap.
    pub fn note(&mut self, base: &mut Base, holder: SocketAddr, line: u64, seq: u64) {
        if base.lines.note(base.now_us, line, seq, holder) {
            self.watch(base, line, false);
        }
    }

    /// Schedules the question for the gap of a line, if there is a gap. It is not asked if the gap is filled
    /// meanwhile. `is_progress`: part of it was just filled by a peer that was asked.
    pub fn watch(&mut self, base: &mut Base, hash: u64, is_progress: bool) {
        let delay_us = self.delay_us();
        // The random number is drawn in any case, so that later draws do not depend on what is known of the
        // line.
        let jitter = self.random.next_u64();
        let Some(line) = base.lines.get_mut(hash) else { return };
        if is_progress {
            line.search.asks = 0;
        }
        if line.search.due_us != 0 || line.gaps(1).is_empty() {
            return;
        }
        let due_us = (base.now_us + delay_us + jitter % (delay_us / 2)).max(self.ask_from_us);
        (line.search.asks, line.search.asked_to, line.search.due_us) = (0, line.seen(), due_us);
        base.timers.push(due_us, Timer::Gap { line: hash });
    }

    /// Asks one peer for a line's gap, whose timer was due at `at_us`.
    pub fn ask(
        &mut self,
        env: &mut Env,
        (bodies, pending): (&Bodies, &PendingBatches),
        hash: u64,
        at_us: u64,
    ) {
        let base = &mut *env.base;
        let Some(line) = base.lines.get_mut(hash).filter(|line| line.search.due_us == at_us) else { return };
        line.search.due_us = 0;
        let mut gaps = line.gaps(RANGES_MAX);
        // Records that became known since the wait began are too young to be asked for.
        let is_coming = |gap| bodies.pulls_any(hash, gap) || pending.has_any(hash, gap);
        gaps.retain(|gap| gap.first <= line.search.asked_to && !is_coming(*gap));
        if gaps.is_empty() {
            return self.watch(base, hash, false);
        }
        let numbers = gaps.iter().fold(0u64, |sum, gap| sum.saturating_add(gap.last - gap.first));
        if line.search.asks >= GAP_ASKS_MAX || numbers > NUMBERS_MAX {
            line.search.abandon();
            return self.watch(base, hash, false);
        }
        line.search.asks += 1;
        let asks = line.search.asks;
        let named = named_peer(line, env.ring);
        let random = self.random.next_u64();
        let peer = named.or_else(|| random_peer(base, env.ring, random));
        if let Some(id) = peer.and_then(|peer| base.links.open(peer, base.now_us)) {
            base.links.note(id, Note { is_want: true, line: hash, ranges: gaps });
        }
        let answer_us =
            base.links.typical_rtt().timeout_us(0).max(GAP_ANSWER_US_MIN) * u64::from(asks.min(4));
        let due_us = base.now_us + answer_us + random % (answer_us / 2);
        if let Some(line) = base.lines.get_mut(hash) {
            line.search.due_us = due_us;
            base.timers.push(due_us, Timer::Gap { line: hash });
        }
    }

    /// Answers the peer of a link that wants ranges of a line: sends the kept batches in them, or says which
    /// ranges are lacking.
    pub fn answer_want(
        &self,
        env: &mut Env,
        custody: &mut Custody,
        id: usize,
        Want { line: hash, ranges }: Want,
    ) {
        if hash == NO_LINE {
            return env.base.links.note(id, Note { is_want: false, line: NO_LINE, ranges: Vec::new() });
        }
        let Some(link) = env.base.links.get(id) else { return };
        if link.queued_bytes() >= QUEUE_BYTES_MAX {
            return;
        }
        let underway = custody.repairs_underway(&env.base.links, id, hash);
        let Found { batches, mut lacking } = look_up(env.base.lines.get(hash), ranges, &underway);
        for batch in &batches {
            custody.repair(env, batch, id);
        }
        if !lacking.is_empty() && batches.is_empty() && underway.is_empty() {
            lacking.truncate(RANGES_MAX);
            env.base.links.note(id, Note { is_want: false, line: hash, ranges: lacking });
        }
    }

    /// Handles the answer of a peer that has nothing of a line's gap: the next peer is asked at once.
    pub fn handle_lack(&self, base: &mut Base, hash: u64) {
        let Some(line) = base.lines.get_mut(hash) else { return };
        if line.search.asks > 0 && line.search.due_us > base.now_us {
            line.search.due_us = base.now_us.max(1);
            base.timers.push(line.search.due_us, Timer::Gap { line: hash });
        }
    }
}

/// The peer to ask, if it is not to be a random one: first the peer that said that it holds more, later the
/// origin now and then.
fn named_peer(line: &OriginLine, ring: &Ring) -> Option<SocketAddr> {
    match line.search.asks {
        1 if line.search.holder.is_some() => line.search.holder,
        asks if asks.is_multiple_of(ORIGIN_EVERY) => {
            let (origin, _) = line.birth()?;
            let mut entries = ring.entries().iter();
            entries.find(|entry| entry.name() == origin).map(|entry| entry.gossip())
        }
        _ => None,
    }
}

/// A random member other than this node, one that is not silent if possible.
fn random_peer(base: &Base, ring: &Ring, random: u64) -> Option<SocketAddr> {
    let entries = ring.entries();
    let start = (random % entries.len().max(1) as u64) as usize;
    let candidates = entries.iter().cycle().skip(start).take(entries.len().min(GAP_CANDIDATES_MAX));
    let mut others = candidates.filter(|entry| entry.hash != base.me.place).map(|entry| entry.gossip());
    let is_silent =
        |peer: SocketAddr| base.links.find(peer).is_some_and(|link| link.silence.is_silent(base.now_us));
    let first = others.next()?;
    if !is_silent(first) {
        return Some(first);
    }
    others.find(|peer| !is_silent(*peer)).or(Some(first))
}

/// Looks up what of these ranges of a line is kept, up to a bound in bytes. Batches whose first numbers are
/// in `underway` are on their way to the peer: they are neither found nor lacking.
fn look_up(line: Option<&OriginLine>, ranges: Vec<SeqRange>, underway: &[u64]) -> Found {
    let mut found = Found::default();
    let mut bytes = 0;
    for SeqRange { first, last } in ranges.into_iter().take(RANGES_MAX) {
        let mut next = first;
        for batch in line.into_iter().flat_map(|line| line.kept(first, last)) {
            if batch.id.first_seq > next {
                found.lacking.push(SeqRange { first: next, last: batch.id.first_seq - 1 });
            }
            next = batch.last_seq.saturating_add(1);
            bytes += batch.encoded.len();
            if bytes > ANSWER_BYTES_MAX && !found.batches.is_empty() {
                break;
            }
            if !underway.contains(&batch.id.first_seq) {
                found.batches.push(batch.clone());
            }
        }
        if bytes > ANSWER_BYTES_MAX {
            break;
        }
        if next <= last {
            found.lacking.push(SeqRange { first: next, last });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spread::codec::pack;
    use crate::cluster::spread::harness::{identity, record};

    #[test]
    fn of_a_want_what_is_kept_is_found_and_the_rest_is_lacking() {
        let (origin, mut line) = (identity(0), OriginLine::new(0));
        for first in [3, 5, 9] {
            let records = [record(&origin.name, 1, first + 1, 10)];
            line.hold(0, &Arc::new(pack(&origin.name, 1, first - 1, 0, &records).remove(0)));
        }
        let wanted = vec![SeqRange { first: 1, last: 7 }, SeqRange { first: 9, last: 9 }];
        let found = look_up(Some(&line), wanted, &[5]);
        let firsts: Vec<u64> = found.batches.iter().map(|batch| batch.id.first_seq).collect();
        assert_eq!(firsts, [3, 9], "the batch from 5 on is on its way");
        assert_eq!(found.lacking, [SeqRange { first: 1, last: 2 }, SeqRange { first: 7, last: 7 }]);
        let found = look_up(None, vec![SeqRange { first: 4, last: 4 }], &[]);
        assert_eq!((found.batches.len(), found.lacking.len()), (0, 1));
    }

    #[test]
    fn an_answer_to_a_want_is_bounded_in_bytes_and_never_empty() {
        let (origin, mut line) = (identity(0), OriginLine::new(0));
        for seq in 1..=4 {
            let records = [record(&origin.name, 1, seq, ANSWER_BYTES_MAX / 2)];
            line.hold(0, &Arc::new(pack(&origin.name, 1, seq - 1, 0, &records).remove(0)));
        }
        let records = [record(&origin.name, 1, 5, 2 * ANSWER_BYTES_MAX)];
        line.hold(0, &Arc::new(pack(&origin.name, 1, 4, 0, &records).remove(0)));
        let count = |first, last| look_up(Some(&line), vec![SeqRange { first, last }], &[]).batches.len();
        assert_eq!((count(1, 5), count(5, 5)), (1, 1));
    }
}
