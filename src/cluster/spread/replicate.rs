//! The level `replicated`: an answer waits until every member that was alive when its record was
//! accepted, and has not gone since, holds the record or a newer one.
//!
//! The tree counts by itself: a batch that somebody waits for is marked, and its receipts bring a
//! [`Tally`] up. When the sum is exactly who must hold it, the answer goes, one way down and one way up
//! after the publish. Where the tree has not reported in time, or reports others than expected (a
//! relay died, views differ), the origin asks the members of that part itself: "is what you hold of
//! this source as new as this?" So it does from the start where no tree was started, for a
//! duplicate or a stale record. What a member says of its own map is always true, so the tree's
//! count only saves questions.
//!
//! The sum of a count and the XOR of 64-bit hashes is taken for the set: a wrong set of the right
//! size passes once in 2^64. Rejected: the list of members (a kilobyte for a hundred of them, at every
//! hop), and receipts that wait for the subtree (a hop would be slow exactly where it is lossy).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::Spread;
use super::batch::{Batch, BatchId, line_hash};
use super::duty::Duty;
use super::packet::Packet;
use super::roster::{Roster, Seat};
use super::span::Span;
use super::tally::{CountedPart, Tallies, Tally};
use super::timers::Timer;
use super::waits::{Wait, Waits};
use super::wire::Inquiry;
use crate::cluster::outbox::Awaited;
use crate::cluster::ring::Ring;
use crate::cluster::{Replica, Replicated};
use crate::limits::REPLICATED_US_MAX;
use crate::record::{Now, SharedRecord};

/// After so long a holder asks again for the tallies of its parts, each time after twice as long, in
/// microseconds: longer than a hop with a loss takes.
const POLL_US: u64 = 20_000;
/// How often.
const POLLS_MAX: u32 = 8;
/// Least and longest time a member is given to answer a question, in microseconds.
const ANSWER_US_MIN: u64 = 20_000;
const ANSWER_US_MAX: u64 = 500_000;
/// Most questions sent at once, and how soon the next so many go, in microseconds: a thousand
/// members must not answer in the same instant.
const QUESTIONS_MAX: usize = 256;
const QUESTIONS_US: u64 = 1_000;
/// Most members remembered as missing, of all waits together: 4 MiB. Further waits are looked into
/// when there is room.
const MISSING_MAX: usize = 256 * 1024;
/// How soon that is tried again, in microseconds.
const ROOM_US: u64 = 10_000;

/// What the level keeps. Empty while nobody asks for it.
#[derive(Debug, Default)]
pub(super) struct Replication {
    /// Batches that are counted, this node's own and others'.
    pub tallies: Tallies,
    /// Answers that wait here.
    waits: Waits,
    roster: Roster,
    /// Done or over time, to be told.
    results: VecDeque<Replicated>,
    /// What is sent without a number: questions and answers, which are repeated in their own way.
    asides: VecDeque<(SocketAddr, Packet)>,
    /// The timer that is set for the waits; 0: none.
    armed_us: u64,
}

impl Replication {
    /// The next packet that is no part of a link's traffic.
    pub fn poll_aside(&mut self) -> Option<(SocketAddr, Packet)> {
        self.asides.pop_front()
    }

    /// Whether it holds nothing.
    #[cfg(test)]
    pub fn is_unused(&self) -> bool {
        self.tallies.is_empty() && self.waits.is_empty() && self.asides.is_empty()
    }

    /// When the timer of the waits must be set, if it must.
    pub fn arm(&mut self) -> Option<u64> {
        let due_us = self.waits.due_us().filter(|due_us| *due_us != self.armed_us)?;
        self.armed_us = due_us;
        Some(due_us)
    }

    /// Whether the timer of the waits is still meant.
    pub fn is_armed(&self, at_us: u64) -> bool {
        self.armed_us == at_us && !self.waits.is_empty()
    }
}

impl Spread {
    /// Answers wait from now on until all live members hold these records. To be called before the
    /// records are handed over with [`Spread::handle_published`].
    pub fn handle_awaited(&mut self, now: Now, awaited: Vec<Awaited>, ring: &Ring) {
        self.begin(now, ring);
        if self.replication.waits.is_empty() {
            self.replication.roster.refresh(ring);
            self.replication.roster.forget_joined();
        }
        for awaited in awaited {
            let deadline_us = self.now_us + REPLICATED_US_MAX;
            let is_unsent = awaited.is_fresh && awaited.birth.seq > self.lines.own_head();
            let wait = Wait {
                awaited,
                batch: None,
                period: self.replication.roster.period(),
                expected: self.replication.roster.tally(),
                missing: None,
                asked: 0,
                rounds: 0,
                due_us: if is_unsent { deadline_us } else { self.now_us },
                deadline_us,
            };
            self.replication.waits.insert(wait, is_unsent);
        }
        self.see_to_waits(ring);
        self.end();
    }

