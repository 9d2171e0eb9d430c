//! The link to one peer: numbers, receipts, round trip, window.
//!
//! Everything handed to a peer has a number, the same at every try. The peer answers with the set
//! of numbers it took into custody, on what flows back or on its own. A number that is withdrawn
//! (its part went to somebody else) sinks below the floor, which every packet tells, so that the
//! set stays contiguous. Rejected: a new number for every try, as in QUIC, since a receipt that was
//! lost would then make the data come twice.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::lateness::Lateness;
use super::seqs::SeqSet;
use super::tally::Tally;
use super::unsettled::{Sent, Unsettled};
use crate::limits::DATAGRAM_BYTES_MAX;

/// Least congestion window, in bytes: a handful of full datagrams.
const WINDOW_BYTES_MIN: usize = 8 * 1024;
/// Window of a new link, in bytes.
const WINDOW_BYTES_START: usize = 32 * 1024;
/// Greatest window, in bytes: 100 MB/s at a round trip of 10 ms.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// Least allowance for a late receipt over the smoothed round trip: what a receipt may wait for
/// company, in microseconds.
const RTO_MARGIN_US: u64 = 1_000;
/// The same for a peer that is busy, in microseconds: its machine may give it its turn that late.
const PATIENCE_MARGIN_US: u64 = 4_000;
/// Longest timeout, in microseconds.
const RTO_US_MAX: u64 = 1_000_000;
/// How far ahead of its pace a link may send, in microseconds of that pace.
const PACE_BURST_US: u64 = 2_000;
/// Most answers about single parts that wait for a receipt.
const ANSWERS_MAX: usize = 64;
/// Most tallies that wait for receipts. The peer asks again for those that are dropped.
const TALLIES_MAX: usize = 1_024;
/// In how many receipts a tally stands, the first of which is sent for its sake.
const TALLY_TELLINGS: u8 = 2;

/// A smoothed round trip, as in RFC 6298.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    smooth_us: u64,
    var_us: u64,
}

impl Rtt {
    /// After a first sample.
    pub fn new(sample_us: u64) -> Rtt {
        Rtt { smooth_us: sample_us, var_us: sample_us / 2 }
    }

    /// After a first sample on a link, where others vary as `typical` does: a link of the same kind
    /// is taken to vary as much.
    pub fn like(typical: Rtt, sample_us: u64) -> Rtt {
        if sample_us / 2 > typical.smooth_us || sample_us < typical.smooth_us / 2 {
            return Rtt::new(sample_us);
        }
        let mut rtt = typical;
        rtt.sample(sample_us);
        rtt
    }

    /// Takes one more sample.
    pub fn sample(&mut self, us: u64) {
        self.var_us = (3 * self.var_us + self.smooth_us.abs_diff(us)) / 4;
        self.smooth_us = (7 * self.smooth_us + us) / 8;
    }

    /// The smoothed round trip, in microseconds.
    pub fn smooth_us(self) -> u64 {
        self.smooth_us
    }

    /// How long to wait before asking whether something came: sooner than before sending it again,
    /// since a question that was needless costs little.
    pub fn ask_us(self) -> u64 {
        self.smooth_us + (2 * self.var_us).max(RTO_MARGIN_US / 2)
    }

    /// How long to wait for the receipt of a peer that is busy and not out of reach.
    pub fn patient_us(self) -> u64 {
        (self.smooth_us + (4 * self.var_us).max(PATIENCE_MARGIN_US)).min(RTO_US_MAX)
    }

    /// How long to wait for a receipt after `tries` tries: no backoff for the first four, then half
    /// as much again each time.
    pub fn timeout_us(self, tries: u32) -> u64 {
        let base = self.smooth_us + (4 * self.var_us).max(RTO_MARGIN_US);
        let mut timeout = base;
        for _ in 4..tries.min(32) {
            timeout = (timeout + timeout / 2).min(RTO_US_MAX);
        }
        timeout.clamp(RTO_MARGIN_US, RTO_US_MAX)
    }
}

/// A want, or an answer to one that cannot be filled.
#[derive(Debug)]
pub(super) struct Note {
    /// Whether it is a want.
    pub is_want: bool,
    /// Hash of the line.
    pub line: u64,
    /// First and last number of each range.
    pub ranges: Vec<(u64, u64)>,
}

/// One peer, by address.
#[derive(Debug)]
pub(super) struct Link {
    /// Its address.
    pub to: SocketAddr,
    /// Which life of it was heard last; 0: none.
    pub boot: u64,
    /// When it was last heard, in microseconds; 0: never.
    pub heard_us: u64,
    /// Until when it counts as silent lately.
    pub silent_until_us: u64,
    /// Whether its receipts are late rather than lost.
    pub lateness: Lateness,
    /// Since when nothing came back, as timeouts tell; 0: it answers.
    pub silent_since_us: u64,
    /// Timeouts in a row in which nothing was heard of it.
    pub unheard: u32,
    /// When it was last used at all.
    pub used_us: u64,
    /// Its zone, if that is another one.
    pub zone: Option<Arc<str>>,
    /// Its round trip, once measured.
    pub rtt: Option<Rtt>,

