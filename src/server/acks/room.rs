//! Frames that wait until the last of their conditions is settled.
//!
//! A frame stands in a slab, and once in a line for each thing that it waits for. The line for the
//! store is in the order of tickets, which is the order of arrival and of deadlines, so the store's
//! mark and the clock both take from its front. The line for the members is by token, which is the
//! order of arrival, too, though they are answered in any order. So answers to different frames may
//! overtake one another, while a frame is answered as a whole.

use std::collections::{BTreeMap, VecDeque};

use slab::Slab;

use super::condition::{self, Condition, PublishHost, Reached};
use super::frame::PendingFrame;
use crate::metrics::{DurationTally, Metrics};

/// The frames of one session (`W` is `()`), or of the requests over HTTP (`W` is the way back to the client).
/// Its owner calls [`WaitingRoom::handle_durable`] when the store's mark or health has changed,
/// [`WaitingRoom::handle_replicated`] for each answer of the cluster machine, and
/// [`WaitingRoom::handle_timeout`] when [`WaitingRoom::next_timeout_us`] has passed. Each hands the frames
/// that are done to `tell`.
#[derive(Debug)]
pub(crate) struct WaitingRoom<W> {
    frames: Slab<WaitingFrame<W>>,
    /// One place for each frame that waits for the store.
    stored: VecDeque<StorePlace>,
    /// One place for each record that the members are to hold, by its token.
    replicated: BTreeMap<u64, MembersPlace>,
    /// Memory of the frames, in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct WaitingFrame<W> {
    frame: PendingFrame,
    waiter: W,
    /// Number of places that the frame has in lines.
    places: usize,
    bytes: usize,
}

#[derive(Debug)]
struct StorePlace {
    ticket: u64,
    deadline_us: u64,
    /// Key of the frame.
    key: usize,
}

#[derive(Debug)]
struct MembersPlace {
    deadline_us: u64,
    /// Key of the frame.
    key: usize,
}

/// Number of frames for which an empty room keeps memory.
const KEPT_PLACES: usize = 1_024;
/// Memory of one place in the line for the members, in bytes: its key, its value, and its part of the tree.
const MEMBERS_PLACE_BYTES: usize = 2 * (size_of::<u64>() + size_of::<MembersPlace>());

impl<W> Default for WaitingRoom<W> {
    fn default() -> WaitingRoom<W> {
        WaitingRoom { frames: Slab::new(), stored: VecDeque::new(), replicated: BTreeMap::new(), bytes: 0 }
    }
}

impl<W> WaitingRoom<W> {
    /// Lets an open frame wait.
    pub(crate) fn insert(&mut self, now_us: u64, frame: PendingFrame, waiter: W) {
        let (key, mut places) = (self.frames.vacant_key(), 0);
        if let Some(ticket) = frame.ticket() {
            debug_assert!(
                self.stored.back().is_none_or(|before| before.ticket <= ticket),
                "tickets of one publisher never fall"
            );
            let deadline_us = Condition::Stored(ticket).deadline_us(now_us);
            self.stored.push_back(StorePlace { ticket, deadline_us, key });
            places += 1;
        }
        for token in frame.tokens() {
            let deadline_us = Condition::Replicated(token).deadline_us(now_us);
            let before = self.replicated.insert(token, MembersPlace { deadline_us, key });
            debug_assert!(before.is_none(), "a token is given out once");
            places += 1;
        }
        debug_assert!(places > 0, "a frame without an open item is answered at once");
        let bytes = size_of::<WaitingFrame<W>>() + frame.heap_bytes();
        self.bytes += bytes;
        self.frames.insert(WaitingFrame { frame, waiter, places, bytes });
    }

    /// Settles the items that the store's mark covers. If the store fails, refuses the others that wait for
    /// it.
    pub(crate) fn handle_durable<H: PublishHost + ?Sized>(
        &mut self,
        now_us: u64,
        host: &H,
        tell: &mut impl FnMut(PendingFrame, W),
    ) {
        if self.stored.is_empty() {
            return;
        }
        let durable = host.state().durable();
        let mut waited = DurationTally::default();
        while let Some(place) = self.stored.pop_front_if(|place| place.ticket <= durable) {
            waited.record_us(condition::waited_us(Condition::Stored(0), place.deadline_us, now_us));
            self.leave_line(place.key, |frame| frame.settle_stored(durable), tell);
        }
        host.state().metrics().acks.stored.add(&waited);
        if self.stored.is_empty() {
            return;
        }
        if let Err(reason) = host.state().store_health() {
            let refusal = condition::store_failed(reason);
            while let Some(place) = self.stored.pop_front() {
                let refuse =
                    |frame: &mut PendingFrame| frame.refuse_stored(durable, &refusal, host.state().metrics());
                self.leave_line(place.key, refuse, tell);
            }
        }
    }

