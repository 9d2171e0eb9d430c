//! What clients over TLS cost a node: those that stall, that do not read, that send half of something, and that are idle.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::harness::http::read_all;
use crate::harness::tls::{Authority, TlsNode, TlsStream};
use crate::harness::wait::PATIENCE;
use crate::harness::{Deadline, eventually};

/// Clients that begin a handshake and say no more are cut after five seconds, and nobody waits for them.
#[test]
fn stalled_handshakes_delay_nobody_and_end() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &["--workers", "1"]);
    let mut subscriber = node.subscriber("source=x");
    let mut publisher = node.websocket(node.connect(), "/publish");
    let mut stalled = Vec::new();
    for at in 0..300 {
        let mut stream = TlsStream::connect(&node.node.http, &node.client);
        let mut hello = Vec::new();
        assert!(stream.tls.write_tls(&mut hello).is_ok());
        // Some say nothing, some a part of the hello, and some leave the answer to it unread.
        let part = [0, 1, 20, hello.len() - 1, hello.len()][at % 5];
        assert!(stream.socket.write_all(&hello[..part]).is_ok());
        stalled.push(stream.socket);
    }
    let begun = Deadline::after(Duration::from_secs(4));
    while begun.left().is_some() {
        publisher.send(&json!({"source": "x", "data": 1, "id": 1}));
        let sent = Deadline::after(Duration::from_secs(2));
        assert_eq!(subscriber.record()["data"], 1);
        assert!(sent.left().is_some());
        assert_eq!(publisher.json()["id"], 1);
    }
    for mut socket in stalled {
        read_all(&mut socket, Duration::from_secs(8));
    }
    let failed = node.metric("anode_tls_handshakes_total", &[("outcome", "failed")]);
    assert_eq!(failed, 300.0);
}

/// A subscriber to all records that does not read is closed, and what is held for it is bounded.
#[test]
fn a_slow_reader_of_all_is_closed_4202_over_tls() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &[]);
    let mut slow = node.subscriber("source=flood/*&mode=all");
    let mut quick = node.subscriber("source=end");
    let mut publisher = node.websocket(node.connect(), "/publish");
    let before = node.node.rss_bytes();
    let data = "x".repeat(20_000);
    for step in 0..2_000 {
        publisher.send(&json!({"source": format!("flood/{}", step % 10), "data": data}));
    }
    publisher.send(&json!({"source": "end", "data": 1}));
    assert_eq!(quick.record()["source"], "end");
    let grown = node.node.rss_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "grew by {} MiB", grown >> 20);
    assert_eq!(slow.close_code(Duration::from_secs(60)), 4202);
}

/// Parts of records and of handshakes that are not whole are counted as memory of clients.
#[test]
fn half_records_are_counted() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &["--max-client-memory", "16MiB"]);
    let held = || node.metric("anode_client_memory_bytes", &[]);
    let open = || node.subscriber("source=x");
    let mut clients: Vec<_> = (0..30).map(|_| open()).collect();
    let before = held();
    // The head of a record of 16 KiB, and most of it.
    let mut half = vec![23, 3, 3, 0x40, 0x11];
    half.extend(vec![7; 16_000]);
    for client in &mut clients {
        assert!(client.0.get_mut().socket.write_all(&half).is_ok());
    }
    eventually("the parts are counted", PATIENCE, || (held() - before > 30.0 * 15_000.0).then_some(()));
    drop(clients);
    eventually("the parts are free", PATIENCE, || (held() <= before).then_some(()));
}

/// Idle subscribers over TLS cost little memory.
#[test]
fn an_idle_subscriber_costs_less_than_24_kib() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &[]);
    let warm: Vec<_> = (0..20).map(|_| node.subscriber("source=x")).collect();
    let before = node.node.rss_bytes();
    let clients: Vec<_> = (0..600).map(|_| node.subscriber("source=x")).collect();
    let each = node.node.rss_bytes().saturating_sub(before) / 600;
    println!("{each} bytes a subscriber");
    assert!(each < 24 << 10, "{each} bytes a subscriber");
    node.put("x", json!(1));
    for mut client in warm.into_iter().chain(clients) {
        assert_eq!(client.record()["data"], 1);
    }
}
