//! Whole nodes in this process, over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::*;
use crate::config::{Config, Hardware, Raw, check, raw::Text};
use crate::server::lifecycle::Fatal;

/// Longer than anything here takes: a test that has waited for this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(set: impl FnOnce(&mut Raw)) -> Config {
    let text = |text: &str| Some(Text(text.to_owned()));
    let mut raw = Raw {
        http: text("127.0.0.1:0"),
        gossip: text("127.0.0.1:0"),
        store: text("memory"),
        workers: text("2"),
        profile: text("local"),
        ..Raw::default()
    };
    set(&mut raw);
    check(&raw, Hardware { cores: 2, memory_bytes: 1 << 30 }).expect("configuration")
}

fn started(set: impl FnOnce(&mut Raw)) -> NodeHandle {
    let node = Node::start(config(set)).expect("started");
    node.wait_loaded().expect("loaded");
    node
}

struct Client(WebSocket<TcpStream>);

impl Client {
    fn open(node: &NodeHandle, path: &str) -> Client {
        let mut client = Client::try_open(node, path).expect("opened");
        assert!(client.next()["connected"]["node"].is_string());
        client
    }

    fn try_open(node: &NodeHandle, path: &str) -> Result<Client, tungstenite::Error> {
        let stream = TcpStream::connect(node.http).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("no delay");
        let url = format!("ws://{}{path}", node.http);
        let config = Some(WebSocketConfig::default());
        match tungstenite::client::client_with_config(url, stream, config) {
            Ok((socket, _)) => Ok(Client(socket)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).expect("sent");
    }

    /// The next message, or `{"close":CODE}`.
    fn next(&mut self) -> Value {
        loop {
            match self.0.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Close(frame) => {
                    return json!({"close": frame.map(|frame| u16::from(frame.code))});
                }
                _ => {}
            }
        }
    }

    fn close_code(&mut self) -> u64 {
        loop {
            if let Some(code) = self.next().get("close") {
                return code.as_u64().unwrap_or_default();
            }
        }
    }
}

/// Sends a whole request and reads the whole answer.
fn http(node: &NodeHandle, request: &str) -> String {
    let mut stream = TcpStream::connect(node.http).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn get(node: &NodeHandle, path: &str) -> String {
    http(node, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn post(node: &NodeHandle, path: &str, body: &str) -> String {
    let length = body.len();
    http(
        node,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end_us = clock::mono_us() + PATIENCE.as_micros() as u64;
    while !holds() {
        assert!(clock::mono_us() < end_us, "{what} did not come true");
        clock::sleep(5_000);
    }
}

/// Changes in a row are handed out connection by connection: each gets its own, all of them, in their
/// order, wherever what others want begins and ends, and however much it is.
#[test]
fn changes_in_a_row_are_for_those_who_want_them() {
    let node = started(|raw| raw.workers = Some(Text("1".into())));
    let patterns = ["x/**", "x/**", "x/**", "x/**", "x/**", "x/1", "x/1", "x/*", "x/*", "y/**"];
    let mut subscribers = patterns.map(|pattern| {
        let url = format!("/subscribe?source={pattern}&mode=all&snapshot=false");
        let mut subscriber = Client::open(&node, &url);
        assert_eq!(subscriber.next()["result"]["subscription"], 1);
        assert!(subscriber.next()["eos"]["resume"].is_string());
        (pattern, subscriber)
    });
    let mut publisher = Client::open(&node, "/publish");
    let padding = "p".repeat(1_500);
    let source = |number: usize| ["x/1", "x/2", "x/2", "x/2", "x/2", "y/1", "x/2/3"][number / 9 % 7];
    // Less than may wait for one connection.
    let numbers = 0..500;
    for number in numbers.clone() {
        publisher.send(&json!({"source": source(number), "data": [number, padding]}));
    }
    for (pattern, subscriber) in &mut subscribers {
        let pattern = crate::record::Pattern::parse(pattern).expect("pattern");
        for number in numbers.clone().filter(|number| pattern.matches(source(*number))) {
            let record = subscriber.next();
            assert_eq!((&record["source"], &record["data"][0]), (&json!(source(number)), &json!(number)));
        }
    }
    node.stop();
}

#[test]
fn what_is_published_reaches_every_subscriber_and_http() {
    let node = started(|_| {});
    let mut subscribers: Vec<_> =
        (0..8).map(|_| Client::open(&node, "/subscribe?source=sensors/**")).collect();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next()["result"]["subscription"], 1);
        assert!(subscriber.next()["eos"]["resume"].is_string());
    }
    let mut publisher = Client::open(&node, "/publish");
    publisher.send(&json!({"id": 1, "source": "sensors/7/temp", "data": 21.5}));
    let answer = publisher.next();
    assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
    for subscriber in &mut subscribers {
        let record = subscriber.next();
        assert_eq!((&record["source"], &record["data"]), (&json!("sensors/7/temp"), &json!(21.5)));
    }
    assert!(get(&node, "/v1/sources/sensors/7/temp").ends_with("21.5}"));
    assert!(get(&node, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(&node, "/readyz").starts_with("HTTP/1.1 200"));
    let posted = post(&node, "/v1/publish?ack=stored", r#"{"source":"sensors/8","data":[1]}"#);
    assert!(posted.starts_with("HTTP/1.1 200") && posted.contains("\"level\":\"stored\""), "{posted}");
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next()["source"], "sensors/8");
    }
    let metrics = get(&node, "/metrics");
    assert!(metrics.contains("anode_connections{endpoint=\"subscribe\"} 8"), "{metrics}");
    assert!(metrics.contains("anode_deliveries_total 16"), "{metrics}");
    node.stop();
}

#[test]
fn a_stream_of_records_arrives_in_order_from_every_worker() {
    const RECORDS: u64 = 5_000;
    let node = started(|_| {});
    let mut subscribers: Vec<_> =
        (0..4).map(|_| Client::open(&node, "/subscribe?source=a/*&mode=all")).collect();
    for subscriber in &mut subscribers {
        while subscriber.next().get("eos").is_none() {}
    }
    let reading: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            std::thread::spawn(move || {
                let mut last = [0; 10];
                for _ in 0..RECORDS {
                    let record = subscriber.next();
                    let source = record["source"].as_str().expect("a record").to_owned();
                    let at: usize = source[2..].parse().expect("number");
                    let data = record["data"].as_u64().expect("data");
                    assert!(data > last[at], "{source}: {data} after {}", last[at]);
                    last[at] = data;
                }
            })
        })
        .collect();
    let mut publisher = Client::open(&node, "/publish");
    for batch in (1..=RECORDS).collect::<Vec<_>>().chunks(50) {
        let batch: Vec<_> =
            batch.iter().map(|n| json!({"source": format!("a/{}", n % 10), "data": n})).collect();
        publisher.send(&Value::Array(batch));
    }
    for reader in reading {
        reader.join().expect("all arrived");
    }
}

