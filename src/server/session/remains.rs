//! What waited for connections that are gone, until it is freed.
//!
//! As many records may wait for a connection as there are sources. Freeing all of them at once would take a worker
//! a tenth of a second, so it frees a bounded number in every turn.

use std::collections::VecDeque;

use super::queue::SendQueue;

/// The queues of the connections of a worker that are gone.
#[derive(Debug, Default)]
pub struct Remains(VecDeque<SendQueue>);

impl Remains {
    /// Returns whether nothing is left to be freed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many bytes of memory the queues hold.
    pub fn held_bytes(&self) -> usize {
        self.0.iter().map(SendQueue::held_bytes).sum()
    }

    /// Takes over the queue of a connection that is gone.
    pub(super) fn add(&mut self, queue: SendQueue) {
        if !queue.is_empty() {
            self.0.push_back(queue);
        }
    }

    /// Frees up to `count` records.
    pub fn sweep(&mut self, count: usize) {
        for _ in 0..count {
            let Some(queue) = self.0.front_mut() else { return };
            if queue.pop().is_none() {
                self.0.pop_front();
            }
        }
    }
}
