//! How a record reaches every node: a tree cut anew for every batch, hops that are repeated until
//! they are acknowledged, and gaps that are asked for.
//!
//! Think of a parcel and a street map. Whoever holds the parcel answers for a piece of the ring of
//! members; it cuts the piece into eight and hands copies to one member in each, which go on
//! likewise. Nobody builds a tree or keeps one in order: it follows from the ring that every node
//! knows anyway, so it costs nothing while nothing is sent and needs no repair when nodes die.
//! N−1 messages and about log₈ N hops bring a record everywhere.
//!
//! - [`tree`] cuts ranges and chooses who serves each; [`span`] is a range of places.
//! - [`batch`] is what is passed on: encoded by the origin, copied by relays, never changed;
//!   [`codec`] writes and reads it, [`wire`] what stands around it in a packet.
//! - [`duty`] is one part with one member; [`handover`] gives it to them, [`retry`] tries again,
//!   moves it on or gives it up.
//! - [`link`] is a peer: numbers, receipts, round trip, window; [`unsettled`] is what it has not acknowledged. [`links`] are all of them.
//! - [`receive`] takes custody, [`assembly`] joins fragments, [`pack`] fills datagrams; [`bodies`]
//!   pulls what is too large for them over TCP.
//! - [`tally`] counts up the tree who holds a batch, where somebody waits for it ([`replicate`], [`waits`],
//!   [`roster`]).
//! - [`lines`] knows what is held of each origin's life; [`gaps`] asks for what is not.
//!
//! What must hold: passing on depends on the batch and the range alone, never on what the merge
//! made of the records. Only a client's record starts a tree. A receipt means custody: whoever gave
//! it serves the range, or hands it to somebody who does.
//!
//! Rejected: flooding a mesh (5–6 copies a node), a tree pruned out of a random overlay (state for
//! every edge, and one copy only once it has converged), rumours in rounds (about 16 copies sent a
//! node at a thousand, and a percent is missed).

mod assembly;
mod batch;
mod bodies;
mod by_key;
mod codec;
mod duty;
mod gaps;
mod handover;
mod latency;
mod lateness;
mod lines;
mod link;
mod links;
mod pack;
mod packet;
mod receive;
mod replicate;
mod retry;
mod roster;
mod seqs;
mod span;
mod tally;
mod timers;
mod tree;
mod unsettled;
mod waits;
mod wire;

#[cfg(test)]
mod custody_tests;
#[cfg(test)]
mod garbage_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod replicate_tests;
#[cfg(test)]
mod starved;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use slab::Slab;

use self::assembly::Assemblies;
use self::bodies::Bodies;
use self::duty::{Duty, Task};
use self::latency::Latency;
use self::lines::Lines;
use self::link::Link;
use self::links::Links;
use self::replicate::Replication;
use self::retry::RetryBudget;
use self::span::Span;
use self::timers::{Timer, Timers};
use self::tree::Zones;
use super::members::Identity;
use super::random::Random;
use super::ring::Ring;
use super::stats::Gauge;
use super::{Config, Heads, Profile, Replica};
use crate::limits::{HEADS_BYTES_MAX, RECORD_BYTES_CEILING};
use crate::record::{NodeName, Now, SharedRecord};

pub(super) use self::bodies::Output as StreamOutput;
pub use self::packet::Packet;
pub use self::wire::{Opened, SPREAD_BYTES_MAX};

