//! The responder: the end of a session that accepted it, and that decides how each shard is reconciled.
//!
//! For each shard that the initiator opens, the responder picks the cheapest way to find the difference:
//!
//! | the shards are | the responder |
//! | --- | --- |
//! | equal in what takes part | says so |
//! | on one side (nearly) empty | sends all of its records and wants all of theirs |
//! | otherwise | asks for symbols, more and more until they decode; the initiator sends its ids instead as soon as they are cheaper |
//!
//! Then it sends the records that it has and the initiator lacks, and says which it wants. Of a
//! source that differs on both sides it sends its own; the initiator answers with the newer, if
//! that is what it has.

use std::collections::VecDeque;

use super::items::{Filter, compare_lists, records_of_shard, set_of_shard, source_of};
use super::lane::{LANE_ITEMS_MAX, LANES_MAX, Lanes, SYMBOL_BYTES, SessionEnd};
use super::link::{SessionEnv, SessionLink, SessionReport, SessionStep};
use super::riblt::{Decoder, Difference, SetItem, Symbol};
use super::wire::{
    FrameError, HELLO_BYTES_MAX, ITEM_BYTES, ReconcileFrame, ShardSet, pack_heads, unpack_heads,
};
use crate::cluster::{Heads, StreamId};
use crate::limits::STREAM_FRAME_BYTES_MAX;
use crate::record::{NodeName, Now, SharedRecord};

/// Least number of symbols that are asked for at first.
const FIRST_SYMBOLS: usize = 12;
/// Factor between the numbers of records from which on both sides send all of their records: sending some
/// twice then costs less than finding out which differ.
const ONE_SIDED: u64 = 16;
/// Most symbols of one shard. Where these do not decode, all ids are asked for.
const SYMBOLS_MAX: usize = 65_536;
/// Most ids of one shard, of 16 bytes each. With 256 shards that is a quarter of a billion records.
const IDS_MAX: u64 = 1 << 20;

/// A shard that the initiator opened and that waits for its turn.
#[derive(Debug)]
struct OpenedShard {
    shard: usize,
    count: u64,
    fold: u64,
}

/// The state of a shard under way at the responder: its difference is being found.
#[derive(Debug)]
struct DecodingLane {
    decoder: Decoder,
    /// Number of symbols that were asked for in all; `usize::MAX` if the ids were asked for, since symbols do
    /// not help.
    asked: usize,
    count: u64,
    ids: Vec<SetItem>,
    is_answered: bool,
}

/// The description of a shard that the initiator sent.
#[derive(Debug)]
enum ShardAnswer {
    Symbols(Vec<Symbol>),
    AllIds,
}

/// Returns the number of symbols to ask for, or `usize::MAX`, which asks for the ids, if there would be too
/// many.
fn bounded(symbols: usize) -> usize {
    if symbols <= SYMBOLS_MAX { symbols } else { usize::MAX }
}

/// The responder's end of a session.
#[derive(Debug)]
pub(super) struct Responder {
    /// The responder's end of the stream.
    pub link: SessionLink,
    /// Whether the peer is a member, and not a stranger.
    pub is_member: bool,
    filter: Option<Filter>,
    young_us: u64,
    peer: Option<NodeName>,
    peer_is_reconciled: bool,
    heads: Heads,
    opened: VecDeque<OpenedShard>,
    lanes: Lanes<DecodingLane>,
    answers: VecDeque<(usize, ShardAnswer)>,
    /// Frame that is to be sent after the records that wait.
    closing: Option<ReconcileFrame>,
    found: u64,
    equal: ShardSet,
}

impl Responder {
    /// Begins a session whose stream was accepted. Until the peer has greeted, it may send no more than a
    /// greeting.
    pub fn new(stream: StreamId, is_member: bool, now: Now) -> Responder {
        let mut link = SessionLink::new(stream, now);
        link.set_frame_bytes_max(HELLO_BYTES_MAX);
        Responder {
            link,
            is_member,
            filter: None,
            young_us: 0,
            peer: None,
            peer_is_reconciled: false,
            heads: Heads::new(),
            opened: VecDeque::new(),
            lanes: Lanes::new(),
            answers: VecDeque::new(),
            closing: None,
            found: 0,
            equal: ShardSet::default(),
        }
    }

