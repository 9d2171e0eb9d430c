//! One WebSocket connection, without its socket: messages in, frames out.
//!
//! A publisher's side ([`publish`]) hands what it is sent to `ingest` and answers, at once or when
//! the store's mark has passed. A subscriber's side ([`subscribe`]) has three parts: what it wants
//! (patterns, in the worker's index), what it must be told before it is up to date ([`snapshot`]:
//! scans of the map, and the seam between them and what changes meanwhile), and what waits because
//! its buffer is full ([`queue`]: conflated to the newest of each source, or all of it).
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
//! 4. [`Session::handle_turn`] when [`Session::next_timeout_us`] is over, and while
//!    [`Session::wants_turn`], to be asked after any of these calls and whenever something was flushed;
//! 5. [`Session::handle_durable`] when the store's mark or health moved, and
//!    [`Session::handle_replicated`] when the cluster answers for one of its records.
//!
//! At the end: [`Session::handle_closed`]. Rejected: a task per connection, whose stack and wakeups
//! an idle subscriber would pay for.

mod checkpoint;
mod encode;
mod everywhere;
mod publish;
mod queue;
mod resume;
mod snapshot;
mod subscribe;

use std::sync::Arc;

use self::publish::Publisher;
use self::subscribe::Subscriber;
use super::close::{CloseCode, CloseReason};
use super::framing::message::{Codec, IncomingMessage};
use super::framing::wrap;
use super::outbound::Outbound;
use super::replications::Reached;
use crate::cluster::Heads;
use crate::cluster::members::MemberInfo;
use crate::ingest::{Accepted, Change};
use crate::latest::Latest;
use crate::limits::{LATEST_BUFFER_BYTES_MAX, PING_US, SCAN_RECORDS_PER_TURN};
use crate::metrics::Metrics;
use crate::protocol::answer::Refusal;
use crate::protocol::draft::Draft;
use crate::protocol::request::{Connected, Notice, UrlRequest};
use crate::protocol::url::{publish_url, subscribe_url};
use crate::record::{NodeName, Now};
use crate::subscriptions::Index;

pub use self::checkpoint::Checkpoint;
pub use self::encode::EncodedChange;

/// Members named in the first message.
const CONNECTED_MEMBERS_MAX: usize = 16;

/// Which of the two paths a connection was opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/publish`
    Publish,
    /// `/subscribe`
    Subscribe,
}

/// What a session needs to know of its node, fixed at the start.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This node.
    pub node: NodeName,
    /// [`crate::protocol::token::cluster_key`] of the cluster's name.
    pub cluster: u64,
    /// Bytes of a record's data.
    pub max_record_bytes: usize,
    /// Bytes of a frame.
    pub max_frame_bytes: usize,
    /// How long tombstones are kept, in microseconds.
    pub tombstones_us: u64,
}

