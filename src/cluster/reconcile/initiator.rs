//! The initiator: the end of a session that began it.
//!
//! It opens the shards that differ, a few at a time, answers what the responder asks of each
//! (symbols, or all ids where that is cheaper), and sends the records the responder wants. It does
//! not decode: it learns what it lacks by being sent it.

use std::collections::VecDeque;

use super::OLD_ENOUGH_US;
use super::items::{Filter, records_of_shard, set_of_shard};
use super::lane::{LANES_MAX, Lanes, SYMBOL_BYTES, SessionEnd};
use super::link::{SessionEnv, SessionLink, SessionReport, SessionStep};
use super::riblt::Encoder;
use super::wire::{FrameError, ITEM_BYTES, ReconcileFrame, ShardSet, pack_heads, unpack_heads};
use crate::cluster::{Heads, StreamId};
use crate::record::{NodeName, Now};

/// Most ids in one frame.
const IDS_PER_FRAME: usize = 8_192;

/// The choice of records that a session compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionPlan {
    /// All records of all shards that differ.
    Whole,
    /// The records of these shards that are old enough to have settled.
    Settled(ShardSet),
}

/// The phases of a session at the initiator, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Greeting,
    Exchanging,
    Finishing,
}

/// A request of the responder.
#[derive(Debug)]
enum Request {
    /// Send the symbols of a shard up to `upto`, or all of its ids.
    Describe { shard: usize, upto: usize },
    /// Send records of a shard: all, or those of the sources with these hashes.
    Deliver { shard: usize, wanted: Option<Vec<u64>> },
}

/// The state of a shard under way at the initiator.
#[derive(Debug)]
struct EncodingLane {
    set: Encoder,
    is_asked: bool,
}

/// The initiator's end of a session.
#[derive(Debug)]
pub(super) struct Initiator {
    /// The initiator's end of the stream.
    pub link: SessionLink,
    /// Name of the peer, taken from the ring.
    pub to: NodeName,
    plan: SessionPlan,
    phase: Phase,
    filter: Filter,
    heads: Heads,
    peer: Option<NodeName>,
    peer_is_reconciled: bool,
    to_open: VecDeque<usize>,
    lanes: Lanes<EncodingLane>,
    requests: VecDeque<Request>,
    found: u64,
    equal: ShardSet,
}

impl Initiator {
    /// Begins a session whose stream is being connected.
    pub fn new(stream: StreamId, to: NodeName, plan: SessionPlan, seed: u64, now: Now) -> Initiator {
        Initiator {
            link: SessionLink::new(stream, now),
            to,
            plan,
            phase: Phase::Connecting,
            filter: Filter { seed, ..Filter::default() },
            heads: Heads::new(),
            peer: None,
            peer_is_reconciled: false,
            to_open: VecDeque::new(),
            lanes: Lanes::new(),
            requests: VecDeque::new(),
            found: 0,
            equal: ShardSet::default(),
        }
    }

    fn is_whole(&self) -> bool {
        self.plan == SessionPlan::Whole
    }

    fn young_us(&self) -> u64 {
        if self.is_whole() { 0 } else { OLD_ENOUGH_US }
    }

    /// Greets the peer, once the stream is open.
    pub fn opened(&mut self, env: &mut SessionEnv<'_>) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.phase = Phase::Greeting;
        self.link.progress_us = env.now.mono_us;
        // The heads are taken before any record is sent: at its end the session proves no more than them.
        if self.is_whole() && !env.me.withholds {
            self.heads = (env.heads)();
        }
        self.link.send(ReconcileFrame::Hello {
            sender: env.me.name.clone(),
            seed: self.filter.seed,
            wall_us: env.now.wall_us,
            young_us: self.young_us(),
            is_reconciled: env.me.is_reconciled,
            fingerprints: Box::new(env.replica.fingerprints()),
        });
        self.link.flush(env);
    }

    /// Name of the peer, if it was greeted and the session makes progress.
    pub fn greeted(&self, now: Now) -> Option<&NodeName> {
        (self.phase != Phase::Connecting && self.link.is_moving(now)).then_some(&self.to)
    }

    /// Returns whether the peer said that its first reconciliation is done.
    pub fn peer_is_reconciled(&self) -> bool {
        self.peer_is_reconciled
    }

    fn welcomed(
        &mut self,
        clocks_us: (u64, u64),
        is_reconciled: bool,
        differing: ShardSet,
        env: &SessionEnv<'_>,
    ) {
        self.phase = Phase::Exchanging;
        self.peer_is_reconciled = is_reconciled;
        self.filter = env.me.filter(self.filter.seed, clocks_us, self.young_us());
        let shards = match self.plan {
            SessionPlan::Whole => differing,
            SessionPlan::Settled(shards) => shards.and(&differing),
        };
        self.to_open = shards.iter().collect();
    }

    fn asked(&mut self, shard: usize, upto: usize) -> Result<(), FrameError> {
        let lane = self.lanes.get_mut(shard).ok_or(FrameError::OutOfTurn("ask for a shard not open"))?;
        if std::mem::replace(&mut lane.is_asked, true) {
            return Err(FrameError::OutOfTurn("two asks for one shard"));
        }
        self.requests.push_back(Request::Describe { shard, upto });
        Ok(())
    }

