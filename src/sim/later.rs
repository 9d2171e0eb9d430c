//! The batches that a node lets other threads of its process merge: some time passes before it is told.

use crate::cluster::ReceivedBatch;
use crate::cluster::random::Random;

/// The batches of one node that are being merged.
pub(super) struct LaterBatches {
    /// The batches, each with the time at which it is merged, in microseconds of the world.
    batches: Vec<(u64, ReceivedBatch)>,
    random: Random,
}

impl LaterBatches {
    /// No batches. The times that they take follow from `seed`.
    pub fn new(seed: u64) -> LaterBatches {
        LaterBatches { batches: Vec::new(), random: Random::new(seed) }
    }

    /// Forgets all batches, because the process has ended.
    pub fn clear(&mut self) {
        self.batches.clear();
    }

    /// Takes a batch that is merged within `most_us` microseconds from `at_us` on. It may overtake others.
    pub fn push(&mut self, at_us: u64, most_us: u64, batch: ReceivedBatch) {
        let due_us = at_us + 1 + self.random.next_u64() % most_us.max(1);
        self.batches.push((due_us, batch));
    }

    /// Time at which the next batch is merged, in microseconds of the world.
    pub fn due_us(&self) -> Option<u64> {
        self.batches.iter().map(|(due_us, _)| *due_us).min()
    }

    /// Removes the batches that are merged by `now_us`, in order.
    pub fn take_due(&mut self, now_us: u64) -> Vec<ReceivedBatch> {
        if self.due_us().is_none_or(|due_us| due_us > now_us) {
            return Vec::new();
        }
        let (mut due, later): (Vec<_>, Vec<_>) =
            self.batches.drain(..).partition(|(due_us, _)| *due_us <= now_us);
        self.batches = later;
        due.sort_by_key(|(due_us, _)| *due_us);
        due.into_iter().map(|(_, batch)| batch).collect()
    }
}
