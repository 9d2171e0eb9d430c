//! Takes down what all clients and watchers see, in one order, and hands it to the checker's thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use crate::checker::{Observation, Seen};

/// Observations that wait for the checker. Clients wait when there are more, so it is many.
const WAITING_MAX: usize = 1_000_000;

/// Gives observations their time and hands them on. Copies of it hand them to the same checker.
#[derive(Clone)]
pub struct Recorder {
    begin: Instant,
    queue: Arc<SyncSender<Observation>>,
}

impl Recorder {
    /// Makes a recorder whose times count from now, and the end at which the observations come out.
    pub fn new() -> (Recorder, Receiver<Observation>) {
        let (queue, out) = sync_channel(WAITING_MAX);
        (Recorder { begin: Instant::now(), queue: Arc::new(queue) }, out)
    }

    /// Returns the time since the begin in microseconds.
    pub fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    /// Takes something down that is seen now.
    pub fn see(&self, seen: Seen) {
        self.see_at(self.now_us(), seen);
    }

    /// Takes something down that was so from an earlier time on.
    pub fn see_at(&self, at_us: u64, seen: Seen) {
        // The other end is gone only when the run ends early, and then nobody wants to know.
        let _ = self.queue.send(Observation { at_us, seen });
    }
}
