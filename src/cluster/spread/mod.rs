//! How a record reaches every node: a tree cut anew for every batch, hops that are repeated until
//! they are acknowledged, and gaps that are asked for.
//!
//! Think of a parcel and a street map. Whoever holds the parcel answers for a piece of the ring of
//! members; it cuts the piece into eight and hands copies to one member in each, which go on
//! likewise. Nobody builds a tree or keeps one in order: it follows from the ring that every node
//! knows anyway, so it costs nothing while nothing is sent and needs no repair when nodes die.
//! N−1 messages and about log₈ N hops bring a record everywhere.
//!
//! The rooms, each with its state to itself:
//!
//! - [`receive`] takes what peers sent: parts into custody, records to the map;
//! - [`custody`] hands parts to members until each has a receipt, was moved on, or is given up;
//! - [`pack`] fills datagrams with what waits for one peer;
//! - [`gaps`] asks for what is known to exist and did not come;
//! - [`replication`] answers when all members hold a record, and counts them up the tree;
//! - [`bodies`] pulls over TCP what is too large for datagrams.
//!
//! What they share, in [`env`]:
//!
//! - [`lines`]: what is held of each origin's life, and which ranges are in custody;
//! - [`links`]: the peers. A [`link`] has numbers, [`answers`], [`silence`], [`rtt`], a [`window`], and what is
//!   [`unsettled`]; [`assembly`] joins fragments that come over it;
//! - [`timers`] and [`stats`].
//!
//! What is passed on: a [`batch`] is encoded by the origin, copied by relays and never changed; [`codec`] writes
//! and reads it, [`wire`] and [`packet`] what stands around it. [`tree`] cuts a range (a [`span`] of the ring)
//! and chooses who serves each part; a [`duty`] is one part with one member.
//!
//! What must hold: passing on depends on the batch and the range alone, never on what the merge
//! made of the records. Only a client's record starts a tree. A receipt means custody: whoever gave
//! it serves the range, or hands it to somebody who does.
//!
//! Rejected: flooding a mesh (5–6 copies a node), a tree pruned out of a random overlay (state for
//! every edge, and one copy only once it has converged), rumours in rounds (about 16 copies sent a
//! node at a thousand, and a percent is missed).

mod answers;
mod assembly;
mod batch;
mod bodies;
mod by_key;
mod codec;
mod custody;
mod duty;
mod env;
mod gaps;
mod latency;
mod lateness;
mod line;
mod lines;
mod link;
mod links;
mod pack;
mod packet;
mod receive;
mod replication;
mod rtt;
mod seqs;
mod silence;
mod span;
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
use self::receive::Intake;
use self::replication::{Carried, Replication};
use self::span::Span;
use self::timers::{Timer, Timers};
use self::tree::Zones;
use super::outbox::Awaited;
use super::purpose::Purpose;
use super::ring::Ring;
use super::stats::Gauge;
use super::{Config, Heads, Profile, Replica, Replicated, StreamEvent, StreamId};
use crate::record::{Now, SharedRecord};

pub(super) use self::bodies::Output as StreamOutput;
pub use self::link::PeerLife;
pub use self::packet::Packet;
pub use self::stats::SpreadStats;
pub use self::wire::{Opened, SPREAD_BYTES_MAX};

/// How often idle links and unfinished fragments are looked through, in microseconds.
const SWEEP_US: u64 = 1_000_000;
/// Sets this room's stream of chance apart from those of others with the same seed.
const SEED_SALT: u64 = 0x5EED_0F5B_4EAD;

/// One node's part in spreading. Sans-IO: call any `handle_*`, then [`Spread::poll_send`],
/// [`Spread::poll_stream`] and [`Spread::poll_replicated`] until they give nothing, then
/// [`Spread::poll_timeout`] for when [`Spread::handle_timeout`] is due.
#[derive(Debug)]
pub struct Spread {
    /// What the rooms share.
    base: Base,
    custody: Custody,
    gaps: Gaps,
    replication: Replication,
    bodies: Bodies,
    packer: Packer,
    /// Nobody else was on the ring so far, nor is anybody looked for.
    is_hermit: bool,
    /// Whether the timer that sweeps is set.
    is_sweeping: bool,
}

