//! Exchanging whole member lists on streams, and probing on streams.
//!
//! The side that connects sends its list in parts; the other side merges it and answers with its own list.
//! One part is in flight at a time, so a list of any length takes little memory, and it never has to fit a
//! datagram (quickwit#6653: the digest outgrew it after 500 dead nodes).
//!
//! Lists are exchanged when a node joins, when a dead member answers again, and when views differ although
//! nothing changed for a while.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::message::{Claim, Introduction, MembershipFrame, Ping, Update};
use super::news::Way;
use super::slot::{ME, Slot};
use super::timing::{LISTS_INTERVAL_US, LISTS_INTERVAL_US_MAX};
use super::{Swim, SwimOutput, wire};
use crate::cluster::frames::{self, StreamFrameReader};
use crate::cluster::members::State;
use crate::cluster::purpose::{Purpose, StreamIds};
use crate::cluster::stats::QueueGauge;
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};
use crate::record::Now;

/// Most members in one part of a list.
const PART_MEMBERS_MAX: usize = 256;
/// Longest frame, in bytes. A part of a list cannot be longer, since the fields of its members are bounded.
const LIST_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Most streams of membership at a time that this node opened, and most that members opened.
const SESSIONS_MAX: usize = 64;
/// Most exchanges at a time that this node began.
const OFFERS_MAX: usize = 2;
/// Time without progress after which a stream is given up, in microseconds.
const SESSION_US: u64 = 10_000_000;
/// Time between two tries to get a first list, in microseconds.
const JOIN_INTERVAL_US: u64 = 50_000;
/// Least time between the beginnings of two exchanges, in microseconds.
const OFFER_INTERVAL_US: u64 = 500_000;

/// The use of a stream of membership.
#[derive(Debug)]
enum ListSessionKind {
    /// The stream probes the peer, which did not answer by UDP.
    Probe { sequence: u32, ping: Ping },
    /// This node began an exchange. Its list goes on with the member `next`; `None` if all of it was sent.
    Offer { next: Option<Slot> },
    /// A peer connected from `host`. This node's list goes on with the member `next`; `None` if it is not being
    /// sent. The peer's list is believed if `is_believed`.
    Serve { host: IpAddr, next: Option<Slot>, is_believed: bool },
}

/// A stream of membership.
#[derive(Debug)]
struct ListSession {
    kind: ListSessionKind,
    /// Whether the peer opened the stream and is no member.
    is_stranger: bool,
    /// Whether a whole frame has come that a node would send.
    has_spoken: bool,
    reader: StreamFrameReader,
    due_us: u64,
}

impl ListSession {
    /// Returns whether a member opened the stream.
    fn is_of_member(&self) -> bool {
        matches!(self.kind, ListSessionKind::Serve { .. }) && !self.is_stranger
    }

    /// Returns whether this node opened the stream.
    fn is_own(&self) -> bool {
        !matches!(self.kind, ListSessionKind::Serve { .. })
    }
}

/// The streams of membership, and when to exchange lists.
#[derive(Debug)]
pub(super) struct Lists {
    sessions: BTreeMap<StreamId, ListSession>,
    ids: StreamIds,
    is_joined: bool,
    next_join_us: u64,
    last_offer_us: Option<u64>,
    /// When lists may next be exchanged because views differ, on the monotonic clock in microseconds.
    next_views_us: u64,
    views_interval_us: u64,
}

impl Lists {
    /// Begins without streams. `is_joined`: this node needs no first list.
    pub fn new(now_us: u64, is_joined: bool) -> Lists {
        Lists {
            sessions: BTreeMap::new(),
            ids: StreamIds::new(Purpose::Members),
            is_joined,
            next_join_us: now_us,
            last_offer_us: None,
            next_views_us: now_us,
            views_interval_us: LISTS_INTERVAL_US,
        }
    }

    fn count(&self, counts: impl Fn(&ListSession) -> bool) -> usize {
        self.sessions.values().filter(|session| counts(session)).count()
    }

    /// Calls `visit` with the numbers of streams and their bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("streams of membership", self.count(ListSession::is_own), SESSIONS_MAX));
        let of_members = self.count(ListSession::is_of_member);
        visit(QueueGauge::new("streams of membership of members", of_members, SESSIONS_MAX));
    }

    /// Returns whether a first list was received, or none is needed.
    pub fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// Notes that a first list was received.
    pub fn joined(&mut self) {
        self.is_joined = true;
    }

    /// When the first stream times out or the next try to join is due, on the monotonic clock in
    /// microseconds.
    pub fn due_us(&self) -> u64 {
        let join_us = if self.is_joined { u64::MAX } else { self.next_join_us };
        self.sessions.values().map(|session| session.due_us).fold(join_us, u64::min)
    }
}

