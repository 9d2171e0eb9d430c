//! The queue of future events, in order of time and, within an instant, in the order in which they were
//! decided.
//!
//! Nearly everything happens within milliseconds: datagrams arrive, receipts are due. So the coming
//! 16 ms have a list for every microsecond, and a bitmap of the lists that are not empty; later events
//! wait in a heap of small keys until their time is near. Events themselves never move. Rejected: one
//! heap of all events, which moves every event a dozen times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::place::{NodeId, Place};
use crate::cluster::{StreamEvent, StreamId};

/// Something that happens at one instant of the world.
#[derive(Debug)]
pub(super) enum SimEvent {
    /// A datagram arrives, at the node that listens there by then.
    Datagram { from: Place, to: Place, bytes: Bytes },
    /// Something happens on a connection of a node. It counts only in the life `life` of the node.
    Stream { to: NodeId, life: u32, stream: StreamId, event: StreamEvent },
    /// A request for a connection arrives at an address.
    Connect { from: NodeId, life: u32, stream: StreamId, to: Place },
    /// A machine's timeout is due, unless its node has a newer token.
    Wake { node: NodeId, token: u64 },
    /// A node that was busy reads its sockets.
    Turn { node: NodeId, life: u32 },
    /// A paused process goes on.
    Resume { node: NodeId, life: u32 },
    /// A datagram arrives that the node was called with ahead of time.
    Done { node: NodeId },
}

/// Number of microseconds that have a list of their own.
const NEAR_US: usize = 1 << 14;
/// Index that ends a list.
const NONE: u32 = u32::MAX;

/// First and last event of one microsecond, as indexes of entries.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// A list without events.
const EMPTY: List = List { first: NONE, last: NONE };

/// An event with its link to the next one.
#[derive(Debug)]
struct Entry {
    /// The event; `None`: the entry is free.
    event: Option<SimEvent>,
    /// Index of the next entry in the list, or of the next free entry.
    next: u32,
}

/// All events that will happen.
#[derive(Debug)]
pub(super) struct EventQueue {
    entries: Vec<Entry>,
    free: u32,
    /// Time of the first list in microseconds: a multiple of [`NEAR_US`].
    base_us: u64,
    lists: Box<[List]>,
    /// A bit for every list that is not empty.
    filled: Box<[u64]>,
    /// No event in the lists is earlier than this.
    near_from_us: u64,
    /// Number of events in the lists.
    near: usize,
    /// Later events, by time and then by order: (time in microseconds, order, index of the entry).
    far: BinaryHeap<Reverse<(u64, u64, u32)>>,
    pushed: u64,
}

impl Default for EventQueue {
    fn default() -> EventQueue {
        EventQueue {
            entries: Vec::new(),
            free: NONE,
            base_us: 0,
            lists: vec![EMPTY; NEAR_US].into(),
            filled: vec![0; NEAR_US / 64].into(),
            near_from_us: 0,
            near: 0,
            far: BinaryHeap::new(),
            pushed: 0,
        }
    }
}

impl EventQueue {
    /// Adds an event. An event for a time that has passed happens next.
    pub fn push(&mut self, at_us: u64, event: SimEvent) {
        let at_us = at_us.max(self.near_from_us);
        let entry = Entry { event: Some(event), next: NONE };
        let index = if self.free == NONE {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            self.entries[index as usize] = entry;
            index
        };
        if at_us < self.base_us + NEAR_US as u64 {
            return self.append(at_us, index);
        }
        self.pushed += 1;
        self.far.push(Reverse((at_us, self.pushed, index)));
    }

    /// Returns the time of the next event, if that is not later than `end_us`.
    pub fn reach(&mut self, end_us: u64) -> Option<u64> {
        if self.near == 0 {
            let &Reverse((next_us, ..)) = self.far.peek()?;
            if next_us > end_us {
                return None;
            }
            self.advance(next_us);
        }
        self.next_us().filter(|next_us| *next_us <= end_us)
    }

