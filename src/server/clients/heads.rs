//! What requests ask for, once their heads have come: a session, an answer about the health of the node, or
//! something of the control plane.

use super::super::close::{CloseCode, CloseReason};
use super::super::connection::{Admission, AwaitedEnd, Connection, ConnectionStage, Open};
use super::super::control::Control;
use super::super::framing::read::FrameReader;
use super::super::framing::wrap::Framing;
use super::super::handshake::{Handshake, VERSION_FIELD};
use super::super::head::{HealthRequest, RequestHead, Upgrade};
use super::super::lifecycle::Phase;
use super::super::liveness::Liveness;
use super::super::session::{Endpoint, Session};
use super::Clients;
use super::rights::peer_of;
use crate::auth::{Caller, Door, PageOrigin, Peer, Resource, Right};
use crate::http::{HealthPath, IDLE, RawAnswer};
use crate::limits::{HANDSHAKE_US_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Number of times a second that a worker answers `/metrics` by itself. An answer takes some ten
/// microseconds, and clients that ask more often must not take the time of others: the control plane answers
/// them.
const SCRAPES_PER_SECOND_MAX: u32 = 20;
/// Bytes of answers about health that may wait for a client that sends many requests at once. Behind them the
/// connection is closed.
const HEALTH_UNSENT_BYTES_MAX: usize = 16 * 1024;
/// Time for which a connection waits for a place in the control plane while all places are used by requests that are
/// being worked on, in microseconds. So a burst of requests is answered late rather than refused.
const PLACE_WAIT_US_MAX: u64 = 2_000_000;

/// Time after which a client is to try again whose address has too many connections, in milliseconds.
const ADDRESS_RETRY_MS: u64 = 5_000;

/// The number of answers to `/metrics` in the current second.
#[derive(Debug, Default)]
pub struct Scrapes {
    second: u64,
    count: u32,
}

impl Scrapes {
    /// Counts an answer, if it is one that may be made in this second. Returns whether it may.
    fn count(&mut self, now: Now) -> bool {
        let second = now.mono_us / 1_000_000;
        if second != self.second {
            *self = Scrapes { second, count: 0 };
        }
        self.count += 1;
        self.count <= SCRAPES_PER_SECOND_MAX
    }
}

impl Clients {
    /// Parses the head of a request as far as it has arrived, and acts on it once it is complete.
    pub(super) fn handle_head(&mut self, now: Now, key: usize) {
        loop {
            let Some(connection) = self.table.get_mut(key) else { return };
            let is_watcher = connection.admission == Admission::Watcher;
            let ConnectionStage::Head { head, .. } = &mut connection.stage else { return };
            match head.read() {
                RequestHead::Partial => return,
                RequestHead::TooLarge => {
                    let message =
                        format!("the head of the request has more than {REQUEST_HEAD_BYTES_MAX} bytes");
                    let refusal = Refusal::new(Code::TooLarge, message);
                    return self.env.refuse(now, key, connection, 431, &refusal);
                }
                RequestHead::Foreign(message) => {
                    let refusal = Refusal::new(Code::BadRequest, message);
                    return self.env.refuse(now, key, connection, 400, &refusal);
                }
                RequestHead::Http | RequestHead::Upgrade(_) | RequestHead::Stream(_) if is_watcher => {
                    let message = "this port serves GET and HEAD of /healthz, /readyz and /metrics";
                    let refusal = Refusal::new(Code::NotFound, message);
                    return self.env.refuse(now, key, connection, 404, &refusal);
                }
                RequestHead::Http => return self.hand_over(now, key),
                RequestHead::Health(health) => {
                    if health.path == HealthPath::Metrics && !self.scrapes.count(now) {
                        if !is_watcher {
                            return self.hand_over(now, key);
                        }
                        let message = "the metrics were asked for too often in this second";
                        let refusal = Refusal::new(Code::Overloaded, message);
                        return self.env.refuse(now, key, connection, 503, &refusal);
                    }
                    self.answer_health(now, key, health);
                }
                RequestHead::Stream(request) => {
                    head.take();
                    return self.open_stream(now, key, &request);
                }
                RequestHead::Upgrade(upgrade) => {
                    let bytes = head.take();
                    let mut rest = bytes.get(upgrade.head_bytes..).unwrap_or_default().to_vec();
                    return self.upgrade(now, key, &upgrade, &mut rest);
                }
            }
        }
    }

    /// Hands a connection to the control plane, with the bytes that were read from it.
    fn hand_over(&mut self, now: Now, key: usize) {
        let is_going = self.shared().lifecycle.phase() >= Phase::Closing;
        let Some(connection) = self.table.get_mut(key) else { return };
        if let Err(refusal) = check_address(connection) {
            return self.env.refuse(now, key, connection, 429, &refusal);
        }
        let ConnectionStage::Head { head, place_until_us, .. } = &mut connection.stage else { return };
        let is_flushed =
            connection.out.is_empty() || matches!(connection.out.flush(&mut connection.transport), Ok(true));
        if !is_flushed {
            // The client has not read the answers before this one, and does not get more.
            return self.env.finish(now, key, connection, AwaitedEnd::Disconnect);
        }
        if is_going {
            return self.env.refuse(now, key, connection, 503, &stopping());
        }
        let is_admitted = connection.admission == Admission::Admitted;
        if let Some(place) = is_admitted.then(|| self.hand_over.reserve()).flatten() {
            let read = head.take();
            return self.env.hand_over(key, connection, place, read);
        }
        let until_us = *place_until_us.get_or_insert(now.mono_us + PLACE_WAIT_US_MAX);
        if !is_admitted || now.mono_us >= until_us {
            self.env.refuse(now, key, connection, 503, &over_capacity());
        }
    }

    /// Answers a request for a health path. The connection remains for the next request, unless the client
    /// wants it closed or the node has no room for it.
    fn answer_health(&mut self, now: Now, key: usize, health: HealthRequest) {
        let shared = self.shared().clone();
        let Some(connection) = self.table.get_mut(key) else { return };
        let is_stopping = shared.lifecycle.phase() >= Phase::Draining;
        let closes = health.closes
            || is_stopping
            || connection.admission == Admission::Excess
            || connection.out.len() > HEALTH_UNSENT_BYTES_MAX;
        // Whoever can reach the port for those who watch may watch.
        let is_watcher = connection.admission == Admission::Watcher;
        let peer = peer_of(connection);
        if !is_watcher && let Err(refusal) = check_health(&shared.door, &peer, &health, now) {
            return self.env.refuse(now, key, connection, refusal.code.http_status(), &refusal);
        }
        let further = cors_fields(&shared.door, &health.caller);
        let answer = health.path.answer(&Control(shared));
        let raw = RawAnswer {
            status: answer.status,
            media_type: answer.media_type,
            body: &answer.body,
            further: &further,
            retry_after_ms: None,
            closes,
            is_head: health.is_head,
        };
        connection.out.lend(&mut self.env.pool);
        connection.out.append(&raw.bytes(now.wall_us));
        if closes {
            return self.env.finish(now, key, connection, AwaitedEnd::Disconnect);
        }
        if let ConnectionStage::Head { head, deadline_us, .. } = &mut connection.stage {
            head.handle_answered(health.head_bytes);
            let wait_us = if head.is_empty() { IDLE.as_micros() as u64 } else { HANDSHAKE_US_MAX };
            *deadline_us = now.mono_us + wait_us;
        }
        self.env.touch(key, connection);
    }

    /// Answers the requests that have come, and refuses those that are under way, because the event loop
    /// ends.
    pub fn turn_rest_away(&mut self, now: Now) {
        let keys: Vec<usize> = self.table.iter().map(|(key, _)| key).collect();
        for key in keys {
            // A socket that is closed with unread bytes resets the connection, and the answer is lost.
            if let Some(connection) = self.table.get_mut(key)
                && matches!(connection.stage, ConnectionStage::Head { .. })
                && !connection.transport.is_handshaking()
            {
                connection.intake.handle_event(false);
                let _ = connection.intake.leave_paused() || connection.intake.enter_ready();
                self.read(now, key);
            }
            let Some(connection) = self.table.get_mut(key) else { continue };
            if let ConnectionStage::Head { head, .. } = &connection.stage
                && !head.is_between_requests()
            {
                self.env.refuse(now, key, connection, 503, &stopping());
            }
        }
    }

    /// Makes a session of a connection; `rest` is what the client has sent behind the head.
    fn upgrade(&mut self, now: Now, key: usize, upgrade: &Upgrade, rest: &mut [u8]) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let id = format!("{}-{}-{}", self.env.host.shared.boot, self.env.host.worker, connection.generation);
        let door = &self.env.host.shared.door;
        let opened = check_address(connection)
            .and_then(|()| open_session(upgrade, id, (door, &peer_of(connection)), now));
        let (session, handshake) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                let status = refusal.code.http_status();
                let further = if upgrade.handshake.is_err() { VERSION_FIELD } else { "" };
                return self.env.refuse_with(now, key, connection, status, (&refusal, further));
            }
        };
        if let Some(peer) = connection.transport.peer_name() {
            tracing::debug!(peer, "a client with a certificate has a session");
        }
        connection.out.lend(&mut self.env.pool);
        connection.out.append(&handshake.response());
        self.open(now, key, session, upgrade.framing);
        if let Some(connection) = self.table.get_mut(key)
            && matches!(connection.stage, ConnectionStage::Open(_))
        {
            Self::handle_frames(&mut self.env, now, key, connection, rest);
        }
    }

    /// Lets a session begin on a connection, or closes it at once where the node has no room or is stopping.
    pub(super) fn open(&mut self, now: Now, key: usize, session: Session, framing: Framing) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.out.start_frames(framing);
        self.env.count_session(connection.admission, session.endpoint(), framing, 1);
        let shared = &self.env.host.shared;
        let reader = FrameReader::new(framing, shared.config.max_frame_bytes);
        let mut liveness = Liveness::new(now.mono_us);
        // The control plane cannot go without a trace: the socket would be closed.
        liveness.set_paused(now.mono_us, connection.admission == Admission::Guest);
        let is_going = shared.lifecycle.phase() >= Phase::Closing;
        connection.stage = ConnectionStage::Open(Box::new(Open { reader, session, liveness }));
        let close = match connection.admission {
            _ if is_going => Some(CloseReason::new(CloseCode::Draining, "draining")),
            Admission::Excess => Some(CloseReason::new(CloseCode::OverCapacity, "over capacity")),
            Admission::Admitted | Admission::Watcher | Admission::Guest => None,
        };
        if let Some(close) = close {
            return self.env.close(now, key, connection, &close);
        }
        self.env.with(now, key, connection, |session, turn| session.handle_open(turn));
    }
}

