//! What happens to bytes between two nodes: delay, loss, duplication, reordering, cuts.

use std::collections::BTreeSet;

use super::world::NodeId;
use crate::cluster::random::Random;

/// How all links behave. Probabilities are in parts of a million.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Shortest one-way delay.
    pub delay_us_min: u64,
    /// Longest one-way delay of what is not held up.
    pub delay_us_max: u64,
    /// Datagrams that vanish.
    pub loss_per_million: u32,
    /// Datagrams that arrive twice.
    pub duplicates_per_million: u32,
    /// Datagrams that are held up, by up to ten times the longest delay.
    pub reordered_per_million: u32,
}

impl Conditions {
    /// A healthy local network: 0.5 to 1.5 ms, nothing lost.
    pub fn lan() -> Conditions {
        Conditions {
            delay_us_min: 500,
            delay_us_max: 1_500,
            loss_per_million: 0,
            duplicates_per_million: 0,
            reordered_per_million: 0,
        }
    }

    /// The same with a share of the datagrams lost, and a few duplicated and reordered.
    pub fn lossy(loss_per_million: u32) -> Conditions {
        let few = 10_000;
        Conditions {
            loss_per_million,
            duplicates_per_million: few,
            reordered_per_million: few,
            ..Conditions::lan()
        }
    }
}

/// A retransmission timeout of a stream.
const RETRANSMIT_US: u64 = 200_000;

/// The links between all nodes.
#[derive(Debug)]
pub struct Network {
    /// How they behave; may be changed at any time.
    pub conditions: Conditions,
    cuts: BTreeSet<(NodeId, NodeId)>,
    random: Random,
}

impl Network {
    /// A network without cuts.
    pub fn new(conditions: Conditions, seed: u64) -> Network {
        Network { conditions, cuts: BTreeSet::new(), random: Random::new(seed) }
    }

    /// Nothing passes from `from` to `to` any more; the other direction is not touched.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Nothing passes between the two sides any more.
    pub fn partition(&mut self, one: &[NodeId], other: &[NodeId]) {
        for &a in one {
            for &b in other {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// All cuts are mended.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Whether anything passes.
    pub fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// When copies of a datagram arrive: none if it is lost, two if it is duplicated.
    pub fn datagram_delays_us(&mut self, from: NodeId, to: NodeId) -> Vec<u64> {
        let conditions = self.conditions;
        if !self.is_open(from, to) || self.random.happens(conditions.loss_per_million) {
            return Vec::new();
        }
        let copies = if self.random.happens(conditions.duplicates_per_million) { 2 } else { 1 };
        (0..copies).map(|_| self.delay_us()).collect()
    }

    /// How long a piece of a stream takes. Losses are made good, and cost time.
    pub fn stream_delay_us(&mut self) -> u64 {
        let is_lost = self.random.happens(self.conditions.loss_per_million);
        self.delay_us() + if is_lost { RETRANSMIT_US } else { 0 }
    }

    fn delay_us(&mut self) -> u64 {
        let Conditions { delay_us_min, delay_us_max, reordered_per_million, .. } = self.conditions;
        let spread_us = delay_us_max.saturating_sub(delay_us_min);
        let held_us = match self.random.happens(reordered_per_million) {
            true => self.random.below(10 * delay_us_max + 1),
            false => 0,
        };
        delay_us_min + self.random.below(spread_us + 1) + held_us
    }
}
