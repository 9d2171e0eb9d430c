//! The publisher's side: every record is judged at once; answers come when its level is reached.
//!
//! A frame that must wait for the store is kept with its answers so far, in the order of arrival.
//! Tickets of one connection never go down, so the store's mark answers frames from the front, and
//! so do deadlines. Rejected: a map from tickets to answers, which a line does as well. Frames with
//! records that every member must hold are done in any order, and wait [`everywhere`](super::everywhere).

use std::collections::VecDeque;

use super::everywhere::{Everywhere, Frame};
use super::{Codec, Turn};
use crate::limits::{STORED_US_MAX, UNANSWERED_BYTES_MAX};
use crate::protocol::AckLevel;
use crate::protocol::answer::{Code, Outcome, Published, Refusal};
use crate::protocol::draft::{Draft, Item, OwnedRequestId, PublishFrame, RequestId};
use crate::protocol::json;
use crate::protocol::protobuf::{self, PublishAnswer};
use crate::server::pending::too_late;
use crate::server::replications::Reached;

/// One publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    codec: Codec,
    level: AckLevel,
    waiting: VecDeque<Waiting>,
    everywhere: Everywhere,
    waiting_bytes: usize,
}

/// A frame that waits for the store.
#[derive(Debug)]
struct Waiting {
    entries: Vec<Entry>,
    is_batch: bool,
    ticket: u64,
    deadline_us: u64,
    bytes: usize,
}

/// One entry of a frame's answer, if it turns out to have one.
#[derive(Debug)]
pub(super) struct Entry {
    id: Option<OwnedRequestId>,
    index: usize,
    pub answer: Result<Published, Refusal>,
    /// What must be before the result holds.
    pub awaits: Option<Awaits>,
    /// Refused while it waited.
    pub is_late: bool,
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// That the store's mark passes this ticket.
    Store(u64),
    /// That every member holds the record of this token.
    Members(u64),
}

/// A record that was judged: its answer, and what it waits for.
type Judged = (Result<Published, Refusal>, Option<Awaits>);

impl Publisher {
    pub(super) fn new(codec: Codec, level: AckLevel) -> Publisher {
        let everywhere = Everywhere::default();
        Publisher { codec, level, waiting: VecDeque::new(), everywhere, waiting_bytes: 0 }
    }

    pub(super) fn handle_text(&mut self, turn: &mut Turn<'_>, text: &str) {
        match json::publish_frame(text) {
            Ok(frame) => self.handle_frame(turn, &frame),
            Err(error) => self.refuse(turn, Refusal::new(Code::BadJson, error.to_string())),
        }
    }

    /// Refuses a frame as a whole.
    fn refuse(&self, turn: &mut Turn<'_>, refusal: Refusal) {
        turn.host.metrics().refused(refusal.code);
        let entry = Entry { id: None, index: 0, answer: Err(refusal), awaits: None, is_late: false };
        self.answer(turn, &[entry], false);
    }

    pub(super) fn handle_frame(&mut self, turn: &mut Turn<'_>, frame: &PublishFrame<'_>) {
        if frame.items.is_empty() {
            return self.refuse(turn, Refusal::new(Code::BadRequest, "a batch has at least one item"));
        }
        let (mut entries, mut ticket_max, mut is_everywhere) = (Vec::new(), None, false);
        for (index, item) in frame.items.iter().enumerate() {
            let (answer, awaits) = self.judge_item(turn, item);
            if awaits.is_none() && !frame.is_batch {
                // Most frames by far: nothing of them outlives this call.
                let id = item.id.clone();
                if id.is_some() || answer.is_err() {
                    let told = [PublishAnswer { id, index: None, answer: &answer }];
                    turn.frame(self.codec, |out| write_answers(out, self.codec, &told, false));
                }
                return;
            }
            match awaits {
                Some(Awaits::Store(ticket)) => ticket_max = ticket_max.max(Some(ticket)),
                Some(Awaits::Members(_)) => is_everywhere = true,
                None => {}
            }
            if item.id.is_some() || answer.is_err() || awaits.is_some() {
                let id = item.id.as_ref().map(RequestId::to_owned);
                entries.push(Entry { id, index, answer, awaits, is_late: false });
            }
        }
        match ticket_max {
            _ if is_everywhere => {
                let bytes = bytes_of(&entries);
                self.waiting_bytes += bytes;
                self.everywhere.insert(turn.now.mono_us, entries, frame.is_batch, bytes);
            }
            None => self.answer(turn, &entries, frame.is_batch),
            Some(ticket) => self.wait(turn, entries, frame.is_batch, ticket),
        }
    }

