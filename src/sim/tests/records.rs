//! Records in the simulated world: whatever the network did, in the end all hold the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};
use crate::sim::{Conditions, NodeId, Start, World};

const SECOND_US: u64 = 1_000_000;
const WALL_US: u64 = 1_763_800_000_000_000;

fn name(index: usize) -> String {
    format!("n{index}")
}

/// Publishes at many nodes, numbering their records as a node does.
#[derive(Default)]
struct Publisher {
    seqs: BTreeMap<usize, u64>,
}

impl Publisher {
    fn publish(&mut self, world: &mut World, node: usize, source: &str) {
        let seq = self.seqs.entry(node).or_default();
        *seq += 1;
        let now_us = WALL_US + world.now_us();
        let payload = Payload::Json(Bytes::from(format!("{}", *seq)));
        let stamp = Stamp::of_data(now_us, payload.bytes());
        let origin = NodeName::parse(&name(node)).expect("name");
        let birth = Birth { origin, boot: 1, seq: *seq };
        let source = Source::parse(source).expect("source");
        let record: SharedRecord = Arc::new(Record::new(source, stamp, payload, birth, now_us, 0));
        world.publish(NodeId(node), &[record]);
    }
}

fn start(world: &mut World, count: usize) {
    let seeds = [World::address_of(NodeId(0))];
    for index in 0..count {
        world.start(Start::new(name(index), if index == 0 { &[] } else { &seeds }));
    }
    let took =
        world.run_until(20 * SECOND_US, |world| (0..count).all(|node| world.live(NodeId(node)) == count));
    assert!(took.is_some(), "they did not find each other");
}

fn hold(world: &World, mut nodes: impl Iterator<Item = usize>, sources: usize) -> bool {
    let first = world.replica(NodeId(0)).records();
    first.len() == sources && nodes.all(|node| world.replica(NodeId(node)).records() == first)
}

#[test]
fn records_reach_everyone() {
    for (seed, loss_per_million) in [(1, 0), (2, 50_000), (3, 100_000)] {
        let mut world = World::new(seed, Conditions::lossy(loss_per_million));
        start(&mut world, 24);
        let mut publisher = Publisher::default();
        for round in 0..120 {
            publisher.publish(&mut world, round % 24, &format!("s/{}", round % 40));
            world.run_us(5_000);
        }
        let took = world.run_until(20 * SECOND_US, |world| hold(world, 0..24, 40));
        assert!(took.is_some_and(|us| us <= 2 * SECOND_US), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_newcomer_gets_what_was_before() {
    let mut world = World::new(4, Conditions::lossy(20_000));
    start(&mut world, 5);
    let mut publisher = Publisher::default();
    for index in 0..300 {
        publisher.publish(&mut world, index % 5, &format!("s/{index}"));
    }
    world.run_us(5 * SECOND_US);
    let late = world.start(Start::new(name(5), &[World::address_of(NodeId(3))]));
    let took = world.run_until(10 * SECOND_US, |world| hold(world, 0..6, 300));
    assert!(took.is_some_and(|us| us <= 3 * SECOND_US), "{took:?}");
    assert!(world.run_until(5 * SECOND_US, |world| world.machine(late).is_reconciled()).is_some());
}

#[test]
fn both_sides_of_a_partition_end_equal() {
    let mut world = World::new(5, Conditions::lossy(20_000));
    start(&mut world, 8);
    let sides: (Vec<NodeId>, Vec<NodeId>) = (0..8).map(NodeId).partition(|node| node.0 < 4);
    world.network.partition(&sides.0, &sides.1);
    let mut publisher = Publisher::default();
    for index in 0..200 {
        publisher.publish(&mut world, index % 8, &format!("s/{}", index % 60));
        world.run_us(100_000);
    }
    world.run_us(10 * SECOND_US);
    assert_ne!(world.replica(NodeId(0)).records(), world.replica(NodeId(7)).records());
    world.network.heal();
    let took = world.run_until(60 * SECOND_US, |world| hold(world, 0..8, 60));
    assert!(took.is_some_and(|us| us <= 20 * SECOND_US), "{took:?}");
}
