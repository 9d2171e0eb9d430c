//! The clients of a world: they choose the node at which they publish, and the record.

use super::Publishing;
use crate::cluster::random::Random;
use crate::limits::OUTBOX_BYTES_SOFT;
use crate::record::{Payload, SharedRecord, Source};
use crate::sim::{NodeId, Submission, World};

/// All clients of a world, taken together.
#[derive(Debug)]
pub(super) struct SimClients {
    plan: Publishing,
    random: Random,
    made: u64,
}

impl SimClients {
    /// Makes clients that have published nothing yet.
    pub fn new(plan: &Publishing, seed: u64) -> SimClients {
        SimClients { plan: plan.clone(), random: Random::new(seed), made: 0 }
    }

    /// Publishes a record at one of the running nodes. Returns `None` if none runs, or if that node does not
    /// accept it because it stands still or has too much waiting.
    pub fn publish(&mut self, world: &mut World, running: &[NodeId]) -> Option<(NodeId, SharedRecord)> {
        let publishers = match self.plan.publishers {
            0 => running.len(),
            some => some.min(running.len()),
        };
        let node = *running.get(self.random.index(publishers))?;
        let value = self.value()?;
        if world.outbox_bytes(node) > OUTBOX_BYTES_SOFT {
            return None;
        }
        let record = world.accept(node, vec![value]).pop()?;
        Some((node, record))
    }

    fn value(&mut self) -> Option<Submission> {
        self.made += 1;
        let number = match self.plan.sources {
            0 => self.made,
            some => self.random.below(some as u64),
        };
        let payload = match self.random.happens(self.plan.deletions_per_million) {
            true => Payload::Deleted,
            false => {
                // The data differ every time, and cost nearly nothing to make.
                let mut data = self.made.to_be_bytes().to_vec();
                data.resize(self.plan.bytes, b'x');
                Payload::Binary(data.into())
            }
        };
        Some(Submission { source: Source::parse(&format!("sim/{number}")).ok()?, payload, ttl_ms: 0 })
    }
}
