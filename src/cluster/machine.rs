//! The machine that joins membership, spreading and reconciliation.
//!
//! One datagram or stream event goes in, to the room that it is for; what the rooms want done comes
//! out in one queue of effects. The machine itself only wraps and unwraps, counts, and keeps the order
//! of precedence: membership is asked first, so load never makes a healthy node look dead.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::members::{Identity, MemberInfo};
use super::outbox::Awaited;
use super::purpose::Purpose;
use super::reconcile::{Output as ReconcileOutput, Reconcile, Stats as ReconcileStats};
use super::ring::Ring;
use super::spread::{Opened, PeerLife, Spread, SpreadStats, StreamOutput};
use super::stats::{Gauge, Stats};
use super::streams::Streams;
use super::swim::message::Message;
use super::swim::{Known, Output, Swim};
use super::wire::{Body, Said, Wire, WireError};
use super::{Config, Effect, Heads, Replica, StreamEvent, StreamId};
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, HEADS_BYTES_MAX, SHARDS};
use crate::record::{NodeName, Now, SharedRecord};

/// A node's part in the cluster.
///
/// Call any `handle_*`, then `poll_effect` until it is empty, then `poll_timeout` for when
/// `handle_timeout` wants to be called at the latest. Datagrams that arrived are to be handed over
/// before a timeout is: what was received must not count as missing.
#[derive(Debug)]
pub struct Machine {
    wire: Wire,
    swim: Swim,
    spread: Spread,
    reconcile: Reconcile,
    streams: Streams,
    effects: VecDeque<Effect>,
    name: NodeName,
    agreed_at_start_us: u64,
    stats: Stats,
}

impl Machine {
    /// A node that knows nobody.
    pub fn new(config: Config, now: Now) -> Machine {
        Machine {
            wire: Wire::new(&config.cluster_name, config.boot),
            swim: Swim::new(&config, now),
            spread: Spread::new(&config, now),
            reconcile: Reconcile::new(&config, now),
            streams: Streams::default(),
            effects: VecDeque::new(),
            name: config.name,
            agreed_at_start_us: config.agreed_us.unwrap_or(0),
            stats: Stats::default(),
        }
    }

    /// Join targets as they are resolved now; the whole list each time. The node's own address is
    /// ignored.
    pub fn handle_seeds(&mut self, now: Now, seeds: &[SocketAddr]) {
        self.swim.handle_seeds(now, seeds);
        self.collect_swim();
    }

    /// Members that are known from before, all alive. To be called first, if at all: a cluster begins
    /// without a storm of joins.
    pub fn handle_known(&mut self, now: Now, known: &Known) {
        self.swim.handle_known(now, known);
        self.collect_swim();
    }

    /// What the map held of every origin's life when it was loaded. To be called first, if at all;
    /// ignored if the copy is too old to be believed.
    pub fn handle_restored(&mut self, now: Now, heads: &Heads) {
        if !self.reconcile.must_discard() {
            self.spread.restore_heads(now, heads);
        }
    }

