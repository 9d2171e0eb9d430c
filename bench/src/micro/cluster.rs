//! The way of records between nodes: whole cluster machines with their maps, joined by a network in memory.
//!
//! One node publishes, the others merge. Time is virtual and passes in ticks, in each of which a node handles
//! everything that has arrived, as in one turn of a server's loop. All nodes work in every call of a piece,
//! but callgrind counts only inside [`publisher`] or [`observed_peer`]: what one node does.

use std::borrow::Cow;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use anode::cluster::outbox::Outbox;
use anode::cluster::seal::{ClusterKey, KeyPhase, Keyring, LifeSecret, SealKeys};
use anode::cluster::{Effect, Known, Machine, MachineConfig, Profile};
use anode::ingest::{Bounds, Change, Downstream, Ingest};
use anode::metrics::Metrics;
use anode::protocol::draft::{Draft, DraftPayload};
use anode::record::{NodeName, Now, SharedRecord};
use bytes::Bytes;

use super::{RECORDS, SOURCES, data, name};

/// Length of a tick in microseconds: the time from one turn of a node that is not busy to the next.
const TICK_US: u64 = 100;
/// Number of ticks that end every call, in which all records and receipts arrive.
const TICKS_AFTER: usize = 20;
/// Wall clock at the start, in microseconds.
const START_US: u64 = 1_763_800_000_000_000;

/// A node's counterpart of the store and the subscribers, which are not part of these pieces.
struct Nowhere;

impl Downstream for Nowhere {
    fn deliver(&self, _: Change) {}
    fn store(&self, _: &SharedRecord) -> u64 {
        0
    }
    fn store_winner(&self, _: &SharedRecord) -> u64 {
        0
    }
    fn forget(&self, _: Now, _: &SharedRecord) {}
    fn store_health(&self) -> Result<(), String> {
        Ok(())
    }
}

struct Node {
    machine: Machine,
    ingest: Ingest<Nowhere>,
    address: SocketAddr,
    /// Records that were published and not handed to the machine yet.
    records: Vec<SharedRecord>,
    /// Datagrams that have arrived, each with its sender.
    arrived: Vec<(SocketAddr, Bytes)>,
    /// Datagrams that are sent in this tick, each with its receiver.
    sent: Vec<(SocketAddr, Bytes)>,
}

impl Node {
    fn new(number: usize, now: Now, is_sealed: bool) -> Node {
        let Ok(node_name) = NodeName::parse(&format!("bench-{number}")) else { unreachable!("a good name") };
        let address = SocketAddr::from(([10, 0, 0, number as u8 + 1], 7946));
        let config = MachineConfig {
            name: node_name.clone(),
            boot: 1 + number as u64,
            cluster_name: "bench".into(),
            gossip: address,
            http: format!("10.0.0.{}:7070", number + 1),
            zone: String::new(),
            version: "0".into(),
            profile: Profile::Lan,
            tombstones_us: 86_400_000_000,
            agreed_us: Some(now.wall_us),
            has_seeds: false,
            seed: number as u64,
            keys: is_sealed.then(|| keys(number)),
        };
        let bounds =
            Bounds { record_bytes_max: 1 << 20, map_bytes_max: 1 << 30, tombstones_us: config.tombstones_us };
        let outbox = Outbox::new(node_name, config.boot);
        Node {
            machine: Machine::new(config, now),
            ingest: Ingest::new(bounds, outbox, Arc::new(Metrics::default()), Nowhere, 0),
            address,
            records: Vec::new(),
            arrived: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Handles datagrams, timers and published records in the order of a server's turn.
    #[inline(always)]
    fn turn(&mut self, now: Now) {
        let mut replica = &self.ingest;
        for (from, datagram) in self.arrived.drain(..) {
            self.machine.handle_datagram(now, from, &datagram, &mut replica);
        }
        if self.machine.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            self.machine.handle_timeout(now, &mut replica);
        }
        if !self.records.is_empty() {
            self.machine.handle_published(now, &self.records);
            self.records.clear();
        }
        while let Some(effect) = self.machine.poll_effect() {
            if let Effect::Datagram { to, bytes } = effect {
                self.sent.push((to, bytes));
            }
        }
    }
}

// The compiler would make one function of the next three if each did not also use a number of its own.

/// Takes a turn of the node that publishes. Callgrind counts inside this function for `cluster/origin`.
#[inline(never)]
fn publisher(node: &mut Node, now: Now) {
    black_box(1);
    node.turn(now);
}

/// Takes a turn of a node that only receives. Callgrind counts inside this function for `cluster/peer`.
#[inline(never)]
fn observed_peer(node: &mut Node, now: Now) {
    black_box(2);
    node.turn(now);
}

/// Takes a turn of a node that is not counted.
#[inline(never)]
fn other_peer(node: &mut Node, now: Now) {
    black_box(3);
    node.turn(now);
}

/// The keys of a node. The phase is the one before the last, in which nodes that were never introduced to each other
/// understand each other at once. What is sealed and opened is the same as in the last.
fn keys(number: usize) -> SealKeys {
    let key = ClusterKey::new([1; 32]).to_text();
    let Ok(keyring) = Keyring::parse(&key) else { unreachable!("a good key") };
    SealKeys { keyring, phase: KeyPhase::Send, secret: LifeSecret([number as u8 + 1; 32]) }
}

struct Group {
    nodes: Vec<Node>,
    now: Now,
    published: u64,
}

impl Group {
    fn of(count: usize, is_sealed: bool) -> Group {
        let now = Now { mono_us: 1_000_000, wall_us: START_US };
        let mut nodes: Vec<Node> = (0..count).map(|number| Node::new(number, now, is_sealed)).collect();
        let known = Known::new(nodes.iter().map(|node| node.machine.identity().clone()));
        nodes.iter_mut().for_each(|node| node.machine.handle_known(now, &known));
        let mut group = Group { nodes, now, published: 0 };
        // Links learn their round trips, and every source is known everywhere, before anything is counted.
        (0..SOURCES / RECORDS + 1).for_each(|_| group.publish(RECORDS));
        group
    }

