//! Reconciliation: it makes two maps equal again, whatever was lost between them.
//!
//! Spreading delivers nearly everything, and gaps are asked for. What still slips through (a node that just
//! joined, the two sides of a healed partition, a record that no peer repeated in time) is found here: every
//! second a node compares one number with one random member, and when the maps differ for longer than records
//! travel, they open a stream. Both end with the union of their maps, the newer record of every source, at a
//! cost that grows with the difference and not with the maps.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `compare` | comparing by datagram, and judging whether a difference is worth a session |
//! | `sessions` | beginning, driving and ending sessions |
//! | `initiator`, `responder` | the two ends of a session |
//! | `lane` | what both ends do in the same way: shards under way, reading, working in turns |
//! | `link` | the stream of an end: back-pressure, sending and merging records |
//! | `items` | which records take part in a session, and as which items |
//! | `riblt` | finding the difference of two sets |
//! | `wire` | comparisons and frames as bytes |
//!
//! A session is never resumed: the records that came before it broke off have been merged, and the next
//! comparison starts from there. Records that a session brings are not spread again.
//!
//! Two nodes that compare with each other at the same time find the same, so only one of them may act on it:
//! a node that gets the other's greeting before it sent its own ends its own session, and where both have
//! sent greetings, the session of the node with the smaller name is kept. While one of them joins, both
//! sessions are kept, because the session of the other node does not tell the joining node all that it needs.
//!
//! **Deletions.** A deletion that may be collected takes no part: it is neither offered nor taken from a
//! peer, and no session starts again for its sake. A node that was away for longer than deletions are kept
//! might hold values whose deletion nobody remembers. Until its first reconciliation it offers only the
//! records that it accepted itself since it last agreed, and as soon as it meets a member to reload from it
//! asks for its old copy to be dropped ([`ReconcileOutput::Discard`]); this does not happen sooner, since
//! after a power cut of the whole cluster all nodes have been away, and one that drops its copy before it has
//! met another would lose what nobody else has.
//!
//! **Heads.** After a session that left nothing out and lost nothing, each side holds all that the other held
//! when it began, so it may take over the heads the other had then. A session that leaves out young records
//! proves less, and no heads are taken over after it.
//!
//! Rejected: reconciling by heads and logs alone (a node would have to keep every record since the
//! slowest member was last seen); comparing Merkle trees level by level (a round trip a level, and
//! a thousand scattered differences touch all of it).

mod compare;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
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
use super::{Heads, MachineConfig, Replica};
use crate::limits::SHARDS;
use crate::record::{NodeName, Now};

/// Combined with a machine's seed for the random numbers of reconciliation, so that they differ from those of
/// membership.
const SEED_OF_RECONCILIATION: u64 = 0x7265_636f_6e63_696c;
/// Time between two comparisons, give or take an eighth, in microseconds.
const COMPARE_US: u64 = 1_000_000;
/// Time to the next comparison after a session that found something, in microseconds: the next member may
/// need it as well.
const COMPARE_SOON_US: u64 = 250_000;
/// Time after which a node that joins tries another member, in microseconds.
const JOIN_RETRY_US: u64 = 200_000;
/// Age from which on a record counts as settled, in microseconds: younger ones may still be on their way.
const OLD_ENOUGH_US: u64 = 2_000_000;
/// Time without any progress after which a session is ended, in microseconds.
const SESSION_IDLE_US_MAX: u64 = 10_000_000;
/// Time without any progress after which a session does not keep another from being begun, in microseconds.
const SESSION_STALLED_US: u64 = 1_000_000;
/// Most sessions at a time that this node began.
const OUTGOING_MAX: usize = 2;
/// Most sessions at a time that members began. The peers of further ones are told to come back.
const INCOMING_MAX: usize = 8;
/// Most sessions at a time in which strangers have greeted. A node that joins is a stranger for a moment. The
/// peers of further ones are told to come back.
const STRANGER_SESSIONS_MAX: usize = 4;
/// Number of successive comparisons without an answer after which maps are compared on a stream.
const UNANSWERED_MAX: u32 = 4;
/// Number of members without a first reconciliation of their own after which a joining node concludes that
/// the whole cluster is new.
const FRESH_PEERS: usize = 3;
/// Margin by which a copy counts as too old before deletions are collected, in microseconds.
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

