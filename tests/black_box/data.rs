//! The content of records: data that is kept byte by byte and within its bound, deletions, and times to live.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Node, NodeConfig, wall_us};
use crate::publish::refusal;

#[test]
fn data_is_kept_verbatim() {
    let node = Node::single();
    let mut subscriber = node.subscriber("source=v/**");
    subscriber.snapshot();
    let mut client = node.publisher();
    let datas = [
        "1.0",
        "1e2",
        "-0",
        "100000000000000000000000000.000",
        "null",
        "true",
        r#""""#,
        r#""\u0041\/\ud83d\ude00""#,
        r#"{"b":1,"a":2,"b":3}"#,
        "[ 1 ,\t2 ]",
        r#"{ "x" : { } }"#,
        "\"ä\u{1f600}\u{2028}\"",
    ];
    for (index, data) in datas.iter().enumerate() {
        client.send_text(&format!(r#"{{"id":1, "source" : "v/{index}" ,"data" :  {data}  }}"#));
        assert!(client.text().contains("applied"), "{data}");
        let delivered = subscriber.text();
        assert!(delivered.contains(&format!("\"data\":{data}}}")), "{data} → {delivered}");
        let fetched = node.get(&format!("/v1/sources/v/{index}")).body;
        assert!(fetched.contains(&format!("\"data\":{data}")), "{data} → {fetched}");
    }
}

#[test]
fn data_survives_a_restart_verbatim() {
    let mut node = Node::single();
    let mut client = node.publisher();
    let data = r#"{ "b":1.00, "a" : "\u00e4" }"#;
    client.send_text(&format!(r#"{{"id":1,"source":"v","data":{data},"ack":"stored"}}"#));
    assert!(client.text().contains("applied"));
    node.kill9();
    node.restart();
    let fetched = node.get("/v1/sources/v").body;
    assert!(fetched.contains(&format!("\"data\":{data}")), "{fetched}");
}

#[test]
fn bytes_come_out_as_they_went_in() {
    let node = Node::single();
    let mut client = node.publisher();
    let mut subscriber = node.subscriber("source=b");
    subscriber.snapshot();
    for text in ["", "AA==", "AAH/", "+/+/"] {
        let answer = client.publish(json!({"source": "b", "data_b64": text}));
        assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
        let record = subscriber.record();
        assert_eq!(record["data_b64"], text);
        assert!(record.get("data").is_none() && record.get("deleted").is_none(), "{record}");
    }
}

#[test]
fn the_bound_counts_the_bytes_of_the_data_alone() {
    let node = Node::start(NodeConfig::named("a").with(&["--max-record-bytes", "1000"]));
    let mut client = node.publisher();
    assert_eq!(client.connected["max_record_bytes"], 1000);
    let source = "s".repeat(255);
    let fits = json!({"source": source, "data": "x".repeat(998)});
    assert_eq!(client.publish(fits)["result"]["outcome"], "applied");
    assert_eq!(refusal(&mut client, json!({"source": source, "data": "x".repeat(999)})), "too_large");
    // The bound of binary data is for its bytes, not for their base64.
    let bytes = base64(&[7; 1000]);
    assert_eq!(client.publish(json!({"source": "b", "data_b64": bytes}))["result"]["outcome"], "applied");
    let bytes = base64(&[7; 1001]);
    assert_eq!(refusal(&mut client, json!({"source": "b", "data_b64": bytes})), "too_large");
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_deletion_is_delivered_and_hides_the_source() {
    let node = Node::single();
    node.put("d", json!(1));
    let mut subscriber = node.subscriber("source=d");
    assert_eq!(subscriber.snapshot().records.len(), 1);
    let answer = node.publisher().publish(json!({"source": "d", "deleted": true}));
    assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
    let record = subscriber.record();
    let ts = &answer["result"]["ts"];
    assert_eq!(record, json!({"source": "d", "ts": ts, "origin": "a", "deleted": true}));
    assert!(node.latest("d").is_none());
    assert!(node.subscriber("source=d").snapshot().records.is_empty());
}

#[test]
fn after_its_time_to_live_a_record_is_gone() {
    let node = Node::single();
    let mut subscriber = node.subscriber("source=t");
    subscriber.snapshot();
    let answer = node.publisher().publish(json!({"source": "t", "data": 1, "ttl_ms": 700}));
    let ts = &answer["result"]["ts"];
    assert_eq!(subscriber.record()["data"], 1);
    assert!(node.latest("t").is_some());
    let end = subscriber.record();
    assert_eq!(end, json!({"source": "t", "ts": ts, "origin": "a", "deleted": true}));
    assert!(wall_us() >= ts.as_u64().unwrap_or_default() + 700_000, "too early");
    assert!(node.latest("t").is_none());
    assert!(node.subscriber("source=t").snapshot().records.is_empty());
    // The history went on returning a value that all other readers saw as expired.
    let history = node.get("/v1/sources/t/history").json();
    assert_eq!(history, json!({"records": [], "after": null}));
    // A record that has expired when it is published is never visible.
    let late = json!({"source": "u", "data": 1, "ts": wall_us() - 5_000_000, "ttl_ms": 1000});
    assert_eq!(node.publisher().publish(late)["result"]["outcome"], "applied");
    assert!(node.latest("u").is_none());
}

#[test]
fn an_update_outlives_the_time_to_live_of_what_it_replaced() {
    let node = Node::single();
    let mut client = node.publisher();
    client.publish(json!({"source": "t", "data": 1, "ttl_ms": 300}));
    client.publish(json!({"source": "t", "data": 2}));
    let mut subscriber = node.subscriber("source=t");
    assert_eq!(subscriber.snapshot().records.len(), 1);
    subscriber.assert_silent(Duration::from_millis(800));
    assert_eq!(node.latest("t").map(|record| record["data"].clone()), Some(json!(2)));
}
