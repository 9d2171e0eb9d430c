//! What forged datagrams may do to members. Whoever sends them knows the name of the cluster, the members, and
//! the boot numbers of their lives, and may write a member's address as the sender's.

use std::net::UdpSocket;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::harness::gossip::proto::datagram::Body;
use crate::harness::gossip::proto::{self, MemberState, MemberUpdate};
use crate::harness::gossip::{self, DATAGRAM};
use crate::harness::wait::{PATIENCE, pause, throughout};
use crate::harness::{Cluster, Deadline, Fabric, Http, Node, NodeConfig, eventually, wall_us};

/// Time for which nothing may happen after the forgeries. Members that are suspected are declared dead sooner.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Opens the socket of a stranger, at an address at which no member is.
fn stranger() -> UdpSocket {
    UdpSocket::bind("127.0.0.2:0").unwrap_or_else(|error| panic!("no socket: {error}"))
}

/// Makes a datagram in the name of the life `boot` of a node.
fn forged(cluster: &Cluster, boot: u64, body: Body, updates: Vec<MemberUpdate>) -> Vec<u8> {
    let message = proto::Datagram { body: Some(body), updates, ..Default::default() };
    gossip::message(&cluster[0].config.cluster_name, DATAGRAM, boot, &message.encode_to_vec())
}

/// Returns what a node tells of all members.
fn members(node: &Node) -> Vec<Value> {
    let members = node.get("/v1/members").json();
    members["members"].as_array().cloned().unwrap_or_else(|| panic!("no list: {members}"))
}

/// Returns what a node tells of a member.
fn member(node: &Node, id: &str) -> Value {
    let member = members(node).into_iter().find(|member| member["id"] == id);
    member.unwrap_or_else(|| panic!("{} does not know {id}", node.id))
}

fn boot_of(node: &Node, id: &str) -> u64 {
    member(node, id)["boot"].as_u64().unwrap_or_else(|| panic!("{id} has no boot number"))
}

/// News that member `id` is in this state, in the life that it has.
fn news(cluster: &Cluster, id: &str, incarnation: u32, state: MemberState) -> MemberUpdate {
    let accusers = if state == MemberState::Suspect { vec!["c".into()] } else { Vec::new() };
    let member = member(&cluster[0], id);
    let text = |field: &str| member[field].as_str().unwrap_or_default().to_owned();
    let is_alive = state == MemberState::Alive;
    MemberUpdate {
        name: id.into(),
        boot: member["boot"].as_u64().unwrap_or_default(),
        incarnation,
        state: state.into(),
        gossip: if is_alive { text("gossip") } else { String::new() },
        http: if is_alive { text("http") } else { String::new() },
        version: if is_alive { text("version") } else { String::new() },
        accusers,
        ..Default::default()
    }
}

/// Three nodes in a network in which the sender of a datagram can be forged.
struct Forger {
    fabric: Fabric,
    cluster: Cluster,
    stranger: UdpSocket,
}

impl Forger {
    fn start() -> Forger {
        let (fabric, cluster) = Fabric::start(3, &[]);
        Forger { fabric, cluster, stranger: stranger() }
    }

    /// Sends a node a datagram three times: from a stranger's address, and from those of the other members.
    fn send(&self, to: usize, body: &Body, updates: &[MemberUpdate]) {
        let boots = [0, 1, 2].map(|from| boot_of(&self.cluster[0], &self.cluster[from].id));
        let datagram = |boot| forged(&self.cluster, boot, body.clone(), updates.to_vec());
        let _ = self.stranger.send_to(&datagram(99), &self.cluster[to].gossip);
        for from in (0..3).filter(|&from| from != to) {
            self.fabric.inject(from, to, &datagram(boots[from]));
        }
    }

    /// Returns what is wrong: a member that another one does not count as a member, or a node that has ended.
    fn fault(&self) -> Option<String> {
        for node in &self.cluster.nodes {
            for other in &self.cluster.nodes {
                let state = node.member_state(&other.id);
                if !matches!(state.as_deref(), Some("alive" | "suspect")) {
                    return Some(format!("{} is {state:?} at {}", other.id, node.id));
                }
            }
        }
        None
    }

