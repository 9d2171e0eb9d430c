//! Filters of subscriptions: `filter` on the URL, in frames of JSON and protobuf, on streams of events and in GraphQL.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::anode;
use crate::harness::http::connect;
use crate::harness::proto::client_message::Message as ToNode;
use crate::harness::proto::record::Value as ProtoValue;
use crate::harness::proto::server_message::Message as FromNode;
use crate::harness::rights::{RightsFile, token_entry};
use crate::harness::ws::{Handshake, refused, shake_with};
use crate::harness::{Client, Cluster, Http, Node, NodeConfig, ProtoClient, proto};

const MOMENT: Duration = Duration::from_millis(300);

/// A text as a value in a URL.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn query(source: &str, filter: &str) -> String {
    format!("source={source}&filter={}", encoded(filter))
}

/// Source and data of a record.
fn what(record: &Value) -> (Value, Value) {
    (record["source"].clone(), record["data"].clone())
}

#[test]
fn only_records_for_which_the_filter_is_true_are_sent() {
    let node = Node::single();
    node.put("s/1", json!({"c": 19}));
    node.put("s/2", json!({"c": 21}));
    node.put("s/3", json!({"c": 21.5}));
    node.put("s/4", json!("21.5"));
    let mut client = node.subscriber(&query("s/*", "data.c > 20"));
    let snapshot = client.snapshot();
    assert_eq!(snapshot.sources(), ["s/2", "s/3"], "the snapshot is filtered, and 21 and 21.5 are numbers");
    node.put("s/1", json!({"c": 20}));
    node.put("s/4", json!([1, 2]));
    let ts = node.put("s/1", json!({"c": 20.5}));
    let record = client.record();
    assert_eq!(record, json!({"source": "s/1", "ts": ts, "origin": "a", "data": {"c": 20.5}}));
}

#[test]
fn a_source_that_starts_not_to_match_is_gone_once() {
    let node = Node::single();
    let mut client = node.subscriber(&query("s/*", "data > 20"));
    client.snapshot();
    node.put("s/1", json!(30));
    assert_eq!(client.record()["data"], 30);
    let ts = node.put("s/1", json!(10));
    assert_eq!(client.record(), json!({"source": "s/1", "ts": ts, "gone": true}));
    node.put("s/1", json!(11));
    node.put("s/2", json!(5));
    client.assert_silent(MOMENT);
    node.put("s/1", json!(40));
    assert_eq!(client.record()["data"], 40);
    // A value whose field is missing counts as one that does not match.
    node.put("s/1", json!({"nothing": 1}));
    assert_eq!(client.record()["gone"], true);
}

#[test]
fn deletions_are_always_sent() {
    let node = Node::single();
    node.put("s/1", json!(1));
    node.put("s/2", json!(2));
    let mut client = node.subscriber(&query("s/*", "data == 2"));
    assert_eq!(client.snapshot().sources(), ["s/2"]);
    for source in ["s/1", "s/2"] {
        let answer = node.post(json!({"source": source, "deleted": true}));
        assert_eq!(answer.status, 200, "{answer:?}");
        let record = client.record();
        assert_eq!((&record["source"], &record["deleted"]), (&json!(source), &json!(true)));
    }
}

#[test]
fn in_mode_all_nothing_is_told_to_be_gone() {
    let node = Node::single();
    let mut client = node.subscriber(&(query("s", "data > 20") + "&mode=all"));
    client.snapshot();
    for data in [30, 10, 31] {
        node.put("s", json!(data));
    }
    assert_eq!(client.record()["data"], 30);
    assert_eq!(client.record()["data"], 31);
}

#[test]
fn a_filter_knows_source_timestamp_data_and_deletion() {
    let node = Node::single();
    let filter = "source.endsWith('/x') && ts == 7 && data == b'ab' && !deleted";
    let mut client = node.subscriber("");
    client.ask(json!({"id": 1, "subscribe": {"sources": ["s/*"], "filter": filter}}));
    client.snapshot();
    let mut publisher = node.publisher();
    publisher.publish(json!({"source": "s/y", "ts": 7, "data_b64": "YWI="}));
    publisher.publish(json!({"source": "s/x", "ts": 6, "data_b64": "YWI="}));
    publisher.publish(json!({"source": "s/x", "ts": 7, "data_b64": "YWI="}));
    assert_eq!(client.record()["data_b64"], "YWI=");
}

