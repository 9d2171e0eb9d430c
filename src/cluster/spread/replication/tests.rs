//! The level `replicated` among many nodes: when an answer says so, all nodes that are up hold the record.

use crate::cluster::Replicated;
use crate::cluster::members::State;
use crate::cluster::spread::harness::{World, identity, record, ring_of};
use crate::limits::REPLICATED_US_MAX;

/// The answer of a node to a token, with its time. If it says that all members hold the record, all nodes
/// that are up must hold it at that time.
fn answer(world: &World, node: usize, token: u64) -> Option<(Replicated, u64)> {
    let (replicated, at_us, lacking) = world.answers.get(&(node, token))?;
    assert!(!replicated.is_whole || *lacking == 0, "{replicated:?} while {lacking} lack it");
    Some((*replicated, *at_us))
}

fn whole(world: &World, node: usize, token: u64, nodes: u32) -> u64 {
    let (replicated, at_us) = answer(world, node, token).expect("an answer");
    assert_eq!(replicated, Replicated { token, nodes, is_whole: true });
    at_us
}

#[test]
fn alone_it_is_answered_at_once() {
    let mut world = World::new(1, 1);
    let token = world.publish_awaited(0, 100);
    assert_eq!(whole(&world, 0, token, 1), world.now_us);
    let held = record(&identity(0).name, identity(0).boot, token, 100);
    world.await_held(0, 50, &held, false);
    assert_eq!(whole(&world, 0, 50, 1), world.now_us);
}

#[test]
fn without_loss_the_tree_counts_and_nobody_is_asked() {
    for (count, len) in [(2, 100), (3, 10_000), (10, 100), (100, 100), (100, 5_000), (1_000, 100)] {
        let mut world = World::new(count, count as u64);
        let since_us = world.now_us;
        let token = world.publish_awaited(count / 2, len);
        world.run(3_000_000);
        let took_us = whole(&world, count / 2, token, count as u32) - since_us;
        println!("N={count}, {len} bytes: {took_us} us, {} packets", world.delivered);
        assert!(took_us <= 2 * u64::from(world.hops_max) * 1_500 + 5_000, "{took_us} us at N={count}");
        assert_eq!(world.copies(), count as u64 - 1);
        // There is a receipt for each part, two for each that is passed on, and a report of each of these.
        assert!(len > 1_000 || world.delivered <= 3 * count, "{} packets", world.delivered);
    }
}

#[test]
fn ordinary_records_pay_nothing() {
    let mut world = World::new(50, 3);
    world.on_part = Box::new(|_, _, part| assert!(!part.counted));
    world.publish(0, 20, 100);
    world.run(100_000);
    assert!(world.nodes.iter().all(|node| node.spread.replication.is_unused()));
}

#[test]
fn loss_delays_the_answer_and_never_falsifies_it() {
    for (count, loss, seed) in [(3, 100, 1), (10, 100, 2), (100, 100, 3), (100, 200, 4), (1_000, 100, 5)] {
        let mut world = World::new(count, seed);
        (world.loss, world.duplicates) = (loss, 10);
        let mut times = Vec::new();
        for round in 0..(1_000 / count).clamp(2, 50) {
            let origin = round * 7 % count;
            let since_us = world.now_us;
            let token = world.publish_awaited(origin, 100);
            world.run(1_000_000);
            world.probe_all();
            times.push(whole(&world, origin, token, count as u32) - since_us);
        }
        times.sort_unstable();
        println!("N={count} loss {loss}: {} to {} us", times[0], times[times.len() - 1]);
    }
}

#[test]
fn a_member_that_dies_meanwhile_is_not_waited_for() {
    for (count, victim) in [(3, 2), (100, 17), (300, 250)] {
        let mut world = World::new(count, 9 + count as u64);
        world.nodes[victim].is_up = false;
        let token = world.publish_awaited(0, 100);
        world.run(2_000_000);
        assert_eq!(answer(&world, 0, token), None, "it may still be alive");
        let mut ring = ring_of(count);
        ring.insert(identity(victim), State::Suspect);
        world.see(0, ring.clone());
        assert_eq!(answer(&world, 0, token), None, "it may refute");
        ring.remove(identity(victim).ring_hash(), identity(victim).name.as_str());
        world.see(0, ring);
        assert_eq!(whole(&world, 0, token, count as u32 - 1), world.now_us);
    }
}

/// One relay of the tree is down and no member knows: its part goes to another, and only that relay is asked.
#[test]
fn one_silent_member_costs_few_questions() {
    let mut world = World::new(1_000, 4);
    world.nodes[500].is_up = false;
    let token = world.publish_awaited(0, 100);
    world.run(45_000);
    let before: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
    world.run(REPLICATED_US_MAX);
    let (replicated, _) = answer(&world, 0, token).expect("an answer");
    assert_eq!(replicated, Replicated { token, nodes: 999, is_whole: false });
    let after: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
    println!("{} bytes of questions and answers", after - before);
    assert!(after - before < 120_000, "{} bytes", after - before);
}

