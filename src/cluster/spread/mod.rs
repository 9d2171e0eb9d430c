//! Spreading brings every record to every node: by a tree cut anew for every batch, hops that are repeated
//! until they are acknowledged, and gaps that are asked for.
//!
//! Think of a parcel and a street map. Whoever holds the parcel answers for a range of the ring of
//! members: it cuts the range into eight parts and hands a copy to one member in each, which does the same
//! with its part. Nobody builds a tree or keeps one in order: it follows from the ring that every node
//! knows anyway, so it costs nothing while nothing is sent, and needs no repair when nodes die.
//! N−1 messages and about log₈ N hops bring a record everywhere.
//!
//! Each of these modules keeps its state to itself:
//!
//! - [`receive`] takes what peers sent: parts into custody, records to the map;
//! - [`custody`] hands parts to members and tries each again until a receipt for it came, or it is given up;
//! - [`pack`] fills datagrams with what waits for one peer;
//! - [`gaps`] asks peers for records that are known to exist and did not come;
//! - [`replication`] finds out when all members hold a record, by counting up the tree;
//! - [`bodies`] pulls batches over TCP that are too large for datagrams;
//! - [`pending`] has the batches that another thread applies ([`received`]), and the parts that wait for that.
//!
//! They share, in [`env`]:
//!
//! - [`lines`]: which records of each life of an origin are held, and which ranges are in custody;
//! - [`links`]: the peers. A [`link`] numbers parts and keeps those that are [`unsettled`], with the times at
//!   which they are due ([`dues`]); it has a round trip ([`rtt`]), a congestion [`window`], the size of the
//!   datagrams that its [`path`] carries, the [`answers`] that the peer is to be given, and knows about the peer's [`silence`] and [`lateness`]; [`assembly`] joins
//!   fragments that come over it;
//! - [`timers`], of which obsolete ones are dropped by [`stale`], and [`stats`].
//!
//! Records travel in a [`batch`], which is encoded by the origin, copied by relays and never changed:
//! [`codec`] encodes and decodes it, [`packet`] and [`wire`] everything around it. [`tree`] cuts a range of
//! the ring (a [`span`]) and chooses the member that serves each part; a [`duty`] is one part with one
//! member, and leaves out some [`places`].
//!
//! Words used here:
//!
//! - A *line* is one life of one origin, whose records are numbered from 1. Hashes stand for lines on the
//!   wire.
//! - A *place* is a point of the ring; the place of a member is the hash of its name. A *range* or *span* is
//!   a run of places.
//! - The *holder* of a range answers for it with one batch, which is called *custody*. It cuts the range into
//!   *parts* and hands each to a *delegate*, a member of the part. A *duty* is a part that was handed over
//!   and is not *settled*, that is neither acknowledged nor given up.
//! - A *want* asks a peer for records that are missing; a *lack* answers that the peer does not have them
//!   either.
//! - A *tally* is a set of members, given by their number and the XOR of their hashes.
//!
//! What must hold: passing on depends on the batch and the range alone, never on what the merge made of the
//! records. Only a client's record starts a tree. A receipt means custody: the node that gave it holds the
//! batch, and serves the range, or hands it to another one that does. So a batch may be passed on before it is
//! applied, but is acknowledged and counted as held only afterwards.
//!
//! Rejected: flooding a mesh (5 to 6 copies a node); a tree pruned out of a random overlay (state for every
//! edge, and one copy only once it has converged); rumour mongering in rounds (with a thousand nodes each
//! sends about 16 copies, and one percent of the records is missed).

mod answers;
mod assembly;
mod batch;
mod bodies;
mod codec;
mod custody;
mod dues;
mod duty;
mod env;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gaps;
mod latency;
mod lateness;
mod line;
mod lines;
mod link;
mod links;
mod pack;
mod packet;
mod path;
mod pending;
mod places;
mod receive;
mod received;
mod replication;
mod rtt;
mod seqs;
mod silence;
mod span;
mod stale;
mod stats;
mod tally;
mod timers;
mod tree;
mod unsettled;
mod window;
mod wire;