    /// Checks that all members stay members, and that a record still reaches all three.
    fn is_whole_afterwards(&self) {
        let deadline = Deadline::after(AFTERWARDS);
        while deadline.left().is_some() {
            let fault = self.fault();
            assert_eq!(fault, None, "after {:?}", deadline.elapsed());
        }
        let deadline = Deadline::after(PATIENCE);
        for node in &self.cluster.nodes {
            loop {
                let (alive, ready) = (node.alive(), node.get("/readyz"));
                if alive == 3 && ready.status == 200 {
                    break;
                }
                assert!(deadline.left().is_some(), "{} sees {alive} alive, and is {ready:?}", node.id);
                pause();
            }
        }
        reaches_all(&self.cluster);
    }
}

/// Checks that an answer of the level `replicated` comes, and counts all nodes and nobody else.
fn reaches_all(cluster: &Cluster) {
    let body = json!({"source": "to/all", "data": 1}).to_string();
    let answer = Http::post(&cluster[0].http, "/v1/publish?ack=replicated", &body);
    assert_eq!((answer.status, &answer.json()["nodes"]), (200, &json!(cluster.nodes.len())), "{answer:?}");
}

/// One datagram that said `Left` or `Dead` of a member was believed, and passed on. `Left` was final for the life
/// of the member.
#[test]
fn that_a_member_is_gone_is_not_believed() {
    for state in [MemberState::Left, MemberState::Dead] {
        let forger = Forger::start();
        let gone = [0, 1].map(|incarnation| news(&forger.cluster, "b", incarnation, state));
        for to in [0, 2] {
            forger.send(to, &Body::Gossip(proto::Gossip {}), &gone);
        }
        forger.is_whole_afterwards();
    }
}

/// A member that was suspected at the greatest incarnation could not refute it, and was dead for ever.
#[test]
fn an_incarnation_beyond_reason_ends_no_member() {
    for incarnation in [u32::MAX, u32::MAX - 1] {
        let forger = Forger::start();
        let of = |state| news(&forger.cluster, "b", incarnation, state);
        let lies = [MemberState::Alive, MemberState::Suspect].map(of);
        for to in 0..3 {
            forger.send(to, &Body::Gossip(proto::Gossip {}), &lies);
        }
        forger.is_whole_afterwards();
    }
}

/// `NameTaken` in one datagram stopped a node that served clients.
#[test]
fn a_running_node_does_not_end_because_its_name_is_said_to_be_taken() {
    let forger = Forger::start();
    let by = forger.stranger.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let boot = boot_of(&forger.cluster[1], "b");
    for sequence in [0, 1, u32::MAX] {
        let taken = proto::NameTaken { name: "b".into(), boot, by: by.clone(), sequence };
        forger.send(1, &Body::NameTaken(taken), &[]);
    }
    throughout("it runs", AFTERWARDS, || {
        Http::attempt(&forger.cluster[1].http, "GET", "/healthz", &[], b"").is_ok()
    });
    forger.is_whole_afterwards();
}

/// A greater boot number at another address took a member's place in one datagram.
#[test]
fn a_life_that_nobody_lives_takes_no_place() {
    let forger = Forger::start();
    let at = forger.stranger.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let alive = news(&forger.cluster, "b", 0, MemberState::Alive);
    let boot = alive.boot;
    let next = MemberUpdate { boot: boot + 1, gossip: at, ..alive };
    let ping = proto::Ping {
        sequence: 7,
        sender: "b".into(),
        introduction: Some(next.clone()),
        padding: vec![0; 700].into(),
        ..Default::default()
    };
    for to in [0, 2] {
        forger.send(to, &Body::Gossip(proto::Gossip {}), std::slice::from_ref(&next));
        let datagram = forged(&forger.cluster, boot + 1, Body::Ping(ping.clone()), Vec::new());
        let _ = forger.stranger.send_to(&datagram, &forger.cluster[to].gossip);
    }
    throughout("the place is that of the member", AFTERWARDS, || {
        [0, 2].map(|at| boot_of(&forger.cluster[at], "b")) == [boot; 2]
    });
    forger.is_whole_afterwards();
}

