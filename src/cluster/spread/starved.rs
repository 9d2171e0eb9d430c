//! What a starved cluster sends, printed; every other figure is a row of `anode sim table`:
//! `cargo test --release --lib spread::starved -- --ignored --nocapture`.

use super::harness::World;

#[test]
#[ignore = "prints figures"]
fn copies_where_nodes_stand_still() {
    for (count, per_mille, seed) in [5, 30, 300]
        .into_iter()
        .flat_map(|count| [2, 10, 50].map(|per_mille| (count, per_mille)))
        .flat_map(|(count, per_mille)| [1, 2].map(|seed| (count, per_mille, seed)))
    {
        let mut world = World::new(count, seed);
        world.cpu_us = 6;
        world.stalls = (per_mille, 5_000, 50_000);
        let records = 10_000 / count;
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
        println!("N={count} stalls {per_mille} of 1,000, seed {seed}: copies {copies:.4}, missing {missing}");
    }
}
