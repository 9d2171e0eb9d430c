//! The bounded queues and tables of membership and replication: how full each is, and its bound.

use parking_lot::Mutex;

use super::exposition::Exposition;

/// One bounded queue or table.
#[derive(Clone, Copy, Debug)]
pub struct BoundedQueue {
    /// Name of the queue or table, with the unit of its size if that is not the number of its entries.
    pub name: &'static str,
    /// Current size of the queue or table.
    pub used: usize,
    /// Greatest size that is allowed.
    pub max: usize,
}

/// All of them, as they were when they were looked at last.
#[derive(Debug, Default)]
pub struct BoundedQueues(Mutex<Vec<BoundedQueue>>);

impl BoundedQueues {
    /// Replaces what is known by what `fill` puts into the list, which is empty then.
    pub fn refresh(&self, fill: impl FnOnce(&mut Vec<BoundedQueue>)) {
        let mut queues = self.0.lock();
        queues.clear();
        fill(&mut queues);
    }

    /// Appends the metrics.
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        let queues = self.0.lock();
        let mut family = |name: &str, help: &str, value: fn(&BoundedQueue) -> usize| {
            text.head(name, "gauge", help);
            for queue in queues.iter() {
                text.line(format_args!("{name}{{queue=\"{}\"}} {}", queue.name, value(queue)));
            }
        };
        let help = "Size of the queues and tables of membership and replication.";
        family("gossip_queue", help, |queue| queue.used);
        family("gossip_queue_limit", "Bounds of these queues and tables.", |queue| queue.max);
    }
}