/// Hundreds of invented members were members at once: they were on the ring, all others were told of them, and
/// answers of the level `replicated` waited for them. Later, a thousand of them at once took a node out of its
/// cluster: it made a list of all members for readers for each of them.
#[test]
fn invented_members_take_no_part_and_are_few() {
    let cluster = Cluster::configured(3, |config| NodeConfig { profile: "lan", ..config });
    let stranger = stranger();
    for number in 0..1_000u16 {
        let name = format!("fake-{number}");
        let introduction = MemberUpdate {
            name: name.clone(),
            boot: 1,
            gossip: format!("127.0.0.2:{}", 20_000 + number),
            http: "127.0.0.2:1".into(),
            version: "0.1.0".into(),
            ..Default::default()
        };
        let ping = proto::Ping {
            sequence: u32::from(number),
            sender: name,
            introduction: Some(introduction.clone()),
            ..Default::default()
        };
        let _ =
            stranger.send_to(&forged(&cluster, 1, Body::Ping(ping), vec![introduction]), &cluster[0].gossip);
    }
    let taking_part =
        |node: &Node| members(node).iter().filter(|member| member["state"] != "joining").count();
    let deadline = Deadline::after(AFTERWARDS);
    while deadline.left().is_some() {
        let counts = [0, 1, 2].map(|index| taking_part(&cluster[index]));
        assert_eq!(counts, [3; 3], "after {:?}", deadline.elapsed());
        reaches_all(&cluster);
        pause();
    }
    let listed = [0, 1, 2].map(|index| members(&cluster[index]).len());
    assert!(listed[0] <= 3 + 256, "{} are listed", listed[0]);
    assert_eq!(listed[1..], [3, 3], "nobody is told of them");
}

