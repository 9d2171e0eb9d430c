//! Takes what a peer sent: parts into custody, receipts off the books.

use std::net::SocketAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::Spread;
use super::batch::{Batch, unpack};
use super::duty::Task;
use super::pack::ZONE_BYTES_MAX;
use super::seqs::from_runs;
use super::span::Span;
use super::timers::Timer;
use super::tree::{Members, WITHOUT_MAX};
use crate::cluster::ring::Ring;
use crate::cluster::{Arrival, Replica};
use crate::proto::gossip as proto;
use crate::record::Now;

/// Memory of batches on duty beyond which no further custody is taken, in bytes.
const DUTY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// More hand-overs than any tree has.
const HOPS_MAX: u32 = 64;
/// A receipt goes at once if the last one is older than this, else so long after it: in
/// microseconds.
const RECEIPT_DELAY_US: u64 = 1_000;
/// What stands for a life in receipts.
pub(super) fn life(boot: u64) -> u32 {
    (xxh3_64(&boot.to_le_bytes()) & 0x3FFF) as u32
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is in custody, or needs none.
    Yes,
    /// Not now: it will be tried again.
    No,
    /// It was a question, and the batch is not here.
    Wanted,
}

/// A part's header, checked.
struct Header {
    task: Task,
    other: Option<u64>,
    is_repair: bool,
}

impl Spread {
    /// Takes a message from a peer. `boot`: the sender's, from the datagram's header.
    pub fn handle_spread(
        &mut self,
        now: Now,
        from: SocketAddr,
        boot: u64,
        message: crate::proto::gossip::Spread,
        ring: &Ring,
        replica: &mut dyn Replica,
    ) {
        self.begin(now, ring);
        let Some(id) = self.links.open(from, now.mono_us) else { return };
        if let Some(link) = self.links.get_mut(id) {
            if link.boot != boot {
                self.assemblies.forget_link(id);
            }
            link.hear(now.mono_us, boot);
        }
        if let Some(receipt) = &message.receipt {
            self.take_receipt(ring, id, receipt);
        }
        if let Some(link) = self.links.get_mut(id) {
            link.raise_floor(message.floor);
        }
        for part in message.parts {
            self.take_part(now, ring, replica, id, part);
        }
        for want in &message.wants {
            self.answer_want(ring, id, want.line, from_runs(0, &want.runs).unwrap_or_default());
        }
        for lack in &message.lacks {
            self.handle_lack(lack.line);
        }
        self.end();
    }

    fn take_receipt(&mut self, ring: &Ring, id: usize, receipt: &proto::Receipt) {
        if receipt.life != life(self.boot) {
            return;
        }
        // Before the parts are settled: an answer is about one that is not.
        for answer in &receipt.unserved {
            self.take_unserved(ring, id, answer.number, answer.member);
        }
        let rtt = self.links.rtt(id);
        let Some(link) = self.links.get_mut(id) else { return };
        for number in &receipt.wanted {
            if link.sent.get(number).is_some_and(|sent| sent.flying > 0 && sent.ask) {
                link.on_loss(self.now_us, rtt);
                link.push_again(*number, false);
            }
        }
        let Some(mut ranges) = from_runs(receipt.below, &receipt.runs) else { return };
        if receipt.below > 0 {
            ranges.push((0, receipt.below - 1));
        }
        let mut numbers = Vec::new();
        for (first, last) in ranges {
            numbers.extend(link.sent.range(first..=last).filter(|sent| sent.1.tries > 0).map(|sent| *sent.0));
        }
        let mut newest = None;
        for number in numbers {
            let Some(sent) = self.links.get_mut(id).and_then(|link| {
                let sent = link.settle(number)?;
                link.on_receipt(sent.bytes);
                Some(sent)
            }) else {
                continue;
            };
            // After a second try nobody knows which of them is acknowledged (Karn).
            if sent.tries == 1 {
                newest = newest.max(Some(sent.last_us));
            }
            self.settle(&sent);
        }
        if let Some(sent_us) = newest {
            self.links.sample_rtt(id, self.now_us.saturating_sub(sent_us).max(1));
        }
        self.mark_ready(id);
    }

    /// A child does not know the other member of its part of two: it gets the batch from here.
    fn take_unserved(&mut self, ring: &Ring, id: usize, number: u64, member: u64) {
        let sent = self.links.get(id).and_then(|link| link.sent.get(&number));
        let Some(duty) = sent.and_then(|sent| self.duties.get_mut(sent.duty)) else { return };
        if duty.other == Some(member) {
            duty.other = None;
            let (batch, part) = (duty.batch.clone(), duty.part.clone());
            self.serve_member(ring, &batch, &part, member);
        }
    }

