//! Takes what a peer sent: parts into custody, receipts off the books.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::Spread;
use super::assembly::Fragment;
use super::batch::{Announced, Batch, BatchId};
use super::codec::unpack;
use super::duty::Task;
use super::span::{Rest, Span};
use super::timers::Timer;
use super::tree::Members;
use super::unsettled::Sent;
use super::wire::{Content, Header, Opened, Part, Receipt, life_tag};
use crate::cluster::ring::Ring;
use crate::cluster::{Arrival, Replica};
use crate::record::Now;

/// Memory of batches on duty beyond which no further custody is taken, in bytes.
pub(super) const DUTY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A receipt goes at once if the last one is older than this, else so long after it: in
/// microseconds.
const RECEIPT_DELAY_US: u64 = 1_000;

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in custody, or needs none.
    Yes,
    /// Not now: it will be tried again.
    No,
    /// It was a question, and the batch is not here.
    Wanted,
    /// It is being pulled.
    Pulling,
}

/// What a header asks of this node.
struct Asked {
    /// The range to serve.
    task: Task,
    /// The other member of a part of two.
    other: Option<u64>,
    /// Under which number the range's tally is to be reported, if at all.
    counted: Option<u64>,
}

impl Spread {
    /// Takes a message from a peer. `boot`: the sender's, from the datagram's header.
    pub fn handle_spread(
        &mut self,
        now: Now,
        from: SocketAddr,
        boot: u64,
        packet: Opened,
        ring: &Ring,
        replica: &mut dyn Replica,
    ) {
        self.begin(now, ring);
        let Some(id) = self.open_link(from) else { return };
        if let Some(link) = self.links.get_mut(id) {
            if link.boot != boot {
                self.assemblies.forget_link(id);
            }
            link.hear(now.mono_us, boot);
        }
        if let Some(receipt) = packet.receipt {
            self.take_receipt(ring, id, receipt);
        }
        if let Some(link) = self.links.get_mut(id) {
            link.raise_floor(packet.floor);
        }
        for part in packet.parts {
            self.take_part(now, ring, replica, id, part);
        }
        for (line, ranges) in packet.wants {
            self.answer_want(ring, id, line, ranges);
        }
        for line in packet.lacks {
            self.handle_lack(line);
        }
        for number in packet.uncounted {
            self.count_again(id, number);
        }
        if let Some((member, ids)) = packet.holding {
            self.take_holdings(member, &ids);
        }
        if !packet.inquiries.is_empty() {
            self.answer_inquiries(from, &packet.inquiries, replica);
        }
        self.end();
    }

    fn take_receipt(&mut self, ring: &Ring, id: usize, receipt: Receipt) {
        if receipt.life != life_tag(self.boot) {
            return;
        }
        // Before the parts are settled: an answer is about one that is not.
        for (number, member) in receipt.unserved {
            self.take_unserved(ring, id, number, member);
        }
        for number in receipt.pulling {
            self.take_pulling(id, number);
        }
        let rtt = self.links.rtt(id);
        let Some(link) = self.links.get_mut(id) else { return };
        let mut lost = 0;
        for number in &receipt.wanted {
            if link.sent.get(*number).is_some_and(|sent| sent.flying > 0 && sent.ask) {
                lost += 1;
                link.on_loss(self.now_us, rtt);
                link.push_again(*number, false);
            }
        }
        let mut numbers = std::mem::take(&mut self.numbers);
        let below = receipt.below.checked_sub(1).map(|last| (0, last));
        for (first, last) in receipt.ranges.into_iter().chain(below) {
            numbers.extend(link.sent.range(first, last).filter(|sent| sent.1.tries > 0).map(|sent| sent.0));
        }
        for _ in 0..lost {
            self.links.note_answer(id, true);
        }
        let mut newest = None;
        for number in numbers.drain(..) {
            let Some(sent) = self.links.get_mut(id).and_then(|link| {
                let sent = link.settle(number)?;
                link.on_receipt(sent.bytes);
                Some(sent)
            }) else {
                continue;
            };
            newest = newest.max(self.learn(id, &sent));
            self.settle(&sent);
        }
        self.numbers = numbers;
        if let Some(sent_us) = newest {
            self.links.sample_rtt(id, self.now_us.saturating_sub(sent_us).max(1));
        }
        for (number, tally) in receipt.tallies {
            self.take_tally(id, number, tally);
        }
        self.mark_ready(id);
    }

