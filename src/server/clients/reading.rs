//! The way in: bytes become heads of requests, and messages of sessions.

use std::io;

use super::super::connection::{AwaitedEnd, Connection, ConnectionStage, Open};
use super::super::framing::message::Unwrapped;
use super::super::lanes::{Lane, is_petty};
use super::super::lifecycle::Phase;
use super::super::session::Endpoint;
use super::super::time_bound::TimeBound;
use super::super::tls::TlsFault;
use super::super::transport::Received;
use super::Clients;
use super::env::{ClientsEnv, PART_US_MAX};
use crate::http::RawAnswer;
use crate::limits::HANDSHAKE_US_MAX;
use crate::record::Now;

/// Number of bytes after which reading stops to hand out the changes that came of them, while these are still
/// in the core's caches.
const HAND_OUT_BYTES: usize = 64 * 1024;
/// Time that a turn spends on handshakes of TLS, in microseconds. One takes some hundred microseconds, most of them for a
/// signature, so a turn does a few: however many clients begin one, nobody else waits for longer than this and one more.
pub(super) const HANDSHAKES_US_MAX: u64 = 500;
/// Time that a turn spends on connections whose last bytes brought nothing that anybody waits for, in microseconds. To
/// answer them takes as long again, when they are flushed.
pub(super) const PETTY_US_MAX: u64 = 200;

impl Clients {
    /// Reads the connections that have something, and hands out changes in between. Returns whether changes
    /// were left in the mailbox for want of time.
    pub(super) fn read_ready(&mut self) -> bool {
        let count = self.lanes.len(Lane::Messages);
        let mut allowed = TimeBound::of(PART_US_MAX);
        let mut bytes = 0;
        for _ in 0..count {
            let Some(now) = allowed.now() else { return false };
            let Some(key) = self.lanes.pop(Lane::Messages) else { return false };
            bytes += self.read(now, key);
            if bytes >= HAND_OUT_BYTES {
                bytes = 0;
                if self.drain_mailbox() {
                    return true;
                }
            }
        }
        false
    }

    /// Reads connections of a lane for `us` microseconds, in the order in which they came, and at least one.
    pub(super) fn read_lane(&mut self, lane: Lane, us: u64) {
        let mut allowed = TimeBound::of(us);
        for _ in 0..self.lanes.len(lane) {
            let Some(now) = allowed.now() else { return };
            let Some(key) = self.lanes.pop(lane) else { return };
            self.read(now, key);
        }
    }

