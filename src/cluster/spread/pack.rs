//! Fills datagrams: whatever waits for one peer goes in one packet, up to what a datagram takes.
//!
//! The driver calls `poll_send` at the end of its turn, so an idle node sends at once and a busy
//! one fills its packets without a timer.

use std::net::SocketAddr;

use super::Spread;
use super::packet::Packet;
use super::timers::Timer;
use super::wire::{Receipt, life_tag};

/// Most runs of taken numbers told in one receipt, the latest.
const RECEIPT_RUNS_MAX: usize = 48;
/// Most parts told to be pulled in one receipt.
const PULLING_MAX: usize = 16;
/// Most parts told to be wanted in one receipt.
const WANTED_MAX: usize = 16;
/// Bytes kept free for parts in a packet that has a receipt.
const RECEIPT_BYTES_MAX: usize = 600;

/// The receipt for a part that was passed on goes twice, so long apart, in microseconds: were it lost,
/// a whole subtree might get its data again. Few parts are passed on, so this costs little.
const RECEIPT_REPEAT_US: u64 = 500;

/// Most tallies in one receipt.
const RECEIPT_TALLIES_MAX: usize = 8;
/// Most bytes of a tally: tag and length, and three fields with their tags.
const TALLY_BYTES: usize = 2 + 11 + 6 + 9;

const _: () = assert!(RECEIPT_RUNS_MAX * 6 + RECEIPT_TALLIES_MAX * TALLY_BYTES + 64 < RECEIPT_BYTES_MAX);

impl Spread {
    /// The next message to send, and to whom. Call it until it gives nothing.
    pub fn poll_send(&mut self) -> Option<(SocketAddr, Packet)> {
        if let Some(aside) = self.replication.poll_aside() {
            return Some(aside);
        }
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
            if let Some(packet) = self.fill(id, may_send_parts) {
                let has_more = self.links.get(id).is_some_and(|link| {
                    !link.notes.is_empty() || (may_send_parts && !link.queue.is_empty() && link.has_window())
                });
                if has_more {
                    self.mark_ready(id);
                }
                return Some((to, packet));
            }
        }
        self.end();
        None
    }

    fn fill(&mut self, id: usize, may_send_parts: bool) -> Option<Packet> {
        let receipt = self.receipt(id);
        let mut packet = std::mem::take(&mut self.spare).begin(receipt.as_ref());
        let is_receipt_due = self.links.get(id).is_some_and(|link| link.receipt_us <= self.now_us);
        self.fill_notes(id, &mut packet);
        let data_bytes = if may_send_parts { self.fill_parts(id, &mut packet) } else { 0 };
        let link = self.links.get_mut(id)?;
        if packet.is_bare() && !(packet.has_receipt() && is_receipt_due) {
            self.spare = packet;
            return None;
        }
        if packet.has_receipt() {
            link.receipt_us = 0;
            link.receipt_sent_us = self.now_us;
            link.wanted.drain(..link.wanted.len().min(WANTED_MAX));
            link.pulling.drain(..link.pulling.len().min(PULLING_MAX));
            let has_more = link.tell_tallies(RECEIPT_TALLIES_MAX);
            if std::mem::take(&mut link.repeats_receipt) || has_more {
                link.receipt_us = self.now_us + RECEIPT_REPEAT_US;
                self.timers.push(link.receipt_us, Timer::Receipt { link: id });
            } else if !link.pulling.is_empty() || !link.wanted.is_empty() {
                link.receipt_us = self.now_us;
                self.timers.push(link.receipt_us, Timer::Receipt { link: id });
            }
        }
        // With the parts just put in, which are not settled.
        packet.set_floor(link.floor());
        link.used_us = self.now_us;
        self.stats.control_bytes_sent += packet.encoded_len().saturating_sub(data_bytes) as u64;
        Some(packet)
    }

    /// What was taken from the peer, if it is to be told anything.
    fn receipt(&self, id: usize) -> Option<Receipt> {
        let link = self.links.get(id).filter(|link| link.receipt_us != 0)?;
        let islands = link.taken.islands();
        let latest = islands.get(islands.len().saturating_sub(RECEIPT_RUNS_MAX)..).unwrap_or_default();
        let below = link.taken.head().saturating_add(1);
        Some(Receipt {
            life: life_tag(link.boot),
            below,
            ranges: latest.to_vec(),
            wanted: link.wanted.iter().copied().take(WANTED_MAX).collect(),
            unserved: link.unserved.iter().copied().take(12).collect(),
            pulling: link.pulling.iter().copied().take(PULLING_MAX).collect(),
            tallies: link.tallies.iter().take(RECEIPT_TALLIES_MAX).map(|told| (told.0, told.1)).collect(),
        })
    }

    fn fill_notes(&mut self, id: usize, packet: &mut Packet) {
        let Some(link) = self.links.get_mut(id) else { return };
        while let Some(next) = link.notes.front() {
            if !packet.push_note(next) {
                return;
            }
            link.notes.pop_front();
        }
    }

    /// Puts parts in, as many as fit; returns their bytes.
    fn fill_parts(&mut self, id: usize, packet: &mut Packet) -> usize {
        let (rtt, is_late) = (self.links.rtt(id), self.links.is_late(id));
        let mut data_bytes = 0;
        while let Some(link) = self.links.get_mut(id)
            && link.has_window()
            && let Some(number) = link.queue.front().copied()
        {
            let found = link.sent.get(number).cloned();
            let found = found.and_then(|sent| self.duties.get(sent.duty).map(|duty| (sent, duty)));
            let Some((sent, duty)) = found else {
                link.pop();
                continue;
            };
            let pushed = packet.push_part(number, sent.fragment, sent.ask, duty, self.now_us);
            let Some(len) = pushed else { break };
            link.pop();
            let wait_us = match sent.tries {
                0 if duty.asks_second() => rtt.ask_us(),
                tries if is_late => rtt.timeout_us(tries + 1).max(rtt.patient_us()),
                tries => rtt.timeout_us(tries + 1),
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
            if !sent.ask {
                data_bytes += len;
                match sent.tries {
                    0 => self.stats.data_bytes_sent += len as u64,
                    _ => self.stats.resent_bytes += len as u64,
                }
            }
        }
        data_bytes
    }
}