    fn judge_item(&self, turn: &Turn<'_>, item: &Item<'_>) -> Judged {
        match &item.draft {
            Ok(draft) => self.judge(turn, draft),
            Err(refusal) => {
                turn.host.metrics().refused(refusal.code);
                (Err(refusal.clone()), None)
            }
        }
    }

    fn judge(&self, turn: &Turn<'_>, draft: &Draft<'_>) -> Judged {
        let level = draft.ack.unwrap_or(self.level);
        let published = match level {
            AckLevel::Replicated => turn.host.publish_awaited(turn.now, draft, turn.connection),
            _ => turn.host.publish(turn.now, draft).map(|accepted| (accepted, 0)),
        };
        let (accepted, token) = match published {
            Ok(published) => published,
            Err(refusal) => {
                turn.host.metrics().refused(refusal.code);
                return (Err(refusal), None);
            }
        };
        let published = Published { ts: accepted.ts, outcome: accepted.outcome, level, nodes: None };
        if level == AckLevel::Replicated {
            return (Ok(published), Some(Awaits::Members(token)));
        }
        if level == AckLevel::Accepted || accepted.ticket <= turn.host.durable() {
            return (Ok(published), None);
        }
        match turn.host.store_health() {
            Ok(()) => (Ok(published), Some(Awaits::Store(accepted.ticket))),
            Err(reason) => {
                turn.host.metrics().refused(Code::StoreUnavailable);
                (Err(failed(&published, Code::StoreUnavailable, reason)), None)
            }
        }
    }

