//! The way in: heads become sessions or go to the control plane, bytes become messages.

use std::io::{self, Read};

use super::super::clock;
use super::super::connection::{Connection, Open, Stage};
use super::super::head::{Head, Path, Subprotocol, Upgrade, read_head};
use super::super::liveness::Liveness;
use super::super::session::{Codec, Endpoint, Incoming as Message, Session};
use super::super::shared::Phase;
use super::super::websocket::{CloseReason, Incoming, WebSocket};
use super::parts::Parts;
use super::{Clients, PART_US_MAX};
use crate::limits::HEAD_BYTES_MAX;
use crate::protocol::answer::{Code, Refusal};
use crate::record::Now;

/// After so many bytes what was published is handed out: it is still in the core's caches then.
const HAND_OUT_BYTES: usize = 64 * 1024;

impl Clients {
    /// Reads who has something, and hands out in between. Whether there is mail that was left for want
    /// of time.
    pub(super) fn read_ready(&mut self) -> bool {
        let end_us = clock::now().mono_us + PART_US_MAX;
        let mut bytes = 0;
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { return false };
            let now = clock::now();
            bytes += self.read(now, key);
            if now.mono_us > end_us {
                return false;
            }
            if bytes >= HAND_OUT_BYTES {
                bytes = 0;
                if self.drain_mailbox() {
                    return true;
                }
            }
        }
        false
    }

    /// Reads one piece, unless the connection is to be left alone for now. How many bytes it had.
    fn read(&mut self, now: Now, key: usize) -> usize {
        let Some(connection) = self.table.get_mut(key) else { return 0 };
        connection.is_ready = false;
        if connection.is_dead || self.pause_if_blocked(now, key) {
            return 0;
        }
        let Some(connection) = self.table.get_mut(key) else { return 0 };
        let mut bytes = 0;
        match connection.socket.read(&mut self.buffer) {
            Ok(0) => {
                let session = connection.finish(true, now.mono_us);
                self.parts.end_session(now, key, connection, session);
                self.parts.kill(key, connection);
                return 0;
            }
            Ok(read) => {
                // A short read has emptied the socket; another event comes with the next byte.
                connection.is_readable = read == self.buffer.len() || connection.is_read_closed;
                bytes = read;
                self.handle_bytes(now, key, read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::trace!(%error, "a client is gone");
                let session = connection.finish(true, now.mono_us);
                self.parts.end_session(now, key, connection, session);
                self.parts.kill(key, connection);
                return 0;
            }
        }
        self.queue_reading(key);
        self.queue_turn(key);
        if let Some(connection) = self.table.get_mut(key) {
            self.parts.arm(now.mono_us, key, connection);
        }
        bytes
    }

    /// Back-pressure: whether the connection is not to be read for now.
    fn pause_if_blocked(&mut self, now: Now, key: usize) -> bool {
        let shared = &self.parts.host.shared;
        let Some(connection) = self.table.get_mut(key) else { return true };
        let Stage::Open(open) = &mut connection.stage else { return false };
        let is_publisher = open.session.endpoint() == Endpoint::Publish;
        let is_blocked = open.session.blocks_reading(connection.out.len())
            || (is_publisher && (shared.phase() == Phase::Loading || shared.is_congested()));
        open.liveness.set_paused(now.mono_us, is_blocked);
        if is_blocked && !std::mem::replace(&mut connection.is_paused, true) {
            self.paused.push(key);
        }
        is_blocked
    }

    pub(super) fn resume_paused(&mut self, now: Now) {
        for key in std::mem::take(&mut self.paused) {
            if let Some(connection) = self.table.get_mut(key)
                && std::mem::replace(&mut connection.is_paused, false)
                && !self.pause_if_blocked(now, key)
            {
                self.queue_reading(key);
                if let Some(connection) = self.table.get_mut(key) {
                    self.parts.arm(now.mono_us, key, connection);
                }
            }
        }
    }

    /// `read` bytes stand at the beginning of the buffer.
    fn handle_bytes(&mut self, now: Now, key: usize, read: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let mut input = self.buffer.get_mut(..read).unwrap_or_default();
        match &mut connection.stage {
            Stage::Open(open) => {
                open.liveness.handle_received(now.mono_us);
                Self::handle_frames(&mut self.parts, now, key, connection, input);
            }
            Stage::Head { bytes, .. } => {
                bytes.extend_from_slice(input);
                self.handle_head(now, key);
            }
            Stage::Closing(closing) => {
                let Some(websocket) = &mut closing.websocket else { return };
                loop {
                    match websocket.read(&mut input, &mut connection.out) {
                        Incoming::Text(_) | Incoming::Binary(_) => {}
                        Incoming::Starved => return,
                        Incoming::Closed | Incoming::Broken(_) => break,
                    }
                }
                closing.websocket = None;
                closing.is_final = true;
                self.parts.touch(key, connection);
            }
        }
        self.set_wanted();
    }

    fn handle_frames(
        parts: &mut Parts,
        now: Now,
        key: usize,
        connection: &mut Connection,
        mut input: &mut [u8],
    ) {
        let Stage::Open(open) = &mut connection.stage else { return };
        let Open { websocket, session, .. } = &mut **open;
        connection.out.lend(&mut parts.pool);
        let close = loop {
            let message = match websocket.read(&mut input, &mut connection.out) {
                Incoming::Text(text) => Message::Text(text),
                Incoming::Binary(bytes) => Message::Binary(bytes),
                Incoming::Starved => return parts.touch(key, connection),
                Incoming::Closed => return parts.finish(now, key, connection, true),
                Incoming::Broken(close) => break close,
            };
            let handled = session.handle_message(&mut parts.turn(now, key, &mut connection.out), message);
            if let Err(close) = handled {
                break close;
            }
        };
        parts.close(now, key, connection, &close);
    }

    fn handle_head(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let Stage::Head { bytes, .. } = &mut connection.stage else { return };
        match read_head(bytes) {
            Head::Partial => {}
            Head::TooLarge => {
                let message = format!("the request's head is over {HEAD_BYTES_MAX} bytes");
                let refusal = Refusal::new(Code::TooLarge, message);
                self.parts.refuse(now, key, connection, 431, &refusal);
            }
            Head::Http if connection.is_excess => {
                self.parts.refuse(now, key, connection, 503, &over_capacity());
            }
            Head::Http => {
                let bytes = std::mem::take(bytes);
                self.hand_over(now, key, bytes);
            }
            Head::Upgrade(upgrade) => {
                let mut rest = bytes.split_off(upgrade.head_bytes.min(bytes.len()));
                self.upgrade(now, key, &upgrade, &mut rest);
            }
        }
    }

    /// Gives a connection to the control plane.
    fn hand_over(&mut self, now: Now, key: usize, bytes: Vec<u8>) {
        let Some(connection) = self.table.get_mut(key) else { return };
        self.parts.kill(key, connection);
        // A second handle: the worker's own is closed, and with it leaves the poll, when it is reaped.
        let handle = std::os::fd::AsFd::as_fd(&connection.socket).try_clone_to_owned();
        let handed = match handle {
            Ok(handle) => self.hand_over.hand_over(std::net::TcpStream::from(handle), bytes),
            Err(error) => {
                tracing::warn!(%error, "a request could not be handed to the control plane");
                return;
            }
        };
        if handed.is_err() {
            connection.is_dead = false;
            self.parts.dead.retain(|dead| *dead != key);
            self.parts.refuse(now, key, connection, 503, &over_capacity());
        }
    }

    fn upgrade(&mut self, now: Now, key: usize, upgrade: &Upgrade, rest: &mut [u8]) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let id =
            format!("{}-{}-{}", self.parts.host.shared.boot, self.parts.host.worker, connection.generation);
        let session = match open_session(upgrade, id) {
            Ok(session) => session,
            Err(refusal) => return self.parts.refuse(now, key, connection, 400, &refusal),
        };
        let response = match upgrade.accept() {
            Ok(response) => response,
            Err(message) => {
                let refusal = Refusal::new(Code::BadRequest, message);
                return self.parts.refuse(now, key, connection, 400, &refusal);
            }
        };
        connection.out.lend(&mut self.parts.pool);
        connection.out.append(&response);
        connection.out.start_frames();
        let shared = &self.parts.host.shared;
        match session.endpoint() {
            Endpoint::Publish => shared.metrics.connections.publish.add(1),
            Endpoint::Subscribe => shared.metrics.connections.subscribe.add(1),
        }
        let websocket = WebSocket::new(shared.config.max_frame_bytes);
        let liveness = Liveness::new(now.mono_us);
        let is_going = shared.phase() >= Phase::Closing;
        connection.stage = Stage::Open(Box::new(Open { websocket, session, liveness }));
        if connection.is_excess {
            return self.parts.close(now, key, connection, &CloseReason::new(4100, "over capacity"));
        }
        if is_going {
            return self.parts.close(now, key, connection, &CloseReason::new(4200, "draining"));
        }
        self.parts.with(now, key, connection, |session, turn| session.handle_open(turn));
        Self::handle_frames(&mut self.parts, now, key, connection, rest);
    }
}

fn open_session(upgrade: &Upgrade, id: String) -> Result<Session, Refusal> {
    let codec = match upgrade.subprotocol() {
        Ok(Subprotocol::Json) => Codec::Json,
        Ok(Subprotocol::Protobuf) => Codec::Protobuf,
        Err(message) => return Err(Refusal::new(Code::BadRequest, message)),
    };
    let endpoint = match upgrade.path {
        Path::Publish => Endpoint::Publish,
        Path::Subscribe => Endpoint::Subscribe,
    };
    Session::open(endpoint, codec, &upgrade.query, id)
}

fn over_capacity() -> Refusal {
    Refusal::new(Code::Overloaded, "this node has as many connections as it may")
}