/// What a session asks of its node and of its worker.
pub trait Host {
    /// What is fixed.
    fn facts(&self) -> &Facts;
    /// `ingest`'s: applies a publish.
    fn publish(&self, now: Now, draft: &Draft<'_>) -> Result<Accepted, Refusal>;
    /// The same for a record that every live member is to hold: [`Session::handle_replicated`] is called
    /// for this connection with the token that is returned.
    fn publish_awaited(
        &self,
        now: Now,
        draft: &Draft<'_>,
        connection: usize,
    ) -> Result<(Accepted, u64), Refusal>;
    /// The map.
    fn latest(&self) -> &Latest;
    /// Tickets up to this one are durable.
    fn durable(&self) -> u64;
    /// Whether the store takes records; if not, why.
    fn store_health(&self) -> Result<(), String>;
    /// Why nothing becomes durable for now, although records are taken.
    fn store_away(&self) -> Option<String> {
        None
    }
    /// Whether the map holds what the store kept: subscriptions wait for it.
    fn is_loaded(&self) -> bool;
    /// The heads of every origin's lives, this node's own included.
    fn heads(&self) -> Arc<Heads>;
    /// The members as this node sees them.
    fn members(&self) -> Arc<[MemberInfo]>;
    /// How many changes were pushed into this worker's mailbox so far.
    fn mailbox_end(&self) -> u64;
    /// What the node counts.
    fn metrics(&self) -> &Metrics;
}

/// What the sessions of one worker share. The worker keeps one.
#[derive(Debug)]
pub struct Workspace {
    /// Which connections want what.
    pub index: Index,
    /// Records written to subscribers since the worker last took the count.
    pub deliveries: u64,
    /// Records replaced by newer ones before a slow subscriber got them, likewise.
    pub conflated: u64,
    /// Heads that have been proved seen, shared by all sessions whose tokens are due.
    pub checkpoint: Checkpoint,
    /// Records that a snapshot looks at in one turn.
    scan_budget: usize,
    /// A message on its way into a frame.
    scratch: Vec<u8>,
}

impl Default for Workspace {
    fn default() -> Workspace {
        Workspace {
            index: Index::default(),
            deliveries: 0,
            conflated: 0,
            checkpoint: Checkpoint::default(),
            scan_budget: SCAN_RECORDS_PER_TURN,
            scratch: Vec::new(),
        }
    }
}

/// One call's view of the world, and the only door for its effects.
pub struct Turn<'a> {
    /// The time.
    pub now: Now,
    /// The node.
    pub host: &'a dyn Host,
    /// What the worker's sessions share.
    pub work: &'a mut Workspace,
    /// This connection's number in the index.
    pub connection: usize,
    /// What waits to be sent on this connection.
    pub out: &'a mut Outbound,
    /// How many changes of the mailbox were handed to the worker's sessions, the one that is being
    /// handed out included.
    pub mailbox_position: u64,
}

impl Turn<'_> {
    /// Appends a frame with the message that `write` writes.
    fn frame(&mut self, codec: Codec, write: impl FnOnce(&mut Vec<u8>)) {
        wrap::make_room(&mut self.work.scratch);
        write(&mut self.work.scratch);
        self.out.append_message(codec, &mut self.work.scratch);
    }

    /// Appends a frame with a notice.
    fn notice(&mut self, codec: Codec, notice: &Notice<'_>) {
        self.frame(codec, |out| match codec {
            Codec::Json => crate::protocol::json::write_notice(out, notice),
            Codec::Protobuf => crate::protocol::protobuf::write_notice(out, notice),
        });
    }
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    codec: Codec,
    id: String,
    side: Side,
}

#[derive(Debug)]
enum Side {
    Publish(Publisher),
    // Boxed, since publishers need not pay for it.
    Subscribe(Box<Subscriber>),
}

impl Session {
    /// A session of what the URL asks for. `query`: what follows `?`, empty without; `id` names the
    /// connection to its client and in the log. A refusal is HTTP 400, before the upgrade.
    pub fn open(endpoint: Endpoint, codec: Codec, query: &str, id: String) -> Result<Session, Refusal> {
        let request = match endpoint {
            Endpoint::Publish => publish_url(query)?,
            Endpoint::Subscribe => subscribe_url(query)?,
        };
        let side = match request {
            UrlRequest::Publish(level) => Side::Publish(Publisher::new(codec, level)),
            UrlRequest::Subscribe { first, mode, batch } => {
                Side::Subscribe(Box::new(Subscriber::new(codec, first, mode, batch)))
            }
        };
        Ok(Session { codec, id, side })
    }

    /// Which path it was opened on.
    pub fn endpoint(&self) -> Endpoint {
        match self.side {
            Side::Publish(_) => Endpoint::Publish,
            Side::Subscribe(_) => Endpoint::Subscribe,
        }
    }

    /// The upgrade is done: greets, and starts the URL's subscription.
    pub fn handle_open(&mut self, turn: &mut Turn<'_>) {
        self.greet(turn);
        if let Side::Subscribe(subscriber) = &mut self.side {
            subscriber.handle_open(turn);
        }
    }

