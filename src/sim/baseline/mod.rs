//! What others do, in the same virtual network: for comparison only.
//!
//! - [`rumours`]: rumour mongering with hashicorp/memberlist's LAN defaults, as Serf and Consul use it.
//!   A node that hears of a record puts it into a queue; every 200 ms it sends packets of at most
//!   1,400 bytes from that queue to three random nodes, those sent least first, and drops a record
//!   that was sent 4·⌈log10(N+1)⌉ times.
//! - [`flooding`]: the origin sends every record to all others, once.
//!
//! Delays, losses, rates and processor time come from the very [`Network`](super::Network) and
//! [`Conditions`] that the machines' world has. Both baselines are spared what a real node has to do
//! besides: probes, what members say of each other, and whatever an application does to find what it
//! missed. So their times are the best they could have, and what they miss stays missing.
//!
//! By file: `engine` time, links and what arrived where, `queue` memberlist's queue of one node, this
//! one the two protocols.

mod engine;
mod queue;
#[cfg(test)]
mod tests;

use super::{Conditions, Distribution};
use crate::cluster::random::Random;
use engine::{BaselineWorld, Protocol};
use queue::{GOSSIP_NODES, UpdateQueue, transmissions};

/// Between two rounds of a node.
const GOSSIP_US: u64 = 200_000;

/// What is to be spread among whom.
#[derive(Clone, Copy, Debug)]
pub struct BaselinePlan {
    /// Nodes, all of which know each other; at least 2.
    pub nodes: usize,
    /// Records, each at a random node.
    pub records: usize,
    /// How many of them a second.
    pub rate_per_s: u64,
    /// Bytes of a record as it is sent.
    pub record_bytes: usize,
    /// Of links and nodes.
    pub conditions: Conditions,
    /// Decides everything that chance does.
    pub seed: u64,
}

/// What came of it. Times are since publishing, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measures {
    /// Until a record was at one other node.
    pub times: Distribution,
    /// Until a record was at the last of those that it reached.
    pub last: Distribution,
    /// Deliveries that should have been: records × (nodes − 1).
    pub expected: u64,
    /// Those that never were.
    pub missing: u64,
    /// Records that did not reach all.
    pub partial: u64,
    /// Copies that nodes received.
    pub copies: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Their bytes, headers of IP and UDP included.
    pub bytes: u64,
}

impl Measures {
    /// Copies of a record that a node which was to get it received.
    pub fn copies_mean(&self) -> f64 {
        self.copies as f64 / self.expected.max(1) as f64
    }

    /// The share of deliveries that never were.
    pub fn missing_share(&self) -> f64 {
        self.missing as f64 / self.expected.max(1) as f64
    }
}

/// Rumour mongering with memberlist's LAN defaults. It carries about 30 records of 128 bytes a round and
/// node; at more than 150 / (4·⌈log10(N+1)⌉) records a second its queues grow.
pub fn rumours(plan: &BaselinePlan) -> Measures {
    let engine = BaselineWorld::new(plan);
    let mut random = Random::new(engine.protocol_seed());
    let phases_us = (0..plan.nodes).map(|_| random.below(GOSSIP_US)).collect();
    let queues = vec![UpdateQueue::new(transmissions(plan.nodes), plan.record_bytes); plan.nodes];
    let protocol = Rumours { queues, phases_us, random };
    engine.run(protocol)
}

/// The origin sends each record to all others, once.
pub fn flooding(plan: &BaselinePlan) -> Measures {
    BaselineWorld::new(plan).run(Flooding { record_bytes: plan.record_bytes })
}

struct Rumours {
    queues: Vec<UpdateQueue>,
    /// When, in every [`GOSSIP_US`], a node has its round.
    phases_us: Vec<u64>,
    random: Random,
}

impl Rumours {
    /// When the node's next round is.
    fn round_us(&self, node: usize, now_us: u64) -> u64 {
        let phase_us = self.phases_us[node];
        let into_us = (now_us + GOSSIP_US - phase_us) % GOSSIP_US;
        now_us + GOSSIP_US - into_us
    }
}

impl Protocol for Rumours {
    fn hear(&mut self, engine: &mut BaselineWorld, node: usize, record: u32) {
        if self.queues[node].is_empty() {
            engine.wake(self.round_us(node, engine.now_us()), node);
        }
        self.queues[node].push(record);
    }

    fn wake(&mut self, engine: &mut BaselineWorld, node: usize) {
        let mut targets = [node; GOSSIP_NODES];
        let count = GOSSIP_NODES.min(self.queues.len() - 1);
        for chosen in 0..count {
            while targets[..chosen].contains(&targets[chosen]) || targets[chosen] == node {
                targets[chosen] = self.random.index(self.queues.len());
            }
        }
        for &target in &targets[..count] {
            let (records, bytes) = self.queues[node].packet();
            if records.is_empty() {
                return;
            }
            engine.send(node, target, records.into(), bytes);
        }
        if !self.queues[node].is_empty() {
            engine.wake(engine.now_us() + GOSSIP_US, node);
        }
    }
}

struct Flooding {
    record_bytes: usize,
}

impl Protocol for Flooding {
    fn hear(&mut self, engine: &mut BaselineWorld, node: usize, record: u32) {
        if engine.origin(record) != node {
            return;
        }
        let packet: std::rc::Rc<[u32]> = [record].into();
        for target in (0..engine.nodes()).filter(|&target| target != node) {
            engine.send(node, target, packet.clone(), self.record_bytes);
        }
    }

    fn wake(&mut self, _: &mut BaselineWorld, _: usize) {}
}
