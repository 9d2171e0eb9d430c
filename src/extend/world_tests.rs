//! Who runs what in a simulated cluster of a hundred nodes, through deaths, rejoins and a partition: every node elects by
//! itself from the members that it sees.

use std::collections::BTreeMap;

use super::election;
use crate::cluster::members::State;
use crate::sim::{Conditions, Keeps, NodeId, Start, World};

const SECOND_US: u64 = 1_000_000;
const NODES: usize = 100;
const TASKS: usize = 1_000;
/// Longest time until every definition is run by exactly one member, after a death and after a partition.
const MOVED_US: u64 = 5 * SECOND_US;

fn name(index: usize) -> String {
    format!("n{index}")
}

/// The members that a node sees alive, which are the candidates that it elects from.
fn view(world: &World, node: usize) -> Vec<usize> {
    let is_alive =
        |other: &usize| *other == node || world.state(NodeId(node), &name(*other)) == Some(State::Alive);
    (0..NODES).filter(is_alive).collect()
}

/// Returns the members that run each definition: those of `nodes` that elect themselves.
fn runners(world: &World, nodes: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut elected = BTreeMap::<Vec<usize>, Vec<usize>>::new();
    let mut runners = vec![Vec::new(); TASKS];
    for node in nodes {
        let view = view(world, node);
        let winners = elected.entry(view).or_insert_with_key(|view| {
            let names: BTreeMap<String, usize> = view.iter().map(|index| (name(*index), *index)).collect();
            let elect = |task: usize| {
                let winner = election::runner(&format!("pull/{task}"), names.keys().map(String::as_str));
                names[winner.expect("a candidate")]
            };
            (0..TASKS).map(elect).collect()
        });
        let own = winners.iter().enumerate().filter(|(_, winner)| **winner == node);
        own.for_each(|(task, _)| runners[task].push(node));
    }
    runners
}

fn is_one_each(runners: &[Vec<usize>]) -> bool {
    runners.iter().all(|runners| runners.len() == 1)
}

/// Looks ten times a second until every definition is run by exactly one of `nodes`. Returns how long it took.
fn until_one_each(world: &mut World, max_us: u64, nodes: &[usize]) -> u64 {
    let mut took_us = 0;
    while !is_one_each(&runners(world, nodes.iter().copied())) {
        assert!(took_us < max_us, "some are run by none or several after {took_us} us");
        world.run_us(SECOND_US / 10);
        took_us += SECOND_US / 10;
    }
    took_us
}

#[test]
fn each_definition_is_run_by_one_member_through_deaths_partitions_and_rejoins() {
    let mut world = World::new(11, Conditions::lan());
    world.start_known((0..NODES).map(|index| Start::new(name(index), &[])).collect());
    let all: Vec<usize> = (0..NODES).collect();
    until_one_each(&mut world, 20 * SECOND_US, &all);

    // Evenly: ten for each, with the spread that chance has.
    let mut counts = [0; NODES];
    runners(&world, all.iter().copied()).iter().flatten().for_each(|runner| counts[*runner] += 1);
    assert!(counts.iter().all(|count| (1..=26).contains(count)), "{counts:?}");

    // Deaths, one after another and several at once.
    let mut dead = Vec::new();
    for victims in [vec![3], vec![40, 41, 42], vec![99, 7, 23, 64, 65, 66]] {
        victims.iter().for_each(|victim| world.kill(NodeId(*victim)));
        dead.extend(victims);
        let alive: Vec<usize> = all.iter().copied().filter(|node| !dead.contains(node)).collect();
        let took_us = until_one_each(&mut world, MOVED_US, &alive);
        assert!(took_us > 0, "the dead ran some");
    }
    let seeds = [World::address_of(NodeId(0))];
    dead.iter().for_each(|node| world.restart(NodeId(*node), Keeps::Everything, &seeds));
    until_one_each(&mut world, MOVED_US, &all);

    // A partition: at most one on each side at any time, soon exactly one, and one again when it is over.
    let (left, right) = all.split_at(NODES / 3);
    let ids = |side: &[usize]| -> Vec<NodeId> { side.iter().map(|node| NodeId(*node)).collect() };
    world.network.partition(&ids(left), &ids(right));
    let is_whole = (0..30).any(|_| {
        world.run_us(SECOND_US);
        [left, right].iter().all(|side| {
            let runners = runners(&world, side.iter().copied());
            assert!(runners.iter().all(|runners| runners.len() <= 1), "two of one side run the same");
            is_one_each(&runners)
        })
    });
    assert!(is_whole, "each side runs every definition");
    world.network.heal();
    until_one_each(&mut world, MOVED_US, &all);
}
