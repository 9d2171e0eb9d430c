//! Messages from outside: every form survives encoding and decoding, and nothing makes the machine panic.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::fixtures::{self, address, name};
use super::message::{Ack, Claim, Introduction, MembershipFrame, Ping, SwimMessage, Update};
use super::timing::{RETRANSMIT_FACTOR, RETRANSMIT_LOG_MIN};
use super::{Known, Swim, SwimOutput, wire};
use crate::cluster::members::{Identity, State};
use crate::cluster::seal::{BODY_BYTES_MIN, Checksum};
use crate::cluster::wire::{Body, Riders, Said, Wire};
use crate::cluster::{Effect, Machine, MachineConfig, Replica, StreamEvent, StreamId};
use crate::limits::{DATAGRAM_BYTES_MAX, HTTP_ADDRESS_BYTES_MAX, VERSION_BYTES_MAX, ZONE_BYTES_MAX};
use crate::proto::gossip as proto;
use crate::record::Now;
use crate::sim::SimReplica;

fn introduction(member: &str, boot: u64, incarnation: u32) -> Introduction {
    introduction_at(member, boot, incarnation, address(9))
}

fn introduction_at(member: &str, boot: u64, incarnation: u32, gossip: SocketAddr) -> Introduction {
    let identity = Identity::new(name(member), boot, gossip, "10.0.0.9:7070", "z", "0.1.0");
    Introduction { identity: Arc::new(identity), incarnation }
}

fn config(seed: u64) -> MachineConfig {
    MachineConfig { seed, ..fixtures::config("me", 5, 1) }
}

fn machine(seed: u64) -> Machine {
    Machine::new(config(seed), Now::default())
}

/// Takes all effects, and looks at the datagrams among them.
fn drain(machine: &mut Machine) -> usize {
    let mut count = 0;
    while let Some(effect) = machine.poll_effect() {
        if let Effect::Datagram { bytes, .. } = effect {
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        }
        count += 1;
    }
    count
}

#[test]
fn messages_come_back_as_they_went() {
    let said = introduction("a", 3, 2);
    let (sender, introduction) = (name("a"), Some(said.clone()));
    let ping = Ping { sequence: 1, target: 2, sender, view: 3, introduction, padding: 9 };
    let ack = Ack {
        sequence: 1,
        sender: name("a"),
        wall_us: 9,
        view: 3,
        is_unknown: true,
        is_unreached: true,
        is_leaving: true,
        is_joining: true,
        introduction: None,
    };
    let messages = [
        SwimMessage::Ping(ping.clone()),
        SwimMessage::Ack(ack.clone()),
        SwimMessage::PingRequest { sequence: 4, target: 5, address: address(7), sender: name("b") },
        SwimMessage::Nack { sequence: 6 },
        SwimMessage::Refusal { sequence: 7, target: 8, introduction: Some(said.clone()) },
        SwimMessage::NameTaken { name: name("c"), boot: 9, by: address(2), sequence: 3 },
        SwimMessage::Gossip,
    ];
    let alive = Update::alive(&said);
    let updates = vec![
        alive.clone(),
        Update { claim: Claim::Suspect(vec![name("x"), name("y")]), ..alive.clone() },
        Update { claim: Claim::Dead, ..alive.clone() },
        Update { claim: Claim::Left, ..alive },
    ];
    for message in messages {
        let datagram = wire::to_proto(&message, &updates);
        let back: Option<Vec<Update>> = datagram.updates.into_iter().map(wire::update_from_proto).collect();
        assert_eq!(back.as_ref(), Some(&updates));
        assert_eq!(datagram.body.and_then(wire::message_from_proto), Some(message));
    }
    let frames = [
        MembershipFrame::Ping(Ping { padding: 0, ..ping }),
        MembershipFrame::Ack(ack),
        MembershipFrame::List { introduction: Some(said), updates, is_last: true },
    ];
    for frame in frames {
        let bytes = prost::Message::encode_to_vec(&wire::frame_to_proto(&frame));
        assert_eq!(wire::frame_from_bytes(bytes.into()), Some(frame));
    }
}

/// alertmanager#1340: a message larger than the datagram blocked the queue for ever.
#[test]
fn the_largest_member_fits_a_datagram() {
    let long = |length| "x".repeat(length);
    let identity = Identity::new(
        name(&long(63)),
        u64::MAX,
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("address"),
        &long(HTTP_ADDRESS_BYTES_MAX),
        &long(ZONE_BYTES_MAX),
        &long(VERSION_BYTES_MAX),
    );
    let said = Introduction { identity: Arc::new(identity), incarnation: u32::MAX };
    let accusers = (0..4).map(|index| name(&format!("{index}{}", long(62)))).collect();
    let updates = [Update::alive(&said), Update { claim: Claim::Suspect(accusers), ..Update::alive(&said) }];
    let sender = said.identity.name.clone();
    let ping = SwimMessage::Ping(Ping {
        sequence: u32::MAX,
        target: u64::MAX,
        sender,
        view: u64::MAX,
        introduction: Some(said),
        padding: 0,
    });
    for update in updates {
        let room = BODY_BYTES_MIN - super::RIDERS_BYTES;
        assert!(wire::message_bytes(&SwimMessage::Gossip) + wire::update_bytes(&update) <= room);
        assert!(wire::message_bytes(&ping) + wire::update_bytes(&update) <= room + super::RIDERS_BYTES);
    }
}

