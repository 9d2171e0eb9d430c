//! Worker 0's other half: it drives the cluster machine.
//!
//! The machine is pure; here its inputs come from the UDP socket, the streams, the resolver of join
//! names and the outbox, and its effects go to the sockets. Datagrams come first in every turn, since
//! they carry the probes: a turn that ends for want of time has still answered them. A turn is at most
//! [`TURN_US_MAX`], so that clients' connections on this worker are served in between.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Registry, Token};

use super::clock;
use super::datagram::DatagramSocket;
use super::shared::{Fatal, Shared};
use super::stream::Streams;
use crate::cluster::members::State;
use crate::cluster::stats::MachineStats;
use crate::cluster::{Effect, Machine, MachineConfig};
use crate::limits::CLOCK_SKEW_US_MAX;
use crate::record::{Now, SharedRecord};

/// Longest turn, in microseconds: a probe's answer never waits longer for the loop's other work than
/// that takes.
const TURN_US_MAX: u64 = 1_000;
/// Of which receiving may take.
const RECEIVE_US_MAX: u64 = 600;
/// A timer that is overdue by this much says that the node stood still: what arrived meanwhile must
/// not count as missing.
const STOOD_US: u64 = 20_000;
/// What receiving may take then: a full socket buffer's worth.
const RECEIVE_AFTER_STANDING_US_MAX: u64 = 50_000;
/// Pieces read from streams in one turn.
const PIECES_PER_TURN: usize = 8;
/// Heads are copied for readers at most so often, per origin: a copy costs about a hundredth of that.
const HEADS_US_PER_ORIGIN: u64 = 20;
/// Gauges are brought up to date so often.
const GAUGES_US: u64 = 100_000;
/// Readers see members' round trips as old as this; a change of state they see at once.
const MEMBERS_US: u64 = 1_000_000;
/// A node with join targets none of which answered is complete by itself after so long.
const ALONE_US: u64 = 10_000_000;

/// Token of the UDP socket.
pub const DATAGRAMS: Token = Token(1);
/// Token of the listener for streams.
pub const STREAMS: Token = Token(2);

/// The sockets of the cluster, bound.
pub struct Sockets {
    /// Datagrams.
    pub udp: UdpSocket,
    /// Streams.
    pub tcp: TcpListener,
}

/// The machine and its sockets.
pub struct Gossip {
    machine: Machine,
    datagrams: DatagramSocket,
    streams: Streams,
    seeds: Receiver<Vec<SocketAddr>>,
    started_us: u64,
    records: Vec<SharedRecord>,
    heads_version: u64,
    heads_due_us: u64,
    gauges_us: u64,
    members_due_us: u64,
    counted: MachineStats,
    dropped: u64,
}

impl Gossip {
    /// Registers the sockets and starts a machine.
    pub fn new(
        registry: &Registry,
        sockets: Sockets,
        seeds: Receiver<Vec<SocketAddr>>,
        config: MachineConfig,
        now: Now,
    ) -> std::io::Result<Gossip> {
        let Sockets { udp, mut tcp } = sockets;
        let datagrams = DatagramSocket::new(udp, registry.try_clone()?, DATAGRAMS)?;
        registry.register(&mut tcp, STREAMS, Interest::READABLE)?;
        let mut streams = Streams::new(registry.try_clone()?, tcp);
        // Peers may have connected before the listener was registered.
        streams.handle_acceptable();
        Ok(Gossip {
            machine: Machine::new(config, now),
            datagrams,
            streams,
            seeds,
            started_us: now.mono_us,
            records: Vec::new(),
            heads_version: 0,
            heads_due_us: 0,
            gauges_us: 0,
            members_due_us: 0,
            counted: MachineStats::default(),
            dropped: 0,
        })
    }

    /// Takes over what the node held when its store was loaded.
    pub fn restore(&mut self, now: Now, shared: &Shared) {
        self.machine.handle_restored(now, &shared.heads());
        shared.set_heads(self.machine.heads());
    }