/// Counts of reconciliation since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileStats {
    /// Number of comparisons that this node asked for.
    pub compared: u64,
    /// Number of sessions that this node began.
    pub sessions_begun: u64,
    /// Number of sessions that this node accepted.
    pub sessions_accepted: u64,
    /// Number of sessions that this node refused: there were too many, or one with that peer already.
    pub sessions_refused: u64,
    /// Number of sessions, begun or accepted, that were completed.
    pub sessions_finished: u64,
    /// Number of sessions, begun or accepted, that broke off.
    pub sessions_broken: u64,
    /// Number of records sent.
    pub records_sent: u64,
    /// Number of sound records that became the latest of their source.
    pub records_applied: u64,
    /// Number of records received that were damaged or malformed, and were skipped.
    pub records_bad: u64,
}

/// The facts about this node that sessions need.
#[derive(Clone, Debug)]
struct OwnNode {
    name: NodeName,
    /// Wall clock, in microseconds, when this node last agreed with the cluster before this life; 0 if it
    /// never did.
    started_from_us: u64,
    tombstones_us: u64,
    is_reconciled: bool,
    /// Whether this node's copy was too old at the start and has not been reloaded so far.
    withholds: bool,
}

impl OwnNode {
    /// Makes the filter of a session. `earliest_wall_us` and `wall_us` are the earlier and the later one of
    /// the two sides' wall clocks.
    fn filter(&self, seed: u64, (earliest_wall_us, wall_us): (u64, u64), young_us: u64) -> Filter {
        Filter {
            seed,
            wall_us,
            earliest_wall_us,
            tombstones_us: self.tombstones_us,
            accepted_us_max: if young_us == 0 { u64::MAX } else { wall_us.saturating_sub(young_us) },
            own_since: self.withholds.then(|| (self.name.clone(), self.started_from_us)),
        }
    }
}

/// Returns the heads as they are now. They are built only when a session asks for them, once in each.
pub type HeadsNow<'a> = &'a dyn Fn() -> Heads;

/// Name and address of a member, from the ring.
#[derive(Clone, Debug)]
struct Peer {
    name: NodeName,
    gossip: SocketAddr,
}

/// A comparison that this node asked for and that is not answered yet.
#[derive(Clone, Debug)]
struct AskedComparison {
    to: Peer,
    nonce: u32,
    root: u64,
}

/// Keeps this node's map equal to those of the other members.
///
/// Call `handle_*` as things happen, then `poll_output` until it is empty. Call `handle_timeout` at the time
/// that `poll_timeout` returns, which may be at once: work is cut into turns of about a millisecond.
#[derive(Debug)]
pub struct Reconcile {
    me: OwnNode,
    ids: StreamIds,
    random: Random,
    outgoing: Vec<Initiator>,
    incoming: Vec<Responder>,
    comparison: Comparison,
    asked: Option<AskedComparison>,
    /// Number of successive comparisons that were not answered.
    unanswered: u32,
    next_us: u64,
    handled_us: u64,
    turn: usize,
    fresh_peers: BTreeSet<NodeName>,
    has_discarded: bool,
    agreed_us: Option<u64>,
    outputs: VecDeque<ReconcileOutput>,
    stats: ReconcileStats,
}

/// Returns whether the copy of a node that starts with `config` is too old to be believed: it
/// may hold values whose deletion has been collected meanwhile.
pub fn is_too_old(config: &MachineConfig, now: Now) -> bool {
    // Where deletions are kept for a short time only, the margin must leave some of it.
    let allowed_us = config.tombstones_us - MARGIN_US.min(config.tombstones_us / 2);
    let is_old = |agreed_us| now.wall_us.saturating_sub(agreed_us) > allowed_us;
    config.has_seeds && config.agreed_us.is_some_and(is_old)
}

