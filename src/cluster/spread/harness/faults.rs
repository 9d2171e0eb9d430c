//! The faults of the test world: lost messages, slow links, and nodes that are busy or stand still.

use super::World;
use super::agenda::Event;
use crate::cluster::spread::tree::mix;

/// How long a burst of losses lasts, in microseconds.
const BURST_US: u64 = 10_000;

impl World {
    /// Returns the time at which a node that stands still gets this event; `None`: the node does not stand
    /// still. It gets the messages that arrived before the timers.
    pub(super) fn stall(&mut self, event: &Event) -> Option<u64> {
        let (node, rank_us) = match event {
            Event::Arrive { to, .. } => (*to, 0),
            Event::Stream { node, .. } => (*node, 0),
            Event::Wake { node, .. } => (*node, 1),
            Event::Connect { .. } | Event::Apply { .. } => return None,
        };
        if self.stalls.0 > 0 && self.nodes[node].stalled_until_us + 1 < self.now_us {
            let stalls = self.random() % 1_000 < self.stalls.0;
            let (least_us, most_us) = (self.stalls.1, self.stalls.2);
            let for_us = least_us + self.random() % (most_us - least_us);
            if stalls {
                self.nodes[node].stalled_until_us = self.now_us + for_us;
            }
        }
        let until_us = self.nodes[node].stalled_until_us + rank_us;
        (until_us > self.now_us).then_some(until_us)
    }

    /// Returns the time at which a node gets the packet that arrived; `None`: the node is not busy with
    /// earlier packets.
    pub(super) fn work(&self, event: &Event) -> Option<u64> {
        let Event::Arrive { to, .. } = event else { return None };
        let until_us = self.nodes[*to].works_until_us;
        (until_us > self.now_us).then_some(until_us)
    }

    /// Returns whether a message from one node to another is lost.
    pub(super) fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let link = mix(from as u64) ^ to as u64;
        let slot = (self.now_us + mix(link) % BURST_US) / BURST_US;
        let is_bursting = self.bursts > 0 && mix(self.salt ^ mix(link) ^ mix(slot)) % 1_000 < self.bursts;
        let loss = if is_bursting { 500 } else { self.loss };
        self.random() % 1_000 < loss || (self.is_cut)(from, to)
    }

    /// Returns the time at which bytes that a node sends now are on the wire, in microseconds.
    pub(super) fn sent_us(&mut self, index: usize, bytes: usize) -> u64 {
        let Some(took_us) = (bytes as u64 * 1_000).checked_div(self.rate) else { return self.now_us };
        let sent_us = &mut self.sent_us[index];
        *sent_us = self.now_us.max(*sent_us) + took_us;
        *sent_us
    }
}
