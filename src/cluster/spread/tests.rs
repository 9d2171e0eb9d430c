//! The whole of spreading among many nodes, on a network that loses and delays.

use super::harness::{DELAY_US, World};

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