    fn greet(&self, turn: &mut Turn<'_>) {
        let host = turn.host;
        let (facts, members) = (host.facts(), host.members());
        let live: Vec<_> = members.iter().filter(|member| member.state.is_live()).collect();
        // Each connection is told of others, so that clients that fall back spread out.
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

    /// A message of the client's.
    pub fn handle_message(
        &mut self,
        turn: &mut Turn<'_>,
        message: IncomingMessage<'_>,
    ) -> Result<(), CloseReason> {
        match (self.codec, message) {
            (Codec::Json, IncomingMessage::Text(text)) => match &mut self.side {
                Side::Publish(publisher) => publisher.handle_text(turn, text),
                Side::Subscribe(subscriber) => subscriber.handle_text(turn, text),
            },
            (Codec::Protobuf, IncomingMessage::Binary(bytes)) => {
                let message = crate::protocol::protobuf::ClientMessage::decode(bytes)
                    .map_err(|error| CloseReason::new(CloseCode::BadMessage, error.to_string()))?;
                match &mut self.side {
                    Side::Publish(publisher) => publisher.handle_frame(turn, &message.publish_frame()),
                    Side::Subscribe(subscriber) => subscriber.handle_frame(turn, message.subscribe_frame()),
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

    /// A change that some pattern of this connection matches. `frames`: the change, encoded when the
    /// first connection of a codec wants it.
    pub fn handle_change(
        &mut self,
        turn: &mut Turn<'_>,
        frames: &mut EncodedChange,
        change: &Change,
    ) -> Result<(), CloseReason> {
        match &mut self.side {
            Side::Publish(_) => Ok(()),
            Side::Subscribe(subscriber) => subscriber.handle_change(turn, frames, change),
        }
    }

    /// The store's mark or its health moved: answers what waited for it.
    pub fn handle_durable(&mut self, turn: &mut Turn<'_>) {
        if let Side::Publish(publisher) = &mut self.side {
            publisher.handle_durable(turn);
        }
    }

    /// The cluster's answer for one of this session's records, or for one of a connection that had this
    /// number before.
    pub fn handle_replicated(&mut self, turn: &mut Turn<'_>, token: u64, reached: Reached) {
        if let Side::Publish(publisher) = &mut self.side {
            publisher.handle_replicated(turn, token, reached);
        }
    }

    /// Goes on with snapshots, with what waits for room in the buffer, and with what is due.
    pub fn handle_turn(&mut self, turn: &mut Turn<'_>) {
        match &mut self.side {
            Side::Publish(publisher) => publisher.handle_timeout(turn),
            Side::Subscribe(subscriber) => subscriber.handle_turn(turn),
        }
    }

    /// The worker's mailbox dropped changes: who wants all of them is closed, to come back with its
    /// token. To the others the worker hands out what they missed, like any change.
    pub fn handle_overflow(&mut self) -> Result<(), CloseReason> {
        match &self.side {
            Side::Publish(_) => Ok(()),
            Side::Subscribe(subscriber) => subscriber.handle_overflow(),
        }
    }

    /// The connection is over: takes its patterns out of the index.
    pub fn handle_closed(&mut self, turn: &mut Turn<'_>) {
        if let Side::Subscribe(subscriber) = &mut self.side {
            subscriber.handle_closed(turn);
        }
    }

    /// When [`Session::handle_turn`] is to be called at the latest, on the monotonic clock.
    pub fn next_timeout_us(&self) -> Option<u64> {
        match &self.side {
            Side::Publish(publisher) => publisher.next_timeout_us(),
            Side::Subscribe(subscriber) => subscriber.next_timeout_us(),
        }
    }

    /// Whether [`Session::handle_turn`] has something to do now, with `out_len` bytes waiting.
    pub fn wants_turn(&self, out_len: usize) -> bool {
        match &self.side {
            Side::Publish(_) => false,
            Side::Subscribe(subscriber) => subscriber.wants_turn(out_len),
        }
    }

    /// Whether the socket is not to be read for now: the client has too much unanswered, or does not
    /// read its answers (`out_len` bytes wait).
    pub fn blocks_reading(&self, out_len: usize) -> bool {
        let is_full = out_len > LATEST_BUFFER_BYTES_MAX;
        match &self.side {
            Side::Publish(publisher) => is_full || publisher.is_full(),
            // In mode=all, records alone may fill more than that; the client must be able to unsubscribe.
            Side::Subscribe(_) => out_len > crate::limits::ALL_QUEUE_BYTES_MAX + LATEST_BUFFER_BYTES_MAX,
        }
    }

    /// Whether publishes of this connection still wait for their answers.
    pub fn has_unanswered(&self) -> bool {
        match &self.side {
            Side::Publish(publisher) => publisher.has_unanswered(),
            Side::Subscribe(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