/// Bytes of this node's own parts that may wait to be sent for the first time, over all links.
const OWN_WAITING_BYTES_MAX: usize = 512 * 1024;
/// Between two packets with records that bring heads as well, in microseconds: as long as a gap must
/// have stood before it is asked for.
const HEADS_PAUSE_US: u64 = 50_000;
/// How often idle links and unfinished fragments are looked through, in microseconds.
const SWEEP_US: u64 = 1_000_000;

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpreadStats {
    /// Copies of records that came from peers, also the needless ones.
    pub data_copies_received: u64,
    /// Bytes of parts sent for the first time.
    pub data_bytes_sent: u64,
    /// Bytes of parts sent again.
    pub resent_bytes: u64,
    /// Bytes of receipts, questions, wants and frames around parts.
    pub control_bytes_sent: u64,
    /// Tries that were not acknowledged in time.
    pub timeouts: u64,
    /// Parts handed to another member after a failure.
    pub redelegated: u64,
    /// Parts given up: what they held is found missing by those it was for.
    pub given_up: u64,
    /// Parts not taken into custody for lack of room.
    pub refused: u64,
    /// Parts that were no batch, or whose checksum failed.
    pub corrupt: u64,
    /// Times this node asked for a gap.
    pub wants_sent: u64,
    /// Batches sent to fill others' gaps.
    pub repairs_sent: u64,
    /// Gaps left to reconciliation, since nobody asked could fill them.
    pub gaps_abandoned: u64,
}

/// One node's part in spreading. Sans-IO: call any `handle_*`, then [`Spread::poll_send`] until it
/// gives nothing, then [`Spread::poll_timeout`] for when [`Spread::handle_timeout`] is due.
#[derive(Debug)]
pub struct Spread {
    name: NodeName,
    boot: u64,
    place: u64,
    zone: Arc<str>,
    /// Nobody else was on the ring so far, nor is anybody looked for.
    is_hermit: bool,
    /// Until when gaps are left to the first reconciliation.
    ask_from_us: u64,
    now_us: u64,
    random: Random,
    zones: Zones,
    lines: Lines,
    links: Links,
    duties: Slab<Duty>,
    /// Memory of batches on duty, each counted as often as it is handed to somebody.
    duty_bytes: usize,
    own_waiting_bytes: usize,
    retry_budget: RetryBudget,
    latency: Latency,
    assemblies: Assemblies,
    bodies: Bodies,
    timers: Timers,
    replication: Replication,
    /// Links with something to send.
    ready: VecDeque<usize>,
    is_sweeping: bool,
    heads_due_us: u64,
    /// Kept to be filled again.
    spare: Packet,
    numbers: Vec<u64>,
    stats: SpreadStats,
}

impl Spread {
    /// A node that has seen nothing yet.
    pub fn new(config: &Config, now: Now) -> Spread {
        let rtt_us = match config.profile {
            Profile::Lan => 5_000,
            Profile::Wan => 150_000,
            Profile::Local => 2_000,
        };
        let identity = Identity::new(config.name.clone(), config.boot, config.gossip, "", "", "");
        Spread {
            name: config.name.clone(),
            boot: config.boot,
            place: identity.ring_hash(),
            zone: config.zone.as_str().into(),
            is_hermit: !config.has_seeds,
            ask_from_us: if config.has_seeds { now.mono_us + gaps::ASK_DELAY_AT_START_US } else { 0 },
            now_us: now.mono_us,
            random: Random::new(config.seed ^ 0x5EED_0F5B_4EAD),
            zones: Zones::default(),
            lines: Lines::new(&config.name, config.boot),
            links: Links::new(rtt_us),
            duties: Slab::new(),
            duty_bytes: 0,
            own_waiting_bytes: 0,
            retry_budget: RetryBudget::default(),
            latency: Latency::default(),
            assemblies: Assemblies::default(),
            bodies: Bodies::new(),
            timers: Timers::default(),
            replication: Replication::default(),
            ready: VecDeque::new(),
            is_sweeping: false,
            heads_due_us: 0,
            spare: Packet::default(),
            numbers: Vec::new(),
            stats: SpreadStats::default(),
        }
    }

    /// How many bytes of own records are taken now; 0 while the links are full. What waits
    /// elsewhere can still be merged to the newest of each source; what is here cannot.
    pub fn room_bytes(&self) -> usize {
        let on_links = OWN_WAITING_BYTES_MAX.saturating_sub(self.own_waiting_bytes) / tree::FANOUT;
        on_links.min(self.bodies.room_bytes())
    }

    /// Whether all records of this node's own are with others, or were given up.
    pub fn is_drained(&self) -> bool {
        self.duties.iter().all(|(_, duty)| !duty.part.is_own)
    }

