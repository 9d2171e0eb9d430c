//! Reconciliation: what makes two maps equal again, whatever was lost between them.
//!
//! Spreading delivers nearly everything, and gaps are asked for. What still slips through (a node
//! that just joined, the two sides of a healed partition, a record that nobody repeated in time)
//! is found here: every second a node compares one number with one random member, and when the
//! maps differ for longer than records travel, both open a stream and end with the union, the newer
//! record of every source, at a cost that grows with the difference and not with the maps.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `compare` | the datagrams, and when a difference is worth a session |
//! | `sessions` | beginning, driving and ending sessions |
//! | `initiator`, `responder` | the two ends of one |
//! | `lane` | what both ends do alike: shards under way, reading, working in turns |
//! | `link` | what both ends share: stream, back-pressure, merging |
//! | `items` | which records take part, and as what |
//! | `riblt` | the difference of two sets |
//! | `wire` | frames |
//!
//! A session is never resumed: after a broken one, what came has been merged, and the next
//! comparison starts from there. Nothing it merges is spread again.
//!
//! Two nodes that compare with each other at the same time find the same, so only one of them may
//! act on it: who hears the other's greeting first lets its own session go, and where both greeted,
//! the one whose name is smaller keeps its own. While one of them joins, each keeps its own: it has
//! questions that the other's does not answer.
//!
//! **Deletions.** A deletion that may be collected takes no part: it is neither offered nor taken
//! from a peer, and no session starts again for its sake. A node that was away for longer than
//! deletions are kept might hold values whose deletion nobody remembers. Until its first
//! reconciliation it offers only what itself accepted since it last agreed, and as soon as it meets a
//! member to reload from it asks for its old copy to be dropped ([`ReconcileOutput::Discard`]); not sooner,
//! since after a power cut of the whole cluster all nodes have been away, and one that drops its
//! copy before it has met another would lose what nobody else has.
//!
//! **Heads.** After a session that left nothing out and lost nothing, each side holds all that the
//! other held when it began, so it may take over the heads the other had then. A session that
//! leaves out young records proves less, and says nothing of heads.
//!
//! Rejected: reconciling by heads and logs alone (a node would have to keep every record since the
//! slowest member was last seen); comparing Merkle trees level by level (a round trip a level, and
//! a thousand scattered differences touch all of it).

mod compare;
mod initiator;
mod items;
mod lane;
mod link;
mod responder;
mod riblt;
mod sessions;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use self::compare::{CompareVerdict, Comparison, answer, root_of};
use self::initiator::{Initiator, SessionPlan};
use self::items::Filter;
use self::responder::Responder;
pub use self::wire::Compare;
use super::purpose::{Purpose, StreamIds};
use super::random::Random;
use super::ring::Ring;
use super::streams::{StreamEvent, StreamId, StreamOutput};
use super::{Config, Heads, Replica};
use crate::record::{NodeName, Now};

/// Combined with a machine's seed for the random numbers of reconciliation, so that they differ from those of membership.
const SEED_OF_RECONCILIATION: u64 = 0x7265_636f_6e63_696c;
/// How often maps are compared, give or take an eighth.
const COMPARE_US: u64 = 1_000_000;
/// The same after a session that found something: the next member may need it as well.
const COMPARE_SOON_US: u64 = 250_000;
/// How long a node that joins waits before it tries another member.
const JOIN_RETRY_US: u64 = 200_000;
/// Records accepted so lately may still be on their way.
const OLD_ENOUGH_US: u64 = 2_000_000;
/// A session on which nothing moves for so long is over.
const IDLE_US_MAX: u64 = 10_000_000;
/// A session on which nothing moves for so long does not keep another from being begun.
const STALLED_US: u64 = 1_000_000;
/// Sessions this node began.
const OUTGOING_MAX: usize = 2;
/// Sessions others began; further ones are told to come back.
const INCOMING_MAX: usize = 8;
/// Members that hold nothing certain either, after which a joining node concludes that the whole
/// cluster is new.
const FRESH_PEERS: usize = 3;
/// How much sooner than deletions are collected a copy counts as too old.
const MARGIN_US: u64 = 3_600_000_000;