#[test]
fn members_that_cannot_be_are_refused() {
    let good = wire::to_proto(&SwimMessage::Gossip, &[Update::alive(&introduction("a", 1, 0))]);
    let good = good.updates.into_iter().next().expect("one");
    assert!(wire::update_from_proto(good.clone()).is_some());
    let bad = [
        proto::MemberUpdate { name: String::new(), ..good.clone() },
        proto::MemberUpdate { name: "a b".into(), ..good.clone() },
        proto::MemberUpdate { gossip: "10.0.0.1".into(), ..good.clone() },
        proto::MemberUpdate { gossip: "10.0.0.1:0".into(), ..good.clone() },
        proto::MemberUpdate { gossip: "0.0.0.0:7946".into(), ..good.clone() },
        proto::MemberUpdate { zone: "z".repeat(ZONE_BYTES_MAX + 1), ..good.clone() },
        proto::MemberUpdate { state: 99, ..good },
    ];
    for update in bad {
        assert_eq!(wire::update_from_proto(update.clone()), None, "{update:?}");
    }
}

/// A node that missed a refutation asked the suspect for its last word, was answered without a word
/// about the refutation, and buried it when three more pings were lost.
#[test]
fn who_tells_an_old_suspicion_is_told_the_refutation() {
    let (mut machine, mut wire) = (machine(1), Wire::new("c", 2, Checksum));
    let mut replica = SimReplica::default();
    let me = machine.member("me").expect("itself").identity;
    let doubted = |wire: &mut Wire<Checksum>, incarnation| {
        let claim = Claim::Suspect(vec![name("n1")]);
        let update = Update { name: me.name.clone(), boot: me.boot, incarnation, claim };
        wire.datagram(address(3), Said::Members(SwimMessage::Gossip, vec![update]), Riders::default())
    };
    let told = |machine: &mut Machine, wire: &mut Wire<Checksum>| {
        let mut told = None;
        while let Some(effect) = machine.poll_effect() {
            let Effect::Datagram { to, bytes } = effect else { continue };
            let Body::Members(_, updates) = wire.open(address(1), &bytes).expect("ours").body else {
                continue;
            };
            let alive = updates.into_iter().find(|update| update.name == me.name);
            told = alive.map(|update| (to, update.incarnation)).or(told);
        }
        told
    };
    let mut now = Now { mono_us: 1, wall_us: 1 };
    machine.handle_known(now, &Known::new([introduction_at("n3", 2, 0, address(3)).identity]));
    for expected in [1, 1, 1] {
        machine.handle_datagram(now, address(3), &doubted(&mut wire, 0), &mut replica);
        assert_eq!(told(&mut machine, &mut wire), Some((address(3), expected)));
        now = now.plus_us(60_000_000);
    }
    machine.handle_datagram(now, address(3), &doubted(&mut wire, 1), &mut replica);
    assert_eq!(machine.member("me").map(|me| me.incarnation), Some(2));
}

/// A side of a partition sends many last pings to members that are cut off. These once used up the news of their deaths, so that
/// some of those that were left were never told.
#[test]
fn what_is_told_to_suspects_does_not_count_as_told() {
    let now = Now { mono_us: 1, wall_us: 1 };
    let mut swim = Swim::new(&config(1), now, BODY_BYTES_MIN, 0);
    let known = [("a", 2), ("b", 3), ("c", 4)];
    let known = known.map(|(member, last)| introduction_at(member, 2, 0, address(last)).identity);
    swim.handle_known(now, &Known::new([swim.identity().clone()].into_iter().chain(known)));
    let slot = |swim: &Swim, name| swim.table.find(name).expect("a member");
    let (a, b, c) = (slot(&swim, "a"), slot(&swim, "b"), slot(&swim, "c"));
    swim.set_state(now, a, 0, State::Suspect);
    swim.set_state(now, c, 0, State::Dead);
    let is_told = |swim: &mut Swim| {
        let last = std::iter::from_fn(|| swim.poll_output()).last();
        let Some(SwimOutput::Datagram { updates, .. }) = last else { panic!("{last:?}") };
        updates.iter().any(|update| update.name.as_str() == "c" && update.claim == Claim::Dead)
    };
    for _ in 0..100 {
        swim.send(address(2), Some(a), SwimMessage::Gossip);
        assert!(is_told(&mut swim), "a suspect is told, too");
    }
    for _ in 0..RETRANSMIT_FACTOR * RETRANSMIT_LOG_MIN {
        swim.send(address(3), Some(b), SwimMessage::Gossip);
        assert!(is_told(&mut swim));
    }
    swim.send(address(3), Some(b), SwimMessage::Gossip);
    assert!(!is_told(&mut swim) && swim.news.is_empty(), "the others were told often enough");
}

