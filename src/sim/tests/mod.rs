//! The world itself: repeatable, and telling the truth about failures.

mod life;
mod membership;
mod network;
mod records;

use super::*;

fn digest_of(seed: u64) -> u64 {
    let mut world = World::new(seed, Conditions::lossy(50_000));
    let first = world.start(Start::new("n0", &[]));
    let seeds = [World::address_of(first)];
    for index in 1..8 {
        world.start(Start::new(format!("n{index}"), &seeds));
    }
    world.run_us(3_000_000);
    world.kill(NodeId(3));
    world.run_us(3_000_000);
    world.digest()
}

#[test]
fn same_seed_same_run() {
    assert_eq!(digest_of(7), digest_of(7));
    assert_ne!(digest_of(7), digest_of(8));
}
