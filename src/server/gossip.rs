//! The second task of worker 0: it drives the cluster machine.
//!
//! The machine does no input or output by itself. Here it is given its inputs, from the UDP socket, the
//! streams, the resolver of join targets and the outbox, and its effects are carried out on the sockets.
//! Datagrams come first in every turn, since they carry the probes: a turn that ends for lack of time has
//! still answered them. A turn is at most [`GOSSIP_TURN_US_MAX`], so that clients' connections on this worker
//! are served in between.

use std::net::SocketAddr;

use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Registry};

use super::clock;
use super::datagram::DatagramSocket;
use super::forgetting;
use super::key_file::KeyReports;
use super::lifecycle::Fatal;
use super::merging::MergeSharing;
use super::reach::ReachReports;
use super::shared::Shared;
use super::story::MemberStory;
use super::stream::PeerStreams;
use super::tokens::{self, EventSource};
use crate::cluster::members::State;
use crate::cluster::stats::MachineStats;
use crate::cluster::{Effect, Machine, MachineConfig, StreamEvent};
use crate::metrics::BoundedQueue;
use crate::record::{Now, SharedRecord};

/// Longest turn, in microseconds. After this time no more is read from streams or taken from the outbox, so
/// that a probe does not wait longer for its answer.
const GOSSIP_TURN_US_MAX: u64 = 1_000;
/// Longest part of a turn that receiving datagrams may take, in microseconds.
const RECEIVE_US_MAX: u64 = 600;
/// If a timer is overdue by more than this number of microseconds, the node stood still. The datagrams that
/// arrived meanwhile are then received first, so that they do not count as missing.
const STOOD_US: u64 = 20_000;
/// Longest part of a turn that receiving may take after the node stood still, in microseconds: enough for
/// a full socket buffer.
const RECEIVE_AFTER_STANDING_US_MAX: u64 = 50_000;
/// Number of pieces that are read from streams in one turn.
const PIECES_PER_TURN: usize = 8;
/// Least time between two copies of the heads for readers, in microseconds for each origin: a copy takes
/// about a hundredth of that.
const HEADS_US_PER_ORIGIN: u64 = 20;
/// Least time between two copies of the member list for readers, in microseconds for each member: a copy takes less
/// than a tenth of that. One change alone is shown at once.
const MEMBERS_US_PER_MEMBER: u64 = 20;
/// Shortest interval between two updates of the gauges, in microseconds.
const GAUGES_US: u64 = 100_000;
/// Interval at which readers are shown new round-trip times of the members, in microseconds. A change of a
/// member's state is shown at once.
const MEMBERS_US: u64 = 1_000_000;
/// Time after which a node counts as complete by itself if none of its join targets has answered, in
/// microseconds.
const ALONE_US: u64 = 10_000_000;

/// The sockets of the cluster, bound to its port.
pub struct Sockets {
    /// The socket for datagrams.
    pub udp: UdpSocket,
    /// The listener for streams of peers.
    pub tcp: TcpListener,
}

/// The cluster machine and its sockets.
pub struct Gossip {
    machine: Machine,
    datagrams: DatagramSocket,
    streams: PeerStreams,
    sharing: MergeSharing,
    seeds: Receiver<Vec<SocketAddr>>,
    started_us: u64,
    /// Records on their way from the outbox to the machine; empty between calls.
    records: Vec<SharedRecord>,
    /// The machine's version of the heads that readers were shown last.
    heads_version: u64,
    /// Monotonic time from which readers may be shown newer heads, in microseconds.
    heads_due_us: u64,
    /// Monotonic time of the last update of the gauges, in microseconds.
    gauges_us: u64,
    /// Monotonic time at which readers are to be shown new round-trip times, in microseconds.
    members_due_us: u64,
    /// Whether the members have changed since readers were shown them.
    have_members_changed: bool,
    /// Monotonic time from which readers may be shown changed members, in microseconds.
    members_free_us: u64,
    /// What is logged of members that come and go.
    story: MemberStory,
    /// Warnings about members that cannot be reached.
    reach: ReachReports,
    /// Version of the keys that the machine has.
    keys_version: u64,
    /// Warnings about nodes that have no key in common with this one.
    key_reports: KeyReports,
    /// The machine's counters when they were added to the metrics last.
    counted: MachineStats,
    /// Number of dropped datagrams that were reported last.
    dropped: u64,
    /// Number of this node's own records that were handed to the machine while there were other members.
    moved: u64,
}

