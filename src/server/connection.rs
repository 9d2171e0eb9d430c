//! One client's connection: its transport, the bytes that wait to be sent, and the stage that it is in.
//!
//! First the head of a request is read ([`ConnectionStage::Head`]), and again after each request for a health
//! path. Then the connection is a session with its framing ([`ConnectionStage::Open`]), or it goes to the control plane ([`ConnectionStage::HandedOver`]). In
//! the end it is closing ([`ConnectionStage::Closing`]): the bytes that wait are sent, and those that arrive
//! are read and discarded, so that the kernel does not cut the last frames off with a reset.
//!
//! A worker keeps lists of connections: those to be read, those to be flushed, and so on. In which of them a
//! connection stands is kept in [`Intake`], for reading, and in [`Listed`], for everything else.

use std::io;
use std::net::IpAddr;

use super::account::Holdings;
use super::close::CloseReason;
use super::framing::read::FrameReader;
use super::head::HeadBuffer;
use super::lanes::Lane;
use super::liveness::Liveness;
use super::outbound::Outbound;
use super::session::{Endpoint, Session};
use super::transport::{Layer, Transport};
use crate::auth::AddressPlace;
use crate::http::Reservation;
use crate::limits::HANDSHAKE_US_MAX;

/// Bytes that are read from a subscriber at once, so that the worker looks at the clock after a dozen of its requests.
/// A subscription takes much longer than to read its few bytes.
const SUBSCRIBER_READ_BYTES: usize = 1024;
/// Time for which the client's answer to a close frame is waited for, in microseconds.
const CLOSE_ANSWER_US_MAX: u64 = 1_000_000;
/// Time within which everything up to the close frame must be sent, in microseconds: a client that does not
/// read for this long will not see it.
const CLOSE_FLUSH_US_MAX: u64 = 35_000_000;

/// A connection in its worker's table.
pub struct Connection {
    /// The way to the client.
    pub transport: Transport,
    /// Number of this connection among all that the worker has had. It distinguishes connections that had the
    /// same key.
    pub generation: u64,
    /// The stage that the connection is in.
    pub stage: ConnectionStage,
    /// The bytes that wait to be sent.
    pub out: Outbound,
    /// Whether the connection is within the node's bound.
    pub admission: Admission,
    /// Address that the connection comes from.
    pub address: IpAddr,
    /// The place of the connection among those of its address; `None` if these are not counted.
    pub address_place: Option<AddressPlace>,
    /// Bytes that the connection held when they were counted last.
    pub held: usize,
    /// Whether the connection is to be read.
    pub intake: Intake,
    /// The lane in which the connection waits when it is to be read.
    pub lane: Lane,
    /// Whether the transport takes bytes; if not, the poll reports when it does again.
    pub is_writable: bool,
    /// Whether the connection is in the list of those whose sessions want a turn.
    pub turning: Listed,
    /// Whether the connection is in the list of those that are flushed at the end of the turn.
    pub touched: Listed,
    /// Monotonic time at which the timer of the connection is due, in microseconds; `u64::MAX` without one.
    pub armed_us: u64,
}

/// Whether a node has room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The connection is within the node's bound.
    Admitted,
    /// The connection is beyond the bound, and is turned away as soon as its request has been read.
    Excess,
    /// The connection came through the port for those who watch the node. It is not counted among the connections
    /// of clients, and is served the health paths alone.
    Watcher,
    /// The connection is one end of a pair of local sockets, and the control plane has the other end. It is not counted
    /// among the connections of clients.
    Guest,
}

/// Whether a connection stands in a list of its worker, so that it enters the list once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listed(bool);

impl Listed {
    /// Notes that the connection is in the list. Returns whether it was not: it is to be put there.
    pub fn enter(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    /// Notes that the connection was taken out of the list.
    pub fn leave(&mut self) {
        self.0 = false;
    }
}

/// The reading side of a connection: whether there may be something to read, and in which list the connection
/// stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intake {
    /// Whether there may be bytes to read that the poll will not report again.
    may_hold_more: bool,
    /// Whether the client has ended its side, or the connection failed: what is left is read to the end.
    is_ending: bool,
    list: ReadingList,
}