#[cfg(test)]
mod garbage_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod pending_tests;
#[cfg(test)]
mod receipt_tests;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod starved_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use self::batch::Batch;
use self::bodies::Bodies;
use self::custody::Custody;
use self::duty::RangeTask;
use self::env::{Base, Env, Me};
use self::gaps::Gaps;
use self::lines::Lines;
use self::link::Link;
use self::links::Links;
use self::pack::Packer;
use self::pending::PendingBatches;
use self::receive::Intake;
use self::replication::{Carried, Replication};
use self::span::Span;
use self::stale::drop_stale;
use self::timers::{Timer, Timers};
use self::tree::Zones;
use super::outbox::Awaited;
use super::purpose::Purpose;
use super::ring::Ring;
use super::stats::QueueGauge;
use super::streams::{StreamEvent, StreamId, StreamOutput};
use super::{Heads, MachineConfig, Profile, Replica, Replicated};
use crate::record::{Now, SharedRecord};

#[cfg(test)]
pub(super) use self::batch::line_hash;
pub use self::link::PeerLife;
pub use self::packet::Packet;
pub use self::received::{AppliedBatch, BatchOutcome, BatchTicket, ReceivedBatch};
pub use self::stats::SpreadStats;
pub use self::wire::Opened;
#[cfg(test)]
pub(super) use self::wire::SPREAD_BYTES_MAX;

/// How often old links, fragments, streams and tallies are dropped, in microseconds.
const SWEEP_US: u64 = 1_000_000;
/// Combined with a machine's seed for the random numbers of spreading, so that they differ from those of
/// other modules.
const SEED_SALT: u64 = 0x5EED_0F5B_4EAD;

/// One node's part in spreading. Sans-IO: call any `handle_*`, then [`Spread::poll_send`],
/// [`Spread::poll_stream`] and [`Spread::poll_replicated`] until they return `None`, then
/// [`Spread::poll_timeout`], which returns when [`Spread::handle_timeout`] is due.
#[derive(Debug)]
pub struct Spread {
    /// The state that the other fields share.
    base: Base,
    custody: Custody,
    gaps: Gaps,
    replication: Replication,
    bodies: Bodies,
    /// Batches that are being applied by another thread.
    pending: PendingBatches,
    packer: Packer,
    /// Whether no other member was ever seen, and none is looked for.
    is_hermit: bool,
    /// Whether [`Timer::Sweep`] is set, which drops old state.
    is_sweeping: bool,
}

impl Spread {
    /// Begins without links and records. Datagrams have bodies of at most `body_bytes_max` bytes.
    pub fn new(config: &MachineConfig, now: Now, body_bytes_max: usize) -> Spread {
        let rtt_us = match config.profile {
            Profile::Lan => 5_000,
            Profile::Wan => 150_000,
            Profile::Local => 2_000,
        };
        let base = Base {
            now_us: now.mono_us,
            me: Me::new(config, body_bytes_max),
            zones: Zones::default(),
            lines: Lines::new(&config.name, config.boot),
            links: Links::new(rtt_us),
            paths: Default::default(),
            timers: Timers::default(),
            stats: SpreadStats::default(),
        };
        Spread {
            custody: Custody::default(),
            gaps: Gaps::new(config.seed ^ SEED_SALT, now.mono_us, config.has_seeds),
            replication: Replication::new(base.me.life, base.me.packet_bytes_max),
            bodies: Bodies::new(),
            pending: PendingBatches::default(),
            packer: Packer::new(config.seed),
            is_hermit: !config.has_seeds,
            is_sweeping: false,
            base,
        }
    }

    /// Number of bytes of this node's own records that can be taken now; 0 while the links are full. Records
    /// that wait elsewhere can still be merged to the newest of each source; those that were taken cannot.
    pub fn room_bytes(&self) -> usize {
        self.custody.room_bytes()
    }

