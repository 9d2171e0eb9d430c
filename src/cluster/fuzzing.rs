//! The checks of what comes from other nodes, or from strangers at the gossip port: datagrams, streams, and
//! batches of records.
//!
//! Each input goes to a whole machine, which is a member of a small cluster. Datagrams get a header and a seal
//! that are right, so that what is behind the seal is reached: to add a seal, let [`sealed`] apply it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::members::Identity;
use super::purpose::Purpose;
use super::seal::Checksum;
use super::swim::message::{Introduction, Ping, SwimMessage, Update};
use super::swim::wire as members;
use super::wire::{Body, OpenedDatagram, Riders, Said, VERSION, Wire};
use super::{Effect, Known, Machine, MachineConfig, StreamEvent, StreamId, StreamOutput};
use crate::config::Profile;
use crate::fuzzing::{Pieces, join};
use crate::limits::DATAGRAM_BYTES_CEILING;
use crate::proto::gossip as proto;
use crate::record::{NodeName, Now, wire as record_wire};
use crate::sim::SimReplica;

pub(crate) use super::seal::fuzzing::{
    sealed_datagram, sealed_datagram_seeds, sealed_stream, sealed_stream_seeds,
};
pub(crate) use super::spread::fuzzing::{batch, batch_seeds};

const CLUSTER: &str = "c";
/// Boot number of every node.
const BOOT: u64 = 5;
/// Most things that the machine may want done after one event.
const EFFECTS_MAX: usize = 200;
/// Most events that one input makes.
const EVENTS_MAX: usize = 24;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7946))
}

fn identity(host: u8) -> Arc<Identity> {
    let name = NodeName::parse(&format!("n{host}")).expect("name");
    Arc::new(Identity::new(name, BOOT, address(host), &format!("10.0.0.{host}:7070"), "", "1"))
}

/// A machine of three members, and what was said to whom.
struct Node {
    machine: Machine,
    replica: SimReplica,
    now: Now,
    /// For each address that is no member's: the bytes that came from it, and those that were sent to it.
    strangers: BTreeMap<SocketAddr, (usize, usize)>,
    /// Streams that the machine asked for.
    asked: Vec<StreamId>,
}

impl Node {
    fn begin() -> Node {
        let now = Now { mono_us: 1, wall_us: 1_700_000_000_000_000 };
        let config = MachineConfig {
            name: identity(1).name.clone(),
            boot: BOOT,
            cluster_name: CLUSTER.into(),
            gossip: address(1),
            http: "10.0.0.1:7070".into(),
            zone: String::new(),
            version: "1".into(),
            profile: Profile::Lan,
            tombstones_us: 3_600_000_000,
            agreed_us: None,
            has_seeds: false,
            seed: 7,
            keys: None,
        };
        let mut machine = Machine::new(config, now);
        machine.handle_known(now, &Known::new([identity(1), identity(2), identity(3)]));
        let mut node = Node {
            machine,
            replica: SimReplica::default(),
            now,
            strangers: BTreeMap::new(),
            asked: Vec::new(),
        };
        node.drain();
        node
    }

    fn is_member(&self, address: SocketAddr) -> bool {
        self.machine.members().iter().any(|member| member.identity.gossip() == address)
    }

    /// Takes everything that the machine wants done.
    fn drain(&mut self) {
        let mut effects = 0;
        while let Some(effect) = self.machine.poll_effect() {
            effects += 1;
            assert!(effects <= EFFECTS_MAX, "no end of effects");
            match effect {
                Effect::Datagram { to, bytes } => {
                    assert!(bytes.len() <= DATAGRAM_BYTES_CEILING, "{} bytes", bytes.len());
                    if !self.is_member(to) {
                        self.strangers.entry(to).or_default().1 += bytes.len();
                    }
                }
                Effect::Stream(StreamOutput::Connect { stream, to }) => {
                    assert!(self.is_member(to), "a stream to a stranger at {to}");
                    self.asked.push(stream);
                }
                _ => {}
            }
        }
        for (address, (came, sent)) in &self.strangers {
            assert!(sent <= came, "{address} sent {came} bytes and was sent {sent}");
        }
    }

    fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.strangers.entry(from).or_default().0 += datagram.len();
        self.machine.handle_datagram(self.now, from, datagram, &mut self.replica);
        self.drain();
    }

    fn handle_stream(&mut self, stream: StreamId, event: StreamEvent) {
        self.machine.handle_stream(self.now, stream, event, &mut self.replica);
        self.drain();
    }

    fn wait(&mut self, us: u64) {
        self.now = Now { mono_us: self.now.mono_us + us, wall_us: self.now.wall_us + us };
        if self.machine.poll_timeout().is_some_and(|due_us| due_us <= self.now.mono_us) {
            self.machine.handle_timeout(self.now, &mut self.replica);
            self.drain();
        }
    }

    /// The node still believes in itself, and counts nothing twice.
    fn holds(&self) {
        let me = self.machine.member("n1").expect("itself");
        assert!(me.state.is_live(), "{me:?}");
        assert!(self.machine.members().len() <= 3 + EVENTS_MAX, "members were made up");
        for record in self.replica.iter() {
            assert_eq!(record.checksum, record.checksum_of(), "a damaged record was merged: {record:?}");
            let again = record_wire::decode(&record_wire::encode(record));
            assert_eq!(again.as_ref().ok(), Some(&**record));
        }
    }
}

