//! One connection of a WebSocket or a stream of events, without its socket: messages in, frames out.
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
//! 1. [`Session::open`] (an error is HTTP 400) and [`Session::guard`] (an error is HTTP 403) before the upgrade,
//!    [`Session::handle_open`] after it. Of a stream of events: [`Session::open_stream`], [`Session::guard`] and
//!    [`Session::start_stream`], whose errors are the status of the answer;
//! 2. [`Session::handle_message`] for each message; after it, and before 4, the worker sees to it
//!    that its mailbox takes changes if its index has any pattern;
//! 3. [`Session::handle_change`] for each change of the mailbox, to the connections that the index
//!    names, after counting it in [`Turn::mailbox_position`]. Several may be counted before the first
//!    of them is handed over, if no other call comes between. It should flush a connection long before
//!    its buffer has [`crate::limits::ALL_QUEUE_BYTES_MAX`];
//! 4. [`Session::handle_turn`] when [`Session::next_timeout_us`] has passed, and while
//!    [`Session::wants_turn`], to be asked after any of these calls and whenever something was flushed;
//! 5. [`Session::check_rights`] when [`Session::next_timeout_us`] has passed, before 4, and
//!    [`Session::judge_again`] when the file of rights has changed;
//! 6. [`Session::handle_durable`] when the store's mark or health has changed, and
//!    [`Session::handle_replicated`] when the cluster answers for one of its records.
//!
//! At the end: [`Session::handle_closed`]. Rejected: a task per connection, whose stack and wakeups
//! an idle subscriber would pay for.

mod checkpoint;
mod encode;
mod events;
mod filters;
mod host;
mod names;
mod order;
mod publish;
mod queue;
mod remains;
mod resume;
mod rights;
mod scans;
mod snapshot;
mod subscribe;
mod turn;

use std::net::IpAddr;

use self::publish::Publisher;
use self::rights::{SessionRights, close_of};
use self::subscribe::Subscriber;
use super::account::Holdings;
use super::acks::Reached;
use super::close::{CloseCode, CloseReason};
use super::framing::message::{Codec, IncomingMessage};
use crate::auth::{ANONYMOUS, SessionEntry};
use crate::ingest::Change;
use crate::limits::{LATEST_BUFFER_BYTES_MAX, PING_US};
use crate::protocol::draft::RequestId;
use crate::protocol::json;
use crate::protocol::protobuf::ClientMessage;
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::request::{AuthFrame, Connected, Notice, UrlRequest};
use crate::protocol::token::Token;
use crate::protocol::url::{publish_url, stream_url, subscribe_url};
use crate::record::Now;

pub use self::encode::EncodedChange;
pub use self::filters::FilterCounts;
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

