//! The connections of one worker, from the first byte of their heads to the last of their frames.
//!
//! The table of connections and the lists of the turn stand here, with timers, flushing and closing. [`arrival`] takes
//! connections in, [`reading`] has the way in (frames, messages), [`heads`] what requests ask for, [`rights`] who may
//! go on, [`streams`] the streams of events, [`delivery`] the way out (changes of the
//! mailbox, answers that waited), with the [`run`] in which changes are handed out. [`env`] has what the
//! work on one connection needs beside the connection, and [`traffic`] what the metrics are told.

mod arrival;
mod delivery;
mod env;
mod heads;
mod reading;
mod rights;
mod run;
mod streams;
mod traffic;

use std::collections::VecDeque;
use std::sync::Arc;

use mio::Registry;
use mio::event::Event;
use slab::Slab;

use self::env::{ClientsEnv, PART_US_MAX};
use self::heads::Scrapes;
use self::reading::{HANDSHAKES_US_MAX, PETTY_US_MAX};
use self::rights::Judgement;
use self::run::ChangeRun;
use self::traffic::Traffic;
use super::clock;
use super::close::{CloseCode, CloseReason};
use super::connection::{Admission, Connection, ConnectionStage};
use super::host::WorkerHost;
use super::lanes::{Lane, Lanes};
use super::liveness::Silence;
use super::shared::Shared;
use super::time_bound::TimeBound;
use super::tls::TlsAcceptor;
use super::transport::Layer;
use crate::http::{HEAD_LATE, HandOver};
use crate::limits::{PATTERNS_REMOVED_PER_TURN, RECORDS_FREED_PER_TURN};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Number of bytes that are read from one connection at a time.
const CLIENT_READ_BYTES: usize = 64 * 1024;
/// Time that a turn spends on scans of the map, in microseconds.
const SCAN_US_MAX: u64 = 1_000;
/// Time that a turn spends on timers that are due, in microseconds. Thousands are due at a time if as many clients have
/// connected at a time and said nothing since.
const TIMERS_US_MAX: u64 = 500;
/// Time that a turn spends on removing connections that have ended, in microseconds. To close one takes some ten
/// microseconds, and thousands may end at a time.
const REAP_US_MAX: u64 = 500;
/// Number of patterns of closed connections that are removed from the index before the worker looks at the clock.
const PATTERNS_REMOVED_AT_ONCE: usize = 32;

/// All clients of one worker.
pub struct Clients {
    /// All connections. A place here is a connection's key.
    table: Slab<Connection>,
    env: ClientsEnv,
    /// Buffer that pieces of connections are read into.
    buffer: Vec<u8>,
    /// Connections that are to be read.
    lanes: Lanes,
    /// Connections whose sessions want a turn.
    turning: VecDeque<usize>,
    /// Connections whose sessions want a turn that may scan the map.
    scanning: VecDeque<usize>,
    /// Connections that are not read for now, because of back-pressure.
    paused: Vec<usize>,
    /// Whether any of them was flushed, so that it may be read again.
    may_resume: bool,
    /// Changes on their way to the connections that want them.
    run: ChangeRun,
    /// The way into the control plane.
    hand_over: HandOver<Layer>,
    /// Makes the layers of accepted connections; `None` if clients speak plainly.
    tls: Option<Arc<TlsAcceptor>>,
    /// Number of connections that were accepted so far.
    next_generation: u64,
    /// The store's mark, and whether the store takes records, when sessions last handled a change of them.
    durable: (u64, bool),
    /// Whether the mailbox takes changes, as it was last set.
    is_wanted: bool,
    /// Duration of the last flush, in microseconds.
    flush_us: u64,
    /// How often `/metrics` was answered lately.
    scrapes: Scrapes,
    /// How far the sessions were judged by the file of rights.
    judgement: Judgement,
    /// Bytes read from and written to connections since they were last added to the metrics.
    traffic: Traffic,
}

