//! Datagrams of strangers, who know the name of the cluster: what comes back, and who else gets something.
//!
//! A stranger may write anybody's address as its own. So the bytes that come back count as an attack on that
//! address, and a datagram to an address that a stranger named counts as one on that address.

use prost::Message as _;

use super::keyed::two;
use super::*;
use crate::cluster::members::Identity;
use crate::cluster::spread::line_hash;
use crate::cluster::swim::message::{Ack, Claim, Introduction, Ping, SwimMessage, Update};
use crate::cluster::wire::{Riders, Said, Wire};
use crate::proto::gossip as proto;

const STRANGER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 9, 9)), 7946);
const VICTIM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 8, 8, 8)), 7946);

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

fn introduction(member: &str, boot: u64, gossip: SocketAddr) -> Introduction {
    let identity = Identity::new(name(member), boot, gossip, "", "", "0.1.0");
    Introduction { identity: Arc::new(identity), incarnation: 3 }
}

/// Everything that a node may say of membership, with what is meant to provoke an answer.
fn messages() -> Vec<SwimMessage> {
    let ping = |sender: &str, target, introduction| {
        SwimMessage::Ping(Ping {
            sequence: 5,
            target,
            sender: name(sender),
            view: 1,
            introduction,
            padding: 0,
        })
    };
    let ack = |sender: &str, introduction| {
        let (sender, is_unknown) = (name(sender), true);
        SwimMessage::Ack(Ack {
            sequence: 5,
            sender,
            wall_us: 1,
            view: 1,
            is_unknown,
            is_unreached: true,
            is_leaving: true,
            is_joining: false,
            introduction,
        })
    };
    let named = [
        introduction("s", 99, STRANGER),
        introduction("s", 99, VICTIM),
        introduction("n0", 99, STRANGER),
        introduction("n0", 3, VICTIM),
        introduction("n1", 99, VICTIM),
        introduction("n1", 7, STRANGER),
        introduction("v", 99, address(1)),
    ];
    let mut all = vec![
        ping("s", 0, None),
        ping("n1", 0, None),
        ping("s", 77, None),
        ack("s", None),
        ack("n1", None),
        SwimMessage::PingRequest { sequence: 5, target: 9, address: VICTIM, sender: name("s") },
        SwimMessage::PingRequest { sequence: 5, target: 0, address: address(1), sender: name("n1") },
        SwimMessage::Nack { sequence: 5 },
        SwimMessage::Refusal { sequence: 5, target: 9, introduction: None },
        SwimMessage::NameTaken { name: name("n0"), boot: 7, by: VICTIM, sequence: 5 },
        SwimMessage::Gossip,
    ];
    for said in named {
        let sender = said.identity.name.as_str();
        all.push(ping(sender, 0, Some(said.clone())));
        all.push(ping(sender, 77, Some(said.clone())));
        all.push(ack(sender, Some(said.clone())));
        all.push(SwimMessage::Refusal { sequence: 5, target: 9, introduction: Some(said) });
    }
    all
}

fn updates() -> Vec<Update> {
    let of = |member: &str, boot, claim| Update { name: name(member), boot, incarnation: 0, claim };
    vec![
        introduction("v", 99, VICTIM).into(),
        introduction("n1", 99, VICTIM).into(),
        of("n0", 7, Claim::Suspect(vec![name("n1")])),
        of("n0", 7, Claim::Dead),
        of("n1", 7, Claim::Dead),
        of("n1", 7, Claim::Left),
    ]
}

/// Everything else that a node may say, of the line with this hash.
fn bodies(line: u64) -> Vec<proto::datagram::Body> {
    let want = proto::Want { line, runs: vec![1, 200] };
    let part = proto::Part { number: 1, from: 1, to: 1, hops: 1, line, first_seq: 1, ..Default::default() };
    let inquiry = proto::Inquiry {
        id: 1,
        source: "sealed/1".into(),
        ts: 1,
        hash: vec![0; 16].into(),
        line,
        ..Default::default()
    };
    let receipt =
        proto::Receipt { life: 1, below: 9, runs: vec![1, 5], wanted: vec![1, 2, 3], ..Default::default() };
    let spread = [
        proto::Spread { wants: vec![want.clone()], ..Default::default() },
        proto::Spread { wants: vec![want.clone(); 12], ..Default::default() },
        proto::Spread { wants: vec![proto::Want { line: 0, runs: vec![] }], ..Default::default() },
        proto::Spread { lacks: vec![want], ..Default::default() },
        proto::Spread { parts: vec![part.clone()], ..Default::default() },
        proto::Spread {
            parts: vec![proto::Part { body_bytes: 100_000, ..part.clone() }],
            ..Default::default()
        },
        proto::Spread {
            parts: vec![proto::Part { batch: vec![1; 600].into(), ..part }],
            ..Default::default()
        },
        proto::Spread { inquiries: vec![inquiry], ..Default::default() },
        proto::Spread { receipt: Some(receipt), uncounted: vec![1, 2], ..Default::default() },
    ];
    let compare = |is_answer| proto::Compare { root: 1, nonce: 2, is_answer, shards: vec![].into() };
    let compares = [false, true].map(|is_answer| proto::datagram::Body::Compare(compare(is_answer)));
    spread.into_iter().map(proto::datagram::Body::Spread).chain(compares).collect()
}

