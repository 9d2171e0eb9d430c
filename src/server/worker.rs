//! One event loop: a thread, its poll, its connections.
//!
//! In a turn the worker does, in this order: wait for events; serve the cluster's sockets (worker 0); accept new
//! connections; merge batches of peers (other workers); read connections that have something; hand out the changes
//! of its mailbox; let sessions work that want a turn; do what is due. Then it flushes every touched connection
//! once, lets snapshots scan the map for a moment, so that nothing else waits for them, and wakes every other worker
//! once for which something was left. Each part is bounded in time, so that none starves another; what is left over
//! is taken up in the next turn, which then does not wait.
//!
//! Rejected: a runtime with a task per connection. The loop knows when it is done with everything that is
//! there, and that is the moment to flush once instead of after each record.

use std::io;
use std::sync::Arc;

use mio::{Events, Poll};

use super::acceptor::Acceptor;
use super::clients::Clients;
use super::clock;
use super::control;
use super::gossip::Gossip;
use super::idle::BusyPoll;
use super::lifecycle::{Fatal, Phase};
use super::rest::Rest;
use super::shared::Shared;
use super::tokens::{self, EventSource};
use crate::record::Now;

/// Longest wait for events, in microseconds, so that `healthz` sees the loop turn.
const WAIT_US_MAX: u64 = 1_000_000;
/// Longest wait while the node is loading or shutting down, in microseconds, after which the phase is looked
/// at again.
const WAIT_US_MAX_UNSETTLED: u64 = 10_000;
/// Longest wait while publishers, or peers, are not read, in microseconds: the store does not report when it
/// has room.
const WAIT_US_MAX_CONGESTED: u64 = 5_000;

/// Number of times that a worker accepts connections when it ends. Those beyond are reset.
const LAST_ACCEPTS: usize = 256;

/// Starts the cluster machine on worker 0, once the store is loaded.
pub type StartGossip = Box<dyn FnOnce(Now) -> io::Result<Gossip> + Send>;

/// One event loop.
pub struct Worker {
    id: usize,
    shared: Arc<Shared>,
    poll: Poll,
    acceptor: Acceptor,
    /// The listener for those who watch the node, on the worker that has it.
    watchers: Option<Acceptor>,
    clients: Clients,
    start_gossip: Option<StartGossip>,
    gossip: Option<Gossip>,
    /// Whether the cluster machine was asked to leave.
    has_left: bool,
    /// The node's phase as this worker saw it last.
    phase: Phase,
    busy_poll: BusyPoll,
    rest: Rest,
}

impl Worker {
    /// Makes a worker with its poll, its listener and, for worker 0, the cluster. The mailbox's waker must
    /// belong to the poll.
    pub fn new(
        id: usize,
        poll: Poll,
        mut acceptor: Acceptor,
        clients: Clients,
        start_gossip: Option<StartGossip>,
        busy_poll_us: u64,
    ) -> io::Result<Worker> {
        poll.registry().register(acceptor.listener(), tokens::CLIENTS, mio::Interest::READABLE)?;
        let shared = clients.shared().clone();
        let phase = Phase::Loading;
        Ok(Worker {
            id,
            shared,
            poll,
            acceptor,
            watchers: None,
            clients,
            start_gossip,
            gossip: None,
            has_left: false,
            phase,
            busy_poll: BusyPoll::new(busy_poll_us),
            rest: Rest::default(),
        })
    }