impl Swim {
    /// Serves a stream of membership that a peer opened, or closes it if members have opened too many. The
    /// number of streams of strangers is bounded by [`crate::cluster::strangers`].
    pub fn accept(&mut self, now: Now, stream: StreamId, host: IpAddr, is_member: bool) {
        if is_member && self.lists.count(ListSession::is_of_member) >= SESSIONS_MAX {
            return self.outputs.push_back(SwimOutput::Stream(StreamOutput::Close { stream }));
        }
        let kind = ListSessionKind::Serve { host, next: None, is_believed: false };
        self.start_session(now, stream, kind, !is_member);
    }

    /// Returns whether a whole frame has come on this stream that a node would send.
    pub fn has_spoken(&self, stream: StreamId) -> bool {
        self.lists.sessions.get(&stream).is_some_and(|session| session.has_spoken)
    }

    /// Handles an event of a stream of membership.
    pub fn handle_stream(&mut self, now: Now, stream: StreamId, event: StreamEvent) {
        self.clocks.set_now(now);
        match event {
            // Streams that peers opened come by `accept`.
            StreamEvent::Accepted { .. } => {}
            StreamEvent::Opened => self.opened(now, stream),
            StreamEvent::Drained => {
                if let Some(session) = self.lists.sessions.get_mut(&stream) {
                    session.due_us = now.mono_us + SESSION_US;
                    self.write_on(stream);
                }
            }
            StreamEvent::Received(bytes) => self.read(now, stream, &bytes),
            StreamEvent::Closed => {
                self.lists.sessions.remove(&stream);
            }
        }
    }

    /// Ends the streams that made no progress, and tries to get a first list if this node needs one.
    pub(super) fn lists_due(&mut self, now: Now) {
        let sessions = self.lists.sessions.iter();
        let over: Vec<StreamId> =
            sessions.filter(|(_, session)| session.due_us <= now.mono_us).map(|(&id, _)| id).collect();
        for stream in over {
            self.end_session(stream);
        }
        if !self.lists.is_joined && now.mono_us >= self.lists.next_join_us {
            self.lists.next_join_us = now.mono_us + self.random.jitter_us(JOIN_INTERVAL_US);
            if let Some(&slot) = self.table.random_live(1, ME, &mut self.random).first() {
                self.exchange_lists(now, slot);
            }
        }
    }

    /// Exchanges lists with a member whose hash of the live members differs from ours, unless something
    /// changed lately: views differ for a while after each change.
    pub(super) fn compare_views(&mut self, now: Now, slot: Slot, view: u64) {
        if view == self.table.view() {
            self.lists.views_interval_us = LISTS_INTERVAL_US;
            return;
        }
        let settled_us = self.changed_us + self.timing.settle_us;
        if now.mono_us < settled_us.max(self.lists.next_views_us) || self.leave.is_leaving() {
            return;
        }
        let interval_us = self.lists.views_interval_us;
        self.lists.next_views_us = now.mono_us + self.random.jitter_us(interval_us);
        self.lists.views_interval_us = (interval_us * 2).min(LISTS_INTERVAL_US_MAX);
        self.exchange_lists(now, slot);
    }

    /// Exchanges lists with this member, unless an exchange was begun just before.
    pub(super) fn exchange_lists(&mut self, now: Now, slot: Slot) {
        if let Some(to) = self.table.get(slot).map(|member| member.identity.gossip()) {
            self.exchange_lists_at(now, to);
        }
    }

    /// Exchanges lists with the node at this address, unless an exchange was begun just before.
    pub(super) fn exchange_lists_at(&mut self, now: Now, to: SocketAddr) {
        let offers = self.lists.sessions.values();
        let offers = offers.filter(|session| matches!(session.kind, ListSessionKind::Offer { .. })).count();
        // A node that joins was refused if many others join at the same member.
        let (offers_max, interval_us) =
            if self.lists.is_joined { (OFFERS_MAX, OFFER_INTERVAL_US) } else { (1, JOIN_INTERVAL_US / 2) };
        let is_early = self.lists.last_offer_us.is_some_and(|last_us| now.mono_us < last_us + interval_us);
        if is_early || offers >= offers_max {
            return;
        }
        self.lists.last_offer_us = Some(now.mono_us);
        self.connect(now, to, ListSessionKind::Offer { next: Some(ME) });
    }

