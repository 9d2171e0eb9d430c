//! The level `replicated`: an answer waits until every member that was alive when its record was
//! accepted, and has not gone since, holds the record or a newer one.
//!
//! The tree counts its members: a batch with a record that an answer waits for is marked, and its receipts
//! bring a [`Tally`] up the tree. When the sum is exactly the members that must hold the record, the answer
//! is given. That takes one way down the tree and one way up. If the tree has not reported in time, or
//! reports other members than expected (a relay died, views differ), the origin asks the members of that part
//! itself: "is what you hold of this source as new as this?" It does so from the start if no tree was
//! started, for a duplicate or a stale record. What a member says of its own map is always true, so the count
//! by the tree only saves questions.
//!
//! A number and the XOR of 64-bit hashes stand for a set of members: a wrong set of the right size passes
//! once in 2^64. Rejected: a list of members (a kilobyte for a hundred of them, at every hop), and receipts
//! that wait for the subtree (a hop would be slow exactly where it loses datagrams).

mod questions;
mod roster;
mod tallies;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::VecDeque;
use std::net::SocketAddr;

use self::roster::Roster;
use self::tallies::Tallies;
use self::waits::{Wait, Waits};
use super::batch::{Batch, BatchId};
use super::duty::Duty;
use super::env::{Base, Env};
use super::link::PartId;
use super::packet::Packet;
use super::span::Span;
use super::tally::Tally;
use super::timers::Timer;
use crate::cluster::Replicated;
use crate::cluster::outbox::Awaited;
use crate::cluster::ring::Ring;
use crate::limits::REPLICATED_US_MAX;
use crate::record::SharedRecord;

/// A holder asks for missing tallies of its parts after this long, and each time again after twice as long,
/// in microseconds: longer than a hop with a loss takes.
const POLL_US: u64 = 20_000;
/// Number of times that the missing tallies of one batch are asked for.
const POLLS_MAX: u32 = 8;

/// Most batches with a refused record that are remembered.
const WITHHELD_MAX: usize = 256;

/// The answers that wait here until all members hold a record, and the batches that are counted for answers
/// here and elsewhere. Empty while no client asks for the level `replicated`.
#[derive(Debug)]
pub(super) struct Replication {
    /// Hash of this node's life.
    life: u64,
    /// Most bytes of one encoded packet.
    packet_bytes_max: usize,
    /// Batches that are counted, this node's own and others'.
    tallies: Tallies,
    /// Answers that wait at this node.
    waits: Waits,
    /// The members, as far as answers wait for them.
    roster: Roster,
    /// Answers that no longer wait, to be given to the caller.
    results: VecDeque<Replicated>,
    /// Batches with a record that this node refused, the newest last. They are not counted.
    withheld: VecDeque<BatchId>,
    /// Packets that belong to no link: questions and their answers, which are repeated in their own way.
    asides: VecDeque<(SocketAddr, Packet)>,
    /// Time at which the timer that is set for the waits is due, in microseconds; 0: none is set.
    armed_us: u64,
}

/// A record among those that are handed over, for which an answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carried {
    /// Number that the caller gave to the answer.
    token: u64,
    /// Sequence number of the record: the awaited one, or a newer one of its source.
    seq: u64,
}

impl Replication {
    /// Begins without waits. `life` is the hash of this node's life, `packet_bytes_max` the most bytes of one
    /// encoded packet.
    pub fn new(life: u64, packet_bytes_max: usize) -> Replication {
        Replication {
            life,
            packet_bytes_max,
            tallies: Tallies::default(),
            waits: Waits::default(),
            roster: Roster::default(),
            results: VecDeque::new(),
            withheld: VecDeque::new(),
            asides: VecDeque::new(),
            armed_us: 0,
        }
    }

    /// The next packet that belongs to no link, and where to send it.
    pub fn poll_aside(&mut self) -> Option<(SocketAddr, Packet)> {
        self.asides.pop_front()
    }

    /// The next answer that need not wait any longer.
    pub fn poll_replicated(&mut self) -> Option<Replicated> {
        self.results.pop_front()
    }

    /// Returns whether nothing is kept.
    #[cfg(test)]
    pub fn is_unused(&self) -> bool {
        self.tallies.is_empty() && self.waits.is_empty() && self.asides.is_empty()
    }

    /// Returns for when the timer of the waits must be set, in microseconds; it counts as set from now on.
    /// `None`: no timer must be set.
    pub fn arm(&mut self) -> Option<u64> {
        let due_us = self.waits.due_us().filter(|due_us| *due_us != self.armed_us)?;
        self.armed_us = due_us;
        Some(due_us)
    }

    /// Returns whether a timer of the waits that is due at `at_us` is the one that is set.
    pub fn is_armed(&self, at_us: u64) -> bool {
        self.armed_us == at_us && !self.waits.is_empty()
    }

