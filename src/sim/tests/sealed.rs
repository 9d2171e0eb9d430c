//! Worlds whose nodes have keys: the real seal, with random bits from the world's seed.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::cluster::seal::{ClusterKey, KeyPhase, Keyring};
use crate::record::{Payload, Source};
use crate::sim::{Conditions, Keeps, NodeId, Start, Submission, World};

const SECOND_US: u64 = 1_000_000;
/// An address at which no node is.
const STRANGER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)), 7946);

/// The keys made of these bytes: the first seals, all open.
fn keyring(keys: &[u8]) -> Keyring {
    let text: String = keys.iter().map(|&byte| ClusterKey::new([byte; 32]).to_text() + "\n").collect();
    Keyring::parse(&text).expect("keys")
}

fn start(world: &mut World, index: usize, keys: &[u8], phase: KeyPhase) -> NodeId {
    let seeds = [World::address_of(NodeId(0))];
    let seeds = if index == 0 { &[][..] } else { &seeds };
    let keys = (!keys.is_empty()).then(|| (keyring(keys), phase));
    world.start(Start { keys, ..Start::new(format!("n{index}"), seeds) })
}

/// A cluster of so many nodes that have one key.
fn sealed(seed: u64, count: usize, conditions: Conditions) -> World {
    let mut world = World::new(seed, conditions);
    for index in 0..count {
        start(&mut world, index, &[1], KeyPhase::Require);
    }
    wait_whole(&mut world, count);
    world
}

fn wait_whole(world: &mut World, count: usize) {
    let is_whole = |world: &World| (0..count).all(|node| world.live(NodeId(node)) == count);
    let took = world.run_until(30 * SECOND_US, is_whole);
    let live: Vec<usize> = (0..count).map(|node| world.live(NodeId(node))).collect();
    assert!(took.is_some(), "they see {live:?} of {count}");
}

fn accept(world: &mut World, node: usize, source: &str, data: String) {
    let source = Source::parse(source).expect("a source");
    world.accept(NodeId(node), vec![Submission { source, payload: Payload::Json(data.into()), ttl_ms: 0 }]);
}

/// Lets every node publish some records, one of which is pulled over a stream.
fn publish(world: &mut World, count: usize, round: usize) {
    for node in 0..count {
        for number in 0..5 {
            accept(world, node, &format!("s/{node}/{number}"), format!("\"plain {round}\""));
        }
        accept(world, node, &format!("large/{node}"), format!("\"plain {}\"", "x".repeat(100_000 + round)));
    }
}

fn wait_equal(world: &mut World, count: usize) {
    let are_equal = |world: &World| {
        let first = world.replica(NodeId(0)).digest();
        (1..count).all(|node| world.replica(NodeId(node)).digest() == first)
    };
    let took = world.run_until(60 * SECOND_US, are_equal);
    assert!(took.is_some(), "their records differ");
    assert_eq!(world.deliveries.violations(), []);
}

/// Refused by all nodes: (plain, key, replay, forged).
fn refused(world: &World) -> (u64, u64, u64, u64) {
    let mut all = (0, 0, 0, 0);
    for node in 0..world.nodes() {
        let refused = world.machine(NodeId(node)).stats().refused;
        all.0 += refused.plain;
        all.1 += refused.key;
        all.2 += refused.replay;
        all.3 += refused.forged;
    }
    all
}

fn rekey(world: &mut World, node: usize, keys: &[u8]) {
    let keyring = keyring(keys);
    if let Some(keys) = &mut world.nodes[NodeId(node)].config.keys {
        keys.keyring = keyring.clone();
    }
    world.with(NodeId(node), |machine, replica, now| machine.handle_keys(now, &keyring, replica));
}

#[test]
fn a_sealed_cluster_does_what_a_plain_one_does() {
    for (seed, loss_per_million) in [(1, 0), (2, 50_000), (3, 100_000)] {
        let mut world = World::new(seed, Conditions::lossy(loss_per_million));
        world.recorded = Some(Vec::new());
        for index in 0..8 {
            start(&mut world, index, &[1], KeyPhase::Require);
        }
        wait_whole(&mut world, 8);
        (0..5).for_each(|round| {
            publish(&mut world, 8, round);
            world.run_us(SECOND_US);
        });
        world.restart(NodeId(3), Keeps::Nothing, &[World::address_of(NodeId(0))]);
        world.run_us(SECOND_US);
        wait_whole(&mut world, 8);
        wait_equal(&mut world, 8);
        let (plain, key, replay, forged) = refused(&world);
        assert_eq!((plain, key, forged), (0, 0, 0), "seed {seed}");
        assert!(replay < 2_000, "{replay} of the network's duplicates, and for a life that is over");
        let sent = world.recorded.take().unwrap_or_default();
        assert!(sent.iter().all(|(_, _, bytes)| matches!(bytes[..2], [b'a', b'S' | b's'])));
        assert!(!sent.iter().any(|(_, _, bytes)| bytes.windows(6).any(|part| part == b"plain ")));
        let short = sent.iter().filter(|(_, _, bytes)| bytes[1] == b's').count();
        assert!(short * 10 > sent.len() * 9, "{short} of {} headers are short", sent.len());
    }
}