#[test]
fn a_record_is_sent_once_if_any_subscription_wants_it() {
    let node = Node::single();
    let mut client = node.subscriber(&query("s/*", "data > 20"));
    client.snapshot();
    client.ask(json!({"id": 2, "subscribe": {"sources": ["s/1"]}}));
    client.snapshot();
    for data in [30, 10] {
        node.put("s/1", json!(data));
        assert_eq!(client.record()["data"], data, "the second subscription has no filter");
    }
    node.put("s/2", json!(30));
    assert_eq!(what(&client.record()), (json!("s/2"), json!(30)));
    node.put("s/2", json!(3));
    assert_eq!(client.record()["gone"], true);
    client.ask(json!({"id": 3, "subscribe": {"sources": ["s/*"], "filter": "data < 5", "snapshot": false}}));
    client.snapshot();
    node.put("s/2", json!(30));
    assert_eq!(client.record()["data"], 30);
    node.put("s/2", json!(3));
    assert_eq!(client.record()["data"], 3, "it leaves one filter and enters the other");
    node.put("s/2", json!(10));
    assert_eq!(client.record()["gone"], true);
    client.assert_silent(MOMENT);
}

#[test]
fn bad_filters_are_refused_with_the_place() {
    let node = Node::single();
    for (filter, place) in [
        ("data.c >", "line 1, column 9"),
        ("data.c > 1 &&\n temp < 3", "line 2, column 2"),
        ("data.foo()", "line 1, column 6"),
        ("drop()", "line 1, column 1"),
        ("data.c.matches('(')", "line 1, column 8"),
        (&"(".repeat(3_000), "line 1, column "),
        (&format!("data == '{}'", "x".repeat(4_096)), "at most 4096"),
    ] {
        let query = query("s", filter);
        for path in [format!("/subscribe?{query}"), format!("/v1/stream?{query}")] {
            if query.len() > 12_000 {
                break;
            }
            let answer = match path.starts_with("/v1") {
                true => Http::get(&node.http, &path),
                false => refused(&node.http, &path, &[]),
            };
            let problem = answer.json();
            assert_eq!((answer.status, &problem["code"]), (400, &json!("bad_filter")), "{path}: {problem}");
            assert!(problem.to_string().contains(place), "{filter}: {problem}");
        }
        let mut client = node.subscriber("");
        let answer = client.ask(json!({"id": 1, "subscribe": {"sources": ["s"], "filter": filter}}));
        assert_eq!(answer["error"]["code"], "bad_filter", "{answer}");
        assert_eq!(answer["error"]["temporary"], false);
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains(place)), "{answer}");
        let answer = client.ask(json!({"id": 2, "subscribe": {"sources": ["s"]}}));
        assert_eq!(answer["result"]["subscription"], 1, "the connection stays open");
    }
    let answer = Http::get(&node.http, "/v1/stream?source=s&filter=true&filter=true");
    assert_eq!(answer.json()["code"], "bad_request");
}

#[test]
fn filters_that_would_work_without_end_do_not() {
    let node = Node::single();
    let filter = "data.all(a, data.all(b, data.all(c, a + b + c >= 0)))";
    let mut client = node.subscriber(&query("s", filter));
    client.snapshot();
    let list: Vec<u32> = (0..2_000).collect();
    node.put("s", json!(list));
    node.put("s", json!([1]));
    assert_eq!(client.record()["data"], json!([1]), "what takes too much work counts as false");
    assert!(node.metric("anode_filter_errors_total", &[]) >= 1.0);
    let mut refusals = 0;
    for number in 0..9 {
        let filter = format!("data.exists(x, x == {number})");
        let answer = client.ask(json!({"id": number, "subscribe": {"sources": ["t"], "filter": filter}}));
        refusals += usize::from(answer["error"]["code"] == "bad_request");
    }
    assert_eq!(refusals, 2, "a connection has eight of these, one of them from before");
}

