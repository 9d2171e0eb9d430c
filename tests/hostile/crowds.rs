//! Crowds: thousands of connections that come, end or go wrong at the same moment, and floods of handshakes. What a
//! turn of an event loop does about them is bounded, so the others notice little.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::version::TLS13;
use serde_json::json;

use super::harness::http::connect;
use super::harness::tls::{Authority, TlsNode, TlsSocket, TlsStream};
use super::harness::{Client, Deadline, Node, NodeConfig, eventually};
use super::{Attack, EndsAttack, P99_MAX, PACE, ROUND, ROUNDS_MAX, alone, percentile_99};

/// Connections of a crowd. Bound below the limit of open files of a test.
const CROWD: usize = 3_000;
/// Longest that a record may take while a crowd ends. All at once would hold up a loop for longer: to refuse or to
/// remove a connection takes some hundred microseconds in a test build.
const WORST_MAX: Duration = Duration::from_millis(100);

/// Publishes records one after the other while `goes_on`, and returns the longest time that one took.
fn worst(publisher: &mut Client, subscriber: &mut Client, mut goes_on: impl FnMut() -> bool) -> Duration {
    let (mut worst, mut number) = (Duration::ZERO, 0);
    while goes_on() {
        number += 1;
        let sent = Deadline::after(Duration::from_secs(20));
        publisher.send_json(json!({"source": "healthy", "data": number}));
        while subscriber.record()["data"] != number {}
        worst = worst.max(sent.elapsed());
        let _ = publisher.event(PACE);
    }
    worst
}

/// Three thousand connections come at the same moment, and say nothing, so that their deadlines are due at the same
/// moment, five seconds later; then as many are reset at the same moment. A loop once handled all of them before anything
/// else.
#[test]
fn thousands_that_come_and_end_at_once_hold_up_nobody() {
    let _alone = alone();
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--workers", "1"]));
    let mut publisher = node.publisher();
    let mut subscriber = node.subscriber("source=healthy");
    subscriber.snapshot();
    let mut measured = Vec::new();
    let is_fast = (0..ROUNDS_MAX).any(|_| {
        let (mut silent, arrivals) = std::thread::scope(|scope| {
            let crowd = scope.spawn(|| (0..CROWD).map(|_| connect(&node.http)).collect::<Vec<TcpStream>>());
            let arrivals = worst(&mut publisher, &mut subscriber, || !crowd.is_finished());
            (crowd.join().unwrap_or_default(), arrivals)
        });
        assert_eq!(silent.len(), CROWD);
        let end = Deadline::after(Duration::from_secs(7));
        let timers = worst(&mut publisher, &mut subscriber, || end.left().is_some());
        for stream in &mut silent {
            let mut answer = [0; 64];
            let read = stream.read(&mut answer).unwrap_or(0);
            let answer = String::from_utf8_lossy(&answer[..read]);
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
        }
        drop(silent);
        // These are in the middle of a head, and go without a word.
        let mut begun: Vec<TcpStream> = (0..CROWD).map(|_| connect(&node.http)).collect();
        for stream in &mut begun {
            assert!(stream.write_all(b"GET /healthz HTT").is_ok());
            assert!(socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).is_ok());
        }
        drop(begun);
        let end = Deadline::after(Duration::from_secs(2));
        let removals = worst(&mut publisher, &mut subscriber, || end.left().is_some());
        measured.push((arrivals, timers, removals));
        arrivals.max(timers).max(removals) <= WORST_MAX
    });
    println!("worst latency while {CROWD} come, time out, and are removed: {measured:?}");
    assert!(is_fast, "{measured:?}");
    let open = || node.metric("anode_connections", &[("endpoint", "http")]);
    eventually("all are gone", Duration::from_secs(10), || (open() <= 2.0).then_some(()));
}

/// A healthy client over TLS, for which a round is measured as in the other attacks.
fn p99_over_tls(publisher: &mut TlsSocket, subscriber: &mut TlsSocket) -> Duration {
    let (end, mut latencies, mut number) = (Deadline::after(ROUND), Vec::new(), 0);
    while end.left().is_some() {
        number += 1;
        let sent = Deadline::after(Duration::from_secs(20));
        publisher.send(&json!({"source": "healthy", "data": number, "id": number}));
        while subscriber.record()["data"] != number {}
        latencies.push(sent.elapsed());
        assert_eq!(publisher.json()["id"], number);
        super::harness::wait::pause();
    }
    percentile_99(latencies)
}

/// A hello as a client sends it. To send it again costs nothing, and the node has to agree on a key and to sign for
/// each: this is the dearest that a stranger can ask for.
fn hello(node: &TlsNode) -> Vec<u8> {
    let mut stream = TlsStream::connect(&node.node.http, &node.client);
    let mut bytes = Vec::new();
    assert!(stream.tls.write_tls(&mut bytes).is_ok());
    bytes
}

/// A flood of handshakes, of which hundreds wait at any time, costs those who are connected a fraction of a millisecond
/// of a turn, whether or not the handshakes are ever done.
#[test]
fn a_flood_of_handshakes_holds_up_nobody() {
    let _alone = alone();
    let authority = Authority::new("ca");
    let mut node = TlsNode::start(&authority, &["--workers", "1"]);
    node.client = authority.client(&[&TLS13]);
    let mut subscriber = node.subscriber("source=healthy");
    let mut publisher = node.websocket(node.connect(), "/publish");
    let hello = hello(&node);
    let attack = Attack::default();
    let (mut measured, mut answered) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let flood = || {
            let mut answered = 0_u64;
            attack.started();
            while attack.goes_on() {
                let mut waiting: Vec<TcpStream> = (0..100).map(|_| connect(&node.node.http)).collect();
                waiting.retain_mut(|stream| stream.write_all(&hello).is_ok());
                for stream in &mut waiting {
                    let mut first = [0; 1];
                    answered +=
                        u64::from(stream.read(&mut first).is_ok_and(|read| read == 1 && first[0] == 22));
                }
            }
            answered
        };
        let floods: Vec<_> = (0..3).map(|_| scope.spawn(flood)).collect();
        let end = EndsAttack(&attack);
        attack.wait_started();
        let is_fast = (0..ROUNDS_MAX).any(|_| {
            let p99 = p99_over_tls(&mut publisher, &mut subscriber);
            measured.push(p99);
            p99 <= P99_MAX
        });
        // Somebody who comes in the middle of it gets in.
        node.put("newcomer", json!(1));
        drop(end);
        answered += floods.into_iter().filter_map(|flood| flood.join().ok()).sum::<u64>();
        println!("p99 under {answered} hellos: {measured:?}");
        assert!(is_fast, "{measured:?} under {answered} hellos");
    });
    assert!(answered > 200, "the flood was answered {answered} times only");
}
