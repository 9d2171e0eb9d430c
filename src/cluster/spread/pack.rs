//! Fills packets: whatever waits for one peer goes into one, up to the size of a datagram.
//!
//! The driver polls at the end of its turn, so an idle node sends at once and a busy one fills its
//! packets without a timer.

use std::net::SocketAddr;

use super::custody::Custody;
use super::env::Base;
use super::link::Link;
use super::packet::Packet;
use super::timers::Timer;
use crate::cluster::random::Random;
use crate::limits::HEADS_BYTES_MAX;

/// Least time between two packets with records that bring heads as well, in microseconds: as long as a gap
/// must have stood before it is asked for.
const HEADS_PAUSE_US: u64 = 50_000;

/// Combined with a machine's seed for the numbers of probes, so that they differ from other random numbers.
const PROBE_SEED_SALT: u64 = 0x5EED_0F90_BE55;

/// Fills packets, one at a time.
#[derive(Debug)]
pub(super) struct Packer {
    /// A packet that was sent, whose memory is used for the next one.
    spare: Packet,
    /// When a packet with records may bring heads again, in microseconds.
    heads_due_us: u64,
    /// Gives probes their numbers.
    random: Random,
}

impl Packer {
    /// Begins without a packet. The numbers of probes follow from the machine's seed.
    pub fn new(seed: u64) -> Packer {
        Packer { spare: Packet::default(), heads_due_us: 0, random: Random::new(seed ^ PROBE_SEED_SALT) }
    }

    /// The next packet, and where to send it. `None`: nothing waits that may be sent now.
    pub fn poll(&mut self, base: &mut Base, custody: &mut Custody) -> Option<(SocketAddr, Packet)> {
        while let Some(id) = base.links.pop_ready() {
            let Some(link) = base.links.get(id) else { continue };
            let to = link.to;
            if link.path.is_probe_due()
                && let Some(probe) = self.probe(base, id)
            {
                base.links.mark_ready(id);
                return Some((to, probe));
            }
            let Some(link) = base.links.get(id) else { continue };
            let may_send_parts = match link.window().paced_until_us(base.now_us) {
                Some(at_us) if link.next_queued().is_some() => {
                    base.timers.push(at_us, Timer::Pace { link: id });
                    false
                }
                _ => true,
            };
            if let Some(packet) = self.fill(base, custody, id, may_send_parts) {
                let may_send_more = |link: &Link| link.next_queued().is_some() && link.window().has_room();
                let has_more = base.links.get(id).is_some_and(|link| {
                    link.next_note().is_some() || (may_send_parts && may_send_more(link))
                });
                if has_more {
                    base.links.mark_ready(id);
                }
                return Some((to, packet));
            }
        }
        None
    }

    /// The packet that tries whether the path of a link carries a larger size, if that is to be tried now.
    fn probe(&mut self, base: &mut Base, id: usize) -> Option<Packet> {
        let number = self.random.next_u64();
        let extra_bytes = base.links.get_mut(id)?.path.take_probe(base.now_us, number)?;
        let packet = Packet::of_probe(number, base.me.packet_bytes_max + extra_bytes);
        base.stats.control_bytes_sent += packet.encoded_len() as u64;
        Some(packet)
    }

    /// A packet for the peer of a link, if anything is to be sent now. Parts are left out unless
    /// `may_send_parts` is set.
    fn fill(
        &mut self,
        base: &mut Base,
        custody: &mut Custody,
        id: usize,
        may_send_parts: bool,
    ) -> Option<Packet> {
        let link = base.links.get_mut(id)?;
        let receipt = link.answers.receipt(link.boot);
        let is_receipt_due = link.answers.due_us().is_some_and(|due_us| due_us <= base.now_us);
        let bytes_max = base.me.packet_bytes_max + link.path.extra_bytes();
        let mut packet = std::mem::take(&mut self.spare).begin(bytes_max, receipt.as_ref());
        if let Some(number) = link.carried
            && packet.push_carried(number)
        {
            link.carried = None;
        }
        while let Some(note) = link.next_note()
            && packet.push_note(note)
        {
            link.pop_note();
        }
        let data_bytes = if may_send_parts { custody.fill(base, id, &mut packet) } else { 0 };
        let link = base.links.get_mut(id)?;
        if packet.is_bare() && !is_receipt_due {
            self.spare = packet;
            return None;
        }
        if packet.has_receipt()
            && let Some(due_us) = link.answers.handle_sent(base.now_us)
        {
            base.timers.push(due_us, Timer::Receipt { link: id });
        }
        // The parts that were just put in are not settled: the floor is below them.
        packet.set_floor(link.floor());
        link.used_us = base.now_us;
        debug_assert!(packet.encoded_len() <= bytes_max, "{} bytes", packet.encoded_len());
        if data_bytes > 0 && link.path.note_sent(base.now_us, packet.encoded_len()) {
            base.links.mark_ready(id);
        }
        base.stats.control_bytes_sent += packet.encoded_len().saturating_sub(data_bytes) as u64;
        Some(packet)
    }

    /// Takes back a packet that was sent, to use its memory for the next one.
    pub fn take_back(&mut self, packet: Packet) {
        self.spare = packet;
    }

    /// Heads to travel with a packet that brings records and has room, as (hash of the line, head). There are
    /// some once in a while: so gaps are known sooner than by probes alone while records flow.
    pub fn heads_beside(&mut self, base: &mut Base, packet: &Packet) -> Vec<(u64, u64)> {
        if packet.is_bare() || base.now_us < self.heads_due_us {
            return Vec::new();
        }
        let heads = base.lines.digest(base.now_us, packet.room_bytes().min(HEADS_BYTES_MAX));
        if !heads.is_empty() {
            self.heads_due_us = base.now_us + HEADS_PAUSE_US;
        }
        heads
    }
}
