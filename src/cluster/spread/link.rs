//! The link to one peer: numbers, receipts, round trip, window.
//!
//! Every part that is handed to a peer has a number, the same at every try. The peer answers with receipts,
//! which contain the set of numbers that it took, in packets with parts of its own or in separate ones. The
//! floor, which every packet contains, is the least number that is not settled: so a number that was
//! withdrawn, because its part went to another member, leaves no hole in that set for long. Rejected: a new
//! number for every try, as in QUIC, since data would then come twice if only a receipt was lost.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::answers::{Answers, RECEIPT_DELAY_US};
use super::dues::Dues;
use super::lateness::Lateness;
use super::path::PathSize;
use super::rtt::Rtt;
use super::seqs::SeqRange;
use super::silence::Silence;
use super::unsettled::{Unsettled, UnsettledPart};
use super::window::Window;

/// Most wants and lacks that wait for one link.
const NOTES_MAX: usize = 32;
/// The hash that stands for no line. A want of it asks for a sign of life, and is answered with a lack of it.
pub(super) const NO_LINE: u64 = 0;

/// A want, or the answer to a want that cannot be filled: a lack.
#[derive(Debug)]
pub(super) struct Note {
    /// Whether the note is a want rather than a lack.
    pub is_want: bool,
    /// Hash of the line, or [`NO_LINE`].
    pub line: u64,
    /// Ranges of sequence numbers in the line.
    pub ranges: Vec<SeqRange>,
}

/// One life of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLife {
    /// The peer's address.
    pub address: SocketAddr,
    /// The peer's boot number, which distinguishes this life from others.
    pub boot: u64,
}

/// Names a part, or one fragment of it, by its link and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartId {
    /// The link's number.
    pub link: usize,
    /// The part's number on that link, counted by the side that sends it.
    pub number: u64,
}

/// The state that a node keeps of one peer with which it exchanges packets.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer's address.
    pub to: SocketAddr,
    /// The peer's boot number as it was heard last; 0: it was never heard.
    pub boot: u64,
    /// Whether the peer's receipts are late rather than lost.
    pub lateness: Lateness,
    /// Times at which the peer was heard, and whether it counts as silent.
    pub silence: Silence,
    /// Time at which a packet was last sent or received, in microseconds.
    pub used_us: u64,
    /// The peer's zone, if it is not this node's.
    pub zone: Option<Arc<str>>,
    /// The round trip; `None` before one was measured.
    pub rtt: Option<Rtt>,
    /// Answers to the parts that the peer sent.
    pub answers: Answers,
    /// The size of the datagrams that the path to the peer carries.
    pub path: PathSize,
    /// Number of the last probe of the peer, until it is answered.
    pub carried: Option<u64>,
    /// Whether the link stands in the list of those with something to send.
    pub is_ready: bool,
    /// Number of the next part.
    next_number: u64,
    /// Parts that were handed to the peer and are not settled.
    unsettled: Unsettled,
    /// Times at which unsettled parts count as not acknowledged.
    dues: Dues,
    /// Time at which the peer's last receipt came, in microseconds.
    receipt_us: u64,
    /// Time at which a part was last sent, in microseconds.
    flown_us: u64,
    /// Numbers of the parts that wait to be sent: those unsettled ones whose `due_us` is 0.
    queue: VecDeque<u64>,
    /// Bytes of the parts that wait to be sent.
    queued_bytes: usize,
    /// Wants and lacks that wait to be sent.
    notes: VecDeque<Note>,
    /// Bounds the bytes in flight, and their pace.
    window: Window,
}

impl Link {
    /// Reads the memory of this value, so that it is in the processor's cache.
    pub fn warm(&self) -> u64 {
        let numbers = self.next_number ^ self.unsettled.first().unwrap_or(0) ^ self.used_us;
        let sizes = self.queued_bytes ^ self.queue.len() ^ self.notes.len();
        numbers ^ sizes as u64 ^ self.silence.warm() ^ self.window.warm() ^ self.answers.warm()
    }