/// A datagram with this body, as a member of the cluster sends it.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut datagram = vec![b'a', b'N', VERSION, 0];
    datagram.extend_from_slice(&[0; 8]);
    datagram.extend_from_slice(&(xxh3_64(CLUSTER.as_bytes()) as u32).to_le_bytes());
    datagram.extend_from_slice(&BOOT.to_le_bytes());
    datagram.extend_from_slice(body);
    Checksum::fill(&mut datagram);
    datagram
}

/// The input is a number of datagrams. The first byte of each tells who sends it, and whether it is given a header
/// and a seal; the second how long nothing happens before.
pub(crate) fn datagram(input: &[u8]) {
    let mut node = Node::begin();
    for piece in Pieces(input).take(EVENTS_MAX) {
        let &[how, pause, ref body @ ..] = piece else { continue };
        node.wait(u64::from(pause) * u64::from(pause) * 20);
        let from = address(2 + how % 4);
        let datagram = if how & 0x80 == 0 { sealed(body) } else { body.to_vec() };
        comes_back(from, &datagram);
        node.handle_datagram(from, &datagram);
    }
    node.wait(2_000_000);
    node.holds();
}

/// What a datagram says can be said again.
fn comes_back(from: SocketAddr, datagram: &[u8]) {
    let (mut ours, mut theirs) = (Wire::new(CLUSTER, BOOT, Checksum), Wire::new(CLUSTER, 9, Checksum));
    let Ok(OpenedDatagram { body, heads, .. }) = theirs.open(from, datagram) else { return };
    assert!(heads.len() * 2 <= datagram.len(), "{} heads", heads.len());
    let said = match body {
        Body::Members(message, updates) => Said::Members(message, updates),
        Body::Compare(compare) => Said::Compare(compare),
        Body::Spread(message) => return super::spread::fuzzing::packet(&message),
        Body::Unknown => return,
    };
    let (written, said) = match said {
        Said::Members(message, updates) => {
            let again = Said::Members(message.clone(), updates.clone());
            (again, Body::Members(message, updates))
        }
        Said::Compare(compare) => (Said::Compare(compare.clone()), Body::Compare(compare)),
    };
    let written = ours.datagram(from, written, Riders::default());
    if written.len() <= DATAGRAM_BYTES_CEILING {
        let mut theirs = Wire::new(CLUSTER, 9, Checksum);
        let again = theirs.open(from, &written).map(|opened| format!("{:?}", opened.body));
        assert_eq!(again, Ok(format!("{said:?}")), "said again, understood differently");
    }
}

fn introduction(host: u8) -> Introduction {
    Introduction { identity: identity(host), incarnation: 1 }
}

fn ping(target: u64, introduction: Option<Introduction>, padding: usize) -> SwimMessage {
    let sender = identity(4).name.clone();
    SwimMessage::Ping(Ping { sequence: 3, target, sender, view: 9, introduction, padding })
}

/// The body of a datagram of membership.
fn body_of(message: &SwimMessage, updates: &[Update]) -> Vec<u8> {
    members::to_proto(message, updates).encode_to_vec()
}

pub(crate) fn datagram_seeds() -> Vec<Vec<u8>> {
    let mut claims = Vec::new();
    for state in 0..4 {
        let update = proto::MemberUpdate {
            name: "n3".into(),
            boot: BOOT,
            incarnation: 2,
            gossip: "10.0.0.3:7946".into(),
            http: "h:1".into(),
            zone: "z".into(),
            version: "1".into(),
            state,
            accusers: vec!["n2".into()],
            ..Default::default()
        };
        claims.extend(members::update_from_proto(update));
    }
    let taken =
        SwimMessage::NameTaken { name: identity(1).name.clone(), boot: BOOT, by: address(9), sequence: 0 };
    let compare = |shards: &'static [u8]| {
        let compare =
            proto::Compare { root: 5, nonce: 6, is_answer: !shards.is_empty(), shards: Bytes::from(shards) };
        proto::Datagram { body: Some(proto::datagram::Body::Compare(compare)), ..Default::default() }
    };
    let heads = proto::Datagram {
        heads: vec![proto::Head { line: 5, seq: 6 }],
        ..members::to_proto(&SwimMessage::Gossip, &[])
    };
    let mut bodies = vec![
        body_of(&ping(0, Some(introduction(4)), 500), &[]),
        body_of(&ping(BOOT, None, 60), &claims),
        body_of(&SwimMessage::Nack { sequence: 7 }, &claims[..1]),
        body_of(&SwimMessage::Refusal { sequence: 3, target: 5, introduction: Some(introduction(5)) }, &[]),
        body_of(&taken, &[]),
        compare(b"").encode_to_vec(),
        compare(&[7; 1024]).encode_to_vec(),
        heads.encode_to_vec(),
    ];
    bodies.extend(super::spread::fuzzing::bodies());
    let with = |how: u8, body: &[u8]| [&[how, 10], body].concat();
    let mut seeds: Vec<Vec<u8>> = (0..).zip(&bodies).map(|(at, body)| join([&*with(at, body)])).collect();
    let all: Vec<Vec<u8>> = bodies.iter().filter(|body| body.len() < 200).map(|body| with(0, body)).collect();
    seeds.push(join(all.iter().map(Vec::as_slice)));
    seeds.push(join([&*with(0x82, &sealed(&bodies[1]))]));
    seeds
}

