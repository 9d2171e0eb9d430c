//! What the work on one connection needs beside the connection: the session's door to its node, and
//! the lists of the turn. Apart from the table, so that both can be borrowed at once.

use super::super::connection::{Connection, Stage};
use super::super::head;
use super::super::host::WorkerHost;
use super::super::inbox::Inbox;
use super::super::outbound::{BufferPool, Outbound};
use super::super::session::{Endpoint, Session, Turn, Workspace};
use super::super::timer::{TimerToken, Timers};
use super::super::websocket::CloseReason;
use crate::protocol::answer::Refusal;
use crate::record::Now;

/// How soon a timer is tried again that is over and yet had nothing to do, in microseconds.
const RETRY_US: u64 = 1_000;

/// What the work on one connection needs beside the connection.
pub struct Parts {
    /// The node.
    pub host: WorkerHost,
    /// What the sessions share.
    pub work: Workspace,
    /// Buffers of idle connections.
    pub pool: BufferPool,
    /// Of all connections.
    pub timers: Timers,
    /// To be flushed at the end of the turn.
    pub touched: Vec<usize>,
    /// To be removed at the end of the turn.
    pub dead: Vec<usize>,
    /// What of the mailbox was handed out so far.
    pub inbox: Inbox,
    /// Connections over the node's bound that are being turned away.
    pub excess: usize,
}

impl Parts {
    /// Of a worker without connections.
    pub fn new(host: WorkerHost) -> Parts {
        Parts {
            host,
            work: Workspace::default(),
            pool: BufferPool::default(),
            timers: Timers::default(),
            touched: Vec::new(),
            dead: Vec::new(),
            inbox: Inbox::default(),
            excess: 0,
        }
    }

    /// The view of the world of a session that works on this connection.
    pub fn turn<'a>(&'a mut self, now: Now, key: usize, out: &'a mut Outbound) -> Turn<'a> {
        Turn {
            now,
            host: &self.host,
            work: &mut self.work,
            connection: key,
            out,
            mailbox_position: self.inbox.position(),
        }
    }

    /// Lets `session` work on a connection, and takes note that it is to be flushed.
    pub fn with<R>(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        work: impl FnOnce(&mut Session, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let Stage::Open(open) = &mut connection.stage else { return None };
        connection.out.lend(&mut self.pool);
        let result = work(&mut open.session, &mut self.turn(now, key, &mut connection.out));
        self.touch(key, connection);
        Some(result)
    }

    /// It is to be flushed.
    pub fn touch(&mut self, key: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_touched, true) {
            self.touched.push(key);
        }
    }

    /// The list of what was touched, to be filled again in its memory: nothing was touched since.
    pub fn reuse_touched(&mut self, mut touched: Vec<usize>) {
        if self.touched.is_empty() {
            touched.clear();
            self.touched = touched;
        }
    }

    /// It is to be removed.
    pub fn kill(&mut self, key: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_dead, true) {
            self.dead.push(key);
        }
    }

    /// The session is over: out of the index, and out of the figures.
    pub fn end_session(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        session: Option<Session>,
    ) {
        let Some(mut session) = session else { return };
        session.handle_closed(&mut self.turn(now, key, &mut connection.out));
        let gauges = &self.host.shared.metrics.connections;
        match session.endpoint() {
            Endpoint::Publish => gauges.publish.add(-1),
            Endpoint::Subscribe => gauges.subscribe.add(-1),
        }
    }

    /// Begins the close handshake.
    pub fn close(&mut self, now: Now, key: usize, connection: &mut Connection, close: &CloseReason) {
        tracing::debug!(code = close.code, reason = %close.reason, "a client is closed");
        connection.out.lend(&mut self.pool);
        let session = connection.close(close, now.mono_us);
        self.end_session(now, key, connection, session);
        if connection.is_dead {
            self.dead.push(key);
        }
        self.touch(key, connection);
    }

    /// Ends it once what waits is sent.
    pub fn finish(&mut self, now: Now, key: usize, connection: &mut Connection, is_final: bool) {
        let session = connection.finish(is_final, now.mono_us);
        self.end_session(now, key, connection, session);
        self.touch(key, connection);
    }

    /// Answers a request that becomes no session.
    pub fn refuse(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        status: u16,
        refusal: &Refusal,
    ) {
        connection.out.append(&head::refuse(status, refusal));
        connection.out.start_frames();
        self.finish(now, key, connection, false);
    }

    /// Sees to it that it is looked at when it next may have something to do.
    pub fn arm(&mut self, now_us: u64, key: usize, connection: &mut Connection) {
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
