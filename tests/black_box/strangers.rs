//! Strangers at the gossip port, who know the name of the cluster and nothing else: what they may ask for, and
//! what their streams may cost.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::gossip::{self, BODIES, MEMBERS, RECONCILE};
use crate::harness::http::{connect, read_all};
use crate::harness::{Deadline, Node, NodeConfig, eventually};

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
    let mut streams = streams(&a, 100, &first);
    for stream in &mut streams {
        let _ = stream.set_nonblocking(false);
        let _ = stream.write_all(&[0; 256 * 1024]);
        read_all(stream, Duration::from_secs(2));
    }
    let grown = a.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {} MiB", grown >> 20);
}

/// Batches are pulled by members alone: whoever connected could ask for them without end.
#[test]
fn a_stranger_pulls_no_batches() {
    let a = Node::start(NodeConfig::named("a").in_memory());
    let mut stream = connect(&a.gossip);
    let _ = stream.write_all(&gossip::message(&a.config.cluster_name, BODIES, 7, b""));
    assert_eq!(read_all(&mut stream, Duration::from_secs(2)), b"");
}