    /// The ring may have changed: nobody waits for those who have gone.
    pub fn handle_ring(&mut self, now: Now, ring: &Ring) {
        if !self.replication.waits.is_empty() && !self.replication.roster.is_current(ring) {
            self.begin(now, ring);
            self.end();
        }
    }

    /// The next answer that need not wait any longer.
    pub fn poll_replicated(&mut self) -> Option<Replicated> {
        self.replication.results.pop_front()
    }

    /// Sees who has gone.
    pub(super) fn refresh_roster(&mut self, ring: &Ring) {
        if self.replication.waits.is_empty() {
            return;
        }
        for gone in self.replication.roster.refresh(ring) {
            for token in self.replication.waits.handle_gone(gone) {
                self.check_wait(token);
            }
        }
    }

    /// Finds, among the records that are handed over, those that are awaited, or newer ones of their
    /// sources where they were merged: token and number.
    pub(super) fn awaited_among(&self, records: &[SharedRecord]) -> Vec<(u64, u64)> {
        let Some(last) = records.last() else { return Vec::new() };
        let carrier = |(seq, token): (u64, u64)| {
            let from = records.partition_point(|record| record.birth.seq < seq);
            let wait = self.replication.waits.get(token)?;
            let mut later = records.get(from..)?.iter();
            let record = later.find(|record| record.source == wait.awaited.source)?;
            Some((token, record.birth.seq))
        };
        self.replication.waits.unsent(last.birth.seq).into_iter().filter_map(carrier).collect()
    }

    /// Counts a batch of this node's own if it carries an awaited record. `awaited`: token and number.
    pub(super) fn count_own(&mut self, batch: &Batch, awaited: &[(u64, u64)]) {
        for (token, _) in awaited.iter().filter(|(_, seq)| (batch.id.1..=batch.last_seq).contains(seq)) {
            self.start_counting(batch.id);
            self.replication.waits.carry(*token, batch.id);
            let due_us = self.now_us + self.gap_delay_us();
            self.replication.waits.postpone(*token, due_us);
        }
    }

    fn start_counting(&mut self, batch: BatchId) {
        if self.replication.tallies.start(self.now_us, batch) {
            self.timers.push(self.now_us + POLL_US, Timer::Count { batch, polls: 1 });
        }
    }

    /// A peer handed over a part of a batch that is counted; to be called before the part is served.
    pub(super) fn count_for(&mut self, link: usize, number: u64, batch: BatchId, span: Span) {
        let Some(link) = self.links.get(link) else { return };
        let asker = (link.to, link.boot);
        self.start_counting(batch);
        self.replication.tallies.ask(batch, asker, number, span);
    }

    /// A peer hands over again what this node took: it may not have heard the tally either.
    pub(super) fn count_again(&mut self, link: usize, number: u64) {
        let Some(link) = self.links.get(link) else { return };
        if let Some(batch) = self.replication.tallies.ask_again((link.to, link.boot), number) {
            self.count_changed(batch);
        }
    }

    /// A part of the duty's batch is to be handed on.
    pub(super) fn open_part(&mut self, duty: &mut Duty) {
        if self.replication.tallies.has(duty.batch.id) {
            let part = &duty.part;
            duty.counted = self.replication.tallies.open_part(duty.batch.id, part.span, &part.zone);
        }
    }

    /// A duty is not seen to any more, or by this node itself.
    pub(super) fn close_part(&mut self, duty: &Duty) {
        if let Some(part) = duty.counted
            && self.replication.tallies.close_part(duty.batch.id, part, Tally::default())
        {
            self.count_changed(duty.batch.id);
        }
    }

    /// A peer reported the tally of a part.
    pub(super) fn take_tally(&mut self, link: usize, number: u64, tally: Tally) {
        let Some(to) = self.links.get(link).map(|link| link.to) else { return };
        if let Some((batch, part)) = self.replication.tallies.find(to, number)
            && self.replication.tallies.close_part(batch, part, tally)
        {
            self.count_changed(batch);
        }
    }