/// Something that reconciliation wants done. Drained with `poll_output` after every `handle_*`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ReconcileOutput {
    /// Send a comparison, or the answer to one, in a datagram.
    Datagram {
        /// Address of the receiver.
        to: SocketAddr,
        /// The comparison or the answer.
        message: Compare,
    },
    /// Do something with a stream of [`Purpose::Reconcile`].
    Stream(StreamOutput),
    /// Count every record up to these heads as held: each is here, or was superseded.
    Merged(Heads),
    /// Drop every record but those this node accepted since `agreed_us`, the time it was started
    /// with, before any further event is handed in: the copy is too old, and there is a member to
    /// reload from.
    Discard,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileStats {
    /// Comparisons asked for.
    pub compared: u64,
    /// Sessions begun here.
    pub sessions_begun: u64,
    /// Sessions accepted from others.
    pub sessions_accepted: u64,
    /// Sessions of others refused: there were too many, or one with that node already.
    pub sessions_refused: u64,
    /// Sessions of both kinds that went to their end.
    pub sessions_finished: u64,
    /// Sessions of both kinds that broke off.
    pub sessions_broken: u64,
    /// Records that differed, in finished sessions of both kinds.
    pub records_found: u64,
    /// Records sent.
    pub records_sent: u64,
    /// Records that came and were sound.
    pub records_received: u64,
    /// Of these, those that became the latest.
    pub records_applied: u64,
    /// Of these, those that could be collected, and were not taken.
    pub records_collectable: u64,
    /// Records that came and were not sound: skipped.
    pub records_bad: u64,
    /// Bytes written on streams.
    pub bytes_sent: u64,
    /// Bytes that came on streams.
    pub bytes_received: u64,
}

/// What sessions need to know of the node.
#[derive(Clone, Debug)]
struct Me {
    name: NodeName,
    /// When it last agreed with the cluster before this life, or 0.
    started_from_us: u64,
    tombstones_us: u64,
    is_reconciled: bool,
    /// Its copy was too old at the start, and it has not reloaded so far.
    withholds: bool,
}

impl Me {
    fn filter(&self, seed: u64, wall_us: u64, young_us: u64) -> Filter {
        Filter {
            seed,
            wall_us,
            tombstones_us: self.tombstones_us,
            accepted_us_max: if young_us == 0 { u64::MAX } else { wall_us.saturating_sub(young_us) },
            own_since: self.withholds.then(|| (self.name.clone(), self.started_from_us)),
        }
    }
}

/// Tells the heads as they are now. They are asked for once a session, so they are made then.
pub type HeadsNow<'a> = &'a dyn Fn() -> Heads;

/// A member as the ring knows it.
#[derive(Clone, Debug)]
struct Peer {
    name: NodeName,
    gossip: SocketAddr,
}

/// A comparison that was asked for.
#[derive(Clone, Debug)]
struct AskedComparison {
    to: Peer,
    nonce: u32,
    root: u64,
}

/// Keeps this node's map equal to the others'.
///
/// Call `handle_*` as things happen, and drain `poll_output` after each; call `handle_timeout` when
/// `poll_timeout` is due, which may be at once: work is cut into turns of about a millisecond.
#[derive(Debug)]
pub struct Reconcile {
    me: Me,
    ids: StreamIds,
    random: Random,
    outgoing: Vec<Initiator>,
    incoming: Vec<Responder>,
    comparison: Comparison,
    asked: Option<AskedComparison>,
    next_us: u64,
    handled_us: u64,
    turn: usize,
    fresh_peers: BTreeSet<NodeName>,
    live_peers: usize,
    has_discarded: bool,
    agreed_us: Option<u64>,
    outputs: VecDeque<ReconcileOutput>,
    stats: ReconcileStats,
}

/// Whether a copy that last agreed with the cluster at `agreed_us` is too old to be believed: it
/// may hold values whose deletion has been collected meanwhile.
pub fn is_too_old(config: &Config, now: Now) -> bool {
    // Where deletions are kept for a short time only, the margin must leave some of it.
    let allowed_us = config.tombstones_us - MARGIN_US.min(config.tombstones_us / 2);
    let is_old = |agreed_us| now.wall_us.saturating_sub(agreed_us) > allowed_us;
    config.has_seeds && config.agreed_us.is_some_and(is_old)
}

impl Reconcile {
    /// A node that knows nobody so far.
    pub fn new(config: &Config, now: Now) -> Reconcile {
        Reconcile {
            me: Me {
                name: config.name.clone(),
                started_from_us: config.agreed_us.unwrap_or(0),
                tombstones_us: config.tombstones_us,
                is_reconciled: !config.has_seeds,
                withholds: is_too_old(config, now),
            },
            ids: StreamIds::new(Purpose::Reconcile),
            random: Random::new(config.seed ^ SEED_OF_RECONCILIATION),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            comparison: Comparison::new(),
            asked: None,
            next_us: now.mono_us,
            handled_us: now.mono_us,
            turn: 0,
            fresh_peers: BTreeSet::new(),
            live_peers: 0,
            has_discarded: false,
            agreed_us: config.agreed_us,
            outputs: VecDeque::new(),
            stats: ReconcileStats::default(),
        }
    }

    /// Whether the first reconciliation is done, or there is nobody to reconcile with.
    pub fn is_reconciled(&self) -> bool {
        self.me.is_reconciled
    }

