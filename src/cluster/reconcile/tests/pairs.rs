//! Two nodes that find the same difference at the same time.

use super::world::*;
use crate::cluster::reconcile::SessionPlan;

const TS: u64 = START.wall_us - HOUR_US;
const RECORDS: u64 = 2_000;

/// Two nodes with the same records, except for a few that are newer at one of the two.
fn pair(seed: u64) -> World {
    let mut world = World::new(seed);
    for side in 0..2 {
        let mut map = Map::new();
        for number in 0..RECORDS {
            let is_newer = number % 20 == side * 10;
            map.put(value(number, TS + u64::from(is_newer)));
        }
        world.add(false, |_| {}, map);
    }
    world
}

fn finished(world: &World) -> u64 {
    world.nodes.iter().map(|node| node.machine.stats().sessions_finished).sum()
}

/// An error of our own: both compared in the same second, both began a session, and healing cost twice.
#[test]
fn both_find_the_same_and_one_session_is_held() {
    for seed in 0..40 {
        let mut world = pair(seed);
        world.begin(0, 1, SessionPlan::Whole);
        world.begin(1, 0, SessionPlan::Whole);
        assert!(world.run(|world| world.are_equal() && world.open_streams() == 0), "seed {seed}");
        assert_eq!(finished(&world), 2, "seed {seed}: one session, told by both its ends");
        world.run_us(5 * SECOND_US);
        assert_eq!(finished(&world), 2, "seed {seed}: nothing is left to be done");
    }
}

/// A node does not begin a session with a peer that has begun one with it already.
#[test]
fn no_session_is_begun_with_who_holds_one() {
    for seed in 0..40 {
        let mut world = pair(seed);
        world.begin(0, 1, SessionPlan::Whole);
        for _ in 0..seed {
            world.step();
        }
        world.begin(1, 0, SessionPlan::Whole);
        assert!(world.run(|world| world.are_equal() && world.open_streams() == 0), "seed {seed}");
        assert_eq!(finished(&world), 2, "seed {seed}");
    }
}

/// When the session that is kept is stuck, the other node may begin one of its own.
#[test]
fn a_stuck_session_keeps_nobody_from_another() {
    let mut world = pair(7);
    world.begin(0, 1, SessionPlan::Whole);
    while world.nodes[1].machine.stats().sessions_accepted == 0 {
        assert!(world.step());
    }
    world.frozen = Some(0);
    world.run_us(2 * SECOND_US);
    world.frozen = None;
    assert!(world.run(World::are_equal));
}