impl Gossip {
    /// Registers the sockets and starts the machine of a node with this number of workers. `registries` are those of the
    /// event loop, made before clients could use up the files that this process may open.
    pub fn new(
        registries: [Registry; 2],
        sockets: Sockets,
        seeds: Receiver<Vec<SocketAddr>>,
        config: MachineConfig,
        workers: usize,
        now: Now,
    ) -> std::io::Result<Gossip> {
        let Sockets { udp, mut tcp } = sockets;
        let [of_datagrams, of_streams] = registries;
        let datagrams = DatagramSocket::new(udp, of_datagrams, tokens::DATAGRAMS)?;
        of_streams.register(&mut tcp, tokens::PEERS, Interest::READABLE)?;
        let streams = PeerStreams::new(of_streams, tcp);
        Ok(Gossip {
            machine: Machine::new(config, now),
            datagrams,
            streams,
            sharing: MergeSharing::new(workers),
            seeds,
            started_us: now.mono_us,
            records: Vec::new(),
            heads_version: 0,
            heads_due_us: 0,
            gauges_us: 0,
            members_due_us: 0,
            have_members_changed: false,
            members_free_us: 0,
            story: MemberStory::default(),
            reach: ReachReports::default(),
            keys_version: 0,
            key_reports: KeyReports::default(),
            counted: MachineStats::default(),
            dropped: 0,
            moved: 0,
        })
    }

    /// Tells the machine the heads of the records that the store was loaded with, and shows readers the
    /// machine's heads.
    pub fn restore(&mut self, now: Now, shared: &Shared) {
        self.machine.handle_restored(now, &shared.heads());
        shared.cluster.set_heads(self.machine.heads());
    }

    /// Handles an event of the poll for one of the cluster's sockets. Events of other sockets are ignored.
    pub fn handle_event(&mut self, source: EventSource, event: &Event) {
        match source {
            EventSource::Datagrams => self.datagrams.set_ready(event.is_readable(), event.is_writable()),
            EventSource::Peers => self.streams.set_acceptable(),
            EventSource::Stream(stream) => {
                let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
                self.streams.handle_ready(stream, is_readable, event.is_writable() || event.is_error());
            }
            EventSource::Waker
            | EventSource::Clients
            | EventSource::Watchers
            | EventSource::Connection(_) => {}
        }
    }

    /// Takes one turn. Returns whether there is more to do at once.
    pub fn turn(&mut self, now: Now, shared: &Shared) -> bool {
        while let Ok(seeds) = self.seeds.try_recv() {
            self.machine.handle_seeds(now, &seeds);
        }
        self.streams.sweep(now.mono_us);
        if let Err(error) = self.streams.accept(now.mono_us) {
            shared.handle_accept_failure(now.mono_us, &error);
        }
        let mut at = now;
        self.take_applied(now, shared);
        let overdue_us = self.machine.poll_timeout().map_or(0, |due_us| now.mono_us.saturating_sub(due_us));
        let mut receive_us_max = RECEIVE_US_MAX;
        if overdue_us > STOOD_US {
            // Datagrams may have come since the poll looked.
            self.datagrams.set_ready(true, false);
            receive_us_max = RECEIVE_AFTER_STANDING_US_MAX;
        }
        while self.datagrams.is_readable() && at.mono_us < now.mono_us + receive_us_max {
            let (machine, mut replica) = (&mut self.machine, self.sharing.replica(shared));
            self.datagrams
                .receive(|from, datagram| machine.handle_datagram(at, from, datagram, &mut replica));
            self.perform(at.mono_us, shared);
            at = clock::now();
        }
        if self.machine.poll_timeout().is_some_and(|due_us| due_us <= at.mono_us) {
            self.machine.handle_timeout(at, &mut self.sharing.replica(shared));
            self.perform(at.mono_us, shared);
        }
        self.send_published(at, shared);
        let mut may_read_bulk = !shared.is_store_lagging();
        if may_read_bulk {
            self.streams.release();
        }
        let mut pieces = 0;
        while pieces < PIECES_PER_TURN {
            let may_read = |stream| may_read_bulk || !self.machine.is_bulk(stream);
            let Some((stream, event)) = self.streams.poll_event(may_read) else { break };
            pieces += usize::from(matches!(event, StreamEvent::Received(_)));
            self.machine.handle_stream(at, stream, event, &mut self.sharing.replica(shared));
            self.perform(at.mono_us, shared);
            at = clock::now();
            may_read_bulk = !shared.is_store_lagging();
            if at.mono_us > now.mono_us + GOSSIP_TURN_US_MAX {
                break;
            }
        }
        self.perform(at.mono_us, shared);
        self.datagrams.flush();
        self.sharing.end_turn(&shared.metrics);
        self.publish_state(at, shared);
        self.has_work(at.mono_us, shared)
    }