/// The list of a worker in which a connection stands on account of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReadingList {
    /// The connection stands in neither list.
    #[default]
    None,
    /// The connection stands in the list of those that are to be read.
    Ready,
    /// The connection stands in the list of those that are not read for now, because of back-pressure.
    Paused,
}

impl Intake {
    /// Notes that the poll has reported something to read, and whether it will be the last.
    pub fn handle_event(&mut self, is_ending: bool) {
        self.may_hold_more = true;
        self.is_ending |= is_ending;
    }

    /// Notes that something was read, and whether there may be more.
    pub fn handle_read(&mut self, may_hold_more: bool) {
        self.may_hold_more = may_hold_more || self.is_ending;
    }

    /// Notes that there was nothing to read.
    pub fn handle_empty(&mut self) {
        self.may_hold_more = false;
    }

    /// Returns whether the connection is to be put into the list of those that are to be read.
    pub fn enter_ready(&mut self) -> bool {
        let enters = self.may_hold_more && self.list == ReadingList::None;
        if enters {
            self.list = ReadingList::Ready;
        }
        enters
    }

    /// Notes that the connection was taken out of the list of those that are to be read. Returns whether it
    /// was there.
    pub fn leave_ready(&mut self) -> bool {
        self.leave(ReadingList::Ready)
    }

    /// Returns whether the connection is not read for now, because of back-pressure.
    pub fn is_paused(&self) -> bool {
        self.list == ReadingList::Paused
    }

    /// Notes that the connection is not to be read for now. Returns whether it is to be put into the list of
    /// those that are paused.
    pub fn enter_paused(&mut self) -> bool {
        debug_assert!(self.list != ReadingList::Ready, "a connection that is to be read was paused");
        std::mem::replace(&mut self.list, ReadingList::Paused) != ReadingList::Paused
    }

    /// Notes that the connection was taken out of the list of those that are paused. Returns whether it was
    /// there.
    pub fn leave_paused(&mut self) -> bool {
        self.leave(ReadingList::Paused)
    }

    fn leave(&mut self, list: ReadingList) -> bool {
        let was_there = self.list == list;
        if was_there {
            self.list = ReadingList::None;
        }
        was_there
    }
}

/// The stages of a connection.
pub enum ConnectionStage {
    /// The head of a request is being read.
    Head {
        /// The bytes that have come so far.
        head: HeadBuffer,
        /// Monotonic time by which the head must have come, in microseconds.
        deadline_us: u64,
        /// Monotonic time until which the connection, whose head has come, waits for a place in the control plane,
        /// in microseconds; `None` if it does not wait for one.
        place_until_us: Option<u64>,
    },
    /// A session exchanges messages with the client.
    Open(Box<Open>),
    /// The last bytes are sent, and then the connection ends.
    Closing(Closing),
    /// The connection goes to the control plane at the end of the turn.
    HandedOver {
        /// The place that the HTTP thread keeps for the connection.
        place: Reservation<Layer>,
        /// The bytes that were read from the connection already.
        read: Vec<u8>,
    },
    /// The connection is removed at the end of the turn.
    Over,
}

/// A session and its framing.
pub struct Open {
    /// Finds messages in what arrives.
    pub reader: FrameReader,
    /// The session that handles the messages.
    pub session: Session,
    /// Whether the client is still there.
    pub liveness: Liveness,
}

/// The end of a connection: what it waits for, and since when.
pub struct Closing {
    awaits: AwaitedEnd,
    since_us: u64,
    /// Monotonic time at which everything that waited was sent, in microseconds.
    sent_us: Option<u64>,
}

/// The event that a closing connection waits for, after everything was sent.
pub enum AwaitedEnd {
    /// The client's answer to the close.
    CloseAnswer(Box<FrameReader>),
    /// The end of the connection by the client, which was told that nothing more is sent.
    Disconnect,
    /// Nothing is waited for: the connection is dropped.
    Nothing,
}

