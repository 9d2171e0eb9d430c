//! The machine that joins membership, spreading and reconciliation.
//!
//! A datagram or an event of a stream goes in, and is handed to the part of the machine that it is for. The
//! outputs of the parts come out in one queue of effects. The machine itself only seals and opens messages,
//! counts, and puts membership first, so that load never makes a healthy node look dead.

mod forget;
mod keys;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::members::{Identity, MemberInfo};
use super::outbox::Awaited;
use super::parts::Parts;
use super::purpose::Purpose;
use super::reconcile::{Reconcile, ReconcileOutput};
use super::ring::Ring;
use super::routing::{StreamRouting, StreamStep};
use super::seal::{ClusterSeal, OVERHEAD_BYTES_MAX, Seal, SealRefusal};
use super::spread::{AppliedBatch, Opened, PeerLife, Spread, SpreadStats};
use super::stats::{MachineStats, QueueGauge};
use super::streams::{StreamEvent, StreamId, StreamOutput};
use super::swim::message::SwimMessage;
use super::swim::{ClockVerdict, Known, SeedInfo, Swim, SwimOutput};
use super::told_keys::ToldKeys;
use super::wire::{Body, OpenedDatagram, Riders, Said, Wire};
use super::{Effect, Heads, MachineConfig, Replica};
use crate::limits::{DATAGRAM_BYTES_CEILING, DATAGRAM_HEADER_BYTES, HEADS_BYTES_MAX};
use crate::record::{Now, SharedRecord};

/// A node's part in the cluster, whose messages are protected by a seal `S`.
///
/// Call any `handle_*`, then `poll_effect` until it is empty, then `poll_timeout`, which returns the latest
/// time at which `handle_timeout` must be called. Datagrams that arrived are to be handed over before a
/// timeout is: what was received must not count as missing.
#[derive(Debug)]
pub struct Machine<S: Seal = ClusterSeal> {
    wire: Wire<S>,
    swim: Swim,
    spread: Spread,
    reconcile: Reconcile,
    streams: StreamRouting<S>,
    /// What other members tell of their keys.
    told_keys: ToldKeys,
    effects: VecDeque<Effect>,
    stats: MachineStats,
}

impl<S: Seal> Machine<S> {
    /// A node that knows no other member, and whose messages are protected by `seal`.
    pub fn with_seal(config: MachineConfig, now: Now, seal: S) -> Machine<S> {
        debug_assert!(seal.overhead_bytes() <= OVERHEAD_BYTES_MAX, "{seal:?}");
        let wire = Wire::new(&config.cluster_name, config.boot, seal);
        let body_bytes_max = wire.body_bytes_max();
        let swim = Swim::new(&config, now, body_bytes_max, wire.seal().answer_excess_bytes());
        Machine {
            wire,
            swim,
            spread: Spread::new(&config, now, body_bytes_max),
            reconcile: Reconcile::new(&config, now),
            streams: StreamRouting::new(),
            told_keys: ToldKeys::default(),
            effects: VecDeque::new(),
            stats: MachineStats::default(),
        }
    }

    /// Takes the whole list of the join targets as they are resolved now. This node's own address is ignored.
    pub fn handle_seeds(&mut self, now: Now, seeds: &[SocketAddr]) {
        self.swim.handle_seeds(now, seeds);
        self.collect_swim();
    }

    /// Addresses of the join targets, and how they answered.
    pub fn seeds(&self) -> Vec<SeedInfo> {
        self.swim.seeds()
    }

    /// Takes members that are known from before, all alive, so that a large cluster can begin without a storm
    /// of joins. If it is called at all, it must be called before anything else.
    pub fn handle_known(&mut self, now: Now, known: &Known) {
        self.swim.handle_known(now, known);
        self.collect_swim();
    }

