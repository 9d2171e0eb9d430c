//! Puts parts that wait on a link into packets.

use super::Custody;
use crate::cluster::spread::env::Base;
use crate::cluster::spread::packet::Packet;

impl Custody {
    /// Puts parts that wait for the peer of a link into a packet, as many as fit and as the link's window
    /// takes; returns their bytes.
    pub fn fill(&mut self, base: &mut Base, id: usize, packet: &mut Packet) -> usize {
        let (rtt, is_late) = (base.links.rtt(id), base.links.is_late(id));
        let mut data_bytes = 0;
        let Some(link) = base.links.get_mut(id) else { return 0 };
        while link.window().has_room()
            && let Some(number) = link.next_queued()
        {
            let found = link.sent(number);
            let found = found.and_then(|sent| self.duties.get(sent.duty).map(|duty| (sent, duty)));
            let Some((sent, duty)) = found else {
                debug_assert!(false, "number {number} waits for no part on duty");
                link.pop();
                continue;
            };
            let Some(len) = packet.push_part(number, sent, duty, base.now_us) else { break };
            let (tries, ask, is_own) = (sent.tries, sent.ask, duty.part.is_own);
            let wait_us = match tries {
                0 if duty.asks_second() => rtt.ask_us() + link.receipt_delay_us(base.now_us, rtt.smooth_us()),
                tries if is_late => rtt.timeout_us(tries + 1).max(rtt.patient_us()),
                tries => rtt.timeout_us(tries + 1),
            };
            if tries == 0 {
                self.budget.earn(len);
                self.duties.note_unqueued(is_own, sent);
            }
            let step = link.path.step();
            link.fly(base.now_us, len, base.now_us + wait_us, packet.is_large(base.me.packet_bytes_max));
            if tries == 0 && is_own {
                base.paths.note(step, len);
            }
            if !ask {
                data_bytes += len;
                match tries {
                    0 => base.stats.data_bytes_sent += len as u64,
                    _ => base.stats.resent_bytes += len as u64,
                }
            }
        }
        base.arm_parts(id);
        data_bytes
    }
}
