//! Answers to publishers: what each answer waits for, for how long, and who gets it.
//!
//! A publish frame is judged item by item ([`judge`]). Each ack level has a [`condition`]: that the store's
//! mark reaches a ticket, or that every member holds the record. An item whose condition holds at once is
//! answered at once, and touches nothing in this directory; so is every item of the level `accepted`. A
//! [`frame`] with an open item waits in a [`room`] until its last item is settled: its condition holds, the
//! store fails, or the time runs out.
//!
//! Every session has a room of its own, without a lock, so workers share nothing for `stored`. The requests
//! over HTTP share one room behind a lock ([`http`]), which worker 0 settles. When every member holds a
//! record, the cluster machine reports the record's token ([`tokens`]). The report goes to the worker whose
//! session waits, or straight to the room of HTTP.
//!
//! A new ack level is a name in `protocol/ack.rs` and what it requires in [`condition`]. Rejected: one room
//! for all sessions of a worker, whose frames would outlive their connections.

mod condition;
mod frame;
mod http;
mod judge;
mod room;
mod tokens;

use self::http::HttpRoom;
use self::tokens::TokenTable;
use crate::auth::PublishRights;
use crate::cluster::Replicated;
use crate::http::Reply;
use crate::ingest::Accepted;
use crate::metrics::Metrics;
use crate::protocol::AckLevel;
use crate::protocol::answer::Outcome;
use crate::protocol::draft::PublishFrame;
use crate::protocol::refusal::Refusal;
use crate::protocol::reply::FrameReply;
use crate::record::Now;

pub(super) use self::condition::{AnswerState, ByWhom, PublishHost, Reached};
pub(super) use self::frame::PendingFrame;
pub(super) use self::judge::{Judged, judge_frame};
pub(super) use self::room::WaitingRoom;
pub(super) use self::tokens::{Settled, Waiter};

/// The part of the answers that the threads of a node share: the tokens of records that every member
/// is to hold, and the requests over HTTP.
pub(super) struct Acks {
    tokens: TokenTable,
    http: HttpRoom,
}

impl Acks {
    /// Makes the shared part of a node with this number of event loops. Nothing waits yet.
    pub(super) fn new(workers: usize) -> Acks {
        Acks { tokens: TokenTable::new(workers), http: HttpRoom::default() }
    }

    /// Publishes a record that every member is to hold, under a new token that is returned with the
    /// result. The waiter is registered before `publish` is called, because the answer may come from
    /// worker 0 before the call has returned.
    pub(super) fn publish_awaited(
        &self,
        waiter: Waiter,
        publish: impl FnOnce(u64) -> Result<Accepted, Refusal>,
    ) -> Result<(Accepted, u64), Refusal> {
        let token = self.tokens.register(waiter)?;
        if waiter == Waiter::Http {
            self.http.expect(token);
        }
        let published = publish(token);
        // The cluster machine says nothing about a record that does not exist.
        if published.as_ref().map_or(true, |accepted| accepted.outcome == Outcome::Dropped) {
            self.tokens.release(token);
            if waiter == Waiter::Http {
                self.http.release(token);
            }
        }
        published.map(|accepted| (accepted, token))
    }

    /// Publishes the frame of a request over HTTP with the rights of its sender, and answers it now or when its
    /// conditions are settled.
    /// Worker 0 must be woken afterwards, since it settles the frames that wait.
    pub(super) fn publish_http(
        &self,
        host: &impl PublishHost,
        now: Now,
        frame: &PublishFrame<'_>,
        level: AckLevel,
        (reply, rights): (Reply, Option<&PublishRights>),
    ) {
        match judge_frame(host, now, frame, level, ByWhom { connection: 0, rights }) {
            Judged::Whole { answer, .. } => reply.send(FrameReply::One(answer)),
            Judged::Frame(frame) if frame.is_open() => {
                self.http.insert(now.mono_us, frame, reply, host.state().metrics());
            }
            Judged::Frame(frame) => reply.send(frame.into_reply()),
        }
    }

    /// Takes the cluster machine's answer for a token. Returns the worker that is to be woken for it, if
    /// any.
    pub(super) fn handle_replicated(
        &self,
        now_us: u64,
        replicated: Replicated,
        metrics: &Metrics,
    ) -> Option<usize> {
        let Replicated { token, nodes, is_whole } = replicated;
        let reached = if is_whole { Ok(nodes) } else { Err(nodes) };
        match self.tokens.take(token)? {
            Waiter::Session { worker, connection } => {
                self.tokens.leave(worker, Settled { connection, token, reached })
            }
            Waiter::Http => {
                self.http.handle_replicated(now_us, (token, reached), metrics);
                None
            }
        }
    }

    /// Takes the answers of the cluster machine for sessions of `worker` since the last call.
    pub(super) fn take_settled(&self, worker: usize) -> Vec<Settled> {
        self.tokens.take_settled(worker)
    }

    /// Answers the requests over HTTP that the store's mark covers, that the store fails, or whose time has
    /// run out. Worker 0 calls this in every turn.
    pub(super) fn settle_http(&self, now_us: u64, host: &impl PublishHost) {
        self.http.settle(now_us, host);
    }

    /// Monotonic time at which the next request over HTTP times out, in microseconds.
    pub(super) fn next_http_timeout_us(&self) -> Option<u64> {
        self.http.next_timeout_us()
    }

    /// Returns whether no request over HTTP waits.
    pub(super) fn is_http_empty(&self) -> bool {
        self.http.is_empty()
    }

    /// Returns whether no request over HTTP waits, and no publish waits for the members to hold its record.
    pub(super) fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests;