#[test]
fn behind_a_cut_it_is_a_timeout_with_the_nodes_reached() {
    for count in [3, 30] {
        let mut world = World::new(count, 5);
        world.is_cut = Box::new(|from, to| (from % 3 == 2) != (to % 3 == 2));
        let since_us = world.now_us;
        let token = world.publish_awaited(0, 100);
        world.run(6_000_000);
        let (replicated, at_us) = answer(&world, 0, token).expect("an answer");
        assert_eq!(replicated, Replicated { token, nodes: count as u32 * 2 / 3, is_whole: false });
        assert_eq!(at_us - since_us, REPLICATED_US_MAX);
    }
}

#[test]
fn views_that_differ_do_not_matter() {
    for seed in 0..4 {
        let count = 200;
        let mut world = World::new(count, 100 + seed);
        for index in 1..count {
            let mut ring = ring_of(count);
            for _ in 0..5 {
                let unknown = 1 + (world.random() % (count as u64 - 1)) as usize;
                if unknown != index {
                    ring.remove(identity(unknown).ring_hash(), identity(unknown).name.as_str());
                }
            }
            world.see(index, ring);
        }
        // The origin knows all members except one, which others know and serve.
        let mut ring = ring_of(count);
        ring.remove(identity(77).ring_hash(), identity(77).name.as_str());
        world.see(0, ring);
        let token = world.publish_awaited(0, 100);
        world.run(4_000_000);
        whole(&world, 0, token, count as u32 - 1);
    }
}

/// Stand-ins serve the parts of members that do not answer, and their parts are counted like any others.
#[test]
fn of_a_tree_with_many_dead_only_they_are_missing() {
    let count = 200;
    let mut world = World::new(count, 12);
    let dead: Vec<usize> = (1..count).filter(|index| index % 5 == 3).collect();
    dead.iter().for_each(|index| world.nodes[*index].is_up = false);
    let token = world.publish_awaited(0, 100);
    world.run(1_000_000);
    assert!(world.nodes.iter().map(|node| node.spread.stats().redelegated).sum::<u64>() > 0);
    let mut ring = ring_of(count);
    for index in &dead[1..] {
        ring.remove(identity(*index).ring_hash(), identity(*index).name.as_str());
    }
    world.see(0, ring.clone());
    assert_eq!(answer(&world, 0, token), None);
    ring.remove(identity(dead[0]).ring_hash(), identity(dead[0]).name.as_str());
    world.see(0, ring);
    assert_eq!(whole(&world, 0, token, (count - dead.len()) as u32), world.now_us);
}

#[test]
fn zones_count_too() {
    for (count, loss) in [(4, 0), (60, 0), (60, 100)] {
        let mut world = World::with_zones(count, 13, |index| ["", "b", "c"][index % 3]);
        world.loss = loss;
        let since_us = world.now_us;
        let token = world.publish_awaited(1, 100);
        world.run(2_000_000);
        let took_us = whole(&world, 1, token, count as u32) - since_us;
        assert!(loss > 0 || took_us < 15_000, "{took_us} us");
    }
}

/// A duplicate or a stale record starts no tree: all members are asked what they hold.
#[test]
fn what_came_before_is_asked_for() {
    let mut world = World::new(50, 6);
    let late = 31;
    world.is_cut = Box::new(move |from, to| from == late || to == late);
    let seq = world.publish(0, 1, 100);
    world.run(500_000);
    let held = record(&identity(0).name, identity(0).boot, seq, 100);
    world.await_held(9, 1, &held, false);
    world.run(1_000_000);
    assert_eq!(answer(&world, 9, 1), None);
    world.is_cut = Box::new(|_, _| false);
    // The member that lacks the record learns that from the question, and asks for the record.
    world.run(2_000_000);
    whole(&world, 9, 1, 50);
    let since_us = world.now_us;
    world.await_held(0, 2, &held, false);
    world.run(100_000);
    assert!(whole(&world, 0, 2, 50) - since_us <= 5_000, "one question, one answer");
}

#[test]
fn many_wait_at_once_and_leave_nothing_behind() {
    let mut world = World::new(20, 8);
    world.loss = 20;
    let tokens: Vec<(usize, u64)> = (0..400)
        .map(|n| {
            let token = world.publish_awaited(n % 5, 100);
            world.run(500);
            (n % 5, token)
        })
        .collect();
    world.run(3_000_000);
    for (node, token) in tokens {
        whole(&world, node, token, 20);
    }
    world.run(10_000_000);
    for node in &mut world.nodes {
        node.spread.sweep();
        assert!(node.spread.replication.is_unused());
    }
}
