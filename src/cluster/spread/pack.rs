//! Fills datagrams: whatever waits for one peer goes in one packet, up to what a datagram takes.
//!
//! The driver calls `poll_send` at the end of its turn, so an idle node sends at once and a busy
//! one fills its packets without a timer.

use std::net::SocketAddr;

use prost::Message;

use super::Spread;
use super::duty::Task;
use super::receive::life;
use super::seqs::to_runs;
use super::timers::Timer;
use super::tree::WITHOUT_MAX;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::proto::gossip as proto;

/// Most bytes of one encoded `Spread`: a datagram less its fixed header and what wraps the message.
pub const SPREAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 64;
/// Most bytes of a part's header but zone and `without`, and of what stands around one part that is
/// alone in its packet: the sum of all tags, longest varints and fixed fields.
pub(super) const PART_HEADER_BYTES: usize = 113;
/// Longest name of a zone taken from a peer, in bytes.
pub(super) const ZONE_BYTES_MAX: usize = 255;
/// Most runs of taken numbers told in one receipt, the latest.
const RECEIPT_RUNS_MAX: usize = 48;
/// Bytes kept free for parts in a packet that has a receipt.
const RECEIPT_BYTES_MAX: usize = 600;

/// The receipt for a part that was passed on goes twice, so long apart, in microseconds: were it lost,
/// a whole subtree might get its data again. Few parts are passed on, so this costs little.
const RECEIPT_REPEAT_US: u64 = 500;

const _: () = assert!(PART_HEADER_BYTES + ZONE_BYTES_MAX + 8 * WITHOUT_MAX + 256 < SPREAD_BYTES_MAX);
const _: () = assert!(RECEIPT_RUNS_MAX * 6 + 64 < RECEIPT_BYTES_MAX);

/// How many bytes of a batch fit into a packet beside the part's header.
pub(super) fn batch_room(part: &Task) -> usize {
    let zone = part.zone.len().min(ZONE_BYTES_MAX);
    SPREAD_BYTES_MAX - PART_HEADER_BYTES - zone - 8 * part.without.len().min(WITHOUT_MAX)
}

impl Spread {
    /// The next message to send, and to whom. Call it until it gives nothing.
    pub fn poll_send(&mut self) -> Option<(SocketAddr, crate::proto::gossip::Spread)> {
        while let Some(id) = self.ready.pop_front() {
            let Some(link) = self.links.get_mut(id) else { continue };
            link.is_ready = false;
            let (to, paced) = (link.to, link.paced_until_us(self.now_us));
            let may_send_parts = match paced {
                Some(at_us) if !link.queue.is_empty() => {
                    self.timers.push(at_us, Timer::Pace { link: id });
                    false
                }
                _ => true,
            };
            if let Some(message) = self.fill(id, may_send_parts) {
                let has_more = self.links.get(id).is_some_and(|link| {
                    !link.notes.is_empty() || (may_send_parts && !link.queue.is_empty() && link.has_window())
                });
                if has_more {
                    self.mark_ready(id);
                }
                return Some((to, message));
            }
        }
        self.end();
        None
    }

    fn fill(&mut self, id: usize, may_send_parts: bool) -> Option<proto::Spread> {
        let mut message = proto::Spread { receipt: self.receipt(id), ..proto::Spread::default() };
        let is_receipt_due = self.links.get(id).is_some_and(|link| link.receipt_us <= self.now_us);
        let mut bytes = message.encoded_len() + 11;
        self.fill_notes(id, &mut message, &mut bytes);
        let data_bytes = if may_send_parts { self.fill_parts(id, &mut message, bytes) } else { 0 };
        let link = self.links.get_mut(id)?;
        if message.parts.is_empty()
            && message.wants.is_empty()
            && message.lacks.is_empty()
            && !(message.receipt.is_some() && is_receipt_due)
        {
            return None;
        }
        if message.receipt.is_some() {
            link.receipt_us = 0;
            link.receipt_sent_us = self.now_us;
            link.wanted.clear();
            if std::mem::take(&mut link.repeats_receipt) {
                link.receipt_us = self.now_us + RECEIPT_REPEAT_US;
                self.timers.push(link.receipt_us, Timer::Receipt { link: id });
            }
        }
        // With the parts just put in, which are not settled.
        message.floor = link.floor();
        link.used_us = self.now_us;
        self.stats.control_bytes_sent += message.encoded_len().saturating_sub(data_bytes) as u64;
        Some(message)
    }