    /// Publishes [`RECORDS`] records, some in each tick, and lets them arrive everywhere.
    fn publish(&mut self, per_tick: usize) {
        for _ in 0..RECORDS / per_tick {
            for _ in 0..per_tick {
                self.accept();
            }
            let Node { ingest, records, .. } = &mut self.nodes[0];
            ingest.outbox().lock().take(usize::MAX, records);
            self.tick();
        }
        (0..TICKS_AFTER).for_each(|_| self.tick());
    }

    /// Accepts one record of a client.
    fn accept(&mut self) {
        let number = self.published as usize * 151 % SOURCES;
        self.published += 1;
        let (source, data) = (name(number), data(self.published));
        let (source, payload) = (Cow::Borrowed(source.as_str()), DraftPayload::Json(&data));
        let draft = Draft { source, ts: None, payload, ttl_ms: 0, ack: None };
        assert!(self.nodes[0].ingest.publish(self.now, &draft).is_ok());
    }

    fn tick(&mut self) {
        self.now = Now { mono_us: self.now.mono_us + TICK_US, wall_us: self.now.wall_us + TICK_US };
        for (number, node) in self.nodes.iter_mut().enumerate() {
            match number {
                0 => publisher(node, self.now),
                1 => observed_peer(node, self.now),
                _ => other_peer(node, self.now),
            }
        }
        for from in 0..self.nodes.len() {
            let address = self.nodes[from].address;
            for (to, bytes) in std::mem::take(&mut self.nodes[from].sent) {
                let receiver = self.nodes.iter_mut().find(|node| node.address == to);
                receiver.into_iter().for_each(|node| node.arrived.push((address, bytes.clone())));
            }
        }
    }
}

/// Makes a group of `count` nodes, in which each call publishes [`RECORDS`] records, `per_tick` in each tick.
pub(super) fn make(count: usize, per_tick: usize) -> Box<dyn FnMut()> {
    let mut group = Group::of(count, false);
    Box::new(move || group.publish(per_tick))
}

/// Makes such a group of three nodes whose messages are sealed with a key.
pub(super) fn make_sealed(per_tick: usize) -> Box<dyn FnMut()> {
    let mut group = Group::of(3, true);
    Box::new(move || group.publish(per_tick))
}

#[cfg(test)]
mod tests {
    use anode::cluster::Replica;

    use super::*;

    #[test]
    fn all_nodes_hold_what_one_publishes() {
        for (count, is_sealed) in [(3, false), (8, false), (3, true)] {
            let mut group = Group::of(count, is_sealed);
            group.publish(1);
            group.publish(RECORDS);
            let fingerprints = |node: &Node| Replica::fingerprints(&&node.ingest);
            let first = fingerprints(&group.nodes[0]);
            assert!(group.nodes.iter().all(|node| fingerprints(node) == first));
            let sent = group.nodes[0].machine.stats().datagrams_sent;
            assert!(sent > 0 && sent < group.published * 2, "{sent} datagrams");
        }
    }
}