    /// Starts the trees of records that this node accepted from clients, ascending by seq. A number
    /// missing in between was superseded while it waited, and counts as held.
    pub fn handle_published(&mut self, now: Now, records: &[SharedRecord], ring: &Ring) {
        self.begin(now, ring);
        let head = self.lines.own_head();
        let first = records.partition_point(|record| record.birth.seq <= head);
        let fresh = records.get(first..).unwrap_or_default();
        let awaited = self.awaited_among(fresh);
        self.is_hermit &= ring.len() <= 1;
        if self.is_hermit && awaited.is_empty() {
            // Who comes later reads all this when it reconciles, and has no gap to ask about.
            if let Some(last) = fresh.last() {
                self.lines.raise_own(now.mono_us, last.birth.seq);
            }
            return self.end();
        }
        for batch in codec::pack(&self.name, self.boot, head, now.mono_us, fresh) {
            let batch = Arc::new(batch);
            let span = Span::whole_after(self.place);
            self.lines.hold(now.mono_us, &batch);
            self.lines.take_custody(batch.id, span, 0);
            self.count_own(&batch, &awaited);
            let task = Task::of_origin(span, self.zone.clone());
            self.serve(ring, &batch, &task);
            let others: Vec<Arc<str>> =
                self.zones.names().filter(|zone| **zone != self.zone).cloned().collect();
            for zone in others {
                self.enter_zone(ring, &batch, zone);
            }
            self.count_changed(batch.id);
        }
        self.end();
    }

    /// Does what is due. Call it when [`Spread::poll_timeout`] is reached.
    pub fn handle_timeout(&mut self, now: Now, ring: &Ring, _replica: &mut dyn Replica) {
        self.begin(now, ring);
        while let Some(timer) = self.timers.pop_due(now.mono_us) {
            match timer.1 {
                Timer::Try { link, number } => self.handle_silence(ring, link, number, timer.0),
                Timer::Receipt { link } | Timer::Pace { link } => self.mark_ready(link),
                Timer::Gap { line } => self.ask_for_gap(ring, line, timer.0),
                Timer::Count { batch, polls } => self.poll_tallies(batch, polls),
                Timer::Await => self.handle_await(ring),
                Timer::Sweep => self.sweep(),
            }
        }
        self.end();
    }

