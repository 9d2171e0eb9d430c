//! The work that both ends of a session do in the same way: they keep shards under way within a budget, read
//! frames, and work in turns.

use std::collections::BTreeMap;

use super::link::{SessionEnv, SessionLink, SessionStep};
use super::wire::{FrameError, ReconcileFrame};
use crate::cluster::streams::StreamEvent;

/// Most shards that an initiator has under way at once: while one of them waits for the peer, the others are
/// worked on. A responder lets its peer open one more.
pub(super) const LANES_MAX: usize = 32;
/// Items of the shards under way from which on no further shard is begun. A shard with more items than that
/// goes alone. A responder holds its peer to it, too.
pub(super) const LANE_ITEMS_MAX: usize = 65_536;
/// Bytes of one symbol on the wire, with its share of the frame.
pub(super) const SYMBOL_BYTES: usize = 22;
/// Cost of a turn, in records looked at: about a millisecond of work.
const TURN_COST: usize = 2_048;

/// The shards under way at one end of a session, and how many items they hold in all.
#[derive(Debug)]
pub(super) struct Lanes<L> {
    by_shard: BTreeMap<usize, (L, usize)>,
    items: usize,
}

impl<L> Lanes<L> {
    /// Begins without shards.
    pub fn new() -> Lanes<L> {
        Lanes { by_shard: BTreeMap::new(), items: 0 }
    }

    /// Returns whether the budget of items allows a further shard.
    pub fn has_room(&self) -> bool {
        self.items < LANE_ITEMS_MAX
    }

    /// Number of shards under way.
    pub fn len(&self) -> usize {
        self.by_shard.len()
    }

    /// Returns whether no shard is under way.
    pub fn is_empty(&self) -> bool {
        self.by_shard.is_empty()
    }

    /// Returns whether this shard is under way.
    pub fn contains(&self, shard: usize) -> bool {
        self.by_shard.contains_key(&shard)
    }

    /// The state of every shard under way.
    pub fn iter(&self) -> impl Iterator<Item = &L> {
        self.by_shard.values().map(|(lane, _)| lane)
    }

    /// The state of a shard, if it is under way.
    pub fn get_mut(&mut self, shard: usize) -> Option<&mut L> {
        self.by_shard.get_mut(&shard).map(|(lane, _)| lane)
    }

    /// Begins a shard that holds `items`. The shard must not be under way, and there must be room.
    pub fn begin(&mut self, shard: usize, items: usize, lane: L) {
        debug_assert!(self.has_room() && self.len() <= LANES_MAX);
        self.items += items;
        let before = self.by_shard.insert(shard, (lane, items));
        debug_assert!(before.is_none(), "shard {shard} is begun twice");
        self.check();
    }

    /// Ends a shard, and gives its items back to the budget.
    pub fn end(&mut self, shard: usize) -> Option<L> {
        let (lane, items) = self.by_shard.remove(&shard)?;
        self.items -= items;
        self.check();
        Some(lane)
    }

    /// Asserts that the count of items is that of the shards under way.
    fn check(&self) {
        debug_assert_eq!(self.items, self.by_shard.values().map(|(_, items)| items).sum::<usize>());
    }
}

/// One end of a session: the initiator or the responder.
pub(super) trait SessionEnd {
    /// The side of the stream that this end of the session drives.
    fn link(&mut self) -> &mut SessionLink;

    /// Takes in one frame of the other end.
    fn handle(&mut self, frame: ReconcileFrame, env: &mut SessionEnv<'_>) -> Result<SessionStep, FrameError>;

    /// Does one piece of work, and returns its cost in records looked at. `None`: there is nothing to do, or
    /// no room to send.
    fn step(&mut self, env: &mut SessionEnv<'_>) -> Option<usize>;

    /// Reads all frames that are whole, up to one that ends the session.
    fn read(&mut self, env: &mut SessionEnv<'_>) -> Result<SessionStep, FrameError> {
        while let Some(frame) = self.link().next_frame()? {
            match self.handle(frame, env)? {
                SessionStep::Going => {}
                end => return Ok(end),
            }
        }
        Ok(SessionStep::Going)
    }

    /// Takes in an event of the stream: bytes that arrived are read, and bytes that have left make room.
    /// Other events have no effect.
    fn take_in(&mut self, event: StreamEvent, env: &mut SessionEnv<'_>) -> Result<SessionStep, FrameError> {
        match event {
            StreamEvent::Drained => self.link().drained(env.now),
            StreamEvent::Received(bytes) => {
                self.link().received(&bytes, env);
                return self.read(env);
            }
            StreamEvent::Accepted { .. } | StreamEvent::Opened | StreamEvent::Closed => {}
        }
        Ok(SessionStep::Going)
    }

    /// Takes in an event of the stream, and works if the session goes on. `cost` is the part of the turn that
    /// was used before.
    fn advance(
        &mut self,
        event: StreamEvent,
        cost: usize,
        env: &mut SessionEnv<'_>,
    ) -> Result<SessionStep, FrameError> {
        let step = self.take_in(event, env)?;
        if let SessionStep::Going = step {
            self.work(cost, env);
        }
        Ok(step)
    }

    /// Works until there is nothing to do, no room to send, or the turn is used up. `cost` is the part of the
    /// turn that was used before. Sets whether the next turn has something to do.
    fn work(&mut self, mut cost: usize, env: &mut SessionEnv<'_>) {
        self.link().is_runnable = loop {
            if cost >= TURN_COST {
                break true;
            }
            match self.step(env) {
                Some(more) => cost += more,
                None => break false,
            }
        };
        self.link().flush(env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_shards_under_way_are_counted() {
        let mut lanes = Lanes::new();
        lanes.begin(3, LANE_ITEMS_MAX - 1, "a");
        assert!(lanes.has_room() && lanes.contains(3));
        lanes.begin(4, 7, "b");
        assert!(!lanes.has_room());
        assert_eq!((lanes.len(), lanes.end(3), lanes.end(3)), (2, Some("a"), None));
        assert!(lanes.has_room());
        assert_eq!(lanes.end(4), Some("b"));
        assert!(lanes.is_empty() && lanes.items == 0);
    }
}