    /// Returns whether the peer has greeted.
    pub fn is_greeted(&self) -> bool {
        self.filter.is_some()
    }

    /// Returns whether the peer's first reconciliation was done when it greeted.
    pub fn peer_is_reconciled(&self) -> bool {
        self.peer_is_reconciled
    }

    /// Returns whether the session is with this peer, which has reconciled before, and makes progress.
    pub fn is_with(&self, peer: &NodeName, now: Now) -> bool {
        self.peer.as_ref() == Some(peer) && self.peer_is_reconciled && self.link.is_moving(now)
    }

    /// Handles the initiator's greeting: answers it, or refuses the session if there are too many, or if this
    /// node keeps its own with the same peer.
    fn greeted(
        &mut self,
        frame: ReconcileFrame,
        env: &mut SessionEnv<'_>,
    ) -> Result<SessionStep, FrameError> {
        let ReconcileFrame::Hello { sender, seed, wall_us, young_us, is_reconciled, fingerprints } = frame
        else {
            return Err(FrameError::OutOfTurn("before the greeting"));
        };
        let is_rival = env.greeted == Some(&sender) && env.me.name < sender;
        if env.is_full || is_rival && is_reconciled && env.me.is_reconciled {
            self.link.send(ReconcileFrame::Busy);
            self.link.flush(env);
            return Ok(SessionStep::Refused);
        }
        self.link.set_frame_bytes_max(STREAM_FRAME_BYTES_MAX);
        // The heads are taken before any record is sent: at its end the session proves no more than them.
        if young_us == 0 && !env.me.withholds {
            self.heads = (env.heads)();
        }
        let clocks_us = (wall_us.min(env.now.wall_us), wall_us.max(env.now.wall_us));
        self.filter = Some(env.me.filter(seed, clocks_us, young_us));
        self.young_us = young_us;
        self.peer = Some(sender);
        self.peer_is_reconciled = is_reconciled;
        let mut differing = ShardSet::default();
        for (shard, (own, their)) in env.replica.fingerprints().iter().zip(fingerprints.iter()).enumerate() {
            if own != their {
                differing.insert(shard);
            }
        }
        let (sender, is_reconciled) = (env.me.name.clone(), env.me.is_reconciled);
        self.link.send(ReconcileFrame::Welcome { sender, clocks_us, is_reconciled, differing });
        Ok(SessionStep::Going)
    }

    /// Takes in a shard that the initiator opened, within the bounds that it must keep.
    fn open(&mut self, opened: OpenedShard) -> Result<(), FrameError> {
        let is_known =
            self.lanes.contains(opened.shard) || self.opened.iter().any(|other| other.shard == opened.shard);
        if is_known || self.lanes.len() + self.opened.len() > LANES_MAX {
            return Err(FrameError::OutOfTurn("a shard is opened too often, or too many are"));
        }
        // The peer may send no more items than it says it has in all of these shards.
        let lanes = self.lanes.iter().map(|lane| lane.count);
        let counts = lanes.chain(self.opened.iter().map(|other| other.count));
        if counts.fold(0, u64::saturating_add) >= LANE_ITEMS_MAX as u64 {
            return Err(FrameError::OutOfTurn("shards with too many records are opened"));
        }
        self.opened.push_back(opened);
        Ok(())
    }

    fn take_symbols(&mut self, shard: usize, symbols: Vec<Symbol>) -> Result<(), FrameError> {
        let lane = self.lanes.get_mut(shard).ok_or(FrameError::OutOfTurn("symbols not asked for"))?;
        let count = lane.decoder.taken() + symbols.len();
        // A peer sends its ids where they cost less, so its symbols are fewer than its records.
        let is_cheaper = (count * SYMBOL_BYTES) as u64 <= lane.count.saturating_mul(ITEM_BYTES as u64);
        let is_asked = !symbols.is_empty() && count <= lane.asked && lane.asked <= SYMBOLS_MAX && is_cheaper;
        if std::mem::replace(&mut lane.is_answered, true) || !is_asked {
            return Err(FrameError::OutOfTurn("symbols not asked for"));
        }
        self.answers.push_back((shard, ShardAnswer::Symbols(symbols)));
        Ok(())
    }

