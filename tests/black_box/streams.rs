//! Streams of Server-Sent Events, read from raw sockets as a browser reads them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::{connect, read_all};
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Deadline, Http, Node, NodeConfig, eventually};
use crate::snippets::{assert_alike, block_of};

/// An event as a browser sees it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    event: String,
    id: String,
    data: String,
}

impl Told {
    fn json(&self) -> Value {
        crate::harness::json(&self.data)
    }
}

/// The client of one stream.
struct EventSource {
    reader: BufReader<TcpStream>,
    head: String,
    comments: usize,
    retry_ms: Option<u64>,
}

impl EventSource {
    fn open(node: &Node, query: &str) -> EventSource {
        EventSource::open_with(&node.http, query, &[])
    }

    fn resume(node: &Node, query: &str, id: &str) -> EventSource {
        EventSource::open_with(&node.http, query, &[("Last-Event-ID", id)])
    }

    fn open_with(address: &str, query: &str, fields: &[(&str, &str)]) -> EventSource {
        let mut stream = connect(address);
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "GET /v1/stream?{query} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).unwrap_or_else(|error| panic!("{error}: {head}"));
            assert!(read > 0, "no head: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        EventSource { reader, head, comments: 0, retry_ms: None }
    }

    /// The next event; `None` at the end of the stream.
    fn next_within(&mut self, within: Duration) -> Option<Told> {
        let deadline = Deadline::after(within);
        let mut told = Told::default();
        loop {
            let left = deadline.left().unwrap_or_else(|| panic!("no event within {within:?}; {told:?}"));
            let _ = self.reader.get_ref().set_read_timeout(Some(left));
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => panic!("{error} after {told:?} {line:?}"),
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(':').map(|(name, value)| (name, value.trim_start_matches(' '))) {
                None if line.is_empty() && told.data.is_empty() => told = Told::default(),
                None if line.is_empty() => {
                    told.data.pop();
                    return Some(told);
                }
                Some(("", _)) => self.comments += 1,
                Some(("event", value)) => told.event = value.into(),
                Some(("id", value)) => told.id = value.into(),
                Some(("data", value)) => told.data.push_str(&format!("{value}\n")),
                Some(("retry", value)) => self.retry_ms = value.parse().ok(),
                other => panic!("a strange line: {line:?} {other:?}"),
            }
        }
    }

    fn next(&mut self) -> Told {
        let told = self.next_within(Duration::from_secs(20));
        told.unwrap_or_else(|| panic!("the stream has ended"))
    }

    /// The records up to the end of the snapshot, and the token there.
    fn snapshot(&mut self) -> (Vec<Value>, String) {
        let mut records = Vec::new();
        loop {
            let told = self.next();
            match told.event.as_str() {
                "record" => records.push(told.json()),
                "eos" => return (records, told.id),
                other => panic!("{other:?}: {told:?}"),
            }
        }
    }

    /// The next record. Tokens in between are skipped.
    fn record(&mut self) -> Value {
        loop {
            let told = self.next();
            match told.event.as_str() {
                "record" => return told.json(),
                "resume" => {}
                other => panic!("{other:?}: {told:?}"),
            }
        }
    }
}

#[test]
fn a_stream_has_a_snapshot_and_then_what_changes() {
    let cluster = Cluster::start(2);
    let ts = cluster[0].put("a/1", json!({"x": 1}));
    cluster[1].wait_ts("a/1", ts);
    cluster[1].put("b", json!(0));
    let mut stream = EventSource::open(&cluster[1], "source=a/*&source=c/**");
    let head = stream.head.to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    let (records, token) = stream.snapshot();
    assert_eq!(records, [json!({"source": "a/1", "ts": ts, "origin": cluster[0].id, "data": {"x": 1}})]);
    assert!(!token.is_empty() && stream.retry_ms.is_some_and(|ms| (1_000..3_000).contains(&ms)));
    let ts = cluster[0].put("c/d/e", json!(2));
    assert_eq!(stream.record(), json!({"source": "c/d/e", "ts": ts, "origin": cluster[0].id, "data": 2}));
    cluster[0].put("b", json!(1));
    cluster[0].post(json!({"source": "a/1", "deleted": true}));
    let deleted = stream.record();
    assert_eq!((&deleted["source"], &deleted["deleted"]), (&json!("a/1"), &json!(true)));
    cluster[0].post(json!({"source": "a/b", "data_b64": "AP8="}));
    assert_eq!(stream.record()["data_b64"], "AP8=");
    assert_eq!(cluster[1].metric("anode_connections", &[("endpoint", "stream")]), 1.0);
    drop(stream);
    eventually("the stream is not counted any longer", Duration::from_secs(5), || {
        (cluster[1].metric("anode_connections", &[("endpoint", "stream")]) == 0.0).then_some(())
    });
}

/// `HEAD` was answered with a redirection to the same path, on a new connection, which followers were sent round by.
#[test]
fn head_has_the_head_of_a_stream() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let answer = Http::request(&node.http, "HEAD", "/v1/stream?source=a/*", &[], b"");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!((answer.header("cache-control"), answer.header("content-length")), (Some("no-store"), None));
    assert_eq!(Http::request(&node.http, "HEAD", "/v1/stream", &[], b"").status, 400);
}

