//! Gaps: numbers of a line that are known to exist and are not held.
//!
//! The tree is late more often than it loses something, so nobody asks before twice the time in
//! which it nearly always arrives. Then one peer is asked at a time, at random, the origin every
//! third time, until the gap is filled or nobody could fill it; what is left then is
//! reconciliation's. What arrives this way is kept and delivered, and spread no further.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Spread;
use super::batch::Batch;
use super::link::Note;
use super::timers::Timer;
use crate::cluster::ring::Ring;
use crate::record::Now;

/// Least time a gap must have stood before it is asked for, in microseconds.
const ASK_US_MIN: u64 = 50_000;
/// Least time an answer is given, in microseconds.
const ANSWER_US_MIN: u64 = 20_000;
/// How long a node that joins leaves its gaps to the first reconciliation, in microseconds.
pub(super) const ASK_DELAY_AT_START_US: u64 = 5_000_000;
/// Most ranges in one want.
const RANGES_MAX: usize = 16;
/// Gaps with more numbers than this are left to reconciliation.
const NUMBERS_MAX: u64 = 64 * 1024;
/// How often one gap is asked for without progress.
const ASKS_MAX: u32 = 9;
/// Bytes of batches sent in answer to one want.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A link with more waiting than this answers no wants.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Most wants and lacks that wait for one link.
const NOTES_MAX: usize = 32;
/// Stands for no line: a want of it asks for a sign of life.
const NO_LINE: u64 = 0;

impl Spread {
    /// Takes the heads of a peer, as [`Spread::heads_digest`] made them.
    pub fn handle_heads(&mut self, now: Now, from: SocketAddr, heads: &[(u64, u64)]) {
        self.now_us = self.now_us.max(now.mono_us);
        for &(line, seq) in heads {
            if self.lines.note(now.mono_us, line, seq, from) {
                self.watch_gap(line, false);
            }
        }
        self.end();
    }

    /// Sees to it that a gap of the line is asked for, if there is one and it does not go by itself.
    pub(super) fn watch_gap(&mut self, hash: u64, is_progress: bool) {
        let delay_us = self.gap_delay_us();
        let from_us = self.ask_from_us;
        let jitter = self.random.next_u64();
        let Some(line) = self.lines.get_mut(hash) else { return };
        if is_progress {
            line.asks = 0;
        }
        if line.ask_due_us != 0 || line.gaps(1).is_empty() {
            return;
        }
        line.asks = 0;
        line.asked_to = line.seen;
        line.ask_due_us = (self.now_us + delay_us + jitter % (delay_us / 2)).max(from_us);
        self.timers.push(line.ask_due_us, Timer::Gap { line: hash });
    }

    /// How long a gap must have stood before it is asked for.
    pub(super) fn gap_delay_us(&self) -> u64 {
        ASK_US_MIN.max(2 * self.latency.p99_us())
    }

    /// Asks one peer for a line's gap, once more.
    pub(super) fn ask_for_gap(&mut self, ring: &Ring, hash: u64, at_us: u64) {
        let Some(line) = self.lines.get_mut(hash).filter(|line| line.ask_due_us == at_us) else { return };
        line.ask_due_us = 0;
        let mut gaps = line.gaps(RANGES_MAX);
        // What opened since the wait began is too young to be asked for.
        gaps.retain(|gap| gap.0 <= line.asked_to && !self.bodies.pulls_any(hash, *gap));
        if gaps.is_empty() {
            return self.watch_gap(hash, false);
        }
        let numbers = gaps.iter().fold(0u64, |sum, gap| sum.saturating_add(gap.1 - gap.0));
        if line.asks >= ASKS_MAX || numbers > NUMBERS_MAX {
            line.abandoned = line.abandoned.max(line.asked_to);
            self.stats.gaps_abandoned += 1;
            return self.watch_gap(hash, false);
        }
        line.asks += 1;
        let (asks, holder, origin) =
            (line.asks, line.holder, line.birth.as_ref().map(|birth| birth.0.clone()));
        let random = self.random.next_u64();
        let peer = match asks {
            1 if holder.is_some() => holder,
            _ if asks % 3 == 0 => origin.and_then(|origin| {
                let mut entries = ring.entries().iter();
                entries.find(|entry| *entry.name() == origin).map(|entry| entry.gossip())
            }),
            _ => None,
        };
        let peer = peer.or_else(|| self.random_peer(ring, random));
        if let Some(id) = peer.and_then(|peer| self.open_link(peer)) {
            self.note(id, true, hash, gaps);
            self.stats.wants_sent += 1;
        }
        let answer_us = self.links.typical_rtt().timeout_us(0).max(ANSWER_US_MIN) * u64::from(asks.min(4));
        let due_us = self.now_us + answer_us + random % (answer_us / 2);
        if let Some(line) = self.lines.get_mut(hash) {
            line.ask_due_us = due_us;
            self.timers.push(due_us, Timer::Gap { line: hash });
        }
    }

