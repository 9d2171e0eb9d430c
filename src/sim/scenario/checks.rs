//! Checks what must hold, whatever was done to the world.
//!
//! In the end every running node holds, of every source, the same record: the greatest that any of them
//! accepted or ever held. A record that a node accepted and lost with its data before any other node had it
//! is missing with a reason. At every delivery, the world itself checks that the record was accepted before,
//! and that it does not make a source go back.

use std::collections::BTreeMap;

use crate::record::merge::order;
use crate::record::{Record, SharedRecord};
use crate::sim::{NodeId, World};

/// With more nodes than this, members are counted instead of compared one by one: the number of pairs grows
/// with the square.
const PAIRS_NODES_MAX: usize = 1_000;

/// The records that were accepted at each node, and must not be lost.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The greatest accepted record of every source.
    greatest: BTreeMap<String, SharedRecord>,
    /// For each node, the greatest record of every source that it accepted since it last began empty.
    accepted: BTreeMap<NodeId, BTreeMap<String, SharedRecord>>,
}

/// Numbers of pairs of a source and a node that lacks the newest record of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Number of all such pairs.
    pub all: u64,
    /// Number of the pairs whose record a running node accepted or has held.
    pub unexplained: u64,
}

impl Ledger {
    /// Notes that a node accepted a record.
    pub fn accept(&mut self, node: NodeId, record: &SharedRecord) {
        raise(&mut self.greatest, record);
        raise(self.accepted.entry(node).or_default(), record);
    }

    /// Notes that a node lost all its data.
    pub fn wipe(&mut self, node: NodeId) {
        self.accepted.remove(&node);
    }

    /// Compares what the running nodes hold with what they must.
    pub fn missing(&self, world: &World, running: &[NodeId]) -> Missing {
        // Of all nodes that hold the same records, only the first is looked at.
        let mut alike: BTreeMap<(usize, u64), (NodeId, u64)> = BTreeMap::new();
        for &node in running {
            alike.entry(world.replica(node).digest()).or_insert((node, 0)).1 += 1;
        }
        let mut must: BTreeMap<&str, &Record> = BTreeMap::new();
        let accepted = running.iter().filter_map(|node| self.accepted.get(node)).flat_map(BTreeMap::values);
        let held = alike.values().flat_map(|(node, _)| world.replica(*node).iter());
        for record in accepted.chain(held) {
            let greatest = must.entry(record.source.as_str()).or_insert(record);
            if order(record, greatest).is_gt() {
                *greatest = record;
            }
        }
        let mut missing = Missing::default();
        for &(node, count) in alike.values() {
            let replica = world.replica(node);
            let lacks = |record: &Record| {
                replica.latest(record.source.as_str()).is_none_or(|held| order(held, record).is_lt())
            };
            missing.all += count * self.greatest.values().filter(|record| lacks(record)).count() as u64;
            missing.unexplained += count * must.values().filter(|record| lacks(record)).count() as u64;
        }
        missing
    }
}

/// Returns whether all running nodes hold the same records and none of them misses another one.
pub(super) fn are_equal(world: &World, running: &[NodeId]) -> bool {
    let Some(first) = running.first() else { return true };
    let digest = world.replica(*first).digest();
    let is_equal =
        |node: &NodeId| world.live(*node) >= running.len() && world.replica(*node).digest() == digest;
    running.iter().all(is_equal)
}

/// Returns, in words, the first few cases of a node that believes a running one dead.
pub(super) fn believed_dead(world: &World, running: &[NodeId]) -> Vec<String> {
    let name = |node: NodeId| world.machine(node).identity().name.clone();
    if running.len() > PAIRS_NODES_MAX {
        let blind = running.iter().filter(|node| world.live(**node) < running.len());
        let tell =
            |node: &NodeId| format!("{} sees {} live of {}", name(*node), world.live(*node), running.len());
        return blind.take(3).map(tell).collect();
    }
    let mut others: Vec<_> = running.iter().map(|node| world.machine(*node).identity()).collect();
    // The nodes are in the order of the rings, so that each ring is walked once: looking members up would
    // take seconds of a long run.
    others.sort_by_key(|other| (other.ring_hash(), other.name.clone()));
    let mut found = Vec::new();
    for &node in running {
        let mut entries = world.machine(node).ring().entries().iter().peekable();
        for other in &others {
            let key = (other.ring_hash(), &other.name);
            while entries.next_if(|entry| (entry.hash, entry.name()) < key).is_some() {}
            let seen = entries.peek().filter(|entry| (entry.hash, entry.name()) == key);
            if found.len() < 3 && seen.is_none_or(|entry| entry.boot() != other.boot) {
                found.push(format!("{} believes the running {} dead", name(node), other.name));
            }
        }
    }
    found
}

/// Returns, in words, a queue of this node that is over its bound.
pub(super) fn overfull(world: &World, node: NodeId) -> Option<String> {
    let mut over = None;
    world.machine(node).visit_gauges(&mut |gauge| {
        if gauge.is_over() {
            over = Some(gauge);
        }
    });
    let over = over?;
    let name = &world.machine(node).identity().name;
    Some(format!("{name}: {} {}, at most {} allowed", over.used, over.name, over.max))
}

fn raise(greatest: &mut BTreeMap<String, SharedRecord>, record: &SharedRecord) {
    match greatest.get_mut(record.source.as_str()) {
        Some(known) if order(record, known).is_le() => {}
        Some(known) => *known = record.clone(),
        None => {
            greatest.insert(record.source.as_str().into(), record.clone());
        }
    }
}
