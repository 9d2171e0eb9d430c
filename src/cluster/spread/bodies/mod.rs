//! Batches too large for datagrams: announced down the tree, pulled over TCP.
//!
//! A part with a large batch carries only the batch's name, length and checksum. The node that gets the part
//! says that it is pulling, asks the sender for the bytes (the body) over a stream, verifies them, and only
//! then takes custody: from there on the part is handled as if the bytes had come with it. So the tree, its
//! retries and its stand-ins are the same for records of every size, and a large record costs the datagram
//! links a hundred bytes a hop.
//!
//! [`pulling`] asks, [`serving`] answers. Both keep one stream a peer, and both are bounded in streams, names
//! and bytes, whatever the other side does. A pull that fails is not repeated here: the part is announced
//! again, by the same peer or by another.

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
use super::seqs::SeqRange;
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};

/// Both sides of pulling: the bodies that this node asks for, and those that peers ask this node for.
#[derive(Debug)]
pub(super) struct Bodies {
    pulling: Pulling,
    serving: Serving,
    /// Instructions to the driver, in order.
    outputs: VecDeque<StreamOutput>,
}

impl Bodies {
    /// Begins without streams.
    pub fn new() -> Bodies {
        Bodies { pulling: Pulling::new(), serving: Serving::default(), outputs: VecDeque::new() }
    }

    /// Returns whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.pulling.is_empty() && self.serving.is_empty()
    }

    /// Returns whether a batch of a line whose first number is in `first..=last` is being pulled.
    pub fn pulls_any(&self, line: u64, SeqRange { first, last }: SeqRange) -> bool {
        self.pulling.has_between(BatchId { line, first_seq: first }, BatchId { line, first_seq: last })
    }

    /// Pulls an announced body from the peer of `waiter`, unless it is being pulled from another. `waiter`
    /// goes on when the body came. `false`: there is no room, or no body has that length.
    pub fn pull(&mut self, now_us: u64, announced: Announced, waiter: BodyWaiter) -> bool {
        self.pulling.pull(now_us, announced, waiter, &mut self.outputs)
    }

    /// Handles an event of a stream that this node opened. Returns the bodies that are complete.
    pub fn handle_connected(&mut self, now_us: u64, stream: StreamId, event: StreamEvent) -> Vec<PulledBody> {
        let mut whole = Vec::new();
        self.pulling.handle(now_us, stream, event, &mut whole, &mut self.outputs);
        whole
    }

    /// Handles an event of a stream that a peer opened. `find` returns a batch as it was packed. Returns the
    /// number of bytes of bodies that were written.
    pub fn handle_accepted(
        &mut self,
        now_us: u64,
        stream: StreamId,
        event: StreamEvent,
        find: &dyn Fn(BatchId) -> Option<Bytes>,
    ) -> usize {
        self.serving.handle(now_us, stream, event, find, &mut self.outputs)
    }

    /// The next thing for the driver to do with a stream.
    pub fn poll_output(&mut self) -> Option<StreamOutput> {
        self.outputs.pop_front()
    }

    /// Closes streams on which nothing moves. To be called about once a second.
    pub fn sweep(&mut self, now_us: u64) {
        self.pulling.sweep(now_us, &mut self.outputs);
        self.serving.sweep(now_us, &mut self.outputs);
    }
}