/// Every datagram that a stranger may send, in several forms.
fn datagrams(line: u64) -> Vec<Vec<u8>> {
    let mut wire = Wire::new("sealed", 99, Checksum);
    let mut all = Vec::new();
    for message in messages() {
        for updates in [Vec::new(), updates()] {
            all.push(
                wire.datagram(
                    STRANGER,
                    Said::Members(message.clone(), updates),
                    Riders { heads: &[(line + 1, 50)], with_keys: false },
                )
                .to_vec(),
            );
        }
    }
    let header = all[0][..CHECKED_HEADER_BYTES].to_vec();
    let heads = vec![proto::Head { line, seq: 1_000 }, proto::Head { line: line + 1, seq: 1_000 }];
    for body in bodies(line) {
        for heads in [Vec::new(), heads.clone()] {
            let message = proto::Datagram { body: Some(body.clone()), heads, ..Default::default() };
            let mut datagram = [&header[..], &message.encode_to_vec()].concat();
            Checksum::fill(&mut datagram);
            all.push(datagram);
        }
    }
    all
}

/// Two members with records to ask for.
fn world() -> World<Checksum> {
    with_records(World::new(vec![Checksum, Checksum]))
}

/// Lets two nodes become members, and the first publish records.
fn with_records<S: Seal>(mut world: World<S>) -> World<S> {
    world.run_us(1_000_000);
    let records: Vec<_> = (1..200).map(|seq| record(seq, 1_000)).collect();
    world.publish(&records);
    world.run_us(1_000_000);
    world.is_odd = true;
    world.elsewhere.clear();
    world
}

/// A want of 72 bytes brought 266,806 bytes to whatever address it named as its sender's, and anybody could let
/// the members of a cluster ping an address.
#[test]
fn a_stranger_gets_no_more_than_it_sent_and_others_get_nothing() {
    let line = line_hash(&name("n0"), 7);
    let mut came_back = 0;
    for datagram in datagrams(line) {
        let mut world = world();
        for _ in 0..3 {
            let now = world.now();
            world.machines[0].handle_datagram(now, STRANGER, &datagram, &mut world.replicas[0]);
            world.drain(0);
            world.run_us(2_000_000);
        }
        came_back += check(&world, 3 * datagram.len(), &format!("{datagram:?}"));
    }
    assert!(came_back > 0, "a node that joins gets answers");
}

/// Checks what the world sent to others than its members. Returns the number of bytes that the stranger got.
fn check<S: Seal>(world: &World<S>, sent_bytes: usize, label: &str) -> usize {
    let others: Vec<_> = world.elsewhere.iter().filter(|(to, _)| *to != STRANGER).collect();
    assert!(others.is_empty(), "{others:?} after {label}");
    let came_back: usize = world.elsewhere.iter().map(|(_, bytes)| bytes).sum();
    assert!(came_back <= sent_bytes, "{came_back} bytes for {sent_bytes} after {label}");
    for (machine, other) in world.machines.iter().zip(["n1", "n0"]) {
        assert!(machine.member(other).is_some_and(|member| member.state.is_live()), "{other} after {label}");
        assert_eq!(machine.ring().len(), 2, "after {label}");
    }
    came_back
}

/// Lets a stranger say 300 of the things that it may say. Returns the bytes that it sent.
fn say_everything<S: Seal>(world: &mut World<S>, all: &[Vec<u8>], seed: u64) -> usize {
    let (mut random, mut sent_bytes) = (Random::new(seed), 0);
    for _ in 0..300 {
        let datagram = &all[random.index(all.len())];
        sent_bytes += datagram.len();
        let (now, index) = (world.now(), random.index(2));
        world.machines[index].handle_datagram(now, STRANGER, datagram, &mut world.replicas[index]);
        world.drain(index);
        world.run_us(random.below(100_000));
    }
    world.run_us(5_000_000);
    sent_bytes
}

#[test]
fn strangers_that_say_everything_in_any_order_get_no_more_than_they_sent() {
    let all = datagrams(line_hash(&name("n0"), 7));
    for seed in 0..10 {
        let mut world = world();
        let sent_bytes = say_everything(&mut world, &all, seed);
        check(&world, sent_bytes, &format!("seed {seed}"));
        assert_eq!(world.replicas[0].digest(), world.replicas[1].digest());
    }
}

/// While a cluster goes over to keys, its nodes take plain questions, and seal their answers, which makes these larger.
/// Nodes that have gone over do not answer at all.
#[test]
fn a_stranger_gets_no_more_than_it_sent_in_any_phase() {
    let all = datagrams(line_hash(&name("n0"), 7));
    for phase in [KeyPhase::Accept, KeyPhase::Send, KeyPhase::Require] {
        let mut world = with_records(two([phase; 2]));
        let sent_bytes = say_everything(&mut world, &all, 7);
        let came_back = check(&world, sent_bytes, &format!("{phase:?}"));
        assert_eq!(came_back > 0, phase != KeyPhase::Require, "{came_back} bytes came back in {phase:?}");
    }
}