    /// Opens a stream to probe a member that did not answer over UDP. `None`: there are too many streams.
    pub(super) fn connect_probe(&mut self, now: Now, to: SocketAddr, ping: Ping) -> Option<StreamId> {
        self.connect(now, to, ListSessionKind::Probe { sequence: ping.sequence, ping })
    }

    /// Closes the stream of a probe that has ended.
    pub(super) fn close_probe(&mut self, stream: Option<StreamId>) {
        if let Some(stream) = stream.filter(|stream| self.lists.sessions.contains_key(stream)) {
            self.end_session(stream);
        }
    }

    fn connect(&mut self, now: Now, to: SocketAddr, kind: ListSessionKind) -> Option<StreamId> {
        if self.lists.count(ListSession::is_own) >= SESSIONS_MAX {
            return None;
        }
        let stream = self.lists.ids.next_id();
        self.start_session(now, stream, kind, false);
        self.outputs.push_back(SwimOutput::Stream(StreamOutput::Connect { stream, to }));
        Some(stream)
    }

    fn start_session(&mut self, now: Now, stream: StreamId, kind: ListSessionKind, is_stranger: bool) {
        let session = ListSession {
            kind,
            is_stranger,
            has_spoken: false,
            reader: StreamFrameReader::new(LIST_FRAME_BYTES_MAX),
            due_us: now.mono_us + SESSION_US,
        };
        self.lists.sessions.insert(stream, session);
    }

    fn end_session(&mut self, stream: StreamId) {
        self.lists.sessions.remove(&stream);
        self.outputs.push_back(SwimOutput::Stream(StreamOutput::Close { stream }));
    }

    fn write(&mut self, stream: StreamId, frame: &MembershipFrame) {
        let bytes = frames::frame(&wire::frame_to_proto(frame));
        self.outputs.push_back(SwimOutput::Stream(StreamOutput::Write { stream, bytes }));
    }

    fn opened(&mut self, now: Now, stream: StreamId) {
        let Some(session) = self.lists.sessions.get_mut(&stream) else { return };
        session.due_us = now.mono_us + SESSION_US;
        let ListSessionKind::Probe { ping, .. } = &session.kind else { return self.write_on(stream) };
        let frame = MembershipFrame::Ping(ping.clone());
        self.write(stream, &frame);
    }

    /// Writes the next part of the list, if there is one, after the last one is out.
    fn write_on(&mut self, stream: StreamId) {
        let Some(session) = self.lists.sessions.get(&stream) else { return };
        match &session.kind {
            ListSessionKind::Probe { .. } => {}
            ListSessionKind::Offer { next: Some(from) } | ListSessionKind::Serve { next: Some(from), .. } => {
                let from = *from;
                self.write_part(stream, from);
            }
            ListSessionKind::Offer { next: None } | ListSessionKind::Serve { next: None, .. } => {}
        }
    }

    /// Writes the part of the list that begins at the slot `from`.
    fn write_part(&mut self, stream: StreamId, from: Slot) {
        let mut updates = Vec::new();
        let mut slots = self.table.slots();
        slots.start = from;
        let mut next = None;
        for slot in slots {
            if updates.len() == PART_MEMBERS_MAX {
                next = Some(slot);
                break;
            }
            updates.extend(self.listed(slot));
        }
        let introduction = (from == ME).then(|| self.table.me().clone());
        self.write(stream, &MembershipFrame::List { introduction, updates, is_last: next.is_none() });
        let Some(session) = self.lists.sessions.get_mut(&stream) else { return };
        match &mut session.kind {
            ListSessionKind::Offer { next: place } => *place = next,
            // The driver closes the stream only when everything written is out.
            ListSessionKind::Serve { .. } if next.is_none() => self.end_session(stream),
            ListSessionKind::Serve { next: place, .. } => *place = next,
            ListSessionKind::Probe { .. } => {}
        }
    }

    /// Returns the news of a member as it stands in a list.
    fn listed(&self, slot: Slot) -> Option<Update> {
        let member = self.table.get(slot)?;
        let said = Introduction { identity: member.identity.clone(), incarnation: member.incarnation };
        let alive = Update::alive(&said);
        Some(match member.state {
            _ if slot == ME && self.leave.is_leaving() => Update { claim: Claim::Left, ..alive },
            // The others hear of it once it has answered here.
            State::Joining if !self.newcomers.is_reached(slot) => return None,
            State::Joining | State::Alive | State::Suspect => alive,
            State::Dead => Update { claim: Claim::Dead, ..alive },
            State::Left => Update { claim: Claim::Left, ..alive },
        })
    }

