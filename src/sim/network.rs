//! The links between nodes: delay, loss, duplication, reordering, rates, cuts.
//!
//! Bursts keep no state: whether a pair of nodes has a bad time is a hash of the seed, the pair and
//! the time, so ten thousand nodes with fifty million links cost nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::{Conditions, Delay};
use super::place::NodeId;
use crate::cluster::random::Random;

/// Time after which a lost piece of a stream is sent again, in microseconds.
const RETRANSMIT_US: u64 = 200_000;
/// How long a burst of losses lasts, in microseconds.
const BURST_US: u64 = 10_000;
/// Share of the datagrams that are lost in a burst.
const BURST_LOSS_PER_MILLION: u32 = 500_000;

/// The times at which the copies of one datagram arrive: none, one or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    at_us: [u64; 2],
    count: usize,
}

impl Arrivals {
    /// Returns the times of arrival, in microseconds of the world.
    pub fn as_slice(&self) -> &[u64] {
        self.at_us.get(..self.count).unwrap_or_default()
    }
}

/// Counts of what became of all datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of datagrams handed to the network.
    pub sent: u64,
    /// Bytes of the datagrams handed to the network, headers included.
    pub sent_bytes: u64,
    /// Number of datagrams stopped by a cut or a partition.
    pub cut: u64,
    /// Number of datagrams lost on the way.
    pub lost: u64,
    /// Number of datagrams dropped by the sender, whose queue was full.
    pub dropped: u64,
    /// Number of datagrams that were delivered twice.
    pub duplicated: u64,
    /// Number of datagrams handed to a node, both copies of duplicates counted.
    pub delivered: u64,
    /// Number of datagrams dropped by a receiver that was too busy to empty its socket.
    pub overflowed: u64,
}

/// A node's own connection to the network.
#[derive(Clone, Copy, Debug, Default)]
struct Port {
    zone: u32,
    /// When the link will have sent everything that it was given so far, in nanoseconds of the world.
    free_ns: u64,
}

/// The links between all nodes.
#[derive(Debug)]
pub struct Network {
    /// The behaviour of the links, which may be changed at any time.
    pub conditions: Conditions,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// For each partition, the side of every node by its number: 1 or 2, or 0 if it is not concerned.
    partitions: Vec<Vec<u8>>,
    ports: Vec<Port>,
    zones: BTreeMap<String, u32>,
    delays: BTreeMap<(u32, u32), Delay>,
    random: Random,
    burst_seed: u64,
    traffic: Traffic,
}

impl Network {
    /// Makes a network without cuts.
    pub fn new(conditions: Conditions, seed: u64) -> Network {
        let mut random = Random::new(seed);
        Network {
            conditions,
            cuts: BTreeSet::new(),
            partitions: Vec::new(),
            ports: Vec::new(),
            zones: BTreeMap::new(),
            delays: BTreeMap::new(),
            burst_seed: random.next_u64(),
            random,
            traffic: Traffic::default(),
        }
    }

