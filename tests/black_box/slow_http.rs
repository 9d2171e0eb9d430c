//! HTTP clients that are idle or slow: they take nothing from others, and are cut when they are too slow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::api::assert_described;
use crate::harness::http::{connect, read_all};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Deadline, Http, Node, NodeConfig, eventually};

/// Number of connections that the control plane serves at a time.
const PLACES: usize = 1_024;

/// Checks that others are served, and soon.
fn others_are_served(node: &Node, name: &str) {
    let start = Deadline::after(Duration::from_secs(60));
    for path in ["/healthz", "/readyz", "/metrics", "/v1/members"] {
        assert_eq!(node.get(path).status, 200, "{path} with {name}");
    }
    for step in 0..20 {
        let answer = node.post(json!({"source": "other", "data": step}));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    let large = json!({"source": "large", "data": "x".repeat(60_000)});
    assert_eq!(node.post(large).status, 200, "{name}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?} with {name}", start.elapsed());
}

/// Opens connections, each of which sends `text`.
fn many(node: &Node, count: usize, text: &str) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = connect(&node.http);
            assert!(stream.write_all(text.as_bytes()).is_ok());
            stream
        })
        .collect()
}

/// The pause of a slow client.
fn tenth_of_a_second() {
    throughout("the client is slow", Duration::from_millis(100), || true);
}