#[test]
fn without_a_snapshot_only_what_changes_is_told() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put("a", json!(1));
    let mut stream = EventSource::open(&node, "source=a&snapshot=false&mode=all");
    assert_eq!(stream.snapshot().0, [json!(null); 0]);
    for number in 0..100 {
        node.put("a", json!(number));
    }
    for number in 0..100 {
        assert_eq!(stream.record()["data"], number, "mode=all leaves nothing out");
    }
}

#[test]
fn data_with_line_breaks_is_one_event() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut stream = EventSource::open(&node, "source=a");
    stream.snapshot();
    let body = "{\"source\":\"a\",\"data\":{\r\n \"x\": [1,\n\n2],\r\"y\":\"z\\n\"}}";
    assert_eq!(Http::post(&node.http, "/v1/publish", body).status, 200);
    assert_eq!(stream.record()["data"], json!({"x": [1, 2], "y": "z\n"}));
    let (records, _) = EventSource::open(&node, "source=a").snapshot();
    assert_eq!(records[0]["data"], json!({"x": [1, 2], "y": "z\n"}));
}

#[test]
fn tokens_and_comments_come_at_intervals() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut stream = EventSource::open(&node, "source=a");
    stream.snapshot();
    let began = Deadline::after(Duration::from_secs(60));
    let mut tokens = 0;
    while tokens < 3 {
        let told = stream.next();
        assert_eq!(told.event, "resume", "{told:?}");
        assert_eq!(told.json(), json!({"resume": told.id}));
        tokens += 1;
    }
    let elapsed = began.elapsed();
    assert!((29..35).contains(&elapsed.as_secs()), "three tokens in {elapsed:?}");
    assert!((1..=2).contains(&stream.comments), "{} comments in {elapsed:?}", stream.comments);
}

/// Each event of docs/protocol.md has the fields that it shows, and the same members in its data.
#[test]
fn events_are_those_of_the_reference() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put("sensors/7/temp", json!(21.5));
    let mut stream = EventSource::open(&node, "source=sensors/**");
    let block = block_of("docs/protocol.md", "event: record");
    assert_eq!(block.split("\n\n").count(), 3);
    for event in block.split("\n\n") {
        let told = stream.next();
        let shown = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        assert_eq!(told.event, shown("event: "), "{told:?}");
        assert_eq!(told.id.is_empty(), shown("id: ").is_empty(), "{told:?}");
        assert_alike(&told.json(), &crate::harness::json(shown("data: ")));
    }
}