impl Reconcile {
    /// The reconciliation of a node that does not know any other member.
    pub fn new(config: &MachineConfig, now: Now) -> Reconcile {
        Reconcile {
            me: OwnNode {
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
            unanswered: 0,
            next_us: now.mono_us,
            handled_us: now.mono_us,
            turn: 0,
            fresh_peers: BTreeSet::new(),
            has_discarded: false,
            agreed_us: config.agreed_us,
            outputs: VecDeque::new(),
            stats: ReconcileStats::default(),
        }
    }

    /// Returns whether the first reconciliation is done, or there is nobody to reconcile with.
    pub fn is_reconciled(&self) -> bool {
        self.me.is_reconciled
    }

    /// Returns whether this node's copy is too old and must be dropped before its records count again. It
    /// is kept until there is a member to reload from; then [`ReconcileOutput::Discard`] is put out.
    pub fn must_discard(&self) -> bool {
        self.me.withholds && !self.has_discarded
    }

    /// Drops the records of a node that was away for longer than deletions are kept: they may have been
    /// deleted meanwhile, and are read from the others again. Records that this node itself accepted since it
    /// last agreed with the others are kept, since nobody else may have them.
    pub fn discard_old(&self, now: Now, replica: &mut dyn Replica) {
        let mut old = Vec::new();
        for shard in 0..SHARDS {
            replica.visit_shard(shard, &mut |record| {
                let is_own = record.birth.origin == self.me.name;
                if !is_own || record.accepted_us <= self.me.started_from_us {
                    old.push(record.clone());
                }
            });
            old.drain(..).for_each(|record| replica.discard(now, &record));
        }
    }

    /// Wall clock, in microseconds, when this node last held the same as another member.
    pub fn agreed_us(&self) -> Option<u64> {
        self.agreed_us
    }

    /// Number of shards that differed in the last two comparisons, and not harmlessly.
    pub fn shards_differing(&self) -> usize {
        self.comparison.suspect()
    }

    /// Counts since the start.
    #[cfg(test)]
    pub fn stats(&self) -> &ReconcileStats {
        &self.stats
    }

    /// Takes the next thing that is to be done; `None` if there is nothing left.
    pub(super) fn poll_output(&mut self) -> Option<ReconcileOutput> {
        self.outputs.pop_front()
    }

    /// Latest time at which `handle_timeout` must be called, on the monotonic clock in microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.links().any(|link| link.is_runnable) {
            return Some(self.handled_us);
        }
        let ends = self.links().map(|link| link.progress_us.saturating_add(SESSION_IDLE_US_MAX));
        ends.chain([self.next_us]).min()
    }

    /// Does what is due: ends sessions without progress, gives one session its turn, begins a comparison.
    pub fn handle_timeout(&mut self, now: Now, ring: &Ring, heads: HeadsNow, replica: &mut dyn Replica) {
        self.handled_us = now.mono_us;
        self.end_idle(now);
        self.take_turn(now, heads, replica);
        if now.mono_us < self.next_us {
            return;
        }
        if !self.me.is_reconciled && self.is_fresh_cluster(ring) {
            self.handle_reconciled(now);
        }
        if self.me.is_reconciled {
            self.next_us = now.mono_us + self.jittered(COMPARE_US);
            self.compare(now, ring, replica);
        } else {
            self.next_us = now.mono_us + self.jittered(JOIN_RETRY_US);
            let to = self.pick(ring, true).or_else(|| self.pick(ring, false));
            if let Some(to) = to {
                self.begin(now, to, SessionPlan::Whole);
            }
        }
    }

    /// Handles a comparison, or the answer to one, that came in a datagram.
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

    /// Handles an event of a stream of [`Purpose::Reconcile`].
    pub fn handle_stream(
        &mut self,
        now: Now,
        stream: StreamId,
        event: StreamEvent,
        heads: HeadsNow,
        replica: &mut dyn Replica,
    ) {
        self.handled_us = now.mono_us;
        if let Some(index) = self.outgoing.iter().position(|session| session.link.stream == stream) {
            self.drive_outgoing(now, index, event, heads, replica);
        } else if let Some(index) = self.incoming.iter().position(|session| session.link.stream == stream) {
            self.drive_incoming(now, index, event, heads, replica);
        }
    }

    /// Compares maps with a random member. If the last comparisons were not answered, datagrams do not get
    /// through, or the members do not know this node's address: a session is begun, which compares on a stream.
    fn compare(&mut self, now: Now, ring: &Ring, replica: &mut dyn Replica) {
        let Some(to) = self.pick(ring, false) else {
            self.asked = None;
            return;
        };
        self.unanswered = if self.asked.is_some() { self.unanswered + 1 } else { 0 };
        if self.unanswered >= UNANSWERED_MAX {
            (self.unanswered, self.asked) = (0, None);
            return self.begin(now, to, SessionPlan::Whole);
        }
        let root = root_of(&replica.fingerprints());
        let nonce = self.random.next_u64() as u32;
        self.stats.compared += 1;
        let message = Compare { root, nonce, is_answer: false, shards: Bytes::new() };
        self.outputs.push_back(ReconcileOutput::Datagram { to: to.gossip, message });
        self.asked = Some(AskedComparison { to, nonce, root });
    }

    /// Picks a random live member other than this node. With `is_unmet` it must not have been met while
    /// joining.
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

    /// Returns a random interval around `interval_us`, up to an eighth shorter or longer.
    fn jittered(&mut self, interval_us: u64) -> u64 {
        self.random.around_us(interval_us, interval_us / 8)
    }
}