    fn random_peer(&self, ring: &Ring, random: u64) -> Option<SocketAddr> {
        let entries = ring.entries();
        let start = (random % entries.len().max(1) as u64) as usize;
        let candidates = entries.iter().cycle().skip(start).take(entries.len().min(16));
        let mut others = candidates.filter(|entry| entry.hash != self.place).map(|entry| entry.gossip());
        let is_silent =
            |peer: SocketAddr| self.links.find(peer).is_some_and(|link| link.silent_until_us > self.now_us);
        let first = others.next()?;
        if !is_silent(first) {
            return Some(first);
        }
        others.find(|peer| !is_silent(*peer)).or(Some(first))
    }

    /// A want of nothing, answered by a lack of nothing.
    pub(super) fn ask_sign_of_life(&mut self, id: usize) {
        let Some(link) = self.links.get(id) else { return };
        if link.notes.iter().all(|note| !note.is_want || note.line != NO_LINE) {
            self.note(id, true, NO_LINE, Vec::new());
        }
    }

    /// Sends what is kept of the ranges, and says what is not.
    pub(super) fn answer_want(&mut self, ring: &Ring, id: usize, hash: u64, ranges: Vec<(u64, u64)>) {
        if hash == NO_LINE {
            return self.note(id, false, NO_LINE, Vec::new());
        }
        let Some(link) = self.links.get(id).filter(|link| link.queued_bytes < QUEUE_BYTES_MAX) else {
            return;
        };
        let duties = link.sent.iter().filter_map(|sent| self.duties.get(sent.duty));
        let underway: Vec<u64> = duties
            .filter(|duty| duty.is_repair && duty.batch.id.0 == hash)
            .map(|duty| duty.batch.id.1)
            .collect();
        let mut found: Vec<Arc<Batch>> = Vec::new();
        let mut lacking = Vec::new();
        let mut bytes = 0;
        for (first, last) in ranges.into_iter().take(RANGES_MAX) {
            let mut next = first;
            for batch in self.lines.get(hash).into_iter().flat_map(|line| line.kept(first, last)) {
                if batch.id.1 > next {
                    lacking.push((next, batch.id.1 - 1));
                }
                next = batch.last_seq.saturating_add(1);
                bytes += batch.encoded.len();
                if bytes > ANSWER_BYTES_MAX && !found.is_empty() {
                    break;
                }
                if !underway.contains(&batch.id.1) {
                    found.push(batch.clone());
                }
            }
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
            if next <= last {
                lacking.push((next, last));
            }
        }
        for batch in &found {
            self.repair(ring, batch, id);
        }
        if !lacking.is_empty() && found.is_empty() && underway.is_empty() {
            lacking.truncate(RANGES_MAX);
            self.note(id, false, hash, lacking);
        }
    }

    /// The peer asked could not fill anything: the next one is asked at once.
    pub(super) fn handle_lack(&mut self, hash: u64) {
        let at_us = self.now_us;
        let Some(line) = self.lines.get_mut(hash) else { return };
        if line.asks > 0 && line.ask_due_us > at_us {
            line.ask_due_us = at_us.max(1);
            self.timers.push(line.ask_due_us, Timer::Gap { line: hash });
        }
    }

    fn note(&mut self, id: usize, is_want: bool, line: u64, ranges: Vec<(u64, u64)>) {
        let Some(link) = self.links.get_mut(id) else { return };
        if link.notes.len() < NOTES_MAX {
            link.notes.push_back(Note { is_want, line, ranges });
            self.mark_ready(id);
        }
    }
}