    /// What the poll says. `false`: the event is not the cluster's.
    pub fn handle_event(&mut self, event: &Event) -> bool {
        match event.token() {
            DATAGRAMS => self.datagrams.set_ready(event.is_readable(), event.is_writable()),
            STREAMS => self.streams.handle_acceptable(),
            token => {
                let Some(stream) = Streams::of_token(token) else { return false };
                let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
                self.streams.handle_ready(stream, is_readable, event.is_writable() || event.is_error());
            }
        }
        true
    }

    /// One turn. Whether there is more to do at once.
    pub fn turn(&mut self, now: Now, shared: &Shared) -> bool {
        let mut replica = &shared.ingest;
        while let Ok(seeds) = self.seeds.try_recv() {
            self.machine.handle_seeds(now, &seeds);
        }
        let mut at = now;
        let overdue_us = self.machine.poll_timeout().map_or(0, |due_us| now.mono_us.saturating_sub(due_us));
        let mut receive_us_max = RECEIVE_US_MAX;
        if overdue_us > STOOD_US {
            // The poll may have looked before.
            self.datagrams.set_ready(true, false);
            receive_us_max = RECEIVE_AFTER_STANDING_US_MAX;
        }
        while self.datagrams.is_readable() && at.mono_us < now.mono_us + receive_us_max {
            let machine = &mut self.machine;
            self.datagrams
                .receive(|from, datagram| machine.handle_datagram(at, from, datagram, &mut replica));
            self.perform(shared);
            at = clock::now();
        }
        if self.machine.poll_timeout().is_some_and(|due_us| due_us <= at.mono_us) {
            self.machine.handle_timeout(at, &mut replica);
            self.perform(shared);
        }
        self.send_published(at, shared);
        let mut may_read_bulk = !shared.is_store_lagging();
        if may_read_bulk {
            self.streams.release();
        }
        for _ in 0..PIECES_PER_TURN {
            let may_read = |stream| may_read_bulk || !self.machine.is_bulk(stream);
            let Some((stream, event)) = self.streams.poll_event(may_read) else { break };
            self.machine.handle_stream(at, stream, event, &mut replica);
            self.perform(shared);
            at = clock::now();
            may_read_bulk = !shared.is_store_lagging();
            if at.mono_us > now.mono_us + TURN_US_MAX {
                break;
            }
        }
        self.perform(shared);
        self.datagrams.flush();
        self.publish_state(at, shared);
        self.has_work(shared)
    }

    fn has_work(&self, shared: &Shared) -> bool {
        let may_send = self.machine.room_bytes() > 0 && shared.ingest.outbox_bytes() > 0;
        may_send || self.datagrams.is_readable() || self.streams.has_work()
    }

    /// When the machine wants to be called without anything happening.
    pub fn next_us(&self) -> Option<u64> {
        // Gauges, and whether the node is alone, are looked at in any case.
        let mut own_us = self.gauges_us + 10 * GAUGES_US;
        if self.machine.heads_version() != self.heads_version {
            own_us = own_us.min(self.heads_due_us);
        }
        Some(self.machine.poll_timeout().map_or(own_us, |due_us| due_us.min(own_us)))
    }

    /// Whether the records taken from the outbox are with others, or were given up.
    pub fn is_drained(&self) -> bool {
        self.machine.is_drained()
    }

    /// Tells the cluster that this node goes.
    pub fn leave(&mut self, now: Now, shared: &Shared) {
        self.machine.handle_leave(now);
        self.perform(shared);
        self.datagrams.flush();
    }

    /// Whether the cluster was told.
    pub fn is_left(&self) -> bool {
        self.machine.is_left()
    }

    /// This node's own records, as many as the links take.
    fn send_published(&mut self, now: Now, shared: &Shared) {
        loop {
            let room_bytes = self.machine.room_bytes();
            // In one step: who waits for a record must be known before it is handed over.
            let awaited = {
                let mut outbox = shared.ingest.outbox().lock();
                if room_bytes > 0 {
                    outbox.take(room_bytes, &mut self.records);
                }
                outbox.take_awaited()
            };
            if !awaited.is_empty() {
                self.machine.handle_awaited(now, awaited);
            }
            if self.records.is_empty() {
                break;
            }
            self.machine.handle_published(now, &self.records);
            self.records.clear();
            self.perform(shared);
            // Also where nothing fills up, since there is nobody to send to: what is left here is cold when
            // its turn comes, and costs more than all that was done with it before.
            if clock::now().mono_us > now.mono_us + TURN_US_MAX {
                break;
            }
        }
        shared.handle_room();
    }

