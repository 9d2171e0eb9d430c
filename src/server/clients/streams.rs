//! Streams of Server-Sent Events: a request becomes a session that only sends.
//!
//! Other than a WebSocket, a stream is an answer of HTTP. So whatever speaks against it is said by the status of the
//! answer, also what is found when the subscription starts, and nothing is sent before that is known.

use super::super::connection::{Admission, Connection, ConnectionStage, Open};
use super::super::framing::event_stream::write_retry;
use super::super::framing::read::FrameReader;
use super::super::framing::wrap::Framing;
use super::super::head::StreamRequest;
use super::super::lifecycle::Phase;
use super::super::liveness::Liveness;
use super::super::session::Session;
use super::Clients;
use super::heads::{check_address, cors_fields, over_capacity, stopping};
use super::rights::peer_of;
use crate::auth::{Door, Peer, Resource, SessionEntry};
use crate::http::stream_head;
use crate::limits::PONG_US_MAX;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Least time after which a client is to come back when its stream has ended, in milliseconds.
const RETRY_MS_MIN: u64 = 1_000;
/// Time over which the clients of a node that ends are spread when they come back, in milliseconds.
const RETRY_MS_SPREAD: u64 = 2_000;

impl Clients {
    /// Makes a stream of a connection, or answers why not.
    pub(super) fn open_stream(&mut self, now: Now, key: usize, request: &StreamRequest) {
        let shared = self.shared().clone();
        let Some(connection) = self.table.get_mut(key) else { return };
        let id = format!("{}-{}-{}", shared.boot, self.env.host.worker, connection.generation);
        let further = cors_fields(&shared.door, &request.caller);
        let admitted = check_room(connection, shared.lifecycle.phase())
            .and_then(|()| open_session(request, id, (&shared.door, &peer_of(connection)), now));
        let session = match admitted {
            Ok(session) => session,
            Err(refusal) => {
                let status = refusal.code.http_status();
                return self.env.refuse_with(now, key, connection, status, (&refusal, &further));
            }
        };
        connection.out.lend(&mut self.env.pool);
        let before = connection.out.len();
        let mut head = stream_head(&further, now.wall_us);
        write_retry(&mut head, RETRY_MS_MIN + connection.generation % RETRY_MS_SPREAD);
        connection.out.append(&head);
        connection.out.start_frames(Framing::EventStream);
        // The client never says anything, so the kernel notices by what is sent that it is gone.
        connection.transport.set_silence_max(PONG_US_MAX);
        let reader = FrameReader::new(Framing::EventStream, 0);
        let liveness = Liveness::of_stream(now.mono_us);
        connection.stage = ConnectionStage::Open(Box::new(Open { reader, session, liveness }));
        shared.metrics.connections.stream.add(1);
        let started = self.env.with(now, key, connection, |session, turn| session.start_stream(turn));
        if let Some(Err(refusal)) = started {
            connection.out.take_back(before);
            let status = refusal.code.http_status();
            self.env.refuse_with(now, key, connection, status, (&refusal, &further));
        }
    }
}

fn check_room(connection: &Connection, phase: Phase) -> Result<(), Refusal> {
    check_address(connection)?;
    match connection.admission {
        _ if phase >= Phase::Closing => Err(stopping()),
        Admission::Excess => Err(over_capacity()),
        Admission::Admitted | Admission::Watcher | Admission::Guest => Ok(()),
    }
}

/// Makes the session that a request asks for, if the door lets its client in as for any other request that reads.
fn open_session(
    request: &StreamRequest,
    id: String,
    (door, peer): (&Door, &Peer),
    now: Now,
) -> Result<Session, Refusal> {
    door.check_host(&request.caller)?;
    let right = Resource::Stream.right_to_read(Resource::Stream.path(), &request.query);
    let access = door.admit(&request.caller, peer, right, now)?;
    let mut session = Session::open_stream(&request.query, request.last_event_id.as_deref(), id)?;
    let is_anonymous = access.as_ref().is_some_and(|access| access.is_anonymous());
    let entry = access.map_or(SessionEntry::Open, SessionEntry::Known);
    session.guard(entry, peer.address, now).map_err(|refusal| match refusal.code {
        // Who has no token may read it with one.
        Code::Forbidden if is_anonymous => Refusal { code: Code::Unauthorized, ..refusal },
        _ => refusal,
    })?;
    Ok(session)
}