    /// A link to the peer at `to`, whose part numbers begin at `first_number`. The peer is assumed to be as
    /// late as `lateness` says of others.
    pub fn new(to: SocketAddr, first_number: u64, lateness: Lateness) -> Link {
        Link {
            to,
            boot: 0,
            lateness,
            silence: Silence::default(),
            used_us: 0,
            zone: None,
            rtt: None,
            answers: Answers::default(),
            path: PathSize::default(),
            carried: None,
            is_ready: false,
            next_number: first_number,
            unsettled: Unsettled::default(),
            dues: Dues::default(),
            receipt_us: 0,
            flown_us: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            notes: VecDeque::new(),
            window: Window::default(),
        }
    }

    /// The peer, in the life that was heard last.
    pub fn peer(&self) -> PeerLife {
        PeerLife { address: self.to, boot: self.boot }
    }

    /// Returns whether nothing waits in either direction.
    pub fn is_idle(&self) -> bool {
        self.unsettled.is_empty() && self.notes.is_empty() && self.answers.is_idle()
    }

    /// The number that the next part gets.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The least number that is not settled.
    pub fn floor(&self) -> u64 {
        self.unsettled.first().unwrap_or(self.next_number)
    }

    /// All parts that were handed to the peer and are not settled.
    pub fn unsettled(&self) -> &Unsettled {
        &self.unsettled
    }

    /// The part of this number, if it is not settled.
    pub fn sent(&self, number: u64) -> Option<&UnsettledPart> {
        self.unsettled.get(number)
    }