    fn take_part(&mut self, now: Now, ring: &Ring, replica: &mut dyn Replica, id: usize, part: proto::Part) {
        let number = part.number;
        let is_repeat = self.links.get(id).is_none_or(|link| link.taken.contains(number));
        let taken = if is_repeat {
            if part.fragments == 0
                && let Some((_, records)) = unpack(part.batch)
            {
                self.stats.data_copies_received += records.len() as u64;
            }
            Taken::Yes
        } else if part.fragments > 0 {
            self.take_fragment(now, ring, replica, id, part)
        } else {
            self.take_whole(now, ring, replica, id, part)
        };
        let Some(link) = self.links.get_mut(id) else { return };
        match taken {
            Taken::Yes => {
                link.taken.insert(number, number);
            }
            Taken::Wanted => link.answer_wanted(number),
            Taken::No => return,
        }
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
        part: proto::Part,
    ) -> Taken {
        let Some(key) = self.assemblies.put(now.mono_us, id, &part) else {
            self.stats.refused += 1;
            return Taken::No;
        };
        let Some(whole) = self.assemblies.whole(key) else { return Taken::Yes };
        let taken = self.take_whole(now, ring, replica, id, whole);
        if taken == Taken::Yes {
            self.assemblies.close(key);
        }
        taken
    }

    fn take_whole(
        &mut self,
        now: Now,
        ring: &Ring,
        replica: &mut dyn Replica,
        id: usize,
        part: proto::Part,
    ) -> Taken {
        let number = part.number;
        let Some(header) = self.header(id, &part) else {
            self.stats.corrupt += 1;
            return Taken::No;
        };
        if part.batch.is_empty() {
            return self.take_question(ring, id, &header, &part);
        }
        let Some((batch, records)) = unpack(part.batch) else {
            self.stats.corrupt += 1;
            return Taken::No;
        };
        self.stats.data_copies_received += records.len() as u64;
        let batch = Arc::new(batch);
        if !self.lines.has(&batch) {
            let arrival = if header.is_repair { Arrival::Repair } else { Arrival::Tree };
            for record in records {
                replica.apply(now, record, arrival);
            }
            if !header.is_repair {
                self.latency.sample(header.task.age_us);
            }
        }
        self.lines.hold(now.mono_us, &batch);
        self.watch_gap(batch.id.0, header.is_repair);
        self.take_custody(ring, id, number, &batch, header)
    }

    /// "Have you it?" asks for custody, too.
    fn take_question(&mut self, ring: &Ring, id: usize, header: &Header, part: &proto::Part) -> Taken {
        if let Some(batch) = self.lines.batch((part.line, part.first_seq)).cloned() {
            let header = Header { task: header.task.clone(), ..*header };
            return self.take_custody(ring, id, part.number, &batch, header);
        }
        let is_held = self.lines.get(part.line).is_some_and(|line| line.have.contains(part.first_seq));
        if is_held && (header.is_repair || self.members_below(ring, &header.task) == 0) {
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
        header: Header,
    ) -> Taken {
        if header.is_repair {
            return Taken::Yes;
        }
        let is_relay = self.members_below(ring, &header.task) > 0;
        if is_relay && self.duty_bytes > DUTY_BYTES_MAX {
            self.stats.refused += 1;
            return Taken::No;
        }
        let span = header.task.span;
        // Custody is remembered for this node's zone; it is asked for another only by one whose
        // view is old.
        let rest = match header.task.zone == self.zone {
            true => self.lines.take_custody(batch.id, span),
            false => vec![span],
        };
        if is_relay && let Some(link) = self.links.get_mut(id) {
            link.repeats_receipt = true;
        }
        for span in rest {
            let task = Task { span, ..header.task.clone() };
            self.serve(ring, batch, &task);
        }
        if let Some(other) = header.other.filter(|place| span.contains(*place) && *place != self.place) {
            let place = Span::of_place(other);
            let is_known = Members::new(ring, &self.zones, &header.task.zone, place, &[]).len() > 0;
            if !is_known && let Some(link) = self.links.get_mut(id) {
                link.answer_unserved(number, other);
            }
        }
        Taken::Yes
    }

    fn members_below(&self, ring: &Ring, task: &Task) -> usize {
        let mut without = task.without.clone();
        without.push(self.place);
        Members::new(ring, &self.zones, &task.zone, task.span, &without).len()
    }

    fn header(&self, id: usize, part: &proto::Part) -> Option<Header> {
        if part.without.len() > WITHOUT_MAX || part.zone.len() > ZONE_BYTES_MAX || part.hops > HOPS_MAX {
            return None;
        }
        let zone = match part.zone == *self.zone {
            true => self.zone.clone(),
            false => part.zone.as_str().into(),
        };
        let way_us = self.links.rtt(id).smooth_us() / 2;
        let task = Task {
            span: Span { from: part.from, to: part.to },
            zone,
            without: part.without.clone(),
            instead_of: part.instead_of,
            hops: part.hops,
            age_us: u64::from(part.age_us) + way_us,
            is_hurried: part.hurried,
            is_own: false,
        };
        Some(Header { task, other: part.other, is_repair: part.repair })
    }
}
