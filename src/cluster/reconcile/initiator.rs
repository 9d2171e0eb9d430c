//! The end of a session that began it.
//!
//! It opens the shards that differ, a few at a time, answers what the responder asks of each
//! (symbols, or all ids where that is cheaper), and sends the records the responder wants. It does
//! not decode: it learns what it lacks by being sent it.

use std::collections::{BTreeMap, VecDeque};

use super::OLD_ENOUGH_US;
use super::items::{Filter, records_of_shard, set_of_shard};
use super::link::{Env, Link, Report, Step, TURN_COST};
use super::responder::LANES_MAX;
use super::riblt::Encoder;
use super::wire::{Frame, ITEM_BYTES, ShardSet, WireError, pack_heads, unpack_heads};
use crate::cluster::{Heads, StreamId};
use crate::record::{NodeName, Now};

/// Items held for shards under way. A shard that has more goes alone. A responder holds its peer to
/// it.
pub(super) const LANE_ITEMS_MAX: usize = 65_536;
/// Ids in one frame.
const IDS_PER_FRAME: usize = 8_192;
/// What a symbol costs on the wire, in bytes, with its share of the frame.
pub(super) const SYMBOL_BYTES: usize = 22;

/// What to reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// All shards that differ, with all of their records.
    Whole,
    /// Of these shards what is old enough.
    Settled(ShardSet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Greeting,
    Exchanging,
    Finishing,
}

/// What the responder asked for.
#[derive(Debug)]
enum Task {
    /// Symbols or ids of a shard.
    Describe { shard: usize, upto: usize },
    /// Records of a shard: all, or of the sources with these hashes.
    Deliver { shard: usize, wanted: Option<Vec<u64>> },
}

/// A shard under way.
#[derive(Debug)]
struct Lane {
    set: Encoder,
    is_asked: bool,
}

/// The session.
#[derive(Debug)]
pub(super) struct Initiator {
    pub link: Link,
    /// Whether the next turn has something to do.
    pub is_runnable: bool,
    /// With whom, as the ring said.
    pub to: NodeName,
    plan: Plan,
    state: State,
    filter: Filter,
    heads: Heads,
    peer: Option<NodeName>,
    peer_is_reconciled: bool,
    to_open: VecDeque<usize>,
    lanes: BTreeMap<usize, Lane>,
    lane_items: usize,
    tasks: VecDeque<Task>,
    found: u64,
    equal: ShardSet,
}

impl Initiator {
    /// A session whose stream is being connected.
    pub fn new(stream: StreamId, to: NodeName, plan: Plan, seed: u64, now: Now) -> Initiator {
        Initiator {
            link: Link::new(stream, now),
            is_runnable: false,
            to,
            plan,
            state: State::Connecting,
            filter: Filter { seed, ..Filter::default() },
            heads: Heads::new(),
            peer: None,
            peer_is_reconciled: false,
            to_open: VecDeque::new(),
            lanes: BTreeMap::new(),
            lane_items: 0,
            tasks: VecDeque::new(),
            found: 0,
            equal: ShardSet::default(),
        }
    }

    fn is_whole(&self) -> bool {
        self.plan == Plan::Whole
    }

    fn young_us(&self) -> u64 {
        if self.is_whole() { 0 } else { OLD_ENOUGH_US }
    }

    /// The stream stands: greets.
    pub fn opened(&mut self, env: &mut Env<'_>) {
        if self.state != State::Connecting {
            return;
        }
        self.state = State::Greeting;
        self.link.progress_us = env.now.mono_us;
        // The heads are of before all that is shown from here on; the end vouches for no more.
        if self.is_whole() && !env.me.withholds {
            self.heads = (env.heads)();
        }
        self.link.send(Frame::Hello {
            sender: env.me.name.clone(),
            seed: self.filter.seed,
            wall_us: env.now.wall_us,
            young_us: self.young_us(),
            is_reconciled: env.me.is_reconciled,
            fingerprints: Box::new(env.replica.fingerprints()),
        });
        self.link.flush(env);
    }

    /// With whom, if it has greeted and moves.
    pub fn greeted(&self, now: Now) -> Option<&NodeName> {
        (self.state != State::Connecting && self.link.is_moving(now)).then_some(&self.to)
    }

    /// Whether the peer said that its first reconciliation is done.
    pub fn peer_is_reconciled(&self) -> bool {
        self.peer_is_reconciled
    }

    /// Reads all whole frames.
    pub fn read(&mut self, env: &mut Env<'_>) -> Result<Step, WireError> {
        while let Some(frame) = self.link.next_frame()? {
            match self.handle(frame, env)? {
                Step::Going => {}
                end => return Ok(end),
            }
        }
        Ok(Step::Going)
    }