impl Connection {
    /// A connection that was just accepted: the `generation`-th of its worker, from this address.
    pub fn new(
        transport: Transport,
        (generation, now_us): (u64, u64),
        admission: Admission,
        (address, address_place): (IpAddr, Option<AddressPlace>),
    ) -> Connection {
        Connection {
            transport,
            generation,
            stage: ConnectionStage::Head {
                head: HeadBuffer::default(),
                deadline_us: now_us + HANDSHAKE_US_MAX,
                place_until_us: None,
            },
            out: Outbound::default(),
            admission,
            address,
            address_place,
            held: 0,
            intake: Intake::default(),
            lane: Lane::default(),
            is_writable: true,
            turning: Listed::default(),
            touched: Listed::default(),
            armed_us: u64::MAX,
        }
    }

    /// Monotonic time at which the next timeout of the connection is due, in microseconds.
    pub fn next_us(&self) -> Option<u64> {
        match &self.stage {
            // A place is tried for again as soon as a timer may be due.
            ConnectionStage::Head { place_until_us: Some(_), .. } => Some(0),
            ConnectionStage::Head { deadline_us, .. } => Some(*deadline_us),
            ConnectionStage::Open(open) => match (open.liveness.next_us(), open.session.next_timeout_us()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            ConnectionStage::Closing(closing) => Some(closing.deadline_us()),
            ConnectionStage::HandedOver { .. } | ConnectionStage::Over => None,
        }
    }

    /// Notes whether the bytes that came last brought nothing that anybody waits for.
    pub fn set_petty(&mut self, is_petty: bool) {
        self.lane = if is_petty { Lane::Petty } else { Lane::Messages };
    }

    /// Returns how many bytes may be read from the connection at once. Of a request that is no session yet, no
    /// more is read than its head may have; the rest waits in the socket until someone can handle it. Of a subscriber,
    /// few requests at a time are read.
    pub fn read_bytes_max(&self) -> usize {
        match &self.stage {
            ConnectionStage::Open(open) if open.session.endpoint() == Endpoint::Subscribe => {
                SUBSCRIBER_READ_BYTES
            }
            ConnectionStage::Head { head, .. } => head.room_bytes().max(1),
            _ => usize::MAX,
        }
    }

    /// Returns what the connection makes its node hold.
    pub fn holdings(&self) -> Holdings {
        let mut holdings = match &self.stage {
            ConnectionStage::Open(open) => {
                Holdings { frames: open.reader.held_bytes(), ..open.session.holdings() }
            }
            ConnectionStage::Head { head, .. } => {
                Holdings { frames: head.held_bytes(), ..Holdings::default() }
            }
            ConnectionStage::Closing(closing) => {
                Holdings { frames: closing.held_bytes(), ..Holdings::default() }
            }
            ConnectionStage::HandedOver { .. } | ConnectionStage::Over => Holdings::default(),
        };
        holdings.frames += self.transport.received_bytes();
        holdings.unsent += self.out.held_bytes() + self.transport.unsent_bytes();
        holdings
    }

    /// The session with its framing, if there is one.
    pub fn open(&mut self) -> Option<&mut Open> {
        match &mut self.stage {
            ConnectionStage::Open(open) => Some(open),
            _ => None,
        }
    }

    /// Returns whether the connection only waits to be taken out of the table.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, ConnectionStage::HandedOver { .. } | ConnectionStage::Over)
    }

    /// Returns whether a stop of the node need not wait for the connection: its request has not come, or was
    /// answered without a session.
    pub fn is_settled(&self) -> bool {
        match &self.stage {
            ConnectionStage::Head { .. } => true,
            ConnectionStage::Closing(closing) => {
                self.out.is_empty() && !matches!(closing.awaits, AwaitedEnd::CloseAnswer(_))
            }
            ConnectionStage::Open(_) | ConnectionStage::HandedOver { .. } | ConnectionStage::Over => false,
        }
    }

