//! One client's connection: its socket, what waits to be sent, and how far it is.
//!
//! First a head is read ([`Stage::Head`]); then it is a session with its framing ([`Stage::Open`]), or
//! gone to the control plane; in the end it is closing: what waits is sent, what comes is read and
//! forgotten, so that the kernel does not cut the last frames off with a reset.

use mio::net::TcpStream;

use super::liveness::Liveness;
use super::outbound::Outbound;
use super::session::Session;
use super::websocket::{CloseReason, WebSocket};
use crate::limits::HANDSHAKE_US_MAX;

/// How long the peer's answer to a close frame is waited for, in microseconds.
const CLOSE_US_MAX: u64 = 1_000_000;
/// How long what is before the close frame may take to be sent, in microseconds: who does not read
/// for so long will not see it.
const CLOSE_FLUSH_US_MAX: u64 = 35_000_000;

/// A connection in its worker's table.
pub struct Connection {
    /// Nonblocking.
    pub socket: TcpStream,
    /// Which of those that stood in this place.
    pub generation: u64,
    /// How far it is.
    pub stage: Stage,
    /// What waits to be sent.
    pub out: Outbound,
    /// The node has too many: it will be turned away.
    pub is_excess: bool,
    /// The poll said that there is something to read, and it was not read to the end.
    pub is_readable: bool,
    /// The peer will send nothing more than what is there.
    pub is_read_closed: bool,
    /// The socket took everything so far.
    pub is_writable: bool,
    /// Queued to be read.
    pub is_ready: bool,
    /// Queued for a turn of its session.
    pub is_turning: bool,
    /// Queued to be flushed.
    pub is_touched: bool,
    /// Not read, because of back-pressure.
    pub is_paused: bool,
    /// To be removed at the end of the turn.
    pub is_dead: bool,
    /// Its live entry among the timers.
    pub armed_us: u64,
}

/// How far a connection is.
pub enum Stage {
    /// The request's head is read.
    Head {
        /// What has come.
        bytes: Vec<u8>,
        /// When the connection began.
        opened_us: u64,
    },
    /// A session.
    Open(Box<Open>),
    /// On its way out.
    Closing(Closing),
}

/// A session and its framing.
pub struct Open {
    /// The framing.
    pub websocket: WebSocket,
    /// The session.
    pub session: Session,
    /// Whether the client is there.
    pub liveness: Liveness,
}

/// How a connection ends.
pub struct Closing {
    /// While the peer's close frame is waited for.
    pub websocket: Option<Box<WebSocket>>,
    /// Nothing is waited for but that everything is sent.
    pub is_final: bool,
    since_us: u64,
    sent_us: Option<u64>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(socket: TcpStream, generation: u64, now_us: u64) -> Connection {
        Connection {
            socket,
            generation,
            stage: Stage::Head { bytes: Vec::new(), opened_us: now_us },
            out: Outbound::default(),
            is_excess: false,
            is_readable: false,
            is_read_closed: false,
            is_writable: true,
            is_ready: false,
            is_turning: false,
            is_touched: false,
            is_paused: false,
            is_dead: false,
            armed_us: u64::MAX,
        }
    }

    /// When it is to be looked at without anything happening.
    pub fn next_us(&self) -> Option<u64> {
        match &self.stage {
            Stage::Head { opened_us, .. } => Some(opened_us + HANDSHAKE_US_MAX),
            Stage::Open(open) => match (open.liveness.next_us(), open.session.next_timeout_us()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            Stage::Closing(closing) => Some(closing.deadline_us()),
        }
    }

    /// The session, if there is one.
    pub fn open(&mut self) -> Option<&mut Open> {
        match &mut self.stage {
            Stage::Open(open) => Some(open),
            _ => None,
        }
    }

    /// Sends the close frame after what waits, or, to one that is too slow, instead of it. Gives back
    /// the session, which is to be told.
    pub fn close(&mut self, close: &CloseReason, now_us: u64) -> Option<Session> {
        let closing = Closing { websocket: None, is_final: false, since_us: now_us, sent_us: None };
        let Stage::Open(open) = std::mem::replace(&mut self.stage, Stage::Closing(closing)) else {
            self.is_dead = true;
            return None;
        };
        let Open { mut websocket, session, .. } = *open;
        if matches!(close.code, 4201 | 4202) {
            // Who does not read would not see the close frame behind all that.
            self.out.drop_unsent_frames();
        }
        websocket.close(close, &mut self.out);
        let is_broken = matches!(close.code, 1002 | 1007 | 1009);
        if let Stage::Closing(closing) = &mut self.stage
            && !is_broken
        {
            closing.websocket = Some(Box::new(websocket));
        }
        Some(session)
    }

    /// Everything is said: the connection ends once it is sent. Gives back the session.
    pub fn finish(&mut self, is_final: bool, now_us: u64) -> Option<Session> {
        let closing = Closing { websocket: None, is_final, since_us: now_us, sent_us: None };
        match std::mem::replace(&mut self.stage, Stage::Closing(closing)) {
            Stage::Open(open) => Some(open.session),
            _ => None,
        }
    }

    /// Everything that waited was sent.
    pub fn handle_flushed(&mut self, now_us: u64) {
        let Stage::Closing(closing) = &mut self.stage else { return };
        if closing.is_final {
            self.is_dead = true;
        } else if closing.sent_us.is_none() {
            closing.sent_us = Some(now_us);
            if closing.websocket.is_none() {
                // The peer sees the end; what it still sends is read until it ends too.
                let _ = self.socket.shutdown(std::net::Shutdown::Write);
            }
        }
    }
}

impl Closing {
    /// When it is dropped, whatever is missing.
    pub fn deadline_us(&self) -> u64 {
        match self.sent_us {
            Some(sent_us) => sent_us + CLOSE_US_MAX,
            None => self.since_us + CLOSE_FLUSH_US_MAX,
        }
    }
}