#[test]
fn what_changed_while_away_is_told_when_the_client_resumes() {
    let cluster = Cluster::start(2);
    for (number, data) in [(1, 30), (2, 30), (3, 30), (4, 5)] {
        let ts = cluster[0].put(&format!("s/{number}"), json!(data));
        cluster[1].wait_ts(&format!("s/{number}"), ts);
    }
    let filter = "data > 20";
    let mut client = cluster[0].subscriber(&query("s/*", filter));
    let token = client.snapshot().resume;
    drop(client);
    for (source, data) in [("s/1", 1), ("s/2", 50), ("s/4", 40)] {
        let ts = cluster[0].put(source, json!(data));
        cluster[1].wait_ts(source, ts);
    }
    let mut client = cluster[1].subscriber(&format!("{}&resume={token}", query("s/*", filter)));
    assert_eq!(client.next()["result"]["recovered"], true);
    let mut told = BTreeMap::new();
    for record in client.snapshot().records {
        told.insert(record["source"].as_str().unwrap_or_default().to_owned(), record);
    }
    assert_eq!(told["s/1"]["gone"], true);
    assert_eq!(told["s/2"]["data"], 50);
    assert_eq!(told["s/4"]["data"], 40);
    assert_eq!(told.len(), 3);
    // What the token covers is known to be shown.
    cluster[1].put("s/3", json!(0));
    assert_eq!(client.record()["gone"], true);
    // A token of another filter does not say what was seen with this one.
    let mut other = cluster[1].subscriber(&format!("{}&resume={token}", query("s/*", "data > 21")));
    assert_eq!(other.next()["result"]["recovered"], false);
    let mut plain = cluster[1].subscriber(&format!("source=s/*&resume={token}"));
    assert_eq!(plain.next()["result"]["recovered"], false);
    let token = plain.snapshot().resume;
    let mut narrowed = cluster[1].subscriber(&format!("{}&resume={token}", query("s/*", filter)));
    assert_eq!(narrowed.next()["result"]["recovered"], false, "it may show what the filter is not true of");
}

#[test]
fn a_slow_reader_ends_with_what_matches() {
    let node = Node::single();
    let mut client = node.subscriber(&query("s/*", "data.n % 3 != 0"));
    client.snapshot();
    let filler = "x".repeat(20_000);
    let mut publisher = node.publisher();
    let mut last = BTreeMap::new();
    for round in 0..60 {
        for source in 0..8 {
            let n = (round * 7 + source * 5) % 11;
            let name = format!("s/{source}");
            publisher.publish(json!({"source": name, "data": {"n": n, "f": filler}}));
            last.insert(name, n);
        }
    }
    publisher.publish(json!({"source": "s/end", "data": {"n": 1}}));
    let mut table = BTreeMap::new();
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for record in client.records_until(Duration::from_secs(20), |record| record["source"] == "s/end") {
        let source = record["source"].as_str().unwrap_or_default().to_owned();
        let ts = record["ts"].as_u64().unwrap_or_default();
        assert!(newest.insert(source.clone(), ts) < Some(ts), "timestamps rise");
        match record["gone"] == true {
            true => table.remove(&source),
            false => table.insert(source, record["data"]["n"].clone()),
        };
    }
    table.remove("s/end");
    let wanted: BTreeMap<String, Value> =
        last.into_iter().filter(|(_, n)| n % 3 != 0).map(|(name, n)| (name, json!(n))).collect();
    assert_eq!(table, wanted);
}

#[test]
fn over_protobuf() {
    let node = Node::single();
    node.put("s/1", json!(30));
    let mut client = ProtoClient::open(&node.http, "/subscribe");
    let subscribe = |filter: &str| {
        ToNode::Subscribe(proto::Subscribe {
            sources: vec!["s/*".into()],
            filter: Some(filter.into()),
            ..Default::default()
        })
    };
    client.send(subscribe("data >"));
    let answer = client.answer();
    assert!(matches!(answer.answer, Some(proto::answer::Answer::Error(error)) if error.code == "bad_filter"));
    client.send(subscribe("data > 20"));
    assert!(matches!(client.answer().answer, Some(proto::answer::Answer::Subscribed(_))));
    let record = client.record();
    assert_eq!((record.source.as_str(), record.value), ("s/1", Some(ProtoValue::Data("30".into()))));
    assert!(matches!(client.next(), FromNode::Eos(_)));
    let ts = node.put("s/1", json!(1));
    let record = client.record();
    assert_eq!(record.value, Some(ProtoValue::Gone(true)));
    assert_eq!((record.source.as_str(), record.ts, record.origin.as_str()), ("s/1", ts, ""));
}

