//! The publisher's side: every record is judged at once, and answered when its ack level is reached.
//!
//! Frames whose answers must wait stand in a room of the connection's own ([`WaitingRoom`]), which the
//! worker drives through the session.

use super::turn::Turn;
use crate::auth::PublishRights;
use crate::limits::UNANSWERED_BYTES_MAX;
use crate::protocol::AckLevel;
use crate::protocol::draft::{Items, PublishFrame};
use crate::protocol::json;
use crate::protocol::protobuf;
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::PublishAnswer;
use crate::protocol::request::AuthFrame;
use crate::server::acks::{ByWhom, Judged, PendingFrame, Reached, WaitingRoom, judge_frame};
use crate::server::framing::message::Codec;

/// One connection on `/publish`.
#[derive(Debug)]
pub(super) struct Publisher {
    codec: Codec,
    /// The ack level of records that name none.
    level: AckLevel,
    /// The frames that wait for their answers.
    waiting: WaitingRoom<()>,
}

impl Publisher {
    /// Makes the publisher of a connection. `level` is the ack level of records that name none.
    pub(super) fn new(codec: Codec, level: AckLevel) -> Publisher {
        Publisher { codec, level, waiting: WaitingRoom::default() }
    }

    /// Handles a frame of JSON with these rights. Returns the token if the frame brings one instead of records.
    pub(super) fn handle_text<'t>(
        &mut self,
        turn: &mut Turn<'_>,
        text: &'t str,
        rights: Option<&PublishRights>,
    ) -> Option<AuthFrame<'t>> {
        match json::publish_frame(text) {
            Ok(frame) => {
                if is_malformed(&frame)
                    && let Some(auth) = json::auth_frame(text)
                {
                    return Some(auth);
                }
                self.handle_frame(turn, &frame, rights);
            }
            Err(error) => {
                let refusal = Refusal::new(Code::BadJson, error.to_string());
                let judged = Judged::refused(turn.host, refusal);
                self.handle_judged(turn, judged);
            }
        }
        None
    }

    /// Publishes the items of a frame with these rights, and answers those that need not wait.
    pub(super) fn handle_frame(
        &mut self,
        turn: &mut Turn<'_>,
        frame: &PublishFrame<'_>,
        rights: Option<&PublishRights>,
    ) {
        let by = ByWhom { connection: turn.connection, rights };
        let judged = judge_frame(turn.host, turn.now, frame, self.level, by);
        self.handle_judged(turn, judged);
    }

    /// Answers a frame, or lets it wait if it is open.
    fn handle_judged(&mut self, turn: &mut Turn<'_>, judged: Judged<'_>) {
        match judged {
            Judged::Whole { id, answer } => {
                let answer = PublishAnswer { id, index: None, answer: &answer };
                write_answers(turn, self.codec, std::iter::once(answer), false);
            }
            Judged::Frame(frame) if frame.is_open() => self.waiting.insert(turn.now.mono_us, frame, ()),
            Judged::Frame(frame) => answer(turn, self.codec, &frame),
        }
    }

    /// Answers what waited for the store. To be called when the store's mark or its health has changed.
    pub(super) fn handle_durable(&mut self, turn: &mut Turn<'_>) {
        let (codec, host, now_us) = (self.codec, turn.host, turn.now.mono_us);
        self.waiting.handle_durable(now_us, host, &mut |frame, ()| answer(turn, codec, &frame));
    }

    /// Refuses the items whose time has run out.
    pub(super) fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        let (codec, host, now_us) = (self.codec, turn.host, turn.now.mono_us);
        self.waiting.handle_timeout(now_us, host, &mut |frame, ()| answer(turn, codec, &frame));
    }

    /// Takes the cluster machine's answer for one of this connection's records.
    pub(super) fn handle_replicated(&mut self, turn: &mut Turn<'_>, token: u64, reached: Reached) {
        let (codec, metrics) = (self.codec, turn.host.state().metrics());
        let now_us = turn.now.mono_us;
        let mut tell = |frame: PendingFrame, ()| answer(turn, codec, &frame);
        self.waiting.handle_replicated(now_us, (token, reached), metrics, &mut tell);
    }

    /// Monotonic time at which [`Publisher::handle_timeout`] is to be called, in microseconds.
    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        self.waiting.next_timeout_us()
    }

    /// Returns whether so much waits for answers that the connection is not to be read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.bytes() > UNANSWERED_BYTES_MAX
    }

    /// Returns how many bytes the frames that wait for their answers hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.waiting.held_bytes()
    }

    /// Returns whether any frame waits for its answers.
    pub(super) fn has_unanswered(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Returns whether a frame has one item, which is no publish.
fn is_malformed(frame: &PublishFrame<'_>) -> bool {
    matches!(&frame.items, Items::One(item) if item.draft.is_err())
}

fn answer(turn: &mut Turn<'_>, codec: Codec, frame: &PendingFrame) {
    write_answers(turn, codec, frame.answers(), frame.is_batch());
}

/// Sends the answers of a frame that have an id or are refusals, if there are any.
fn write_answers<'a>(
    turn: &mut Turn<'_>,
    codec: Codec,
    answers: impl Iterator<Item = PublishAnswer<'a>>,
    is_batch: bool,
) {
    let mut told = answers.filter(|answer| answer.id.is_some() || answer.answer.is_err()).peekable();
    if told.peek().is_some() {
        turn.frame(codec, |out| match codec {
            Codec::Json => json::write_publish_answers(out, told, is_batch),
            Codec::Protobuf => protobuf::write_publish_answers(out, told, is_batch),
        });
    }
}
