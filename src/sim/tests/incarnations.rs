//! Incarnations that no node can have come to by refuting: what a stranger says of them, and members that believe
//! it.

use std::sync::Arc;

use super::*;
use crate::cluster::members::State;
use crate::cluster::outbox::Awaited;
use crate::cluster::{Replicated, forged_news};
use crate::record::{Birth, NodeName, Payload, Record, Source, Stamp};

const SECOND_US: u64 = 1_000_000;
/// Number of the member whose incarnation is told.
const VICTIM: NodeId = NodeId(4);

fn name(node: NodeId) -> String {
    format!("n{}", node.0)
}

/// Makes a world of four nodes that know each other.
fn four(seed: u64) -> World {
    let mut world = World::new(seed, Conditions::lossy(20_000));
    world.start_known((0..4).map(|index| Start::new(name(NodeId(index)), &[])).collect());
    world.run_us(SECOND_US);
    world
}

/// Publishes the record of this number of a node's first start, for which an answer waits. Returns its token.
fn publish(world: &mut World, node: NodeId, seq: u64) -> u64 {
    let token = 1_000 * node.0 as u64 + seq;
    let data = token.to_string();
    let birth = Birth { origin: NodeName::parse(&name(node)).expect("name"), boot: 1, seq };
    let stamp = Stamp::of_data(1_763_800_000_000_000 + seq, data.as_bytes());
    let source = Source::parse(&format!("s/{}", node.0)).expect("source");
    let record =
        Arc::new(Record::new(source.clone(), stamp, Payload::Json(data.into()), birth.clone(), 0, 0));
    let awaited = Awaited { token, source, stamp, birth, is_fresh: true };
    world.publish_awaited(node, awaited, &[record]);
    token
}

/// Lets time pass while nobody may give up the victim.
fn run_alive(world: &mut World, for_us: u64) {
    world.run_with(for_us, &mut |world, node| {
        let state = world.state(node, &name(VICTIM));
        assert!(!state.is_some_and(State::is_gone), "{state:?} at {} after {} us", node.0, world.now_us());
    });
}

/// The next start of the victim takes a boot number that was not used, and counts its records from one again.
fn starts_with_the_next_boot_number(world: &mut World) {
    world.restart(VICTIM, Keeps::Everything, &[World::address_of(NodeId(0))]);
    let is_back = |world: &World| {
        (0..4).all(|node| {
            let member = world.member(NodeId(node), &name(VICTIM));
            member.is_some_and(|it| it.state == State::Alive && it.identity.boot == 3)
        })
    };
    assert!(world.run_until(20 * SECOND_US, is_back).is_some());
    let (source, payload) = (Source::parse("s/4").expect("source"), Payload::Json("9".into()));
    let record =
        world.accept(VICTIM, vec![Submission { source, payload, ttl_ms: 0 }]).pop().expect("it runs");
    assert_eq!((record.birth.boot, record.birth.seq), (3, 1));
}

