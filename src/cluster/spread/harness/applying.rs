//! Batches that a node of the test world lets another thread apply: some time passes, in which others overtake
//! them.

use super::World;
use super::agenda::Event;
use crate::cluster::{AppliedBatch, ReceivedBatch};

impl World {
    /// Lets every node apply batches later, after at least `least_us` and at most `most_us` microseconds; with
    /// (0, 0) at once.
    pub fn apply_later(&mut self, (least_us, most_us): (u64, u64)) {
        self.apply_us = (least_us, most_us);
        for node in &mut self.nodes {
            node.arrivals.2 = (most_us > 0).then(Vec::new);
        }
    }

    /// Takes the batches that a node has handed out, and chooses when each is applied.
    pub(super) fn take_batches(&mut self, index: usize) {
        let batches = self.nodes[index].arrivals.2.as_mut().map(std::mem::take).unwrap_or_default();
        for batch in batches {
            let (least_us, most_us) = self.apply_us;
            let at_us = self.now_us + least_us + self.random() % (most_us - least_us + 1);
            let boot = self.nodes[index].boot;
            self.agenda.add(at_us, Event::Apply { node: index, boot, batch: Box::new(batch) });
        }
    }

    /// Applies a batch, and reports the outcome to the node that handed it out, if that life of it goes on.
    pub(super) fn apply(&mut self, index: usize, boot: u64, batch: &ReceivedBatch) {
        let now = self.now();
        let node = &mut self.nodes[index];
        if !node.is_up || node.boot != boot {
            return;
        }
        let outcome = batch.apply_to(now, &mut node.arrivals);
        let applied = AppliedBatch { ticket: batch.ticket(), outcome };
        let ring = node.ring.clone();
        node.spread.handle_applied(now, &[applied], &ring, &mut node.arrivals);
        self.pump(index);
    }
}
