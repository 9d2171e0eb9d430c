//! Networks with large frames, whose datagrams hold more records, and one that carries less from some time on.

use bytes::Bytes;

use crate::cluster::seal::{ClusterKey, KeyPhase, Keyring};
use crate::record::{Payload, Source};
use crate::sim::{Conditions, NodeId, Start, Submission, World};

const SECOND_US: u64 = 1_000_000;
const NODES: usize = 4;
/// Largest datagram of a network with large frames, in bytes, headers included.
const LARGE_FRAME_BYTES: usize = 9_000;

/// A whole cluster, with a key if `is_sealed` is set.
fn cluster(seed: u64, is_sealed: bool) -> World {
    let conditions = Conditions { path_bytes: LARGE_FRAME_BYTES, cpu_us: 6, ..Conditions::lan() };
    let mut world = World::new(seed, conditions);
    let keyring = Keyring::parse(&(ClusterKey::new([7; 32]).to_text() + "\n")).expect("a key");
    for index in 0..NODES {
        let seeds = [World::address_of(NodeId(0))];
        let keys = is_sealed.then(|| (keyring.clone(), KeyPhase::Require));
        let seeds = if index == 0 { &[][..] } else { &seeds };
        world.start(Start { keys, ..Start::new(format!("n{index}"), seeds) });
    }
    let is_whole = |world: &World| (0..NODES).all(|node| world.live(NodeId(node)) == NODES);
    assert!(world.run_until(30 * SECOND_US, is_whole).is_some());
    world
}

/// Lets every node accept 30 records a millisecond for some time; returns the mean size of the datagrams meanwhile.
fn load(world: &mut World, for_ms: usize) -> u64 {
    let before = *world.network.traffic();
    for round in 0..for_ms {
        for node in 0..NODES {
            let submissions = (0..30).map(|number| Submission {
                source: Source::parse(&format!("s/{node}/{}", (round * 30 + number) % 500))
                    .expect("a source"),
                payload: Payload::Json(Bytes::from(format!("\"{round:0100}\""))),
                ttl_ms: 0,
            });
            world.accept(NodeId(node), submissions.collect());
        }
        world.run_us(1_000);
    }
    let after = world.network.traffic();
    (after.sent_bytes - before.sent_bytes) / (after.sent - before.sent)
}

/// Waits until all nodes hold the same.
fn settle(world: &mut World) {
    let are_equal = |world: &World| {
        let mut digests = (0..NODES).map(|node| world.replica(NodeId(node)).digest());
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    };
    assert!(world.run_until(10 * SECOND_US, are_equal).is_some(), "the nodes differ");
    assert_eq!(world.deliveries.violations(), []);
}

#[test]
fn large_frames_are_used_and_given_up_again() {
    for is_sealed in [false, true] {
        let mut world = cluster(3, is_sealed);
        load(&mut world, 300);
        let large = load(&mut world, 100);
        assert!(large > 1_500, "{large} bytes a datagram");
        settle(&mut world);
        world.network.conditions.path_bytes = 1_500;
        load(&mut world, 600);
        let small = load(&mut world, 100);
        assert!(small < 1_300, "{small} bytes a datagram");
        settle(&mut world);
        for node in 0..NODES {
            assert_eq!(world.machine(NodeId(node)).stats().corrupt, 0);
        }
        let live: Vec<usize> = (0..NODES).map(|node| world.live(NodeId(node))).collect();
        assert_eq!(live, [NODES; NODES], "nobody is taken for dead");
    }
}
