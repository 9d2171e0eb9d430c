//! Takes receipts: settles the parts that a peer acknowledges.

use super::Custody;
use crate::cluster::spread::batch::Announced;
use crate::cluster::spread::duty::Duty;
use crate::cluster::spread::env::{Base, Env};
use crate::cluster::spread::link::PartId;
use crate::cluster::spread::replication::Replication;
use crate::cluster::spread::rtt::Rtt;
use crate::cluster::spread::seqs::SeqRange;
use crate::cluster::spread::unsettled::UnsettledPart;
use crate::cluster::spread::wire::{Receipt, life_tag};

/// A part whose body is being pulled is announced again after this long, in microseconds: the pull may have
/// failed since.
const ANNOUNCE_US: u64 = 250_000;
/// Longest time that a peer is given to pull one body, in microseconds. After that, its part is tried like
/// any other.
const PULL_US_MAX: u64 = 30_000_000;

impl Custody {
    /// Takes a receipt that came over a link.
    pub fn take_receipt(
        &mut self,
        env: &mut Env,
        replication: &mut Replication,
        id: usize,
        receipt: Receipt,
    ) {
        if receipt.life != life_tag(env.base.me.header_boot) {
            return;
        }
        // The answers are handled before parts are settled: they are about parts that this receipt does not
        // settle.
        for unserved in &receipt.unserved {
            self.take_unserved(
                env,
                replication,
                PartId { link: id, number: unserved.number },
                unserved.member,
            );
        }
        for number in &receipt.pulling {
            self.take_pulling(env.base, PartId { link: id, number: *number });
        }
        self.take_wanted(env.base, id, &receipt.wanted);
        self.settle_all(env.base, id, &receipt);
        for (number, tally) in receipt.tallies {
            replication.take_tally(env.base, PartId { link: id, number }, tally);
        }
        env.base.links.mark_ready(id);
    }

    /// Sends the parts that the peer wants. Before, the peer was only asked whether it has them.
    fn take_wanted(&mut self, base: &mut Base, id: usize, wanted: &[u64]) {
        let rtt = base.links.rtt(id);
        let mut lost = 0;
        let Some(link) = base.links.get_mut(id) else { return };
        for number in wanted {
            if link.sent(*number).is_some_and(|sent| sent.flying > 0 && sent.ask) {
                lost += 1;
                link.window_mut().handle_loss(base.now_us, rtt);
                link.push_again(*number, false);
            }
        }
        for _ in 0..lost {
            base.links.note_answer(id, true);
        }
    }

    /// Settles all parts that a receipt acknowledges.
    fn settle_all(&mut self, base: &mut Base, id: usize, receipt: &Receipt) {
        let rtt = base.links.rtt(id);
        if let Some(link) = base.links.get_mut(id) {
            link.note_receipt(base.now_us);
        }
        let mut newest = None;
        let below = receipt.below.checked_sub(1).map(|last| SeqRange { first: 0, last });
        for SeqRange { mut first, last } in receipt.ranges.iter().copied().chain(below) {
            while let Some(link) = base.links.get_mut(id)
                && let Some(number) = link.unsettled().next_sent(first, last)
                && let Some(sent) = link.settle(number)
            {
                link.window_mut().handle_receipt(sent.bytes as usize);
                if sent.is_large {
                    link.path.handle_receipt();
                }
                newest = newest.max(self.learn(base, id, rtt, &sent));
                self.duties.settle_fragment(sent.duty);
                first = number + 1;
            }
        }
        if let Some(sent_us) = newest {
            base.links.sample_rtt(id, base.now_us.saturating_sub(sent_us).max(1));
        }
    }

    /// Learns from a settled part of a link with this round trip whether its receipts are late; returns when the part's round trip
    /// began, in microseconds, if that is known. After a second copy it is not known which of them is
    /// acknowledged (Karn's algorithm), unless the receipt came sooner than the second could be answered.
    /// After questions only one copy was sent: if such late receipts were left out, a busy peer would never
    /// be known to be slow.
    fn learn(&self, base: &mut Base, id: usize, rtt: Rtt, sent: &UnsettledPart) -> Option<u64> {
        // The time in which a body is pulled says nothing of the round trip.
        let duty = self.duties.get(sent.duty);
        if duty.is_some_and(|duty| Announced::of(&duty.batch).is_some()) {
            return None;
        }
        // The answer to a question that was asked too soon says nothing about lateness.
        let is_answer = sent.ask
            && sent.copies <= 1
            && sent.tries > sent.copies
            && base.now_us > sent.first_us + rtt.timeout_us(0);
        let is_prompt = sent.copies > 1 && base.now_us < sent.last_us + rtt.smooth_us() / 2;
        if is_answer || is_prompt {
            base.links.note_answer(id, false);
        } else if sent.tries == 1 {
            base.links.note_in_time(id);
        }
        let is_known = sent.tries == 1 || (sent.copies == 1 && base.links.is_late(id));
        is_known.then(|| sent.first_us.max(sent.copied_us))
    }

    /// Sends the batch to the other member of a part of two, which the peer does not know.
    fn take_unserved(&mut self, env: &mut Env, replication: &mut Replication, part: PartId, member: u64) {
        let sent = env.base.links.get(part.link).and_then(|link| link.sent(part.number));
        let Some(duty) = sent.and_then(|sent| self.duties.get_mut(sent.duty)) else { return };
        if duty.other == Some(member) {
            duty.other = None;
            let (batch, part) = (duty.batch.clone(), duty.part.clone());
            self.serve_member(env, replication, &batch, part, member);
        }
    }

    /// Postpones the next try of a part whose body the peer is pulling.
    fn take_pulling(&mut self, base: &mut Base, part: PartId) {
        let now_us = base.now_us;
        let Some(link) = base.links.get_mut(part.link) else { return };
        let Some(sent) = link.sent(part.number).filter(|sent| sent.flying > 0) else { return };
        let is_patient = |duty: &Duty| {
            Announced::of(&duty.batch).is_some() && now_us.saturating_sub(duty.since_us) < PULL_US_MAX
        };
        if !self.duties.get(sent.duty).is_some_and(is_patient) {
            return;
        }
        let answered_us = (sent.tries == 1).then(|| now_us.saturating_sub(sent.first_us).max(1));
        let due_us = now_us + ANNOUNCE_US;
        link.postpone_pulled(part.number, now_us, due_us);
        base.arm_parts(part.link);
        if let Some(us) = answered_us {
            base.links.sample_rtt(part.link, us);
        }
    }
}