    /// When [`Spread::handle_timeout`] is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next_us()
    }

    /// Reads what is known of a peer, for the sake of reading it.
    pub fn warm_link(&self, peer: SocketAddr) -> u64 {
        self.links.find(peer).map_or(0, Link::warm)
    }

    /// Takes a round trip that membership measured, so that the first hand-over to a peer does not
    /// have to guess one.
    pub fn handle_rtt(&mut self, peer: SocketAddr, zone: &str, rtt_us: u64) {
        let zone = (*zone != *self.zone).then_some(zone);
        self.links.note_rtt(peer, zone, rtt_us.max(1));
    }

    /// Up to where the records of every line are held without a gap; of this node's own, up to where
    /// they were handed over.
    pub fn heads(&self) -> Heads {
        self.lines.heads()
    }

    /// Grows whenever the heads change.
    pub fn heads_version(&self) -> u64 {
        self.lines.version()
    }

    /// Counts everything up to these heads as held: after a reconciliation that ended equal.
    pub fn merge_heads(&mut self, now: Now, heads: &Heads) {
        self.ask_from_us = 0;
        self.lines.merge_heads(now.mono_us, heads);
    }

    /// Counts everything up to these heads as held: what an earlier life of this node kept. Gaps since
    /// then are left to the first reconciliation, as without them.
    pub fn restore_heads(&mut self, now: Now, heads: &Heads) {
        self.lines.merge_heads(now.mono_us, heads);
    }

    /// The copy was dropped: of other nodes' records nothing counts as held any more.
    pub fn forget_held(&mut self) {
        self.lines.forget_held();
    }

    /// Heads to ride on a probe, as (hash of the line, head), in about `bytes_max` bytes; this
    /// node's own line is among them.
    pub fn heads_digest(&mut self, bytes_max: usize) -> Vec<(u64, u64)> {
        self.lines.digest(self.now_us, bytes_max)
    }

    /// Heads to ride on a packet that brings records and has room, once in a while: while records
    /// flow, a gap is known sooner than probes alone would tell.
    pub fn heads_beside(&mut self, packet: &Packet) -> Vec<(u64, u64)> {
        if packet.is_bare() || self.now_us < self.heads_due_us {
            return Vec::new();
        }
        let room = SPREAD_BYTES_MAX.saturating_sub(packet.encoded_len());
        let heads = self.lines.digest(self.now_us, room.min(HEADS_BYTES_MAX));
        if !heads.is_empty() {
            self.heads_due_us = self.now_us + HEADS_PAUSE_US;
        }
        heads
    }

    /// Takes back a packet that was sent, to fill it again.
    pub fn take_back(&mut self, packet: Packet) {
        self.spare = packet;
    }

    /// How full its queues are.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        self.lines.visit_gauges(visit);
        self.links.visit_gauges(visit);
        self.assemblies.visit_gauges(visit);
        // Whoever asks for room first is let in by an eighth of it, and then counted with headers.
        let own_max = OWN_WAITING_BYTES_MAX + OWN_WAITING_BYTES_MAX / tree::FANOUT;
        visit(Gauge::new("bytes of own parts that wait", self.own_waiting_bytes, own_max));
        // A part is refused while there is too much; the last that was not is cut into as many.
        let duty_max = receive::DUTY_BYTES_MAX + tree::FANOUT * RECORD_BYTES_CEILING;
        visit(Gauge::new("bytes of batches on duty", self.duty_bytes, duty_max));
    }

    /// What was counted since the start.
    pub fn stats(&self) -> &SpreadStats {
        &self.stats
    }

    fn begin(&mut self, now: Now, ring: &Ring) {
        self.now_us = self.now_us.max(now.mono_us);
        self.zones.refresh(ring);
        self.refresh_roster(ring);
    }

    /// Drops timers that mean nothing any more, so that nobody is woken for them.
    fn end(&mut self) {
        if let Some(due_us) = self.replication.arm() {
            self.timers.push(due_us, Timer::Await);
        }
        while let Some((at_us, timer)) = self.timers.first() {
            let is_stale = match timer {
                Timer::Try { link, number } => {
                    let sent = self.links.get(link).and_then(|link| link.sent.get(number));
                    sent.is_none_or(|sent| sent.due_us != at_us)
                }
                Timer::Receipt { link } => self.links.get(link).is_none_or(|link| link.receipt_us != at_us),
                Timer::Pace { link } => self.links.get(link).is_none_or(|link| link.queue.is_empty()),
                Timer::Gap { line } => self.lines.get(line).is_none_or(|line| line.ask_due_us != at_us),
                Timer::Count { batch, .. } => !self.is_counting(batch),
                Timer::Await => !self.replication.is_armed(at_us),
                Timer::Sweep => false,
            };
            if !is_stale {
                break;
            }
            self.timers.pop();
        }
        let is_in_use = !self.links.is_empty() || !self.bodies.is_empty();
        if is_in_use && !self.is_sweeping {
            self.is_sweeping = true;
            self.timers.push(self.now_us + SWEEP_US, Timer::Sweep);
        }
    }

    fn sweep(&mut self) {
        self.is_sweeping = false;
        for link in self.links.close_idle(self.now_us) {
            self.assemblies.forget_link(link);
        }
        self.assemblies.forget_old(self.now_us);
        self.bodies.sweep(self.now_us);
        self.expire_tallies();
    }

    /// The link to an address. `None`: too many are in use.
    fn open_link(&mut self, to: SocketAddr) -> Option<usize> {
        let (id, closed) = self.links.open(to, self.now_us)?;
        if let Some(closed) = closed {
            self.assemblies.forget_link(closed);
        }
        Some(id)
    }

    fn mark_ready(&mut self, id: usize) {
        if let Some(link) = self.links.get_mut(id)
            && !link.is_ready
        {
            link.is_ready = true;
            self.ready.push_back(id);
        }
    }
}
