//! The connections of one worker, from the first byte of their heads to the last of their frames.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::clock;
use super::connection::{Connection, Open, Stage};
use super::head::{self, Head, Path, Subprotocol, Upgrade, read_head};
use super::host::WorkerHost;
use super::liveness::{Liveness, Silence};
use super::outbound::BufferPool;
use super::session::{Codec, EncodedChange, Endpoint, Incoming as Message, Session, Turn, Workspace};
use super::shared::{Phase, Shared};
use super::timer::{TimerToken, Timers};
use super::websocket::{CloseReason, Incoming, WebSocket};
use super::worker::FIRST_CONNECTION;
use crate::http::HandOver;
use crate::limits::{ALL_QUEUE_BYTES_MAX, HEAD_BYTES_MAX};
use crate::record::Now;
use crate::record::answer::{Code, Refusal};

/// Bytes read from one connection at a time.
const READ_BYTES: usize = 64 * 1024;
/// Time a turn spends on reading, on the mailbox, and on sessions' turns, in microseconds each.
const PART_US_MAX: u64 = 1_500;
/// How soon a timer is tried again that is over and yet had nothing to do, in microseconds.
const RETRY_US: u64 = 1_000;
/// Changes handed out between two looks at the clock.
const CHANGES_PER_LOOK: usize = 64;
/// Connections over `--max-connections` that a worker turns away with an answer at a time; those
/// beyond are dropped.
const EXCESS_MAX: usize = 128;
/// A frame with which nobody is asked anything but to answer.
const PING: &[u8] = &[0x89, 0];

/// All clients of one worker.
pub struct Clients {
    table: Slab<Connection>,
    parts: Parts,
    buffer: Vec<u8>,
    ready: VecDeque<usize>,
    turning: VecDeque<usize>,
    paused: Vec<usize>,
    hits: Vec<usize>,
    frames: EncodedChange,
    hand_over: HandOver,
    next_generation: u64,
    durable: (u64, bool),
    is_wanted: bool,
}

/// What the work on one connection needs beside the connection.
struct Parts {
    host: WorkerHost,
    work: Workspace,
    pool: BufferPool,
    timers: Timers,
    touched: Vec<usize>,
    dead: Vec<usize>,
    drained: u64,
    excess: usize,
}

impl Parts {
    /// Lets `session` work on a connection, and takes note that it is to be flushed.
    fn with<R>(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        work: impl FnOnce(&mut Session, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let Stage::Open(open) = &mut connection.stage else { return None };
        connection.out.lend(&mut self.pool);
        let mut turn = Turn {
            now,
            host: &self.host,
            work: &mut self.work,
            connection: key,
            out: &mut connection.out,
            mailbox_position: self.drained,
        };
        let result = work(&mut open.session, &mut turn);
        self.touch(key, connection);
        Some(result)
    }

    fn touch(&mut self, key: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_touched, true) {
            self.touched.push(key);
        }
    }

