//! Tests of single nodes: those that know each other already, restarts, busy processes, and clocks.

use bytes::Bytes;

use crate::record::{Payload, SharedRecord, Source};
use crate::sim::{Conditions, Keeps, NodeId, Start, Submission, World};

const SECOND_US: u64 = 1_000_000;

fn known(seed: u64, count: usize, conditions: Conditions) -> World {
    let mut world = World::new(seed, conditions);
    let starts = (0..count).map(|index| Start::new(format!("n{index}"), &[])).collect();
    world.start_known(starts);
    world
}

fn value(source: &str, data: &str) -> Submission {
    let payload = Payload::Json(Bytes::copy_from_slice(data.as_bytes()));
    Submission { source: Source::parse(source).expect("source"), payload, ttl_ms: 0 }
}

fn accept(world: &mut World, node: usize, source: &str, data: &str) -> SharedRecord {
    world.accept(NodeId(node), vec![value(source, data)]).pop().expect("it runs")
}

fn are_equal(world: &World) -> bool {
    let mut digests = world.up().map(|id| world.replica(id).digest());
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
}

fn all_see(world: &World, live: usize) -> bool {
    world.up().all(|id| world.live(id) == live)
}

#[test]
fn known_from_before_is_a_cluster_at_once() {
    const COUNT: usize = 300;
    let mut world = known(1, COUNT, Conditions::figures());
    assert!(all_see(&world, COUNT));
    world.run_us(SECOND_US);
    world.deliveries.keep_times(true);
    accept(&mut world, 7, "s", "1");
    world.run_us(SECOND_US);
    assert!(all_see(&world, COUNT) && are_equal(&world));
    let publication = &world.deliveries.publications()[0];
    assert_eq!((publication.applied, publication.times_us.len()), ([COUNT as u32 - 1, 0, 0], COUNT - 1));
    assert!(publication.hops_max <= 3 && publication.last_us <= 5_000, "{publication:?}");
    assert_eq!(world.deliveries.hops().max(), u64::from(publication.hops_max));
    // No node asked for a list of members, and none told news of another.
    assert_eq!(world.accounts().stream_bytes, 0);
    let copies = world.accounts().copies_received;
    assert_eq!(copies, COUNT as u64 - 1);
}

#[test]
fn views_that_differ_grow_together() {
    const COUNT: usize = 100;
    let mut world = World::new(2, Conditions::lan());
    let starts = (0..COUNT).map(|index| Start::new(format!("n{index}"), &[])).collect();
    world.start_known_partly(starts, 50_000);
    let seen: usize = world.up().map(|id| world.live(id)).sum();
    let unknown = COUNT * COUNT - seen;
    assert!((350..650).contains(&unknown), "{unknown} of 9,900");
    assert!(world.run_until(60 * SECOND_US, |world| all_see(world, COUNT)).is_some());
}

#[test]
fn started_again_with_all_it_held_or_nothing() {
    for (seed, keeps) in [(1, Keeps::Everything), (2, Keeps::Nothing), (3, Keeps::Everything)] {
        let mut world = known(seed, 8, Conditions::lossy(20_000));
        world.run_us(SECOND_US);
        (0..50).for_each(|n| {
            accept(&mut world, n % 8, &format!("s/{n}"), "1");
        });
        world.run_us(3 * SECOND_US);
        assert!(are_equal(&world));
        let before = world.account(NodeId(3));
        world.kill(NodeId(3));
        assert!(world.accept(NodeId(3), vec![value("s/0", "9")]).is_empty());
        accept(&mut world, 4, "s/7", "2");
        world.run_us(2 * SECOND_US);
        world.restart(NodeId(3), keeps, &[World::address_of(NodeId(0))]);
        assert_eq!(world.replica(NodeId(3)).digest().0, if keeps == Keeps::Everything { 50 } else { 0 });
        // In its new life, the node numbers its records from one again.
        let record = accept(&mut world, 3, "s/3", "3");
        assert_eq!((record.birth.boot, record.birth.seq), (2, 1));
        let is_healed = |world: &World| all_see(world, 8) && are_equal(world);
        let took = world.run_until(20 * SECOND_US, is_healed);
        assert!(took.is_some_and(|us| us <= 8 * SECOND_US), "seed {seed}: {took:?}");
        assert_eq!(world.replica(NodeId(5)).latest("s/3"), Some(&record));
        assert!(world.account(NodeId(3)).bytes_sent > before.bytes_sent);
        assert_eq!(world.deliveries.violations(), []);
    }
}

/// Bytes on the streams of a stopped process must not reach its next life, whose streams have the same
/// numbers.
#[test]
fn streams_end_with_their_life() {
    let mut world = known(4, 3, Conditions::lan());
    (0..2_000).for_each(|n| {
        accept(&mut world, 0, &format!("s/{n}"), "1");
    });
    world.run_us(SECOND_US);
    for _ in 0..40 {
        world.restart(NodeId(2), Keeps::Nothing, &[World::address_of(NodeId(0))]);
        world.run_us(2_700);
    }
    let took = world.run_until(20 * SECOND_US, |world| all_see(world, 3) && are_equal(world));
    assert!(took.is_some(), "{:?}", world.replica(NodeId(2)).digest());
    assert_eq!(world.machine(NodeId(2)).stats().corrupt, 0);
}

#[test]
fn a_busy_node_does_one_thing_after_the_other() {
    let slow = Conditions { cpu_us: 5_000, delay_us_min: 500, delay_us_max: 500, ..Conditions::lan() };
    let mut world = known(5, 2, slow);
    world.run_us(SECOND_US);
    world.deliveries.keep_times(true);
    accept(&mut world, 0, "a", "1");
    world.run_us(SECOND_US);
    // Sending takes 5 ms, the way half of 1 ms, receiving 5 ms; a probe may come between them.
    let took_us = world.deliveries.publications()[0].last_us;
    assert!((10_500..=30_500).contains(&took_us), "{took_us}");
}

#[test]
fn a_clock_set_back_loses_nothing() {
    let mut world = known(6, 4, Conditions::lan());
    accept(&mut world, 1, "a", "1");
    world.run_us(SECOND_US);
    world.jump_clock(NodeId(1), -3_600_000_000);
    world.jump_clock(NodeId(2), 3_600_000_000);
    let second = accept(&mut world, 1, "a", "2");
    assert!(second.accepted_us < world.wall_us(NodeId(0)));
    world.run_us(SECOND_US);
    assert!(world.up().all(|id| world.replica(id).latest("a") == Some(&second)));
}

#[test]
fn shows_every_event_and_the_node_it_was_for() {
    let (mut world, mut seen) = (known(7, 4, Conditions::lan()), vec![0u32; 4]);
    let mut shown_us = 0;
    world.run_with(SECOND_US, &mut |world, node| {
        assert!(world.now_us() >= shown_us);
        shown_us = world.now_us();
        seen[node.0] += 1;
    });
    assert!(seen.iter().all(|&seen| seen > 4), "{seen:?}");
}
