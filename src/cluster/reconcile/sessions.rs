//! Beginning, driving and ending sessions.

use super::initiator::{Initiator, SessionPlan};
use super::lane::SessionEnd;
use super::link::{SessionEnv, SessionLink, SessionReport, SessionStep};
use super::responder::Responder;
use super::{
    COMPARE_SOON_US, FRESH_PEERS, HeadsNow, INCOMING_MAX, OUTGOING_MAX, Peer, Reconcile, ReconcileOutput,
    SESSION_IDLE_US_MAX, STRANGER_SESSIONS_MAX, wire,
};
use crate::cluster::Replica;
use crate::cluster::ring::{Ring, RingEntry};
use crate::cluster::stats::QueueGauge;
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};
use crate::record::{NodeName, Now};

impl Reconcile {
    /// The streams of all sessions at this node.
    pub(super) fn links(&self) -> impl Iterator<Item = &SessionLink> {
        let outgoing = self.outgoing.iter().map(|session| &session.link);
        outgoing.chain(self.incoming.iter().map(|session| &session.link))
    }

    /// Ends sessions that made no progress for too long.
    pub(super) fn end_idle(&mut self, now: Now) {
        let is_idle =
            |link: &SessionLink| link.progress_us.saturating_add(SESSION_IDLE_US_MAX) <= now.mono_us;
        let idle: Vec<StreamId> = self.links().filter(|link| is_idle(link)).map(|link| link.stream).collect();
        for stream in idle {
            self.broken(stream);
        }
    }

    /// Gives the next session that has something to do its turn.
    pub(super) fn take_turn(&mut self, now: Now, heads: HeadsNow, replica: &mut dyn Replica) {
        let count = self.outgoing.len() + self.incoming.len();
        for _ in 0..count {
            self.turn = (self.turn + 1) % count;
            let (me, stats, outputs) = (&self.me, &mut self.stats, &mut self.outputs);
            let mut env =
                SessionEnv { now, me, heads, replica, stats, outputs, greeted: None, is_full: false };
            let outgoing = self.outgoing.len();
            if let Some(session) = self.outgoing.get_mut(self.turn) {
                if session.link.is_runnable {
                    return session.work(0, &mut env);
                }
            } else if let Some(session) = self.incoming.get_mut(self.turn - outgoing)
                && session.link.is_runnable
            {
                return session.work(0, &mut env);
            }
        }
    }

    /// Begins a session with a peer, unless another session makes that needless or there are too many.
    pub(super) fn begin(&mut self, now: Now, to: Peer, plan: SessionPlan) {
        let is_moving = self.outgoing.iter().any(|session| session.link.is_moving(now));
        if self.outgoing.len() >= OUTGOING_MAX || is_moving || self.is_done_by(&to.name, now) {
            return;
        }
        let (stream, seed) = (self.ids.next_id(), self.random.next_u64());
        debug_assert!(self.outgoing.len() < OUTGOING_MAX && stream.0 % 2 == 1);
        self.stats.sessions_begun += 1;
        self.outgoing.push(Initiator::new(stream, to.name, plan, seed, now));
        self.outputs.push_back(ReconcileOutput::Stream(StreamOutput::Connect { stream, to: to.gossip }));
    }

    /// Returns whether a session that this peer began is under way and would do all that a session begun here
    /// would do.
    fn is_done_by(&self, peer: &NodeName, now: Now) -> bool {
        self.me.is_reconciled && self.incoming.iter().any(|session| session.is_with(peer, now))
    }

    /// Accepts a session that a peer began, or refuses it if members have begun too many. The number of streams
    /// of strangers is bounded by [`crate::cluster::strangers`], and a stranger's session counts only once the
    /// stranger has greeted.
    pub fn accept(&mut self, now: Now, stream: StreamId, is_member: bool) {
        self.handled_us = now.mono_us;
        if !is_member || self.count_incoming(|session| session.is_member) < INCOMING_MAX {
            self.stats.sessions_accepted += 1;
            self.incoming.push(Responder::new(stream, is_member, now));
            return;
        }
        self.stats.sessions_refused += 1;
        let mut busy = Vec::new();
        wire::ReconcileFrame::Busy.encode(&mut busy);
        self.outputs.push_back(ReconcileOutput::Stream(StreamOutput::Write { stream, bytes: busy.into() }));
        self.outputs.push_back(ReconcileOutput::Stream(StreamOutput::Close { stream }));
    }

