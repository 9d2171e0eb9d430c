//! Traces of records on their way over the nodes, as a receiver of OTLP over HTTP gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Node, NodeConfig, anode, eventually, wall_us};

/// A receiver of OTLP over HTTP.
struct Receiver {
    url: String,
    taken: Arc<Mutex<Taken>>,
}

/// What a receiver was sent.
#[derive(Default)]
struct Taken {
    /// Heads of the requests.
    heads: Vec<String>,
    /// Spans, with the name of the node that has sent them.
    spans: Vec<(String, Value)>,
}

impl Receiver {
    /// A receiver that answers every request with this status.
    fn answering(status: u16) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let into = taken.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let into = into.clone();
                std::thread::spawn(move || serve(socket, status, &into));
            }
        });
        Receiver { url, taken }
    }

    fn spans(&self) -> Vec<(String, Value)> {
        self.taken.lock().expect("lock").spans.clone()
    }

    /// The spans of this name, with the node that has sent each.
    fn named(&self, name: &str) -> Vec<(String, Value)> {
        self.spans().into_iter().filter(|(_, span)| span["name"] == name).collect()
    }
}

fn serve(socket: TcpStream, status: u16, into: &Mutex<Taken>) {
    let mut reader = BufReader::new(socket);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let before = head.len();
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = head[before..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("length");
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let mut taken = into.lock().expect("lock");
    taken.heads.push(head);
    for resource in request["resourceSpans"].as_array().expect("resources") {
        let node = attribute(&resource["resource"], "service.instance.id").expect("node");
        assert_eq!(attribute(&resource["resource"], "service.name").as_deref(), Some("anode"));
        for scope in resource["scopeSpans"].as_array().expect("scopes") {
            let spans = scope["spans"].as_array().expect("spans");
            taken.spans.extend(spans.iter().map(|span| (node.clone(), span.clone())));
        }
    }
    drop(taken);
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
    let _ = reader.get_mut().write_all(answer.as_bytes());
}

/// An attribute of a span or resource, as text.
fn attribute(of: &Value, key: &str) -> Option<String> {
    let found = of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    let value = &found["value"];
    value["stringValue"].as_str().or(value["intValue"].as_str()).map(str::to_owned)
}

fn source(span: &Value) -> String {
    attribute(span, "anode.source").expect("source")
}

/// Three nodes that send traces of this share of the records.
fn cluster(receiver: &Receiver, rate: &str) -> [Node; 3] {
    let flags = ["--trace-sample", rate, "--trace-endpoint", &receiver.url];
    let first = Node::start(NodeConfig::named("a").with(&flags));
    let others = ["b", "c"].map(|name| Node::start(NodeConfig::joining(name, &first).with(&flags)));
    let [second, third] = others;
    let nodes = [first, second, third];
    nodes.iter().for_each(|node| node.wait_alive(3));
    nodes
}

#[test]
fn the_way_of_a_record_is_one_trace_over_all_nodes() {
    let receiver = Receiver::answering(200);
    let nodes = cluster(&receiver, "1");
    let mut subscribers = [nodes[2].subscriber("source=way/*"), nodes[2].subscriber("source=way/*")];
    subscribers.iter_mut().for_each(|subscriber| drop(subscriber.snapshot()));
    let before_us = wall_us();
    let ts = nodes[0].put("way/x", json!(1));
    subscribers.iter_mut().for_each(|subscriber| drop(subscriber.record()));
    // Accepted and passed on once, applied twice, stored thrice, handed out by the event loops of one node.
    let handed = |receiver: &Receiver| -> u64 {
        let spans = receiver.named("deliver");
        let number = |span: &Value| attribute(span, "anode.subscribers")?.parse::<u64>().ok();
        spans.iter().filter_map(|(_, span)| number(span)).sum()
    };
    eventually("all spans have come", Duration::from_secs(30), || {
        let is_all = receiver.named("store").len() == 3
            && receiver.named("apply").len() == 2
            && receiver.named("pass on").len() == 1
            && handed(&receiver) == 2;
        is_all.then_some(())
    });
    let after_us = wall_us();
    let spans = receiver.spans();
    let (_, root) = &receiver.named("accept")[0];
    assert!(root.get("parentSpanId").is_none(), "{root}");
    let mut ids = BTreeMap::new();
    for (node, span) in &spans {
        assert_eq!(span["traceId"], root["traceId"], "{span}");
        assert_eq!(source(span), "way/x");
        assert_eq!(attribute(span, "anode.ts"), Some(ts.to_string()));
        assert_eq!(attribute(span, "anode.origin").as_deref(), Some("a"));
        let at =
            |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("time") / 1_000;
        let (start_us, end_us) = (at("startTimeUnixNano"), at("endTimeUnixNano"));
        assert!(before_us <= start_us && start_us <= end_us && end_us <= after_us, "{span}");
        let id = span["spanId"].as_str().expect("id").to_owned();
        assert_eq!((id.len(), span["traceId"].as_str().map(str::len)), (16, Some(32)));
        assert!(ids.insert(id, (node.clone(), span["name"].clone())).is_none(), "an id stands twice: {span}");
    }
    for (node, span) in spans.iter().filter(|(_, span)| span["name"] != "accept") {
        let (above, name) = &ids[span["parentSpanId"].as_str().expect("a parent")];
        let expected = match (span["name"].as_str(), node.as_str()) {
            (Some("apply"), _) | (_, "a") => ("a", "accept"),
            (_, node) => (node, "apply"),
        };
        assert_eq!((above.as_str(), name.as_str()), (expected.0, Some(expected.1)), "{span}");
    }
    let nodes_of =
        |name: &str| receiver.named(name).into_iter().map(|(node, _)| node).collect::<BTreeSet<_>>();
    assert_eq!(nodes_of("store"), ["a", "b", "c"].map(String::from).into());
    assert_eq!(nodes_of("apply"), ["b", "c"].map(String::from).into());
    assert_eq!(nodes_of("deliver"), ["c".to_owned()].into());
    let taken = receiver.taken.lock().expect("lock");
    let head = taken.heads[0].to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    drop(taken);
    eventually("what was sent is counted", Duration::from_secs(10), || {
        let sent: f64 = nodes.iter().map(|node| node.metric("anode_trace_spans_sent_total", &[])).sum();
        (sent as usize == receiver.spans().len()).then_some(())
    });
}

#[test]
fn every_node_traces_the_same_share() {
    let receiver = Receiver::answering(200);
    let nodes = cluster(&receiver, "0.3");
    let mut publisher = nodes[1].publisher();
    for number in 0..300 {
        publisher.publish(json!({"source": format!("share/{number}"), "data": number, "ack": "replicated"}));
    }
    drop(publisher);
    let traced = |name: &str, node: &str| -> BTreeSet<String> {
        let spans = receiver.named(name);
        spans.iter().filter(|(from, _)| from == node).map(|(_, span)| source(span)).collect()
    };
    eventually("all nodes have traced the same", Duration::from_secs(30), || {
        let accepted = traced("accept", "b");
        let is_same = ["a", "c"].iter().all(|node| traced("apply", node) == accepted);
        // Of 300 records, 90 are expected; 40 more or less is five times the standard deviation.
        (is_same && (50..=130).contains(&accepted.len())).then_some(())
    });
    // Records of the nodes themselves are not traced.
    assert!(receiver.spans().iter().all(|(_, span)| source(span).starts_with("share/")), "system records");
}

#[test]
fn nothing_is_traced_without_a_share() {
    let receiver = Receiver::answering(200);
    let mut node = Node::start(NodeConfig::named("a").with(&["--trace-endpoint", &receiver.url]));
    for number in 0..50 {
        node.put("s", json!(number));
    }
    assert_eq!(node.metric("anode_trace_spans_sent_total", &[]), 0.0);
    // At its end, a node sends what waits.
    assert_eq!(node.sigterm(), Some(0));
    assert!(receiver.spans().is_empty());
}

#[test]
fn what_waits_at_the_end_is_sent() {
    let receiver = Receiver::answering(200);
    let flags = ["--trace-sample", "1", "--trace-endpoint", &receiver.url];
    let mut node = Node::start(NodeConfig::named("a").with(&flags));
    node.put("last", json!(1));
    assert_eq!(node.sigterm(), Some(0));
    assert_eq!(receiver.named("accept").len(), 1);
}

/// A receiver that is gone or slow must not be noticed by clients.
#[test]
fn a_receiver_that_takes_nothing_costs_spans_and_nothing_else() {
    // It accepts no connection at the level of the program, so whoever posts waits for an answer.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}", silent.local_addr().expect("address"));
    let flags = ["--trace-sample", "1", "--trace-endpoint", &url];
    let mut node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    let records: Vec<Value> = (0..1_000).map(|at| json!({"source": format!("s/{at}"), "data": at})).collect();
    let dropped = |node: &Node| node.metric("anode_trace_spans_dropped_total", &[("reason", "queue")]);
    for _ in 0..12 {
        let answer = node.post(json!(records));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    eventually("what is too much is dropped", Duration::from_secs(10), || {
        (dropped(&node) > 0.0).then_some(())
    });
    assert!(node.metric("anode_queue_bytes", &[("queue", "traces")]) > 10_000.0, "the others wait");
    assert_eq!(node.latest("s/999").expect("held")["data"], 999);
    assert_eq!(node.sigterm(), Some(0), "it ends although the receiver does not answer");
}

#[test]
fn a_refusal_is_counted_and_logged() {
    let receiver = Receiver::answering(400);
    let flags = ["--trace-sample", "1", "--trace-endpoint", &receiver.url];
    let node = Node::start(NodeConfig::named("a").with(&flags));
    node.put("s", json!(1));
    eventually("it is counted", Duration::from_secs(30), || {
        (node.metric("anode_trace_spans_dropped_total", &[("reason", "endpoint")]) >= 1.0).then_some(())
    });
    eventually("it is logged", Duration::from_secs(10), || {
        let log = node.log();
        (log.contains("traces could not be sent") && log.contains("status 400")).then_some(())
    });
}

/// A collector that restarts answers nothing for a moment, or 503.
#[test]
fn a_batch_that_is_not_taken_for_now_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/otlp", listener.local_addr().expect("address"));
    let flags = ["--trace-sample", "1", "--trace-endpoint", &url];
    let node = Node::start(NodeConfig::named("a").with(&flags));
    node.put("again", json!(1));
    let taken: Arc<Mutex<Taken>> = Arc::default();
    let (mut socket, _) = listener.accept().expect("a first try");
    let _ = socket.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    drop(socket);
    let (socket, _) = listener.accept().expect("another try");
    serve(socket, 200, &taken);
    let taken = taken.lock().expect("lock");
    assert!(taken.heads[0].starts_with("POST /otlp HTTP/1.1\r\n"), "{:?}", taken.heads);
    assert!(taken.spans.iter().any(|(_, span)| source(span) == "again"), "{:?}", taken.spans);
}

#[test]
fn unusable_settings_are_named() {
    let refused = |args: &[&str], words: &[&str]| {
        let output = anode(&[&["serve"], args].concat());
        assert_eq!(output.code, Some(2), "{output:?}");
        words.iter().for_each(|word| assert!(output.stderr.contains(word), "{word}: {}", output.stderr));
    };
    let url = "http://127.0.0.1:4318";
    for bad in ["2", "-1", "all", ""] {
        refused(
            &["--trace-sample", bad, "--trace-endpoint", url],
            &["--trace-sample", bad, "from 0 (none) to 1"],
        );
    }
    refused(&["--trace-sample", "0.1"], &["--trace-endpoint", "--trace-sample is 0.1"]);
    refused(&["--trace-endpoint", "localhost:4318"], &["--trace-endpoint", "localhost:4318", "http://HOST"]);
}