/// Makes the session that a request asks for, if the door lets its client in.
fn open_session<'a>(
    upgrade: &'a Upgrade,
    id: String,
    (door, peer): (&Door, &Peer),
    now: Now,
) -> Result<(Session, &'a Handshake), Refusal> {
    let refused = |message: &String| Refusal::new(Code::BadRequest, message.clone());
    let handshake = upgrade.handshake.as_ref().map_err(refused)?;
    let resource = match upgrade.endpoint {
        Endpoint::Publish => Resource::PublishSocket,
        Endpoint::Subscribe => Resource::SubscribeSocket,
    };
    let right = resource.right_to_read(resource.path(), &upgrade.query);
    let entry = door.admit_session(&upgrade.caller, peer, right, now)?;
    let mut session = Session::open(upgrade.endpoint, handshake.codec(), &upgrade.query, id)?;
    session.guard(entry, peer.address, now)?;
    Ok((session, handshake))
}

/// The lines of the head of an answer by which a page may read it, if its origin is allowed.
pub(super) fn cors_fields(door: &Door, caller: &Caller) -> String {
    match (door.page_of(caller), &caller.origin) {
        (PageOrigin::Allowed, Some(origin)) => {
            format!("access-control-allow-origin: {origin}\r\nvary: origin\r\n")
        }
        _ => String::new(),
    }
}

/// Lets a request for a health path in, or refuses it.
fn check_health(door: &Door, peer: &Peer, health: &HealthRequest, now: Now) -> Result<(), Refusal> {
    let resource = match health.path {
        HealthPath::Live => Resource::Live,
        HealthPath::Ready => Resource::Ready,
        HealthPath::Metrics => Resource::Metrics,
    };
    let right = resource.right();
    if right != Right::Public {
        door.check_host(&health.caller)?;
    }
    door.admit(&health.caller, peer, right, now).map(|_| ())
}

/// Refuses a connection that is beyond the bound of its address.
pub(super) fn check_address(connection: &Connection) -> Result<(), Refusal> {
    match &connection.address_place {
        Some(place) if !place.is_within() => {
            let message = "this address has as many connections as it may (--max-connections-per-address)";
            Err(Refusal::new(Code::RateLimited, message).retry_after_ms(ADDRESS_RETRY_MS))
        }
        _ => Ok(()),
    }
}

pub(super) fn over_capacity() -> Refusal {
    Refusal::new(Code::Overloaded, "this node has as many connections as it may")
}

pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Overloaded, "this node is stopping; another node of the cluster serves")
}
