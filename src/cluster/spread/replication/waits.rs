//! Answers that wait until a record is everywhere: what is known of each at the origin.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::{Departed, Seat};
use crate::cluster::outbox::Awaited;
use crate::cluster::spread::batch::BatchId;
use crate::cluster::spread::tally::Tally;

/// An answer that waits until all members have a record.
#[derive(Debug)]
pub(super) struct Wait {
    /// Which record.
    pub awaited: Awaited,
    /// The batch that carries it, or a newer one of its source; `None`: not sent yet, or sent by
    /// somebody else or earlier.
    pub batch: Option<BatchId>,
    /// The [`Roster`](super::roster::Roster)'s period when it was accepted.
    pub period: u64,
    /// Who must hold it, this node included: those alive then, less those who have gone since.
    pub expected: Tally,
    /// Who is not known to hold it, in the ring's order; `None`: not looked into.
    pub missing: Option<Vec<Seat>>,
    /// How many of `missing` were asked in this round.
    pub asked: usize,
    /// How many rounds of questions there were.
    pub rounds: u32,
    /// When it is seen to next.
    pub due_us: u64,
    /// When its time is over.
    pub deadline_us: u64,
}

/// All of them, by token.
#[derive(Debug, Default)]
pub(super) struct Waits {
    waits: BTreeMap<u64, Wait>,
    /// By when they are due.
    due: BTreeSet<(u64, u64)>,
    /// By batch.
    carried: BTreeMap<BatchId, Vec<u64>>,
    /// This node's records that are not handed over yet: sequence number and token.
    unsent: BTreeMap<u64, u64>,
    /// How many members are being asked, of all waits together.
    missing: usize,
}

impl Waits {
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    pub fn get(&self, token: u64) -> Option<&Wait> {
        self.waits.get(&token)
    }

    /// Adds one. `is_unsent`: its record is still to be handed over by this node.
    pub fn insert(&mut self, wait: Wait, is_unsent: bool) {
        let token = wait.awaited.token;
        if is_unsent {
            self.unsent.insert(wait.awaited.birth.seq, token);
        }
        self.due.insert((wait.due_us, token));
        let before = self.waits.insert(token, wait);
        debug_assert!(before.is_none() && self.is_sound(), "token {token} waits already");
    }

    /// Takes one out.
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

    /// Whether the indices are of the same waits.
    fn is_sound(&self) -> bool {
        let is_empty = self.unsent.is_empty() && self.carried.is_empty() && self.missing == 0;
        self.due.len() == self.waits.len() && (is_empty || !self.waits.is_empty())
    }

    /// The next one that is due by `now_us`.
    pub fn next_due(&self, now_us: u64) -> Option<u64> {
        self.due.first().filter(|due| due.0 <= now_us).map(|due| due.1)
    }

    /// When the next is due.
    pub fn due_us(&self) -> Option<u64> {
        self.due.first().map(|due| due.0)
    }

    /// Sees to one again at `at_us`, or when its time is over.
    pub fn postpone(&mut self, token: u64, at_us: u64) {
        if let Some(wait) = self.waits.get_mut(&token) {
            self.due.remove(&(wait.due_us, token));
            wait.due_us = at_us.min(wait.deadline_us);
            self.due.insert((wait.due_us, token));
        }
    }

    /// Those of this node's records up to `seq` that are not handed over yet: number and token.
    pub fn unsent(&self, seq: u64) -> Vec<(u64, u64)> {
        self.unsent.range(..=seq).map(|(seq, token)| (*seq, *token)).collect()
    }

    /// A record was put into a batch.
    pub fn carry(&mut self, token: u64, batch: BatchId) {
        let Some(wait) = self.waits.get_mut(&token) else { return };
        self.unsent.remove(&wait.awaited.birth.seq);
        wait.batch = Some(batch);
        self.carried.entry(batch).or_default().push(token);
    }

    /// Those that wait for this batch.
    pub fn of_batch(&self, batch: BatchId) -> Vec<u64> {
        self.carried.get(&batch).cloned().unwrap_or_default()
    }

    /// Notes who is to be asked.
    pub fn set_missing(&mut self, token: u64, missing: Vec<Seat>) {
        let Some(wait) = self.waits.get_mut(&token) else { return };
        self.missing += missing.len();
        self.missing -= wait.missing.replace(missing).map_or(0, |before| before.len());
        wait.asked = 0;
    }

    /// How many members are being asked, of all waits together.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Notes how far a round of questions has come; `is_over`: all were asked.
    pub fn set_asked(&mut self, token: u64, asked: usize, is_over: bool) {
        if let Some(wait) = self.waits.get_mut(&token) {
            wait.asked = if is_over { 0 } else { asked };
            wait.rounds += u32::from(is_over);
        }
    }

    /// A member holds it. `true`: nobody is missing any more.
    pub fn confirm(&mut self, token: u64, member: u64) -> bool {
        self.waits.get_mut(&token).is_some_and(|wait| strike(wait, member, &mut self.missing))
    }

    /// A member has gone: nobody waits for it. The tokens of those that waited.
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

/// Strikes a member off those that are missing. `true`: none is left.
fn strike(wait: &mut Wait, member: u64, count: &mut usize) -> bool {
    let Some(missing) = &mut wait.missing else { return false };
    if let Some(at) = missing.iter().position(|seat| seat.life == member) {
        missing.remove(at);
        *count -= 1;
        wait.asked -= usize::from(at < wait.asked);
    }
    missing.is_empty()
}
