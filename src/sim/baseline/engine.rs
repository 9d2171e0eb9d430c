//! The world of a baseline: time, links, and what arrived where.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use super::super::{Distribution, Network, NodeId};
use super::{BaselinePlan, Measures};
use crate::cluster::random::Random;
use crate::limits::DATAGRAM_HEADER_BYTES;

/// Time from the last record to the end of the run, in microseconds: records that arrive later count as
/// missing.
const PATIENCE_US: u64 = 30_000_000;

/// The behaviour of the nodes of a baseline. A call is made at the instant [`BaselineWorld::now_us`].
pub(super) trait Protocol {
    /// Handles a record that is at this node for the first time, from a client or a datagram.
    fn hear(&mut self, engine: &mut BaselineWorld, node: usize, record: u32);
    /// Handles the time that [`BaselineWorld::wake`] was asked for.
    fn wake(&mut self, engine: &mut BaselineWorld, node: usize);
}

/// An event of a baseline.
#[derive(Debug)]
enum BaselineEvent {
    Publish { record: u32 },
    Datagram { to: usize, records: Rc<[u32]> },
    Wake { node: usize },
}

/// A world in which nodes do nothing but spread records.
pub(super) struct BaselineWorld {
    plan: BaselinePlan,
    network: Network,
    now_us: u64,
    /// Times and keys of `events`; the keys are in the order in which events were decided.
    due: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, BaselineEvent>,
    decided: u64,
    /// Until when each node is busy, in microseconds of the world.
    busy_us: Vec<u64>,
    origins: Vec<usize>,
    /// A bit for each node and record that is set if the node holds the record, node by node.
    held: Vec<u64>,
    /// For each record: the number of nodes that hold it, its origin apart, and the time after publishing
    /// at which it reached the last of them, in microseconds.
    reached: Vec<(u64, u64)>,
    times: Distribution,
    copies: u64,
    protocol_seed: u64,
}

impl BaselineWorld {
    /// Makes a world in which all records are planned to be published.
    pub fn new(plan: &BaselinePlan) -> BaselineWorld {
        let mut random = Random::new(plan.seed);
        let network = Network::new(plan.conditions, random.next_u64());
        let mut engine = BaselineWorld {
            plan: *plan,
            network,
            now_us: 0,
            due: BinaryHeap::new(),
            events: BTreeMap::new(),
            decided: 0,
            busy_us: vec![0; plan.nodes],
            origins: (0..plan.records).map(|_| random.index(plan.nodes)).collect(),
            held: vec![0; plan.nodes * plan.records.div_ceil(64)],
            reached: vec![(0, 0); plan.records],
            times: Distribution::default(),
            copies: 0,
            protocol_seed: random.next_u64(),
        };
        for record in 0..plan.records as u32 {
            engine.push(engine.published_us(record), BaselineEvent::Publish { record });
        }
        engine
    }

    /// Runs a protocol at all nodes until no event is left.
    pub fn run(mut self, mut protocol: impl Protocol) -> Measures {
        let end_us = self.published_us(self.plan.records as u32) + PATIENCE_US;
        while let Some(Reverse((at_us, key))) = self.due.pop()
            && at_us <= end_us
        {
            let Some(event) = self.events.remove(&key) else { continue };
            self.now_us = at_us;
            match event {
                BaselineEvent::Publish { record } => {
                    let origin = self.origin(record);
                    self.hold(origin, record);
                    protocol.hear(&mut self, origin, record);
                }
                BaselineEvent::Datagram { to, records } => self.receive(&mut protocol, to, &records),
                BaselineEvent::Wake { node } => protocol.wake(&mut self, node),
            }
        }
        self.measures()
    }

    /// Returns a seed for the random choices of the protocol.
    pub fn protocol_seed(&self) -> u64 {
        self.protocol_seed
    }

    /// Returns the time since the beginning, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.plan.nodes
    }

    /// Returns the node at which a record is published.
    pub fn origin(&self, record: u32) -> usize {
        self.origins[record as usize]
    }

    /// Schedules a call of the protocol for a node.
    pub fn wake(&mut self, at_us: u64, node: usize) {
        self.push(at_us, BaselineEvent::Wake { node });
    }

    /// Sends a datagram of `bytes` bytes, not counting the headers of IP and UDP.
    pub fn send(&mut self, from: usize, to: usize, records: Rc<[u32]>, bytes: usize) {
        let ready_us = self.busy(from, self.now_us) + self.plan.conditions.cpu_us;
        let bytes = bytes + DATAGRAM_HEADER_BYTES;
        let arrivals = self.network.send(ready_us, NodeId(from), NodeId(to), bytes);
        for &at_us in arrivals.as_slice() {
            self.push(at_us, BaselineEvent::Datagram { to, records: records.clone() });
        }
    }

    /// Lets a node read a datagram. If it is busy, it does so later, which delays all further datagrams.
    fn receive(&mut self, protocol: &mut impl Protocol, node: usize, records: &[u32]) {
        let heard_us = self.busy(node, self.now_us);
        let arrived_us = std::mem::replace(&mut self.now_us, heard_us);
        for &record in records {
            self.copies += 1;
            if !self.hold(node, record) {
                continue;
            }
            let took_us = heard_us - self.published_us(record);
            self.times.add(took_us);
            let (nodes, last_us) = &mut self.reached[record as usize];
            *nodes += 1;
            *last_us = took_us.max(*last_us);
            protocol.hear(self, node, record);
        }
        self.now_us = arrived_us;
    }

    /// Reserves the time of a node that a datagram takes. Returns when that begins.
    fn busy(&mut self, node: usize, at_us: u64) -> u64 {
        let from_us = at_us.max(self.busy_us[node]);
        self.busy_us[node] = from_us + self.plan.conditions.cpu_us;
        from_us
    }

    /// Notes that a node holds a record. Returns whether it did not before.
    fn hold(&mut self, node: usize, record: u32) -> bool {
        let words = self.plan.records.div_ceil(64);
        let (word, bit) = (node * words + record as usize / 64, 1 << (record % 64));
        let is_new = self.held[word] & bit == 0;
        self.held[word] |= bit;
        is_new
    }

    fn published_us(&self, record: u32) -> u64 {
        u64::from(record) * 1_000_000 / self.plan.rate_per_s.max(1)
    }

    fn push(&mut self, at_us: u64, event: BaselineEvent) {
        self.decided += 1;
        self.due.push(Reverse((at_us, self.decided)));
        self.events.insert(self.decided, event);
    }

    fn measures(self) -> Measures {
        let others = self.plan.nodes as u64 - 1;
        let mut last = Distribution::default();
        self.reached.iter().filter(|(nodes, _)| *nodes > 0).for_each(|(_, last_us)| last.add(*last_us));
        let expected = self.plan.records as u64 * others;
        Measures {
            missing: expected - self.times.count(),
            times: self.times,
            last,
            expected,
            partial: self.reached.iter().filter(|(nodes, _)| *nodes < others).count() as u64,
            copies: self.copies,
            datagrams: self.network.traffic().sent,
            bytes: self.network.traffic().sent_bytes,
        }
    }
}
