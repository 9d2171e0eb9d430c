//! The whole of spreading among many nodes, on a network that loses and delays.

use super::harness::{DELAY_US, World, identity};

fn quantile(times: &[u64], per_mille: usize) -> u64 {
    times[(times.len() * per_mille / 1_000).min(times.len() - 1)]
}

#[test]
fn without_loss_everyone_gets_one_copy_in_time() {
    for (count, hops) in [(2, 1), (10, 2), (100, 3), (585, 3), (1_000, 4)] {
        let mut world = World::new(count, count as u64);
        let since_us = world.now_us;
        let origin = count / 2;
        let seq = world.publish(origin, 1, 100);
        world.run(1_000_000);
        let (times, missing) = world.delivery(origin, seq, since_us);
        assert_eq!(missing, 0, "N={count}");
        assert!(*times.last().unwrap() <= u64::from(world.hops_max) * DELAY_US.1 + 500);
        assert!(world.hops_max <= hops, "{} hops at N={count}", world.hops_max);
        assert_eq!(world.copies(), count as u64 - 1, "N={count}");
        let parts: usize = world.nodes.iter().map(|node| node.parts_sent).sum();
        assert_eq!(parts, count - 1);
        assert!(world.nodes.iter().all(|node| node.spread.duties.is_empty()));
    }
}

#[test]
fn loss_costs_few_copies_and_little_time() {
    for (loss, copies_max) in [(50, 1.05), (100, 1.10)] {
        for count in [10, 100, 1_000] {
            let mut world = World::new(count, 7 + loss);
            world.loss = loss;
            let records = 4_000 / count as u64 + 20;
            let mut all = Vec::new();
            for _ in 0..records {
                let origin = (world.random() % count as u64) as usize;
                let since_us = world.now_us;
                let seq = world.publish(origin, 1, 100);
                world.run(60_000);
                let (times, missing) = world.delivery(origin, seq, since_us);
                all.extend(times);
                all.extend(std::iter::repeat_n(u64::MAX, missing));
            }
            all.sort_unstable();
            let copies = world.copies() as f64 / (records as f64 * (count - 1) as f64);
            let resent: u64 = world.nodes.iter().map(|node| node.spread.stats().resent_bytes).sum();
            let data: u64 = world.nodes.iter().map(|node| node.spread.stats().data_bytes_sent).sum();
            let control: u64 = world.nodes.iter().map(|node| node.spread.stats().control_bytes_sent).sum();
            let redelegated: u64 = world.nodes.iter().map(|node| node.spread.stats().redelegated).sum();
            println!(
                "loss {loss} N={count} copies {copies:.4} resent {:.3} control {:.2} redelegated {redelegated} p50 {} p99 {} p99.9 {} max {}",
                resent as f64 / data as f64,
                control as f64 / data as f64,
                quantile(&all, 500),
                quantile(&all, 990),
                quantile(&all, 999),
                all.last().unwrap()
            );
            assert!(copies <= copies_max, "{copies}");
        }
    }
}

/// The first record after half of the nodes died at once, before anybody was declared dead.
#[test]
fn survivors_are_served_before_the_dead_are_known() {
    let count = 1_000;
    let mut all = Vec::new();
    for seed in 1..=3 {
        let mut world = World::new(count, seed);
        for _ in 0..10 {
            let origin = (world.random() % count as u64) as usize;
            world.publish(origin, 1, 100);
            world.run(20_000);
        }
        for index in 1..count {
            world.nodes[index].is_up = world.random() % 2 == 0;
        }
        let since_us = world.now_us;
        let seq = world.publish(0, 1, 100);
        world.run(200_000);
        let (times, missing) = world.delivery(0, seq, since_us);
        println!(
            "seed {seed}: p50 {} p99 {} max {} missing {missing} of {}",
            quantile(&times, 500),
            quantile(&times, 990),
            times.last().unwrap(),
            times.len() + missing
        );
        all.extend(times);
    }
    all.sort_unstable();
    assert!(quantile(&all, 990) <= 35_000, "p99 {}", quantile(&all, 990));
}

#[test]
fn members_that_many_do_not_know_are_found() {
    let count = 1_000;
    let mut world = World::new(count, 5);
    for index in 0..count {
        let mut ring = (*world.nodes[index].ring).clone();
        let me = identity(index).ring_hash();
        for entry in world.nodes[index].ring.clone().entries() {
            if world.random() % 50 == 0 && entry.hash != me {
                ring.remove(entry.hash, entry.name().as_str());
            }
        }
        world.see(index, ring);
    }
    let records = 40;
    let mut missed = 0;
    for round in 0..records {
        let origin = (round * 23) % count;
        let since_us = world.now_us;
        let seq = world.publish(origin, 1, 100);
        world.run(30_000);
        missed += world.delivery(origin, seq, since_us).1;
    }
    let share = missed as f64 / (records * count) as f64;
    let copies = world.copies() as f64 / (records * count) as f64;
    println!("missed {:.4} % copies {copies:.4}", share * 100.0);
    assert!(share <= 0.0005, "{share}");
    for _ in 0..30 {
        world.probe_all();
        world.run(300_000);
    }
    let missing: usize = (0..records).map(|round| world.missing((round * 23) % count, 1, 1)).sum();
    assert_eq!(missing, 0, "after gaps were asked for");
}
