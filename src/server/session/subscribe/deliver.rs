//! How what a subscriber is sent gets into its buffer, or waits for room.

use super::Subscriber;
use crate::latest::Change;
use crate::limits::{ALL_QUEUE_BYTES_MAX, LATEST_BUFFER_BYTES_MAX};
use crate::protocol::request::Notice;
use crate::server::close::{CloseCode, CloseReason};
use crate::server::session::Turn;
use crate::server::session::encode::{self, EncodedChange};
use crate::server::session::queue::{Entry, Waiting};

impl Subscriber {
    pub(super) fn deliver_latest(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
    ) {
        let waiting = |change: &Change| Waiting {
            record: change.record.clone(),
            as_deleted: change.is_expiry,
            from_snapshot: false,
        };
        if !self.queue.is_empty() && self.queue.replace(waiting(change)).is_ok() {
            turn.work.conflated += 1;
            return;
        }
        if self.has_room(turn) {
            self.write_change(turn, frames, change);
        } else {
            self.queue.push(waiting(change));
        }
    }

    pub(super) fn deliver_all(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> Result<(), CloseReason> {
        // What a snapshot has written is paced by the buffer, and not to the subscriber's account.
        let paced = if self.jobs.is_empty() { 0 } else { LATEST_BUFFER_BYTES_MAX };
        let waiting = turn.out.len().saturating_sub(paced) + self.queue.live_bytes();
        let added = change.record.payload.bytes().len();
        if waiting > 0 && waiting + added > ALL_QUEUE_BYTES_MAX {
            let message = format!("over {ALL_QUEUE_BYTES_MAX} bytes wait; mode=all keeps no more");
            return Err(CloseReason::new(CloseCode::TooSlow, message));
        }
        if self.queue.is_empty() {
            self.write_change(turn, frames, change);
        } else {
            let record = change.record.clone();
            self.queue.push(Waiting { record, as_deleted: change.is_expiry, from_snapshot: false });
        }
        Ok(())
    }

    pub(super) fn has_room(&self, turn: &Turn<'_>) -> bool {
        turn.out.len() <= LATEST_BUFFER_BYTES_MAX
    }

    fn write_change(&mut self, turn: &mut Turn<'_>, frames: &mut EncodedChange, change: &Change) {
        turn.work.deliveries += 1;
        let framing = turn.out.framing();
        match self.is_batched {
            true => turn.out.append_to_batch(self.codec, frames.message(framing, self.codec, change)),
            false => turn.out.append(frames.frame(framing, self.codec, change)),
        }
    }

    fn write_waiting(&mut self, turn: &mut Turn<'_>, waiting: &Waiting) {
        turn.work.deliveries += 1;
        let (codec, record) = (self.codec, &*waiting.record);
        if self.is_batched {
            turn.work.scratch.clear();
            encode::write_record(&mut turn.work.scratch, codec, record, waiting.as_deleted);
            turn.out.append_to_batch(codec, &turn.work.scratch);
        } else {
            turn.record_frame(codec, record, waiting.as_deleted);
        }
    }

    /// Writes what waits, as long as there is room.
    pub(super) fn drain_queue(&mut self, turn: &mut Turn<'_>) {
        while self.has_room(turn) {
            match self.queue.pop() {
                None => break,
                Some(Entry::Record(waiting)) => self.write_waiting(turn, &waiting),
                Some(Entry::Mark { eos: Some(subscription), token }) => {
                    self.tell(turn, &Notice::Eos { subscription, resume: &token });
                }
                Some(Entry::Mark { eos: None, token }) => {
                    self.tell(turn, &Notice::Resume(&token));
                    self.tokens.handle_sent(turn.now);
                }
            }
        }
    }
}