    /// Lets the worker serve those who watch the node, too.
    pub fn serve_watchers(&mut self, mut acceptor: Acceptor) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(acceptor.listener(), tokens::WATCHERS, mio::Interest::READABLE)?;
        self.watchers = Some(acceptor);
        Ok(())
    }

    /// Takes turns until the node ends.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.turns(&mut events) {
                Ok(Phase::Stopped) => return self.turn_rest_away(),
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, worker = self.id, "the event loop failed");
                    return self.shared.lifecycle.fail(Fatal::Loop(error.to_string()));
                }
            }
        }
    }

    /// Takes turns until the node is in a phase in which the event loops end, and returns that phase.
    fn turns(&mut self, events: &mut Events) -> io::Result<Phase> {
        let mut is_busy = true;
        loop {
            self.wait(events, is_busy)?;
            let now = clock::now();
            if let Some(gossip) = &self.gossip {
                self.rest.begin_turn(now.mono_us, gossip.records_moved());
            }
            self.shared.lifecycle.handle_turn(now, self.id);
            match self.shared.lifecycle.phase() {
                phase @ (Phase::Stopped | Phase::Killed) => return Ok(phase),
                phase if phase != self.phase => self.handle_phase(phase, now)?,
                _ => {}
            }
            is_busy = self.turn(events, now);
            self.report_done();
        }
    }

    fn wait(&mut self, events: &mut Events, is_busy: bool) -> io::Result<()> {
        if !is_busy && self.gossip.is_some() && !self.busy_poll.is_on() {
            let rest_us = self.rest.rest_us(clock::mono_us());
            if rest_us > 0 {
                clock::sleep(rest_us);
            }
        }
        let timeout_us = if is_busy { 0 } else { self.timeout_us() };
        let Some(mailbox) = self.shared.mailboxes().get(self.id) else { return Ok(()) };
        let waited = self.busy_poll.wait(&mut self.poll, events, mailbox, timeout_us);
        mailbox.wake_up();
        waited
    }

    fn timeout_us(&self) -> u64 {
        let now_us = clock::mono_us();
        let is_settled = self.phase == Phase::Serving;
        let most_us = match is_settled {
            _ if self.shared.pressure.is_room_awaited() => WAIT_US_MAX_CONGESTED,
            true => WAIT_US_MAX,
            false => WAIT_US_MAX_UNSETTLED,
        };
        let pending_us = if self.id == 0 { self.shared.acks.next_http_timeout_us() } else { None };
        [
            self.clients.next_us(),
            self.acceptor.resumes_us(now_us),
            self.watchers.as_ref().and_then(|acceptor| acceptor.resumes_us(now_us)),
            self.gossip.as_ref().map(|gossip| gossip.next_us(now_us)),
            pending_us,
        ]
        .into_iter()
        .flatten()
        .map(|at_us| at_us.saturating_sub(now_us))
        .fold(most_us, u64::min)
    }

    /// Takes one turn. Returns whether something is left over.
    fn turn(&mut self, events: &Events, now: Now) -> bool {
        for event in events {
            match tokens::source_of(event.token()) {
                EventSource::Waker => {}
                EventSource::Clients => self.acceptor.set_ready(),
                EventSource::Watchers => self.watchers.iter_mut().for_each(Acceptor::set_ready),
                EventSource::Connection(key) => self.clients.handle_event(key, event),
                source => {
                    if let Some(gossip) = &mut self.gossip {
                        gossip.handle_event(source, event);
                    }
                }
            }
        }
        let shared = self.shared.clone();
        let mut is_busy = self.gossip.as_mut().is_some_and(|gossip| gossip.turn(now, &shared));
        is_busy |= self.accept(now);
        is_busy |= self.accept_watchers(now);
        self.clients.admit_guests(self.poll.registry(), now);
        is_busy |= shared.merge_waiting(self.id);
        is_busy |= self.clients.turn(now);
        if self.id == 0 {
            control::settle_http(&self.shared, now);
        }
        // Records that clients published in this turn leave for the cluster before the answers are flushed.
        if let Some(gossip) = &mut self.gossip
            && self.clients.take_published()
        {
            is_busy |= gossip.pass_on(&shared);
        } else if self.clients.take_published() {
            shared.wake_gossip();
        }
        self.clients.flush();
        if self.clients.scan() {
            self.clients.flush();
        }
        self.clients.reap(self.poll.registry());
        shared.wake_wanted();
        is_busy || self.clients.has_work()
    }

    /// Accepts connections that wait. Returns whether more may wait.
    fn accept(&mut self, now: Now) -> bool {
        if !self.acceptor.is_ready(now.mono_us) {
            return false;
        }
        let mut accepted = Vec::new();
        if let Err(error) = self.acceptor.accept(now.mono_us, &mut accepted) {
            self.shared.handle_accept_failure(now.mono_us, &error);
        }
        self.clients.admit(self.poll.registry(), accepted, now);
        self.acceptor.is_ready(now.mono_us)
    }

    /// Accepts connections of those who watch the node. Returns whether more may wait.
    fn accept_watchers(&mut self, now: Now) -> bool {
        let Some(acceptor) = self.watchers.as_mut().filter(|acceptor| acceptor.is_ready(now.mono_us)) else {
            return false;
        };
        let mut accepted = Vec::new();
        if let Err(error) = acceptor.accept(now.mono_us, &mut accepted) {
            self.shared.handle_accept_failure(now.mono_us, &error);
        }
        let is_ready = acceptor.is_ready(now.mono_us);
        self.clients.admit_watchers(self.poll.registry(), accepted, now);
        is_ready
    }

    /// Answers the clients that have connected at the last moment: their connections would be reset.
    fn turn_rest_away(mut self) {
        let now = clock::now();
        self.acceptor.set_ready();
        for _ in 0..LAST_ACCEPTS {
            if !self.accept(now) {
                break;
            }
        }
        // From here on connections are refused. Whoever came between the last look and this is reset.
        drop(self.acceptor);
        self.clients.turn_rest_away(now);
        self.clients.flush();
    }

    fn handle_phase(&mut self, phase: Phase, now: Now) -> io::Result<()> {
        self.phase = phase;
        if phase == Phase::Serving {
            self.clients.handle_loaded();
            if let Some(start) = self.start_gossip.take() {
                let mut gossip = start(now)?;
                gossip.restore(now, &self.shared);
                self.gossip = Some(gossip);
            }
        }
        if phase >= Phase::Closing {
            self.clients.close_all(now);
        }
        if phase >= Phase::Leaving
            && let Some(gossip) = &mut self.gossip
            && !std::mem::replace(&mut self.has_left, true)
        {
            gossip.leave(now, &self.shared);
        }
        Ok(())
    }

    /// Reports whether this worker has done the work of the phase.
    fn report_done(&self) {
        let is_drained = || {
            let is_taken = self.id != 0 || self.shared.ingest.outbox_bytes() == 0;
            let is_sent = is_taken && self.gossip.as_ref().is_none_or(Gossip::is_drained);
            is_sent && self.shared.acks.is_empty() && !self.clients.has_unanswered()
        };
        let is_done = match self.phase {
            Phase::Loading | Phase::Serving | Phase::Stopped | Phase::Killed => false,
            Phase::Draining => is_drained(),
            Phase::Closing => self.clients.is_settled(),
            Phase::Leaving => self.gossip.as_ref().is_none_or(Gossip::is_left),
        };
        if is_done {
            self.shared.lifecycle.set_done(self.id, self.phase);
        }
    }
}