#[test]
fn runs_with_keys_can_be_repeated() {
    let digest = |seed| {
        let mut world = sealed(seed, 4, Conditions::lossy(20_000));
        publish(&mut world, 4, 0);
        world.run_us(SECOND_US);
        world.digest()
    };
    assert_eq!(digest(5), digest(5));
    assert_ne!(digest(5), digest(6));
}

#[test]
fn who_has_no_key_or_an_old_one_gets_nothing() {
    let mut world = sealed(4, 4, Conditions::lan());
    publish(&mut world, 4, 0);
    world.run_us(SECOND_US);
    let before = refused(&world);
    let plain = start(&mut world, 4, &[], KeyPhase::Require);
    let old = start(&mut world, 5, &[9], KeyPhase::Require);
    world.run_us(20 * SECOND_US);
    for stranger in [plain, old] {
        assert_eq!(world.live(stranger), 1, "it is alone");
        assert_eq!(world.machine(stranger).stats().datagrams_received, 0, "nobody answers it");
        assert_eq!(world.replica(stranger).digest().0, 0);
    }
    for node in 0..4 {
        assert_eq!(world.live(NodeId(node)), 4);
        assert!(world.member(NodeId(node), "n4").is_none() && world.member(NodeId(node), "n5").is_none());
    }
    let after = refused(&world);
    assert!(after.0 > before.0 && after.1 > before.1, "{before:?}, then {after:?}");
    assert_eq!((after.2, after.3), (before.2, before.3));
}

/// Sends everything that was recorded to all nodes, from its sender's address and from a stranger's.
fn send_again(world: &mut World, recorded: &[(SocketAddr, SocketAddr, Bytes)], count: usize) -> u64 {
    let mut sent = 0;
    for (at, (from, _, bytes)) in recorded.iter().enumerate() {
        for node in 0..count {
            world.inject(*from, World::address_of(NodeId(node)), bytes.clone());
            world.inject(STRANGER, World::address_of(NodeId(node)), bytes.clone());
            sent += 2;
        }
        if at % 20 == 0 {
            world.run_us(1_000);
        }
    }
    world.run_us(SECOND_US);
    sent
}

#[test]
fn a_recorder_that_sends_everything_again_changes_nothing() {
    const COUNT: usize = 4;
    let mut world = World::new(11, Conditions::lan());
    world.recorded = Some(Vec::new());
    for index in 0..COUNT {
        start(&mut world, index, &[1], KeyPhase::Require);
    }
    wait_whole(&mut world, COUNT);
    publish(&mut world, COUNT, 0);
    world.run_us(3 * SECOND_US);
    let recorded = world.recorded.take().unwrap_or_default();
    let copies = |world: &World| world.accounts().copies_received;
    let seeds = [World::address_of(NodeId(0))];
    for round in 0..3 {
        let (before, copied) = (refused(&world), copies(&world));
        let sent = send_again(&mut world, &recorded, COUNT);
        let after = refused(&world);
        let refused = (after.2 - before.2) + (after.3 - before.3);
        assert!(refused * 100 > sent * 95, "round {round}: {refused} of {sent}");
        assert_eq!((after.0, after.1), (before.0, before.1), "round {round}");
        assert_eq!(copies(&world), copied, "round {round}: records came");
        for node in 0..COUNT {
            assert_eq!(world.live(NodeId(node)), COUNT, "round {round}: node {node} lost members");
        }
        // The next time, a node that was restarted gets it, and what it sent in the life before.
        world.restart(NodeId(round), Keeps::Everything, if round == 0 { &[] } else { &seeds });
        if round == 0 {
            let others = [World::address_of(NodeId(1))];
            world.with(NodeId(0), |machine, _, now| machine.handle_seeds(now, &others));
        }
        world.run_us(5 * SECOND_US);
        wait_whole(&mut world, COUNT);
    }
    publish(&mut world, COUNT, 1);
    wait_equal(&mut world, COUNT);
}

