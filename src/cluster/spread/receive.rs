//! Handles the packets of peers: takes parts into custody, hands records to the map, and everything else to
//! the module that it is for.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::assembly::Fragment;
use super::batch::{Announced, Batch, BatchId};
use super::bodies::{Bodies, BodyWaiter, PulledBody};
use super::codec::open;
use super::custody::Custody;
use super::duty::RangeTask;
use super::env::Env;
use super::gaps::Gaps;
use super::link::{Link, PartId, PeerLife};
use super::pending::{CustodyRequest, PendingBatch, PendingBatches, PendingPart};
use super::received::{AppliedBatch, BatchOutcome, ReceivedBatch};
use super::replication::Replication;
use super::span::{Rest, Span};
use super::wire::{Content, Inquiry, Opened, OpenedPart, PartHeader};
use crate::cluster::{Arrival, Replica};
use crate::record::Now;

/// The outcome for a part that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The part was taken into custody, or needs no custody. The peer need not send it again.
    Yes,
    /// The part was not taken: the peer will try again.
    No,
    /// The part was a question about a batch that this node does not hold. The peer is to send the batch.
    Wanted,
    /// The body of the batch is being pulled from a peer.
    Pulling,
    /// The batch is being applied. The part is answered when that is done.
    Applying,
}

/// Everything that handles messages of peers, borrowed for the time of one call.
pub(super) struct Intake<'a> {
    /// Time of the call, on both clocks.
    pub now: Now,
    /// The state that custody, gaps and replication share, and the ring.
    pub env: Env<'a>,
    /// The parts that this node answers for.
    pub custody: &'a mut Custody,
    /// Asks for records that did not come.
    pub gaps: &'a mut Gaps,
    /// Answers that wait for all members, and tallies.
    pub replication: &'a mut Replication,
    /// Pulls bodies that parts announce.
    pub bodies: &'a mut Bodies,
    /// Batches that are being applied by another thread.
    pub pending: &'a mut PendingBatches,
    /// The records that this node holds.
    pub replica: &'a mut dyn Replica,
}

