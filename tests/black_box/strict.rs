//! Requests, handshakes and text that programs could read in two ways, or that are wrong: each has one
//! verdict, whichever part of the node reads it, and an answer by which a client can decide.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::api::assert_described;
use crate::harness::http::{connect, read_all};
use crate::harness::raw::frame;
use crate::harness::{Client, Cluster, Deadline, Http, Node};

const SOON: Duration = Duration::from_secs(8);
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// Sends `text` as the first request of a connection, and returns the answer.
fn first(node: &Node, text: &str) -> Http {
    let mut stream = connect(&node.http);
    assert!(stream.write_all(text.as_bytes()).is_ok());
    Http::read(&mut stream).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Sends `text` as the second request of a connection, and returns the answer to it. The first is answered
/// by the part of the node that answers `path`.
fn second(node: &Node, path: &str, text: &str) -> Http {
    let mut stream = connect(&node.http);
    assert!(stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).is_ok());
    assert_eq!(one_answer(&mut stream), "HTTP/1.1 200");
    assert!(stream.write_all(text.as_bytes()).is_ok());
    Http::read(&mut stream).unwrap_or_else(|error| panic!("{text:?} behind {path}: {error}"))
}

/// Reads one answer with a `Content-Length`, and leaves the connection open. Returns the beginning of it.
fn one_answer(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_exact(&mut byte).is_ok(), "{:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    assert!(stream.read_exact(&mut body).is_ok());
    head[..12].to_ascii_uppercase()
}

/// The answers to a request on every way that it can take.
fn on_every_way(node: &Node, text: &str) -> [Http; 3] {
    [first(node, text), second(node, "/healthz", text), second(node, "/v1/members", text)]
}

/// A request without `Host`, or with two, can mean two things to two programs (RFC 9112, 3.2). The node
/// took both.
#[test]
fn a_request_has_exactly_one_host() {
    let node = Node::single();
    for path in ["/healthz", "/metrics", "/v1/members", "/v1/nothing"] {
        for hosts in
            ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost: b\r\n", "Host: a b\r\n", "Host: a/b\r\n"]
        {
            let text = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            for answer in on_every_way(&node, &text) {
                answer.assert_problem(400, "bad_request");
                assert!(answer.body.contains("Host"), "{answer:?}");
            }
        }
    }
    for fine in ["GET /healthz HTTP/1.0\r\n\r\n", "GET /v1/members HTTP/1.0\r\n\r\n"] {
        assert_eq!(first(&node, fine).status, 200, "{fine:?}");
    }
    for hosts in ["", "Host: a\r\nHost: a\r\n"] {
        let text = format!("GET /publish HTTP/1.1\r\n{hosts}{UPGRADE}{KEY}{VERSION}\r\n");
        first(&node, &text).assert_problem(400, "bad_request");
    }
}

/// A client may offer several protocols to change to (RFC 9110, 7.8). The node refused a list.
#[test]
fn an_upgrade_may_name_other_protocols_beside_websocket() {
    let node = Node::single();
    for upgrade in ["h2c, websocket", "websocket, h2c", "h2c\r\nUpgrade: WebSocket"] {
        let text = format!(
            "GET /publish HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{KEY}{VERSION}\r\n"
        );
        let mut stream = connect(&node.http);
        assert!(stream.write_all(text.as_bytes()).is_ok());
        assert_eq!(one_answer(&mut stream), "HTTP/1.1 101", "{upgrade:?}");
    }
}

/// Of two keys or versions, another program may have read the other one. A body of a handshake would be read
/// as frames by one program and as a body by another one. The node took all of these.
#[test]
fn a_handshake_says_everything_once_and_has_no_body() {
    let node = Node::single();
    for (name, more) in [
        ("two keys", KEY),
        ("two versions", VERSION),
        ("two versions", "Sec-WebSocket-Version: 8\r\n"),
        ("a body", "Content-Length: 5\r\n"),
        ("a body", "Transfer-Encoding: chunked\r\n"),
    ] {
        for path in ["/publish", "/subscribe"] {
            let text =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY}{VERSION}{more}\r\nhello");
            let answer = first(&node, &text);
            answer.assert_problem(400, "bad_request");
            assert_eq!(answer.header("connection"), Some("close"), "{name}: {answer:?}");
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{name}: {answer:?}");
        }
    }
}

