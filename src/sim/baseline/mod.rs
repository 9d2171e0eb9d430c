//! Other ways to spread records, in the same virtual network: for comparison only.
//!
//! - [`rumours`]: rumour mongering with hashicorp/memberlist's LAN defaults, as Serf and Consul use it.
//!   A node that hears of a record puts it into a queue; every 200 ms it sends packets of at most
//!   1,400 bytes from that queue to three random nodes, those sent least first, and drops a record
//!   that was sent 4·⌈log10(N+1)⌉ times.
//! - [`flooding`]: the origin sends every record to all others, once.
//!
//! Delays, losses, rates and processor time come from the same [`Network`](super::Network) and [`Conditions`]
//! that the world of the machines uses. Both baselines are spared the other work of a real node: probes,
//! messages about members, and whatever an application does to find what it missed. So their times are the
//! best they could have, and what they miss stays missing.
//!
//! By file: `engine` holds time, links and what arrived where; `queue` is memberlist's queue of one node;
//! this file has the two protocols.

mod engine;
mod queue;
#[cfg(test)]
mod tests;

use super::{Conditions, Distribution};
use crate::cluster::random::Random;
use engine::{BaselineWorld, Protocol};
use queue::{GOSSIP_NODES, UpdateQueue, transmissions};

/// Time between two rounds of a node, in microseconds.
const GOSSIP_US: u64 = 200_000;

/// The instructions for a run of a baseline.
#[derive(Clone, Copy, Debug)]
pub struct BaselinePlan {
    /// Number of nodes, all of which know each other; at least 2.
    pub nodes: usize,
    /// Number of records, each published at a random node.
    pub records: usize,
    /// Number of records published per second, all nodes together.
    pub rate_per_s: u64,
    /// Size of a record on the wire, in bytes.
    pub record_bytes: usize,
    /// The conditions of links and nodes.
    pub conditions: Conditions,
    /// The seed of everything that chance decides.
    pub seed: u64,
}

/// The measurements of a run of a baseline. Times count from publishing, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measures {
    /// Times until a record was at another node, for each node.
    pub times: Distribution,
    /// Times until a record was at the last node that it reached.
    pub last: Distribution,
    /// Number of deliveries that should have been: records × (nodes − 1).
    pub expected: u64,
    /// Number of deliveries that did not happen.
    pub missing: u64,
    /// Number of records that did not reach all nodes.
    pub partial: u64,
    /// Number of copies of records that nodes received.
    pub copies: u64,
    /// Number of datagrams sent.
    pub datagrams: u64,
    /// Bytes of the datagrams sent, headers of IP and UDP included.
    pub bytes: u64,
}

impl Measures {
    /// Returns the mean number of copies of a record that a node received which was to get it.
    pub fn copies_mean(&self) -> f64 {
        self.copies as f64 / self.expected.max(1) as f64
    }

    /// Returns the part of the deliveries that did not happen, 0 to 1.
    #[cfg(test)]
    pub fn missing_share(&self) -> f64 {
        self.missing as f64 / self.expected.max(1) as f64
    }
}

/// Spreads records by rumour mongering with memberlist's LAN defaults. It carries about 30 records of 128
/// bytes per round and node; at more than 150 / (4·⌈log10(N+1)⌉) records per second its queues grow.
pub fn rumours(plan: &BaselinePlan) -> Measures {
    let engine = BaselineWorld::new(plan);
    let mut random = Random::new(engine.protocol_seed());
    let phases_us = (0..plan.nodes).map(|_| random.below(GOSSIP_US)).collect();
    let queues = vec![UpdateQueue::new(transmissions(plan.nodes), plan.record_bytes); plan.nodes];
    let protocol = Rumours { queues, phases_us, random };
    engine.run(protocol)
}

/// Spreads records by flooding: the origin sends each record to all other nodes, once.
pub fn flooding(plan: &BaselinePlan) -> Measures {
    BaselineWorld::new(plan).run(Flooding { record_bytes: plan.record_bytes })
}

struct Rumours {
    queues: Vec<UpdateQueue>,
    /// Time of each node's round within every [`GOSSIP_US`], in microseconds.
    phases_us: Vec<u64>,
    random: Random,
}

impl Rumours {
    /// Returns when the node's next round is.
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