    /// Returns whether each of this node's own records was acknowledged by another member, or was given up.
    pub fn is_drained(&self) -> bool {
        self.custody.is_drained()
    }

    /// Starts the trees of records that this node accepted from clients, ascending by number. A number that
    /// is missing in between was superseded while it waited, and counts as held.
    pub fn handle_published(&mut self, now: Now, records: &[SharedRecord], ring: &Ring) {
        self.begin(now, ring);
        let head = self.base.lines.own_head();
        let first = records.partition_point(|record| record.birth.seq <= head);
        let fresh = records.get(first..).unwrap_or_default();
        debug_assert!(fresh.is_sorted_by(|one, next| one.birth.seq < next.birth.seq), "not ascending");
        let awaited = self.replication.awaited_among(fresh);
        self.is_hermit &= ring.len() <= 1;
        if self.is_hermit && awaited.is_empty() {
            // A member that joins later gets all of this when it reconciles, and has no gap to ask about.
            if let Some(last) = fresh.last() {
                self.base.lines.raise_own(self.base.now_us, last.birth.seq);
            }
        } else {
            let me = &self.base.me;
            let life = (&me.name, me.boot);
            for batch in codec::pack_for(self.base.paths.usual_bytes(), life, head, self.base.now_us, fresh) {
                self.publish(ring, &Arc::new(batch), &awaited);
            }
        }
        self.end();
    }

    /// Starts the tree of one batch of this node's own records.
    fn publish(&mut self, ring: &Ring, batch: &Arc<Batch>, awaited: &[Carried]) {
        let env = &mut Env { base: &mut self.base, ring };
        let span = Span::whole_after(env.base.me.place);
        env.base.lines.hold(env.base.now_us, batch);
        env.base.lines.take_custody(batch, span, 0);
        self.replication.count_own(env.base, batch, awaited, self.gaps.delay_us());
        let zone = env.base.me.zone.clone();
        let others: Vec<Arc<str>> = env.base.zones.names().filter(|other| **other != zone).cloned().collect();
        self.custody.serve(env, &mut self.replication, batch, &RangeTask::of_origin(span, zone));
        for zone in others {
            self.custody.enter_zone(env, &mut self.replication, batch, zone);
        }
        self.replication.count_changed(env.base, batch.id);
    }

    /// Lets answers wait until all live members hold these records; then [`Spread::poll_replicated`] returns
    /// them. To be called before the records are handed over with [`Spread::handle_published`].
    pub fn handle_awaited(&mut self, now: Now, awaited: Vec<Awaited>, ring: &Ring) {
        self.begin(now, ring);
        self.replication.await_all(&mut Env { base: &mut self.base, ring }, awaited);
        self.end();
    }

    /// Takes a packet from a peer, whose boot number stands in the datagram's header.
    pub fn handle_spread(
        &mut self,
        now: Now,
        from: PeerLife,
        packet: Opened,
        ring: &Ring,
        replica: &mut dyn Replica,
    ) {
        self.begin(now, ring);
        self.intake(now, ring, replica).take_packet(from, packet);
        self.end();
    }

    /// Takes reports on batches that the replica did not apply at once.
    pub fn handle_applied(
        &mut self,
        now: Now,
        applied: &[AppliedBatch],
        ring: &Ring,
        replica: &mut dyn Replica,
    ) {
        self.begin(now, ring);
        let mut intake = self.intake(now, ring, replica);
        applied.iter().for_each(|applied| intake.take_applied(*applied));
        self.end();
    }