    next_number: u64,
    /// By number: what is not settled.
    pub sent: Unsettled,
    /// Numbers that wait to be sent.
    pub queue: VecDeque<u64>,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Whether the link stands in the list of those with something to send.
    pub is_ready: bool,
    /// Wants and lacks that wait to be sent.
    pub notes: VecDeque<Note>,
    flying_bytes: usize,
    window_bytes: usize,
    threshold_bytes: usize,
    recovered_us: u64,
    paced_us: u64,

    /// Numbers taken from the peer.
    pub taken: SeqSet,
    /// When a receipt must go at the latest; 0: none is due.
    pub receipt_us: u64,
    /// Whether the next receipt is to be followed by another: it is for a part that was passed on.
    pub repeats_receipt: bool,
    /// When the last receipt went.
    pub receipt_sent_us: u64,
    /// Parts the peer asked about that are not here.
    pub wanted: Vec<u64>,
    /// Parts of the peer whose bodies are being pulled, to be told in the coming receipts.
    pub pulling: VecDeque<u64>,
    /// Members the peer spoke of that are not known here, by number of the part.
    pub unserved: VecDeque<(u64, u64)>,
    /// Tallies the peer is to be told, by number of the part, and in how many receipts yet.
    pub tallies: VecDeque<(u64, Tally, u8)>,
}

impl Link {
    /// Reads some of every part of it.
    pub fn warm(&self) -> u64 {
        let times = self.heard_us ^ self.receipt_us ^ self.paced_us ^ self.silent_since_us ^ self.used_us;
        let numbers = self.next_number ^ self.taken.head() ^ self.sent.first().unwrap_or(0);
        let sizes =
            self.window_bytes ^ self.queued_bytes ^ self.queue.len() ^ self.notes.len() ^ self.wanted.len();
        let others =
            self.pulling.len() ^ self.unserved.len() ^ self.tallies.len() ^ self.taken.islands().len();
        times ^ numbers ^ (sizes ^ others) as u64
    }

    /// A link that has not been used; its numbers start at `first_number`. Of its lateness is assumed
    /// what is known of others.
    pub fn new(to: SocketAddr, first_number: u64, lateness: Lateness) -> Link {
        Link {
            to,
            boot: 0,
            heard_us: 0,
            silent_until_us: 0,
            lateness,
            silent_since_us: 0,
            unheard: 0,
            used_us: 0,
            zone: None,
            rtt: None,
            next_number: first_number,
            sent: Unsettled::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            is_ready: false,
            notes: VecDeque::new(),
            flying_bytes: 0,
            window_bytes: WINDOW_BYTES_START,
            threshold_bytes: WINDOW_BYTES_MAX,
            recovered_us: 0,
            paced_us: 0,
            taken: SeqSet::default(),
            receipt_us: 0,
            repeats_receipt: false,
            receipt_sent_us: 0,
            wanted: Vec::new(),
            pulling: VecDeque::new(),
            unserved: VecDeque::new(),
            tallies: VecDeque::new(),
        }
    }

    /// Whether nothing waits in either direction.
    pub fn is_idle(&self) -> bool {
        self.sent.is_empty() && self.notes.is_empty() && self.receipt_us == 0
    }

    /// The number the next thing gets.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// All smaller numbers are settled.
    pub fn floor(&self) -> u64 {
        self.sent.first().unwrap_or(self.next_number)
    }