    /// Learns what a settled number tells of the link; returns when its round trip began, if that is
    /// known. After a second copy nobody knows which of them is acknowledged (Karn), unless that is
    /// sooner than any answer could be. After questions it is the one copy that was sent: were late
    /// receipts left out, a busy peer would never be known to be slow.
    fn learn(&mut self, id: usize, sent: &Sent) -> Option<u64> {
        // How long a body takes to come says nothing of the round trip.
        let duty = self.duties.get(sent.duty);
        if duty.is_some_and(|duty| Announced::of(&duty.batch).is_some()) {
            return None;
        }
        let rtt = self.links.rtt(id);
        // A question may have been asked too soon: then it tells nothing.
        let is_answer = sent.ask
            && sent.copies <= 1
            && sent.tries > sent.copies
            && self.now_us > sent.first_us + rtt.timeout_us(0);
        let is_prompt = sent.copies > 1 && self.now_us < sent.last_us + rtt.smooth_us() / 2;
        if is_answer || is_prompt {
            self.links.note_answer(id, false);
        } else if sent.tries == 1 {
            self.links.note_in_time(id);
        }
        let is_known = sent.tries == 1 || (sent.copies == 1 && self.links.is_late(id));
        is_known.then(|| sent.first_us.max(sent.copied_us))
    }

    /// A child does not know the other member of its part of two: it gets the batch from here.
    fn take_unserved(&mut self, ring: &Ring, id: usize, number: u64, member: u64) {
        let sent = self.links.get(id).and_then(|link| link.sent.get(number));
        let Some(duty) = sent.and_then(|sent| self.duties.get_mut(sent.duty)) else { return };
        if duty.other == Some(member) {
            duty.other = None;
            let (batch, part) = (duty.batch.clone(), duty.part.clone());
            self.serve_member(ring, &batch, &part, member);
        }
    }

    fn take_part(&mut self, now: Now, ring: &Ring, replica: &mut dyn Replica, id: usize, part: Part) {
        let Part { number, header, content } = part;
        let is_repeat = self.links.get(id).is_none_or(|link| link.taken.contains(number));
        let taken = match (header, content) {
            (_, content) if is_repeat => {
                self.count_again(id, number);
                if let Content::Whole(encoded) = content
                    && let Some((_, records)) = unpack(encoded)
                {
                    self.stats.data_copies_received += records.len() as u64;
                }
                Taken::Yes
            }
            (None, _) => {
                self.stats.corrupt += 1;
                Taken::No
            }
            (Some(header), Content::Fragment { index, count, bytes }) => {
                let fragment = Fragment { number, header, index, count, bytes };
                self.take_fragment(now, ring, replica, id, fragment)
            }
            (Some(header), Content::Announced(announced)) => {
                self.take_announced(ring, id, number, announced, header)
            }
            (Some(header), Content::Question(batch)) => self.take_question(ring, id, number, batch, header),
            (Some(header), Content::Whole(encoded)) => {
                self.take_whole(now, ring, replica, id, (number, header, encoded))
            }
        };
        self.answer(id, number, taken);
    }

    /// Sees to it that the peer is told what became of a part.
    pub(super) fn answer(&mut self, id: usize, number: u64, taken: Taken) {
        let Some(link) = self.links.get_mut(id) else { return };
        match taken {
            Taken::Yes => {
                link.taken.insert(number, number);
            }
            Taken::Wanted => link.answer_wanted(number),
            Taken::Pulling => link.answer_pulling(number),
            Taken::No => return,
        }
        self.schedule_receipt(id);
    }

    /// Sees to it that the peer gets a receipt soon.
    pub(super) fn schedule_receipt(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        if link.receipt_us == 0 {
            let at_us = (link.receipt_sent_us + RECEIPT_DELAY_US).max(self.now_us).max(1);
            link.receipt_us = at_us;
            match at_us > self.now_us {
                true => self.timers.push(at_us, Timer::Receipt { link: id }),
                false => self.mark_ready(id),
            }
        }
    }

    fn take_fragment(
        &mut self,
        now: Now,
        ring: &Ring,
        replica: &mut dyn Replica,
        id: usize,
        fragment: Fragment,
    ) -> Taken {
        let number = fragment.number;
        let Some(key) = self.assemblies.put(now.mono_us, id, fragment) else {
            self.stats.refused += 1;
            return Taken::No;
        };
        let Some((header, encoded)) = self.assemblies.whole(key) else { return Taken::Yes };
        let taken = self.take_whole(now, ring, replica, id, (number, header, encoded));
        if taken == Taken::Yes {
            self.assemblies.close(key);
        }
        taken
    }

