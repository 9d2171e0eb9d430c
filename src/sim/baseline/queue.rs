//! The queue of updates that a node of memberlist passes on.

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Number of nodes that get a packet in each round.
pub(super) const GOSSIP_NODES: usize = 3;
/// Most bytes of a packet, without the headers of IP and UDP.
const PACKET_BYTES_MAX: usize = 1_400;
/// Bytes of a packet before the first update.
const PACKET_HEADER_BYTES: usize = 2;
/// Bytes before each update: its length and its kind.
const RECORD_HEADER_BYTES: usize = 3;
/// Number of transmissions for each decimal digit of the number of nodes.
const RETRANSMIT_MULT: u32 = 4;

/// Returns how often a node sends each record: 4·⌈log10(N+1)⌉.
pub(super) fn transmissions(nodes: usize) -> u32 {
    let mut digits = 0;
    let mut reached = 1;
    while reached < nodes + 1 {
        reached *= 10;
        digits += 1;
    }
    RETRANSMIT_MULT * digits
}

/// The updates that a node has yet to send: the least sent first, and of those the newest.
#[derive(Clone, Debug)]
pub(super) struct UpdateQueue {
    /// Updates as (times sent, order of arrival, record).
    waiting: BTreeSet<(u32, Reverse<u64>, u32)>,
    arrived: u64,
    transmissions: u32,
    record_bytes: usize,
}

impl UpdateQueue {
    /// Makes an empty queue that sends each record, of `record_bytes` bytes, `transmissions` times.
    pub fn new(transmissions: u32, record_bytes: usize) -> UpdateQueue {
        UpdateQueue { waiting: BTreeSet::new(), arrived: 0, transmissions, record_bytes }
    }

    /// Returns whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a record that was never sent from this node.
    pub fn push(&mut self, record: u32) {
        self.arrived += 1;
        self.waiting.insert((0, Reverse(self.arrived), record));
    }

    /// Takes the next packet: its records, and its bytes without the headers of IP and UDP. It holds at least
    /// one record, whatever its size.
    pub fn packet(&mut self) -> (Vec<u32>, usize) {
        let each = RECORD_HEADER_BYTES + self.record_bytes;
        let room = ((PACKET_BYTES_MAX - PACKET_HEADER_BYTES) / each).max(1);
        let taken: Vec<_> = self.waiting.iter().take(room).copied().collect();
        for &(times, arrived, record) in &taken {
            self.waiting.remove(&(times, arrived, record));
            if times + 1 < self.transmissions {
                self.waiting.insert((times + 1, arrived, record));
            }
        }
        let bytes = PACKET_HEADER_BYTES + taken.len() * each;
        (taken.into_iter().map(|(_, _, record)| record).collect(), bytes)
    }
}
