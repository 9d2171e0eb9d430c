//! How soon each side of a large cluster knows that all members of the other side are gone, when it is cut in two.
//!
//! Sides of a third of a hundred nodes once needed 20 to 25 s for it, and half of a hundred 17 to 32 s: the news of deaths was
//! spent on the members that were cut off, and rounds of probes began anew, at every node with the same members.

use crate::sim::{Conditions, NodeId, Start, World};

const SECOND_US: u64 = 1_000_000;
/// Longest time until every node of a side of at least a third of the cluster sees that side alone, in microseconds.
const KNOWN_US: u64 = 12 * SECOND_US;
/// Longest time until all see each other again after the cut has healed, in microseconds.
const HEALED_US: u64 = 2 * SECOND_US;

/// Cuts a cluster of `count` nodes in two, of which one has `small`, and mends it.
fn cut_and_heal(seed: u64, count: usize, small: usize) {
    let mut world = World::new(seed, Conditions::lan());
    world.start_known((0..count).map(|index| Start::new(format!("n{index}"), &[])).collect());
    world.run_us(3 * SECOND_US);
    let (one, other): (Vec<NodeId>, Vec<NodeId>) = (0..count).map(NodeId).partition(|node| node.0 < small);
    world.network.partition(&one, &other);
    let sees = |world: &World, side: &[NodeId]| side.iter().all(|node| world.live(*node) == side.len());
    let took = world.run_until(KNOWN_US, |world| sees(world, &one) && sees(world, &other));
    let lacks = |side: &[NodeId]| side.iter().map(|node| world.live(*node) - side.len()).max();
    assert!(took.is_some(), "seed {seed}, {small} of {count}: {:?} and {:?}", lacks(&one), lacks(&other));
    println!("seed {seed}, {small} of {count}: {took:?} us");
    world.run_us(5 * SECOND_US);
    assert!(sees(&world, &one) && sees(&world, &other), "seed {seed}: nobody of the own side is given up");
    world.network.heal();
    let all: Vec<NodeId> = (0..count).map(NodeId).collect();
    let took = world.run_until(HEALED_US, |world| sees(world, &all));
    assert!(took.is_some(), "seed {seed}, {small} of {count}: the sides do not see each other");
    world.run_us(5 * SECOND_US);
    assert!(sees(&world, &all), "seed {seed}: somebody is given up after the healing");
}

#[test]
fn a_third_and_a_half_of_a_hundred_know_soon_that_the_others_are_gone() {
    for (seed, small) in [(0, 33), (1, 33), (2, 50)] {
        cut_and_heal(seed, 100, small);
    }
}

#[test]
fn sides_of_forty_know_soon_that_the_others_are_gone() {
    for (seed, small) in [(3, 13), (4, 13), (5, 20)] {
        cut_and_heal(seed, 40, small);
    }
}
