//! The ack level `replicated` among whole nodes, with membership: an answer never claims too much.

use std::sync::Arc;

use super::*;
use crate::cluster::Replicated;
use crate::cluster::outbox::Awaited;
use crate::limits::REPLICATED_US_MAX;
use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};

fn cluster(world: &mut World, count: usize) -> Vec<NodeId> {
    let first = world.start(Start::new("n0", &[]));
    let seeds = [World::address_of(first)];
    let mut nodes = vec![first];
    for index in 1..count {
        nodes.push(world.start(Start::new(format!("n{index}"), &seeds)));
    }
    let all = |world: &World| nodes.iter().all(|node| world.live(*node) == count);
    world.run_until(20_000_000, all).expect("all see all");
    nodes
}

fn record(node: NodeId, source: &str, seq: u64) -> SharedRecord {
    let data = seq.to_string();
    let name = NodeName::parse(&format!("n{}", node.0)).expect("name");
    let birth = Birth { origin: name, boot: 1, seq };
    let stamp = Stamp::of_data(1_763_800_000_000_000 + seq, data.as_bytes());
    let source = Source::parse(source).expect("source");
    Arc::new(Record::new(source, stamp, Payload::Json(data.into()), birth, 0, 0))
}

fn awaited(record: &SharedRecord, token: u64, is_fresh: bool) -> Awaited {
    let (source, birth) = (record.source.clone(), record.birth.clone());
    Awaited { token, source, stamp: record.stamp, birth, is_fresh }
}

/// Publishes one record that waits for all members, and returns its token.
fn publish(world: &mut World, node: NodeId, seq: u64) -> u64 {
    let record = record(node, &format!("s/{}", node.0), seq);
    world.publish_awaited(node, awaited(&record, seq, true), &[record]);
    seq
}

#[test]
fn whole_while_all_are_there() {
    for (count, loss) in [(1, 0), (2, 0), (3, 100_000), (40, 100_000)] {
        let mut world = World::new(count as u64, Conditions::lossy(loss));
        let nodes = cluster(&mut world, count);
        for seq in 1..=10 {
            let token = publish(&mut world, nodes[count / 2], seq);
            world.run_us(2_000_000);
            let whole = Replicated { token, nodes: count as u32, is_whole: true };
            assert_eq!(world.answer(nodes[count / 2], token), Some(whole), "N={count}");
        }
    }
}

/// A member that refuses a record, because its stamp is more than a day ahead, does not count as holding it. It
/// passes the record on all the same.
#[test]
fn a_member_that_refuses_a_record_does_not_hold_it() {
    for count in [2, 12] {
        let mut world = World::new(3, Conditions::lan());
        let nodes = cluster(&mut world, count);
        // The clocks of all members but one are two days ahead of that one's.
        let slow = nodes[count - 1];
        world.jump_clock(slow, -2 * 24 * 3_600_000_000);
        let ts = world.wall_us(nodes[0]);
        let token = {
            let data = "1".to_owned();
            let birth = Birth { origin: NodeName::parse("n0").expect("name"), boot: 1, seq: 1 };
            let stamp = Stamp::of_data(ts, data.as_bytes());
            let source = Source::parse("s").expect("source");
            let record = Arc::new(Record::new(source, stamp, Payload::Json(data.into()), birth, ts, 0));
            world.publish_awaited(nodes[0], awaited(&record, 1, true), &[record]);
            1
        };
        world.run_us(6_000_000);
        let expected = Replicated { token, nodes: count as u32 - 1, is_whole: false };
        assert_eq!(world.answer(nodes[0], token), Some(expected), "N={count}");
        let holders = nodes.iter().filter(|node| world.replica(**node).latest("s").is_some()).count();
        assert_eq!(holders, count - 1);
    }
}

