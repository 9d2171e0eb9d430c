//! Members that do not reach each other, and members that take part from their first answer on.

use std::sync::Arc;

use super::*;
use crate::cluster::Replicated;
use crate::cluster::members::State;
use crate::cluster::outbox::Awaited;
use crate::record::{Birth, NodeName, Record, SharedRecord, Stamp};

const SECOND_US: u64 = 1_000_000;

fn record(node: NodeId, seq: u64) -> SharedRecord {
    let data = seq.to_string();
    let birth = Birth { origin: NodeName::parse(&format!("n{}", node.0)).expect("name"), boot: 1, seq };
    let stamp = Stamp::of_data(1_763_800_000_000_000 + seq, data.as_bytes());
    let source = Source::parse(&format!("s/{}", node.0)).expect("source");
    Arc::new(Record::new(source, stamp, Payload::Json(data.into()), birth, 0, 0))
}

/// Publishes one record that waits for all members.
fn publish(world: &mut World, node: NodeId, seq: u64) {
    let record = record(node, seq);
    let (source, birth) = (record.source.clone(), record.birth.clone());
    let awaited = Awaited { token: seq, source, stamp: record.stamp, birth, is_fresh: true };
    world.publish_awaited(node, awaited, &[record]);
}

/// Two nodes that met through others were alive to each other, because the others told of them. All answers of the
/// level `replicated` at each waited for the other one until their time was over.
#[test]
fn two_that_meet_through_others_take_no_part_at_each_other() {
    for others in [1, 5] {
        let mut world = World::new(others as u64, Conditions::lan());
        let (one, two) = (NodeId(others), NodeId(others + 1));
        world.network.partition(&[one], &[two]);
        let seeds = [World::address_of(NodeId(0))];
        for index in 0..others + 2 {
            let seeds = if index == 0 { &[][..] } else { &seeds };
            world.start(Start::new(format!("n{index}"), seeds));
        }
        let names = [format!("n{}", one.0), format!("n{}", two.0)];
        let is_so = |world: &World| {
            let apart = world.state(one, &names[1]) == Some(State::Joining)
                && world.state(two, &names[0]) == Some(State::Joining);
            apart && (0..others).all(|node| world.live(NodeId(node)) == others + 2)
        };
        let took = world.run_until(10 * SECOND_US, is_so);
        assert!(took.is_some_and(|us| us <= 2 * SECOND_US), "{took:?}");
        world.run_us(2 * SECOND_US);
        let sent = |world: &World| world.machine(one).stats().stream_bytes_sent;
        let before = sent(&world);
        for seq in 1..=100 {
            let from = if seq % 2 == 0 { one } else { two };
            publish(&mut world, from, seq);
            world.run_us(200_000);
            assert!(is_so(&world), "{} others, at {}", others, world.now_us());
            let whole = Replicated { token: seq, nodes: others as u32 + 1, is_whole: true };
            assert_eq!(world.answer(from, seq), Some(whole));
        }
        world.run_us(3 * SECOND_US);
        for node in 0..others + 2 {
            assert_eq!(world.replica(NodeId(node)).digest(), world.replica(NodeId(0)).digest(), "{node}");
        }
        // They agree on who is in the cluster, so lists are not exchanged again and again.
        let before_idle = sent(&world);
        world.run_us(60 * SECOND_US);
        let (busy, idle) = (before_idle - before, sent(&world) - before_idle);
        assert!(idle <= 2_000, "{idle} bytes on streams in a minute, {busy} before");
        world.network.reunite();
        let took = world.run_until(60 * SECOND_US, |world| {
            world.live(one) == others + 2 && world.live(two) == others + 2
        });
        assert!(took.is_some_and(|us| us <= 40 * SECOND_US), "{took:?}");
    }
}

/// Each node judges for itself whether a newcomer answers: with 300 of them that takes no longer than the news.
#[test]
fn a_newcomer_takes_part_everywhere_in_a_second() {
    const COUNT: usize = 300;
    let mut world = World::new(1, Conditions::lossy(20_000));
    world.start_known((0..COUNT).map(|index| Start::new(format!("n{index}"), &[])).collect());
    world.run_us(SECOND_US);
    let newcomer = world.start(Start::new("late", &[World::address_of(NodeId(7))]));
    let took = world.run_until(5 * SECOND_US, |world| world.live(newcomer) == COUNT + 1);
    assert!(took.is_some_and(|us| us <= SECOND_US / 2), "{took:?}");
    let all = |world: &World| (0..COUNT).all(|node| world.live(NodeId(node)) == COUNT + 1);
    let took = world.run_until(5 * SECOND_US, all);
    assert!(took.is_some_and(|us| us <= SECOND_US), "{took:?}");
}