/// The beginning of a publish whose body has `length` bytes.
fn publish_head(length: usize) -> String {
    format!("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

/// With 1,024 connections on which nothing was asked any more, `/healthz` answered 503, and a supervisor would
/// have killed the node.
#[test]
fn idle_connections_keep_nobody_out() {
    let node = Node::single();
    let mut idle = many(&node, PLACES, "GET /v1/members HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for stream in &mut idle {
        assert!(stream.read_exact(&mut [0; 64]).is_ok());
    }
    others_are_served(&node, "idle connections");
    assert!(node.metric("anode_http_cuts_total", &[("reason", "place")]) >= 1.0);
}

/// With 64 bodies that did not come, no other publish over HTTP was read; with 1,024, nothing was answered.
#[test]
fn slow_bodies_keep_nobody_out() {
    let node = Node::single();
    let mut slow = many(&node, 64, &format!("{}{{", publish_head(1_000)));
    others_are_served(&node, "64 slow bodies");
    slow.extend(many(&node, PLACES, &format!("{}{{", publish_head(1_000))));
    others_are_served(&node, "1,088 slow bodies");
    // The first ones are told why they do not get an answer, and that they may come again.
    let answer = String::from_utf8_lossy(&read_all(&mut slow[0], Duration::from_secs(5))).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer:?}");
    assert!(answer.contains("\"overloaded\"") && answer.contains("\"temporary\":true"), "{answer:?}");
}

/// Connections whose answers were not read kept their places for up to a minute each.
#[test]
fn clients_that_do_not_read_keep_nobody_out() {
    let node = Node::single();
    for step in 0..5 {
        node.put(&format!("page/{step}"), json!("x".repeat(60_000)));
    }
    let _unread = many(&node, PLACES, "GET /v1/sources HTTP/1.1\r\nHost: localhost\r\n\r\n");
    others_are_served(&node, "unread answers");
}

/// A node whose connections are all taken answered 503 on the health paths too, and dropped connections
/// without an answer where many came.
#[test]
fn health_is_answered_when_all_connections_are_taken() {
    let node = Node::start(NodeConfig::named("a").with(&["--max-connections", "8"]));
    let mut silent: Vec<TcpStream> = (0..400).map(|_| connect(&node.http)).collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    // Others are refused and told so.
    let refused = eventually("room for refusals", Duration::from_secs(20), || {
        // Those from before may have been cut, because they sent nothing for too long.
        silent = (0..8).map(|_| connect(&node.http)).collect();
        let answer = Http::attempt(&node.http, "GET", "/v1/members", &[], b"").ok()?;
        (answer.status == 503 && answer.header("retry-after").is_some()).then_some(answer)
    });
    refused.assert_problem(503, "overloaded");
}

/// Bodies that had almost come were kept for 30 s, each in its place; and their memory had no bound but
/// their number.
#[test]
fn bodies_that_arrive_have_bounded_memory() {
    let node = Node::single();
    let before = node.rss_bytes();
    let body = " ".repeat(1_000_000);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..400 {
        let mut stream = connect(&node.http);
        // A write fails where the node has refused the body already.
        let _ = stream.write_all(publish_head(1_048_000).as_bytes());
        let _ = stream.write_all(body.as_bytes());
        held.push(stream);
    }
    others_are_served(&node, "bodies that have almost come");
    let grown = node.rss_bytes().saturating_sub(before);
    assert!(grown < 240 << 20, "{grown} bytes for 400 bodies of 1 MB");
    let answer = String::from_utf8_lossy(&read_all(&mut held[0], Duration::from_secs(5))).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
}

/// A body of a byte a second took 30 s. One that is slow but comes is taken.
#[test]
fn a_body_slower_than_the_least_rate_is_cut() {
    let node = Node::single();
    let mut dripping = connect(&node.http);
    assert!(dripping.write_all(publish_head(10_000).as_bytes()).is_ok());
    let body = json!({"source": "slow", "data": "x".repeat(30_000)}).to_string();
    let mut slow = connect(&node.http);
    assert!(slow.write_all(publish_head(body.len()).as_bytes()).is_ok());
    let start = Deadline::after(Duration::from_secs(60));
    for piece in body.as_bytes().chunks(body.len().div_ceil(120)) {
        // A write fails once the node has cut the connection.
        let _ = dripping.write_all(b" ");
        assert!(slow.write_all(piece).is_ok());
        tenth_of_a_second();
    }
    let mut head = [0; 12];
    assert!(slow.read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 200", "{head:?}");
    let answer = Http::read(&mut dripping).unwrap_or_else(|error| panic!("no answer: {error}"));
    answer.assert_problem(408, "too_slow");
    assert_described(&node, ("post", "/v1/publish"), &answer);
    assert_eq!(answer.json()["temporary"], true, "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    assert_eq!(node.metric("anode_http_cuts_total", &[("reason", "slow_body")]), 1.0);
}

/// An answer that nobody read was kept for up to a minute.
#[test]
fn a_reader_slower_than_the_least_rate_is_cut() {
    let node = Node::single();
    for step in 0..140 {
        node.put(&format!("page/{step}"), json!("x".repeat(60_000)));
    }
    let ask = "GET /v1/sources?limit=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let [_unread, mut slow] = [(); 2].map(|()| {
        let mut stream = connect(&node.http);
        assert!(stream.write_all(ask.as_bytes()).is_ok());
        stream
    });
    let mut piece = vec![0; 20_000];
    let mut read = 0;
    eventually("the one that does not read is cut", Duration::from_secs(40), || {
        // The other one reads twenty times as fast as it must.
        read += slow.read(&mut piece).unwrap_or_else(|error| panic!("cut after {read} bytes: {error}"));
        tenth_of_a_second();
        (node.metric("anode_http_cuts_total", &[("reason", "slow_reader")]) == 1.0).then_some(())
    });
    let mut rest = Vec::new();
    assert!(slow.read_to_end(&mut rest).is_ok() || rest.len() + read > 8_000_000, "{}", rest.len() + read);
}

/// A burst of requests used all places, and the next request was refused although a place was free a moment later.
#[test]
fn a_request_waits_a_moment_for_a_place() {
    // So little memory for clients leaves 32 places.
    let flags = ["--max-client-memory", "8MiB"];
    let cluster = Cluster::configured(2, |config| config.in_memory().with(&flags));
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    other.signal("STOP");
    let record = r#"{"source":"busy","data":1}"#;
    let request = "POST /v1/publish?ack=replicated HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26\r\n\r\n";
    let mut busy = many(node, 32, &format!("{request}{record}"));
    let is_busy = || (node.metric("anode_connections", &[("endpoint", "http")]) >= 32.0).then_some(());
    eventually("all places are used", Duration::from_secs(5), is_busy);
    let mut late = many(node, 1, "GET /v1/sources/none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    tenth_of_a_second();
    other.signal("CONT");
    for stream in late.iter_mut().chain(&mut busy) {
        let answer = Http::read(stream).expect("an answer");
        assert!(matches!(answer.status, 200 | 404), "{answer:?}");
    }
}