/// A record that waits for room may be replaced by a newer one of its source: then that one counts.
#[test]
fn what_was_superseded_on_its_way_waits_for_the_newer() {
    let mut world = World::new(3, Conditions::lan());
    let nodes = cluster(&mut world, 5);
    let (first, second) = (record(nodes[0], "s", 1), record(nodes[0], "s", 3));
    let between = record(nodes[0], "other", 2);
    world.publish_awaited(nodes[0], awaited(&first, 1, true), &[between]);
    world.run_us(100_000);
    assert_eq!(world.answer(nodes[0], 1), None, "the batch that covers its number has no record of it");
    world.publish(nodes[0], &[second]);
    world.run_us(20_000);
    assert_eq!(world.answer(nodes[0], 1), Some(Replicated { token: 1, nodes: 5, is_whole: true }));
}

/// A member that is killed is waited for until it is declared dead, and no longer.
#[test]
fn the_dead_are_not_waited_for() {
    for seed in 0..3 {
        let mut world = World::new(seed, Conditions::lan());
        let nodes = cluster(&mut world, 20);
        world.kill(nodes[7 + seed as usize]);
        let token = publish(&mut world, nodes[0], 1);
        world.run_us(50_000);
        assert_eq!(world.answer(nodes[0], token), None);
        let is_answered = |world: &World| world.answer(nodes[0], token).is_some();
        let took_us = world.run_until(REPLICATED_US_MAX, is_answered).expect("an answer");
        assert_eq!(world.answer(nodes[0], token), Some(Replicated { token, nodes: 19, is_whole: true }));
        println!("seed {seed}: answered {took_us} us after the kill");

        world.leave(nodes[15]);
        world.run_us(500_000);
        let token = publish(&mut world, nodes[1], 1);
        world.run_us(100_000);
        assert_eq!(world.answer(nodes[1], token), Some(Replicated { token, nodes: 18, is_whole: true }));
    }
}

#[test]
fn a_partition_is_a_timeout_unless_it_is_a_death() {
    let mut world = World::new(5, Conditions::lan());
    let nodes = cluster(&mut world, 9);
    // Only one direction is cut: the others hear the node, so it is alive, but it hears nothing from them.
    for from in &nodes[..8] {
        world.network.cut(*from, nodes[8]);
    }
    let token = publish(&mut world, nodes[0], 1);
    world.run_us(6_000_000);
    let answer = world.answer(nodes[0], token).expect("an answer");
    assert_eq!(answer.nodes, 8);
    world.network.heal();
    world.run_us(10_000_000);
    // A retry is a duplicate: it is not spread by a tree, but all members are asked.
    let again = awaited(&record(nodes[0], "s/0", 1), 100, false);
    world.publish_awaited(nodes[0], again, &[]);
    world.run_us(100_000);
    let live = world.live(nodes[0]) as u32;
    assert_eq!(world.answer(nodes[0], 100), Some(Replicated { token: 100, nodes: live, is_whole: true }));
}

/// With faults of all kinds, every answer that says "all" is right at that instant, which
/// [`World::publish_awaited`] checks. In half of the worlds, nodes have batches merged by other threads: what has
/// come to a member is not held by it for a while.
#[test]
fn an_answer_never_says_too_much() {
    for seed in 0..4 {
        let merge_us = if seed % 2 == 1 { 40_000 } else { 0 };
        let mut world = World::new(100 + seed, Conditions { merge_us, ..Conditions::lossy(50_000) });
        let nodes = cluster(&mut world, 24);
        let (mut whole, mut late) = (0, 0);
        let mut expected = Vec::new();
        for round in 1..=60u64 {
            let origin = nodes[(round % 5) as usize];
            match round % 12 {
                3 => world.kill(nodes[(5 + round / 12) as usize]),
                5 => world.pause(nodes[(12 + round / 12) as usize], 700_000),
                7 => world.network.partition(&nodes[18..20], &nodes[..18]),
                9 => world.network.heal(),
                _ => {}
            }
            expected.push((origin, publish(&mut world, origin, 1 + round / 5)));
            world.run_us(100_000);
        }
        world.network.heal();
        world.run_us(REPLICATED_US_MAX + 10_000);
        for (origin, token) in expected {
            match world.answer(origin, token).expect("an answer in time").is_whole {
                true => whole += 1,
                false => late += 1,
            }
        }
        println!("seed {}: {whole} whole, {late} late", 100 + seed);
        assert!(whole >= 30, "{whole}");
    }
}