    /// Hands the cluster what clients of this worker have just published. Returns whether there is more to do at once.
    pub fn pass_on(&mut self, shared: &Shared) -> bool {
        let now = clock::now();
        self.send_published(now, shared);
        self.datagrams.flush();
        self.publish_state(now, shared);
        self.has_work(now.mono_us, shared)
    }

    /// Number of records that have come from peers and gone to them since the start.
    pub fn records_moved(&self) -> u64 {
        self.moved + self.machine.spread_stats().data_copies_received
    }

    fn has_work(&self, now_us: u64, shared: &Shared) -> bool {
        let may_send = self.machine.room_bytes() > 0 && shared.ingest.outbox_bytes() > 0;
        may_send || self.datagrams.is_readable() || self.streams.has_work(now_us)
    }

    /// Monotonic time at which [`Gossip::turn`] is to be called even if nothing has happened, in
    /// microseconds.
    pub fn next_us(&self, now_us: u64) -> u64 {
        // Gauges, and whether the node is alone, are updated at intervals in any case.
        let mut own_us = self.gauges_us + 10 * GAUGES_US;
        if let Some(resumes_us) = self.streams.resumes_us(now_us) {
            own_us = own_us.min(resumes_us);
        }
        if self.machine.heads_version() != self.heads_version {
            own_us = own_us.min(self.heads_due_us);
        }
        if self.have_members_changed {
            own_us = own_us.min(self.members_free_us);
        }
        self.machine.poll_timeout().map_or(own_us, |due_us| due_us.min(own_us))
    }

    /// Returns whether the records that were taken from the outbox have reached other nodes, or were given
    /// up.
    pub fn is_drained(&self) -> bool {
        self.machine.is_drained()
    }

    /// Tells the cluster that this node leaves.
    pub fn leave(&mut self, now: Now, shared: &Shared) {
        self.machine.handle_leave(now);
        self.perform(now.mono_us, shared);
        self.datagrams.flush();
    }

    /// Returns whether the cluster was told that this node leaves.
    pub fn is_left(&self) -> bool {
        self.machine.is_left()
    }

    /// Hands the machine records that were published at this node, as many as its links have room for.
    fn send_published(&mut self, now: Now, shared: &Shared) {
        loop {
            let room_bytes = self.machine.room_bytes();
            // Under one lock: it must be known who waits for a record before the record is handed over.
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
            self.perform(now.mono_us, shared);
            if self.machine.ring().len() > 1 {
                self.moved += self.records.len() as u64;
                if let Some(traces) = shared.traces() {
                    traces.handle_passed_on(&self.records);
                }
            }
            self.records.clear();
            // A bound in time is needed too, since no link fills up where there is no peer. It is generous: a
            // record that is left for a later turn has dropped out of the processor's caches by then, and
            // costs more than all that was done with it before.
            if clock::mono_us() > now.mono_us + GOSSIP_TURN_US_MAX {
                break;
            }
        }
        shared.handle_room();
    }