    fn handle(&mut self, frame: Frame, env: &mut Env<'_>) -> Result<Step, WireError> {
        match (self.state, frame) {
            (State::Greeting, Frame::Busy) => return Ok(Step::Refused),
            (State::Greeting, Frame::Welcome { sender, wall_us, is_reconciled, differing }) => {
                self.peer = Some(sender);
                self.welcomed(wall_us, is_reconciled, differing, env);
            }
            (State::Exchanging, Frame::Ask { shard, upto }) => self.asked(shard, upto)?,
            (State::Exchanging, Frame::Records(batch)) => {
                self.link.merge(&batch, Some(&self.filter), env);
            }
            (State::Exchanging, Frame::Settled { shard, found, wanted, wants_all }) => {
                self.settled(shard, found, wanted, wants_all)?;
            }
            (State::Finishing, Frame::Finish { is_complete, heads }) => {
                let peer = self.peer.clone().ok_or(WireError::OutOfTurn("end before the greeting"))?;
                let has_seen = is_complete && self.link.is_clean;
                return Ok(Step::Done(Report {
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
            _ => return Err(WireError::OutOfTurn("to the initiator")),
        }
        Ok(Step::Going)
    }

    fn welcomed(&mut self, wall_us: u64, is_reconciled: bool, differing: ShardSet, env: &Env<'_>) {
        self.state = State::Exchanging;
        self.peer_is_reconciled = is_reconciled;
        self.filter = env.me.filter(self.filter.seed, wall_us, self.young_us());
        let shards = match self.plan {
            Plan::Whole => differing,
            Plan::Settled(shards) => shards.and(&differing),
        };
        self.to_open = shards.iter().collect();
    }

    fn asked(&mut self, shard: usize, upto: usize) -> Result<(), WireError> {
        let lane = self.lanes.get_mut(&shard).ok_or(WireError::OutOfTurn("ask for a shard not open"))?;
        if std::mem::replace(&mut lane.is_asked, true) {
            return Err(WireError::OutOfTurn("two asks for one shard"));
        }
        self.tasks.push_back(Task::Describe { shard, upto });
        Ok(())
    }

    fn settled(&mut self, shard: usize, found: u64, wanted: Vec<u64>, all: bool) -> Result<(), WireError> {
        let lane = self.lanes.remove(&shard).ok_or(WireError::OutOfTurn("a shard not open is settled"))?;
        if lane.is_asked {
            return Err(WireError::OutOfTurn("a shard is settled before the answer"));
        }
        if wanted.len() > lane.set.len() {
            return Err(WireError::OutOfTurn("more is wanted of a shard than it has"));
        }
        self.lane_items -= lane.set.len();
        self.found = self.found.saturating_add(found);
        if found == 0 {
            self.equal.insert(shard);
        }
        if all || !wanted.is_empty() {
            let wanted = (!all).then_some(wanted).map(|mut wanted| {
                wanted.sort_unstable();
                wanted
            });
            self.tasks.push_back(Task::Deliver { shard, wanted });
        }
        Ok(())
    }

    /// Does what there is to do and room for, up to a turn's worth, of which `cost` was spent.
    pub fn work(&mut self, mut cost: usize, env: &mut Env<'_>) {
        self.is_runnable = loop {
            if cost >= TURN_COST {
                break true;
            }
            match self.step(env) {
                Some(more) => cost += more,
                None => break false,
            }
        };
        self.link.flush(env);
    }

    /// One piece of work, and what it cost in records looked at.
    fn step(&mut self, env: &mut Env<'_>) -> Option<usize> {
        if self.state != State::Exchanging || !self.link.has_room() {
            return None;
        }
        if let Some(cost) = self.link.pump(env.stats) {
            return Some(cost);
        }
        match self.tasks.pop_front() {
            Some(Task::Describe { shard, upto }) => return Some(self.describe(shard, upto)),
            Some(Task::Deliver { shard, wanted }) => {
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
            self.link.send(Frame::Finish { is_complete, heads });
            self.state = State::Finishing;
        }
        None
    }

    fn open_next(&mut self, env: &mut Env<'_>) -> Option<usize> {
        let is_full = self.lane_items >= LANE_ITEMS_MAX || self.lanes.len() >= LANES_MAX;
        if is_full {
            return None;
        }
        let shard = self.to_open.pop_front()?;
        let (set, visited) = set_of_shard(env.replica, shard, &self.filter);
        self.link.send(Frame::Open { shard, count: set.len() as u64, fold: set.fold() });
        self.lane_items += set.len();
        self.lanes.insert(shard, Lane { set, is_asked: false });
        Some(visited + 64)
    }

    /// Sends symbols, or all ids where that costs less.
    fn describe(&mut self, shard: usize, upto: usize) -> usize {
        let Some(lane) = self.lanes.get_mut(&shard) else { return 1 };
        lane.is_asked = false;
        if upto.saturating_mul(SYMBOL_BYTES) < lane.set.len() * ITEM_BYTES {
            let symbols = lane.set.extend(upto);
            let cost = lane.set.len() + symbols.len();
            self.link.send(Frame::Symbols { shard, symbols });
            return cost;
        }
        let mut ids: Vec<_> = lane.set.items().collect();
        let cost = ids.len();
        while ids.len() > IDS_PER_FRAME {
            let rest = ids.split_off(IDS_PER_FRAME);
            self.link.send(Frame::Ids { shard, ids, has_more: true });
            ids = rest;
        }
        self.link.send(Frame::Ids { shard, ids, has_more: false });
        cost
    }

    fn has_shown(&self) -> bool {
        self.is_whole() && self.link.is_clean && self.filter.own_since.is_none()
    }
}