/// Any update that a peer may send, true or not.
fn any_update() -> impl Strategy<Value = Update> {
    let claim = 0..5u8;
    (0..6u8, 0..8u64, any::<u32>(), claim, 1..12u8).prop_map(|(who, boot, incarnation, claim, host)| {
        let member = if who == 0 { "me".into() } else { format!("n{who}") };
        let said = introduction_at(&member, boot, incarnation, address(host));
        let alive = Update::alive(&said);
        match claim {
            0 => Update { claim: Claim::Suspect(vec![name("n1")]), ..alive },
            1 => Update { claim: Claim::Dead, ..alive },
            2 => Update { claim: Claim::Left, ..alive },
            _ => alive,
        }
    })
}

fn any_message() -> impl Strategy<Value = SwimMessage> {
    let said = any_update().prop_map(|update| match update.claim {
        Claim::Alive(identity) => Some(Introduction { identity, incarnation: update.incarnation }),
        _ => None,
    });
    (0..7u8, any::<u32>(), prop_oneof![Just(0u64), any::<u64>()], said, 1..12u8).prop_map(
        |(kind, sequence, target, introduction, host)| {
            let sender = name(&format!("n{}", host % 6));
            match kind {
                0 => SwimMessage::Ping(Ping {
                    sequence,
                    target,
                    sender,
                    view: target,
                    introduction,
                    padding: 0,
                }),
                1 => SwimMessage::Ack(Ack {
                    sequence,
                    sender,
                    wall_us: target,
                    view: target,
                    is_unknown: sequence % 2 == 0,
                    is_unreached: sequence % 3 == 0,
                    is_leaving: sequence % 5 == 0,
                    is_joining: sequence % 7 == 0,
                    introduction,
                }),
                2 => SwimMessage::PingRequest { sequence, target, address: address(host), sender },
                3 => SwimMessage::Nack { sequence },
                4 => SwimMessage::Refusal { sequence, target, introduction },
                5 => SwimMessage::NameTaken { name: name("me"), boot: target, by: address(host), sequence },
                _ => SwimMessage::Gossip,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// memberlist#368, #369: bytes of any kind under a good header.
    #[test]
    fn garbage_does_not_panic(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20)) {
        let mut machine = machine(1);
        let mut replica = SimReplica::default();
        let replica: &mut dyn Replica = &mut replica;
        let preamble = Wire::new("c", 1, Checksum).connect(crate::cluster::purpose::Purpose::Members).0;
        for (index, body) in bodies.into_iter().enumerate() {
            let stream = StreamId(2 * index as u64);
            let now = Now::default().plus_us(index as u64 * 1_000);
            machine.handle_datagram(now, address(3), &body, replica);
            machine.handle_stream(now, stream, StreamEvent::Accepted { from: address(3) }, replica);
            machine.handle_stream(now, stream, StreamEvent::Received(preamble.clone()), replica);
            machine.handle_stream(now, stream, StreamEvent::Received(Bytes::from(body)), replica);
            drain(&mut machine);
        }
    }

    /// Any lies in any order: no panic, no datagram too large, no answer to what needs none in a loop,
    /// and the node goes on believing in itself.
    #[test]
    fn lies_do_not_panic(
        said in proptest::collection::vec((any_message(), proptest::collection::vec(any_update(), 0..6), 0..400_000u64), 1..60),
        seed in any::<u64>(),
    ) {
        let mut machine = machine(seed);
        let mut wire = Wire::new("c", 2, Checksum);
        let mut replica = SimReplica::default();
        let replica: &mut dyn Replica = &mut replica;
        let mut now = Now { mono_us: 1, wall_us: 1 };
        for (message, updates, later_us) in said {
            now = now.plus_us(later_us);
            let datagram = wire.datagram(address(3), Said::Members(message, updates), Riders::default());
            machine.handle_datagram(now, address(3), &datagram, replica);
            prop_assert!(drain(&mut machine) < 50);
            if machine.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
                machine.handle_timeout(now, replica);
                drain(&mut machine);
            }
        }
        prop_assert_eq!(machine.stats().corrupt, 0);
        prop_assert!(machine.member("me").is_some_and(|me| me.state.is_live() && me.identity.boot == 5));
    }
}