    /// Tells the machine which batches other workers have merged.
    fn take_applied(&mut self, now: Now, shared: &Shared) {
        let applied = self.sharing.take_applied(&shared.merging);
        if !applied.is_empty() {
            // No record comes in this call: the map is only read.
            self.machine.handle_applied(now, applied, &mut &shared.ingest);
            self.perform(now.mono_us, shared);
        }
    }

    /// Carries out the effects that the machine asks for, and hands batches over that it has taken.
    fn perform(&mut self, now_us: u64, shared: &Shared) {
        self.sharing.flush(&shared.merging, shared.mailboxes());
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Datagram { to, bytes } => self.datagrams.push(to, bytes),
                Effect::Stream(output) => self.streams.perform(now_us, output),
                Effect::MembersChanged => self.have_members_changed = true,
                Effect::Replicated(replicated) => shared.handle_replicated(now_us, replicated),
                Effect::NewBoot { boot } => {
                    shared.store().set_boot(boot);
                    shared.metrics.boots_taken.add(1);
                    tracing::warn!(
                        boot,
                        "a member held an incarnation of this node that is beyond reason: the node goes on under \
                         a new boot number"
                    );
                }
                Effect::NameTaken { by } => {
                    shared.lifecycle.fail(Fatal::NameTaken { name: shared.name.to_string(), by });
                }
            }
        }
    }

    fn publish_members(&mut self, now: Now, shared: &Shared) {
        let members = self.machine.members();
        self.have_members_changed = false;
        self.members_free_us = now.mono_us + MEMBERS_US_PER_MEMBER * members.len() as u64;
        let count = |state| members.iter().filter(|member| member.state == state).count() as i64;
        let gauges = &shared.metrics.members;
        gauges.alive.set(count(State::Alive));
        gauges.joining.set(count(State::Joining));
        gauges.suspect.set(count(State::Suspect));
        gauges.dead.set(count(State::Dead));
        gauges.left.set(count(State::Left));
        self.story.look(now.mono_us, &members, &shared.name);
        let reached = self.streams.reached(&members);
        shared.cluster.set_members(members);
        shared.cluster.set_reached(reached);
    }

    /// Shows readers on other threads what the machine knows.
    fn publish_state(&mut self, now: Now, shared: &Shared) {
        if now.mono_us >= self.heads_due_us && self.machine.heads_version() != self.heads_version {
            let heads = self.machine.heads();
            self.heads_version = self.machine.heads_version();
            self.heads_due_us = now.mono_us + HEADS_US_PER_ORIGIN * heads.len() as u64;
            shared.cluster.set_heads(heads);
        }
        if self.have_members_changed && now.mono_us >= self.members_free_us {
            self.publish_members(now, shared);
        }
        // Publishers wait for it, so it is not put off.
        if !shared.cluster.is_clock_compared() {
            self.publish_clock(now, shared);
        }
        if now.mono_us < self.gauges_us + GAUGES_US {
            return;
        }
        self.gauges_us = now.mono_us;
        if now.mono_us >= self.members_due_us {
            self.members_due_us = now.mono_us + MEMBERS_US;
            self.publish_members(now, shared);
            let members = shared.cluster.members();
            self.reach.look(now.mono_us, &members, shared.name.as_str(), shared.config.gossip.ip());
        }
        self.forget_members(now, shared);
        self.take_keys(now, shared);
        self.publish_health(now, shared);
        self.publish_stats(shared);
    }

    /// Forgets the members that an operator has declared gone.
    fn forget_members(&mut self, now: Now, shared: &Shared) {
        let forgotten = forgetting::due(shared, now);
        if forgotten.is_empty() {
            return;
        }
        forgotten.iter().for_each(|name| self.machine.handle_forget(name));
        self.perform(now.mono_us, shared);
        self.publish_members(now, shared);
    }

    /// Gives the machine the keys of the file if they have changed, and reports nodes that have none in common.
    fn take_keys(&mut self, now: Now, shared: &Shared) {
        let key_file = shared.key_file.as_ref();
        if let Some(file) = key_file.filter(|file| file.version() != self.keys_version) {
            self.keys_version = file.version();
            self.machine.handle_keys(now, &file.keyring(), &mut &shared.ingest);
            self.perform(now.mono_us, shared);
            self.have_members_changed = true;
        }
        if let Some(mismatch) = self.machine.take_key_mismatch() {
            self.key_reports.report(now.mono_us, mismatch, key_file);
        }
    }

    fn publish_health(&self, now: Now, shared: &Shared) {
        self.publish_clock(now, shared);
        if let Some(agreed_us) = self.machine.agreed_us() {
            shared.store().set_agreed(agreed_us);
        }
        if !shared.config.join.is_empty() {
            shared.cluster.set_seeds(self.machine.seeds());
        }
        shared.cluster.set_unreachable(self.machine.unreachable_since_us().is_some());
        if !shared.cluster.is_joined() {
            let has_joined = self.has_given_up(now) || self.machine.is_reconciled();
            shared.cluster.set_joined(has_joined);
        }
    }

    /// Shows readers how far this node's clock is off, and whether it can be trusted. The verdict is shown before
    /// publishes are taken for the first time.
    fn publish_clock(&self, now: Now, shared: &Shared) {
        let clock = self.machine.clock();
        shared.metrics.clock_offset_us.set(clock.offset_us.unwrap_or(0));
        shared.cluster.set_skewed(clock.is_skewed);
        shared.ingest.set_skewed(clock.is_skewed);
        if shared.cluster.is_clock_compared() {
            return;
        }
        // Where further members never answer, waiting for longer decides nothing.
        let is_over = now.mono_us >= self.started_us + ALONE_US && clock.offset_us.is_some();
        if clock.is_compared || is_over || self.has_given_up(now) {
            shared.cluster.set_clock_compared();
            shared.ingest.set_clock_compared(true);
        }
    }

    /// Returns whether this node is alone because no join target has answered for long enough.
    fn has_given_up(&self, now: Now) -> bool {
        now.mono_us >= self.started_us + ALONE_US && self.machine.ring().len() <= 1
    }
}