/// A stranger that named an address in any of its messages made the nodes of a cluster ping whoever is there.
#[test]
fn nothing_is_sent_to_an_address_that_a_stranger_names() {
    let cluster = Cluster::start(2);
    let stranger = stranger();
    let victim = UdpSocket::bind("127.0.0.9:0").unwrap_or_else(|error| panic!("no socket: {error}"));
    let _ = victim.set_nonblocking(true);
    let address = victim.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let named = MemberUpdate {
        name: "victim".into(),
        boot: 1,
        gossip: address.clone(),
        version: "0.1.0".into(),
        ..Default::default()
    };
    let moved = MemberUpdate { boot: u64::MAX, ..news(&cluster, "b", 0, MemberState::Alive) };
    let moved = MemberUpdate { gossip: address.clone(), ..moved };
    let mut bodies = Vec::new();
    for introduction in [named.clone(), moved.clone()] {
        let (sender, introduction) = (introduction.name.clone(), Some(introduction));
        bodies.extend([
            Body::Ping(proto::Ping {
                sequence: 5,
                sender: sender.clone(),
                introduction: introduction.clone(),
                padding: vec![0; 700].into(),
                ..Default::default()
            }),
            Body::Ack(proto::Ack {
                sequence: 5,
                sender: sender.clone(),
                introduction: introduction.clone(),
                ..Default::default()
            }),
            Body::Refusal(proto::Refusal { sequence: 5, target: 9, introduction }),
            Body::PingRequest(proto::PingRequest {
                sequence: 5,
                address: address.clone(),
                sender,
                ..Default::default()
            }),
        ]);
    }
    bodies.push(Body::NameTaken(proto::NameTaken {
        name: "a".into(),
        boot: boot_of(&cluster[0], "a"),
        by: address.clone(),
        sequence: 5,
    }));
    bodies.push(Body::Gossip(proto::Gossip {}));
    let mut faults = Vec::new();
    for body in bodies {
        let datagram = forged(&cluster, 1, body.clone(), vec![named.clone(), moved.clone()]);
        for _ in 0..3 {
            let _ = stranger.send_to(&datagram, &cluster[0].gossip);
        }
        let (mut datagrams, mut bytes) = (0, 0);
        let deadline = Deadline::after(Duration::from_millis(700));
        while deadline.left().is_some() {
            while let Ok(received) = victim.recv(&mut [0; 2_048]) {
                datagrams += 1;
                bytes += received;
            }
            pause();
        }
        if datagrams > 0 {
            faults.push(format!("{datagrams} datagrams of {bytes} bytes in all after three of {body:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    cluster.wait_whole();
}

/// Makes a batch of one record of the life 99 of the node `s`, as a peer sends it.
fn batch(source: &str, ts: u64) -> Vec<u8> {
    let (origin, boot, seq, data) = ("s", 99u64, 1u64, b"\"far\"");
    let numbers = [0, source.len() as u64, origin.len() as u64, ts, boot, seq, ts, 0];
    let mut checked: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    checked.extend(xxh3_128(data).to_le_bytes());
    checked.extend([source, origin].concat().bytes());
    let sum = xxh3_64(&xxh3_64(&checked).to_le_bytes());
    // JSON data, the stamp, no part of the name before and the whole of this one, and the data.
    let mut records = vec![0];
    prost::encoding::encode_varint(ts << 1, &mut records);
    records.extend([0, source.len() as u8]);
    records.extend(source.bytes());
    records.push(data.len() as u8);
    records.extend(data);
    let numbers = [boot, 0, seq, 0, 0, sum];
    let mut checked: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    checked.extend(origin.bytes());
    let checksum = xxh3_64(&checked) as u32;
    let batch = proto::Batch {
        origin: origin.into(),
        boot,
        first_seq: seq,
        sum,
        records: records.into(),
        checksum,
        ..Default::default()
    };
    batch.encode_to_vec()
}

/// A peer's record with the greatest `ts` that there is made a node issue a greater one to every source. Peers
/// refused those records, and so did the node itself after a restart, although it had acknowledged them as
/// `stored`.
#[test]
fn a_peers_record_that_is_far_ahead_costs_no_later_record() {
    const TS_MAX: u64 = (1 << 53) - 1;
    let mut cluster = Cluster::start(2);
    let part = proto::Part {
        number: 1,
        from: 1,
        to: 1,
        hops: 1,
        batch: batch("far", TS_MAX).into(),
        ..Default::default()
    };
    let spread = Body::Spread(proto::Spread { parts: vec![part], ..Default::default() });
    let stranger = stranger();
    eventually("the record is judged", PATIENCE, || {
        let _ = stranger.send_to(&forged(&cluster, 99, spread.clone(), Vec::new()), &cluster[0].gossip);
        let node = &cluster[0];
        let is_refused = node.metric("anode_records_refused_total", &[("reason", "future")]) > 0.0;
        (is_refused || node.latest("far").is_some()).then_some(())
    });
    let stored = |source: &str| {
        let body = json!({"source": source, "data": "near"}).to_string();
        let answer = Http::post(&cluster[0].http, "/v1/publish?ack=stored", &body);
        let said = answer.json();
        assert_eq!((answer.status, &said["level"]), (200, &json!("stored")), "{answer:?}");
        said["ts"].as_u64().unwrap_or_default()
    };
    let published = wall_us();
    let stamps = ["far", "mine"].map(|source| (source, stored(source)));
    let until = wall_us();
    assert_eq!(cluster[0].sigterm(), Some(0));
    cluster[0].restart();
    for (source, ts) in stamps {
        for node in &cluster.nodes {
            let label = format!("{} has {source} of {ts}, which was stored", node.id);
            let found = eventually(&label, PATIENCE, || node.latest(source));
            assert_eq!(
                (&found["data"], &found["ts"]),
                (&json!("near"), &json!(ts)),
                "{source} at {}",
                node.id
            );
        }
        assert!((published..=until).contains(&ts), "{source} is stamped {ts}");
    }
}
