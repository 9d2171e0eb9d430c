//! Membership on a large scale: many members, many joins, long times, much loss.

use std::net::SocketAddr;

use crate::cluster::members::State;
use crate::sim::{Conditions, NodeId, Start, World};

const SECOND_US: u64 = 1_000_000;
const DAY_US: u64 = 24 * 3600 * SECOND_US;

fn name(index: usize) -> String {
    format!("n{index}")
}

fn all_see(world: &World, mut nodes: impl Iterator<Item = usize>, live: usize) -> bool {
    nodes.all(|node| world.live(NodeId(node)) == live)
}

/// quickwit-oss/quickwit#6653: the digest outgrew the datagram. A list of two thousand members goes
/// over a stream, in parts; every datagram's size is asserted where it is made.
#[test]
fn a_newcomer_learns_of_two_thousand() {
    const KNOWN: usize = 2_000;
    const RUNNING: usize = 8;
    let mut world = World::new(2, Conditions::lossy(50_000));
    let starts = (0..KNOWN).map(|index| Start::new(name(index), &[])).collect();
    let nodes = world.start_known(starts);
    // Most nodes are killed at once; the run is too short for the others to find that out. The newcomer knows all
    // of them, and takes only those for members that answer it.
    nodes.iter().skip(RUNNING).for_each(|&node| world.kill(node));
    let newcomer = world.start(Start::new("late", &[World::address_of(nodes[0])]));
    let knows = |world: &World| world.machine(newcomer).members().len() > KNOWN;
    let took = world.run_until(2 * SECOND_US, knows);
    assert!(took.is_some_and(|us| us <= SECOND_US), "{took:?}");
    // One whose first answer is lost waits behind the dead, which are pinged again at a bounded rate.
    let took = world.run_until(10 * SECOND_US, |world| world.live(newcomer) == RUNNING + 1);
    assert!(took.is_some_and(|us| us <= 6 * SECOND_US), "{took:?}");
    let stats = world.machine(nodes[0]).stats();
    let bytes = (stats.stream_bytes_sent, stats.bytes_sent);
    assert!(bytes.0 <= 100 * KNOWN as u64 && bytes.1 <= 60_000, "{bytes:?} bytes on streams, in datagrams");
}

/// hashicorp/memberlist#299: membership traffic starved user data at 1,000 nodes. However many nodes join at
/// once through one node, no node sends more than 15 datagrams of gossip per second, and about 14 probes and
/// answers.
#[test]
fn a_storm_of_joins_through_one_seed_is_over_soon_and_bounded() {
    const COUNT: usize = 128;
    let mut world = World::new(1, Conditions::lossy(20_000));
    let first = world.start(Start::new(name(0), &[]));
    let seeds = [World::address_of(first)];
    (1..COUNT).for_each(|index| {
        world.start(Start::new(name(index), &seeds));
    });
    let took = world.run_until(20 * SECOND_US, |world| all_see(world, 0..COUNT, COUNT));
    assert!(took.is_some_and(|us| us <= 4 * SECOND_US), "{took:?}");
    let sent =
        |world: &World| (0..COUNT).map(|node| world.account(NodeId(node)).bytes_sent).collect::<Vec<_>>();
    let before = sent(&world);
    world.run_us(SECOND_US);
    let most = sent(&world).iter().zip(&before).map(|(after, before)| after - before).max();
    assert!(most.is_some_and(|bytes| bytes <= 40_000), "{most:?} bytes in a second");
}

/// hashicorp/consul#719: healthy nodes were taken for dead where datagrams got lost.
#[test]
fn nobody_is_buried_at_ten_percent_loss() {
    const COUNT: usize = 24;
    for seed in 0..2 {
        let mut world = World::new(seed, Conditions::lossy(100_000));
        let starts = (0..COUNT).map(|index| Start::new(name(index), &[])).collect();
        world.start_known(starts);
        for _ in 0..120 {
            world.run_us(SECOND_US / 2);
            assert!(all_see(&world, 0..COUNT, COUNT), "seed {seed}: somebody is gone");
        }
    }
}

/// weaviate/weaviate#10698: members that were declared dead were forgotten, and never probed again. Here the
/// dead are probed for three days, at a cost that does not depend on their number; then they are forgotten,
/// and cost nothing.
#[test]
fn the_dead_are_called_for_days() {
    const DEAD: usize = 12;
    let mut world = World::new(1, Conditions::lan());
    let starts = (0..=DEAD).map(|index| Start::new(name(index), &[])).collect();
    let nodes = world.start_known(starts);
    world.run_us(SECOND_US);
    nodes.iter().skip(1).for_each(|&node| world.kill(node));
    let survivor = nodes[0];
    assert!(world.run_until(120 * SECOND_US, |world| world.live(survivor) == 1).is_some());

    let sent = |world: &World| world.machine(survivor).stats().bytes_sent;
    let before = sent(&world);
    world.run_us(DAY_US);
    let bytes_per_s = (sent(&world) - before) / (DAY_US / SECOND_US);
    assert!(bytes_per_s <= 250, "{bytes_per_s} bytes a second for {DEAD} dead");

    // A node comes back after a day, and knows no other node.
    let address: Option<SocketAddr> = Some(World::address_of(nodes[3]));
    let back = world.start(Start { boot: 2, address, ..Start::new(name(3), &[]) });
    let took = world.run_until(120 * SECOND_US, |world| world.live(survivor) == 2 && world.live(back) == 2);
    assert!(took.is_some(), "nobody called");
    world.kill(back);

    world.run_us(2 * DAY_US);
    assert_eq!(world.state(survivor, &name(3)), Some(State::Dead));
    world.run_us(DAY_US + SECOND_US * 3600);
    assert_eq!(world.machine(survivor).members().len(), 1);
    let before = sent(&world);
    world.run_us(3600 * SECOND_US);
    assert_eq!(sent(&world), before);
}