    /// Handles an event of a stream of [`Purpose::Bodies`].
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        event: StreamEvent,
        ring: &Ring,
        replica: &mut dyn Replica,
    ) {
        self.begin(now, ring);
        let now_us = self.base.now_us;
        if Purpose::of_connected(stream) == Some(Purpose::Bodies) {
            let pulled = self.bodies.handle_connected(now_us, stream, event);
            let mut intake = self.intake(now, ring, replica);
            pulled.into_iter().for_each(|body| intake.take_body(body));
        } else {
            let (lines, custody) = (&self.base.lines, &self.custody);
            let find = |id| {
                let kept = lines.batch(id).map(|batch| &**batch);
                kept.or_else(|| custody.offered(id)).map(|batch| batch.encoded.clone())
            };
            let served = self.bodies.handle_accepted(now_us, stream, event, &find);
            self.base.stats.body_bytes_sent += served as u64;
        }
        self.end();
    }

    /// Takes the heads of a peer, as [`Spread::heads_digest`] made them.
    pub fn handle_heads(&mut self, now: Now, from: SocketAddr, heads: &[(u64, u64)]) {
        if heads.is_empty() {
            return;
        }
        self.base.now_us = self.base.now_us.max(now.mono_us);
        for &(line, seq) in heads {
            self.gaps.note(&mut self.base, from, line, seq);
        }
        self.end();
    }

    /// Takes the ring, which may have changed: answers no longer wait for members that have gone.
    pub fn handle_ring(&mut self, now: Now, ring: &Ring) {
        if self.replication.is_behind(ring) {
            self.begin(now, ring);
            self.end();
        }
    }

    /// Takes the boot number that stands in the headers of this node's datagrams from now on. The records keep
    /// that of the start. What is under way to peers is sent again to those that have not acknowledged it.
    pub fn handle_new_boot(&mut self, boot: u64) {
        self.base.me.header_boot = boot;
    }

    /// Takes a round trip that membership measured, in microseconds, so that none has to be guessed for the
    /// first hand-over to a peer.
    pub fn handle_rtt(&mut self, peer: SocketAddr, zone: &str, rtt_us: u64) {
        let zone = (*zone != *self.base.me.zone).then_some(zone);
        self.base.links.note_rtt(peer, zone, rtt_us.max(1));
    }

    /// Does what is due. To be called at the time that [`Spread::poll_timeout`] returns.
    pub fn handle_timeout(&mut self, now: Now, ring: &Ring) {
        self.begin(now, ring);
        while let Some((at_us, timer)) = self.base.timers.pop_due(now.mono_us) {
            let env = &mut Env { base: &mut self.base, ring };
            match timer {
                Timer::Parts { link } => self.custody.handle_due(env, &mut self.replication, link, at_us),
                Timer::Receipt { link } | Timer::Pace { link } => env.base.links.mark_ready(link),
                Timer::Gap { line } => self.gaps.ask(env, (&self.bodies, &self.pending), line, at_us),
                Timer::Count { batch, polls } => self.replication.poll_tallies(env.base, batch, polls),
                Timer::Await => self.replication.handle_timeout(env),
                Timer::Sweep => self.sweep(),
            }
        }
        self.end();
    }

    /// When [`Spread::handle_timeout`] is due, in microseconds on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.base.timers.next_us()
    }

    /// The next packet, and where to send it.
    pub fn poll_send(&mut self) -> Option<(SocketAddr, Packet)> {
        let aside = self.replication.poll_aside();
        let packet = aside.or_else(|| self.packer.poll(&mut self.base, &mut self.custody));
        if packet.is_none() {
            self.end();
        }
        packet
    }

    /// Takes back a packet that was sent, to use its memory again.
    pub fn take_back(&mut self, packet: Packet) {
        self.packer.take_back(packet);
    }

    /// The next thing for the driver to do with a stream of [`Purpose::Bodies`].
    pub(in crate::cluster) fn poll_stream(&mut self) -> Option<StreamOutput> {
        self.bodies.poll_output()
    }

    /// The next answer that need not wait any longer.
    pub fn poll_replicated(&mut self) -> Option<Replicated> {
        self.replication.poll_replicated()
    }

    /// The head of every line: the number up to which all its records are held. That of this node's own line
    /// is the last number that was handed over.
    pub fn heads(&self) -> Heads {
        self.base.lines.heads()
    }

    /// A number that grows whenever the heads change.
    pub fn heads_version(&self) -> u64 {
        self.base.lines.version()
    }

    /// Counts all records up to these heads as held, after a reconciliation that ended equal.
    pub fn merge_heads(&mut self, now: Now, heads: &Heads) {
        self.gaps.handle_reconciled();
        self.base.lines.merge_heads(now.mono_us, heads);
    }

    /// Counts all records up to these heads as held, since the map had them when it was loaded. Gaps after
    /// them are left to the first reconciliation, as they are without such heads.
    pub fn restore_heads(&mut self, now: Now, heads: &Heads) {
        self.base.lines.merge_heads(now.mono_us, heads);
    }

    /// Notes that the map was dropped: no record of another node counts as held any more.
    pub fn forget_held(&mut self) {
        self.base.lines.forget_held();
        self.pending.forget();
    }

    /// Heads to travel with a probe, as (hash of the line, head), in about `bytes_max` bytes; this
    /// node's own line is among them.
    pub fn heads_digest(&mut self, bytes_max: usize) -> Vec<(u64, u64)> {
        self.base.lines.digest(self.base.now_us, bytes_max)
    }

    /// Heads to travel with a packet that brings records and has room, as (hash of the line, head).
    pub fn heads_beside(&mut self, packet: &Packet) -> Vec<(u64, u64)> {
        self.packer.heads_beside(&mut self.base, packet)
    }

    /// Reads what is known of a peer, so that it is in the processor's cache when a packet of it comes.
    pub fn warm_link(&self, peer: SocketAddr) -> u64 {
        self.base.links.find(peer).map_or(0, Link::warm)
    }

    /// Calls `visit` with the size and bound of every queue and table.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        self.base.lines.visit_gauges(visit);
        self.base.links.visit_gauges(visit);
        self.custody.visit_gauges(visit);
        self.pending.visit_gauges(visit);
    }

    /// Counts since the start.
    pub fn stats(&self) -> &SpreadStats {
        &self.base.stats
    }

    /// Borrows everything that handles messages of peers, for the time of one call.
    fn intake<'a>(&'a mut self, now: Now, ring: &'a Ring, replica: &'a mut dyn Replica) -> Intake<'a> {
        Intake {
            now,
            env: Env { base: &mut self.base, ring },
            custody: &mut self.custody,
            gaps: &mut self.gaps,
            replication: &mut self.replication,
            bodies: &mut self.bodies,
            pending: &mut self.pending,
            replica,
        }
    }

    /// Begins a call: takes its time, and the ring as it is now.
    fn begin(&mut self, now: Now, ring: &Ring) {
        self.base.begin(now, ring);
        self.replication.refresh_roster(ring);
    }

    /// Ends a call: sets the timers of the waits and of the sweep, and drops timers that have become
    /// obsolete, so that the driver is not woken for them.
    fn end(&mut self) {
        if let Some(due_us) = self.replication.arm() {
            self.base.timers.push(due_us, Timer::Await);
        }
        drop_stale(&mut self.base, &self.replication);
        let is_in_use = !self.base.links.is_empty() || !self.bodies.is_empty() || !self.pending.is_empty();
        if is_in_use && !self.is_sweeping {
            self.is_sweeping = true;
            self.base.timers.push(self.base.now_us + SWEEP_US, Timer::Sweep);
        }
    }

    /// Drops links, fragments, streams and tallies that were not used for long.
    fn sweep(&mut self) {
        self.is_sweeping = false;
        self.base.links.sweep(self.base.now_us);
        self.bodies.sweep(self.base.now_us);
        self.pending.sweep(self.base.now_us);
        self.replication.sweep(self.base.now_us);
    }
}