/// The event loop waited for `\r\n\r\n` where the control plane took a bare LF: a request was answered or not
/// depending on which of the two read it, and a handshake could swallow the frames behind it.
#[test]
fn a_bare_lf_ends_a_line_on_every_way() {
    let node = Node::single();
    let body = json!({"source": "lf", "data": 1}).to_string();
    for text in [
        "GET /healthz HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_owned(),
        "GET /v1/members HTTP/1.1\nHost: localhost\nConnection: close\r\n\n".to_owned(),
        format!(
            "POST /v1/publish HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: {}\n\n{body}",
            body.len()
        ),
    ] {
        for answer in on_every_way(&node, &text) {
            assert_eq!(answer.status, 200, "{text:?}: {answer:?}");
        }
    }
    let head = format!("GET /publish HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY}{VERSION}\r\n")
        .replace("\r\n", "\n");
    let message = "{\"id\":1,\"source\":\"lf\",\r\n\r\n\"data\":2}";
    let mut stream = connect(&node.http);
    let sent = [head.as_bytes(), &frame(true, 1, message.as_bytes()), &frame(true, 8, b"")].concat();
    assert!(stream.write_all(&sent).is_ok());
    let answer = String::from_utf8_lossy(&read_all(&mut stream, SOON)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("\"outcome\":\"applied\""), "{answer}");
}

/// A client that cannot read an error by its code can do nothing but give up. The answers to requests that
/// no handler sees had no body, and no problem said whether it is temporary.
#[test]
fn every_problem_has_a_code_and_says_whether_it_is_temporary() {
    let node = Node::single();
    let long = "x".repeat(17_000);
    let many = "X: y\r\n".repeat(120);
    let end = "Host: localhost\r\nConnection: close\r\n\r\n";
    let cases = [
        (400, "bad_request", format!("NONSENSE\x01 HTTP/1.1\r\n{end}")),
        (400, "bad_request", format!("GET /v1/members HTTP/9.9\r\n{end}")),
        (400, "bad_request", format!("GET /v1/members HTTP/1.1\r\nno field\r\n{end}")),
        (400, "bad_request", format!("POST /v1/publish HTTP/1.1\r\nContent-Length: -5\r\n{end}")),
        (400, "bad_request", format!("POST /v1/publish HTTP/1.1\r\nTransfer-Encoding: gzip\r\n{end}")),
        (
            400,
            "bad_request",
            format!("POST /v1/publish HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{end}z\r\n"),
        ),
        (404, "not_found", format!("GET /nothing HTTP/1.1\r\n{end}")),
        (404, "not_found", format!("PUT /nothing HTTP/1.1\r\n{end}")),
        (405, "method_not_allowed", format!("DELETE /v1/members HTTP/1.1\r\n{end}")),
        (405, "method_not_allowed", format!("POST /healthz HTTP/1.1\r\n{end}")),
        (413, "too_large", format!("POST /v1/publish HTTP/1.1\r\nContent-Length: 99999999\r\n{end}")),
        (426, "upgrade_required", format!("GET /publish HTTP/1.1\r\n{end}")),
        (431, "too_large", format!("GET /{long} HTTP/1.1\r\n{end}")),
        (431, "too_large", format!("GET /v1/members HTTP/1.1\r\nX: {long}\r\n{end}")),
        (431, "too_large", format!("GET /v1/members HTTP/1.1\r\n{many}{end}")),
    ];
    for (status, code, text) in &cases {
        for answer in on_every_way(&node, text) {
            answer.assert_problem(*status, code);
            let problem = answer.json();
            assert_eq!(
                (&problem["status"], &problem["temporary"]),
                (&json!(status), &json!(false)),
                "{problem}"
            );
            assert!(problem["detail"].is_string() && problem["title"].is_string(), "{problem}");
        }
    }
    // What is said instead of an upgrade is what serves the same purpose over plain HTTP.
    for (path, instead) in [("/publish", "POST to /v1/publish"), ("/subscribe", "GET /v1/stream")] {
        let problem = first(&node, &format!("GET {path} HTTP/1.1\r\n{end}")).json();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with(instead)), "{problem}");
    }
    first(&node, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").assert_problem(400, "bad_request");
    let refused = node.post(json!({"source": "a//b", "data": 1}));
    refused.assert_problem(400, "bad_source");
    assert_eq!(refused.body.matches("\"temporary\":false").count(), 1, "{refused:?}");
}