impl Clients {
    /// No clients yet. Connections that are not for a session leave through `hand_over`. Clients speak TLS if `tls` is
    /// there.
    pub fn new(host: WorkerHost, hand_over: HandOver<Layer>, tls: Option<Arc<TlsAcceptor>>) -> Clients {
        Clients {
            table: Slab::new(),
            env: ClientsEnv::new(host),
            buffer: vec![0; CLIENT_READ_BYTES],
            lanes: Lanes::default(),
            turning: VecDeque::new(),
            scanning: VecDeque::new(),
            paused: Vec::new(),
            may_resume: false,
            run: ChangeRun::default(),
            hand_over,
            tls,
            next_generation: 0,
            durable: (0, true),
            is_wanted: false,
            flush_us: 0,
            scrapes: Scrapes::default(),
            judgement: Judgement::default(),
            traffic: Traffic::default(),
        }
    }

    /// The state that the threads of the node share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.env.host.shared
    }

    /// Monotonic time at which the next timer of a connection is due.
    pub fn next_us(&self) -> Option<u64> {
        self.env.timers.next_us()
    }

    /// Returns whether the next turn has something to do at once.
    pub fn has_work(&self) -> bool {
        !self.lanes.is_empty()
            || !self.turning.is_empty()
            || !self.scanning.is_empty()
            || !self.env.touched.is_empty()
            || !self.env.dead.is_empty()
            || self.env.work.index.has_leaving()
            || !self.env.work.remains.is_empty()
            || self.judgement.is_under_way()
            || self.may_resume
    }

    /// Returns whether anything was published since the last call.
    pub fn take_published(&self) -> bool {
        self.env.host.take_published()
    }

    /// Returns whether a stop of the node need not wait for any connection.
    pub fn is_settled(&self) -> bool {
        self.table.iter().all(|(_, connection)| connection.is_settled())
    }

    /// Returns whether publishes of any connection wait for their answers.
    pub fn has_unanswered(&self) -> bool {
        self.table.iter().any(|(_, connection)| match &connection.stage {
            ConnectionStage::Open(open) => open.session.has_unanswered(),
            _ => false,
        })
    }

    /// Handles an event of the poll for the connection at `key`.
    pub fn handle_event(&mut self, key: usize, event: &Event) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if event.is_writable() || event.is_error() {
            connection.is_writable = true;
            self.env.touch(key, connection);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.intake.handle_event(event.is_read_closed() || event.is_error());
            self.queue_reading(key);
        }
    }

    fn queue_reading(&mut self, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if !connection.is_over() && connection.intake.enter_ready() {
            let is_handshaking = connection.transport.is_handshaking();
            let lane = if is_handshaking { Lane::Handshakes } else { connection.lane };
            self.lanes.push(lane, key);
        }
    }

    fn queue_turn(&mut self, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let ConnectionStage::Open(open) = &connection.stage else { return };
        if open.session.wants_turn(connection.out.len()) && connection.turning.enter() {
            let list = if open.session.may_scan() { &mut self.scanning } else { &mut self.turning };
            list.push_back(key);
        }
    }

    /// Reads, delivers, lets sessions work, and handles what is due. Returns whether changes are left in the mailbox;
    /// whether anything else is left over is known after the flush ([`Clients::has_work`]).
    pub fn turn(&mut self, now: Now) -> bool {
        self.judge_again(now);
        self.resume_paused(now);
        let has_mail = self.read_ready() || self.drain_mailbox();
        self.read_lane(Lane::Handshakes, HANDSHAKES_US_MAX);
        self.read_lane(Lane::Petty, PETTY_US_MAX);
        self.handle_durable(now);
        self.handle_replicated(now);
        self.turn_sessions();
        self.handle_timers(now);
        has_mail
    }

    /// Makes the mailbox take changes while any session has a pattern.
    fn set_wanted(&mut self) {
        let is_wanted = !self.env.work.index.is_empty();
        if is_wanted != self.is_wanted
            && let Some(mailbox) = self.env.host.mailbox()
        {
            self.is_wanted = is_wanted;
            mailbox.set_wanted(is_wanted);
            if is_wanted {
                self.env.inbox.start(self.env.host.shared.ingest.latest());
            }
        }
    }

    /// Lets sessions work that only have something to send.
    fn turn_sessions(&mut self) {
        let mut allowed = TimeBound::of(PART_US_MAX);
        for _ in 0..self.turning.len() {
            let Some(now) = allowed.now() else { break };
            let Some(key) = self.turning.pop_front() else { break };
            self.turn_session(now, key);
        }
    }

    /// Lets the sessions that scan the map do so in turn, a small share each time, as long as there are steps, bytes and
    /// time for it. So what they take of a turn does not depend on how many there are, and little on how long a step
    /// takes. What was found is flushed afterwards, which takes longer than to find it: the bytes bound that.
    /// To be called after [`Clients::flush`], so that nothing that others are to be sent waits for it, and before
    /// another one. Returns whether any session had its turn.
    pub fn scan(&mut self) -> bool {
        if self.scanning.is_empty() {
            return false;
        }
        self.env.work.scans.begin_turn();
        let mut allowed = TimeBound::of(SCAN_US_MAX);
        // Sessions that only wait take no steps. When all that are left wait, they have their turn next time.
        let mut in_vain = 0;
        while in_vain < self.scanning.len() && !self.env.work.scans.is_used_up() {
            let Some(now) = allowed.now() else { break };
            let Some(key) = self.scanning.pop_front() else { break };
            let before = self.env.work.scans.left();
            let waiting = self.table.get(key).map_or(0, |connection| connection.out.len());
            self.turn_session(now, key);
            let waits = self.table.get(key).map_or(0, |connection| connection.out.len());
            self.env.work.scans.use_up_bytes(waits.saturating_sub(waiting));
            in_vain = if self.env.work.scans.left() == before { in_vain + 1 } else { 0 };
        }
        true
    }

    /// Gives a session that was taken from a list its turn.
    fn turn_session(&mut self, now: Now, key: usize) {
        if let Some(connection) = self.table.get_mut(key) {
            connection.turning.leave();
            self.handle_turn(now, key);
        }
    }

    fn handle_turn(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        self.env.with(now, key, connection, |session, turn| session.handle_turn(turn));
        self.queue_turn(key);
        if let Some(connection) = self.table.get_mut(key) {
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Handles timers that are due, the earliest first, for as long as there is time. The others are due in the next
    /// turn, which does not wait then.
    fn handle_timers(&mut self, now: Now) {
        let mut allowed = TimeBound::of(TIMERS_US_MAX);
        while self.env.timers.next_us().is_some_and(|at_us| at_us <= now.mono_us)
            && !allowed.is_used_up()
            && let Some((at_us, token)) = self.env.timers.pop_due(now.mono_us)
        {
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
            ConnectionStage::Head { place_until_us: Some(_), .. } => self.handle_head(now, key),
            ConnectionStage::Head { .. } if is_due && connection.transport.is_handshaking() => {
                self.env.host.shared.metrics.tls.failed.increment();
                self.env.kill(key, connection);
            }
            // Between two requests, or before the answer was read, there is nobody to be told.
            ConnectionStage::Head { head, .. }
                if is_due && (head.is_between_requests() || !connection.out.is_empty()) =>
            {
                self.env.kill(key, connection);
            }
            ConnectionStage::Head { .. } if is_due => {
                let refusal = Refusal::new(Code::Timeout, HEAD_LATE);
                self.env.refuse(now, key, connection, 408, &refusal);
            }
            ConnectionStage::Closing(_) if is_due => self.env.kill(key, connection),
            ConnectionStage::Open(open) => match open.liveness.check(now.mono_us) {
                Silence::Dead => {
                    let close = CloseReason::new(CloseCode::NoPong, "no pong");
                    self.env.close(now, key, connection, &close);
                }
                Silence::Ping => {
                    connection.out.lend(&mut self.env.pool);
                    connection.out.append(connection.out.framing().ping());
                    self.env.touch(key, connection);
                }
                Silence::Short => {}
            },
            _ => {}
        }
        if self.check_rights(now, key) {
            return;
        }
        let Some(connection) = self.table.get_mut(key) else { return };
        if let Some(open) = connection.open()
            && open.session.next_timeout_us().is_some_and(|due_us| due_us <= now.mono_us)
        {
            self.handle_turn(now, key);
        }
        if let Some(connection) = self.table.get_mut(key) {
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Flushes every touched connection once, and counts what was delivered.
    pub fn flush(&mut self) {
        self.flush_us = 0;
        if !self.env.touched.is_empty() {
            let now = clock::now();
            self.flush_touched(now);
            self.flush_us = clock::mono_us().saturating_sub(now.mono_us);
        }
        self.env.pool.handle_turn();
        self.tell_metrics();
    }

    fn flush_touched(&mut self, now: Now) {
        let touched = std::mem::take(&mut self.env.touched);
        for &key in &touched {
            if let Some(connection) = self.table.get_mut(key) {
                connection.touched.leave();
                self.may_resume |= connection.intake.is_paused();
                self.flush_one(now, key);
                self.count(now, key);
                self.queue_turn(key);
            }
        }
        self.env.reuse_touched(touched);
    }

    /// Counts what the connection at `key` makes this node hold, and closes it if that is too much.
    fn count(&mut self, now: Now, key: usize) {
        if let Some(connection) = self.table.get_mut(key) {
            self.env.count(now, key, connection);
        }
    }

    fn flush_one(&mut self, now: Now, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if connection.is_over() || !connection.is_writable {
            return;
        }
        let waiting = connection.out.len();
        let flushed = connection.out.flush(&mut connection.transport);
        self.traffic.sent_bytes += waiting.saturating_sub(connection.out.len()) as u64;
        match flushed {
            Ok(true) => {
                connection.out.give_back(&mut self.env.pool);
                if connection.handle_flushed(now.mono_us) {
                    self.env.kill(key, connection);
                }
                let is_head = matches!(connection.stage, ConnectionStage::Head { .. });
                if is_head && connection.intake.leave_paused() {
                    self.queue_reading(key);
                }
            }
            Ok(false) => connection.is_writable = false,
            Err(error) => {
                tracing::trace!(%error, "a client is gone");
                self.env.lose(now, key, connection);
            }
        }
        if let Some(connection) = self.table.get_mut(key) {
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Takes patterns of closed connections out of the index, as many as one turn has room and time for.
    fn sweep_index(&mut self) {
        let mut allowed = TimeBound::of(PART_US_MAX);
        let mut left = PATTERNS_REMOVED_PER_TURN;
        while left > 0 && self.env.work.index.has_leaving() && !allowed.is_used_up() {
            let part = left.min(PATTERNS_REMOVED_AT_ONCE);
            self.env.work.index.sweep(part);
            left -= part;
        }
    }

    /// Removes connections that are over, and hands over those that go to the control plane, as many as there is time
    /// for. To be called at the end of a turn, so that no event of this turn finds another connection in their place.
    /// A connection keeps its place until all its patterns have left the index.
    pub fn reap(&mut self, registry: &Registry) {
        self.sweep_index();
        self.env.work.remains.sweep(RECORDS_FREED_PER_TURN);
        self.env.count_remains();
        let mut allowed = TimeBound::of(REAP_US_MAX);
        let mut is_late = false;
        for key in std::mem::take(&mut self.env.dead) {
            if is_late || self.env.work.index.is_leaving(key) {
                self.env.dead.push(key);
                continue;
            }
            is_late = allowed.is_used_up();
            let Some(mut connection) = self.table.try_remove(key) else { continue };
            if let Err(error) = connection.transport.deregister(registry) {
                tracing::trace!(%error, "a closed connection was not registered");
            }
            self.env.uncount(&mut connection);
            match connection.admission {
                Admission::Watcher => drop(self.env.watchers.remove(&connection.generation)),
                Admission::Excess => drop(self.env.excess.remove(&connection.generation)),
                Admission::Admitted | Admission::Guest => {}
            }
            if matches!(connection.admission, Admission::Admitted | Admission::Excess) {
                self.shared().places.give_back();
            }
            let client = (rights::peer_of(&connection), connection.address_place.take());
            match connection.stage {
                ConnectionStage::HandedOver { place, read } => {
                    place.take_over(connection.transport.into_client(), read, client);
                }
                _ => connection.transport.say_end(),
            }
        }
        self.set_wanted();
    }

    /// Lets the sessions go on that waited until the store was loaded into the map.
    pub fn handle_loaded(&mut self) {
        let keys: Vec<usize> = self.table.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.queue_turn(key));
    }

    /// Closes every session because the node is shutting down: clients are told to come back elsewhere. A
    /// request whose head comes later is told the same.
    pub fn close_all(&mut self, now: Now) {
        let draining = CloseReason::new(CloseCode::Draining, "draining");
        for (key, connection) in &mut self.table {
            match &connection.stage {
                ConnectionStage::Open(_) => self.env.close(now, key, connection, &draining),
                ConnectionStage::Head { .. }
                | ConnectionStage::Closing(_)
                | ConnectionStage::HandedOver { .. }
                | ConnectionStage::Over => {}
            }
            self.env.arm(now.mono_us, key, connection);
        }
    }
}
