//! Records in the simulated world: whatever the network does, all nodes hold the same records at the end.

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

/// Makes a record as the node of this number accepts it.
fn record(node: usize, boot: u64, seq: u64, source: &str, accepted_us: u64) -> SharedRecord {
    let payload = Payload::Json(Bytes::from(format!("{seq}")));
    let stamp = Stamp::of_data(accepted_us, payload.bytes());
    let birth = Birth { origin: NodeName::parse(&name(node)).expect("name"), boot, seq };
    let source = Source::parse(source).expect("source");
    Arc::new(Record::new(source, stamp, payload, birth, accepted_us, 0))
}

/// Publishes records at many nodes, and numbers them as nodes do.
#[derive(Default)]
struct Publisher {
    seqs: BTreeMap<usize, u64>,
}

impl Publisher {
    fn publish(&mut self, world: &mut World, node: usize, source: &str) {
        let seq = self.seqs.entry(node).or_default();
        *seq += 1;
        let record = record(node, 1, *seq, source, WALL_US + world.now_us());
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

/// Records that are too large for datagrams are announced in them, and pulled over streams. Where streams
/// lose pieces and wait for them, a reconciliation may be done before a pull is.
#[test]
fn large_records_reach_everyone() {
    for (conditions, copies_min, us_max) in
        [(Conditions::lan(), 66, 100_000), (Conditions::lossy(20_000), 33, 2 * SECOND_US)]
    {
        let mut world = World::new(12, conditions);
        start(&mut world, 12);
        for node in 0..6 {
            let accepted_us = WALL_US + world.now_us();
            let data = Bytes::from(vec![node as u8; 300_000]);
            let stamp = Stamp::of_data(accepted_us, &data);
            let birth = Birth { origin: NodeName::parse(&name(node)).expect("name"), boot: 1, seq: 1 };
            let source = Source::parse(&format!("large/{node}")).expect("source");
            let record = Record::new(source, stamp, Payload::Binary(data), birth, accepted_us, 0);
            world.publish(NodeId(node), &[Arc::new(record)]);
        }
        let took = world.run_until(5 * SECOND_US, |world| hold(world, 0..12, 6));
        let copies: u64 = (0..12).map(|node| world.machine(NodeId(node)).stats().data_copies_received).sum();
        println!("{took:?}, {copies} copies");
        assert!(took.is_some_and(|us| us <= us_max), "{took:?}");
        assert!((copies_min..=70).contains(&copies), "{copies} copies of 66 that are needed");
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

/// cortexproject/cortex#4420, #4010: deleted data came back. Here a node was away for longer than deletions
/// are kept, hears new records before it meets a member to reload from, and has accepted records that no
/// other node has.
#[test]
fn a_node_away_for_too_long_brings_nothing_back_and_keeps_its_own() {
    const HOUR_US: u64 = 3_600 * SECOND_US;
    for seed in 0..5 {
        let mut world = World::new(seed, Conditions::lossy(50_000));
        start(&mut world, 4);
        let mut publisher = Publisher::default();
        for index in 0..40 {
            publisher.publish(&mut world, index % 4, &format!("s/{index}"));
        }
        world.run_us(3 * SECOND_US);
        let agreed_us = WALL_US - 30 * HOUR_US;
        let mut records: Vec<SharedRecord> = (0..50)
            .map(|seq| record(1, 0, seq + 1, &format!("deleted/{seq}"), agreed_us - HOUR_US))
            .collect();
        records.push(record(4, 1, 7, "deleted/own", agreed_us - 1));
        records.push(record(4, 1, 8, "own/new", agreed_us + HOUR_US));
        let seeds = [World::address_of(NodeId(0))];
        let late = Start { boot: 2, agreed_us: Some(agreed_us), records, ..Start::new(name(4), &seeds) };
        let late = world.start(late);
        for index in 0..200 {
            publisher.publish(&mut world, index % 4, &format!("live/{index}"));
            world.run_us(2_000);
        }
        let took = world.run_until(20 * SECOND_US, |world| hold(world, 0..5, 241));
        assert!(took.is_some(), "seed {seed}: {} held", world.replica(late).records().len());
        assert!(world.machine(late).is_reconciled());
        assert!(world.replica(NodeId(0)).records().contains_key("own/new"));
        assert!(world.replica(NodeId(0)).records().keys().all(|source| !source.starts_with("deleted/")));
        // Heads claim no more than is held: those of the newcomer equal the others' at the end.
        assert!(
            world
                .run_until(20 * SECOND_US, |world| {
                    let heads = world.machine(NodeId(0)).heads();
                    (0..4).all(|node| {
                        let line = (NodeName::parse(&name(node)).expect("name"), 1);
                        world.machine(late).heads().get(&line) == heads.get(&line)
                    })
                })
                .is_some()
        );
    }
}

/// hashicorp/memberlist#299: membership traffic starved user data at 1,000 nodes. Half of the cluster
/// joins at once and a quarter dies while records are published.
#[test]
fn news_of_members_do_not_hold_up_records() {
    let mut world = World::new(11, Conditions::lan());
    start(&mut world, 64);
    let seeds = [World::address_of(NodeId(0))];
    (64..128).for_each(|index| {
        world.start(Start::new(name(index), &seeds));
    });
    (32..64).for_each(|node| world.kill(NodeId(node)));
    let mut publisher = Publisher::default();
    for index in 0..50 {
        publisher.publish(&mut world, index % 32, &format!("s/{index}"));
        let since_us = world.now_us();
        let source = format!("s/{index}");
        let took = world.run_until(SECOND_US, |world| {
            (0..32).all(|node| world.replica(NodeId(node)).latest(&source).is_some())
        });
        assert!(took.is_some_and(|us| us <= 150_000), "{source} at {since_us}: {took:?}");
    }
}