    /// Whether this node's copy is too old and must be dropped before its records count again. It
    /// is kept until there is a member to reload from; then [`ReconcileOutput::Discard`] comes.
    pub fn must_discard(&self) -> bool {
        self.me.withholds && !self.has_discarded
    }

    /// Wall clock when this node last held the same as a member, in microseconds.
    pub fn agreed_us(&self) -> Option<u64> {
        self.agreed_us
    }

    /// Shards that differed from two members running.
    pub fn shards_differing(&self) -> usize {
        self.comparison.suspect()
    }

    /// Counts since the start.
    #[cfg(test)]
    pub fn stats(&self) -> &ReconcileStats {
        &self.stats
    }

    /// What is to be done next.
    pub(super) fn poll_output(&mut self) -> Option<ReconcileOutput> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` wants to be called (`mono_us`).
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.links().any(|link| link.is_runnable) {
            return Some(self.handled_us);
        }
        let ends = self.links().map(|link| link.progress_us.saturating_add(IDLE_US_MAX));
        ends.chain([self.next_us]).min()
    }

    /// Does what is due: ends sessions on which nothing moves, gives one its turn, compares.
    pub fn handle_timeout(&mut self, now: Now, ring: &Ring, heads: HeadsNow, replica: &mut dyn Replica) {
        self.handled_us = now.mono_us;
        self.live_peers = ring.len().saturating_sub(1);
        self.end_idle(now);
        self.take_turn(now, heads, replica);
        if now.mono_us < self.next_us {
            return;
        }
        if self.me.is_reconciled {
            self.next_us = now.mono_us + self.jittered(COMPARE_US);
            self.compare(ring, replica);
        } else {
            self.next_us = now.mono_us + self.jittered(JOIN_RETRY_US);
            let to = self.pick(ring, true).or_else(|| self.pick(ring, false));
            if let Some(to) = to {
                self.begin(now, to, SessionPlan::Whole);
            }
        }
    }

    /// A comparison, or the answer to one, came by datagram.
    pub(super) fn handle_compare(
        &mut self,
        now: Now,
        from: SocketAddr,
        message: &Compare,
        replica: &mut dyn Replica,
    ) {
        self.handled_us = now.mono_us;
        let fingerprints = replica.fingerprints();
        if !message.is_answer {
            self.outputs
                .push_back(ReconcileOutput::Datagram { to: from, message: answer(&fingerprints, message) });
            return;
        }
        let is_expected =
            |asked: &mut AskedComparison| asked.to.gossip == from && asked.nonce == message.nonce;
        let Some(asked) = self.asked.take_if(is_expected) else { return };
        match self.comparison.judge(now, &fingerprints, asked.root, message) {
            CompareVerdict::Equal => self.agreed_us = Some(now.wall_us),
            CompareVerdict::Wait => {}
            CompareVerdict::Reconcile(plan) => self.begin(now, asked.to, plan),
        }
    }

    /// Something happened to a stream of [`Purpose::Reconcile`].
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        event: StreamEvent,
        heads: HeadsNow,
        replica: &mut dyn Replica,
    ) {
        self.handled_us = now.mono_us;
        if let StreamEvent::Accepted { .. } = event {
            self.accept(now, stream);
        } else if let Some(index) = self.outgoing.iter().position(|session| session.link.stream == stream) {
            self.drive_outgoing(now, index, event, heads, replica);
        } else if let Some(index) = self.incoming.iter().position(|session| session.link.stream == stream) {
            self.drive_incoming(now, index, event, heads, replica);
        }
    }

    fn compare(&mut self, ring: &Ring, replica: &mut dyn Replica) {
        let Some(to) = self.pick(ring, false) else {
            self.asked = None;
            return;
        };
        let root = root_of(&replica.fingerprints());
        let nonce = self.random.next_u64() as u32;
        self.stats.compared += 1;
        let message = Compare { root, nonce, is_answer: false, shards: Bytes::new() };
        self.outputs.push_back(ReconcileOutput::Datagram { to: to.gossip, message });
        self.asked = Some(AskedComparison { to, nonce, root });
    }

    /// A random live member other than this one; `is_unmet`: of those not met while joining.
    fn pick(&mut self, ring: &Ring, is_unmet: bool) -> Option<Peer> {
        let entries = ring.entries();
        let start = self.random.index(entries.len());
        let (before, after) = entries.split_at_checked(start)?;
        let mut candidates = after.iter().chain(before);
        candidates
            .find(|entry| {
                let is_met = self.fresh_peers.contains(entry.name());
                *entry.name() != self.me.name && !(is_unmet && is_met)
            })
            .map(|entry| Peer { name: entry.name().clone(), gossip: entry.gossip() })
    }

    /// The interval, an eighth more or less.
    fn jittered(&mut self, interval_us: u64) -> u64 {
        self.random.around_us(interval_us, interval_us / 8)
    }
}