    /// Ends a shard whose difference the responder has found, and queues the records that it wants.
    fn settled(&mut self, shard: usize, found: u64, wanted: Vec<u64>, all: bool) -> Result<(), FrameError> {
        let lane = self.lanes.end(shard).ok_or(FrameError::OutOfTurn("a shard not open is settled"))?;
        if lane.is_asked {
            return Err(FrameError::OutOfTurn("a shard is settled before the answer"));
        }
        if wanted.len() > lane.set.len() {
            return Err(FrameError::OutOfTurn("more is wanted of a shard than it has"));
        }
        self.found = self.found.saturating_add(found);
        if found == 0 {
            self.equal.insert(shard);
        }
        if all || !wanted.is_empty() {
            let wanted = (!all).then_some(wanted).map(|mut wanted| {
                wanted.sort_unstable();
                wanted
            });
            self.requests.push_back(Request::Deliver { shard, wanted });
        }
        Ok(())
    }

    fn open_next(&mut self, env: &mut SessionEnv<'_>) -> Option<usize> {
        if !self.lanes.has_room() || self.lanes.len() >= LANES_MAX {
            return None;
        }
        let shard = self.to_open.pop_front()?;
        let (set, visited) = set_of_shard(env.replica, shard, &self.filter);
        self.link.send(ReconcileFrame::Open { shard, count: set.len() as u64, fold: set.fold() });
        self.lanes.begin(shard, set.len(), EncodingLane { set, is_asked: false });
        Some(visited + 64)
    }

    /// Sends the symbols of a shard up to `upto`, or all of its ids where that costs less. Returns the cost
    /// in records looked at.
    fn describe(&mut self, shard: usize, upto: usize) -> usize {
        let Some(lane) = self.lanes.get_mut(shard) else { return 1 };
        lane.is_asked = false;
        if upto.saturating_mul(SYMBOL_BYTES) < lane.set.len() * ITEM_BYTES {
            let symbols = lane.set.extend(upto);
            let cost = lane.set.len() + symbols.len();
            self.link.send(ReconcileFrame::Symbols { shard, symbols });
            return cost;
        }
        let mut ids: Vec<_> = lane.set.items().collect();
        let cost = ids.len();
        while ids.len() > IDS_PER_FRAME {
            let rest = ids.split_off(IDS_PER_FRAME);
            self.link.send(ReconcileFrame::Ids { shard, ids, has_more: true });
            ids = rest;
        }
        self.link.send(ReconcileFrame::Ids { shard, ids, has_more: false });
        cost
    }

    fn has_shown(&self) -> bool {
        self.is_whole() && self.link.is_clean && self.filter.own_since.is_none()
    }
}

impl SessionEnd for Initiator {
    fn link(&mut self) -> &mut SessionLink {
        &mut self.link
    }

    fn handle(&mut self, frame: ReconcileFrame, env: &mut SessionEnv<'_>) -> Result<SessionStep, FrameError> {
        match (self.phase, frame) {
            (Phase::Greeting, ReconcileFrame::Busy) => return Ok(SessionStep::Refused),
            (Phase::Greeting, ReconcileFrame::Welcome { sender, clocks_us, is_reconciled, differing }) => {
                self.peer = Some(sender);
                self.welcomed(clocks_us, is_reconciled, differing, env);
            }
            (Phase::Exchanging, ReconcileFrame::Ask { shard, upto }) => self.asked(shard, upto)?,
            (Phase::Exchanging, ReconcileFrame::Records(batch)) => {
                self.link.merge(&batch, Some(&self.filter), env);
            }
            (Phase::Exchanging, ReconcileFrame::Settled { shard, found, wanted, wants_all }) => {
                self.settled(shard, found, wanted, wants_all)?;
            }
            (Phase::Finishing, ReconcileFrame::Finish { is_complete, heads }) => {
                let peer = self.peer.clone().ok_or(FrameError::OutOfTurn("end before the greeting"))?;
                let has_seen = is_complete && self.link.is_clean;
                return Ok(SessionStep::Done(SessionReport {
                    peer,
                    peer_has_shown: is_complete,
                    peer_is_reconciled: self.peer_is_reconciled,
                    is_whole: self.is_whole(),
                    found: self.found,
                    equal: self.equal,
                    has_shown: self.has_shown(),
                    has_seen,
                    heads: if has_seen { unpack_heads(&heads)? } else { Heads::new() },
                }));
            }
            _ => return Err(FrameError::OutOfTurn("to the initiator")),
        }
        Ok(SessionStep::Going)
    }

    fn step(&mut self, env: &mut SessionEnv<'_>) -> Option<usize> {
        if self.phase != Phase::Exchanging || !self.link.has_room() {
            return None;
        }
        if let Some(cost) = self.link.pump(env.stats) {
            return Some(cost);
        }
        match self.requests.pop_front() {
            Some(Request::Describe { shard, upto }) => return Some(self.describe(shard, upto)),
            Some(Request::Deliver { shard, wanted }) => {
                let records = records_of_shard(env.replica, shard, &self.filter, wanted.as_deref());
                let cost = records.len() + 64;
                self.link.send_records(records);
                return Some(cost);
            }
            None => {}
        }
        if !self.to_open.is_empty() {
            return self.open_next(env);
        }
        if self.lanes.is_empty() {
            let is_complete = self.has_shown();
            let heads = if is_complete { pack_heads(&self.heads) } else { Default::default() };
            self.link.send(ReconcileFrame::Finish { is_complete, heads });
            self.phase = Phase::Finishing;
        }
        None
    }
}