/// One connection, without its socket.
#[derive(Debug)]
pub struct Session {
    codec: Codec,
    /// Names the connection to its client and in the log.
    id: String,
    /// Who the client is; `None` if the node has no file of rights.
    // Boxed, so that a session without it is not larger.
    rights: Option<Box<SessionRights>>,
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
        Ok(Session { codec, id, rights: None, side })
    }

    /// Makes the session of a stream of events, on which the client gets the subscription that the URL asks for, and says
    /// nothing. `last_event_id` is the token that a client which comes back sends; it is newer than one in the URL.
    pub fn open_stream(query: &str, last_event_id: Option<&str>, id: String) -> Result<Session, Refusal> {
        let (mut first, codec) = (stream_url(query)?, Codec::Json);
        if let Some(text) = last_event_id {
            let refused = |error| Refusal::new(Code::BadRequest, format!("Last-Event-ID: {error}"));
            first.resume = Some(Token::decode(text).map_err(refused)?);
        }
        let mode = first.mode;
        let subscriber = Box::new(Subscriber::new(codec, Some(first), mode, false));
        Ok(Session { codec, id, rights: None, side: SessionSide::Subscribe(subscriber) })
    }

    /// Starts the subscription of a stream of events. To be called once.
    pub fn start_stream(&mut self, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        match &mut self.side {
            SessionSide::Subscribe(subscriber) => subscriber.start_stream(turn),
            SessionSide::Publish(_) => Ok(()),
        }
    }

    /// Gives the session the rights of its client, who comes from `address`. To be called before the upgrade. A
    /// refusal says that the client may not read what the URL asks for, and is to be answered instead of the upgrade.
    pub fn guard(&mut self, entry: SessionEntry, address: IpAddr, now: Now) -> Result<(), Refusal> {
        let wanted = match &self.side {
            SessionSide::Publish(_) => &[],
            SessionSide::Subscribe(subscriber) => subscriber.first_patterns(),
        };
        self.rights = SessionRights::begin(entry, address, wanted, now)?.map(Box::new);
        Ok(())
    }

    /// Returns whether a token is waited for before anything else is done.
    fn awaits_token(&self) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.known().is_none())
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
        if !self.awaits_token() {
            self.start_first(turn);
        }
    }

    /// Starts the subscription that the URL asks for, if it asks for one and it has not been started.
    fn start_first(&mut self, turn: &mut Turn<'_>) {
        let rights = self.rights.as_deref().and_then(SessionRights::known);
        if let SessionSide::Subscribe(subscriber) = &mut self.side {
            subscriber.handle_open(turn, rights);
        }
    }

    fn greet(&self, turn: &mut Turn<'_>) {
        let host = turn.host;
        let (facts, members) = (host.facts(), host.members());
        // Strangers are not told where the members of the cluster are.
        let is_told = !self.awaits_token();
        let live: Vec<_> = members.iter().filter(|member| is_told && member.state.is_live()).collect();
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
        if self.awaits_token() {
            return self.handle_first(turn, message);
        }
        let rights = self.rights.as_deref().and_then(SessionRights::known);
        match (self.codec, message) {
            (Codec::Json, IncomingMessage::Text(text)) => {
                let auth = match &mut self.side {
                    SessionSide::Publish(publisher) => publisher.handle_text(turn, text, rights),
                    SessionSide::Subscribe(subscriber) => subscriber.handle_text(turn, text, rights),
                };
                if let Some(auth) = auth {
                    return self.authenticate(turn, auth);
                }
            }
            (Codec::Protobuf, IncomingMessage::Binary(bytes)) => {
                let message = decode(bytes)?;
                if let Some(auth) = message.auth_frame() {
                    return self.authenticate(turn, auth);
                }
                match &mut self.side {
                    SessionSide::Publish(publisher) => {
                        publisher.handle_frame(turn, &message.publish_frame(), rights);
                    }
                    SessionSide::Subscribe(subscriber) => {
                        subscriber.handle_frame(turn, message.subscribe_frame(), rights);
                    }
                }
            }
            (codec, _) => return Err(wrong_kind(codec)),
        }
        match rights {
            Some(rights) if rights.is_flooding() => {
                let reason = "ten times the rate of the token for ten seconds";
                Err(CloseReason::new(CloseCode::OverRate, reason))
            }
            _ => Ok(()),
        }
    }

    /// Handles the first message of a client that has brought no token: it must be one that does.
    fn handle_first(&mut self, turn: &mut Turn<'_>, message: IncomingMessage<'_>) -> Result<(), CloseReason> {
        let decoded;
        let auth = match (self.codec, message) {
            (Codec::Json, IncomingMessage::Text(text)) => json::auth_frame(text),
            (Codec::Protobuf, IncomingMessage::Binary(bytes)) => {
                decoded = decode(bytes)?;
                decoded.auth_frame()
            }
            (codec, _) => return Err(wrong_kind(codec)),
        };
        match auth {
            Some(auth) => self.authenticate(turn, auth),
            None => {
                let message = "this needs a token, in the first frame or at the upgrade";
                Err(self.refuse_client(turn, None, &Refusal::new(Code::Unauthorized, message)))
            }
        }
    }

    /// Takes the token that a frame brings. An error closes the connection.
    fn authenticate(&mut self, turn: &mut Turn<'_>, frame: AuthFrame<'_>) -> Result<(), CloseReason> {
        let token = match frame.token {
            Ok(token) => token,
            Err(refusal) => {
                self.refuse(turn, frame.id, &refusal);
                return Ok(());
            }
        };
        let (Some(auth), Some(rights)) = (turn.host.auth(), &mut self.rights) else {
            let notice = Notice::Authenticated { id: frame.id, name: ANONYMOUS, expires_s: None };
            turn.notice(self.codec, &notice);
            return Ok(());
        };
        match auth.authenticate(&token, rights.address(), turn.now) {
            Ok(access) => {
                rights.set(access.clone(), turn.now);
                let expires_s = access.expires_us().map(|expires_us| expires_us / 1_000_000);
                let notice = Notice::Authenticated { id: frame.id, name: access.name(), expires_s };
                turn.notice(self.codec, &notice);
                self.check_subscriptions(turn)?;
                self.start_first(turn);
                Ok(())
            }
            Err(refusal) => Err(self.refuse_client(turn, frame.id, &refusal)),
        }
    }

    /// Closes the connection if the token has not come in time or has ended. To be called when
    /// [`Session::next_timeout_us`] has passed.
    pub fn check_rights(&mut self, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        let Some(rights) = &mut self.rights else { return Ok(()) };
        rights.check(turn.now).map_err(|refusal| self.refuse_client(turn, None, &refusal))
    }

    /// Judges the client again, because the file of rights has changed. An error closes the connection.
    pub fn judge_again(&mut self, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        let (Some(auth), Some(rights)) = (turn.host.auth(), &mut self.rights) else { return Ok(()) };
        match rights.judge_again(auth, turn.now) {
            Ok(()) => self.check_subscriptions(turn),
            Err(refusal) => Err(self.refuse_client(turn, None, &refusal)),
        }
    }

    /// Closes the connection if it has subscribed to something that the client may not read any longer.
    fn check_subscriptions(&mut self, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        let Some(known) = self.rights.as_deref().and_then(SessionRights::known) else { return Ok(()) };
        let SessionSide::Subscribe(subscriber) = &self.side else { return Ok(()) };
        subscriber.check_readable(known.access()).map_err(|refusal| self.refuse_client(turn, None, &refusal))
    }

    fn refuse(&self, turn: &mut Turn<'_>, id: Option<RequestId<'_>>, refusal: &Refusal) {
        turn.host.state().metrics().refused(refusal.code);
        turn.notice(self.codec, &Notice::Refused { id, refusal });
    }

    /// Tells the client why its connection is closed, and returns the close.
    fn refuse_client(
        &self,
        turn: &mut Turn<'_>,
        id: Option<RequestId<'_>>,
        refusal: &Refusal,
    ) -> CloseReason {
        self.refuse(turn, id, refusal);
        close_of(refusal)
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
        let side_us = match &self.side {
            SessionSide::Publish(publisher) => publisher.next_timeout_us(),
            SessionSide::Subscribe(subscriber) => subscriber.next_timeout_us(),
        };
        match &self.rights {
            None => side_us,
            Some(rights) => [side_us, rights.next_timeout_us()].into_iter().flatten().min(),
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
        let mut holdings = match &self.side {
            SessionSide::Publish(publisher) => {
                Holdings { answers: publisher.held_bytes(), ..Holdings::default() }
            }
            SessionSide::Subscribe(subscriber) => subscriber.holdings(),
        };
        holdings.answers += self.rights.as_ref().map_or(0, |rights| rights.held_bytes());
        holdings
    }

    /// Returns whether any publish of this connection waits for its answer.
    pub fn has_unanswered(&self) -> bool {
        match &self.side {
            SessionSide::Publish(publisher) => publisher.has_unanswered(),
            SessionSide::Subscribe(_) => false,
        }
    }
}

fn decode(bytes: &[u8]) -> Result<ClientMessage<'_>, CloseReason> {
    ClientMessage::decode(bytes).map_err(|error| CloseReason::new(CloseCode::BadMessage, error.to_string()))
}

/// The close after a message of the kind that the connection does not speak.
fn wrong_kind(codec: Codec) -> CloseReason {
    let reason = match codec {
        Codec::Json => "this connection speaks JSON in text frames",
        Codec::Protobuf => "this connection speaks protobuf in binary frames",
    };
    CloseReason::new(CloseCode::UnsupportedKind, reason)
}

#[cfg(test)]
mod tests;
