//! How a record gets into the buffer of a subscriber, or waits for room in it.
//!
//! When a subscription ends, the queue may hold records that nobody wants any more, as many as there are sources.
//! They are not searched for then, but recognized when they come to the front.

use std::collections::BTreeSet;

use crate::latest::Change;
use crate::limits::{ALL_QUEUE_BYTES_MAX, LATEST_BUFFER_BYTES_MAX};
use crate::protocol::request::{Mode, Notice};
use crate::server::close::{CloseCode, CloseReason};
use crate::server::framing::message::Codec;
use crate::server::session::encode::{EncodedChange, SentForm};
use crate::server::session::queue::{QueueEntry, QueuedRecord, SendQueue};
use crate::server::session::resume::TokenSchedule;
use crate::server::session::turn::Turn;
use crate::subscriptions::SlotSet;

/// Most records that nobody wants any more which are dropped in one turn.
const DROPPED_PER_TURN: usize = 1_024;

/// The way out of one subscriber: its buffer, and the queue in front of it.
#[derive(Debug)]
pub(super) struct Delivery {
    codec: Codec,
    /// Whether a frame may hold several records.
    is_batched: bool,
    queue: SendQueue,
    /// Subscriptions whose snapshots end with a token that waits.
    ending: BTreeSet<u32>,
    /// The filters of the connection's subscriptions, by which the index knows them.
    slots: SlotSet,
    /// Whether records may wait that nobody wants any more, because a subscription has ended.
    has_unwanted: bool,
}

impl Delivery {
    pub(super) fn new(codec: Codec, mode: Mode, is_batched: bool) -> Delivery {
        let queue = SendQueue::new(mode);
        let slots = SlotSet::UNFILTERED;
        Delivery { codec, is_batched, queue, ending: BTreeSet::new(), slots, has_unwanted: false }
    }

    /// Sets the filters of the connection's subscriptions.
    pub(super) fn set_slots(&mut self, slots: SlotSet) {
        self.slots = slots;
    }

    /// Sets the mode of the connection. To be called before anything is sent.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        debug_assert!(self.queue.is_empty(), "a mode is settled before anything waits");
        self.queue = SendQueue::new(mode);
    }

    /// Sends a change in `mode=latest`: into the buffer if it has room and nothing waits, else in the place of the
    /// record of its source that waits, else at the end of the queue.
    pub(super) fn deliver_latest(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
        form: SentForm,
    ) {
        if !self.queue.is_empty() {
            match self.queue.replace(queued(change, form)) {
                Ok(()) => turn.work.conflated += 1,
                Err(newer) => self.queue.push(newer),
            }
            return;
        }
        match (has_room(turn), form) {
            (false, _) => self.queue.push(queued(change, form)),
            (true, SentForm::Gone) => self.write_queued(turn, &queued(change, form)),
            (true, _) => self.write_change(turn, frames, change),
        }
    }

    /// Sends a change in `mode=all`, or closes the connection if too much waits. While subscriptions start,
    /// what their snapshots have written does not count against the subscriber.
    pub(super) fn deliver_all(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
        is_starting: bool,
    ) -> Result<(), CloseReason> {
        let paced = if is_starting { LATEST_BUFFER_BYTES_MAX } else { 0 };
        let waiting = turn.out.len().saturating_sub(paced) + self.queue.live_bytes();
        let added = change.record.payload.bytes().len();
        if waiting > 0 && waiting + added > ALL_QUEUE_BYTES_MAX {
            let message = format!("over {ALL_QUEUE_BYTES_MAX} bytes wait; mode=all keeps no more");
            return Err(CloseReason::new(CloseCode::TooSlow, message));
        }
        if self.queue.is_empty() {
            self.write_change(turn, frames, change);
        } else {
            self.queue.push(queued(change, form_of(change)));
        }
        Ok(())
    }

    /// Puts a record that a snapshot found at the end of the queue. No change waits there: snapshots go on
    /// only when everything has been written ([`Delivery::holds_snapshots`]).
    pub(super) fn push_snapshot(&mut self, record: QueuedRecord) {
        self.queue.push(record);
    }

    /// Puts a token at the end of the queue. `eos` is the subscription whose snapshot ends with it, if
    /// one does.
    pub(super) fn push_token(&mut self, eos: Option<u32>, token: String) {
        self.ending.extend(eos);
        self.queue.push_token(eos, token);
    }

    /// Writes what waits, as long as there is room.
    pub(super) fn drain(&mut self, turn: &mut Turn<'_>, tokens: &mut TokenSchedule) {
        let mut dropped = 0;
        while has_room(turn) && dropped < DROPPED_PER_TURN {
            match self.queue.pop() {
                None => {
                    self.has_unwanted = false;
                    break;
                }
                Some(QueueEntry::Record(record)) if self.is_unwanted(turn, &record) => dropped += 1,
                Some(QueueEntry::Record(record)) => self.write_queued(turn, &record),
                Some(QueueEntry::Token { eos: Some(subscription), token }) => {
                    if self.ending.remove(&subscription) {
                        turn.notice(self.codec, &Notice::Eos { subscription, resume: &token });
                    }
                }
                Some(QueueEntry::Token { eos: None, token }) => {
                    turn.notice(self.codec, &Notice::Resume(&token));
                    tokens.handle_sent(turn.now);
                }
            }
        }
    }

    /// Returns whether no subscription wants a record that waited.
    fn is_unwanted(&self, turn: &Turn<'_>, queued: &QueuedRecord) -> bool {
        let wants = || turn.work.index.wants(queued.record.source.as_str(), turn.connection, self.slots);
        self.has_unwanted && !wants().any()
    }

    /// Notes that a subscription has ended: its records are not to be sent any more, nor the token that ends its
    /// snapshot.
    pub(super) fn forget(&mut self, ended: u32) {
        self.ending.remove(&ended);
        self.has_unwanted |= !self.queue.is_empty();
    }

    /// Takes the queue with everything that waits, because the connection is gone.
    pub(super) fn take_queue(&mut self) -> SendQueue {
        self.queue.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns how many bytes of memory hold what waits in front of the buffer.
    pub(super) fn held_bytes(&self) -> usize {
        self.queue.held_bytes()
    }

    /// Returns whether the next part of a snapshot is put off: something waits, or the buffer is full.
    pub(super) fn holds_snapshots(&self, turn: &Turn<'_>) -> bool {
        !self.queue.is_empty() || !has_room(turn)
    }

    fn write_change(&mut self, turn: &mut Turn<'_>, frames: &mut EncodedChange, change: &Change) {
        turn.work.deliveries += 1;
        let framing = turn.out.framing();
        match self.is_batched {
            true => turn.out.append_to_batch(self.codec, frames.message(framing, self.codec, change)),
            false => turn.out.append(frames.frame(framing, self.codec, change)),
        }
    }

    fn write_queued(&mut self, turn: &mut Turn<'_>, queued: &QueuedRecord) {
        turn.work.deliveries += 1;
        match self.is_batched {
            true => turn.record_in_batch(self.codec, &queued.record, queued.form),
            false => turn.record_frame(self.codec, &queued.record, queued.form),
        }
    }
}

/// The form in which a change is sent to those who want it.
pub(super) fn form_of(change: &Change) -> SentForm {
    if change.is_expiry { SentForm::Deleted } else { SentForm::Whole }
}

fn queued(change: &Change, form: SentForm) -> QueuedRecord {
    QueuedRecord { record: change.record.clone(), form, from_snapshot: false }
}

fn has_room(turn: &Turn<'_>) -> bool {
    turn.out.len() <= LATEST_BUFFER_BYTES_MAX
}
