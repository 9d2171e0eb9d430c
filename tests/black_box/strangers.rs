//! Strangers at the gossip port, who know the name of the cluster and nothing else: what they may ask for, and
//! what their streams may cost.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::harness::gossip::proto::datagram::Body;
use crate::harness::gossip::{self, BODIES, DATAGRAM, MEMBERS, RECONCILE, proto};
use crate::harness::http::{connect, read_all};
use crate::harness::wait::pause;
use crate::harness::{Cluster, Deadline, Node, NodeConfig, eventually};

/// Opens streams to the gossip port of a node, and writes these bytes on each.
fn streams(node: &Node, count: usize, first: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect(&node.gossip);
        // The node may have closed the stream, because there are too many.
        let _ = stream.write_all(first);
        let _ = stream.set_nonblocking(true);
        stream
    };
    (0..count).map(open).collect()
}

/// Returns whether the node has closed a stream.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64 * 1024]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// A stream on which nobody said anything was open for as long as the peer liked once its purpose was known.
/// Sixty-four of them kept all further ones out, and eight of reconciliation kept a new node from its records
/// for ten seconds.
#[test]
fn silent_streams_of_strangers_do_not_hold_up_a_join() {
    let a = Node::start(NodeConfig::named("a").in_memory());
    let cluster = a.config.cluster_name.clone();
    let preamble = |kind| gossip::message(&cluster, kind, 7, b"");
    let before = a.rss_bytes();
    let mut silent = Vec::new();
    for kind in [MEMBERS, RECONCILE, BODIES] {
        silent.extend(streams(&a, 40, &preamble(kind)));
    }
    silent.extend(streams(&a, 100, b""));
    let start = Deadline::after(Duration::from_secs(20));
    let b = Node::start(NodeConfig::joining("b", &a).in_memory());
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(5), "joined after {elapsed:?}");
    let ts = a.put("early", json!(1));
    b.wait_ts("early", ts);
    assert_eq!(b.member_state("a").as_deref(), Some("alive"));
    let grown = a.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {} MiB", grown >> 20);
    eventually("all silent streams are closed", Duration::from_secs(8), || {
        silent.retain_mut(|stream| !is_closed(stream));
        silent.is_empty().then_some(())
    });
    assert_eq!(a.member_state("b").as_deref(), Some("alive"));
}

/// A peer that had not said who it is could make a node keep frames of four megabytes, half read.
#[test]
fn a_stranger_may_send_no_more_than_a_greeting_before_it_has_greeted() {
    let a = Node::start(NodeConfig::named("a").in_memory());
    let before = a.rss_bytes();
    let mut first = gossip::message(&a.config.cluster_name, RECONCILE, 7, b"");
    // The length of a frame of 4 MiB, as a varint.
    first.extend_from_slice(&[0x80, 0x80, 0x80, 0x02]);
    let mut streams = streams(&a, 20, &first);
    for stream in &mut streams {
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
        let _ = stream.write_all(&vec![0; 3_900_000]);
    }
    let deadline = Deadline::after(Duration::from_secs(1));
    while deadline.left().is_some() {
        let grown = a.rss_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "grew by {} MiB", grown >> 20);
        pause();
    }
    for stream in &mut streams {
        read_all(stream, Duration::from_secs(2));
    }
}

/// Returns the hash that stands for the life of a node between nodes.
fn line_of(node: &Node) -> u64 {
    let members = node.get("/v1/members").json();
    let mut list = members["members"].as_array().into_iter().flatten();
    let member = list.find(|member| member["id"] == node.id);
    let boot = member.and_then(|member| member["boot"].as_u64()).unwrap_or_else(|| panic!("{members}"));
    xxh3_64_with_seed(node.id.as_bytes(), boot)
}

/// Whoever connected could pull batches without end. They are for members alone.
#[test]
fn a_stranger_pulls_no_batches() {
    let cluster = Cluster::start(2);
    let a = &cluster[0];
    let ts = a.put("large", json!("x".repeat(60_000)));
    cluster[1].wait_ts("large", ts);
    let ask = proto::BodyAsk { line: line_of(a), first_seq: 1 };
    let ask = proto::Bodies { frame: Some(proto::bodies::Frame::Ask(ask)) }.encode_to_vec();
    let mut stream = connect(&a.gossip);
    let first = gossip::message(&a.config.cluster_name, BODIES, 7, b"");
    let _ = stream.write_all(&[first, (ask.len() as u32).to_le_bytes().to_vec(), ask].concat());
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let (mut buffer, mut bytes) = ([0; 64 * 1024], 0);
    let is_closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => bytes += read,
            Err(error) => break error.kind() == ErrorKind::ConnectionReset,
        }
    };
    assert_eq!((bytes, is_closed), (0, true), "bytes that came, and whether the stream was closed");
}

/// Makes a datagram of a stranger.
fn datagram(node: &Node, body: Body) -> Vec<u8> {
    let message = proto::Datagram { body: Some(body), ..Default::default() };
    gossip::message(&node.config.cluster_name, DATAGRAM, 99, &message.encode_to_vec())
}

/// Sends a datagram to the gossip port of a node, and returns the number of bytes that come back.
fn bytes_for(node: &Node, datagram: &[u8]) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no socket: {error}"));
    let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
    let _ = socket.send_to(datagram, &node.gossip);
    let (mut buffer, mut bytes) = ([0; 2_048], 0);
    while let Ok(received) = socket.recv(&mut buffer) {
        bytes += received;
    }
    bytes
}

/// A want of 72 bytes brought 266,806 bytes, to whatever address it named as its sender's.
#[test]
fn a_stranger_gets_no_more_bytes_than_it_sent() {
    let cluster = Cluster::start(2);
    let a = &cluster[0];
    for number in 0..300 {
        a.put(&format!("s/{number}"), json!("x".repeat(900)));
    }
    let line = line_of(a);
    let want =
        proto::Spread { wants: vec![proto::Want { line, runs: vec![1, 1_000] }; 4], ..Default::default() };
    let compare = proto::Compare { root: 1, nonce: 2, is_answer: false, shards: Vec::new().into() };
    let ping = proto::Ping { sequence: 7, sender: "s".into(), view: 1, ..Default::default() };
    let introduction = proto::MemberUpdate {
        name: "s".into(),
        boot: 99,
        gossip: "127.0.0.1:9".into(),
        version: "0.1.0".into(),
        ..Default::default()
    };
    let joining = proto::Ping { introduction: Some(introduction), ..ping.clone() };
    let request =
        proto::PingRequest { sequence: 7, target: 0, address: cluster[1].gossip.clone(), sender: "s".into() };
    let mut faults = Vec::new();
    // Batches and comparisons are for members alone.
    for (body, is_answered) in [
        (Body::Spread(want), false),
        (Body::Compare(compare), false),
        (Body::Ping(ping), true),
        (Body::Ping(joining), true),
        (Body::PingRequest(request), true),
    ] {
        let datagram = datagram(a, body.clone());
        let bytes = bytes_for(a, &datagram);
        if bytes > if is_answered { datagram.len() } else { 0 } {
            faults.push(format!("{bytes} bytes for the {} of {body:?}", datagram.len()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    cluster.wait_whole();
}
