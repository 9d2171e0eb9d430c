//! What the work on one connection needs besides the connection: the session's interface to its node, and the
//! lists of the turn. It is apart from the table of connections, so that both can be borrowed at once.

use std::collections::BTreeMap;

use super::super::account::{Holdings, WorkerAccount};
use super::super::acks::AnswerState;
use super::super::clock;
use super::super::close::{CloseCode, CloseReason};
use super::super::connection::{Admission, AwaitedEnd, Connection, ConnectionStage};
use super::super::framing::wrap::Framing;
use super::super::host::WorkerHost;
use super::super::inbox::Inbox;
use super::super::outbound::{BufferPool, Outbound};
use super::super::session::{Endpoint, Session, Turn, Workspace};
use super::super::timer::{TimerToken, Timers};
use super::super::transport::Layer;
use crate::http::{Reservation, raw_problem};
use crate::memory::{MemoryUse, OverBudget};
use crate::protocol::refusal::Refusal;
use crate::record::Now;

/// Time that a turn spends on reading, on the mailbox, and on sessions' turns, in microseconds each.
pub const PART_US_MAX: u64 = 1_500;
/// The part of the memory for clients that the free buffers of all workers may hold in addition: a sixteenth.
const POOLS_PART: usize = 16;
/// Delay after which a timer that is due and had nothing to do is tried again, in microseconds.
const RETRY_US: u64 = 1_000;

/// The state of a worker that the work on one connection needs besides the connection.
pub struct ClientsEnv {
    /// The node, as sessions see it.
    pub host: WorkerHost,
    /// The state that the sessions of the worker share.
    pub work: Workspace,
    /// Buffers of idle connections.
    pub pool: BufferPool,
    /// The timers of all connections.
    pub timers: Timers,
    /// Connections that are to be flushed at the end of the turn.
    pub touched: Vec<usize>,
    /// Connections that are to be removed at the end of the turn.
    pub dead: Vec<usize>,
    /// The worker's end of its mailbox.
    pub inbox: Inbox,
    /// The connections of this worker that are beyond the node's bound and being turned away: their keys by
    /// their generations, the oldest first.
    pub excess: BTreeMap<u64, usize>,
    /// The connections of those who watch the node: their keys by their generations, the oldest first.
    pub watchers: BTreeMap<u64, usize>,
    /// Bytes of the records that waited for connections that are gone, when they were counted last.
    counted_remains: usize,
}

impl ClientsEnv {
    /// Makes the environment of a worker without connections.
    pub fn new(host: WorkerHost) -> ClientsEnv {
        let budget = &host.shared.memory;
        let account = WorkerAccount::new(budget);
        let pool = BufferPool::new(budget.limit() / POOLS_PART / host.shared.mailboxes().len().max(1));
        ClientsEnv {
            work: Workspace::new(clock::chance(), account),
            pool,
            host,
            timers: Timers::default(),
            touched: Vec::new(),
            dead: Vec::new(),
            inbox: Inbox::default(),
            excess: BTreeMap::new(),
            watchers: BTreeMap::new(),
            counted_remains: 0,
        }
    }

    /// Makes the environment for one call of the session of the connection at `key`, whose buffer is `out`.
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