#[test]
fn a_client_resumes_at_any_node_after_the_death_of_its_own() {
    let mut cluster = Cluster::start(3);
    cluster[0].put("r/1", json!(1));
    let last = cluster[0].put("r/2", json!(1));
    cluster[2].wait_ts("r/2", last);
    let mut stream = EventSource::open(&cluster[2], "source=r/*");
    let (records, token) = stream.snapshot();
    assert_eq!(records.len(), 2);
    cluster[2].kill9();
    assert_eq!(stream.next_within(Duration::from_secs(5)), None, "the connection ends with its node");
    let ts = cluster[0].put("r/2", json!(2));
    cluster[0].post(json!({"source": "r/1", "deleted": true}));
    cluster[1].wait_ts("r/2", ts);
    let mut stream = EventSource::resume(&cluster[1], "source=r/*", &token);
    let (mut records, next) = stream.snapshot();
    records.sort_by_key(|record| record["source"].to_string());
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!((&records[0]["deleted"], &records[1]["data"]), (&json!(true), &json!(2)));
    // The token in the URL is older than that of the header.
    let query = format!("source=r/*&resume={token}");
    assert_eq!(EventSource::resume(&cluster[0], &query, &next).snapshot().0, [json!(null); 0]);
    assert_eq!(EventSource::open(&cluster[0], &query).snapshot().0.len(), 2);
    // A token that proves nothing here: the client is told to forget what it holds.
    let other = Node::start(NodeConfig::named("z").in_memory());
    other.put("r/9", json!(9));
    let mut foreign = EventSource::resume(&other, "source=r/*", &next);
    let reset = foreign.next();
    assert_eq!((reset.event.as_str(), reset.json()), ("reset", json!({"recovered": false})));
    assert_eq!(foreign.snapshot().0[0]["data"], 9);
}

/// Asks for a stream and returns the answer, which must not be one.
fn refused(address: &str, target: &str, fields: &[(&str, &str)]) -> Http {
    let answer = Http::request(address, "GET", target, fields, b"");
    assert_ne!(answer.status, 200, "{answer:?}");
    answer
}

#[test]
fn what_is_wrong_is_said_by_the_status() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--max-subscriptions", "2"]));
    for (query, code) in [
        ("", "bad_request"),
        ("?snapshot=true", "bad_request"),
        ("?source=a&mode=x", "bad_request"),
        ("?source=a&snapshot=1", "bad_request"),
        ("?source=a&batch=true", "bad_request"),
        ("?source=a&filter=x", "bad_filter"),
        ("?source=a&resume=x", "bad_request"),
        ("?source=a&source=b&source=c", "bad_request"),
        ("?source=a//b", "bad_pattern"),
    ] {
        refused(&node.http, &format!("/v1/stream{query}"), &[]).assert_problem(400, code);
    }
    let bad_token = refused(&node.http, "/v1/stream?source=a", &[("Last-Event-ID", "nonsense")]);
    bad_token.assert_problem(400, "bad_request");
    // A stream is no WebSocket. Its refusals named the version of that protocol.
    assert_eq!(bad_token.header("sec-websocket-version"), None, "{bad_token:?}");
    let post = Http::request(&node.http, "POST", "/v1/stream?source=a", &[], b"");
    post.assert_problem(405, "method_not_allowed");
    assert!(post.header("allow").is_some_and(|allow| allow.contains("GET")), "{post:?}");
    refused(&node.http, "/v1/stream?source=a", &[("Host", "elsewhere.example")])
        .assert_problem(403, "forbidden");
    let empty = EventSource::open_with(&node.http, "source=a", &[("Last-Event-ID", "")]).snapshot();
    assert_eq!(empty.0, [json!(null); 0]);
    eventually("no stream is counted", Duration::from_secs(5), || {
        (node.metric("anode_connections", &[("endpoint", "stream")]) == 0.0).then_some(())
    });
}