/// The input is what happens on a stream. The first byte tells the stream's purpose, and whether a peer opened it or
/// this node; each piece of the rest is received at once. What is not a whole frame yet is read on with the next
/// piece.
pub(crate) fn stream(input: &[u8]) {
    let Some((&how, rest)) = input.split_first() else { return };
    for piece in Pieces(rest) {
        super::reconcile::fuzzing::frame_comes_back(piece);
        if let Some(frame) = members::frame_from_bytes(Bytes::copy_from_slice(piece)) {
            let written = members::frame_to_proto(&frame).encode_to_vec();
            let again = members::frame_from_bytes(written.into());
            assert_eq!(again, Some(frame), "said again, understood differently");
        }
    }
    let mut node = Node::begin();
    let stream = match how & 0x40 {
        0 => accepted(&mut node, how),
        _ => opened(&mut node),
    };
    for piece in Pieces(rest).take(EVENTS_MAX) {
        node.handle_stream(stream, StreamEvent::Received(Bytes::copy_from_slice(piece)));
        node.handle_stream(stream, StreamEvent::Drained);
        node.wait(1_000);
    }
    node.wait(2_000_000);
    node.handle_stream(stream, StreamEvent::Closed);
    node.holds();
}

/// A stream that a member or a stranger opened.
fn accepted(node: &mut Node, how: u8) -> StreamId {
    let stream = StreamId(2);
    node.handle_stream(stream, StreamEvent::Accepted { from: address(2 + how % 4) });
    let purpose = match how / 4 % 4 {
        0 => Purpose::Members,
        1 => Purpose::Reconcile,
        2 => Purpose::Bodies,
        // The input begins with the preamble.
        _ => return stream,
    };
    let preamble = Wire::new(CLUSTER, BOOT, Checksum).connect(purpose).0;
    node.handle_stream(stream, StreamEvent::Received(preamble));
    stream
}

/// A stream that this node asked for, because a member's map differs from its own.
fn opened(node: &mut Node) -> StreamId {
    for round in 0..20 {
        if let Some(&stream) = node.asked.first() {
            node.handle_stream(stream, StreamEvent::Opened);
            return stream;
        }
        let compare = proto::Compare { root: round, nonce: 0, is_answer: false, shards: Bytes::new() };
        let body = Some(proto::datagram::Body::Compare(compare));
        let datagram = sealed(&proto::Datagram { body, ..Default::default() }.encode_to_vec());
        node.handle_datagram(address(2), &datagram);
        node.wait(500_000);
    }
    StreamId(1)
}

pub(crate) fn stream_seeds() -> Vec<Vec<u8>> {
    let with = |how: u8, pieces: &[Vec<u8>]| [&[how], &*join(pieces.iter().map(Vec::as_slice))].concat();
    let framed = |frame: &[u8]| [&(frame.len() as u32).to_le_bytes(), frame].concat();
    let list = proto::MembersFrame {
        body: Some(proto::members_frame::Body::List(proto::MemberList {
            introduction: None,
            updates: members::to_proto(&SwimMessage::Gossip, &[Update::alive(&introduction(4))]).updates,
            last: true,
        })),
    };
    let list = list.encode_to_vec();
    let preamble = Wire::new(CLUSTER, BOOT, Checksum).connect(Purpose::Members).0.to_vec();
    let mut seeds = vec![
        with(0, &[framed(&list)]),
        with(0, std::slice::from_ref(&list)),
        with(2, &[framed(&list)[..7].to_vec(), framed(&list)[7..].to_vec()]),
        with(12, &[preamble, framed(&list)]),
        with(8, &[framed(b"\x09\x01\x02\x03\x04\x05\x06\x07\x08\x10\x05")]),
        with(0x40, &[framed(&list)]),
    ];
    for frames in super::reconcile::fuzzing::conversations() {
        let whole: Vec<Vec<u8>> = frames.clone();
        seeds.push(with(4, &whole));
        seeds.push(with(0x44, &frames));
    }
    seeds
}
