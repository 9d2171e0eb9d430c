//! Nodes that stand still for up to 50 ms now and then, as where processors are short.

use super::harness::World;

/// Parts are moved away from a node that does not answer, and those that are served twice cost copies. But a
/// node that stood still misses nothing, and there is at most one more copy for every second node.
#[test]
fn nodes_that_stand_still_miss_nothing_and_cost_few_copies() {
    for (count, per_mille, seed) in [(5, 2, 1), (5, 50, 2), (30, 10, 1), (30, 50, 2)] {
        let mut world = World::new(count, seed);
        world.cpu_us = 6;
        world.stalls = (per_mille, 5_000, 50_000);
        let records = 3_000 / count;
        let mut published = Vec::new();
        for _ in 0..records {
            let origin = (world.random() % count as u64) as usize;
            published.push((origin, world.publish(origin, 1, 100), world.now_us));
            world.run(60_000);
        }
        world.run(1_000_000);
        let missing: usize = published
            .into_iter()
            .map(|(origin, seq, since_us)| world.delivery(origin, seq, since_us).1)
            .sum();
        let copies = world.copies() as f64 / (records * (count - 1)) as f64;
        assert_eq!(missing, 0, "N={count}, stalls {per_mille} of 1,000");
        assert!(copies <= 1.5, "N={count}, stalls {per_mille} of 1,000: copies {copies}");
    }
}
