//! Questions to members: does each hold the record that an answer waits for, or a newer one?

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Replication;
use super::roster::Seat;
use super::tallies::CountedPart;
use super::waits::Wait;
use crate::cluster::ring::Ring;
use crate::cluster::spread::batch::line_hash;
use crate::cluster::spread::env::Env;
use crate::cluster::spread::packet::Packet;
use crate::cluster::spread::tally::Tally;
use crate::cluster::spread::wire::Inquiry;

/// Least time that a member is given to answer a question, in microseconds.
const QUESTION_ANSWER_US_MIN: u64 = 20_000;
/// Longest time that a member is given to answer a question, in microseconds.
const ANSWER_US_MAX: u64 = 500_000;
/// Most questions that are sent at once: a thousand members must not answer in the same instant.
const QUESTIONS_MAX: usize = 256;
/// Time after which further questions are sent, in microseconds.
const QUESTIONS_US: u64 = 1_000;
/// Most members that are remembered as missing, of all waits together: 4 MiB. Members of further waits are
/// looked for when there is room.
const MISSING_MAX: usize = 256 * 1024;
/// Time after which a wait looks for that room again, in microseconds.
const ROOM_US: u64 = 10_000;

/// Questions that are about to be sent.
#[derive(Debug)]
struct Questions {
    /// The questions, by the address of the member.
    to: BTreeMap<SocketAddr, Vec<Inquiry>>,
    /// Number of questions that may still be asked in this call.
    left: usize,
}

impl Replication {
    /// Handles all waits that are due: ends them, or asks the members that are missing.
    pub(super) fn see_to_waits(&mut self, env: &mut Env) {
        let now_us = env.base.now_us;
        let mut questions = Questions { to: BTreeMap::new(), left: QUESTIONS_MAX };
        while let Some(token) = self.waits.next_due(now_us) {
            let Some(wait) = self.waits.get(token) else { break };
            if wait.deadline_us <= now_us {
                self.finish_wait(token, false);
                continue;
            }
            if wait.missing.is_none() {
                if self.waits.missing() > MISSING_MAX {
                    self.waits.postpone(token, now_us + ROOM_US);
                    continue;
                }
                let missing = self.missing_of(wait, env.ring);
                self.waits.set_missing(token, missing);
                self.check_wait(token);
            }
            self.ask_missing(env, token, &mut questions);
        }
        for (to, inquiries) in questions.to {
            let mut packet = Packet::new(self.packet_bytes_max);
            for inquiry in inquiries {
                if !packet.push_inquiry(&inquiry) {
                    let full = std::mem::replace(&mut packet, Packet::new(self.packet_bytes_max));
                    self.asides.push_back((to, full));
                    packet.push_inquiry(&inquiry);
                }
            }
            self.asides.push_back((to, packet));
        }
    }

    /// Asks the next of a wait's missing members, as many as may be asked now.
    fn ask_missing(&mut self, env: &Env, token: u64, questions: &mut Questions) {
        let Some(wait) = self.waits.get(token) else { return };
        let missing = wait.missing.as_deref().unwrap_or_default();
        let next = missing.get(wait.asked..).unwrap_or_default();
        let count = next.len().min(questions.left);
        let inquiry = Inquiry::new(token ^ self.life, &wait.awaited);
        for seat in next.iter().take(count) {
            if let Some(to) = address(env.ring, *seat) {
                questions.to.entry(to).or_default().push(inquiry.clone());
            }
        }
        questions.left -= count;
        let (is_over, asked) = (count == next.len(), wait.asked + count);
        let base_us = env.base.links.typical_rtt().timeout_us(0).max(QUESTION_ANSWER_US_MIN);
        let wait_us = (base_us << wait.rounds.min(8)).min(ANSWER_US_MAX);
        let due_us = env.base.now_us + if is_over { wait_us } else { QUESTIONS_US };
        self.waits.set_asked(token, asked, is_over);
        self.waits.postpone(token, due_us);
    }

    /// The members that must hold a record and do not hold it as far as the tree has reported.
    fn missing_of(&self, wait: &Wait, ring: &Ring) -> Vec<Seat> {
        debug_assert!(self.roster.is_current(ring), "seats and entries must be the same members");
        let parts = wait.batch.map_or(&[][..], |batch| self.tallies.parts(batch));
        let mut inside: Vec<Vec<Seat>> = vec![Vec::new(); parts.len()];
        let mut missing = Vec::new();
        for (entry, seat) in ring.entries().iter().zip(self.roster.seats()) {
            if seat.life == self.life || !self.roster.was_there(seat.life, wait.period) {
                continue;
            }
            // A part that was handed on later is for a member that an earlier one left out.
            let is_in = |part: &CountedPart| part.span.contains(seat.place) && *part.zone == *entry.zone();
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

    /// Tells a peer which of its questions are answered with yes.
    pub fn confirm(&mut self, to: SocketAddr, ids: &[u64]) {
        if ids.is_empty() {
            return;
        }
        let mut packet = Packet::new(self.packet_bytes_max);
        ids.iter().for_each(|id| packet.push_holding(self.life, *id));
        self.asides.push_back((to, packet));
    }

    /// Notes that a member, given by the hash of its life, holds the records that it was asked about.
    pub fn take_holdings(&mut self, member: u64, ids: &[u64]) {
        for id in ids {
            let token = id ^ self.life;
            if self.waits.confirm(token, member) {
                self.finish_wait(token, true);
            }
        }
    }
}

/// The members of a part that are not known to hold the record: none, if the report is about exactly them; a
/// single member, if the report lacks only that one; else all of them.
fn missing_in(part: &CountedPart, seats: &[Seat]) -> Vec<Seat> {
    let Some(tally) = part.tally else { return seats.to_vec() };
    let expected = seats.iter().fold(Tally::default(), |sum, seat| sum.plus(Tally::of(seat.life)));
    if tally == expected {
        return Vec::new();
    }
    let one = seats.iter().find(|seat| expected.less(seat.life) == tally);
    one.map_or_else(|| seats.to_vec(), |seat| vec![*seat])
}

/// The address of this life of a member; `None`: it has gone.
fn address(ring: &Ring, seat: Seat) -> Option<SocketAddr> {
    let entries = ring.entries().get(ring.lower_bound(seat.place)..)?;
    let mut same = entries.iter().take_while(|entry| entry.hash == seat.place);
    same.find(|entry| line_hash(entry.name(), entry.start_boot()) == seat.life).map(|entry| entry.gossip())
}