    /// Returns whether answers wait, and members that they wait for may have gone.
    pub fn is_behind(&self, ring: &Ring) -> bool {
        !self.waits.is_empty() && !self.roster.is_current(ring)
    }

    /// Lets answers wait until all live members hold these records. To be called before the records are
    /// handed over.
    pub fn await_all(&mut self, env: &mut Env, awaited: Vec<Awaited>) {
        if self.waits.is_empty() {
            self.roster.refresh(env.ring);
            self.roster.forget_joined();
        }
        let now_us = env.base.now_us;
        for awaited in awaited {
            let deadline_us = now_us + REPLICATED_US_MAX;
            let is_unsent = awaited.is_fresh && awaited.birth.seq > env.base.lines.own_head();
            let wait = Wait {
                awaited,
                batch: None,
                period: self.roster.period(),
                expected: self.roster.tally(),
                missing: None,
                asked: 0,
                rounds: 0,
                due_us: if is_unsent { deadline_us } else { now_us },
                deadline_us,
            };
            self.waits.insert(wait, is_unsent);
        }
        self.see_to_waits(env);
    }

    /// Takes the ring as it is now: answers no longer wait for members that have gone.
    pub fn refresh_roster(&mut self, ring: &Ring) {
        if self.waits.is_empty() {
            return;
        }
        for gone in self.roster.refresh(ring) {
            for token in self.waits.handle_gone(gone) {
                self.check_wait(token);
            }
        }
    }

    /// The records that answers wait for among those that are handed over. One that was merged away is
    /// represented by a newer one of its source.
    pub fn awaited_among(&self, records: &[SharedRecord]) -> Vec<Carried> {
        let Some(last) = records.last() else { return Vec::new() };
        let carrier = |(seq, token): (u64, u64)| {
            let from = records.partition_point(|record| record.birth.seq < seq);
            let wait = self.waits.get(token)?;
            let mut later = records.get(from..)?.iter();
            let record = later.find(|record| record.source == wait.awaited.source)?;
            Some(Carried { token, seq: record.birth.seq })
        };
        self.waits.unsent(last.birth.seq).into_iter().filter_map(carrier).collect()
    }

    /// Counts a batch of this node's own if it carries an awaited record. Members whose parts have not
    /// reported after `patience_us` microseconds are asked.
    pub fn count_own(&mut self, base: &mut Base, batch: &Batch, awaited: &[Carried], patience_us: u64) {
        let seqs = batch.id.first_seq..=batch.last_seq;
        for Carried { token, .. } in awaited.iter().filter(|carried| seqs.contains(&carried.seq)) {
            self.start_counting(base, batch.id);
            self.waits.carry(*token, batch.id);
            self.waits.postpone(*token, base.now_us + patience_us);
        }
    }

    /// Counts a batch from now on, if it is not counted already.
    fn start_counting(&mut self, base: &mut Base, batch: BatchId) {
        if self.tallies.start(base.now_us, batch) {
            base.timers.push(base.now_us + POLL_US, Timer::Count { batch, polls: 1 });
        }
    }

    /// Counts the parts of a batch that are handed on from now on, because a peer wants the tally of a range of it.
    /// The peer is told the tally only after [`Replication::count_for`], which is called when this node holds
    /// the batch. To be called before the range is served.
    pub fn expect_count(&mut self, base: &mut Base, batch: BatchId) {
        if !self.withheld.contains(&batch) {
            self.start_counting(base, batch);
        }
    }

    /// Notes that this node refused a record of a batch. The batch is not counted here, so its origin asks the members of
    /// the range what they hold.
    pub fn withhold(&mut self, batch: BatchId) {
        if self.withheld.len() >= WITHHELD_MAX {
            self.withheld.pop_front();
        }
        self.withheld.push_back(batch);
    }

    /// Counts a part of a batch, which this node holds, for the peer that handed it over and wants its tally.
    pub fn count_for(&mut self, base: &mut Base, part: PartId, batch: BatchId, span: Span) {
        if self.withheld.contains(&batch) {
            return;
        }
        let Some(link) = base.links.get(part.link) else { return };
        let asker = link.peer();
        self.start_counting(base, batch);
        self.tallies.ask(batch, asker, part.number, span);
    }

    /// Sends the tally of a part again: the peer handed the part over again after it was taken, and may not
    /// have got the tally.
    pub fn count_again(&mut self, base: &mut Base, part: PartId) {
        let Some(link) = base.links.get(part.link) else { return };
        if let Some(batch) = self.tallies.ask_again(link.peer(), part.number) {
            self.count_changed(base, batch);
        }
    }