/// A stranger told others of a joining member at the greatest incarnation, before they had its own answer, and they
/// held that for good. Its own answer puts that right now. Then the stranger drives up what they hold, in steps that
/// are small enough to be believed. The member cannot refute what it is suspected of there, and was a suspect until
/// it was asked for the last time. It takes a new boot number within a few round trips and lives on, and
/// its records reach everybody as before.
#[test]
fn a_member_that_is_believed_to_be_at_the_greatest_incarnation_lives_on() {
    for seed in 0..4 {
        let mut world = four(seed);
        assert_eq!(world.start(Start::new(name(VICTIM), &[World::address_of(NodeId(0))])), VICTIM);
        let identity = Arc::clone(world.machine(VICTIM).identity());
        let lie = |world: &mut World, to: usize, incarnation: u32, is_accused: bool| {
            let (from, at) = (NodeId((to + 1) % 4), World::address_of(NodeId(to)));
            let bytes = forged_news(("sim", 1), at, &identity, incarnation, is_accused);
            world.forge(World::address_of(from), NodeId(to), bytes);
        };
        (1..4).for_each(|to| lie(&mut world, to, u32::MAX, false));
        let all_see = |world: &World| (0..5).all(|node| world.live(NodeId(node)) == 5);
        assert!(world.run_until(5 * SECOND_US, all_see).is_some(), "seed {seed}");
        let believed = |world: &World, node: usize| {
            world.member(NodeId(node), &name(VICTIM)).expect("known").incarnation
        };
        (0..4).for_each(|node| assert_eq!(believed(&world, node), 0, "seed {seed}, at {node}"));
        let first = publish(&mut world, VICTIM, 1);
        run_alive(&mut world, SECOND_US);
        let whole = |token| Some(Replicated { token, nodes: 5, is_whole: true });
        assert_eq!(world.answer(VICTIM, first), whole(first));

        for step in 1..200 {
            (1..4).for_each(|to| lie(&mut world, to, 1_000 * step, false));
        }
        run_alive(&mut world, 1_000);
        (1..4).for_each(|node| assert_eq!(believed(&world, node), 199_000, "seed {seed}, at {node}"));
        (1..4).for_each(|to| lie(&mut world, to, 199_000, true));
        // Records are under way, at the victim and elsewhere, while it takes a new boot number.
        let mut tokens = Vec::new();
        for seq in 1..20 {
            tokens.push((VICTIM, publish(&mut world, VICTIM, seq + 1)));
            tokens.push((NodeId(2), publish(&mut world, NodeId(2), seq)));
            run_alive(&mut world, 20_000);
        }
        run_alive(&mut world, SECOND_US);
        for node in 0..5 {
            let member = world.member(NodeId(node), &name(VICTIM)).expect("known");
            let numbers = (member.identity.boot, member.identity.start_boot(), member.incarnation);
            assert_eq!((member.state, numbers), (State::Alive, (2, 1, 0)), "seed {seed}, at {node}");
        }
        for (node, token) in tokens {
            let answer = world.answer(node, token);
            assert!(answer.is_some_and(|it| it.is_whole), "seed {seed}: {answer:?} for {token}");
        }

        // Afterwards everything is as before, and the numbers of its records go on.
        let (own, other) = (publish(&mut world, VICTIM, 21), publish(&mut world, NodeId(1), 1));
        run_alive(&mut world, SECOND_US);
        assert_eq!((world.answer(VICTIM, own), world.answer(NodeId(1), other)), (whole(own), whole(other)));
        let victim = NodeName::parse(&name(VICTIM)).expect("name");
        for node in 0..5 {
            let latest = world.replica(NodeId(node)).latest("s/4").expect("it came");
            assert_eq!((latest.birth.boot, latest.birth.seq), (1, 21), "seed {seed}, at {node}");
            let heads = world.machine(NodeId(node)).heads();
            assert_eq!(heads.get(&(victim.clone(), 1)), Some(&21), "seed {seed}, at {node}");
            assert!(!heads.contains_key(&(victim.clone(), 2)), "no records have the new number");
        }
        run_alive(&mut world, 20 * SECOND_US);

        starts_with_the_next_boot_number(&mut world);
        assert_eq!(world.deliveries.violations(), []);
    }
}

/// A stranger tells a member, and all others, that its incarnation is the greatest one, and that it is suspected
/// there, a hundred times. Nobody takes it for dead, and it keeps its boot number, because no member holds
/// that: what a stranger sends must not make all members look at a new life of it.
#[test]
fn a_stranger_that_names_the_greatest_incarnation_changes_nothing() {
    let mut world = four(7);
    assert_eq!(world.start(Start::new(name(VICTIM), &[World::address_of(NodeId(0))])), VICTIM);
    let all_see = |world: &World| (0..5).all(|node| world.live(NodeId(node)) == 5);
    assert!(world.run_until(5 * SECOND_US, all_see).is_some());
    let identity = Arc::clone(world.machine(VICTIM).identity());
    for round in 0..100 {
        for to in 0..5 {
            let (from, at) = (NodeId((to + 1) % 5), World::address_of(NodeId(to)));
            let incarnation = u32::MAX - round % 2;
            let bytes = forged_news(("sim", 1), at, &identity, incarnation, true);
            world.forge(World::address_of(from), NodeId(to), bytes);
        }
        run_alive(&mut world, 100_000);
    }
    run_alive(&mut world, 5 * SECOND_US);
    for node in 0..5 {
        let member = world.member(NodeId(node), &name(VICTIM)).expect("known");
        assert_eq!((member.state, member.identity.boot), (State::Alive, 1), "at {node}");
    }
    let token = publish(&mut world, VICTIM, 1);
    run_alive(&mut world, SECOND_US);
    assert_eq!(world.answer(VICTIM, token), Some(Replicated { token, nodes: 5, is_whole: true }));
}