    /// Queues a new part; returns its number.
    pub fn push(&mut self, sent: UnsettledPart) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push_back(number);
        self.queued_bytes += sent.bytes as usize;
        self.unsettled.push(number, sent);
        number
    }

    /// Queues a further try of a part, before parts that were never sent. `ask`: the try only asks whether
    /// the part is there.
    pub fn push_again(&mut self, number: u64, ask: bool) {
        self.land(number);
        let Some(sent) = self.unsettled.get_mut(number) else { return };
        debug_assert!(sent.due_us != 0, "number {number} is queued already");
        sent.ask = ask;
        sent.due_us = 0;
        self.queued_bytes += sent.bytes as usize;
        self.queue.push_front(number);
    }

    /// Keeps a part that was lost until `due_us`, when there may be budget for a further try.
    pub fn wait(&mut self, number: u64, due_us: u64) {
        self.land(number);
        if let Some(sent) = self.unsettled.get_mut(number) {
            sent.due_us = due_us;
            self.dues.push(&self.unsettled, due_us, number);
        }
    }

    /// Gives the peer time until `due_us` to pull the body that a part announced.
    pub fn postpone_pulled(&mut self, number: u64, now_us: u64, due_us: u64) {
        self.land(number);
        if let Some(sent) = self.unsettled.get_mut(number) {
            (sent.tries, sent.first_us, sent.due_us) = (1, now_us, due_us);
            self.dues.push(&self.unsettled, due_us, number);
        }
    }

    /// Settles a part, which is then not sent again, and returns it.
    pub fn settle(&mut self, number: u64) -> Option<UnsettledPart> {
        let sent = self.unsettled.remove(number)?;
        self.window.land(sent.flying as usize);
        if sent.due_us == 0
            && let Some(at) = self.queue.iter().position(|queued| *queued == number)
        {
            self.queue.remove(at);
            self.unqueue(sent.bytes as usize);
        }
        Some(sent)
    }

    /// Bytes of the parts that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Number of the part that is to be sent next.
    pub fn next_queued(&self) -> Option<u64> {
        self.queue.front().copied()
    }

    /// Returns for when the timer of the link's parts must be set, in microseconds; it counts as set from now
    /// on. `None`: it need not be set.
    pub fn arm(&mut self) -> Option<u64> {
        self.dues.arm(&self.unsettled)
    }

    /// Notes that the timer of the link's parts that was set for `at_us` has passed, or was dropped.
    pub fn disarm(&mut self, at_us: u64) {
        self.dues.disarm(at_us);
    }

    /// Returns whether the timer of the link's parts is set for `at_us`, and a part is due then.
    pub fn is_armed(&mut self, at_us: u64) -> bool {
        self.dues.is_armed(&self.unsettled, at_us)
    }

    /// Takes the first part that was not acknowledged by `at_us`, in microseconds; returns its number, and the
    /// time at which it was due.
    pub fn pop_due(&mut self, at_us: u64) -> Option<(u64, u64)> {
        self.dues.pop_due(&self.unsettled, at_us)
    }

    /// Gives memory back that is not in use.
    pub fn tidy(&mut self) {
        self.dues.tidy(&self.unsettled);
        self.unsettled.tidy();
    }

    /// Takes the first part off the queue; returns its number.
    pub fn pop(&mut self) -> Option<u64> {
        let number = self.queue.pop_front()?;
        let bytes = self.unsettled.get(number).map_or(0, |sent| sent.bytes);
        self.unqueue(bytes as usize);
        Some(number)
    }

    /// Takes off the bytes of a part that no longer waits.
    fn unqueue(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.queued_bytes, "{bytes} of {} bytes wait", self.queued_bytes);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        debug_assert!(!self.queue.is_empty() || self.queued_bytes == 0, "{} bytes", self.queued_bytes);
    }

    /// Takes the first part off the queue: it was sent just now in `bytes` bytes, and is to be checked at
    /// `due_us`. `is_large`: with the part the datagram is larger than every path carries.
    pub fn fly(&mut self, now_us: u64, bytes: usize, due_us: u64, is_large: bool) {
        let Some(number) = self.queue.pop_front() else { return };
        let Some(sent) = self.unsettled.get_mut(number) else { return };
        debug_assert!(sent.flying == 0 && due_us != 0, "number {number} is in flight already");
        sent.tries += 1;
        if !sent.ask {
            sent.copies += 1;
            sent.copied_us = now_us;
        }
        sent.last_us = now_us;
        sent.due_us = due_us;
        if sent.first_us == 0 {
            sent.first_us = now_us;
        }
        sent.flying = bytes as u32;
        sent.is_large = is_large;
        let queued_bytes = sent.bytes as usize;
        self.dues.push(&self.unsettled, due_us, number);
        self.unqueue(queued_bytes);
        self.used_us = now_us;
        self.flown_us = now_us;
        self.window.fly(now_us, bytes, self.rtt);
    }

    /// Notes that a receipt of the peer came.
    pub fn note_receipt(&mut self, now_us: u64) {
        self.receipt_us = now_us;
    }

    /// Longest time for which the peer may keep back the receipt for a part that is sent now, in microseconds,
    /// at a round trip of `rtt_us`. A peer that has sent no receipt lately answers at once; else it waits for
    /// more to acknowledge.
    pub fn receipt_delay_us(&self, now_us: u64, rtt_us: u64) -> u64 {
        let flown_us = if self.window.is_in_use() { self.flown_us + rtt_us } else { 0 };
        (self.receipt_us.max(flown_us) + RECEIPT_DELAY_US).saturating_sub(now_us + rtt_us)
    }

    /// No longer counts a part as in flight.
    fn land(&mut self, number: u64) {
        if let Some(sent) = self.unsettled.get_mut(number) {
            self.window.land(std::mem::take(&mut sent.flying) as usize);
        }
    }

    /// The window, which bounds the bytes in flight, and their pace.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The window, to be changed.
    pub fn window_mut(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Notes that the peer was heard, with this boot number.
    pub fn hear(&mut self, now_us: u64, boot: u64) {
        if self.boot != boot {
            self.boot = boot;
            self.answers.forget();
            self.path.restart();
        }
        self.used_us = now_us;
        self.silence.hear(now_us);
    }

    /// Queues a want or a lack; `false`: too many wait.
    pub fn push_note(&mut self, note: Note) -> bool {
        let fits = self.notes.len() < NOTES_MAX;
        if fits {
            self.notes.push_back(note);
        }
        fits
    }

    /// Returns whether the question for a sign of life waits to be sent.
    pub fn asks_sign_of_life(&self) -> bool {
        self.notes.iter().any(|note| note.is_want && note.line == NO_LINE)
    }

    /// The want or lack that is to be sent next.
    pub fn next_note(&self) -> Option<&Note> {
        self.notes.front()
    }

    /// Takes the first want or lack off its queue.
    pub fn pop_note(&mut self) {
        self.notes.pop_front();
    }
}
