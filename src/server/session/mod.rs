//! One WebSocket connection, without its socket: messages in, frames out.
//!
//! A publisher's side ([`publish`]) hands what it is sent to `ingest`, and answers at once or when the
//! ack level is reached. A subscriber's side ([`subscribe`]) has three parts: what it wants (patterns,
//! in the worker's index), what it must be told before it is up to date ([`snapshot`]: scans of the map,
//! and the seam between them and what changes meanwhile), and what waits because its buffer is full
//! ([`queue`]: only the newest record of each source, or all of them).
//!
//! A session opens no socket, reads no clock and starts no thread: each call is given a [`Turn`],
//! through which all its effects go, so a test can play any interleaving of publishes, mailbox and
//! scans. The worker calls, in this order:
//! 1. [`Session::open`] before the upgrade (an error is HTTP 400), [`Session::handle_open`] after it;
//! 2. [`Session::handle_message`] for each message; after it, and before 4, the worker sees to it
//!    that its mailbox takes changes if its index has any pattern;
//! 3. [`Session::handle_change`] for each change of the mailbox, to the connections that the index
//!    names, after counting it in [`Turn::mailbox_position`]. Several may be counted before the first
//!    of them is handed over, if no other call comes between. It should flush a connection long before
//!    its buffer has [`crate::limits::ALL_QUEUE_BYTES_MAX`];
//! 4. [`Session::handle_turn`] when [`Session::next_timeout_us`] has passed, and while
//!    [`Session::wants_turn`], to be asked after any of these calls and whenever something was flushed;
//! 5. [`Session::handle_durable`] when the store's mark or health has changed, and
//!    [`Session::handle_replicated`] when the cluster answers for one of its records.
//!
//! At the end: [`Session::handle_closed`]. Rejected: a task per connection, whose stack and wakeups
//! an idle subscriber would pay for.

mod checkpoint;
mod encode;
mod host;
mod names;
mod order;
mod publish;
mod queue;
mod remains;
mod resume;
mod scans;
mod snapshot;
mod subscribe;
mod turn;

use self::publish::Publisher;
use self::subscribe::Subscriber;
use super::account::Holdings;
use super::acks::Reached;
use super::close::{CloseCode, CloseReason};
use super::framing::message::{Codec, IncomingMessage};
use crate::ingest::Change;
use crate::limits::{LATEST_BUFFER_BYTES_MAX, PING_US};
use crate::protocol::refusal::Refusal;
use crate::protocol::request::{Connected, Notice, UrlRequest};
use crate::protocol::url::{publish_url, subscribe_url};

pub use self::encode::EncodedChange;
pub use self::host::{Facts, Host};
pub use self::turn::{Turn, Workspace};

/// Largest number of members that are named in the first message to a client.
const CONNECTED_MEMBERS_MAX: usize = 16;

/// The path on which a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The path `/publish`.
    Publish,
    /// The path `/subscribe`.
    Subscribe,
}

/// One WebSocket connection, without its socket.
#[derive(Debug)]
pub struct Session {
    codec: Codec,
    /// Names the connection to its client and in the log.
    id: String,
    side: SessionSide,
}

#[derive(Debug)]
enum SessionSide {
    Publish(Publisher),
    // Boxed, so that publishers do not pay for its size.
    Subscribe(Box<Subscriber>),
}

impl Session {
    /// Makes the session that the URL asks for. `query` is the part of the URL after `?`, empty if there is
    /// none; `id` names the connection to its client and in the log. A refusal is to be answered by HTTP
    /// 400 instead of the upgrade.
    pub fn open(endpoint: Endpoint, codec: Codec, query: &str, id: String) -> Result<Session, Refusal> {
        let request = match endpoint {
            Endpoint::Publish => publish_url(query)?,
            Endpoint::Subscribe => subscribe_url(query)?,
        };
        let side = match request {
            UrlRequest::Publish(level) => SessionSide::Publish(Publisher::new(codec, level)),
            UrlRequest::Subscribe { first, mode, batch } => {
                SessionSide::Subscribe(Box::new(Subscriber::new(codec, first, mode, batch)))
            }
        };
        Ok(Session { codec, id, side })
    }