/// A browser may send the request on a connection that the control plane has already.
#[test]
fn a_stream_may_be_asked_for_on_a_connection_that_was_used_before() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut stream = connect(&node.http);
    let ask = |stream: &mut TcpStream, target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    };
    ask(&mut stream, "/v1/members");
    let mut first = [0; 16];
    stream.read_exact(&mut first).unwrap_or_else(|error| panic!("{error}"));
    ask(&mut stream, "/v1/stream?source=a%2F*&snapshot=false");
    let answer = String::from_utf8_lossy(&read_all(&mut stream, Duration::from_secs(5))).into_owned();
    let (_, second) = answer.split_once("HTTP/1.1 307").unwrap_or_else(|| panic!("{answer}"));
    assert!(second.contains("\r\nlocation: stream?source=a%2F*&snapshot=false\r\n"), "{answer}");
    assert!(second.contains("\r\nconnection: close\r\n"), "{answer}");
    // The event loops answer health requests by themselves, and take the stream on the same connection.
    let mut stream = connect(&node.http);
    ask(&mut stream, "/healthz");
    stream.read_exact(&mut first).unwrap_or_else(|error| panic!("{error}"));
    ask(&mut stream, "/v1/stream?source=a");
    let mut reader = BufReader::new(stream);
    let mut text = String::new();
    while !text.contains("event: eos") {
        assert!(reader.read_line(&mut text).is_ok_and(|read| read > 0), "{text}");
    }
}

