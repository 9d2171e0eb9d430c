//! The events that are due in the test world, in the order in which they happen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::cluster::{ReceivedBatch, StreamEvent, StreamId};
use crate::proto::gossip as proto;

/// An event of the world.
pub(super) enum Event {
    Arrive { from: usize, to: usize, message: Box<proto::Spread> },
    Wake { node: usize, at_us: u64 },
    Stream { node: usize, stream: StreamId, event: StreamEvent },
    Connect { node: usize, stream: StreamId, to: SocketAddr },
    Apply { node: usize, boot: u64, batch: Box<ReceivedBatch> },
}

/// The events that have not happened yet, by the time at which each is due and by the order in which they
/// were added.
#[derive(Default)]
pub(super) struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    /// Number of events that were ever added.
    added: u64,
}

impl Agenda {
    /// Adds an event that is due at `at_us`.
    pub fn add(&mut self, at_us: u64, event: Event) {
        self.added += 1;
        self.events.insert((at_us, self.added), event);
    }

    /// Takes the next event, with its time, if it is due by `end_us`.
    pub fn pop_until(&mut self, end_us: u64) -> Option<(u64, Event)> {
        let next = self.events.first_entry().filter(|entry| entry.key().0 <= end_us)?;
        let ((at_us, _), event) = next.remove_entry();
        Some((at_us, event))
    }
}