    fn take_ids(&mut self, shard: usize, ids: Vec<SetItem>, has_more: bool) -> Result<(), FrameError> {
        let lane = self.lanes.get_mut(shard).ok_or(FrameError::OutOfTurn("ids not asked for"))?;
        let count = lane.ids.len() as u64 + ids.len() as u64;
        let is_endless = has_more && ids.is_empty();
        if lane.is_answered || is_endless || count > lane.count.min(IDS_MAX) {
            return Err(FrameError::OutOfTurn("ids not asked for"));
        }
        lane.ids.extend(ids);
        if !has_more {
            lane.is_answered = true;
            self.answers.push_back((shard, ShardAnswer::AllIds));
        }
        Ok(())
    }

    /// Handles the initiator's last frame: answers it with this node's own, and returns the result.
    fn finish(
        &mut self,
        is_complete: bool,
        heads: &[u8],
        env: &mut SessionEnv<'_>,
    ) -> Result<SessionReport, FrameError> {
        let is_idle = self.lanes.is_empty() && self.opened.is_empty() && self.closing.is_none();
        if !is_idle || !self.link.is_idle() {
            return Err(FrameError::OutOfTurn("an end in the middle"));
        }
        let is_open = self.filter.as_ref().is_some_and(|filter| filter.own_since.is_none());
        let peer = self.peer.clone().ok_or(FrameError::OutOfTurn("an end before the greeting"))?;
        let has_shown = self.young_us == 0 && self.link.is_clean && is_open;
        let own = if has_shown { pack_heads(&self.heads) } else { Default::default() };
        self.link.send(ReconcileFrame::Finish { is_complete: has_shown, heads: own });
        self.link.flush(env);
        let has_seen = is_complete && self.link.is_clean;
        Ok(SessionReport {
            peer,
            peer_has_shown: is_complete,
            peer_is_reconciled: self.peer_is_reconciled,
            is_whole: self.young_us == 0,
            found: self.found,
            equal: self.equal,
            has_shown,
            has_seen,
            heads: if has_seen { unpack_heads(heads)? } else { Heads::new() },
        })
    }

    /// Begins a shard in the way that is cheapest for it. Returns the cost in records looked at.
    fn begin(&mut self, opened: OpenedShard, filter: &Filter, env: &mut SessionEnv<'_>) -> usize {
        let OpenedShard { shard, count, fold } = opened;
        if count == 0 {
            let records = records_of_shard(env.replica, shard, filter, None);
            let found = records.len() as u64;
            return self.send_all(shard, records, found, false);
        }
        let (set, visited) = set_of_shard(env.replica, shard, filter);
        let own_count = set.len() as u64;
        if (count, fold) == (own_count, set.fold()) {
            self.equal.insert(shard);
            self.link.send(ReconcileFrame::Settled { shard, found: 0, wanted: Vec::new(), wants_all: false });
            return visited + 64;
        }
        if count.min(own_count).saturating_mul(ONE_SIDED) <= count.max(own_count) {
            let records = records_of_shard(env.replica, shard, filter, None);
            return visited + self.send_all(shard, records, count.abs_diff(own_count).max(1), true);
        }
        let least = usize::try_from(count.abs_diff(own_count)).unwrap_or(usize::MAX);
        let asked = bounded(least.saturating_add(least / 2).max(FIRST_SYMBOLS));
        self.link.send(ReconcileFrame::Ask { shard, upto: asked });
        let items = set.len();
        let decoder = Decoder::new(set, filter.seed);
        let lane = DecodingLane { decoder, asked, count, ids: Vec::new(), is_answered: false };
        self.lanes.begin(shard, items, lane);
        visited + 64
    }

    fn send_all(&mut self, shard: usize, records: Vec<SharedRecord>, found: u64, wants_all: bool) -> usize {
        let cost = records.len() + 64;
        self.found = self.found.saturating_add(found);
        if found == 0 {
            self.equal.insert(shard);
        }
        self.link.send_records(records);
        self.closing = Some(ReconcileFrame::Settled { shard, found, wanted: Vec::new(), wants_all });
        cost
    }

