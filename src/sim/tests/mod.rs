//! Tests of the world itself: runs can be repeated, whichever threads work on them.

mod incarnations;
mod life;
mod membership;
mod network;
mod paths;
mod reach;
mod records;
mod rejoins;
mod replicated;
mod scale;
mod sealed;
mod sides;
mod world;

use bytes::Bytes;

use super::*;
use crate::record::{Payload, Source};

/// A set of threads that works on the last share first.
struct Backwards(usize);

impl Hands for Backwards {
    fn count(&self) -> usize {
        self.0
    }

    fn work(&mut self, mut shares: Vec<NodeShare>) -> Vec<NodeShare> {
        shares.iter_mut().rev().for_each(NodeShare::work);
        shares
    }
}

/// Runs a world in which everything happens that can. Returns digests of the deliveries and of a map.
fn digest_of(seed: u64, hands: Option<Box<dyn Hands>>) -> (u64, u64) {
    let conditions = Conditions {
        is_bursty: true,
        cpu_us: 6,
        merge_us: 3_000,
        egress_bytes_per_s: 4_000_000,
        between_zones: Some(Delay { min_us: 9_000, max_us: 11_000 }),
        ..Conditions::lossy(50_000)
    };
    let mut world = World::with_hands(seed, conditions, hands);
    let start = |index: usize| {
        let zone = if index < 6 { "west" } else { "east" }.into();
        Start { zone, ..Start::new(format!("n{index}"), &[]) }
    };
    world.start_known_partly((0..10).map(start).collect(), 50_000);
    let seeds = [World::address_of(NodeId(0))];
    for round in 0..30 {
        let payload = Payload::Json(Bytes::from(format!("{round}")));
        let source = Source::parse(&format!("s/{}", round % 9)).expect("source");
        world.accept(NodeId(round % 10), vec![Submission { source, payload, ttl_ms: 0 }]);
        match round {
            3 => world.kill(NodeId(3)),
            6 => world.pause(NodeId(4), 400_000),
            8 => world.network.partition(&[NodeId(0), NodeId(1)], &[NodeId(7), NodeId(8)]),
            12 => world.restart(NodeId(3), Keeps::Everything, &seeds),
            14 => world.jump_clock(NodeId(5), -7_000_000),
            16 => world.restart(NodeId(6), Keeps::Nothing, &seeds),
            18 => world.network.heal(),
            20 => world.network.cut(NodeId(1), NodeId(2)),
            _ => {}
        }
        world.run_us(150_000);
    }
    assert_eq!(world.deliveries.violations(), []);
    (world.digest(), world.replica(NodeId(2)).digest().1)
}

#[test]
fn same_seed_same_run() {
    assert_eq!(digest_of(7, None), digest_of(7, None));
    assert_ne!(digest_of(7, None), digest_of(8, None));
}

#[test]
fn same_run_whoever_works_on_it() {
    for seed in 7..12 {
        for shares in [1, 3] {
            assert_eq!(
                digest_of(seed, Some(Box::new(Backwards(shares)))),
                digest_of(seed, None),
                "seed {seed}"
            );
        }
    }
}