#[test]
fn a_cluster_goes_over_to_keys_without_a_stop() {
    const COUNT: usize = 4;
    let mut world = World::new(21, Conditions::lossy(10_000));
    for index in 0..COUNT {
        start(&mut world, index, &[], KeyPhase::Accept);
    }
    wait_whole(&mut world, COUNT);
    let mut round = 0;
    for phase in [KeyPhase::Accept, KeyPhase::Send, KeyPhase::Require] {
        for node in 0..COUNT {
            let secret = world.nodes[NodeId(node)].config.seed.to_le_bytes();
            let mut bits = [node as u8; 32];
            bits[..8].copy_from_slice(&secret);
            world.nodes[NodeId(node)].config.keys = Some(crate::cluster::seal::SealKeys {
                keyring: keyring(&[1]),
                phase,
                secret: crate::cluster::seal::LifeSecret(bits),
            });
            publish(&mut world, COUNT, round);
            round += 1;
            let other = World::address_of(NodeId((node + 1) % COUNT));
            world.restart(NodeId(node), Keeps::Everything, &[other]);
            world.run_us(2 * SECOND_US);
            wait_whole(&mut world, COUNT);
            publish(&mut world, COUNT, round);
            round += 1;
            wait_equal(&mut world, COUNT);
        }
    }
    let (plain, key, _, forged) = refused(&world);
    assert_eq!((plain, key, forged), (0, 0, 0));
    for node in 0..COUNT {
        let keys = world.machine(NodeId(node)).members().into_iter().map(|member| member.keys);
        assert!(keys.into_iter().flatten().all(|keys| keys.phase == KeyPhase::Require));
    }
}

#[test]
fn a_rotation_loses_nothing_and_makes_nobody_suspect() {
    const COUNT: usize = 5;
    let mut world = sealed(31, COUNT, Conditions::lan());
    let mut round = 0;
    for keys in [&[1, 2][..], &[2, 1], &[2]] {
        for node in 0..COUNT {
            rekey(&mut world, node, keys);
            publish(&mut world, COUNT, round);
            round += 1;
            world.run_us(300_000);
            for other in 0..COUNT {
                for member in world.machine(NodeId(other)).members() {
                    assert_eq!(member.state.as_str(), "alive", "{} at {other}", member.identity.name);
                    assert_eq!(member.incarnation, 0, "{} was suspected", member.identity.name);
                }
            }
        }
        world.run_us(5 * SECOND_US);
        for other in 0..COUNT {
            for member in world.machine(NodeId(other)).members() {
                let told = member.keys.expect("every member tells its keys");
                let ids: Vec<_> = keyring(keys).keys().map(ClusterKey::id).collect();
                assert_eq!(
                    (told.seals, &told.opens),
                    (ids.first().copied(), &ids),
                    "{}",
                    member.identity.name
                );
            }
        }
    }
    wait_equal(&mut world, COUNT);
    assert_eq!(refused(&world), (0, 0, 0, 0));
}

#[test]
fn a_rotation_in_the_middle_of_a_partition_heals() {
    const COUNT: usize = 6;
    let sides: [Vec<NodeId>; 2] = [(0..3).map(NodeId).collect(), (3..6).map(NodeId).collect()];
    for is_prepared in [true, false] {
        let mut world = sealed(41, COUNT, Conditions::lossy(10_000));
        if is_prepared {
            (0..COUNT).for_each(|node| rekey(&mut world, node, &[1, 2]));
        }
        world.run_us(SECOND_US);
        world.network.partition(&sides[0], &sides[1]);
        world.run_us(SECOND_US);
        (0..3).for_each(|node| rekey(&mut world, node, &[2, 1]));
        publish(&mut world, COUNT, 0);
        world.run_us(20 * SECOND_US);
        world.network.reunite();
        world.run_us(10 * SECOND_US);
        if !is_prepared {
            // The other side does not have the key that this side seals with.
            assert_eq!(world.live(NodeId(0)), 3);
            assert!(refused(&world).1 > 0);
        }
        (3..COUNT).for_each(|node| rekey(&mut world, node, &[2]));
        (0..3).for_each(|node| rekey(&mut world, node, &[2]));
        let is_whole = |world: &World| (0..COUNT).all(|node| world.live(NodeId(node)) == COUNT);
        assert!(world.run_until(120 * SECOND_US, is_whole).is_some(), "prepared: {is_prepared}");
        wait_equal(&mut world, COUNT);
        assert_eq!(refused(&world).3, 0);
    }
}