    fn wait(&mut self, turn: &Turn<'_>, entries: Vec<Entry>, is_batch: bool, ticket: u64) {
        let bytes = bytes_of(&entries);
        // What comes later is never done earlier: the line stays in order whatever tickets do.
        let ticket = self.waiting.back().map_or(ticket, |before| ticket.max(before.ticket));
        let deadline_us = turn.now.mono_us + STORED_US_MAX;
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { entries, is_batch, ticket, deadline_us, bytes });
    }

    pub(super) fn handle_durable(&mut self, turn: &mut Turn<'_>) {
        let durable = turn.host.durable();
        while let Some(frame) = self.take_if(|frame| frame.ticket <= durable) {
            self.answer(turn, &frame.entries, frame.is_batch);
        }
        if self.waiting.is_empty() && self.everywhere.is_empty() {
            return;
        }
        let health = turn.host.store_health();
        for frame in self.everywhere.handle_durable(durable, &health) {
            self.answer_frame(turn, frame);
        }
        if let Err(reason) = health {
            while let Some(frame) = self.take_if(|_| true) {
                self.fail(turn, frame, Code::StoreUnavailable, &reason);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        let now_us = turn.now.mono_us;
        if self.next_timeout_us().is_none_or(|due_us| now_us < due_us) {
            return;
        }
        // The mark may have moved without a word since.
        self.handle_durable(turn);
        let late = too_late(turn.host.store_away());
        while let Some(frame) = self.take_if(|frame| frame.deadline_us <= now_us) {
            self.fail(turn, frame, late.code, &late.message);
        }
        for frame in self.everywhere.handle_timeout(now_us, &late) {
            self.answer_frame(turn, frame);
        }
    }

    /// A record of this connection is everywhere, or its time is over.
    pub(super) fn handle_replicated(&mut self, turn: &mut Turn<'_>, token: u64, reached: Reached) {
        if let Some(frame) = self.everywhere.handle_replicated(token, reached) {
            self.answer_frame(turn, frame);
        }
    }

    fn answer_frame(&mut self, turn: &mut Turn<'_>, frame: Frame) {
        self.waiting_bytes -= frame.bytes;
        self.answer_late(turn, &frame.entries, frame.is_batch);
    }

    fn take_if(&mut self, is_done: impl FnOnce(&Waiting) -> bool) -> Option<Waiting> {
        let frame = self.waiting.pop_front_if(|frame| is_done(frame))?;
        self.waiting_bytes -= frame.bytes;
        Some(frame)
    }

    /// Answers a frame whose level was not reached.
    fn fail(&self, turn: &mut Turn<'_>, mut frame: Waiting, code: Code, reason: &str) {
        frame.entries.iter_mut().for_each(|entry| entry.fail(code, reason));
        self.answer_late(turn, &frame.entries, frame.is_batch);
    }

    /// Answers a frame that waited, and counts what was refused meanwhile.
    fn answer_late(&self, turn: &mut Turn<'_>, entries: &[Entry], is_batch: bool) {
        for refusal in
            entries.iter().filter(|entry| entry.is_late).flat_map(|entry| entry.answer.as_ref().err())
        {
            turn.host.metrics().refused(refusal.code);
        }
        self.answer(turn, entries, is_batch);
    }

    /// Sends the entries that have an id or failed.
    fn answer(&self, turn: &mut Turn<'_>, entries: &[Entry], is_batch: bool) {
        let told: Vec<_> = entries
            .iter()
            .filter(|entry| entry.id.is_some() || entry.answer.is_err())
            .map(|entry| PublishAnswer {
                id: entry.id.as_ref().map(OwnedRequestId::as_id),
                index: is_batch.then_some(entry.index),
                answer: &entry.answer,
            })
            .collect();
        if !told.is_empty() {
            turn.frame(self.codec, |out| write_answers(out, self.codec, &told, is_batch));
        }
    }

    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        let stored_us = self.waiting.front().map(|frame| frame.deadline_us);
        stored_us.into_iter().chain(self.everywhere.next_timeout_us()).min()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes > UNANSWERED_BYTES_MAX
    }

    pub(super) fn has_unanswered(&self) -> bool {
        !self.waiting.is_empty() || !self.everywhere.is_empty()
    }
}

/// Memory that a frame's answers hold while they wait.
fn bytes_of(entries: &[Entry]) -> usize {
    let ids: usize = entries.iter().flat_map(|entry| &entry.id).map(OwnedRequestId::heap_bytes).sum();
    size_of::<Waiting>() + size_of_val(entries) + ids
}

/// The refusal of a record whose level was not reached. A stale one was not applied, and changes
/// nothing when it is sent again.
pub(super) fn failed(published: &Published, code: Code, reason: String) -> Refusal {
    let refusal = Refusal::new(code, reason);
    match published.outcome {
        Outcome::Applied | Outcome::Duplicate => refusal.after_applying(published.ts),
        Outcome::Stale { .. } => refusal,
    }
}

fn write_answers(out: &mut Vec<u8>, codec: Codec, told: &[PublishAnswer<'_>], is_batch: bool) {
    match (codec, told) {
        (Codec::Protobuf, [one]) if !is_batch => protobuf::write_publish_answer(out, one),
        (Codec::Protobuf, several) => protobuf::write_publish_answers(out, several),
        (Codec::Json, several) => {
            if is_batch {
                out.push(b'[');
            }
            for (at, one) in several.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json::write_publish_answer(out, one.id.as_ref(), one.index, one.answer);
            }
            if is_batch {
                out.push(b']');
            }
        }
    }
}