impl Gossip {
    /// Adds to the metrics what the machine has counted since the last call.
    fn publish_stats(&mut self, shared: &Shared) {
        let (stats, last, metrics) = (self.machine.stats(), &self.counted, &shared.metrics);
        metrics.gossip_datagrams_sent.add(stats.datagrams_sent - last.datagrams_sent);
        metrics.gossip_datagrams_received.add(stats.datagrams_received - last.datagrams_received);
        metrics.gossip_bytes_sent.add(stats.bytes_sent - last.bytes_sent);
        metrics.gossip_bytes_received.add(stats.bytes_received - last.bytes_received);
        let ignored =
            |stats: &MachineStats| stats.foreign + stats.corrupt + stats.strangers + stats.refused.sum();
        metrics.gossip_datagrams_ignored.add(ignored(stats) - ignored(last));
        let (refused, before) = (&stats.refused, &last.refused);
        metrics.gossip_refused.plain.add(refused.plain - before.plain);
        metrics.gossip_refused.key.add(refused.key - before.key);
        metrics.gossip_refused.replay.add(refused.replay - before.replay);
        metrics.gossip_refused.forged.add(refused.forged - before.forged);
        metrics.data_copies_received.add(stats.data_copies_received - last.data_copies_received);
        metrics.queues.streams.set(self.streams.waiting_bytes() as i64);
        metrics.queues.datagrams.set(self.datagrams.queued_bytes() as i64);
        metrics.gossip_queues.refresh(|queues| {
            self.machine.visit_gauges(&mut |gauge| {
                queues.push(BoundedQueue { name: gauge.name, used: gauge.used, max: gauge.max });
            });
        });
        metrics.shards_differing.set(stats.shards_differing as i64);
        self.counted = *stats;
        let merged = shared.ingest.outbox().lock().merged();
        metrics.merged_before_spread.add(merged - metrics.merged_before_spread.get());
        let dropped = self.datagrams.dropped();
        if dropped > self.dropped {
            tracing::warn!(
                datagrams = dropped - self.dropped,
                "the network takes less than there is to send"
            );
            metrics.gossip_datagrams_dropped.add(dropped - self.dropped);
            self.dropped = dropped;
        }
    }
}