#[test]
fn bad_handshakes_are_refused_before_the_upgrade() {
    let node = started(|_| {});
    for (path, protocol) in [
        ("/subscribe?nonsense=1", ""),
        ("/publish?ack=never", ""),
        ("/publish", "Sec-WebSocket-Protocol: mqtt\r\n"),
    ] {
        let answer = http(
            &node,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
            ),
        );
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("\"code\":\"bad_request\""));
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(crate::limits::REQUEST_HEAD_BYTES_MAX));
    assert!(http(&node, &long).starts_with("HTTP/1.1 431"));
    assert!(http(&node, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn breaches_are_closed_with_their_codes() {
    let node = started(|raw| raw.max_frame_bytes = Some(Text("4096".into())));
    let mut wrong_kind = Client::open(&node, "/publish");
    wrong_kind.0.send(Message::binary(vec![1])).expect("sent");
    assert_eq!(wrong_kind.close_code(), 1003);
    let mut too_long = Client::open(&node, "/publish");
    too_long.0.send(Message::text("x".repeat(5000))).expect("sent");
    assert_eq!(too_long.close_code(), 1009);
    let mut no_json = Client::open(&node, "/publish");
    no_json.0.send(Message::text("{")).expect("sent");
    assert_eq!(no_json.next()["error"]["code"], "bad_json");
    no_json.send(&json!({"id": "x", "source": "a", "data": 1}));
    assert_eq!(no_json.next()["id"], "x", "the connection stays open");
}

#[test]
fn a_node_with_too_many_connections_turns_away_politely() {
    let node = started(|raw| raw.max_connections = Some(Text("2".into())));
    let mut first = Client::open(&node, "/publish");
    let _second = Client::open(&node, "/publish");
    let mut third = Client::try_open(&node, "/publish").expect("upgraded");
    assert_eq!(third.close_code(), 4100);
    let turned_away = get(&node, "/v1/members");
    assert!(
        turned_away.starts_with("HTTP/1.1 503") && turned_away.contains("retry-after: 1"),
        "{turned_away}"
    );
    assert!(get(&node, "/healthz").starts_with("HTTP/1.1 200"), "there is always room for the health paths");
    first.0.close(None).expect("closing");
    assert_eq!(first.close_code(), 0);
    drop((first, third));
    eventually("a free place", || get(&node, "/v1/members").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_slow_subscriber_to_all_is_closed_4202_and_one_to_the_latest_ends_with_the_newest() {
    let node = started(|_| {});
    let mut all = Client::open(&node, "/subscribe?source=big&mode=all");
    let mut latest = Client::open(&node, "/subscribe?source=big");
    let mut publisher = Client::open(&node, "/publish");
    let filler = "x".repeat(60_000);
    let count = 400;
    for n in 1..=count {
        publisher.send(&json!({"id": n, "source": "big", "data": {"n": n, "filler": filler}}));
        publisher.next();
    }
    assert_eq!(all.close_code(), 4202);
    let newest = std::iter::repeat_with(|| latest.next()).filter_map(|frame| frame["data"]["n"].as_u64());
    assert_eq!(newest.take_while(|n| *n < count).count() as u64, {
        // Fewer than all: the others were conflated.
        let metrics = get(&node, "/metrics");
        let line = metrics.lines().find(|line| line.starts_with("anode_conflated_total ")).expect("metric");
        let conflated: u64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("number");
        assert!(conflated > 0);
        count - 1 - conflated
    });
}

#[test]
fn a_stop_sends_clients_away_and_a_kill_tells_nobody() {
    let node = started(|_| {});
    let mut subscriber = Client::open(&node, "/subscribe?source=a");
    let stopping = std::thread::spawn(move || node.stop());
    assert_eq!(subscriber.close_code(), 4200);
    drop(subscriber);
    stopping.join().expect("stopped");

    let node = started(|_| {});
    let mut subscriber = Client::open(&node, "/subscribe?source=a");
    let address = node.http;
    node.kill();
    let end = std::iter::repeat_with(|| subscriber.0.read()).find_map(Result::err);
    assert!(!matches!(end, Some(tungstenite::Error::ConnectionClosed)), "{end:?}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_is_stored_is_there_after_a_kill_and_the_name_stays() {
    let dir = tempfile::tempdir().expect("directory");
    let embedded = |raw: &mut Raw| {
        raw.store = Some(Text("embedded".into()));
        raw.data_dir = Some(Text(dir.path().to_str().expect("path").into()));
    };
    let node = started(embedded);
    let name = node.name.clone();
    let mut publisher = Client::open(&node, "/publish?ack=stored");
    publisher.send(&json!({"id": 1, "source": "kept", "data": "yes"}));
    assert_eq!(publisher.next()["result"]["level"], "stored");
    node.kill();
    let node = started(embedded);
    assert_eq!(node.name, name);
    assert!(get(&node, "/v1/sources/kept").ends_with("\"yes\"}"));
    node.stop();
}

#[test]
fn nodes_find_each_other_and_see_one_leave() {
    let first = started(|_| {});
    let join = Some(Text(first.gossip.to_string()));
    let second = started(|raw| raw.join = join.clone());
    let third = started(|raw| raw.join = join);
    let states = |node: &NodeHandle, state: &str| get(node, "/v1/members").matches(state).count();
    for node in [&first, &second, &third] {
        eventually("three members", || states(node, "\"alive\"") == 3);
    }
    second.stop();
    for node in [&first, &third] {
        eventually("one has left", || states(node, "\"left\"") == 1);
    }
    third.kill();
    eventually("one is dead", || states(&first, "\"dead\"") == 1);
    first.stop();
}

#[test]
fn a_record_published_at_one_node_is_pushed_by_every_node() {
    let first = started(|_| {});
    let join = Some(Text(first.gossip.to_string()));
    let nodes = [started(|raw| raw.join = join.clone()), started(|raw| raw.join = join.clone())];
    let alive = |node: &NodeHandle| get(node, "/v1/members").matches("\"alive\"").count();
    eventually("three members", || nodes.iter().chain([&first]).all(|node| alive(node) == 3));
    let mut subscribers: Vec<_> =
        nodes.iter().map(|node| Client::open(node, "/subscribe?source=**&mode=all")).collect();
    for subscriber in &mut subscribers {
        while subscriber.next().get("eos").is_none() {}
    }
    let mut publisher = Client::open(&first, "/publish");
    for n in 0..200 {
        publisher.send(&json!({"source": format!("s/{n}"), "data": n}));
    }
    for subscriber in &mut subscribers {
        let mut seen: Vec<_> = (0..200).map(|_| subscriber.next()["data"].as_u64()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).map(Some).collect::<Vec<_>>());
    }
    let late = started(|raw| raw.join = join);
    eventually("the latecomer is ready", || get(&late, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&late, "/v1/sources/s/199").ends_with("199}"));
}

#[test]
fn a_name_that_is_alive_elsewhere_is_refused() {
    let named = |raw: &mut Raw| raw.node_name = Some(Text("twin".into()));
    let first = started(named);
    let join = Some(Text(first.gossip.to_string()));
    let second = config(|raw| {
        named(raw);
        raw.join = join;
    });
    let second = Node::start(second).expect("started");
    eventually("the newcomer ends", || matches!(second.fatal(), Some(Fatal::NameTaken { .. })));
    assert!(first.fatal().is_none());
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let node = started(|_| {});
    let taken = Node::start(config(|raw| raw.http = Some(Text(node.http.to_string()))));
    assert!(matches!(taken, Err(ServerError::Http { .. })));
    let taken = Node::start(config(|raw| raw.gossip = Some(Text(node.gossip.to_string()))));
    assert!(matches!(taken, Err(ServerError::Gossip { .. })));
}