    /// A datagram came. Whatever is wrong with it is counted, and it is ignored.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &[u8],
        replica: &mut dyn Replica,
    ) {
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += (datagram.len() + DATAGRAM_HEADER_BYTES) as u64;
        match self.wire.open(datagram) {
            Ok((boot, body, heads)) => {
                match body {
                    Body::Members(message, updates) => {
                        self.swim.handle_message(now, from, boot, message, updates);
                    }
                    Body::Spread(message) => match Opened::read(&message) {
                        Ok(opened) => {
                            let ring = self.swim.ring().clone();
                            let from = PeerLife { address: from, boot };
                            self.spread.handle_spread(now, from, opened, &ring, replica);
                        }
                        // Nor is what rides beside it believed.
                        Err(_) => {
                            self.count(WireError::Corrupt);
                            return self.collect(now, replica);
                        }
                    },
                    Body::Compare(compare) => self.reconcile.handle_compare(now, from, &compare, replica),
                    Body::Unknown => {}
                }
                self.spread.handle_heads(now, from, &heads);
            }
            Err(error) => self.count(error),
        }
        self.collect(now, replica);
    }

    /// Something happened to a stream.
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        event: StreamEvent,
        replica: &mut dyn Replica,
    ) {
        match (self.streams.purpose(stream), event) {
            (None, StreamEvent::Accepted { from }) => {
                if !self.streams.accepted(now, stream, from) {
                    self.effects.push_back(Effect::Close { stream });
                }
            }
            (None, StreamEvent::Received(bytes)) => match self.streams.received(&self.wire, stream, bytes) {
                Ok(None) => {}
                Ok(Some(introduced)) => {
                    let accepted = StreamEvent::Accepted { from: introduced.from };
                    self.route(now, stream, introduced.purpose, accepted, replica);
                    if !introduced.rest.is_empty() {
                        let received = StreamEvent::Received(introduced.rest);
                        self.route(now, stream, introduced.purpose, received, replica);
                    }
                }
                Err(error) => {
                    self.count(error);
                    self.effects.push_back(Effect::Close { stream });
                }
            },
            (None, StreamEvent::Closed) => self.streams.closed(stream),
            (None, StreamEvent::Opened | StreamEvent::Drained) => {}
            (Some(purpose), event) => {
                if event == StreamEvent::Opened {
                    let bytes = self.wire.preamble(purpose);
                    self.effects.push_back(Effect::Write { stream, bytes });
                }
                if event == StreamEvent::Closed {
                    self.streams.closed(stream);
                }
                self.route(now, stream, purpose, event, replica);
            }
        }
        self.collect(now, replica);
    }

    fn route(
        &mut self,
        now: Now,
        stream: StreamId,
        purpose: Purpose,
        event: StreamEvent,
        replica: &mut dyn Replica,
    ) {
        match purpose {
            Purpose::Members => self.swim.handle_stream(now, stream, event),
            Purpose::Reconcile => {
                let heads = || self.spread.heads();
                self.reconcile.handle_stream(now, stream, event, &heads, replica);
            }
            Purpose::Bodies => {
                let ring = self.swim.ring().clone();
                self.spread.handle_stream(now, stream, event, &ring, replica);
            }
        }
    }

    /// Whether a stream brings records in bulk: its bytes may be left in the socket for a while.
    pub fn is_bulk(&self, stream: StreamId) -> bool {
        match self.streams.purpose(stream) {
            Some(Purpose::Reconcile) => true,
            // What peers ask for is read: only bodies that this node asked for are many bytes.
            Some(Purpose::Bodies) => Purpose::of_connected(stream).is_some(),
            Some(Purpose::Members) | None => false,
        }
    }

    /// `poll_timeout` is due.
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
            self.effects.push_back(Effect::Close { stream });
        }
        self.collect(now, replica);
    }

    /// How many bytes of this node's records it takes now; 0: the links are full.
    pub fn room_bytes(&self) -> usize {
        self.spread.room_bytes()
    }

    /// Whether this node's own records are with others, or were given up.
    pub fn is_drained(&self) -> bool {
        self.spread.is_drained()
    }

    /// This node's own accepted records, in ascending order of `seq`. One that is missing in between
    /// was superseded while it waited.
    pub fn handle_published(&mut self, now: Now, records: &[SharedRecord]) {
        let ring = self.swim.ring().clone();
        self.spread.handle_published(now, records, &ring);
        self.collect_spread();
    }

    /// Records this node took from clients whose answers wait until every live member holds them:
    /// [`Effect::Replicated`] tells. To be called before [`Machine::handle_published`] is with the same
    /// records.
    pub fn handle_awaited(&mut self, now: Now, awaited: Vec<Awaited>) {
        let ring = self.swim.ring().clone();
        self.spread.handle_awaited(now, awaited, &ring);
        self.collect_spread();
    }

    /// This node goes: the cluster is told. See [`Machine::is_left`].
    pub fn handle_leave(&mut self, now: Now) {
        self.swim.handle_leave(now);
        self.collect_swim();
    }

    /// Whether the cluster knows that this node goes, or could not be told.
    pub fn is_left(&self) -> bool {
        self.swim.is_left()
    }

    /// What is to be done, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if let Some(Effect::Write { bytes, .. }) = &effect {
            self.stats.stream_bytes_sent += bytes.len() as u64;
        }
        effect
    }

    /// When `handle_timeout` wants to be called at the latest, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let rooms = [self.spread.poll_timeout(), self.reconcile.poll_timeout()];
        let due_us = self.swim.poll_timeout().min(self.streams.due_us());
        let due_us = rooms.into_iter().flatten().fold(due_us, u64::min);
        (due_us < u64::MAX).then_some(due_us)
    }

    /// Reads what is known of a peer and does nothing with it: a driver of thousands of machines does so a little
    /// before it hands a datagram over, so that the memory is there by then.
    pub fn warm_link(&self, peer: SocketAddr) -> u64 {
        self.spread.warm_link(peer)
    }

    /// All members, this node included, by name.
    pub fn members(&self) -> Vec<MemberInfo> {
        self.swim.members()
    }

    /// The member of this name, as this node sees it.
    pub fn member(&self, name: &str) -> Option<MemberInfo> {
        self.swim.member(name)
    }

    /// What this node says of itself.
    pub fn identity(&self) -> &Arc<Identity> {
        self.swim.identity()
    }

    /// The live members.
    pub fn ring(&self) -> &Arc<Ring> {
        self.swim.ring()
    }

    /// Up to which sequence number, without a hole, records are held. Of this node's own life it is
    /// what it was handed ([`Machine::handle_published`]).
    pub fn heads(&self) -> Heads {
        self.spread.heads()
    }

    /// Grows whenever [`Machine::heads`] changes.
    pub fn heads_version(&self) -> u64 {
        self.spread.heads_version()
    }

    /// Whether it holds what the cluster holds: the first reconciliation is done, or it has nobody to
    /// reconcile with by its own choice.
    pub fn is_reconciled(&self) -> bool {
        self.reconcile.is_reconciled() || self.swim.is_alone_by_choice()
    }

    /// This node's wall clock less the median of its peers'; `None` with fewer than three of them.
    pub fn clock_offset_us(&self) -> Option<i64> {
        self.swim.clock_offset_us()
    }

    /// This node's wall clock when it was last fully equal with a peer.
    pub fn agreed_us(&self) -> Option<u64> {
        self.reconcile.agreed_us()
    }

    /// Since when, on this node's wall clock, the longest dead of the members that are not
    /// forgotten is so. Meanwhile tombstones are kept.
    pub fn unreachable_since_us(&self) -> Option<u64> {
        self.swim.unreachable_since_us()
    }

    /// Counts since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Shows how full every queue is that has a bound. Cheap: a few dozen comparisons.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        self.swim.visit_gauges(visit);
        self.spread.visit_gauges(visit);
        self.reconcile.visit_gauges(visit);
        self.streams.visit_gauges(visit);
    }

    /// Counts of spreading since the start.
    pub fn spread_stats(&self) -> &SpreadStats {
        self.spread.stats()
    }

    /// Counts of reconciliation since the start.
    pub fn reconcile_stats(&self) -> &ReconcileStats {
        self.reconcile.stats()
    }

    fn count(&mut self, error: WireError) {
        match error {
            WireError::Foreign => self.stats.foreign += 1,
            WireError::Corrupt => self.stats.corrupt += 1,
        }
    }

    /// What the rooms want done, as effects; membership first.
    fn collect(&mut self, now: Now, replica: &mut dyn Replica) {
        self.collect_swim();
        self.spread.handle_ring(now, self.swim.ring());
        self.collect_reconcile(now, replica);
        self.collect_spread();
    }

    fn collect_swim(&mut self) {
        while let Some(output) = self.swim.poll_output() {
            let effect = match output {
                Output::Datagram { to, message, updates } => {
                    let is_probe = matches!(message, Message::Ping(_) | Message::Ack(_));
                    let heads = match is_probe {
                        true => self.spread.heads_digest(HEADS_BYTES_MAX),
                        false => Vec::new(),
                    };
                    self.send(to, self.wire.datagram(Said::Members(message, updates), &heads));
                    continue;
                }
                Output::Connect { stream, to } => Effect::Connect { stream, to },
                Output::Write { stream, bytes } => Effect::Write { stream, bytes },
                Output::Close { stream } => self.close(stream),
                Output::NameTaken { by } => Effect::NameTaken { by },
                Output::Measured { member, rtt_us } => {
                    self.spread.handle_rtt(member.gossip(), member.zone(), rtt_us);
                    continue;
                }
            };
            self.effects.push_back(effect);
        }
        if self.swim.take_changed() {
            self.effects.push_back(Effect::MembersChanged);
        }
        self.stats.health_score = self.swim.health_score();
    }

    fn collect_reconcile(&mut self, now: Now, replica: &mut dyn Replica) {
        while let Some(output) = self.reconcile.poll_output() {
            let effect = match output {
                ReconcileOutput::Datagram { to, message } => {
                    self.send(to, self.wire.datagram(Said::Compare(message), &[]));
                    continue;
                }
                ReconcileOutput::Merged(heads) => {
                    self.spread.merge_heads(now, &heads);
                    continue;
                }
                ReconcileOutput::Discard => {
                    self.discard(replica);
                    continue;
                }
                ReconcileOutput::Connect { stream, to } => Effect::Connect { stream, to },
                ReconcileOutput::Write { stream, bytes } => Effect::Write { stream, bytes },
                ReconcileOutput::Close { stream } => self.close(stream),
            };
            self.effects.push_back(effect);
        }
        self.stats.shards_differing = self.reconcile.shards_differing() as u64;
    }

    fn collect_spread(&mut self) {
        while let Some((to, packet)) = self.spread.poll_send() {
            let heads = self.spread.heads_beside(&packet);
            self.send(to, self.wire.spread_datagram(&packet, &heads));
            self.spread.take_back(packet);
        }
        while let Some(output) = self.spread.poll_stream() {
            let effect = match output {
                StreamOutput::Connect { stream, to } => Effect::Connect { stream, to },
                StreamOutput::Write { stream, bytes } => Effect::Write { stream, bytes },
                StreamOutput::Close { stream } => self.close(stream),
            };
            self.effects.push_back(effect);
        }
        while let Some(replicated) = self.spread.poll_replicated() {
            self.effects.push_back(Effect::Replicated(replicated));
        }
        self.stats.data_copies_received = self.spread.stats().data_copies_received;
    }

    /// This node was away for longer than deletions are kept: what it held may have been deleted
    /// meanwhile, and is read from the others again. What itself accepted since it last agreed with
    /// them is kept: nobody else may have it.
    fn discard(&mut self, replica: &mut dyn Replica) {
        let mut old = Vec::new();
        for shard in 0..SHARDS {
            replica.visit_shard(shard, &mut |record| {
                let is_own = record.birth.origin == self.name;
                if !is_own || record.accepted_us <= self.agreed_at_start_us {
                    old.push(record.clone());
                }
            });
            old.drain(..).for_each(|record| replica.discard(&record));
        }
        // Some of it came in this life: heads that cover it would claim what is gone.
        self.spread.forget_held();
    }

    fn close(&mut self, stream: StreamId) -> Effect {
        self.streams.closed(stream);
        Effect::Close { stream }
    }

    fn send(&mut self, to: SocketAddr, bytes: Bytes) {
        debug_assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", bytes.len());
        self.stats.datagrams_sent += 1;
        self.stats.bytes_sent += (bytes.len() + DATAGRAM_HEADER_BYTES) as u64;
        self.effects.push_back(Effect::Datagram { to, bytes });
    }
}