    fn count_incoming(&self, counts: impl Fn(&Responder) -> bool) -> usize {
        self.incoming.iter().filter(|session| counts(session)).count()
    }

    /// Number of sessions in which strangers have greeted.
    fn stranger_sessions(&self) -> usize {
        self.count_incoming(|session| !session.is_member && session.is_greeted())
    }

    /// Returns whether the peer that opened this stream has greeted.
    pub fn has_greeted(&self, stream: StreamId) -> bool {
        self.incoming.iter().any(|session| session.link.stream == stream && session.is_greeted())
    }

    /// Calls `visit` with the numbers of sessions and their bounds.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("sessions begun", self.outgoing.len(), OUTGOING_MAX));
        let of_members = self.count_incoming(|session| session.is_member);
        visit(QueueGauge::new("sessions of members", of_members, INCOMING_MAX));
        visit(QueueGauge::new("sessions of strangers", self.stranger_sessions(), STRANGER_SESSIONS_MAX));
    }

    /// Handles an event of a stream that this node asked for.
    pub(super) fn drive_outgoing(
        &mut self,
        now: Now,
        index: usize,
        event: StreamEvent,
        heads: HeadsNow,
        replica: &mut dyn Replica,
    ) {
        let Some(session) = self.outgoing.get(index) else { return };
        let stream = session.link.stream;
        if matches!(event, StreamEvent::Opened) && self.is_done_by(&session.to, now) {
            return self.close(stream);
        }
        let Some(session) = self.outgoing.get_mut(index) else { return };
        let (me, stats, outputs) = (&self.me, &mut self.stats, &mut self.outputs);
        let mut env = SessionEnv { now, me, heads, replica, stats, outputs, greeted: None, is_full: false };
        let cost = cost_of(&event);
        match event {
            StreamEvent::Opened => session.opened(&mut env),
            StreamEvent::Accepted { .. } | StreamEvent::Closed => return self.gone(stream),
            StreamEvent::Received(_) | StreamEvent::Drained => {}
        }
        let step = session.advance(event, cost, &mut env);
        let peer_is_reconciled = session.peer_is_reconciled();
        if let Ok(SessionStep::Done(report)) = &step {
            self.comparison.learn(now, report);
        }
        self.conclude(now, stream, step, peer_is_reconciled);
    }

    /// Handles an event of a stream that was accepted.
    pub(super) fn drive_incoming(
        &mut self,
        now: Now,
        index: usize,
        event: StreamEvent,
        heads: HeadsNow,
        replica: &mut dyn Replica,
    ) {
        let strangers = self.stranger_sessions();
        let Some(session) = self.incoming.get_mut(index) else { return };
        let stream = session.link.stream;
        let is_full = !session.is_member && strangers >= STRANGER_SESSIONS_MAX;
        let (me, stats, outputs) = (&self.me, &mut self.stats, &mut self.outputs);
        let greeted = self.outgoing.iter().find_map(|session| session.greeted(now));
        let mut env = SessionEnv { now, me, heads, replica, stats, outputs, greeted, is_full };
        let cost = cost_of(&event);
        if event == StreamEvent::Closed {
            return self.gone(stream);
        }
        let step = session.advance(event, cost, &mut env);
        let peer_is_reconciled = session.peer_is_reconciled();
        if let Ok(SessionStep::Refused) = &step {
            self.stats.sessions_refused += 1;
        }
        self.conclude(now, stream, step, peer_is_reconciled);
    }

    /// Ends a session that is refused, complete or broken. If it goes on, and the peer's first reconciliation is
    /// done, drops this node's copy where that must be dropped.
    fn conclude(
        &mut self,
        now: Now,
        stream: StreamId,
        step: Result<SessionStep, wire::FrameError>,
        peer_is_reconciled: bool,
    ) {
        match step {
            Ok(SessionStep::Going) if peer_is_reconciled => self.discard(stream),
            Ok(SessionStep::Going) => {}
            Ok(SessionStep::Refused) => self.close(stream),
            Ok(SessionStep::Done(report)) => {
                self.close(stream);
                self.finished(now, report);
            }
            Err(_) => self.broken(stream),
        }
    }

    /// Draws the conclusions from a complete session.
    fn finished(&mut self, now: Now, report: SessionReport) {
        self.stats.sessions_finished += 1;
        if report.found > 0 && self.me.is_reconciled {
            self.next_us = self.next_us.min(now.mono_us + COMPARE_SOON_US);
        }
        if report.has_seen && !report.heads.is_empty() {
            self.outputs.push_back(ReconcileOutput::Merged(report.heads));
        }
        if report.has_shown && report.has_seen {
            self.agreed_us = Some(now.wall_us);
        }
        if self.me.is_reconciled || !report.is_whole {
            return;
        }
        if !report.peer_is_reconciled {
            // The peer may be as new as this node; the next peer may know more.
            self.fresh_peers.insert(report.peer);
        }
        if report.peer_is_reconciled && report.peer_has_shown {
            self.handle_reconciled(now);
        }
        self.next_us = now.mono_us;
    }

    /// Returns whether this node has met members that are all as new as itself: all members that it knows, or
    /// several. Then there is nobody who knows more.
    pub(super) fn is_fresh_cluster(&self, ring: &Ring) -> bool {
        let is_met =
            |entry: &RingEntry| *entry.name() == self.me.name || self.fresh_peers.contains(entry.name());
        let met = self.fresh_peers.len();
        met >= FRESH_PEERS || (met > 0 && ring.entries().iter().all(is_met))
    }

    /// Notes that the first reconciliation is done.
    pub(super) fn handle_reconciled(&mut self, now: Now) {
        self.me.is_reconciled = true;
        if self.must_discard() {
            // The copy was kept: from now on it counts as equal to that of the cluster, also after a restart.
            self.agreed_us = Some(now.wall_us);
        }
        self.me.withholds = false;
        self.fresh_peers.clear();
    }

    /// Asks for this node's copy to be dropped, if it must be, now that there is a member to reload from. The
    /// records that other sessions have brought are dropped with it, so these sessions are ended.
    fn discard(&mut self, reloading: StreamId) {
        if !self.must_discard() {
            return;
        }
        self.has_discarded = true;
        self.outputs.push_back(ReconcileOutput::Discard);
        let others: Vec<StreamId> =
            self.links().map(|link| link.stream).filter(|&stream| stream != reloading).collect();
        others.into_iter().for_each(|stream| self.broken(stream));
    }

    fn broken(&mut self, stream: StreamId) {
        self.stats.sessions_broken += 1;
        self.close(stream);
    }

    /// Closes a stream and forgets its session.
    fn close(&mut self, stream: StreamId) {
        self.forget(stream);
        self.outputs.push_back(ReconcileOutput::Stream(StreamOutput::Close { stream }));
    }

    /// Forgets a session whose stream was closed by the driver before the session was complete.
    fn gone(&mut self, stream: StreamId) {
        self.stats.sessions_broken += 1;
        self.forget(stream);
    }

    fn forget(&mut self, stream: StreamId) {
        self.outgoing.retain(|session| session.link.stream != stream);
        self.incoming.retain(|session| session.link.stream != stream);
    }
}

/// Returns the cost of reading and merging the bytes of an event, in records looked at.
fn cost_of(event: &StreamEvent) -> usize {
    match event {
        StreamEvent::Received(bytes) => bytes.len() / 32,
        _ => 0,
    }
}