    /// Refuses the items whose time has run out.
    pub(crate) fn handle_timeout<H: PublishHost + ?Sized>(
        &mut self,
        now_us: u64,
        host: &H,
        tell: &mut impl FnMut(PendingFrame, W),
    ) {
        if self.next_timeout_us().is_none_or(|due_us| now_us < due_us) {
            return;
        }
        // The mark may have moved since the owner called last.
        self.handle_durable(now_us, host, tell);
        let (durable, refusal) =
            (host.state().durable(), condition::store_too_late(host.state().store_away()));
        while let Some(place) = self.stored.pop_front_if(|place| place.deadline_us <= now_us) {
            let refuse =
                |frame: &mut PendingFrame| frame.refuse_stored(durable, &refusal, host.state().metrics());
            self.leave_line(place.key, refuse, tell);
        }
        while let Some(first) = self.replicated.first_entry()
            && first.get().deadline_us <= now_us
        {
            // This node at least holds the record.
            let token = *first.key();
            self.handle_replicated(now_us, (token, Err(1)), host.state().metrics(), tell);
        }
    }

    /// Settles the item that waits for `token`. A token that nothing waits for is passed over: its item
    /// was refused meanwhile, or was of another connection.
    pub(crate) fn handle_replicated(
        &mut self,
        now_us: u64,
        (token, reached): (u64, Reached),
        metrics: &Metrics,
        tell: &mut impl FnMut(PendingFrame, W),
    ) {
        if let Some(place) = self.replicated.remove(&token) {
            if reached.is_ok() {
                let waited = condition::waited_us(Condition::Replicated(0), place.deadline_us, now_us);
                metrics.acks.replicated.record_us(waited);
            }
            self.leave_line(place.key, |frame| frame.settle_replicated(token, reached, metrics), tell);
        }
    }

    /// Changes a frame that has left one line, and hands it out if that was the last one.
    fn leave_line(
        &mut self,
        key: usize,
        change: impl FnOnce(&mut PendingFrame),
        tell: &mut impl FnMut(PendingFrame, W),
    ) {
        let Some(waiting) = self.frames.get_mut(key) else { return };
        change(&mut waiting.frame);
        waiting.places -= 1;
        if waiting.places > 0 {
            return;
        }
        let Some(WaitingFrame { frame, waiter, bytes, .. }) = self.frames.try_remove(key) else { return };
        self.bytes -= bytes;
        if self.frames.is_empty() && self.frames.capacity() > KEPT_PLACES {
            (self.frames, self.stored) = (Slab::new(), VecDeque::new());
        }
        debug_assert!(!frame.is_open(), "a frame in no line waits for nothing");
        debug_assert!(
            !self.frames.is_empty()
                || (self.bytes == 0 && self.stored.is_empty() && self.replicated.is_empty()),
            "an empty room has no lines and no bytes"
        );
        tell(frame, waiter);
    }

    /// Monotonic time at which [`WaitingRoom::handle_timeout`] is to be called.
    pub(crate) fn next_timeout_us(&self) -> Option<u64> {
        let stored_us = self.stored.front().map(|place| place.deadline_us);
        let replicated_us = self.replicated.first_key_value().map(|(_, place)| place.deadline_us);
        [stored_us, replicated_us].into_iter().flatten().min()
    }

    /// Memory of the frames that wait, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that the room holds, in bytes: that of the frames, and that of the places in it and in the lines.
    pub(crate) fn held_bytes(&self) -> usize {
        let free_places = self.frames.capacity() - self.frames.len();
        self.bytes
            + free_places * size_of::<WaitingFrame<W>>()
            + self.stored.capacity() * size_of::<StorePlace>()
            + self.replicated.len() * MEMBERS_PLACE_BYTES
    }

    /// Returns whether no frame waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests;