    /// Tells the client that its connection is closed, behind the bytes that wait or, if the code drops them,
    /// instead of them. Returns the session, which the caller must end. If no session is open, does nothing
    /// and returns `None`.
    pub fn close(&mut self, close: &CloseReason, now_us: u64) -> Option<Session> {
        let open = match std::mem::replace(&mut self.stage, ConnectionStage::Over) {
            ConnectionStage::Open(open) => open,
            other => {
                self.stage = other;
                return None;
            }
        };
        let Open { mut reader, session, .. } = *open;
        if close.code.drops_unsent() {
            self.out.drop_unsent_frames();
        }
        reader.close(close, &mut self.out);
        let awaits = match close.code.awaits_answer() && reader.is_close_answered() {
            true => AwaitedEnd::CloseAnswer(Box::new(reader)),
            false => AwaitedEnd::Disconnect,
        };
        self.stage = ConnectionStage::Closing(Closing::new(awaits, now_us));
        Some(session)
    }

    /// Ends the connection once everything that waits is sent and `awaits` has come. Returns the session, if
    /// there was one.
    pub fn finish(&mut self, awaits: AwaitedEnd, now_us: u64) -> Option<Session> {
        let closing = ConnectionStage::Closing(Closing::new(awaits, now_us));
        match std::mem::replace(&mut self.stage, closing) {
            ConnectionStage::Open(open) => Some(open.session),
            _ => None,
        }
    }

    /// Notes that everything that waited was sent. Returns whether the connection is over.
    pub fn handle_flushed(&mut self, now_us: u64) -> bool {
        let ConnectionStage::Closing(closing) = &mut self.stage else { return false };
        if matches!(closing.awaits, AwaitedEnd::Nothing) {
            return true;
        }
        if closing.sent_us.is_none() {
            closing.sent_us = Some(now_us);
            if matches!(closing.awaits, AwaitedEnd::Disconnect) {
                // The client sees the end; what it still sends is read until it ends, too.
                let _: io::Result<()> = self.transport.end_writing();
            }
        }
        false
    }
}

impl Closing {
    fn new(awaits: AwaitedEnd, since_us: u64) -> Closing {
        Closing { awaits, since_us, sent_us: None }
    }

    /// Monotonic time at which the connection is dropped, whatever is missing, in microseconds.
    pub fn deadline_us(&self) -> u64 {
        match self.sent_us {
            Some(sent_us) => sent_us + CLOSE_ANSWER_US_MAX,
            None => self.since_us + CLOSE_FLUSH_US_MAX,
        }
    }

    /// Returns how many bytes are held of messages that have not come in full.
    fn held_bytes(&self) -> usize {
        match &self.awaits {
            AwaitedEnd::CloseAnswer(reader) => reader.held_bytes(),
            AwaitedEnd::Disconnect | AwaitedEnd::Nothing => 0,
        }
    }

    /// The reader of what arrives until the client has answered the close, if its answer is waited for.
    pub fn reader(&mut self) -> Option<&mut FrameReader> {
        match &mut self.awaits {
            AwaitedEnd::CloseAnswer(reader) => Some(reader),
            AwaitedEnd::Disconnect | AwaitedEnd::Nothing => None,
        }
    }

    /// Notes that the client has answered the close, or will not: nothing is waited for any longer.
    pub fn handle_answered(&mut self) {
        self.awaits = AwaitedEnd::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_once_and_never_both_ready_and_paused() {
        let mut intake = Intake::default();
        assert!(!intake.enter_ready(), "nothing is there");
        intake.handle_event(false);
        assert!(intake.enter_ready() && !intake.enter_ready());
        assert!(intake.leave_ready() && !intake.leave_ready());
        assert!(intake.enter_paused() && !intake.enter_paused());
        assert!(!intake.enter_ready(), "paused");
        assert!(intake.leave_paused() && !intake.leave_paused());
        assert!(intake.enter_ready(), "what came is still there");
    }

    #[test]
    fn a_connection_that_ends_is_read_to_its_end() {
        let mut intake = Intake::default();
        intake.handle_event(false);
        intake.handle_read(false);
        assert!(!intake.enter_ready(), "emptied");
        intake.handle_event(true);
        intake.handle_read(false);
        assert!(intake.enter_ready(), "the end itself is still to be read");
        assert!(intake.leave_ready());
        intake.handle_empty();
        assert!(!intake.enter_ready());
    }
}