#[test]
fn in_batches_of_records() {
    let node = Node::single();
    let mut client = node.subscriber(&(query("s/*", "data > 20") + "&batch=true"));
    client.snapshot();
    node.put("s/1", json!(30));
    node.put("s/1", json!(3));
    let records = client.records_until(Duration::from_secs(10), |record| record["gone"] == true);
    assert_eq!(records.last().map(|record| &record["source"]), Some(&json!("s/1")));
}

#[test]
fn over_a_stream_of_events() {
    let node = Node::single();
    node.put("s/1", json!(3));
    let mut stream = connect(&node.http);
    let path = format!("/v1/stream?{}", query("s/*", "data > 20"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", node.http);
    stream.write_all(request.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "event: eos"), "an empty snapshot");
    node.put("s/1", json!(30));
    let ts = node.put("s/1", json!(3));
    let mut events = Vec::new();
    let mut is_record = false;
    for line in lines {
        is_record |= line == "event: record";
        if let Some(data) = line.strip_prefix("data: ").filter(|_| is_record) {
            events.push(crate::harness::json(data));
            is_record = false;
            if events.len() == 2 {
                break;
            }
        }
    }
    assert_eq!(events[0]["data"], 30);
    assert_eq!(events[1], json!({"source": "s/1", "ts": ts, "gone": true}));
}

#[test]
fn over_graphql() {
    let node = Node::single();
    node.put("s/1", json!(3));
    let fields = [("Host", node.http.as_str())];
    let shaken = shake_with(&node.http, "/graphql", &["graphql-transport-ws"], &fields);
    let Handshake::Open(socket, _) = shaken else { panic!("refused") };
    let mut client = Client::over(socket);
    client.send_json(json!({"type": "connection_init"}));
    assert_eq!(client.json()["type"], "connection_ack");
    let query = "subscription($f: String) { records(patterns: [\"s/*\"], filter: $f) { __typename
        ... on Record { source ts data gone } } }";
    let mut subscribe = |id: &str, filter: &str| {
        let payload = json!({"query": query, "variables": {"f": filter}});
        client.send_json(json!({"id": id, "type": "subscribe", "payload": payload}));
        client.json()
    };
    let refused = subscribe("1", "data >");
    assert_eq!(refused["payload"][0]["extensions"]["code"], "bad_filter", "{refused}");
    assert_eq!(subscribe("2", "data > 20")["payload"]["data"]["records"]["__typename"], "Eos");
    let ts = node.put("s/1", json!(30));
    let record = client.json()["payload"]["data"]["records"].clone();
    assert_eq!(record, json!({"__typename": "Record", "source": "s/1", "ts": ts, "data": 30, "gone": false}));
    let ts = node.put("s/1", json!(3));
    let gone = client.json()["payload"]["data"]["records"].clone();
    assert_eq!(gone, json!({"__typename": "Record", "source": "s/1", "ts": ts, "data": null, "gone": true}));
}

#[test]
fn a_filter_does_not_change_what_may_be_read() {
    let rights = RightsFile::new(&token_entry("reader", "secret", "subscribe = [\"open/**\"]"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let path = format!("/v1/stream?{}", query("closed/**", "false"));
    Http::with_token(&node.http, "GET", &path, "secret").assert_problem(403, "forbidden");
}

#[test]
fn the_command_line_filters() {
    let node = Node::single();
    node.put("s/1", json!({"c": 19}));
    node.put("s/2", json!({"c": 21}));
    let url = format!("ws://{}", node.http);
    let told = anode(&["sub", "s/*", "--url", &url, "--filter", "data.c > 20", "--count", "1"]);
    assert_eq!(crate::harness::json(told.stdout.trim())["source"], "s/2", "{told:?}");
    let told = anode(&["sub", "s/*", "--url", &url, "--filter", "data.c >", "--count", "1"]);
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stderr.contains("line 1, column 9"), "{told:?}");
}

#[test]
fn filters_are_counted_and_shared() {
    let node = Node::single();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = node.subscriber(&query("s", "data > 20"));
            client.snapshot();
            client
        })
        .collect();
    node.put("s", json!(30));
    for mut client in clients {
        assert_eq!(client.record()["data"], 30);
    }
    let evaluations = node.metric("anode_filter_evaluations_total", &[]);
    assert!((1.0..8.0).contains(&evaluations), "{evaluations}: once for each event loop");
}