    fn kill(&mut self, key: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_dead, true) {
            self.dead.push(key);
        }
    }

    /// The session is over: out of the index, and out of the figures.
    fn end_session(&mut self, now: Now, key: usize, connection: &mut Connection, session: Option<Session>) {
        let Some(mut session) = session else { return };
        let mut turn = Turn {
            now,
            host: &self.host,
            work: &mut self.work,
            connection: key,
            out: &mut connection.out,
            mailbox_position: self.drained,
        };
        session.handle_closed(&mut turn);
        let gauges = &self.host.shared.metrics.connections;
        match session.endpoint() {
            Endpoint::Publish => gauges.publish.add(-1),
            Endpoint::Subscribe => gauges.subscribe.add(-1),
        }
    }

    fn close(&mut self, now: Now, key: usize, connection: &mut Connection, close: &CloseReason) {
        tracing::debug!(code = close.code, reason = %close.reason, "a client is closed");
        connection.out.lend(&mut self.pool);
        let session = connection.close(close, now.mono_us);
        self.end_session(now, key, connection, session);
        if connection.is_dead {
            self.dead.push(key);
        }
        self.touch(key, connection);
    }

    fn finish(&mut self, now: Now, key: usize, connection: &mut Connection, is_final: bool) {
        let session = connection.finish(is_final, now.mono_us);
        self.end_session(now, key, connection, session);
        self.touch(key, connection);
    }

    /// Answers a request that becomes no session.
    fn refuse(&mut self, now: Now, key: usize, connection: &mut Connection, status: u16, refusal: &Refusal) {
        connection.out.append(&head::refuse(status, refusal));
        connection.out.start_frames();
        self.finish(now, key, connection, false);
    }

    fn arm(&mut self, now_us: u64, key: usize, connection: &mut Connection) {
        // What is due and cannot be done yet is tried again soon, not at once.
        let at_us = connection.next_us().map(|at_us| at_us.max(now_us + RETRY_US));
        if let Some(at_us) = at_us
            && at_us < connection.armed_us
        {
            connection.armed_us = at_us;
            self.timers.arm(at_us, TimerToken { key, generation: connection.generation });
        }
    }
}

impl Clients {
    /// No clients yet. What is no WebSocket goes through `hand_over`.
    pub fn new(host: WorkerHost, hand_over: HandOver) -> Clients {
        Clients {
            table: Slab::new(),
            parts: Parts {
                host,
                work: Workspace::default(),
                pool: BufferPool::default(),
                timers: Timers::default(),
                touched: Vec::new(),
                dead: Vec::new(),
                drained: 0,
                excess: 0,
            },
            buffer: vec![0; READ_BYTES],
            ready: VecDeque::new(),
            turning: VecDeque::new(),
            paused: Vec::new(),
            hits: Vec::new(),
            frames: EncodedChange::default(),
            hand_over,
            next_generation: 0,
            durable: (0, true),
            is_wanted: false,
        }
    }

