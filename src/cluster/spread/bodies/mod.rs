//! Batches too large for datagrams: announced down the tree, pulled over TCP.
//!
//! A part with a large batch carries its name, length and checksum alone. Who gets it says that it
//! is pulling, asks the sender for the bytes over a stream, verifies them, and only then takes
//! custody: what follows is as if the bytes had come with the part. So the tree, its retries and its
//! stand-ins are the same for records of every size, and a large one costs the datagram links a
//! hundred bytes a hop.
//!
//! [`pulling`] asks, [`serving`] answers; both keep one stream a peer, and both are bounded in
//! streams, names and bytes whatever the other side does. What fails is not mended here: the part is
//! announced again, by the same peer or by another.

mod pulling;
mod serving;
#[cfg(test)]
mod tests;
mod waiting;
mod wire;

use std::collections::VecDeque;

use bytes::Bytes;

use self::pulling::Pulling;
use self::serving::Serving;
pub(super) use self::waiting::{BodyWaiter, PulledBody};
use super::batch::{Announced, BatchId};
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};

/// Both sides: what this node pulls, and what it is asked for.
#[derive(Debug)]
pub(super) struct Bodies {
    pulling: Pulling,
    serving: Serving,
    outputs: VecDeque<StreamOutput>,
}

impl Bodies {
    /// Starts without streams.
    pub fn new() -> Bodies {
        Bodies { pulling: Pulling::new(), serving: Serving::default(), outputs: VecDeque::new() }
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.pulling.is_empty() && self.serving.is_empty()
    }

    /// Whether one of these numbers of a line is being pulled.
    pub fn pulls_any(&self, line: u64, (first, last): (u64, u64)) -> bool {
        self.pulling.has_between(BatchId { line, first_seq: first }, BatchId { line, first_seq: last })
    }

    /// Sees to it that an announced body is pulled from the peer that announced it, or from one that did so
    /// sooner. `false`: there is no room, or no body is so long.
    pub fn pull(&mut self, now_us: u64, announced: Announced, waiter: BodyWaiter) -> bool {
        self.pulling.pull(now_us, announced, waiter, &mut self.outputs)
    }

    /// Something happened to a stream that this node opened. Returns the bodies that are complete.
    pub fn handle_connected(&mut self, now_us: u64, stream: StreamId, event: StreamEvent) -> Vec<PulledBody> {
        let mut whole = Vec::new();
        self.pulling.handle(now_us, stream, event, &mut whole, &mut self.outputs);
        whole
    }

    /// Something happened to a stream that a peer opened. `find` gives a batch as it was packed. Returns
    /// how many bytes of bodies went out.
    pub fn handle_accepted(
        &mut self,
        now_us: u64,
        stream: StreamId,
        event: StreamEvent,
        find: &dyn Fn(BatchId) -> Option<Bytes>,
    ) -> usize {
        self.serving.handle(now_us, stream, event, find, &mut self.outputs)
    }

    /// What is to be done next with streams.
    pub fn poll_output(&mut self) -> Option<StreamOutput> {
        self.outputs.pop_front()
    }

    /// Gives up streams on which nothing moves. To be called once a second.
    pub fn sweep(&mut self, now_us: u64) {
        self.pulling.sweep(now_us, &mut self.outputs);
        self.serving.sweep(now_us, &mut self.outputs);
    }
}