    /// Lets the session of a connection do `work`, and notes that the connection is to be flushed. Does
    /// nothing if the connection has no session.
    pub fn with<R>(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        work: impl FnOnce(&mut Session, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let ConnectionStage::Open(open) = &mut connection.stage else { return None };
        connection.out.lend(&mut self.pool);
        let result = work(&mut open.session, &mut self.turn(now, key, &mut connection.out));
        self.touch(key, connection);
        Some(result)
    }

    /// Notes that a connection is to be flushed at the end of the turn.
    pub fn touch(&mut self, key: usize, connection: &mut Connection) {
        if connection.touched.enter() {
            self.touched.push(key);
        }
    }

    /// Takes back the list of touched connections after the worker has gone through it, to use its memory
    /// again.
    pub fn reuse_touched(&mut self, mut touched: Vec<usize>) {
        if self.touched.is_empty() {
            touched.clear();
            self.touched = touched;
        }
    }

    /// Marks a connection to be removed at the end of the turn. Its session must have ended.
    pub fn kill(&mut self, key: usize, connection: &mut Connection) {
        self.leave(key, connection, ConnectionStage::Over);
    }

    /// Marks a connection to be handed to the control plane at the end of the turn.
    pub fn hand_over(
        &mut self,
        key: usize,
        connection: &mut Connection,
        place: Reservation<Layer>,
        read: Vec<u8>,
    ) {
        self.leave(key, connection, ConnectionStage::HandedOver { place, read });
    }

    fn leave(&mut self, key: usize, connection: &mut Connection, stage: ConnectionStage) {
        debug_assert!(!matches!(connection.stage, ConnectionStage::Open(_)), "a session was not ended");
        if !connection.is_over() {
            connection.stage = stage;
            self.dead.push(key);
        }
    }

    /// Ends a session and its connection after the client has gone or the connection has failed.
    pub fn lose(&mut self, now: Now, key: usize, connection: &mut Connection) {
        let session = connection.finish(AwaitedEnd::Nothing, now.mono_us);
        self.end_session(now, key, connection, session);
        self.kill(key, connection);
    }

    /// Ends a session that was taken from its connection: its patterns leave the index, and it is not counted
    /// any longer.
    pub fn end_session(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        session: Option<Session>,
    ) {
        let Some(mut session) = session else { return };
        session.handle_closed(&mut self.turn(now, key, &mut connection.out));
        self.count_session(connection.admission, session.endpoint(), connection.out.framing(), -1);
    }

    /// Counts a session that begins (1) or ends (-1). Those of the control plane are no connections of clients.
    pub fn count_session(&self, admission: Admission, endpoint: Endpoint, framing: Framing, change: i64) {
        let metrics = &self.host.shared.metrics;
        match (endpoint, framing) {
            _ if admission == Admission::Guest => metrics.graphql_subscriptions.add(change),
            (Endpoint::Publish, _) => metrics.connections.publish.add(change),
            (Endpoint::Subscribe, Framing::WebSocket) => metrics.connections.subscribe.add(change),
            (Endpoint::Subscribe, Framing::EventStream) => metrics.connections.stream.add(change),
        }
    }

    /// Closes a connection that has a session, for this reason.
    pub fn close(&mut self, now: Now, key: usize, connection: &mut Connection, close: &CloseReason) {
        self.host.shared.metrics.clients.closed(close.code.number());
        self.host.shared.complaints.closed(now.mono_us, close, connection.address);
        debug_assert!(matches!(connection.stage, ConnectionStage::Open(_)), "there is no session to close");
        connection.address_place = None;
        connection.out.lend(&mut self.pool);
        let session = connection.close(close, now.mono_us);
        self.end_session(now, key, connection, session);
        self.touch(key, connection);
    }

    /// Ends the connection once what waits is sent and `awaits` has come.
    pub fn finish(&mut self, now: Now, key: usize, connection: &mut Connection, awaits: AwaitedEnd) {
        // What only waits for its end keeps nobody else of its address out.
        connection.address_place = None;
        let session = connection.finish(awaits, now.mono_us);
        self.end_session(now, key, connection, session);
        self.touch(key, connection);
    }

    /// Counts what a connection holds by now. If that is more than it may hold, the connection is closed, and
    /// the client is told why.
    pub fn count(&mut self, now: Now, key: usize, connection: &mut Connection) {
        if self.holdings(key, connection).total() != connection.held
            && self.note_holdings(key, connection).is_err()
        {
            self.count_over(now, key, connection);
        }
    }

    /// Returns what a connection holds. After its session has ended, its patterns are held until they have left the
    /// index.
    fn holdings(&self, key: usize, connection: &Connection) -> Holdings {
        match &connection.stage {
            ConnectionStage::Open(_) => connection.holdings(),
            _ => Holdings { subscriptions: self.work.index.bytes_of(key), ..connection.holdings() },
        }
    }

    /// Counts the records that waited for connections that are gone, until they are freed.
    pub fn count_remains(&mut self) {
        let remains = self.work.remains.held_bytes();
        let before = std::mem::replace(&mut self.counted_remains, remains);
        if before != remains {
            // Nobody is left who could be refused.
            let _ = self.work.account.change(before, remains);
        }
    }

    /// Notes what a connection holds by now. An error says that this is too much.
    fn note_holdings(&mut self, key: usize, connection: &mut Connection) -> Result<(), OverBudget> {
        let holds = self.holdings(key, connection).total();
        self.work.account.change(std::mem::replace(&mut connection.held, holds), holds)
    }

    /// Closes a connection that holds too much, unless most of that is memory in which nothing waits.
    #[cold]
    fn count_over(&mut self, now: Now, key: usize, connection: &mut Connection) {
        connection.out.trim();
        // The connection is counted anew: it is judged by all that it holds, and not by what it added last.
        // To hold less is never refused.
        let _ = self.work.account.change(std::mem::take(&mut connection.held), 0);
        let Err(over) = self.note_holdings(key, connection) else { return };
        let greatest = self.holdings(key, connection).greatest();
        self.host.shared.memory_refused(greatest);
        match &connection.stage {
            ConnectionStage::Open(open) => {
                // Who does not read what was subscribed to is slow, and may come back at once with a token.
                let is_slow = open.session.endpoint() == Endpoint::Subscribe && greatest == MemoryUse::Unsent;
                let code = if is_slow { CloseCode::TooSlow } else { CloseCode::OverCapacity };
                self.close(now, key, connection, &CloseReason::new(code, over.to_string()));
                connection.out.trim();
            }
            ConnectionStage::Head { .. } | ConnectionStage::Closing(_) => self.kill(key, connection),
            ConnectionStage::HandedOver { .. } | ConnectionStage::Over => {}
        }
        // Less is left than before, which is never refused.
        let _ = self.note_holdings(key, connection);
    }

    /// Uncounts a connection that is removed.
    pub fn uncount(&mut self, connection: &mut Connection) {
        // To hold less is never refused.
        let _ = self.work.account.change(std::mem::take(&mut connection.held), 0);
    }

    /// Answers a request that becomes no session, and ends the connection.
    pub fn refuse(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        status: u16,
        refusal: &Refusal,
    ) {
        self.refuse_with(now, key, connection, status, (refusal, ""));
    }

    /// Answers a request that becomes no session, with further lines in the head of the answer, and ends the connection.
    pub fn refuse_with(
        &mut self,
        now: Now,
        key: usize,
        connection: &mut Connection,
        status: u16,
        (refusal, further): (&Refusal, &str),
    ) {
        let shared = &self.host.shared;
        shared.metrics.refused(refusal.code);
        shared.metrics.clients.refused(status);
        shared.complaints.refused(now.mono_us, status, refusal, connection.address);
        connection.out.append(&raw_problem(status, refusal, further, now.wall_us));
        self.finish(now, key, connection, AwaitedEnd::Disconnect);
    }

    /// Arms a timer for when the connection may have something to do next, unless an earlier one is armed.
    pub fn arm(&mut self, now_us: u64, key: usize, connection: &mut Connection) {
        // A timer that is due although nothing can be done yet is tried again soon, not at once.
        let at_us = connection.next_us().map(|at_us| at_us.max(now_us + RETRY_US));
        if let Some(at_us) = at_us
            && at_us < connection.armed_us
        {
            connection.armed_us = at_us;
            self.timers.arm(at_us, TimerToken { key, generation: connection.generation });
        }
    }
}