impl Spread {
    /// A node that has seen nothing yet.
    pub fn new(config: &Config, now: Now) -> Spread {
        let rtt_us = match config.profile {
            Profile::Lan => 5_000,
            Profile::Wan => 150_000,
            Profile::Local => 2_000,
        };
        let base = Base {
            now_us: now.mono_us,
            me: Me::new(config),
            zones: Zones::default(),
            lines: Lines::new(&config.name, config.boot),
            links: Links::new(rtt_us),
            timers: Timers::default(),
            stats: SpreadStats::default(),
        };
        Spread {
            custody: Custody::default(),
            gaps: Gaps::new(config.seed ^ SEED_SALT, now.mono_us, config.has_seeds),
            replication: Replication::new(base.me.life),
            bodies: Bodies::new(),
            packer: Packer::default(),
            is_hermit: !config.has_seeds,
            is_sweeping: false,
            base,
        }
    }

    /// How many bytes of own records are taken now; 0 while the links are full. What waits
    /// elsewhere can still be merged to the newest of each source; what is here cannot.
    pub fn room_bytes(&self) -> usize {
        self.custody.room_bytes()
    }

    /// Whether all of this node's own records are with others, or were given up.
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
            // Who comes later reads all this when it reconciles, and has no gap to ask about.
            if let Some(last) = fresh.last() {
                self.base.lines.raise_own(self.base.now_us, last.birth.seq);
            }
        } else {
            let me = &self.base.me;
            for batch in codec::pack(&me.name, me.boot, head, self.base.now_us, fresh) {
                self.publish(ring, &Arc::new(batch), &awaited);
            }
        }
        self.end();
    }

    /// Starts the tree of a batch of this node's own.
    fn publish(&mut self, ring: &Ring, batch: &Arc<Batch>, awaited: &[Carried]) {
        let env = &mut Env { base: &mut self.base, ring };
        let span = Span::whole_after(env.base.me.place);
        env.base.lines.hold(env.base.now_us, batch);
        env.base.lines.take_custody(batch.id, span, 0);
        self.replication.count_own(env.base, batch, awaited, self.gaps.delay_us());
        let zone = env.base.me.zone.clone();
        let others: Vec<Arc<str>> = env.base.zones.names().filter(|other| **other != zone).cloned().collect();
        self.custody.serve(env, &mut self.replication, batch, &RangeTask::of_origin(span, zone));
        for zone in others {
            self.custody.enter_zone(env, &mut self.replication, batch, zone);
        }
        self.replication.count_changed(env.base, batch.id);
    }

    /// Answers wait from now on until all live members hold these records. To be called before the records
    /// are handed over with [`Spread::handle_published`].
    pub fn handle_awaited(&mut self, now: Now, awaited: Vec<Awaited>, ring: &Ring) {
        self.begin(now, ring);
        self.replication.await_all(&mut Env { base: &mut self.base, ring }, awaited);
        self.end();
    }

    /// Takes a packet from a peer. Its boot number is in the datagram's header.
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

    /// Something happened to a stream of [`Purpose::Bodies`].
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
            self.base.stats.data_bytes_sent += served as u64;
        }
        self.end();
    }

    /// Takes the heads of a peer, as [`Spread::heads_digest`] made them.
    pub fn handle_heads(&mut self, now: Now, from: SocketAddr, heads: &[(u64, u64)]) {
        self.base.now_us = self.base.now_us.max(now.mono_us);
        for &(line, seq) in heads {
            self.gaps.note(&mut self.base, from, line, seq);
        }
        self.end();
    }

    /// The ring may have changed: nobody waits for those who have gone.
    pub fn handle_ring(&mut self, now: Now, ring: &Ring) {
        if self.replication.is_behind(ring) {
            self.begin(now, ring);
            self.end();
        }
    }

    /// Takes a round trip that membership measured, in microseconds, so that the first hand-over to a peer
    /// does not have to guess one.
    pub fn handle_rtt(&mut self, peer: SocketAddr, zone: &str, rtt_us: u64) {
        let zone = (*zone != *self.base.me.zone).then_some(zone);
        self.base.links.note_rtt(peer, zone, rtt_us.max(1));
    }

    /// Does what is due. Call it when [`Spread::poll_timeout`] is reached.
    pub fn handle_timeout(&mut self, now: Now, ring: &Ring) {
        self.begin(now, ring);
        while let Some((at_us, timer)) = self.base.timers.pop_due(now.mono_us) {
            let env = &mut Env { base: &mut self.base, ring };
            match timer {
                Timer::Try(part) => self.custody.handle_silence(env, &mut self.replication, part, at_us),
                Timer::Receipt { link } | Timer::Pace { link } => env.base.links.mark_ready(link),
                Timer::Gap { line } => self.gaps.ask(env, &self.bodies, line, at_us),
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

    /// Takes back a packet that was sent, to fill it again.
    pub fn take_back(&mut self, packet: Packet) {
        self.packer.take_back(packet);
    }

    /// What is to be done next with streams of [`Purpose::Bodies`].
    pub(in crate::cluster) fn poll_stream(&mut self) -> Option<StreamOutput> {
        self.bodies.poll_output()
    }

    /// The next answer that need not wait any longer.
    pub fn poll_replicated(&mut self) -> Option<Replicated> {
        self.replication.poll_replicated()
    }

    /// Up to where the records of every line are held without a gap; of this node's own, up to where
    /// they were handed over.
    pub fn heads(&self) -> Heads {
        self.base.lines.heads()
    }

    /// A number that grows whenever the heads change.
    pub fn heads_version(&self) -> u64 {
        self.base.lines.version()
    }

    /// Counts everything up to these heads as held: after a reconciliation that ended equal.
    pub fn merge_heads(&mut self, now: Now, heads: &Heads) {
        self.gaps.handle_reconciled();
        self.base.lines.merge_heads(now.mono_us, heads);
    }

    /// Counts everything up to these heads as held: an earlier life of this node kept it. Gaps since then are
    /// left to the first reconciliation, as they are without such heads.
    pub fn restore_heads(&mut self, now: Now, heads: &Heads) {
        self.base.lines.merge_heads(now.mono_us, heads);
    }

    /// The copy was dropped: of other nodes' records nothing counts as held any more.
    pub fn forget_held(&mut self) {
        self.base.lines.forget_held();
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

    /// Reads what is known of a peer, for the sake of having it in the cache.
    pub fn warm_link(&self, peer: SocketAddr) -> u64 {
        self.base.links.find(peer).map_or(0, Link::warm)
    }

    /// Shows how full the queues are.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        self.base.lines.visit_gauges(visit);
        self.base.links.visit_gauges(visit);
        self.custody.visit_gauges(visit);
    }

    /// Counts since the start.
    pub fn stats(&self) -> &SpreadStats {
        &self.base.stats
    }

    /// All rooms that what comes in may concern.
    fn intake<'a>(&'a mut self, now: Now, ring: &'a Ring, replica: &'a mut dyn Replica) -> Intake<'a> {
        Intake {
            now,
            env: Env { base: &mut self.base, ring },
            custody: &mut self.custody,
            gaps: &mut self.gaps,
            replication: &mut self.replication,
            bodies: &mut self.bodies,
            replica,
        }
    }

    /// Begins a call: takes its time, and the ring as it is now.
    fn begin(&mut self, now: Now, ring: &Ring) {
        self.base.begin(now, ring);
        self.replication.refresh_roster(ring);
    }

    /// Ends a call: sets the timers that are not set by what was done, and drops those that mean nothing any
    /// more, so that nobody is woken for them.
    fn end(&mut self) {
        if let Some(due_us) = self.replication.arm() {
            self.base.timers.push(due_us, Timer::Await);
        }
        while let Some((at_us, timer)) = self.base.timers.first()
            && self.is_stale(at_us, timer)
        {
            self.base.timers.pop();
        }
        let is_in_use = !self.base.links.is_empty() || !self.bodies.is_empty();
        if is_in_use && !self.is_sweeping {
            self.is_sweeping = true;
            self.base.timers.push(self.base.now_us + SWEEP_US, Timer::Sweep);
        }
    }

    /// Whether a timer means nothing any more.
    fn is_stale(&self, at_us: u64, timer: Timer) -> bool {
        let link = |id| self.base.links.get(id);
        match timer {
            Timer::Try(part) => {
                let sent = link(part.link).and_then(|link| link.sent(part.number));
                sent.is_none_or(|sent| sent.due_us != at_us)
            }
            Timer::Receipt { link: id } => link(id).is_none_or(|link| link.answers.due_us() != Some(at_us)),
            Timer::Pace { link: id } => link(id).is_none_or(|link| link.next_queued().is_none()),
            Timer::Gap { line } => self.base.lines.get(line).is_none_or(|line| line.search.due_us != at_us),
            Timer::Count { batch, .. } => !self.replication.is_counting(batch),
            Timer::Await => !self.replication.is_armed(at_us),
            Timer::Sweep => false,
        }
    }

    /// Drops what was not used for long.
    fn sweep(&mut self) {
        self.is_sweeping = false;
        self.base.links.sweep(self.base.now_us);
        self.bodies.sweep(self.base.now_us);
        self.replication.sweep(self.base.now_us);
    }
}