    /// Queues something new; returns its number.
    pub fn push(&mut self, duty: usize, fragment: u32, bytes: usize, ask: bool) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.sent.push(number, Sent::new(duty, fragment, bytes, ask));
        self.queue.push_back(number);
        self.queued_bytes += bytes;
        number
    }

    /// Queues a further try, before what was never sent.
    pub fn push_again(&mut self, number: u64, ask: bool) {
        self.land(number);
        let Some(sent) = self.sent.get_mut(number) else { return };
        sent.ask = ask;
        sent.due_us = 0;
        self.queued_bytes += sent.bytes;
        self.queue.push_front(number);
    }

    /// Keeps something that was lost until there is budget for a further try.
    pub fn wait(&mut self, number: u64, due_us: u64) {
        self.land(number);
        if let Some(sent) = self.sent.get_mut(number) {
            sent.due_us = due_us;
        }
    }

    /// The peer is pulling what a part announced: it was heard, and gets time until `due_us`.
    pub fn pulls(&mut self, number: u64, now_us: u64, due_us: u64) {
        self.land(number);
        if let Some(sent) = self.sent.get_mut(number) {
            (sent.tries, sent.first_us, sent.due_us) = (1, now_us, due_us);
        }
    }

    /// Settles a number; returns what it was.
    pub fn settle(&mut self, number: u64) -> Option<Sent> {
        self.land(number);
        let sent = self.sent.remove(number)?;
        if sent.due_us == 0
            && let Some(at) = self.queue.iter().position(|queued| *queued == number)
        {
            self.queue.remove(at);
            self.queued_bytes = self.queued_bytes.saturating_sub(sent.bytes);
        }
        Some(sent)
    }

    /// Takes the first number off the queue.
    pub fn pop(&mut self) -> Option<u64> {
        let number = self.queue.pop_front()?;
        let bytes = self.sent.get(number).map_or(0, |sent| sent.bytes);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        Some(number)
    }

    /// Notes that `bytes` of it went out just now.
    pub fn fly(&mut self, now_us: u64, number: u64, bytes: usize, due_us: u64) {
        let Some(sent) = self.sent.get_mut(number) else { return };
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
        self.flying_bytes += bytes;
        self.used_us = now_us;
        let window_us = self.rtt.map_or(1_000, |rtt| rtt.smooth_us().max(100));
        let pace_us = bytes as u64 * window_us * 4 / (5 * self.window_bytes as u64);
        self.paced_us = self.paced_us.max(now_us) + pace_us;
    }

    /// No longer counts it as in flight.
    fn land(&mut self, number: u64) {
        if let Some(sent) = self.sent.get_mut(number) {
            self.flying_bytes = self.flying_bytes.saturating_sub(sent.flying);
            sent.flying = 0;
        }
    }

    /// Whether the window takes something more.
    pub fn has_window(&self) -> bool {
        self.flying_bytes == 0 || self.flying_bytes < self.window_bytes
    }

    /// When the pace allows the next packet, if not at once.
    pub fn paced_until_us(&self, now_us: u64) -> Option<u64> {
        (self.paced_us > now_us + PACE_BURST_US).then(|| self.paced_us - PACE_BURST_US)
    }

    /// The peer took `bytes`: the window opens, where it was in use.
    pub fn on_receipt(&mut self, bytes: usize) {
        if self.flying_bytes + bytes < self.window_bytes / 2 {
            return;
        }
        let more = match self.window_bytes < self.threshold_bytes {
            true => bytes,
            false => bytes * DATAGRAM_BYTES_MAX / self.window_bytes,
        };
        self.window_bytes = (self.window_bytes + more).min(WINDOW_BYTES_MAX);
    }

    /// Something was lost: the window closes a little, at most once a round trip.
    pub fn on_loss(&mut self, now_us: u64, rtt: Rtt) {
        if now_us < self.recovered_us {
            return;
        }
        self.recovered_us = now_us + rtt.smooth_us();
        self.window_bytes = (self.window_bytes * 7 / 10).max(WINDOW_BYTES_MIN);
        self.threshold_bytes = self.window_bytes;
    }

    /// Notes that the peer, in this life of it, was heard.
    pub fn hear(&mut self, now_us: u64, boot: u64) {
        if self.boot != boot {
            self.boot = boot;
            self.taken = SeqSet::default();
            self.wanted.clear();
            self.pulling.clear();
            self.unserved.clear();
            self.tallies.clear();
        }
        self.heard_us = now_us.max(1);
        self.used_us = now_us;
        self.silent_until_us = 0;
        self.silent_since_us = 0;
        self.unheard = 0;
    }

    /// The peer will not ask for numbers below `floor` any more.
    pub fn raise_floor(&mut self, floor: u64) {
        self.taken.raise(floor.saturating_sub(1));
        self.unserved.retain(|answer| answer.0 >= floor);
    }

    /// Keeps an answer for the coming receipts.
    pub fn answer_unserved(&mut self, number: u64, member: u64) {
        if self.unserved.len() < ANSWERS_MAX && !self.unserved.contains(&(number, member)) {
            self.unserved.push_back((number, member));
        }
    }

    /// Keeps the answer that a body is being pulled for the coming receipts.
    pub fn answer_pulling(&mut self, number: u64) {
        if self.pulling.len() < ANSWERS_MAX && !self.pulling.contains(&number) {
            self.pulling.push_back(number);
        }
    }

    /// Keeps a part's tally for the coming receipts.
    pub fn answer_tally(&mut self, number: u64, tally: Tally) {
        self.tallies.retain(|known| known.0 != number);
        if self.tallies.len() < TALLIES_MAX {
            self.tallies.push_back((number, tally, TALLY_TELLINGS));
        }
    }

    /// A receipt with the first `count` of the tallies goes. Whether there are some that were never told.
    pub fn tell_tallies(&mut self, count: usize) -> bool {
        for _ in 0..count.min(self.tallies.len()) {
            if let Some((number, tally, tellings)) = self.tallies.pop_front()
                && tellings > 1
            {
                self.tallies.push_back((number, tally, tellings - 1));
            }
        }
        self.tallies.front().is_some_and(|first| first.2 == TALLY_TELLINGS)
    }

    /// Keeps a question's answer for the coming receipt.
    pub fn answer_wanted(&mut self, number: u64) {
        if self.wanted.len() < ANSWERS_MAX && !self.wanted.contains(&number) {
            self.wanted.push(number);
        }
    }
}