    /// Does what the machine wants done.
    fn perform(&mut self, shared: &Shared) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Datagram { to, bytes } => self.datagrams.push(to, bytes),
                Effect::Stream(output) => self.streams.perform(output),
                Effect::MembersChanged => self.publish_members(shared),
                Effect::Replicated(replicated) => shared.handle_replicated(replicated),
                Effect::NameTaken { by } => {
                    shared.fail(Fatal::NameTaken { name: shared.name.to_string(), by });
                }
            }
        }
    }

    fn publish_members(&self, shared: &Shared) {
        let members = self.machine.members();
        let count = |state| members.iter().filter(|member| member.state == state).count() as i64;
        let gauges = &shared.metrics.members;
        gauges.alive.set(count(State::Alive));
        gauges.suspect.set(count(State::Suspect));
        gauges.dead.set(count(State::Dead));
        gauges.left.set(count(State::Left));
        shared.set_members(members);
    }

    /// Snapshots for readers.
    fn publish_state(&mut self, now: Now, shared: &Shared) {
        if now.mono_us >= self.heads_due_us && self.machine.heads_version() != self.heads_version {
            let heads = self.machine.heads();
            self.heads_version = self.machine.heads_version();
            self.heads_due_us = now.mono_us + HEADS_US_PER_ORIGIN * heads.len() as u64;
            shared.set_heads(heads);
        }
        if now.mono_us < self.gauges_us + GAUGES_US {
            return;
        }
        self.gauges_us = now.mono_us;
        if now.mono_us >= self.members_due_us {
            self.members_due_us = now.mono_us + MEMBERS_US;
            self.publish_members(shared);
        }
        self.publish_health(now, shared);
        self.publish_stats(shared);
    }

    fn publish_health(&self, now: Now, shared: &Shared) {
        let offset_us = self.machine.clock_offset_us();
        let is_skewed = offset_us.is_some_and(|offset_us| offset_us.unsigned_abs() > CLOCK_SKEW_US_MAX);
        shared.metrics.clock_offset_us.set(offset_us.unwrap_or(0));
        shared.cluster.is_skewed.store(is_skewed, Relaxed);
        shared.ingest.set_skewed(is_skewed);
        if let Some(agreed_us) = self.machine.agreed_us() {
            shared.store().set_agreed(agreed_us);
        }
        shared.cluster.is_unreachable.store(self.machine.unreachable_since_us().is_some(), Relaxed);
        if !shared.cluster.is_joined.load(Relaxed) {
            let is_alone = shared.members().iter().filter(|member| member.state.is_live()).count() <= 1;
            let gave_up = is_alone && now.mono_us >= self.started_us + ALONE_US;
            shared.cluster.is_joined.store(gave_up || self.machine.is_reconciled(), Relaxed);
        }
    }
}

impl Gossip {
    /// Counters are added to by what the machine counted since the last time.
    fn publish_stats(&mut self, shared: &Shared) {
        let (stats, last, metrics) = (self.machine.stats(), &self.counted, &shared.metrics);
        metrics.gossip_datagrams_sent.add(stats.datagrams_sent - last.datagrams_sent);
        metrics.gossip_datagrams_received.add(stats.datagrams_received - last.datagrams_received);
        metrics.gossip_bytes_sent.add(stats.bytes_sent - last.bytes_sent);
        metrics.gossip_bytes_received.add(stats.bytes_received - last.bytes_received);
        let ignored = stats.foreign + stats.corrupt - last.foreign - last.corrupt;
        metrics.gossip_datagrams_ignored.add(ignored);
        metrics.data_copies_received.add(stats.data_copies_received - last.data_copies_received);
        metrics.shards_differing.set(stats.shards_differing as i64);
        self.counted = *stats;
        let dropped = self.datagrams.dropped();
        if dropped > self.dropped {
            tracing::warn!(
                datagrams = dropped - self.dropped,
                "the network takes less than there is to send"
            );
            self.dropped = dropped;
        }
    }
}