    /// What was taken from the peer, if it is to be told anything.
    fn receipt(&self, id: usize) -> Option<proto::Receipt> {
        let link = self.links.get(id).filter(|link| link.receipt_us != 0)?;
        let islands = link.taken.islands();
        let latest = islands.get(islands.len().saturating_sub(RECEIPT_RUNS_MAX)..).unwrap_or_default();
        let below = link.taken.head().saturating_add(1);
        let unserved = link.unserved.iter().take(12);
        Some(proto::Receipt {
            life: life(link.boot),
            below,
            runs: to_runs(below, latest),
            wanted: link.wanted.iter().copied().take(16).collect(),
            unserved: unserved.map(|&(number, member)| proto::Unserved { number, member }).collect(),
        })
    }

    fn fill_notes(&mut self, id: usize, message: &mut proto::Spread, bytes: &mut usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        while let Some(next) = link.notes.pop_front() {
            let note = proto::Want { line: next.line, runs: to_runs(0, &next.ranges) };
            let len = note.encoded_len() + 4;
            if *bytes + len > SPREAD_BYTES_MAX {
                link.notes.push_front(next);
                return;
            }
            *bytes += len;
            if next.is_want { message.wants.push(note) } else { message.lacks.push(note) }
        }
    }

    /// Puts parts in, as many as fit; returns their bytes.
    fn fill_parts(&mut self, id: usize, message: &mut proto::Spread, mut bytes: usize) -> usize {
        let rtt = self.links.rtt(id);
        let mut data_bytes = 0;
        while let Some(link) = self.links.get_mut(id)
            && link.has_window()
            && let Some(number) = link.queue.front().copied()
        {
            let found = link.sent.get(&number).cloned();
            let found = found.and_then(|sent| self.duties.get(sent.duty).map(|duty| (sent, duty)));
            let Some((sent, duty)) = found else {
                link.pop();
                continue;
            };
            let part = to_part(number, sent.fragment, sent.ask, duty, self.now_us);
            let len = part.encoded_len() + 3;
            if bytes + len > SPREAD_BYTES_MAX {
                break;
            }
            link.pop();
            let wait_us = match sent.tries == 0 && duty.asks_second() {
                true => rtt.ask_us(),
                false => rtt.timeout_us(sent.tries + 1),
            };
            let due_us = self.now_us + wait_us;
            link.fly(self.now_us, number, len, due_us);
            self.timers.push(due_us, Timer::Try { link: id, number });
            if sent.tries == 0 {
                self.retry_budget.earn(len);
                if duty.part.is_own {
                    self.own_waiting_bytes = self.own_waiting_bytes.saturating_sub(sent.bytes);
                }
            }
            if !part.batch.is_empty() {
                data_bytes += len;
                match sent.tries {
                    0 => self.stats.data_bytes_sent += len as u64,
                    _ => self.stats.resent_bytes += len as u64,
                }
            }
            bytes += len;
            message.parts.push(part);
        }
        data_bytes
    }
}

fn to_part(number: u64, fragment: u32, ask: bool, duty: &super::duty::Duty, now_us: u64) -> proto::Part {
    let mut message = proto::Part { number, repair: duty.is_repair, ..proto::Part::default() };
    if duty.fragments > 1 {
        message.fragment = fragment;
        message.fragments = duty.fragments;
    }
    if fragment == 0 {
        let part = &duty.part;
        let age_us = part.age_us + now_us.saturating_sub(duty.since_us);
        message.from = part.span.from;
        message.to = part.span.to;
        message.zone = part.zone.as_ref().into();
        message.hops = part.hops;
        message.age_us = u32::try_from(age_us).unwrap_or(u32::MAX);
        message.without.clone_from(&part.without);
        message.instead_of = part.instead_of;
        message.other = duty.other;
        message.hurried = part.is_hurried;
    }
    if ask {
        (message.line, message.first_seq) = duty.batch.id;
    } else {
        let encoded = &duty.batch.encoded;
        let from = (fragment as usize * duty.fragment_bytes).min(encoded.len());
        let to = (from + duty.fragment_bytes).min(encoded.len());
        message.batch = encoded.slice(from..to);
    }
    message
}