    /// Reports what is complete by now.
    pub(super) fn count_changed(&mut self, batch: BatchId) {
        let own = self.lines.own();
        for report in self.replication.tallies.take_reports(batch, own) {
            let Some(id) = self.open_link(report.to) else { continue };
            if let Some(link) = self.links.get_mut(id).filter(|link| link.boot == report.boot) {
                link.answer_tally(report.number, report.tally);
                self.schedule_receipt(id);
            }
        }
        for token in self.replication.waits.of_batch(batch) {
            self.check_wait(token);
        }
    }

    /// Asks those again whose tallies are missing.
    pub(super) fn poll_tallies(&mut self, batch: BatchId, polls: u32) {
        let overdue = self.replication.tallies.overdue(batch);
        if overdue.is_empty() {
            return;
        }
        for (to, number) in overdue {
            let mut packet = Packet::new(self.packet_bytes_max);
            packet.push_uncounted(number);
            self.replication.asides.push_back((to, packet));
        }
        if polls < POLLS_MAX {
            let due_us = self.now_us + (POLL_US << polls);
            self.timers.push(due_us, Timer::Count { batch, polls: polls + 1 });
        }
    }

    /// Whether a batch's tallies are still asked for.
    pub(super) fn is_counting(&self, batch: BatchId) -> bool {
        self.replication.tallies.has(batch) && self.replication.tallies.total(batch).is_none()
    }

    /// Answers if all who must hold it do.
    fn check_wait(&mut self, token: u64) {
        let Some(wait) = self.replication.waits.get(token) else { return };
        let own = Tally::of(self.lines.own());
        let total = wait.batch.and_then(|batch| self.replication.tallies.total(batch));
        let is_counted = total.is_some_and(|total| total.plus(own) == wait.expected);
        // Of a record that is not handed over, nobody but this node can be known to hold it.
        let is_confirmed = wait.missing.as_ref().is_some_and(Vec::is_empty);
        if is_counted || is_confirmed {
            self.finish_wait(token, true);
        }
    }

    fn finish_wait(&mut self, token: u64, is_whole: bool) {
        let own = Tally::of(self.lines.own());
        let Some(wait) = self.replication.waits.remove(token) else { return };
        let reached = match (&wait.missing, wait.batch) {
            (Some(missing), _) => wait.expected.count.saturating_sub(missing.len() as u32),
            (None, Some(batch)) => {
                let reported = self.replication.tallies.parts(batch).iter().filter_map(|part| part.tally);
                reported.fold(own, Tally::plus).count.min(wait.expected.count)
            }
            (None, None) => 1,
        };
        let nodes = if is_whole { wait.expected.count } else { reached };
        self.replication.results.push_back(Replicated { token, nodes, is_whole });
        if let Some(batch) = wait.batch
            && self.replication.waits.of_batch(batch).is_empty()
        {
            self.replication.tallies.remove(batch);
        }
        if self.replication.waits.is_empty() {
            self.replication.armed_us = 0;
        }
    }

    /// The timer of the waits is over.
    pub(super) fn handle_await(&mut self, ring: &Ring) {
        self.replication.armed_us = 0;
        self.see_to_waits(ring);
    }

    /// Sees to all waits that are due.
    fn see_to_waits(&mut self, ring: &Ring) {
        let mut questions: BTreeMap<SocketAddr, Vec<Inquiry>> = BTreeMap::new();
        let mut left = QUESTIONS_MAX;
        while let Some(token) = self.replication.waits.next_due(self.now_us) {
            let Some(wait) = self.replication.waits.get(token) else { break };
            if wait.deadline_us <= self.now_us {
                self.finish_wait(token, false);
                continue;
            }
            if wait.missing.is_none() {
                if self.replication.waits.missing() > MISSING_MAX {
                    self.replication.waits.postpone(token, self.now_us + ROOM_US);
                    continue;
                }
                let missing = self.missing_of(wait, ring);
                self.replication.waits.set_missing(token, missing);
                self.check_wait(token);
            }
            self.ask_missing(token, ring, &mut left, &mut questions);
        }
        for (to, inquiries) in questions {
            let mut packet = Packet::new(self.packet_bytes_max);
            for inquiry in inquiries {
                if !packet.push_inquiry(&inquiry) {
                    let full = std::mem::replace(&mut packet, Packet::new(self.packet_bytes_max));
                    self.replication.asides.push_back((to, full));
                    packet.push_inquiry(&inquiry);
                }
            }
            self.replication.asides.push_back((to, packet));
        }
    }