    /// Takes in an answer about a shard, and settles the shard or asks for more. Returns the cost in records
    /// looked at.
    fn advance(
        &mut self,
        shard: usize,
        answer: ShardAnswer,
        filter: &Filter,
        env: &mut SessionEnv<'_>,
    ) -> usize {
        let Some(lane) = self.lanes.get_mut(shard) else { return 1 };
        let cost = lane.decoder.own().len() + 64;
        let difference = match answer {
            ShardAnswer::Symbols(symbols) => {
                let is_found = lane.decoder.absorb(&symbols);
                if matches!(is_found, Ok(true)) {
                    None
                } else {
                    let taken = lane.decoder.taken();
                    // Thin differences are asked for in small steps: over all shards a symbol too
                    // many costs as much as a record, and other lanes hide the round trip.
                    let more = taken + if taken < 4 * FIRST_SYMBOLS { taken / 3 } else { taken / 2 };
                    // These symbols belong to no set: only the ids can help.
                    lane.asked = if is_found.is_err() { usize::MAX } else { bounded(more) };
                    lane.is_answered = false;
                    self.link.send(ReconcileFrame::Ask { shard, upto: lane.asked });
                    return cost;
                }
            }
            ShardAnswer::AllIds => {
                let mut theirs = std::mem::take(&mut lane.ids);
                theirs.sort_unstable();
                Some(compare_lists(&theirs, &lane.decoder.own().items().collect::<Vec<_>>()))
            }
        };
        let Some(lane) = self.lanes.end(shard) else { return cost };
        let difference = difference.unwrap_or_else(|| lane.decoder.into_difference());
        self.settle(shard, &difference, filter, env);
        cost * 2
    }

    /// Sends the records that the initiator lacks, and queues the frame that says which it is to send.
    fn settle(&mut self, shard: usize, difference: &Difference, filter: &Filter, env: &mut SessionEnv<'_>) {
        let sources = |items: &[SetItem]| {
            let mut sources: Vec<u64> = items.iter().copied().map(source_of).collect();
            sources.sort_unstable();
            sources
        };
        let (mut wanted, ours) = (sources(&difference.theirs), sources(&difference.ours));
        wanted.retain(|source| ours.binary_search(source).is_err());
        let found = wanted.len() as u64 + ours.len() as u64;
        self.found = self.found.saturating_add(found);
        if !ours.is_empty() {
            self.link.send_records(records_of_shard(env.replica, shard, filter, Some(&ours)));
        }
        self.closing = Some(ReconcileFrame::Settled { shard, found, wanted, wants_all: false });
    }
}

impl SessionEnd for Responder {
    fn link(&mut self) -> &mut SessionLink {
        &mut self.link
    }

    fn handle(&mut self, frame: ReconcileFrame, env: &mut SessionEnv<'_>) -> Result<SessionStep, FrameError> {
        if self.filter.is_none() {
            return self.greeted(frame, env);
        }
        match frame {
            ReconcileFrame::Open { shard, count, fold } => self.open(OpenedShard { shard, count, fold })?,
            ReconcileFrame::Symbols { shard, symbols } => self.take_symbols(shard, symbols)?,
            ReconcileFrame::Ids { shard, ids, has_more } => self.take_ids(shard, ids, has_more)?,
            ReconcileFrame::Records(batch) => self.link.merge(&batch, None, env),
            ReconcileFrame::Finish { is_complete, heads } => {
                return self.finish(is_complete, &heads, env).map(SessionStep::Done);
            }
            _ => return Err(FrameError::OutOfTurn("to the responder")),
        }
        Ok(SessionStep::Going)
    }

    fn step(&mut self, env: &mut SessionEnv<'_>) -> Option<usize> {
        let filter = self.filter.clone()?;
        if !self.link.has_room() {
            return None;
        }
        if let Some(cost) = self.link.pump(env.stats) {
            return Some(cost);
        }
        if let Some(frame) = self.closing.take() {
            self.link.send(frame);
            return Some(1);
        }
        // Answers come first: they end shards under way, and so make room for those that wait.
        if let Some((shard, answer)) = self.answers.pop_front() {
            return Some(self.advance(shard, answer, &filter, env));
        }
        if !self.lanes.has_room() {
            return None;
        }
        let opened = self.opened.pop_front()?;
        Some(self.begin(opened, &filter, env))
    }
}
