//! What will happen, in order of time and, within an instant, of when it was decided.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use bytes::Bytes;

use super::world::NodeId;
use crate::cluster::{StreamEvent, StreamId};

/// Something that happens at one instant.
#[derive(Debug)]
pub(super) enum Event {
    Datagram { to: SocketAddr, from: SocketAddr, bytes: Bytes },
    Stream { to: NodeId, stream: StreamId, event: StreamEvent },
    Connect { from: NodeId, stream: StreamId, to: SocketAddr },
    Wake { node: NodeId, token: u64 },
    Resume { node: NodeId },
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// All that will happen.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Scheduled>>,
    pushed: u64,
}

impl Queue {
    pub fn push(&mut self, at_us: u64, event: Event) {
        self.pushed += 1;
        self.heap.push(Reverse(Scheduled { at_us, order: self.pushed, event }));
    }

    /// The next event and its time, if that is not later than `end_us`.
    pub fn pop_until(&mut self, end_us: u64) -> Option<(u64, Event)> {
        self.heap.peek().filter(|Reverse(next)| next.at_us <= end_us)?;
        self.heap.pop().map(|Reverse(next)| (next.at_us, next.event))
    }
}