    /// Asks the next of those that are missing, as many as may be asked now.
    fn ask_missing(
        &mut self,
        token: u64,
        ring: &Ring,
        left: &mut usize,
        questions: &mut BTreeMap<SocketAddr, Vec<Inquiry>>,
    ) {
        let Some(wait) = self.replication.waits.get(token) else { return };
        let missing = wait.missing.as_deref().unwrap_or_default();
        let next = missing.get(wait.asked..).unwrap_or_default();
        let count = next.len().min(*left);
        let inquiry = Inquiry::new(token ^ self.lines.own(), &wait.awaited);
        for seat in next.iter().take(count) {
            if let Some(to) = address(ring, *seat) {
                questions.entry(to).or_default().push(inquiry.clone());
            }
        }
        *left -= count;
        let (is_over, asked) = (count == next.len(), wait.asked + count);
        let base_us = self.links.typical_rtt().timeout_us(0).max(ANSWER_US_MIN);
        let wait_us = (base_us << wait.rounds.min(8)).min(ANSWER_US_MAX);
        let due_us = self.now_us + if is_over { wait_us } else { QUESTIONS_US };
        self.replication.waits.set_asked(token, asked, is_over);
        self.replication.waits.postpone(token, due_us);
    }

    /// Who must hold it and is not known to, by what the tree reported so far.
    fn missing_of(&self, wait: &Wait, ring: &Ring) -> Vec<Seat> {
        let roster = &self.replication.roster;
        let parts = wait.batch.map_or(&[][..], |batch| self.replication.tallies.parts(batch));
        let mut inside: Vec<Vec<Seat>> = vec![Vec::new(); parts.len()];
        let mut missing = Vec::new();
        for (entry, seat) in ring.entries().iter().zip(roster.seats()) {
            if seat.1 == self.lines.own() || !roster.was_there(seat.1, wait.period) {
                continue;
            }
            // A part that came later is for somebody whom an earlier one left out.
            let is_in = |part: &CountedPart| part.span.contains(seat.0) && *part.zone == *entry.zone();
            match parts.iter().rposition(is_in).and_then(|at| inside.get_mut(at)) {
                Some(seats) => seats.push(*seat),
                None => missing.push(*seat),
            }
        }
        for (part, seats) in parts.iter().zip(inside) {
            missing.extend(missing_in(part, &seats));
        }
        missing.sort_unstable();
        missing
    }

    /// Answers questions about what this node holds.
    pub(super) fn answer_inquiries(
        &mut self,
        from: SocketAddr,
        inquiries: &[Inquiry],
        replica: &mut dyn Replica,
    ) {
        let mut packet = Packet::new(self.packet_bytes_max);
        let own = self.lines.own();
        for inquiry in inquiries {
            let held = replica.get(&inquiry.source);
            if held.is_some_and(|record| record.stamp >= inquiry.stamp) {
                packet.push_holding(own, inquiry.id);
            } else if self.lines.note(self.now_us, inquiry.line, inquiry.seq, from) {
                self.watch_gap(inquiry.line, false);
            }
        }
        if packet.has_holding() {
            self.replication.asides.push_back((from, packet));
        }
    }

    /// A member holds what it was asked for.
    pub(super) fn take_holdings(&mut self, member: u64, ids: &[u64]) {
        for id in ids {
            let token = id ^ self.lines.own();
            if self.replication.waits.confirm(token, member) {
                self.finish_wait(token, true);
            }
        }
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn expire_tallies(&mut self) {
        self.replication.tallies.expire(self.now_us);
    }
}

/// Who of a part is not known to hold it: nobody, if the report is about exactly them; the one that
/// makes the difference, if it is one; else all of them.
fn missing_in(part: &CountedPart, seats: &[Seat]) -> Vec<Seat> {
    let Some(tally) = part.tally else { return seats.to_vec() };
    let expected = seats.iter().fold(Tally::default(), |sum, seat| sum.plus(Tally::of(seat.1)));
    if tally == expected {
        return Vec::new();
    }
    let one = seats.iter().find(|seat| expected.less(seat.1) == tally);
    one.map_or_else(|| seats.to_vec(), |seat| vec![*seat])
}

/// Where this life of a member is.
fn address(ring: &Ring, seat: Seat) -> Option<SocketAddr> {
    let entries = ring.entries().get(ring.lower_bound(seat.0)..)?;
    let mut same = entries.iter().take_while(|entry| entry.hash == seat.0);
    same.find(|entry| line_hash(entry.name(), entry.boot()) == seat.1).map(|entry| entry.gossip())
}