    pub(super) fn take_whole(
        &mut self,
        now: Now,
        ring: &Ring,
        replica: &mut dyn Replica,
        id: usize,
        (number, header, encoded): (u64, Header, Bytes),
    ) -> Taken {
        let Some((batch, records)) = unpack(encoded) else {
            self.stats.corrupt += 1;
            return Taken::No;
        };
        self.stats.data_copies_received += records.len() as u64;
        let batch = Arc::new(batch);
        let is_repair = header.is_repair;
        let asked = self.asked(id, header);
        if !self.lines.has(&batch) {
            let arrival = match is_repair {
                true => Arrival::Repair,
                false => Arrival::Tree { hops: asked.task.hops },
            };
            for record in records {
                replica.apply(now, record, arrival);
            }
            if !is_repair {
                self.latency.sample(asked.task.age_us);
            }
        }
        self.lines.hold(now.mono_us, &batch);
        self.watch_gap(batch.id.0, is_repair);
        if is_repair { Taken::Yes } else { self.take_custody(ring, id, number, &batch, asked) }
    }

    /// "Have you it?" asks for custody, too.
    pub(super) fn take_question(
        &mut self,
        ring: &Ring,
        id: usize,
        number: u64,
        (line, first_seq): BatchId,
        header: Header,
    ) -> Taken {
        let is_repair = header.is_repair;
        let asked = self.asked(id, header);
        if let Some(batch) = self.lines.batch((line, first_seq)).cloned() {
            return match is_repair {
                true => Taken::Yes,
                false => self.take_custody(ring, id, number, &batch, asked),
            };
        }
        let is_held = self.lines.get(line).is_some_and(|line| line.have.contains(first_seq));
        if is_held && (is_repair || self.members_below(ring, &asked.task) == 0) {
            if let Some(counted) = asked.counted {
                self.count_for(id, counted, (line, first_seq), asked.task.span);
                self.count_changed((line, first_seq));
            }
            return Taken::Yes;
        }
        Taken::Wanted
    }

    fn take_custody(
        &mut self,
        ring: &Ring,
        id: usize,
        number: u64,
        batch: &Arc<Batch>,
        Asked { task, other, counted }: Asked,
    ) -> Taken {
        let is_relay = self.members_below(ring, &task) > 0;
        if is_relay && self.duty_bytes > DUTY_BYTES_MAX {
            self.stats.refused += 1;
            return Taken::No;
        }
        let span = task.span;
        // Custody is remembered for this node's zone; it is asked for another only by one whose
        // view is old.
        let rest = match task.zone == self.zone {
            true => self.lines.take_custody(batch.id, span, task.hops),
            false => Rest::whole(span),
        };
        if is_relay && let Some(link) = self.links.get_mut(id) {
            link.repeats_receipt = true;
        }
        if let Some(counted) = counted {
            self.count_for(id, counted, batch.id, span);
        }
        // Most are the last of their branch.
        if is_relay || task.instead_of.is_some() {
            for span in rest {
                let task = Task { span, ..task.clone() };
                self.serve(ring, batch, &task);
            }
        }
        if let Some(other) = other.filter(|place| span.contains(*place) && *place != self.place) {
            let place = Span::of_place(other);
            let is_known = Members::new(ring, &self.zones, &task.zone, place, []).len() > 0;
            if !is_known && let Some(link) = self.links.get_mut(id) {
                link.answer_unserved(number, other);
            }
        }
        if counted.is_some() {
            self.count_changed(batch.id);
        }
        Taken::Yes
    }

    fn members_below(&self, ring: &Ring, task: &Task) -> usize {
        let without = task.without.iter().copied().chain([self.place]);
        Members::new(ring, &self.zones, &task.zone, task.span, without).len()
    }

    fn asked(&self, id: usize, header: Header) -> Asked {
        let zone = match header.zone == *self.zone {
            true => self.zone.clone(),
            false => header.zone.into(),
        };
        let way_us = self.links.rtt(id).smooth_us() / 2;
        let task = Task {
            span: header.span,
            zone,
            without: header.without,
            instead_of: header.instead_of,
            hops: header.hops,
            age_us: u64::from(header.age_us) + way_us,
            is_hurried: header.is_hurried,
            is_own: false,
        };
        Asked { task, other: header.other, counted: header.counted }
    }
}
