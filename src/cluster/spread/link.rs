//! The link to one peer: numbers, receipts, round trip, window.
//!
//! Every part handed to a peer has a number, the same at every try. The peer answers with the set of
//! numbers it took into custody, in packets that carry parts or in packets of their own. A number that is
//! withdrawn (its part went to somebody else) sinks below the floor, which every packet tells, so that the
//! set stays contiguous. Rejected: a new number for every try, as in QUIC, since a receipt that was
//! lost would then make the data come twice.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::answers::Answers;
use super::lateness::Lateness;
use super::rtt::Rtt;
use super::silence::Silence;
use super::unsettled::{Unsettled, UnsettledPart};
use super::window::Window;

/// Most wants and lacks that wait for one link.
const NOTES_MAX: usize = 32;
/// Stands for no line: a want of it asks for a sign of life, and is answered by a lack of it.
pub(super) const NO_LINE: u64 = 0;

/// A want, or the answer to a want that cannot be filled: a lack.
#[derive(Debug)]
pub(super) struct Note {
    /// Whether it is a want.
    pub is_want: bool,
    /// Hash of the line, or [`NO_LINE`].
    pub line: u64,
    /// First and last number of each range.
    pub ranges: Vec<(u64, u64)>,
}

/// One life of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLife {
    /// The peer's address.
    pub address: SocketAddr,
    /// The peer's boot number, which tells this life from others.
    pub boot: u64,
}

/// A part by the link that it travels on and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartId {
    /// The link's number.
    pub link: usize,
    /// The part's number on that link, counted by the side that sends it.
    pub number: u64,
}

/// What a node keeps of one peer that it talks to, by address.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer's address.
    pub to: SocketAddr,
    /// The peer's boot number as it was heard last; 0: it was never heard.
    pub boot: u64,
    /// Whether the peer's receipts are late rather than lost.
    pub lateness: Lateness,
    /// Whether the peer counts as silent, and when it was heard.
    pub silence: Silence,
    /// When the link was last used at all, in microseconds.
    pub used_us: u64,
    /// The peer's zone, if it is not this node's.
    pub zone: Option<Arc<str>>,
    /// The round trip, once measured.
    pub rtt: Option<Rtt>,
    /// What the peer is to be told of its parts.
    pub answers: Answers,
    /// Whether the link stands in the list of those with something to send.
    pub is_ready: bool,
    next_number: u64,
    unsettled: Unsettled,
    /// Numbers that wait to be sent. They are those unsettled ones whose `due_us` is 0.
    queue: VecDeque<u64>,
    /// Bytes of the parts that wait to be sent.
    queued_bytes: usize,
    /// Wants and lacks that wait to be sent.
    notes: VecDeque<Note>,
    window: Window,
}

impl Link {
    /// Reads some of each part of its memory, for the sake of having it in the cache.
    pub fn warm(&self) -> u64 {
        let numbers = self.next_number ^ self.unsettled.first().unwrap_or(0) ^ self.used_us;
        let sizes = self.queued_bytes ^ self.queue.len() ^ self.notes.len();
        numbers ^ sizes as u64 ^ self.silence.warm() ^ self.window.warm() ^ self.answers.warm()
    }

    /// A link that has not been used, whose numbers start at `first_number`. Its peer is assumed to be as
    /// late as `lateness` says of the others.
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
            is_ready: false,
            next_number: first_number,
            unsettled: Unsettled::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            notes: VecDeque::new(),
            window: Window::default(),
        }
    }

    /// The life of the peer that was heard last.
    pub fn peer(&self) -> PeerLife {
        PeerLife { address: self.to, boot: self.boot }
    }

    /// Whether nothing waits in either direction.
    pub fn is_idle(&self) -> bool {
        self.unsettled.is_empty() && self.notes.is_empty() && self.answers.is_idle()
    }

    /// The number that the next part gets.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The least number that is not settled: all smaller ones are.
    pub fn floor(&self) -> u64 {
        self.unsettled.first().unwrap_or(self.next_number)
    }

    /// What was handed to the peer and is not settled.
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
        self.queued_bytes += sent.bytes;
        self.unsettled.push(number, sent);
        number
    }

    /// Queues a further try, before what was never sent. `ask`: it only asks whether the part is there.
    pub fn push_again(&mut self, number: u64, ask: bool) {
        self.land(number);
        let Some(sent) = self.unsettled.get_mut(number) else { return };
        debug_assert!(sent.due_us != 0, "number {number} is queued already");
        sent.ask = ask;
        sent.due_us = 0;
        self.queued_bytes += sent.bytes;
        self.queue.push_front(number);
    }

    /// Keeps a part that was lost until there is budget for a further try.
    pub fn wait(&mut self, number: u64, due_us: u64) {
        self.land(number);
        if let Some(sent) = self.unsettled.get_mut(number) {
            sent.due_us = due_us;
        }
    }

    /// The peer is pulling what a part announced: it was heard, and gets time until `due_us`.
    pub fn postpone_pulled(&mut self, number: u64, now_us: u64, due_us: u64) {
        self.land(number);
        if let Some(sent) = self.unsettled.get_mut(number) {
            (sent.tries, sent.first_us, sent.due_us) = (1, now_us, due_us);
        }
    }

    /// Settles a number; returns what it was.
    pub fn settle(&mut self, number: u64) -> Option<UnsettledPart> {
        self.land(number);
        let sent = self.unsettled.remove(number)?;
        if sent.due_us == 0
            && let Some(at) = self.queue.iter().position(|queued| *queued == number)
        {
            self.queue.remove(at);
            self.unqueue(sent.bytes);
        }
        Some(sent)
    }

    /// Bytes of the parts that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The number that is to be sent next.
    pub fn next_queued(&self) -> Option<u64> {
        self.queue.front().copied()
    }

    /// Takes the first number off the queue.
    pub fn pop(&mut self) -> Option<u64> {
        let number = self.queue.pop_front()?;
        let bytes = self.unsettled.get(number).map_or(0, |sent| sent.bytes);
        self.unqueue(bytes);
        Some(number)
    }

    /// Bytes that waited do so no longer.
    fn unqueue(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.queued_bytes, "{bytes} of {} bytes wait", self.queued_bytes);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        debug_assert!(!self.queue.is_empty() || self.queued_bytes == 0, "{} bytes", self.queued_bytes);
    }

    /// Notes that `bytes` of a part went out just now, and are to be looked after at `due_us`.
    pub fn fly(&mut self, now_us: u64, number: u64, bytes: usize, due_us: u64) {
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
        sent.flying = bytes;
        self.used_us = now_us;
        self.window.fly(now_us, bytes, self.rtt);
    }

    /// No longer counts a part as in flight.
    fn land(&mut self, number: u64) {
        if let Some(sent) = self.unsettled.get_mut(number) {
            self.window.land(std::mem::take(&mut sent.flying));
        }
    }

    /// The congestion window and the pace.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The congestion window and the pace, to be changed.
    pub fn window_mut(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Notes that the peer was heard, in the life of this boot number.
    pub fn hear(&mut self, now_us: u64, boot: u64) {
        if self.boot != boot {
            self.boot = boot;
            self.answers.forget();
        }
        self.used_us = now_us;
        self.silence.hear(now_us);
    }

    /// Has a want or a lack sent; `false`: too many wait.
    pub fn push_note(&mut self, note: Note) -> bool {
        let fits = self.notes.len() < NOTES_MAX;
        if fits {
            self.notes.push_back(note);
        }
        fits
    }

    /// Whether a sign of life was asked for, and the question waits to be sent.
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
