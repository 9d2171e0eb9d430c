//! The connections of one worker, from the first byte of their heads to the last of their frames.
//!
//! The table and what is queued stand here, with accepting, timers, flushing and the end;
//! [`reading`] has the way in (heads, frames, messages), [`delivery`] the way out (changes of the
//! mailbox, the store's mark), [`parts`] what the work on one connection needs beside it.

mod delivery;
mod parts;
mod reading;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use self::delivery::Run;
use self::parts::Parts;
use super::clock;
use super::connection::{Connection, Stage};
use super::host::WorkerHost;
use super::liveness::Silence;
use super::shared::Shared;
use super::websocket::CloseReason;
use super::worker::FIRST_CONNECTION;
use crate::http::HandOver;
use crate::protocol::answer::{Code, Refusal};
use crate::record::Now;

/// Bytes read from one connection at a time.
const READ_BYTES: usize = 64 * 1024;
/// Time a turn spends on reading, on the mailbox, and on sessions' turns, in microseconds each.
const PART_US_MAX: u64 = 1_500;
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
    run: Run,
    hand_over: HandOver,
    next_generation: u64,
    durable: (u64, bool),
    is_wanted: bool,
    /// How long the last flush took, in microseconds.
    flush_us: u64,
}

/// Queues a connection for a turn of its session, if that wants one.
fn queue_turn_of(turning: &mut VecDeque<usize>, key: usize, connection: &mut Connection) {
    let Stage::Open(open) = &connection.stage else { return };
    let wants = open.session.wants_turn(connection.out.len());
    if wants && !std::mem::replace(&mut connection.is_turning, true) {
        turning.push_back(key);
    }
}

impl Clients {
    /// No clients yet. What is no WebSocket goes through `hand_over`.
    pub fn new(host: WorkerHost, hand_over: HandOver) -> Clients {
        Clients {
            table: Slab::new(),
            parts: Parts::new(host),
            buffer: vec![0; READ_BYTES],
            ready: VecDeque::new(),
            turning: VecDeque::new(),
            paused: Vec::new(),
            run: Run::default(),
            hand_over,
            next_generation: 0,
            durable: (0, true),
            is_wanted: false,
            flush_us: 0,
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
        if let Some(connection) = self.table.get_mut(key) {
            queue_turn_of(&mut self.turning, key, connection);
        }
    }

    /// Reads, delivers, lets sessions work, and handles what is due. Whether something is left over.
    pub fn turn(&mut self, now: Now) -> bool {
        self.resume_paused(now);
        let has_mail = self.read_ready() || self.drain_mailbox();
        self.handle_durable(now);
        self.handle_replicated(now);
        self.turn_sessions();
        self.handle_timers(now);
        has_mail || self.has_work()
    }

    /// The mailbox takes changes while any session has a pattern.
    fn set_wanted(&mut self) {
        let is_wanted = !self.parts.work.index.is_empty();
        if is_wanted != self.is_wanted
            && let Some(mailbox) = self.parts.host.mailbox()
        {
            self.is_wanted = is_wanted;
            mailbox.set_wanted(is_wanted);
            if is_wanted {
                self.parts.inbox.start(self.parts.host.shared.ingest.latest());
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
        let touched = std::mem::take(&mut self.parts.touched);
        for &key in &touched {
            if let Some(connection) = self.table.get_mut(key) {
                connection.is_touched = false;
                self.flush_one(now, key);
                self.queue_turn(key);
            }
        }
        self.parts.reuse_touched(touched);
        self.parts.pool.handle_turn();
        self.flush_us = clock::now().mono_us.saturating_sub(now.mono_us);
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
