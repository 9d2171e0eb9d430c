//! How soon everybody has what nodes publish that have just come back.
//!
//! Seven of a hundred nodes came back at the same moment, and what six of them published then reached the others after ten
//! seconds only, by reconciliation: the hash of their new lives was that of an earlier life of another node, so the others
//! took the records for some that they held already.

use crate::record::{Payload, Source};
use crate::sim::{Conditions, Keeps, NodeId, Start, Submission, World};

const SECOND_US: u64 = 1_000_000;
const COUNT: usize = 100;
const VICTIMS: [usize; 7] = [99, 7, 23, 30, 31, 34, 35];
/// Longest time until all nodes have what was published, once all that came back have published, in microseconds.
const SPREAD_US: u64 = SECOND_US;

fn publish(world: &mut World, node: usize, source: &str) {
    let source = Source::parse(source).expect("a source");
    world.accept(NodeId(node), vec![Submission { source, payload: Payload::Json("1".into()), ttl_ms: 0 }]);
}

/// Publishes at each node that has come back as soon as it has compared its records. All do so within a second.
fn publish_when_ready(world: &mut World) {
    let mut waiting = VICTIMS.to_vec();
    for _ in 0..100 {
        world.run_us(10_000);
        waiting.retain(|&node| {
            let is_ready = world.machine(NodeId(node)).is_reconciled() && world.live(NodeId(node)) > 1;
            if is_ready {
                publish(world, node, &format!("after/{node}"));
            }
            !is_ready
        });
    }
    assert!(waiting.is_empty(), "{waiting:?} are not ready");
}

#[test]
fn what_nodes_publish_when_they_come_back_reaches_all_at_once() {
    for seed in 0..3 {
        let mut world = World::new(seed, Conditions::lan());
        world.start_known((0..COUNT).map(|index| Start::new(format!("n{index}"), &[])).collect());
        (0..COUNT).for_each(|node| publish(&mut world, node, &format!("before/{node}")));
        world.run_us(3 * SECOND_US);
        VICTIMS.iter().for_each(|&node| world.kill(NodeId(node)));
        world.run_us(5 * SECOND_US);
        let seeds = [World::address_of(NodeId(0))];
        VICTIMS.iter().for_each(|&node| world.restart(NodeId(node), Keeps::Everything, &seeds));
        publish_when_ready(&mut world);
        let lacking = |world: &World| {
            let all = (0..COUNT).flat_map(|node| VICTIMS.map(|victim| (node, format!("after/{victim}"))));
            all.filter(|(node, source)| world.replica(NodeId(*node)).latest(source).is_none()).count()
        };
        let took = world.run_until(SPREAD_US, |world| lacking(world) == 0);
        assert!(took.is_some(), "seed {seed}: {} records are lacking", lacking(&world));
    }
}