    /// Reads one piece of a connection, unless reading is paused. Returns the number of bytes.
    pub(super) fn read(&mut self, now: Now, key: usize) -> usize {
        let Some(connection) = self.table.get_mut(key) else { return 0 };
        // A place in the list may be left from a connection that had this key before.
        let is_ready = connection.intake.leave_ready();
        if !is_ready || connection.is_over() || self.pause_if_blocked(now, key) {
            return 0;
        }
        let Some(connection) = self.table.get_mut(key) else { return 0 };
        let mut bytes = 0;
        let most = connection.read_bytes_max().min(self.buffer.len());
        let held = connection.transport.received_bytes();
        let received = connection.transport.receive(self.buffer.get_mut(..most).unwrap_or_default());
        if connection.transport.has_layer() {
            self.env.touch(key, connection);
        }
        match received {
            Ok(Received { bytes: 0, .. }) => {
                self.env.lose(now, key, connection);
                return 0;
            }
            Ok(received) => {
                connection.intake.handle_read(received.may_hold_more);
                bytes = received.bytes;
                self.traffic.received_bytes += bytes as u64;
                self.handle_bytes(now, key, bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.intake.handle_empty();
                // A part of a record of the layer has come, or nothing.
                if connection.transport.has_layer() {
                    let more = connection.transport.received_bytes().saturating_sub(held);
                    connection.set_petty(is_petty(more, false, true));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.handle_failure(now, key, &error);
                return 0;
            }
        }
        self.queue_reading(key);
        self.queue_turn(key);
        if let Some(connection) = self.table.get_mut(key) {
            self.env.arm(now.mono_us, key, connection);
        }
        bytes
    }

    /// Ends a connection that cannot be read.
    fn handle_failure(&mut self, now: Now, key: usize, error: &io::Error) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let fault = connection.transport.fault().filter(|_| error.kind() == io::ErrorKind::InvalidData);
        match fault {
            None => {
                tracing::trace!(%error, "a client is gone");
                self.env.lose(now, key, connection);
            }
            Some(TlsFault::PlainText) => {
                connection.transport.drop_layer();
                connection.out.append(&tls_needed(now));
                self.env.finish(now, key, connection, AwaitedEnd::Disconnect);
            }
            Some(TlsFault::Broken) => {
                tracing::debug!(%error, "a client broke the rules of TLS");
                self.env.finish(now, key, connection, AwaitedEnd::Disconnect);
            }
        }
        if let Some(connection) = self.table.get_mut(key) {
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Back-pressure: returns whether the connection is not to be read for now. If so, it is looked at again
    /// in the next turn.
    fn pause_if_blocked(&mut self, now: Now, key: usize) -> bool {
        let shared = &self.env.host.shared;
        let Some(connection) = self.table.get_mut(key) else { return true };
        let is_blocked = match &mut connection.stage {
            ConnectionStage::Open(open) => {
                let is_publisher = open.session.endpoint() == Endpoint::Publish;
                let is_blocked = open.session.blocks_reading(connection.out.len())
                    || (is_publisher
                        && (shared.lifecycle.phase() == Phase::Loading || shared.is_congested()));
                open.liveness.set_paused(now.mono_us, is_blocked);
                is_blocked
            }
            // A client that asks for health paths reads each answer before the next one is made. What comes behind a
            // head waits in the socket until somebody can handle it.
            ConnectionStage::Head { place_until_us, .. } => {
                place_until_us.is_some() || !connection.out.is_empty()
            }
            _ => return false,
        };
        if is_blocked && connection.intake.enter_paused() {
            self.paused.push(key);
        }
        is_blocked
    }

    /// Lets paused connections be read again that need not wait any longer.
    pub(super) fn resume_paused(&mut self, now: Now) {
        self.may_resume = false;
        for key in std::mem::take(&mut self.paused) {
            if let Some(connection) = self.table.get_mut(key)
                && connection.intake.leave_paused()
                && !self.pause_if_blocked(now, key)
            {
                self.queue_reading(key);
                if let Some(connection) = self.table.get_mut(key) {
                    self.env.arm(now.mono_us, key, connection);
                }
            }
        }
    }

    /// Handles the bytes that were read from a connection: the first `read` bytes of the buffer.
    fn handle_bytes(&mut self, now: Now, key: usize, read: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let mut input = self.buffer.get_mut(..read).unwrap_or_default();
        match &mut connection.stage {
            ConnectionStage::Open(open) => {
                open.liveness.handle_received(now.mono_us);
                let has_brought = Self::handle_frames(&mut self.env, now, key, connection, input);
                let is_within = connection.open().is_some_and(|open| open.reader.is_within_message());
                connection.set_petty(is_petty(read, has_brought, is_within));
            }
            ConnectionStage::Head { head, deadline_us, .. } => {
                if head.is_between_requests() {
                    *deadline_us = now.mono_us + HANDSHAKE_US_MAX;
                }
                head.push(input);
                self.env.touch(key, connection);
                self.handle_head(now, key);
                self.note_head(key, read);
            }
            ConnectionStage::Closing(closing) => {
                let Some(reader) = closing.reader() else { return };
                let is_answered = loop {
                    match reader.read(&mut input, &mut connection.out) {
                        Unwrapped::Message(_) => {}
                        Unwrapped::Starved => break false,
                        Unwrapped::Ended | Unwrapped::Broken(_) => break true,
                    }
                };
                if is_answered {
                    closing.handle_answered();
                }
                self.env.touch(key, connection);
            }
            ConnectionStage::HandedOver { .. } | ConnectionStage::Over => {}
        }
        self.set_wanted();
    }

    /// Notes whether bytes of a head were petty: they were, unless a whole head was among them.
    fn note_head(&mut self, key: usize, read: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let is_within = match &connection.stage {
            ConnectionStage::Head { head, .. } => !head.is_between_requests(),
            _ => false,
        };
        connection.set_petty(is_petty(read, !is_within, is_within));
    }

    /// Hands the messages in `input` to the session. Returns whether there were any.
    pub(super) fn handle_frames(
        env: &mut ClientsEnv,
        now: Now,
        key: usize,
        connection: &mut Connection,
        mut input: &mut [u8],
    ) -> bool {
        let ConnectionStage::Open(open) = &mut connection.stage else { return false };
        let Open { reader, session, .. } = &mut **open;
        connection.out.lend(&mut env.pool);
        let mut has_brought = false;
        let close = loop {
            let message = match reader.read(&mut input, &mut connection.out) {
                Unwrapped::Message(message) => message,
                Unwrapped::Starved => {
                    env.touch(key, connection);
                    return has_brought;
                }
                Unwrapped::Ended => {
                    env.finish(now, key, connection, AwaitedEnd::Nothing);
                    return has_brought;
                }
                Unwrapped::Broken(close) => break close,
            };
            has_brought = true;
            let handled = session.handle_message(&mut env.turn(now, key, &mut connection.out), message);
            if let Err(close) = handled {
                break close;
            }
        };
        env.close(now, key, connection, &close);
        has_brought
    }
}

/// The answer to a client that does not speak TLS, which it can read.
fn tls_needed(now: Now) -> Vec<u8> {
    let body = b"This port speaks TLS, and this request came without it: use https:// or wss://.\n";
    let media_type = "text/plain; charset=utf-8";
    let answer = RawAnswer {
        status: 400,
        media_type,
        body,
        further: "",
        retry_after_ms: None,
        closes: true,
        is_head: false,
    };
    answer.bytes(now.wall_us)
}