    /// The node.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.parts.host.shared
    }

    /// When something is due without anything happening.
    pub fn next_us(&self) -> Option<u64> {
        self.parts.timers.next_us()
    }

    /// Whether the next turn has something to do at once.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.turning.is_empty() || !self.parts.touched.is_empty()
    }

    /// Whether anything was published since the last call.
    pub fn take_published(&self) -> bool {
        self.parts.host.take_published()
    }

    /// Whether there is no connection left.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether publishes of any connection wait for their answers.
    pub fn has_unanswered(&self) -> bool {
        self.table.iter().any(|(_, connection)| match &connection.stage {
            Stage::Open(open) => open.session.has_unanswered(),
            _ => false,
        })
    }

    /// Takes in new connections.
    pub fn admit(&mut self, registry: &Registry, accepted: Vec<TcpStream>, now: Now) {
        let shared = self.shared().clone();
        for mut socket in accepted {
            let count = shared.connections.fetch_add(1, Relaxed) + 1;
            let is_excess = count > shared.config.max_connections;
            let entry = self.table.vacant_entry();
            let (key, token) = (entry.key(), Token(entry.key() + FIRST_CONNECTION));
            let interest = Interest::READABLE | Interest::WRITABLE;
            if (is_excess && self.parts.excess >= EXCESS_MAX)
                || registry.register(&mut socket, token, interest).is_err()
            {
                shared.connections.fetch_sub(1, Relaxed);
                continue;
            }
            if let Err(error) = socket.set_nodelay(true) {
                tracing::trace!(%error, "no TCP_NODELAY");
            }
            shared.metrics.connections_accepted.increment();
            self.next_generation += 1;
            let connection = entry.insert(Connection::new(socket, self.next_generation, now.mono_us));
            connection.is_excess = is_excess;
            self.parts.excess += usize::from(is_excess);
            self.parts.arm(now.mono_us, key, connection);
        }
    }

    /// What the poll says of one connection.
    pub fn handle_event(&mut self, key: usize, event: &Event) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if event.is_writable() || event.is_error() {
            connection.is_writable = true;
            self.parts.touch(key, connection);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.is_readable = true;
            connection.is_read_closed |= event.is_read_closed() || event.is_error();
            self.queue_reading(key);
        }
    }

    fn queue_reading(&mut self, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let wants = connection.is_readable && !connection.is_paused && !connection.is_dead;
        if wants && !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push_back(key);
        }
    }

    fn queue_turn(&mut self, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let Stage::Open(open) = &connection.stage else { return };
        let wants = open.session.wants_turn(connection.out.len());
        if wants && !std::mem::replace(&mut connection.is_turning, true) {
            self.turning.push_back(key);
        }
    }

    /// Reads, delivers, lets sessions work, and handles what is due. Whether something is left over.
    pub fn turn(&mut self, now: Now) -> bool {
        self.resume_paused(now);
        self.read_ready();
        let has_mail = self.drain_mailbox();
        self.handle_durable(now);
        self.turn_sessions();
        self.handle_timers(now);
        has_mail || self.has_work()
    }

    fn read_ready(&mut self) {
        let end_us = clock::now().mono_us + PART_US_MAX;
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { return };
            let now = clock::now();
            self.read(now, key);
            if now.mono_us > end_us {
                return;
            }
        }
    }

    /// Reads one piece, unless the connection is to be left alone for now.
    fn read(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.is_ready = false;
        if connection.is_dead || self.pause_if_blocked(now, key) {
            return;
        }
        let Some(connection) = self.table.get_mut(key) else { return };
        match connection.socket.read(&mut self.buffer) {
            Ok(0) => {
                let session = connection.finish(true, now.mono_us);
                self.parts.end_session(now, key, connection, session);
                self.parts.kill(key, connection);
                return;
            }
            Ok(read) => {
                // A short read has emptied the socket; another event comes with the next byte.
                connection.is_readable = read == self.buffer.len() || connection.is_read_closed;
                self.handle_bytes(now, key, read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.is_readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::trace!(%error, "a client is gone");
                let session = connection.finish(true, now.mono_us);
                self.parts.end_session(now, key, connection, session);
                self.parts.kill(key, connection);
                return;
            }
        }
        self.queue_reading(key);
        self.queue_turn(key);
        if let Some(connection) = self.table.get_mut(key) {
            self.parts.arm(now.mono_us, key, connection);
        }
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

    fn resume_paused(&mut self, now: Now) {
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
        let input = self.buffer.get(..read).unwrap_or_default();
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
                let mut input = input;
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

    fn handle_frames(parts: &mut Parts, now: Now, key: usize, connection: &mut Connection, input: &[u8]) {
        let mut input = input;
        loop {
            let Stage::Open(open) = &mut connection.stage else { return };
            connection.out.lend(&mut parts.pool);
            let incoming = open.websocket.read(&mut input, &mut connection.out);
            let message = match &incoming {
                Incoming::Text(text) => Message::Text(text.as_str()),
                Incoming::Binary(bytes) => Message::Binary(bytes),
                Incoming::Starved => return parts.touch(key, connection),
                Incoming::Closed => return parts.finish(now, key, connection, true),
                Incoming::Broken(close) => return parts.close(now, key, connection, close),
            };
            let handled =
                parts.with(now, key, connection, |session, turn| session.handle_message(turn, message));
            if let Some(Err(close)) = handled {
                return parts.close(now, key, connection, &close);
            }
        }
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
                let rest = bytes.split_off(upgrade.head_bytes.min(bytes.len()));
                self.upgrade(now, key, &upgrade, &rest);
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

    fn upgrade(&mut self, now: Now, key: usize, upgrade: &Upgrade, rest: &[u8]) {
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

    /// The mailbox takes changes while any session has a pattern.
    fn set_wanted(&mut self) {
        let is_wanted = !self.parts.work.index.is_empty();
        if is_wanted != self.is_wanted
            && let Some(mailbox) = self.parts.host.mailbox()
        {
            self.is_wanted = is_wanted;
            mailbox.set_wanted(is_wanted);
        }
    }

    /// Hands out changes. Whether there are more.
    fn drain_mailbox(&mut self) -> bool {
        self.set_wanted();
        let shared = self.shared().clone();
        let Some(mailbox) = shared.mailboxes().get(self.parts.host.worker) else { return false };
        let mut now = clock::now();
        let end_us = now.mono_us + PART_US_MAX;
        while now.mono_us < end_us {
            for _ in 0..CHANGES_PER_LOOK {
                let Some(change) = mailbox.pop() else {
                    self.handle_overflow(now, mailbox.take_overflow());
                    shared.handle_room();
                    return false;
                };
                self.parts.drained += 1;
                self.deliver(now, &change);
            }
            now = clock::now();
        }
        shared.handle_room();
        true
    }

    fn deliver(&mut self, now: Now, change: &crate::ingest::Change) {
        let mut hits = std::mem::take(&mut self.hits);
        self.parts.work.index.matches(change.record.source.as_str(), &mut hits);
        self.frames.start();
        for key in hits.drain(..) {
            let Some(connection) = self.table.get_mut(key) else { continue };
            if connection.out.len() > ALL_QUEUE_BYTES_MAX / 2 && connection.is_writable {
                self.flush_one(now, key);
            }
            let Some(connection) = self.table.get_mut(key) else { continue };
            let frames = &mut self.frames;
            let handled = self
                .parts
                .with(now, key, connection, |session, turn| session.handle_change(turn, frames, change));
            if let Some(Err(close)) = handled {
                self.parts.close(now, key, connection, &close);
            }
            self.queue_turn(key);
        }
        self.hits = hits;
    }

    /// The mailbox dropped changes: every session is asked whether it may have missed one.
    fn handle_overflow(&mut self, now: Now, is_overflowed: bool) {
        if !is_overflowed {
            return;
        }
        tracing::warn!(
            "changes came faster than this worker could hand them out; subscribers are resynchronized"
        );
        for (key, connection) in &mut self.table {
            let handled = match &mut connection.stage {
                Stage::Open(open) => open.session.handle_overflow(),
                _ => Ok(()),
            };
            if let Err(close) = handled {
                self.parts.close(now, key, connection, &close);
            }
        }
    }

    /// If the store's mark or health moved, sessions answer what waited for it.
    fn handle_durable(&mut self, now: Now) {
        let store = self.parts.host.shared.store();
        let durable = (store.durable().0, store.health() == crate::store::Health::Open);
        if std::mem::replace(&mut self.durable, durable) == durable {
            return;
        }
        for (key, connection) in &mut self.table {
            let Stage::Open(open) = &connection.stage else { continue };
            if open.session.has_unanswered() {
                self.parts.with(now, key, connection, |session, turn| session.handle_durable(turn));
            }
        }
    }

    fn turn_sessions(&mut self) {
        let end_us = clock::now().mono_us + PART_US_MAX;
        for _ in 0..self.turning.len() {
            let Some(key) = self.turning.pop_front() else { return };
            let Some(connection) = self.table.get_mut(key) else { continue };
            connection.is_turning = false;
            let now = clock::now();
            self.turn_session(now, key);
            if now.mono_us > end_us {
                return;
            }
        }
    }

    fn turn_session(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        self.parts.with(now, key, connection, |session, turn| session.handle_turn(turn));
        self.queue_turn(key);
        if let Some(connection) = self.table.get_mut(key) {
            self.parts.arm(now.mono_us, key, connection);
        }
    }

    fn handle_timers(&mut self, now: Now) {
        while let Some((at_us, token)) = self.parts.timers.pop_due(now.mono_us) {
            let Some(connection) = self.table.get_mut(token.key) else { continue };
            if connection.generation == token.generation && connection.armed_us == at_us {
                connection.armed_us = u64::MAX;
                self.handle_due(now, token.key);
            }
        }
    }

    fn handle_due(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let is_due = connection.next_us().is_some_and(|due_us| due_us <= now.mono_us);
        match &mut connection.stage {
            Stage::Head { .. } if is_due => {
                let refusal = Refusal::new(Code::Timeout, "the request's head did not come within 5 s");
                self.parts.refuse(now, key, connection, 408, &refusal);
            }
            Stage::Closing(_) if is_due => self.parts.kill(key, connection),
            Stage::Open(open) => match open.liveness.check(now.mono_us) {
                Silence::Dead => {
                    let close = CloseReason::new(4201, "no pong");
                    self.parts.close(now, key, connection, &close);
                }
                Silence::Ping => {
                    connection.out.lend(&mut self.parts.pool);
                    connection.out.append(PING);
                    self.parts.touch(key, connection);
                }
                Silence::Short => {}
            },
            _ => {}
        }
        let Some(connection) = self.table.get_mut(key) else { return };
        if let Some(open) = connection.open()
            && open.session.next_timeout_us().is_some_and(|due_us| due_us <= now.mono_us)
        {
            self.turn_session(now, key);
        }
        if let Some(connection) = self.table.get_mut(key) {
            self.parts.arm(now.mono_us, key, connection);
        }
    }

    /// Flushes every touched socket once, and counts what was delivered.
    pub fn flush(&mut self, now: Now) {
        for key in std::mem::take(&mut self.parts.touched) {
            if let Some(connection) = self.table.get_mut(key) {
                connection.is_touched = false;
                self.flush_one(now, key);
                self.queue_turn(key);
            }
        }
        let metrics = &self.parts.host.shared.metrics;
        metrics.deliveries.add(std::mem::take(&mut self.parts.work.deliveries));
        metrics.conflated.add(std::mem::take(&mut self.parts.work.conflated));
    }

    fn flush_one(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if connection.is_dead || !connection.is_writable {
            return;
        }
        match connection.out.flush(&mut connection.socket) {
            Ok(true) => {
                connection.out.give_back(&mut self.parts.pool);
                connection.handle_flushed(now.mono_us);
                if connection.is_dead {
                    self.parts.dead.push(key);
                }
            }
            Ok(false) => connection.is_writable = false,
            Err(error) => {
                tracing::trace!(%error, "a client is gone");
                let session = connection.finish(true, now.mono_us);
                self.parts.end_session(now, key, connection, session);
                self.parts.kill(key, connection);
            }
        }
        if let Some(connection) = self.table.get_mut(key) {
            self.parts.arm(now.mono_us, key, connection);
        }
    }

    /// Removes those that are over. At the end of a turn, so that no event of this turn finds another
    /// connection in their place.
    pub fn reap(&mut self, registry: &Registry) {
        for key in std::mem::take(&mut self.parts.dead) {
            let Some(mut connection) = self.table.try_remove(key) else { continue };
            if let Err(error) = registry.deregister(&mut connection.socket) {
                tracing::trace!(%error, "a closed connection was not registered");
            }
            self.parts.excess -= usize::from(connection.is_excess);
            self.shared().connections.fetch_sub(1, Relaxed);
        }
        self.set_wanted();
    }

    /// The map holds what the store kept: whoever waited for it goes on.
    pub fn handle_loaded(&mut self) {
        let keys: Vec<usize> = self.table.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.queue_turn(key));
    }

    /// The node goes: every client is told to come back elsewhere.
    pub fn close_all(&mut self, now: Now) {
        let draining = CloseReason::new(4200, "draining");
        for (key, connection) in &mut self.table {
            match &connection.stage {
                Stage::Open(_) => self.parts.close(now, key, connection, &draining),
                Stage::Head { .. } => self.parts.kill(key, connection),
                Stage::Closing(_) => {}
            }
            self.parts.arm(now.mono_us, key, connection);
        }
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