    /// The path on which the connection was opened.
    pub fn endpoint(&self) -> Endpoint {
        match self.side {
            SessionSide::Publish(_) => Endpoint::Publish,
            SessionSide::Subscribe(_) => Endpoint::Subscribe,
        }
    }

    /// Greets the client, and starts the subscription that the URL asks for. To be called once, after the
    /// upgrade.
    pub fn handle_open(&mut self, turn: &mut Turn<'_>) {
        self.greet(turn);
        if let SessionSide::Subscribe(subscriber) = &mut self.side {
            subscriber.handle_open(turn);
        }
    }

    fn greet(&self, turn: &mut Turn<'_>) {
        let host = turn.host;
        let (facts, members) = (host.facts(), host.members());
        let live: Vec<_> = members.iter().filter(|member| member.state.is_live()).collect();
        // Each connection starts at another member, so that clients of a node that fails spread out.
        let start = match live.len() {
            0 => 0,
            count => xxhash_rust::xxh3::xxh3_64(self.id.as_bytes()) as usize % count,
        };
        let (first, last) = live.split_at(start);
        let members: Vec<_> = (last.iter().chain(first).take(CONNECTED_MEMBERS_MAX))
            .map(|member| (member.identity.name.as_str(), member.identity.http()))
            .collect();
        let connected = Connected {
            node: &facts.node,
            session: &self.id,
            ping_ms: PING_US / 1_000,
            max_record_bytes: facts.max_record_bytes,
            max_frame_bytes: facts.max_frame_bytes,
            members: members.iter().map(|(name, http)| (*name, &**http)).collect(),
        };
        turn.notice(self.codec, &Notice::Connected(connected));
    }

    /// Handles a message of the client. An error closes the connection.
    pub fn handle_message(
        &mut self,
        turn: &mut Turn<'_>,
        message: IncomingMessage<'_>,
    ) -> Result<(), CloseReason> {
        match (self.codec, message) {
            (Codec::Json, IncomingMessage::Text(text)) => match &mut self.side {
                SessionSide::Publish(publisher) => publisher.handle_text(turn, text),
                SessionSide::Subscribe(subscriber) => subscriber.handle_text(turn, text),
            },
            (Codec::Protobuf, IncomingMessage::Binary(bytes)) => {
                let message = crate::protocol::protobuf::ClientMessage::decode(bytes)
                    .map_err(|error| CloseReason::new(CloseCode::BadMessage, error.to_string()))?;
                match &mut self.side {
                    SessionSide::Publish(publisher) => publisher.handle_frame(turn, &message.publish_frame()),
                    SessionSide::Subscribe(subscriber) => {
                        subscriber.handle_frame(turn, message.subscribe_frame())
                    }
                }
            }
            (Codec::Json, IncomingMessage::Binary(_)) => {
                return Err(CloseReason::new(
                    CloseCode::UnsupportedKind,
                    "this connection speaks JSON in text frames",
                ));
            }
            (Codec::Protobuf, IncomingMessage::Text(_)) => {
                return Err(CloseReason::new(
                    CloseCode::UnsupportedKind,
                    "this connection speaks protobuf in binary frames",
                ));
            }
        }
        Ok(())
    }