    /// Stops all that goes from `from` to `to`; the other direction is not touched.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Ends a cut of one direction.
    #[cfg(test)]
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cuts.remove(&(from, to));
    }

    /// Stops all that goes between the two sides. Other nodes are not concerned.
    pub fn partition(&mut self, one: &[NodeId], other: &[NodeId]) {
        let count = one.iter().chain(other).map(|node| node.0 + 1).max().unwrap_or(0);
        let mut sides = vec![0; count];
        one.iter().for_each(|node| sides[node.0] = 1);
        other.iter().for_each(|node| sides[node.0] = 2);
        self.partitions.push(sides);
    }

    /// Ends all partitions; cuts stay.
    #[cfg(test)]
    pub fn reunite(&mut self) {
        self.partitions.clear();
    }

    /// Ends all cuts and partitions.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.partitions.clear();
    }

    /// Returns whether neither a cut nor a partition is between two nodes in this direction.
    pub fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        let side = |sides: &[u8], node: NodeId| sides.get(node.0).copied().unwrap_or(0);
        let divides = |sides: &Vec<u8>| {
            let (a, b) = (side(sides, from), side(sides, to));
            a != b && a != 0 && b != 0
        };
        !(self.partitions.iter().any(divides) || (!self.cuts.is_empty() && self.cuts.contains(&(from, to))))
    }

    /// Puts a node into a zone. At first all nodes are in one zone without a name.
    pub fn place(&mut self, node: NodeId, zone: &str) {
        let zone = self.zone(zone);
        self.port(node).zone = zone;
    }

    /// Sets the delay from one zone to another, or inside a zone if both are the same. The other direction
    /// is not touched.
    #[cfg(test)]
    pub fn set_delay(&mut self, from_zone: &str, to_zone: &str, delay: Delay) {
        let pair = (self.zone(from_zone), self.zone(to_zone));
        self.delays.insert(pair, delay);
    }

    /// Returns whether two nodes are in different zones.
    pub fn is_between_zones(&self, one: NodeId, other: NodeId) -> bool {
        self.zone_of(one) != self.zone_of(other)
    }

    /// Returns the counts of what became of all datagrams so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Counts a datagram that was handed to a node.
    pub(super) fn delivered(&mut self) {
        self.traffic.delivered += 1;
    }

    /// Counts a datagram that was dropped because the socket of its receiver was full.
    pub(super) fn overflowed(&mut self) {
        self.traffic.overflowed += 1;
    }

    /// Sends a datagram of `bytes` bytes, headers included, that is ready at `ready_us`. Returns when its
    /// copies arrive.
    pub fn send(&mut self, ready_us: u64, from: NodeId, to: NodeId, bytes: usize) -> Arrivals {
        self.traffic.sent += 1;
        self.traffic.sent_bytes += bytes as u64;
        let mut arrivals = Arrivals::default();
        let Some(left_us) = self.leave(ready_us, from, bytes) else {
            self.traffic.dropped += 1;
            return arrivals;
        };
        if !self.is_open(from, to) {
            self.traffic.cut += 1;
            return arrivals;
        }
        let loss_per_million = self.loss_per_million(left_us, from, to);
        if self.random.happens(loss_per_million) || bytes > self.conditions.path_bytes {
            self.traffic.lost += 1;
            return arrivals;
        }
        arrivals.count = if self.random.happens(self.conditions.duplicates_per_million) { 2 } else { 1 };
        self.traffic.duplicated += arrivals.count as u64 - 1;
        for copy in 0..arrivals.count {
            arrivals.at_us[copy] = left_us + self.delay_us(from, to);
        }
        arrivals
    }

    /// Sends a piece of a stream, and returns when it arrives. Nothing is lost for good: a loss costs time,
    /// and so does a busy link.
    pub(super) fn stream(&mut self, now_us: u64, from: NodeId, to: NodeId, bytes: usize) -> u64 {
        let left_us = self.enqueue(now_us, from, bytes);
        let is_lost = self.random.happens(self.conditions.loss_per_million);
        left_us + self.delay_us(from, to) + if is_lost { RETRANSMIT_US } else { 0 }
    }

    /// Returns when a datagram has left its node; `None`: it is dropped, since too many bytes wait already.
    fn leave(&mut self, ready_us: u64, from: NodeId, bytes: usize) -> Option<u64> {
        let Conditions { egress_bytes_per_s, egress_queue_bytes, .. } = self.conditions;
        if egress_bytes_per_s > 0 {
            let wait_us = (self.port(from).free_ns / 1_000).saturating_sub(ready_us);
            let waiting = wait_us.saturating_mul(egress_bytes_per_s) / 1_000_000;
            if waiting + bytes as u64 > egress_queue_bytes {
                return None;
            }
        }
        Some(self.enqueue(ready_us, from, bytes))
    }

    fn enqueue(&mut self, ready_us: u64, from: NodeId, bytes: usize) -> u64 {
        let rate = self.conditions.egress_bytes_per_s;
        if rate == 0 {
            return ready_us;
        }
        let port = self.port(from);
        port.free_ns = port.free_ns.max(ready_us * 1_000) + bytes as u64 * 1_000_000_000 / rate;
        port.free_ns.div_ceil(1_000)
    }

    /// Returns the probability of a loss on a link at this time.
    fn loss_per_million(&self, at_us: u64, from: NodeId, to: NodeId) -> u32 {
        let mean = self.conditions.loss_per_million;
        if !self.conditions.is_bursty || mean == 0 {
            return mean;
        }
        let link = hash(self.burst_seed ^ hash((from.0 as u64) << 32 | to.0 as u64));
        // Links turn bad at different times.
        let time = (at_us + link % BURST_US) / BURST_US;
        let bad_per_million = u64::from(mean) * 1_000_000 / u64::from(BURST_LOSS_PER_MILLION);
        let is_bad = hash(link ^ hash(time)) % 1_000_000 < bad_per_million;
        if is_bad { BURST_LOSS_PER_MILLION } else { 0 }
    }

    fn delay_us(&mut self, from: NodeId, to: NodeId) -> u64 {
        let Delay { min_us, max_us } = self.delay(from, to);
        let held_us = match self.random.happens(self.conditions.reordered_per_million) {
            true => self.random.below(10 * max_us + 1),
            false => 0,
        };
        min_us + self.random.below(max_us.saturating_sub(min_us) + 1) + held_us
    }

    /// Returns the shortest delay of all links, in microseconds.
    pub(super) fn delay_us_min(&self) -> u64 {
        let Conditions { delay_us_min, between_zones, .. } = self.conditions;
        let set = self.delays.values().chain(&between_zones).map(|delay| delay.min_us);
        set.fold(delay_us_min, u64::min)
    }

    fn delay(&self, from: NodeId, to: NodeId) -> Delay {
        let Conditions { delay_us_min, delay_us_max, between_zones, .. } = self.conditions;
        let pair = (self.zone_of(from), self.zone_of(to));
        let set = if self.delays.is_empty() { None } else { self.delays.get(&pair).copied() };
        let general = between_zones.filter(|_| pair.0 != pair.1);
        set.or(general).unwrap_or(Delay { min_us: delay_us_min, max_us: delay_us_max })
    }

    fn zone_of(&self, node: NodeId) -> u32 {
        self.ports.get(node.0).map_or(0, |port| port.zone)
    }

    fn port(&mut self, node: NodeId) -> &mut Port {
        if self.ports.len() <= node.0 {
            self.ports.resize(node.0 + 1, Port::default());
        }
        &mut self.ports[node.0]
    }

    fn zone(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let next = self.zones.len() as u32 + 1;
        *self.zones.entry(name.into()).or_insert(next)
    }
}

/// Derives a number from another by SplitMix64.
fn hash(number: u64) -> u64 {
    Random::new(number).next_u64()
}