impl Intake<'_> {
    /// Takes a packet from a peer.
    pub fn take_packet(&mut self, from: PeerLife, packet: Opened) {
        let now_us = self.env.base.now_us;
        let Some(id) = self.env.base.links.open(from.address, now_us) else { return };
        self.env.base.links.hear(id, now_us, from.boot);
        if let Some(receipt) = packet.receipt {
            self.custody.take_receipt(&mut self.env, self.replication, id, receipt);
        }
        if let Some(link) = self.env.base.links.get_mut(id) {
            link.answers.raise_floor(packet.floor);
            if let Some(number) = packet.carried {
                link.path.handle_carried(now_us, number);
            }
            if packet.probe.is_some() {
                link.carried = packet.probe;
                self.env.base.links.mark_ready(id);
            }
        }
        for part in packet.parts {
            self.take_part(id, part);
        }
        for want in packet.wants {
            self.gaps.answer_want(&mut self.env, self.custody, id, want);
        }
        for line in packet.lacks {
            self.gaps.handle_lack(self.env.base, line);
        }
        for number in packet.uncounted {
            self.replication.count_again(self.env.base, PartId { link: id, number });
        }
        if let Some((member, ids)) = packet.holding {
            self.replication.take_holdings(member, &ids);
        }
        self.answer_inquiries(from.address, &packet.inquiries);
    }

    /// Answers the questions of a peer whether records are held. A record that this node lacks is a gap.
    fn answer_inquiries(&mut self, from: SocketAddr, inquiries: &[Inquiry]) {
        let mut held = Vec::new();
        for inquiry in inquiries {
            if self.replica.holds(&inquiry.source, inquiry.stamp) {
                held.push(inquiry.id);
            } else {
                self.gaps.note(self.env.base, from, inquiry.line, inquiry.seq);
            }
        }
        self.replication.confirm(from, &held);
    }

    /// Takes a part that came over a link.
    fn take_part(&mut self, link: usize, part: OpenedPart) {
        let OpenedPart { number, header, content } = part;
        let id = PartId { link, number };
        let is_repeat = self.env.base.links.get(link).is_none_or(|link| link.answers.has_taken(number));
        let taken = match (header, content) {
            (_, content) if is_repeat => {
                self.take_repeat(id, content);
                Taken::Yes
            }
            (None, _) => {
                self.env.base.stats.corrupt += 1;
                Taken::No
            }
            (Some(header), Content::Fragment { index, count, bytes }) => {
                self.take_fragment(id, Fragment { number, header, index, count, bytes })
            }
            (Some(header), Content::Announced(announced)) => self.take_announced(id, announced, header),
            (Some(header), Content::Question(batch)) => self.take_question(id, batch, header),
            (Some(header), Content::Whole(encoded)) => self.take_whole(id, header, encoded, None),
        };
        self.answer(id, taken);
    }

    /// Handles a part that came again after it was taken: it is counted, and its tally is sent again.
    fn take_repeat(&mut self, id: PartId, content: Content) {
        self.replication.count_again(self.env.base, id);
        if let Content::Whole(encoded) = content
            && let Some(batch) = open(encoded)
        {
            self.env.base.stats.data_copies_received += u64::from(batch.records.count);
        }
    }

    /// Puts the outcome for a part into the answers to the peer.
    fn answer(&mut self, PartId { link: id, number }: PartId, taken: Taken) {
        let Some(link) = self.env.base.links.get_mut(id) else { return };
        match taken {
            Taken::Yes => link.answers.take(number),
            Taken::Wanted => link.answers.want(number),
            Taken::Pulling => link.answers.pull(number),
            Taken::No | Taken::Applying => return,
        }
        self.env.base.schedule_receipt(id);
    }

    /// Takes a fragment, and with the last one the whole batch.
    fn take_fragment(&mut self, id: PartId, fragment: Fragment) -> Taken {
        let links = &mut self.env.base.links;
        let Some(key) = links.put_fragment(id.link, self.env.base.now_us, fragment) else {
            return Taken::No;
        };
        let Some((header, encoded)) = links.assembled(key) else { return Taken::Yes };
        let taken = self.take_whole(id, header, encoded, Some(key));
        if taken == Taken::Yes {
            self.env.base.links.drop_fragments(key);
        }
        taken
    }

    /// Takes a complete batch: its records go to the map, and this node takes custody unless the batch fills a
    /// gap. `fragments` names the first fragment, if the batch came in fragments.
    fn take_whole(
        &mut self,
        id: PartId,
        header: PartHeader,
        encoded: Bytes,
        fragments: Option<PartId>,
    ) -> Taken {
        let Some(batch) = open(encoded) else {
            self.env.base.stats.corrupt += 1;
            return Taken::No;
        };
        self.env.base.stats.data_copies_received += u64::from(batch.records.count);
        let request = self.request(id.link, header);
        if let Some(pending) = self.pending.batch(batch.id) {
            // Of two different batches of one name, one is damaged. The peer sends this one again.
            let is_same = pending.encoded == batch.encoded;
            return if is_same { self.await_applied(id, batch.id, request, fragments) } else { Taken::No };
        }
        let batch = Arc::new(batch);
        let is_held = self.env.base.lines.has(&batch);
        // A batch that is kept was verified when it came first.
        if is_held && let Some(kept) = self.env.base.lines.batch(batch.id).cloned() {
            return self.finish_part(id, &kept, BatchOutcome::Held, request);
        }
        let ticket = self.pending.ticket(batch.id);
        let received = ReceivedBatch::new(batch.clone(), ticket, self.arrival(is_held, &request));
        let outcome = match self.pending.has_room(batch.cost_bytes()) {
            true => self.replica.take_batch(self.now, received),
            false => Some(received.apply_to(self.now, self.replica)),
        };
        match outcome {
            Some(outcome) => self.finish_part(id, &batch, outcome, request),
            None => {
                self.pending.begin(self.env.base.now_us, &batch, ticket);
                self.await_applied(id, batch.id, request, fragments)
            }
        }
    }

    /// The way on which the records of a part came; `None`: they are held already. `request` is that of the
    /// part, or `None` if the part fills a gap.
    fn arrival(&mut self, is_held: bool, request: &Option<CustodyRequest>) -> Option<Arrival> {
        if is_held {
            return None;
        }
        let Some(CustodyRequest { task, .. }) = request else { return Some(Arrival::Repair) };
        self.gaps.sample_latency(task.age_us);
        Some(Arrival::Tree { hops: task.hops })
    }

    /// Finishes a part whose batch was applied at once: takes custody as it requests.
    fn finish_part(
        &mut self,
        id: PartId,
        batch: &Arc<Batch>,
        outcome: BatchOutcome,
        request: Option<CustodyRequest>,
    ) -> Taken {
        if !self.settle(batch, outcome, request.is_none()) {
            return Taken::No;
        }
        request.map_or(Taken::Yes, |request| self.take_custody(id, batch, &request))
    }

    /// Counts the records of a batch as held, now that it was applied; `false`: it is damaged.
    fn settle(&mut self, batch: &Arc<Batch>, outcome: BatchOutcome, is_repair: bool) -> bool {
        match outcome {
            BatchOutcome::Damaged => {
                self.env.base.stats.corrupt += 1;
                return false;
            }
            // The tree goes on, but does not report that this node holds what it refuses.
            BatchOutcome::HeldInPart => self.replication.withhold(batch.id),
            BatchOutcome::Held => {}
        }
        self.env.base.lines.hold(self.env.base.now_us, batch);
        self.gaps.watch(self.env.base, batch.id.line, is_repair);
        true
    }

    /// Takes a part whose batch is being applied: the batch is passed on at once, and the part is answered when
    /// the batch was applied.
    fn await_applied(
        &mut self,
        id: PartId,
        batch_id: BatchId,
        request: Option<CustodyRequest>,
        fragments: Option<PartId>,
    ) -> Taken {
        let Some(from) = self.env.base.links.get(id.link).map(Link::peer) else { return Taken::No };
        if self.pending.has_part(batch_id, from, id.number) {
            return Taken::Applying;
        }
        let Some(batch) = self.pending.batch(batch_id).cloned() else { return Taken::No };
        if !self.pending.has_room_for_part(batch_id) {
            return Taken::No;
        }
        let mut is_relay = false;
        if let Some(CustodyRequest { task, counted, .. }) = &request {
            if self.must_refuse(task) {
                return Taken::No;
            }
            let rest = match task.zone == self.env.base.me.zone {
                true => self.pending.take_custody(batch_id, task.span, task.hops),
                false => Rest::whole(task.span),
            };
            is_relay = self.serve(&batch, task, rest, counted.is_some());
        }
        let part = PendingPart { from, number: id.number, fragments, request, is_relay };
        self.pending.add_part(batch_id, part);
        Taken::Applying
    }

    /// Takes the report on a batch that another thread has applied: the parts that brought it are answered, if
    /// it is not damaged. A report on a batch that was forgotten meanwhile is ignored.
    pub fn take_applied(&mut self, applied: AppliedBatch) {
        let Some(PendingBatch { batch, parts, .. }) = self.pending.end(applied.ticket) else { return };
        let is_repair = parts.iter().any(|part| part.request.is_none());
        if !self.settle(&batch, applied.outcome, is_repair) {
            // The peers get no receipts. They send the batch again, and it is passed on anew.
            return self.custody.recall(self.env.base, self.replication, &batch);
        }
        for task in parts.iter().filter_map(|part| part.request.as_ref()).map(|request| &request.task) {
            if task.zone == self.env.base.me.zone {
                self.env.base.lines.take_custody(&batch, task.span, task.hops);
            }
        }
        for PendingPart { from, number, fragments, request, is_relay } in parts {
            let links = &mut self.env.base.links;
            let Some(link) = links.open(from.address, self.env.base.now_us) else { continue };
            // If the peer restarted meanwhile, the number means another part.
            if links.get(link).is_none_or(|link| link.peer() != from) {
                continue;
            }
            if let Some(key) = fragments {
                links.drop_fragments(key);
            }
            let id = PartId { link, number };
            if let Some(request) = request {
                self.promise(id, batch.id, &request, is_relay);
            }
            self.answer(id, Taken::Yes);
        }
    }

    /// Handles the question whether a batch is here. If it is, this node takes custody as if the batch had
    /// come.
    fn take_question(&mut self, id: PartId, batch_id: BatchId, header: PartHeader) -> Taken {
        let request = self.request(id.link, header);
        if self.pending.batch(batch_id).is_some() {
            return self.await_applied(id, batch_id, request, None);
        }
        let lines = &self.env.base.lines;
        if let Some(batch) = lines.batch(batch_id).cloned() {
            return request.map_or(Taken::Yes, |request| self.take_custody(id, &batch, &request));
        }
        let is_held =
            lines.get(batch_id.line).is_some_and(|line| line.covers(batch_id.first_seq, batch_id.first_seq));
        let Some(request) = request else { return if is_held { Taken::Yes } else { Taken::Wanted } };
        if is_held && self.members_below(&request.task) == 0 {
            if let Some(number) = request.counted {
                let id = PartId { number, ..id };
                self.replication.count_for(self.env.base, id, batch_id, request.task.span);
                self.replication.count_changed(self.env.base, batch_id);
            }
            return Taken::Yes;
        }
        Taken::Wanted
    }

    /// Takes custody of a range for a batch that is kept, and serves the parts of the range that were not in
    /// custody.
    fn take_custody(&mut self, id: PartId, batch: &Arc<Batch>, request: &CustodyRequest) -> Taken {
        let task = &request.task;
        if self.must_refuse(task) {
            return Taken::No;
        }
        // Custody is only remembered for this node's zone: only a peer whose view is old asks for another.
        let rest = match task.zone == self.env.base.me.zone {
            true => self.env.base.lines.take_custody(batch, task.span, task.hops),
            false => Rest::whole(task.span),
        };
        let is_relay = self.serve(batch, task, rest, request.counted.is_some());
        self.promise(id, batch.id, request, is_relay);
        Taken::Yes
    }

    /// Returns whether a batch must not be passed on, because too many are on duty.
    fn must_refuse(&self, task: &RangeTask) -> bool {
        self.custody.is_full() && self.members_below(task) > 0
    }

    /// Passes a batch on to the ranges `rest` of the range of `task`. `is_counted`: the tally of the range is to
    /// be reported later. Returns whether the range has other members, so that this node is a relay.
    fn serve(&mut self, batch: &Arc<Batch>, task: &RangeTask, rest: Rest, is_counted: bool) -> bool {
        if is_counted {
            self.replication.expect_count(self.env.base, batch.id);
        }
        // Most members are leaves of the tree: there is nothing to serve.
        let is_relay = self.members_below(task) > 0;
        if !is_relay && task.instead_of.is_none() {
            return false;
        }
        for span in rest {
            debug_assert!(task.span.includes(span), "what is left lies outside of what was asked");
            let task = RangeTask { span, ..task.clone() };
            self.custody.serve(&mut self.env, self.replication, batch, &task);
        }
        is_relay
    }

    /// Prepares the answer to a part that asked for custody, now that this node holds its batch: the answer says
    /// so, and that the range is served. `is_relay`: the range has other members.
    fn promise(&mut self, id: PartId, batch_id: BatchId, request: &CustodyRequest, is_relay: bool) {
        let CustodyRequest { task, other, counted } = request;
        if is_relay && let Some(link) = self.env.base.links.get_mut(id.link) {
            link.answers.repeat();
        }
        if let Some(number) = *counted {
            self.replication.count_for(self.env.base, PartId { number, ..id }, batch_id, task.span);
        }
        if let Some(other) = *other {
            self.check_other(id, task, other);
        }
        if counted.is_some() {
            self.replication.count_changed(self.env.base, batch_id);
        }
    }

    /// Checks whether the other member of a part of two is known here. If it is not, the peer is told so, and
    /// serves that member itself.
    fn check_other(&mut self, id: PartId, task: &RangeTask, other: u64) {
        if !task.span.contains(other) || other == self.env.base.me.place {
            return;
        }
        let is_known = self.env.members(&task.zone, Span::of_place(other), []).len() > 0;
        if !is_known && let Some(link) = self.env.base.links.get_mut(id.link) {
            link.answers.miss_member(id.number, other);
        }
    }

    /// Number of members in a range, without those that are served already.
    fn members_below(&self, task: &RangeTask) -> usize {
        self.env.members_below(task)
    }

    /// The request in a header that came over a link; `None`: the batch fills a gap.
    fn request(&self, link: usize, header: PartHeader) -> Option<CustodyRequest> {
        if header.is_repair {
            return None;
        }
        let base = &self.env.base;
        let zone = match header.zone == *base.me.zone {
            true => base.me.zone.clone(),
            false => header.zone.into(),
        };
        let way_us = base.links.rtt(link).smooth_us() / 2;
        let task = RangeTask {
            span: header.span,
            zone,
            without: header.without.into(),
            instead_of: header.instead_of,
            hops: header.hops,
            age_us: u64::from(header.age_us) + way_us,
            is_hurried: header.is_hurried,
            is_own: false,
        };
        Some(CustodyRequest { task, other: header.other, counted: header.counted })
    }

    /// Handles a part whose batch is to be pulled from the peer.
    pub(super) fn take_announced(&mut self, id: PartId, announced: Announced, header: PartHeader) -> Taken {
        match self.take_question(id, announced.batch, header.clone()) {
            Taken::Wanted => {}
            taken => return taken,
        }
        let Some(link) = self.env.base.links.get(id.link) else { return Taken::No };
        let since_us = self.env.base.now_us;
        let waiter = BodyWaiter { from: link.peer(), number: id.number, header, since_us };
        if self.bodies.pull(since_us, announced, waiter) { Taken::Pulling } else { Taken::No }
    }

    /// Handles a body that came: the parts that waited for it are taken as if it had come with them.
    pub fn take_body(&mut self, pulled: PulledBody) {
        let PulledBody { announced, body, waiters } = pulled;
        if xxh3_64(&body) != announced.checksum {
            self.env.base.stats.corrupt += 1;
            return;
        }
        let now_us = self.env.base.now_us;
        for BodyWaiter { from, number, mut header, since_us } in waiters {
            let Some(link) = self.env.base.links.open(from.address, now_us) else { continue };
            let id = PartId { link, number };
            let waited_us = now_us.saturating_sub(since_us);
            header.age_us = header.age_us.saturating_add(u32::try_from(waited_us).unwrap_or(u32::MAX));
            let is_known = self.env.base.lines.batch(announced.batch).is_some()
                || self.pending.batch(announced.batch).is_some();
            let taken = match is_known {
                true => self.take_question(id, announced.batch, header),
                false => self.take_whole(id, header, body.clone(), None),
            };
            // If the peer restarted meanwhile, the number means another part.
            if self.env.base.links.get(link).is_some_and(|link| link.peer() == from) {
                self.answer(id, taken);
            }
        }
    }
}