/// Who spoke TLS to a node without it waited for 5 s, and was told that the head of its request came too late.
#[test]
fn what_cannot_become_a_request_is_refused_at_once() {
    let node = Node::single();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let cases = [(&hello[..], "TLS"), (&hello[..1], "TLS"), (b"\x80\x2e\x01", "method"), (b"\x00", "method")];
    for (bytes, word) in cases {
        let start = Deadline::after(SOON);
        let mut stream = connect(&node.http);
        assert!(stream.write_all(bytes).is_ok());
        let answer = Http::read(&mut stream).unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        answer.assert_problem(400, "bad_request");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(3), "after {:?}", start.elapsed());
    }
    let refused = node.metric("anode_client_refusals_total", &[("status", "400")]);
    assert_eq!(refused, cases.len() as f64);
}

/// A head had to come within 5 s as the first on a connection, where the client is told. On a connection that
/// is kept it had 30 s, and the connection was closed without a word.
#[test]
fn a_head_must_come_in_time_on_every_way() {
    let node = Node::single();
    let start = Deadline::after(Duration::from_secs(60));
    std::thread::scope(|scope| {
        for path in [None, Some("/healthz"), Some("/v1/members")] {
            let node = &node;
            scope.spawn(move || {
                let begun = "GET /v1/members HTTP/1.1\r\nHost:";
                let answer = path.map_or_else(|| first(node, begun), |path| second(node, path, begun));
                answer.assert_problem(408, "timeout");
                assert_eq!(answer.json()["temporary"], true, "{path:?}: {answer:?}");
                assert_described(node, ("get", "/v1/members"), &answer);
            });
        }
    });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

/// RFC 6455 (8.1) lets a node fail a connection as soon as its text cannot be UTF-8 any more. A message that
/// never ends was kept for as long as its client liked.
#[test]
fn bad_text_is_refused_when_it_is_seen() {
    let node = Node::single();
    let good = "κόσμε".as_bytes();
    let long = frame(true, 1, &[&b"x".repeat(200_000)[..], b"\xff", &b"x".repeat(200_000)].concat());
    for (name, bytes) in [
        ("in a later fragment", [frame(false, 1, good), frame(false, 0, b"\xf4\x90")].concat()),
        ("across two fragments", [frame(false, 1, b"\xf4"), frame(false, 0, b"\x90")].concat()),
        ("in a fragment that does not end", frame(false, 1, b"\xc3(........")[..8].to_vec()),
        ("in a frame that does not end", frame(true, 1, b"ab\xff......")[..10].to_vec()),
        ("in a long frame that does not end", long[..300_000].to_vec()),
    ] {
        for path in ["/publish", "/subscribe"] {
            let mut client = Client::open(&node.http, path);
            client.send_bytes(&bytes);
            assert_eq!(client.close_code(), 1007, "{name} at {path}");
        }
    }
    // Good text may come in any pieces.
    let mut client = node.publisher();
    let text = r#"{"id":1,"source":"pieces","data":"κόσμε"}"#.as_bytes();
    let (one, two) = text.split_at(text.len() - 8);
    for bytes in [frame(false, 1, one), frame(true, 0, two), frame(true, 1, text)] {
        for piece in bytes.chunks(5) {
            client.send_bytes(piece);
        }
    }
    assert_eq!(client.json()["result"]["outcome"], "applied");
    assert_eq!(client.json()["result"]["outcome"], "applied");
}

/// A client may end its side behind its request (RFC 9112, 9.6). It got no answer if the answer had to be
/// waited for.
#[test]
fn a_client_that_has_ended_its_side_gets_its_answer() {
    let cluster = Cluster::start(2);
    for level in ["accepted", "stored", "replicated"] {
        let body = json!({"source": "half", "data": level}).to_string();
        let mut stream = connect(&cluster[0].http);
        let head = format!(
            "POST /v1/publish?ack={level} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}",
            body.len()
        );
        assert!(stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).is_ok());
        assert!(stream.shutdown(Shutdown::Write).is_ok());
        let answer = Http::read(&mut stream).unwrap_or_else(|error| panic!("{level}: {error}"));
        assert_eq!((answer.status, &answer.json()["level"]), (200, &json!(level)), "{answer:?}");
    }
    for path in ["/healthz", "/metrics", "/v1/members"] {
        let mut stream = connect(&cluster[0].http);
        assert!(
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).is_ok()
        );
        assert!(stream.shutdown(Shutdown::Write).is_ok());
        assert!(Http::read(&mut stream).is_ok_and(|answer| answer.status == 200), "{path}");
    }
}