#[test]
fn pages_may_read_a_stream_if_their_origin_is_allowed() {
    let flags = ["--allow-origin", "https://app.example"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    let head = |origin: &str| {
        EventSource::open_with(&node.http, "source=a", &[("Origin", origin)]).head.to_ascii_lowercase()
    };
    let allowed = head("https://app.example");
    assert!(allowed.contains("\r\naccess-control-allow-origin: https://app.example\r\n"), "{allowed}");
    assert!(!head("https://other.example").contains("access-control-allow-origin"));
    let bad = refused(&node.http, "/v1/stream", &[("Origin", "https://app.example")]);
    assert_eq!(bad.header("access-control-allow-origin"), Some("https://app.example"));
    let preflight = Http::request(
        &node.http,
        "OPTIONS",
        "/v1/stream",
        &[
            ("Origin", "https://app.example"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization, last-event-id"),
        ],
        b"",
    );
    assert_eq!(preflight.status, 204, "{preflight:?}");
    let fields = preflight.header("access-control-allow-headers").unwrap_or_default();
    assert!(fields.contains("last-event-id") && fields.contains("if-none-match"), "{preflight:?}");
}

#[test]
fn a_stream_needs_rights_and_ends_with_them() {
    let reader = token_entry("reader", "r", "subscribe = [\"a/**\"]");
    let writer = token_entry("writer", "w", "publish = [\"**\"]");
    let anonymous = "[anonymous]\nsubscribe = [\"public/**\"]\n";
    let rights = RightsFile::new(&format!("{anonymous}{reader}{writer}"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let authorization = bearer("r");
    let field = [("Authorization", authorization.as_str())];
    let mut stream = EventSource::open_with(&node.http, "source=a/*", &field);
    stream.snapshot();
    EventSource::open(&node, "source=public/**").snapshot();
    refused(&node.http, "/v1/stream?source=**", &field).assert_problem(403, "forbidden");
    refused(&node.http, "/v1/stream?source=a/*", &[]).assert_problem(401, "unauthorized");
    let writer = bearer("w");
    refused(&node.http, "/v1/stream?source=a/*", &[("Authorization", &writer)])
        .assert_problem(403, "forbidden");
    refused(&node.http, "/v1/stream?source=a/*", &[("Authorization", "Bearer x")])
        .assert_problem(401, "unauthorized");
    rights.write(anonymous);
    node.signal("HUP");
    let last = stream.next();
    assert_eq!((last.event.as_str(), &last.json()["code"]), ("refused", &json!("unauthorized")), "{last:?}");
    assert_eq!(stream.next_within(Duration::from_secs(10)), None);
}

#[test]
fn a_slow_reader_of_everything_is_closed_and_one_of_the_latest_gets_the_latest() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut all = EventSource::open(&node, "source=s/*&mode=all");
    let mut latest = EventSource::open(&node, "source=s/*");
    all.snapshot();
    latest.snapshot();
    let data = "x".repeat(50_000);
    for round in 0..30 {
        let item =
            |number: u64| json!({"source": format!("s/{}", number % 3), "data": [round, number, data]});
        let batch: Vec<Value> = (0..18).map(item).collect();
        assert_eq!(node.post(json!(batch)).status, 200);
    }
    let last = node.put("s/0", json!("last"));
    let mut comment = String::new();
    all.reader.read_to_string(&mut comment).unwrap_or_else(|error| panic!("{error}"));
    assert!(comment.ends_with("\n\n") && comment.contains("\n: closed, 4202: "), "{}", comment.len());
    let mut stamps = std::collections::BTreeMap::new();
    let mut count = 0;
    while stamps.values().max() != Some(&last) {
        let record = latest.record();
        let (source, ts) = (record["source"].to_string(), record["ts"].as_u64().unwrap_or(0));
        assert!(stamps.insert(source, ts).is_none_or(|before| before < ts), "a source went back");
        count += 1;
    }
    assert!(count < 541, "{count} records were sent to a reader that did not read");
}

#[test]
fn streams_end_when_the_node_stops() {
    let mut node = Node::start(NodeConfig::named("a").in_memory());
    let mut stream = EventSource::open(&node, "source=a");
    stream.snapshot();
    assert_eq!(node.sigterm(), Some(0));
    let mut last = String::new();
    stream.reader.read_to_string(&mut last).unwrap_or_else(|error| panic!("{error}"));
    assert!(last.contains(": closed, 4200: draining\n\n"), "{last:?}");
}

/// Streams in the test of idle ones, where enough files may be open.
const IDLE_STREAMS: u64 = 10_000;
/// Files that are left for the tests that run at the same time in this process.
const FILES_OF_OTHERS: u64 = 2_000;

/// Idle streams cost little memory.
#[test]
fn idle_streams_are_cheap() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--workers", "2"]));
    let open = || {
        let mut stream = connect(&node.http);
        let request = b"GET /v1/stream?source=idle/a/* HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).unwrap_or_else(|error| panic!("{error}"));
        stream
    };
    // Every stream is an open file here; the tests beside this one have theirs, too.
    let files = raised_file_limit();
    let count = files.saturating_sub(FILES_OF_OTHERS).clamp(500, IDLE_STREAMS) as usize;
    // What is allocated once is there before it is measured.
    let mut streams: Vec<TcpStream> = (0..100).map(|_| open()).collect();
    let are_open = |wanted: usize| {
        eventually("all streams are open", Duration::from_secs(60), || {
            let open = node.metric("anode_connections", &[("endpoint", "stream")]);
            (open >= wanted as f64).then_some(())
        });
    };
    are_open(100);
    let before = node.rss_bytes();
    streams.extend((0..count).map(|_| open()));
    are_open(100 + count);
    throughout("time passes", Duration::from_secs(12), || true);
    let each = node.rss_bytes().saturating_sub(before) / count as u64;
    let why = if count as u64 == IDLE_STREAMS { "all that are wanted" } else { "FEWER than are wanted" };
    // Not by `println!`, which shows nothing of a test that passes.
    let told = writeln!(
        std::io::stderr(),
        "idle_streams_are_cheap: {count} streams, {why} ({IDLE_STREAMS}), because a process may open {files} files here; \
         each holds {each} bytes",
    );
    assert!(told.is_ok());
    assert!(each <= 8 * 1024, "{each} bytes each");
    let ts = node.put("idle/a/b", json!("hello"));
    let needle = format!("\"ts\":{ts}");
    for stream in streams.iter_mut().step_by(997) {
        let mut seen = String::new();
        let mut piece = [0; 4096];
        while !seen.contains(&needle) {
            let read = stream.read(&mut piece).unwrap_or_else(|error| panic!("{error}: {seen}"));
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    }
}

/// Raises the number of files that this process may open to the most that the system allows. Returns the number that is in
/// force then.
fn raised_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    in_force.unwrap_or(u64::MAX)
}