    /// Sends a change that some pattern of this connection matches. `frames` is the same change, which is
    /// encoded when the first connection wants it. An error closes the connection.
    pub fn handle_change(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> Result<(), CloseReason> {
        match &mut self.side {
            SessionSide::Publish(_) => Ok(()),
            SessionSide::Subscribe(subscriber) => subscriber.handle_change(turn, frames, change),
        }
    }

    /// Answers what waited for the store. To be called when the store's mark or its health has changed.
    pub fn handle_durable(&mut self, turn: &mut Turn<'_>) {
        if let SessionSide::Publish(publisher) = &mut self.side {
            publisher.handle_durable(turn);
        }
    }

    /// Takes the cluster's answer for a record of this session. A token of another connection, which had the
    /// same number before, is ignored.
    pub fn handle_replicated(&mut self, turn: &mut Turn<'_>, token: u64, reached: Reached) {
        if let SessionSide::Publish(publisher) = &mut self.side {
            publisher.handle_replicated(turn, token, reached);
        }
    }

    /// Continues snapshots, sends what waits for room in the buffer, and does what is due.
    pub fn handle_turn(&mut self, turn: &mut Turn<'_>) {
        match &mut self.side {
            SessionSide::Publish(publisher) => publisher.handle_timeout(turn),
            SessionSide::Subscribe(subscriber) => subscriber.handle_turn(turn),
        }
    }

    /// Handles that the worker's mailbox dropped changes. An error closes a connection that wants every
    /// change; its client comes back with its token. The worker hands to all others what they missed, like
    /// any change.
    pub fn handle_overflow(&mut self) -> Result<(), CloseReason> {
        match &self.side {
            SessionSide::Publish(_) => Ok(()),
            SessionSide::Subscribe(subscriber) => subscriber.handle_overflow(),
        }
    }

    /// Lets the worker take the patterns of the connection out of the index and free what waits, both in parts. To be
    /// called once, when the connection ends.
    pub fn handle_closed(&mut self, turn: &mut Turn<'_>) {
        if let SessionSide::Subscribe(subscriber) = &mut self.side {
            subscriber.handle_closed(turn);
        }
    }

    /// Monotonic time at which [`Session::handle_turn`] is to be called at the latest, in microseconds.
    pub fn next_timeout_us(&self) -> Option<u64> {
        match &self.side {
            SessionSide::Publish(publisher) => publisher.next_timeout_us(),
            SessionSide::Subscribe(subscriber) => subscriber.next_timeout_us(),
        }
    }

    /// Returns whether [`Session::handle_turn`] has something to do now; `out_len` bytes wait to be sent.
    pub fn wants_turn(&self, out_len: usize) -> bool {
        match &self.side {
            SessionSide::Publish(_) => false,
            SessionSide::Subscribe(subscriber) => subscriber.wants_turn(out_len),
        }
    }

    /// Returns whether a turn of the session may scan the map. Such turns share what a worker scans in one turn.
    pub fn may_scan(&self) -> bool {
        match &self.side {
            SessionSide::Publish(_) => false,
            SessionSide::Subscribe(subscriber) => subscriber.has_job(),
        }
    }

    /// Returns whether the socket is not to be read for now, because too much of the client's waits for
    /// answers, or because the client does not read its answers (`out_len` bytes wait to be sent).
    pub fn blocks_reading(&self, out_len: usize) -> bool {
        let is_full = out_len > LATEST_BUFFER_BYTES_MAX;
        match &self.side {
            SessionSide::Publish(publisher) => is_full || publisher.is_full(),
            // In mode=all records alone may be more than that, and the client must be able to unsubscribe.
            SessionSide::Subscribe(_) => {
                out_len > crate::limits::ALL_QUEUE_BYTES_MAX + LATEST_BUFFER_BYTES_MAX
            }
        }
    }

    /// Returns what the session makes its node hold. Nothing is counted twice but what several connections
    /// share.
    pub fn holdings(&self) -> Holdings {
        match &self.side {
            SessionSide::Publish(publisher) => {
                Holdings { answers: publisher.held_bytes(), ..Holdings::default() }
            }
            SessionSide::Subscribe(subscriber) => subscriber.holdings(),
        }
    }

    /// Returns whether any publish of this connection waits for its answer.
    pub fn has_unanswered(&self) -> bool {
        match &self.side {
            SessionSide::Publish(publisher) => publisher.has_unanswered(),
            SessionSide::Subscribe(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