    /// Handles the frames in bytes that arrived.
    fn read(&mut self, now: Now, stream: StreamId, bytes: &[u8]) {
        let Some(session) = self.lists.sessions.get_mut(&stream) else { return };
        session.due_us = now.mono_us + SESSION_US;
        session.reader.push(bytes);
        // A frame may end the session, so it is looked up again each time.
        while let Some(session) = self.lists.sessions.get_mut(&stream) {
            let frame = match session.reader.next_frame() {
                Ok(None) => return,
                Ok(Some(bytes)) => wire::frame_from_bytes(bytes),
                Err(_) => None,
            };
            let is_understood = frame.is_some_and(|frame| self.handle_frame(now, stream, frame));
            match self.lists.sessions.get_mut(&stream) {
                Some(session) if is_understood => session.has_spoken = true,
                Some(_) => self.end_session(stream),
                None => {}
            }
        }
    }

    /// Handles a frame. Returns `false` if no node would send it at this point.
    fn handle_frame(&mut self, now: Now, stream: StreamId, frame: MembershipFrame) -> bool {
        let Some(session) = self.lists.sessions.get(&stream) else { return true };
        match (&session.kind, frame) {
            (ListSessionKind::Serve { next: None, .. }, MembershipFrame::Ping(ping))
                if self.is_for_me(ping.target) =>
            {
                let ack = self.ack(now, ping.sequence, None);
                self.write(stream, &MembershipFrame::Ack(ack));
                true
            }
            (ListSessionKind::Probe { sequence, .. }, MembershipFrame::Ack(ack))
                if ack.sequence == *sequence =>
            {
                self.answer_probe(now, None, &ack);
                true
            }
            (
                ListSessionKind::Offer { .. } | ListSessionKind::Serve { next: None, .. },
                MembershipFrame::List { introduction, updates, is_last },
            ) => self.handle_list(now, stream, introduction, updates, is_last),
            _ => false,
        }
    }

    /// Lets the address of a peer be pinged that it tells on a stream: this node has connected to the peer, or the
    /// peer has connected from the host of that address.
    fn note_host(&mut self, now: Now, stream: StreamId, address: SocketAddr) {
        let kind = self.lists.sessions.get(&stream).map(|session| &session.kind);
        let is_its_own = match kind {
            Some(ListSessionKind::Serve { host, .. }) => *host == address.ip(),
            Some(ListSessionKind::Offer { .. }) => true,
            _ => false,
        };
        if is_its_own {
            self.trust_address(now, address);
        }
    }

    /// Decides whether the list of a peer that connected is believed: it says that it is the member in `slot`,
    /// which must take part, and its connection must come from that member's host.
    fn judge_peer(&mut self, stream: StreamId, slot: Slot) {
        let member = self.table.get(slot).filter(|member| member.state.is_live());
        let Some(address) = member.map(|member| member.identity.gossip()) else { return };
        if let Some(session) = self.lists.sessions.get_mut(&stream)
            && let ListSessionKind::Serve { host, is_believed, .. } = &mut session.kind
        {
            *is_believed = *host == address.ip();
        }
    }

    /// Takes in a part of the peer's list. After the last part, the exchange ends, or this node sends its own
    /// list. Returns `false` if the stream is to be closed.
    fn handle_list(
        &mut self,
        now: Now,
        stream: StreamId,
        introduction: Option<Introduction>,
        updates: Vec<Update>,
        is_last: bool,
    ) -> bool {
        if let Some(said) = introduction {
            let (name, boot) = (said.identity.name.clone(), said.identity.boot);
            self.note_host(now, stream, said.identity.gossip());
            self.hear(now, said.into(), Way::Introduced(None));
            // A node that claims the name of another gets no list before that is cleared up. It tries again
            // later.
            let Some(slot) = self.find_life(name.as_str(), boot) else { return false };
            self.newcomers.heard(now, slot);
            self.judge_peer(stream, slot);
        }
        let (is_offer, is_believed) = match self.lists.sessions.get(&stream).map(|session| &session.kind) {
            Some(ListSessionKind::Offer { .. }) => (true, true),
            Some(ListSessionKind::Serve { is_believed, .. }) => (false, *is_believed),
            _ => (false, false),
        };
        let way = if is_offer && !self.lists.is_joined { Way::FirstList } else { Way::List };
        for update in updates.into_iter().filter(|_| is_believed) {
            self.hear(now, update, way);
        }
        if !is_last {
            return true;
        }
        if is_offer {
            self.lists.is_joined = true;
            self.newcomers.joined();
            self.end_session(stream);
        } else {
            self.write_part(stream, ME);
        }
        true
    }
}