    /// Prepares a part that is to be handed on. The part is counted if its batch is counted.
    pub fn open_part(&mut self, duty: &mut Duty) {
        if self.tallies.has(duty.batch.id) {
            let part = &duty.part;
            duty.counted = self.tallies.open_part(duty.batch.id, part.span, &part.zone);
        }
    }

    /// Notes that a part was handed to the peer at this address.
    pub fn hand(&mut self, duty: &Duty, to: SocketAddr) {
        if let Some(part) = duty.counted {
            self.tallies.hand(duty.batch.id, part, (to, duty.first_number), duty.fragments);
        }
    }

    /// Notes that no report of a part will come, because the part was given up or is served by this node
    /// itself.
    pub fn close_part(&mut self, base: &mut Base, duty: &Duty) {
        if let Some(part) = duty.counted
            && self.tallies.close_part(duty.batch.id, part, Tally::default())
        {
            self.count_changed(base, duty.batch.id);
        }
    }

    /// Takes the tally of a part that a peer reported.
    pub fn take_tally(&mut self, base: &mut Base, part: PartId, tally: Tally) {
        let Some(to) = base.links.get(part.link).map(|link| link.to) else { return };
        if let Some((batch, index)) = self.tallies.find(to, part.number)
            && self.tallies.close_part(batch, index, tally)
        {
            self.count_changed(base, batch);
        }
    }

    /// Acts on new reports about a counted batch: sends complete tallies to the peers that asked, and gives
    /// the answers here that need not wait any longer.
    pub fn count_changed(&mut self, base: &mut Base, batch: BatchId) {
        for report in self.tallies.take_reports(batch, self.life) {
            let Some(id) = base.links.open(report.peer.address, base.now_us) else { continue };
            if let Some(link) = base.links.get_mut(id).filter(|link| link.peer() == report.peer) {
                link.answers.report(report.number, report.tally);
                base.schedule_receipt(id);
            }
        }
        for token in self.waits.of_batch(batch) {
            self.check_wait(token);
        }
    }

    /// Asks for the missing tallies of a batch's parts, for the `polls`-th time.
    pub fn poll_tallies(&mut self, base: &mut Base, batch: BatchId, polls: u32) {
        let overdue = self.tallies.overdue(batch);
        if overdue.is_empty() {
            return;
        }
        for (to, number) in overdue {
            let mut packet = Packet::new(self.packet_bytes_max);
            packet.push_uncounted(number);
            self.asides.push_back((to, packet));
        }
        if polls < POLLS_MAX {
            let due_us = base.now_us + (POLL_US << polls);
            base.timers.push(due_us, Timer::Count { batch, polls: polls + 1 });
        }
    }

    /// Returns whether tallies of a batch are missing.
    pub fn is_counting(&self, batch: BatchId) -> bool {
        self.tallies.has(batch) && self.tallies.total(batch).is_none()
    }

    /// Gives the answer of a wait if all members that must hold its record are known to hold it.
    fn check_wait(&mut self, token: u64) {
        let Some(wait) = self.waits.get(token) else { return };
        let total = wait.batch.and_then(|batch| self.tallies.total(batch));
        let is_counted = total.is_some_and(|total| total.plus(Tally::of(self.life)) == wait.expected);
        // While a record is not handed over, only this node can be known to hold it.
        let is_confirmed = wait.missing.as_ref().is_some_and(Vec::is_empty);
        if is_counted || is_confirmed {
            self.finish_wait(token, true);
        }
    }

    /// Ends a wait and gives its answer. `is_whole`: all members that must hold the record do; else the
    /// deadline has passed.
    fn finish_wait(&mut self, token: u64, is_whole: bool) {
        let Some(wait) = self.waits.remove(token) else { return };
        let reached = match (&wait.missing, wait.batch) {
            (Some(missing), _) => wait.expected.count.saturating_sub(missing.len() as u32),
            (None, Some(batch)) => {
                let reported = self.tallies.parts(batch).iter().filter_map(|part| part.tally);
                reported.fold(Tally::of(self.life), Tally::plus).count.min(wait.expected.count)
            }
            (None, None) => 1,
        };
        let nodes = if is_whole { wait.expected.count } else { reached };
        self.results.push_back(Replicated { token, nodes, is_whole });
        if let Some(batch) = wait.batch
            && self.waits.of_batch(batch).is_empty()
        {
            self.tallies.remove(batch);
        }
        if self.waits.is_empty() {
            self.armed_us = 0;
        }
    }

    /// Handles the timer of the waits.
    pub fn handle_timeout(&mut self, env: &mut Env) {
        self.armed_us = 0;
        self.see_to_waits(env);
    }

    /// Forgets tallies that no answer waits for any more.
    pub fn sweep(&mut self, now_us: u64) {
        self.tallies.expire(now_us);
    }
}