    /// Takes the next event and its time, if that is not later than `end_us`.
    pub fn pop_until(&mut self, end_us: u64) -> Option<(u64, SimEvent)> {
        let at_us = self.reach(end_us)?;
        debug_assert!(at_us >= self.near_from_us, "time never goes back");
        self.near_from_us = at_us;
        let place = (at_us - self.base_us) as usize;
        let index = self.lists[place].first;
        let entry = &mut self.entries[index as usize];
        let event = entry.event.take()?;
        self.lists[place].first = entry.next;
        if entry.next == NONE {
            self.lists[place] = EMPTY;
            self.filled[place / 64] &= !(1 << (place % 64));
        }
        entry.next = self.free;
        self.free = index;
        self.near -= 1;
        Some((at_us, event))
    }

    /// Returns the next events in order, as far as the lists reach.
    pub fn coming(&self) -> impl Iterator<Item = &SimEvent> {
        let from = self.near_from_us.saturating_sub(self.base_us) as usize;
        let mut place = Some(from);
        let mut at = self.lists.get(from).map_or(NONE, |list| list.first);
        std::iter::from_fn(move || {
            while at == NONE {
                place = self.filled_from(place? + 1);
                at = self.lists.get(place?)?.first;
            }
            let entry = self.entries.get(at as usize)?;
            at = entry.next;
            entry.event.as_ref()
        })
    }

    /// Shows the events before `end_us`, in order, as far as the lists reach and until `show` returns false.
    /// Returns the time before which all events were shown.
    pub fn show_until(&mut self, end_us: u64, mut show: impl FnMut(u64, &mut SimEvent) -> bool) -> u64 {
        let end_us = end_us.min(self.base_us + NEAR_US as u64);
        let mut from = self.near_from_us.saturating_sub(self.base_us) as usize;
        while let Some(place) = self.filled_from(from) {
            let at_us = self.base_us + place as u64;
            if at_us >= end_us {
                break;
            }
            let mut at = self.lists[place].first;
            while let Some(entry) = self.entries.get_mut(at as usize) {
                if entry.event.as_mut().is_some_and(|event| !show(at_us, event)) {
                    return at_us;
                }
                at = entry.next;
            }
            from = place + 1;
        }
        end_us
    }

    /// Moves the lists to the time around `to_us`. Events that waited in the heap for that time were decided
    /// before all that are added from now on, so they are the first in their lists.
    fn advance(&mut self, to_us: u64) {
        self.base_us = to_us - to_us % NEAR_US as u64;
        self.near_from_us = to_us;
        while let Some(&Reverse((at_us, _, index))) = self.far.peek()
            && at_us < self.base_us + NEAR_US as u64
        {
            self.far.pop();
            self.append(at_us, index);
        }
    }

    fn append(&mut self, at_us: u64, index: u32) {
        let place = (at_us - self.base_us) as usize;
        let list = &mut self.lists[place];
        match list.last {
            NONE => {
                list.first = index;
                self.filled[place / 64] |= 1 << (place % 64);
            }
            last => self.entries[last as usize].next = index,
        }
        list.last = index;
        self.near += 1;
    }

    /// Returns the time of the first list that is not empty.
    fn next_us(&self) -> Option<u64> {
        let from = self.near_from_us.saturating_sub(self.base_us) as usize;
        self.filled_from(from).map(|place| self.base_us + place as u64)
    }

    /// Returns the first list that is not empty, from this one on.
    fn filled_from(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.filled.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.filled.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(event: &SimEvent) -> u64 {
        if let SimEvent::Wake { token, .. } = event { *token } else { u64::MAX }
    }

    proptest! {
        #[test]
        fn is_in_order_of_time_and_decision(
            steps in proptest::collection::vec((0usize..6, 0u64..60_000, 0u64..40_000), 1..60),
        ) {
            let (mut queue, mut model) = (EventQueue::default(), std::collections::BTreeMap::new());
            let (mut now_us, mut pushed) = (0, 0);
            for (pushes, spread_us, wait_us) in steps {
                for n in 0..pushes as u64 {
                    let at_us = now_us + spread_us * n / 3;
                    pushed += 1;
                    queue.push(at_us, SimEvent::Wake { node: NodeId(0), token: pushed });
                    model.insert((at_us, pushed), ());
                }
                let end_us = now_us + wait_us;
                while let Some((at_us, event)) = queue.pop_until(end_us) {
                    let ((expected_us, expected), ()) = model.pop_first().expect("no more than was put in");
                    prop_assert_eq!((at_us, token(&event)), (expected_us, expected));
                }
                prop_assert!(model.keys().next().is_none_or(|next| next.0 > end_us));
                now_us = end_us;
            }
        }
    }
}