    /// Takes the heads of what the map held when it was loaded. If it is called at all, it must be called
    /// before anything comes from peers. The heads are ignored if the copy is too old to be believed.
    pub fn handle_restored(&mut self, now: Now, heads: &Heads) {
        if !self.reconcile.must_discard() {
            self.spread.restore_heads(now, heads);
        }
    }

    /// Handles a datagram. One that is refused or malformed, or that only a member may send, is counted, and
    /// ignored otherwise. A stranger gets no answer that is larger than what it sent.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &[u8],
        replica: &mut dyn Replica,
    ) {
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += (datagram.len() + DATAGRAM_HEADER_BYTES) as u64;
        match self.wire.open(from, datagram) {
            Ok(OpenedDatagram { boot, is_fresh, body, heads, keys }) => {
                let is_member = is_fresh && self.swim.has_answered_at(from);
                match body {
                    Body::Members(message, updates) if is_member => {
                        self.swim.handle_message(now, from, boot, message, updates);
                    }
                    Body::Members(message, _) => {
                        self.swim.handle_stranger(now, from, boot, message, datagram.len());
                    }
                    Body::Compare(_) if !is_member => self.stats.strangers += 1,
                    Body::Spread(message) => match Opened::read(&message) {
                        Ok(opened) if !is_member && !opened.brings_records() => self.stats.strangers += 1,
                        Ok(mut opened) => {
                            if !is_member {
                                opened.keep_records();
                            }
                            let ring = self.swim.ring().clone();
                            let from = PeerLife { address: from, boot };
                            self.spread.handle_spread(now, from, opened, &ring, replica);
                        }
                        // The heads that ride on it are not believed either.
                        Err(_) => {
                            self.stats.count(SealRefusal::Corrupt);
                            return self.collect(now, replica);
                        }
                    },
                    Body::Compare(compare) => self.reconcile.handle_compare(now, from, &compare, replica),
                    Body::Unknown => {}
                }
                if is_member {
                    self.spread.handle_heads(now, from, &heads);
                    self.told_keys.note(from, keys);
                }
            }
            Err(refusal) => self.stats.count(refusal),
        }
        self.collect(now, replica);
    }

    /// Takes reports on batches that [`Replica::take_batch`] did not apply at once.
    pub fn handle_applied(&mut self, now: Now, applied: &[AppliedBatch], replica: &mut dyn Replica) {
        self.spread.handle_applied(now, applied, self.swim.ring(), replica);
        self.collect(now, replica);
    }

    /// Handles an event of a stream.
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        event: StreamEvent,
        replica: &mut dyn Replica,
    ) {
        match event {
            StreamEvent::Accepted { from } => {
                if let Some(silent) = self.streams.accepted(now, stream, from) {
                    self.end_stream(now, silent, replica);
                }
            }
            StreamEvent::Opened => {
                if let Some(step) = self.streams.opened(&mut self.wire, stream) {
                    self.follow(now, stream, step, replica);
                }
            }
            StreamEvent::Received(bytes) => match self.streams.received(now, &mut self.wire, stream, bytes) {
                Ok(None) => {}
                Ok(Some(step)) => self.follow(now, stream, step, replica),
                Err(refusal) => {
                    self.stats.count(refusal);
                    self.end_stream(now, stream, replica);
                }
            },
            StreamEvent::Drained => {
                if let Some(purpose) = self.streams.told(stream) {
                    self.parts(replica).route(now, stream, purpose, event);
                }
            }
            StreamEvent::Closed => {
                let purpose = self.streams.purpose(stream);
                self.streams.closed(stream);
                if let Some(purpose) = purpose {
                    self.parts(replica).route(now, stream, purpose, event);
                }
            }
        }
        self.collect(now, replica);
    }

    /// Carries out what follows from an event of a stream, in order.
    fn follow(&mut self, now: Now, stream: StreamId, step: StreamStep, replica: &mut dyn Replica) {
        let StreamStep { purpose, answer, accepted_from, is_opened, received } = step;
        if !answer.is_empty() {
            self.effects.push_back(Effect::Stream(StreamOutput::Write { stream, bytes: answer }));
        }
        let mut parts = self.parts(replica);
        if let Some(peer) = accepted_from {
            let is_member = parts.swim.is_member_from(peer.address.ip(), peer.boot);
            if !parts.accept(now, stream, purpose, peer, is_member) {
                return self.perform(StreamOutput::Close { stream });
            }
            if is_member {
                self.streams.trust(stream);
            }
        }
        let mut parts = self.parts(replica);
        if is_opened {
            parts.route(now, stream, purpose, StreamEvent::Opened);
        }
        if !received.is_empty() {
            parts.route(now, stream, purpose, StreamEvent::Received(received));
        }
        if parts.has_introduced(stream) {
            self.streams.introduce(stream);
        }
    }

    /// Closes a stream, and tells the part of the machine that it is for.
    fn end_stream(&mut self, now: Now, stream: StreamId, replica: &mut dyn Replica) {
        let purpose = self.streams.purpose(stream);
        self.perform(StreamOutput::Close { stream });
        if let Some(purpose) = purpose {
            self.parts(replica).route(now, stream, purpose, StreamEvent::Closed);
        }
    }

    /// Borrows the parts of the machine that streams are for.
    fn parts<'a>(&'a mut self, replica: &'a mut dyn Replica) -> Parts<'a> {
        Parts { swim: &mut self.swim, spread: &mut self.spread, reconcile: &mut self.reconcile, replica }
    }

    /// Returns whether a stream brings records in bulk, so that its bytes may be left in the socket for a
    /// while.
    pub fn is_bulk(&self, stream: StreamId) -> bool {
        match self.streams.purpose(stream) {
            Some(Purpose::Reconcile) => true,
            // On streams that peers opened they only ask, in few bytes; bodies come on those opened here.
            Some(Purpose::Bodies) => Purpose::of_connected(stream).is_some(),
            Some(Purpose::Members) | None => false,
        }
    }

    /// Does what is due. To be called at the time that `poll_timeout` returns.
    pub fn handle_timeout(&mut self, now: Now, replica: &mut dyn Replica) {
        if self.swim.poll_timeout() <= now.mono_us {
            self.swim.handle_timeout(now);
        }
        let ring = self.swim.ring().clone();
        if self.spread.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            self.spread.handle_timeout(now, &ring);
        }
        if self.reconcile.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            let heads = || self.spread.heads();
            self.reconcile.handle_timeout(now, &ring, &heads, replica);
        }
        for stream in self.streams.take_overdue(now) {
            self.end_stream(now, stream, replica);
        }
        self.collect(now, replica);
    }

    /// Number of bytes of this node's own records that can be handed over now; 0 while the links are full.
    pub fn room_bytes(&self) -> usize {
        self.spread.room_bytes()
    }

    /// Returns whether all of this node's own records are with other nodes, or were given up.
    pub fn is_drained(&self) -> bool {
        self.spread.is_drained()
    }

    /// Spreads records that this node accepted from clients, in ascending order of their numbers. A number
    /// that is missing in between is of a record that was superseded while it waited.
    pub fn handle_published(&mut self, now: Now, records: &[SharedRecord]) {
        debug_assert!(records.is_sorted_by(|a, b| a.birth.seq < b.birth.seq), "numbers of records ascend");
        self.spread.handle_published(now, records, self.swim.ring());
        self.collect_spread();
    }

    /// Takes records whose answers wait until every live member holds them, which [`Effect::Replicated`]
    /// reports. It must be called before [`Machine::handle_published`] is called with the same records.
    pub fn handle_awaited(&mut self, now: Now, awaited: Vec<Awaited>) {
        let ring = self.swim.ring().clone();
        self.spread.handle_awaited(now, awaited, &ring);
        self.collect_spread();
    }

    /// Begins to leave: the cluster is told that this node goes. [`Machine::is_left`] returns whether that is
    /// done.
    pub fn handle_leave(&mut self, now: Now) {
        self.swim.handle_leave(now);
        self.collect_swim();
    }

    /// Returns whether leaving is done: enough members know that this node goes, or could not be told.
    pub fn is_left(&self) -> bool {
        self.swim.is_left()
    }

    /// Takes the next thing that the driver has to do; `None` if there is nothing left.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if let Some(Effect::Stream(StreamOutput::Write { bytes, .. })) = &effect {
            self.stats.stream_bytes_sent += bytes.len() as u64;
        }
        effect
    }

    /// Latest time at which `handle_timeout` must be called, on the monotonic clock in microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        let rooms = [self.spread.poll_timeout(), self.reconcile.poll_timeout()];
        let due_us = self.swim.poll_timeout().min(self.streams.due_us());
        let due_us = rooms.into_iter().flatten().fold(due_us, u64::min);
        (due_us < u64::MAX).then_some(due_us)
    }

    /// Reads the state of the link to a peer and does nothing with it. A driver of thousands of machines
    /// calls this a little before it hands over a datagram, so that the memory is in the processor's cache by
    /// then.
    pub fn warm_link(&self, peer: SocketAddr) -> u64 {
        self.spread.warm_link(peer)
    }

    /// Returns the member of this name, as this node sees it.
    pub fn member(&self, name: &str) -> Option<MemberInfo> {
        self.swim.member(name)
    }

    /// Identity of this node.
    pub fn identity(&self) -> &Arc<Identity> {
        self.swim.identity()
    }

    /// The live members, this node included.
    pub fn ring(&self) -> &Arc<Ring> {
        self.swim.ring()
    }

    /// Heads of all known lives of origins. The head of this node's own life is that of the records it was
    /// handed by [`Machine::handle_published`].
    pub fn heads(&self) -> Heads {
        self.spread.heads()
    }

    /// Version of [`Machine::heads`]: it grows whenever they change.
    pub fn heads_version(&self) -> u64 {
        self.spread.heads_version()
    }

    /// Returns whether this node holds what the cluster holds: its first reconciliation is done, or it has no
    /// join targets and so nobody to reconcile with.
    pub fn is_reconciled(&self) -> bool {
        self.reconcile.is_reconciled() || self.swim.is_alone_by_choice()
    }

    /// The verdict on this node's wall clock, by comparison with the members' clocks.
    pub fn clock(&self) -> ClockVerdict {
        self.swim.clock()
    }

    /// This node's wall clock, in microseconds, when its map was last equal to that of a peer.
    pub fn agreed_us(&self) -> Option<u64> {
        self.reconcile.agreed_us()
    }

    /// This node's wall clock, in microseconds, when the member that has been dead for longest was given up;
    /// `None` if no remembered member is dead. Until that member is back or forgotten, all tombstones are
    /// kept.
    pub fn unreachable_since_us(&self) -> Option<u64> {
        self.swim.unreachable_since_us()
    }

    /// Counts since the start.
    pub fn stats(&self) -> &MachineStats {
        &self.stats
    }

    /// Calls `visit` with the size and bound of every bounded queue and table. This is cheap.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        self.swim.visit_gauges(visit);
        self.spread.visit_gauges(visit);
        self.reconcile.visit_gauges(visit);
        self.streams.visit_gauges(visit);
        let (lives, lives_max) = self.wire.seal().lives_kept();
        visit(QueueGauge::new("lives with a seal", lives, lives_max));
    }

    /// Counts of spreading.
    pub fn spread_stats(&self) -> &SpreadStats {
        self.spread.stats()
    }

    /// Turns the outputs of the parts of the machine into effects, membership first.
    fn collect(&mut self, now: Now, replica: &mut dyn Replica) {
        self.collect_swim();
        self.spread.handle_ring(now, self.swim.ring());
        self.collect_reconcile(now, replica);
        self.collect_spread();
    }

    fn collect_swim(&mut self) {
        while let Some(output) = self.swim.poll_output() {
            match output {
                SwimOutput::Datagram { to, message, updates } => {
                    let is_probe = matches!(message, SwimMessage::Ping(_) | SwimMessage::Ack(_));
                    let is_told = is_probe && self.swim.has_answered_at(to);
                    let heads = if is_told { self.spread.heads_digest(HEADS_BYTES_MAX) } else { Vec::new() };
                    let riders = Riders { heads: &heads, with_keys: is_told };
                    let bytes = self.wire.datagram(to, Said::Members(message, updates), riders);
                    self.send(to, bytes);
                }
                SwimOutput::Stream(output) => self.perform(output),
                SwimOutput::NameTaken { by } => self.effects.push_back(Effect::NameTaken { by }),
                SwimOutput::NewBoot { boot } => {
                    self.wire.set_boot(boot);
                    self.spread.handle_new_boot(boot);
                    self.effects.push_back(Effect::NewBoot { boot });
                }
                SwimOutput::Measured { member, rtt_us } => {
                    self.spread.handle_rtt(member.gossip(), member.zone(), rtt_us);
                }
            }
        }
        if self.swim.take_changed() {
            self.wire.seal_mut().note_members(&mut self.swim.boots());
            self.told_keys.retain(|address| self.swim.has_answered_at(address));
            self.effects.push_back(Effect::MembersChanged);
        }
    }

    fn collect_reconcile(&mut self, now: Now, replica: &mut dyn Replica) {
        while let Some(output) = self.reconcile.poll_output() {
            match output {
                ReconcileOutput::Datagram { to, message } => {
                    let bytes = self.wire.datagram(to, Said::Compare(message), Riders::default());
                    self.send(to, bytes);
                }
                ReconcileOutput::Stream(output) => self.perform(output),
                ReconcileOutput::Merged(heads) => self.spread.merge_heads(now, &heads),
                ReconcileOutput::Discard => {
                    self.reconcile.discard_old(now, replica);
                    // Some of these records came in this life: heads that cover them would claim what is gone.
                    self.spread.forget_held();
                }
            }
        }
        self.stats.shards_differing = self.reconcile.shards_differing() as u64;
    }

    fn collect_spread(&mut self) {
        while let Some((to, packet)) = self.spread.poll_send() {
            let is_member = self.swim.has_answered_at(to);
            let heads = if is_member { self.spread.heads_beside(&packet) } else { Vec::new() };
            let bytes = self.wire.spread_datagram(to, &packet, &heads);
            self.send(to, bytes);
            self.spread.take_back(packet);
        }
        while let Some(output) = self.spread.poll_stream() {
            self.perform(output);
        }
        while let Some(replicated) = self.spread.poll_replicated() {
            self.effects.push_back(Effect::Replicated(replicated));
        }
        self.stats.data_copies_received = self.spread.stats().data_copies_received;
    }

    /// Passes on the instruction of a part of the machine about a stream. Bytes to be written are sealed.
    fn perform(&mut self, output: StreamOutput) {
        let output = match output {
            StreamOutput::Connect { .. } => output,
            StreamOutput::Write { stream, bytes } => {
                let Some(bytes) = self.streams.seal(stream, bytes) else { return };
                StreamOutput::Write { stream, bytes }
            }
            StreamOutput::Close { stream } => {
                self.streams.closed(stream);
                output
            }
        };
        self.effects.push_back(Effect::Stream(output));
    }

    fn send(&mut self, to: SocketAddr, bytes: Bytes) {
        debug_assert!(bytes.len() <= DATAGRAM_BYTES_CEILING, "{} bytes", bytes.len());
        self.stats.datagrams_sent += 1;
        self.stats.bytes_sent += (bytes.len() + DATAGRAM_HEADER_BYTES) as u64;
        self.effects.push_back(Effect::Datagram { to, bytes });
    }
}
