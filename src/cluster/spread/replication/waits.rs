//! Answers that wait until all members hold a record, and the members that are known to hold it.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::{Departed, Seat};
use crate::cluster::outbox::Awaited;
use crate::cluster::spread::batch::BatchId;
use crate::cluster::spread::tally::Tally;

/// An answer that waits until all members have a record.
#[derive(Debug)]
pub(super) struct Wait {
    /// The record that the answer waits for.
    pub awaited: Awaited,
    /// The batch with the record, or with a newer one of its source; `None`: the record is not handed over
    /// yet, or was spread earlier or by another node.
    pub batch: Option<BatchId>,
    /// The [`Roster`](super::roster::Roster)'s period when the record was accepted.
    pub period: u64,
    /// The members that must hold the record, this node included: those alive at its acceptance, less those
    /// that have gone since.
    pub expected: Tally,
    /// The members that are not known to hold the record, in the ring's order; `None`: not determined yet.
    pub missing: Option<Vec<Seat>>,
    /// Number of the `missing` members that were asked in this round of questions.
    pub asked: usize,
    /// Number of rounds of questions that have ended.
    pub rounds: u32,
    /// Time of the next check of the wait, in microseconds.
    pub due_us: u64,
    /// Time at which the wait ends in any case, in microseconds.
    pub deadline_us: u64,
}

/// All answers that wait, with indices by time, batch and record.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// The waits by token, the number that the caller gave to the answer.
    waits: BTreeMap<u64, Wait>,
    /// Time of the next check of each wait, in microseconds, and the token of the wait.
    due: BTreeSet<(u64, u64)>,
    /// Tokens of the waits by the batch that has their records.
    carried: BTreeMap<BatchId, Vec<u64>>,
    /// Tokens of the waits for records that this node has not handed over yet, by sequence number.
    unsent: BTreeMap<u64, u64>,
    /// Number of missing members, of all waits together.
    missing: usize,
}

impl Waits {
    /// Returns whether no answer waits.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// The wait of this token.
    pub fn get(&self, token: u64) -> Option<&Wait> {
        self.waits.get(&token)
    }

    /// Adds a wait. `is_unsent`: its record is still to be handed over by this node.
    pub fn insert(&mut self, wait: Wait, is_unsent: bool) {
        let token = wait.awaited.token;
        if is_unsent {
            self.unsent.insert(wait.awaited.birth.seq, token);
        }
        self.due.insert((wait.due_us, token));
        let before = self.waits.insert(token, wait);
        debug_assert!(before.is_none() && self.is_sound(), "token {token} waits already");
    }

    /// Removes the wait of this token, and returns it.
    pub fn remove(&mut self, token: u64) -> Option<Wait> {
        let wait = self.waits.remove(&token)?;
        self.due.remove(&(wait.due_us, token));
        self.missing -= wait.missing.as_ref().map_or(0, Vec::len);
        if self.unsent.get(&wait.awaited.birth.seq) == Some(&token) {
            self.unsent.remove(&wait.awaited.birth.seq);
        }
        if let Some(batch) = wait.batch
            && let Some(tokens) = self.carried.get_mut(&batch)
        {
            tokens.retain(|other| *other != token);
            if tokens.is_empty() {
                self.carried.remove(&batch);
            }
        }
        debug_assert!(self.is_sound(), "something is left of token {token}");
        Some(wait)
    }

    /// Returns whether the indices agree with the waits.
    fn is_sound(&self) -> bool {
        let is_empty = self.unsent.is_empty() && self.carried.is_empty() && self.missing == 0;
        self.due.len() == self.waits.len() && (is_empty || !self.waits.is_empty())
    }

    /// Token of a wait that is due by `now_us`, the earliest first.
    pub fn next_due(&self, now_us: u64) -> Option<u64> {
        self.due.first().filter(|due| due.0 <= now_us).map(|due| due.1)
    }

    /// When the first wait is due, in microseconds.
    pub fn due_us(&self) -> Option<u64> {
        self.due.first().map(|due| due.0)
    }

    /// Sets the next check of a wait to `at_us`, or to the end of the wait if that is sooner.
    pub fn postpone(&mut self, token: u64, at_us: u64) {
        if let Some(wait) = self.waits.get_mut(&token) {
            self.due.remove(&(wait.due_us, token));
            wait.due_us = at_us.min(wait.deadline_us);
            self.due.insert((wait.due_us, token));
        }
    }

    /// The waits for records of this node up to `seq` that are not handed over yet, as (number, token).
    pub fn unsent(&self, seq: u64) -> Vec<(u64, u64)> {
        self.unsent.range(..=seq).map(|(seq, token)| (*seq, *token)).collect()
    }

    /// Notes that the record of a wait, or a newer one of its source, was put into this batch.
    pub fn carry(&mut self, token: u64, batch: BatchId) {
        let Some(wait) = self.waits.get_mut(&token) else { return };
        self.unsent.remove(&wait.awaited.birth.seq);
        wait.batch = Some(batch);
        self.carried.entry(batch).or_default().push(token);
    }

    /// Tokens of the waits whose records are in this batch.
    pub fn of_batch(&self, batch: BatchId) -> Vec<u64> {
        self.carried.get(&batch).cloned().unwrap_or_default()
    }

    /// Sets the members that are to be asked.
    pub fn set_missing(&mut self, token: u64, missing: Vec<Seat>) {
        let Some(wait) = self.waits.get_mut(&token) else { return };
        self.missing += missing.len();
        self.missing -= wait.missing.replace(missing).map_or(0, |before| before.len());
        wait.asked = 0;
    }

    /// Number of missing members, of all waits together.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Notes how many of the missing members were asked in this round. `is_over`: all of them were.
    pub fn set_asked(&mut self, token: u64, asked: usize, is_over: bool) {
        if let Some(wait) = self.waits.get_mut(&token) {
            wait.asked = if is_over { 0 } else { asked };
            wait.rounds += u32::from(is_over);
        }
    }

    /// Notes that a member, given by the hash of its life, holds the record. Returns whether no member is
    /// missing any more.
    pub fn confirm(&mut self, token: u64, member: u64) -> bool {
        self.waits.get_mut(&token).is_some_and(|wait| strike(wait, member, &mut self.missing))
    }

    /// Notes that a member has gone and is no longer waited for. Returns the tokens of the waits that waited
    /// for it.
    pub fn handle_gone(&mut self, gone: Departed) -> Vec<u64> {
        let mut touched = Vec::new();
        for (token, wait) in self.waits.iter_mut().filter(|wait| gone.joined <= wait.1.period) {
            wait.expected = wait.expected.less(gone.member);
            strike(wait, gone.member, &mut self.missing);
            touched.push(*token);
        }
        touched
    }
}

/// Removes a member from those that are missing, and lowers `count`, their number in all waits. Returns
/// whether no member is missing any more.
fn strike(wait: &mut Wait, member: u64, count: &mut usize) -> bool {
    let Some(missing) = &mut wait.missing else { return false };
    if let Some(at) = missing.iter().position(|seat| seat.life == member) {
        missing.remove(at);
        *count -= 1;
        wait.asked -= usize::from(at < wait.asked);
    }
    missing.is_empty()
}
