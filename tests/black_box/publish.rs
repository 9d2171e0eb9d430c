//! `/publish`: requests, answers, refusals, ack levels and times to live.

use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::harness::proto::client_message::Message as ToNode;
use crate::harness::proto::server_message::Message as FromNode;
use crate::harness::wait::PATIENCE;
use crate::harness::{
    Client, Cluster, Event, Http, Node, NodeConfig, ProtoClient, eventually, proto, wall_us,
};

/// Publishes a record that must be refused, and returns the error.
pub fn refusal(client: &mut Client, record: Value) -> Value {
    let answer = client.publish(record);
    assert!(answer["error"]["message"].is_string(), "{answer}");
    assert!(answer["error"]["temporary"].is_boolean(), "{answer}");
    answer["error"]["code"].clone()
}

#[test]
fn the_greeting_says_where_and_what() {
    let node = Node::single();
    let client = node.publisher();
    let greeting = &client.connected;
    assert_eq!(greeting["node"], "a");
    assert!(greeting["session"].as_str().is_some_and(|session| !session.is_empty()));
    assert_eq!(greeting["ping_ms"], 25_000);
    assert_eq!(greeting["max_record_bytes"], 65_536);
    assert_eq!(greeting["max_frame_bytes"], 1_048_576);
    let members = greeting["members"].as_array().cloned().unwrap_or_default();
    assert_eq!(members, [json!({"id": "a", "http": node.http})]);
    assert_ne!(node.publisher().connected["session"], greeting["session"]);
}

#[test]
fn ids_are_echoed_as_they_came() {
    let node = Node::single();
    let mut client = node.publisher();
    let longest = format!("\"{}\"", "x".repeat(64));
    for id in ["7", "-3", "0", "\"seven\"", "\"\"", r#""\u0041\n""#, "\"ä\"", "9007199254740993", &longest] {
        client.send_text(&format!(r#"{{"id":{id},"source":"a","data":1}}"#));
        let answer = client.text();
        assert!(answer.contains(&format!("\"id\":{id}")), "{id} → {answer}");
        assert!(answer.contains("\"result\""), "{id} → {answer}");
    }
    // An id may be used again.
    for _ in 0..2 {
        assert_eq!(client.ask(json!({"id": 7, "source": "a", "data": 1}))["id"], 7);
    }
    let too_long = "x".repeat(65);
    for id in [json!(1.5), json!(null), json!([]), json!({}), json!(true), json!(too_long)] {
        client.send_json(json!({"id": id, "source": "a", "data": 1}));
        assert_eq!(client.json()["error"]["code"], "bad_request", "{id}");
    }
}

#[test]
fn without_an_id_only_refusals_are_answered() {
    let node = Node::single();
    let mut client = node.publisher();
    client.send_json(json!({"source": "a", "data": 1}));
    client.send_json(json!([{"source": "a", "data": 2}, {"source": "b", "data": 2}]));
    client.send_json(json!({"source": "a//b", "data": 3}));
    let answer = client.json();
    assert_eq!(answer["error"]["code"], "bad_source", "{answer}");
    assert!(answer.get("id").is_none(), "{answer}");
    assert_eq!(client.ask(json!({"id": 1, "source": "c", "data": 4}))["result"]["outcome"], "applied");
    client.assert_silent(Duration::from_millis(300));
    assert_eq!(node.latest("a").map(|record| record["data"].clone()), Some(json!(2)));
}

#[test]
fn a_result_has_stamp_outcome_and_level() {
    let node = Node::single();
    let mut client = node.publisher();
    let before = wall_us();
    let answer = client.ask(json!({"id": 1, "source": "a", "data": 1}));
    let result = &answer["result"];
    let ts = result["ts"].as_u64().unwrap_or_default();
    assert!((before..=wall_us() + 1_000).contains(&ts), "{answer}");
    assert_eq!((&result["outcome"], &result["level"]), (&json!("applied"), &json!("accepted")));
    assert!(result.get("current_ts").is_none() && result.get("nodes").is_none(), "{answer}");
}

#[test]
fn a_batch_is_answered_by_one_array() {
    let node = Node::single();
    let mut client = node.publisher();
    client.send_json(json!([
        {"source": "b/0", "data": 0},
        {"id": "one", "source": "b/1", "data": 1},
        {"source": "b//2", "data": 2},
        {"id": 3, "source": "$b", "data": 3},
        17,
        {"id": 5, "source": "b/5", "data": 5, "ack": "stored"},
    ]));
    let answer = client.json();
    let items = answer.as_array().cloned().unwrap_or_default();
    let indices: Vec<_> = items.iter().map(|item| item["index"].clone()).collect();
    assert_eq!(indices, [json!(1), json!(2), json!(3), json!(4), json!(5)], "{answer}");
    assert_eq!((&items[0]["id"], &items[0]["result"]["outcome"]), (&json!("one"), &json!("applied")));
    assert_eq!(items[1]["error"]["code"], "bad_source");
    assert!(items[1].get("id").is_none());
    assert_eq!((&items[2]["id"], &items[2]["error"]["code"]), (&json!(3), &json!("forbidden")));
    assert_eq!(items[3]["error"]["code"], "bad_request");
    assert_eq!(items[4]["result"]["level"], "stored");
    // The valid items of the batch are published although others were refused.
    for source in ["b/0", "b/1", "b/5"] {
        assert!(node.latest(source).is_some(), "{source}");
    }
    client.send_text("[]");
    assert!(client.text().contains("\"bad_request\""));
}

#[test]
fn refusals_name_their_code_and_leave_the_connection_open() {
    let node = Node::single();
    let mut client = node.publisher();
    let cases = [
        ("bad_request", json!({"source": "a"})),
        ("bad_request", json!({"data": 1})),
        ("bad_request", json!({"source": "a", "data": 1, "colour": "red"})),
        ("bad_request", json!({"source": "a", "data": 1, "deleted": true})),
        ("bad_request", json!({"source": "a", "data": 1, "data_b64": "AA=="})),
        ("bad_request", json!({"source": "a", "deleted": false})),
        ("bad_request", json!({"source": "a", "deleted": true, "ttl_ms": 5})),
        ("bad_request", json!({"source": "a", "data": 1, "ttl_ms": 0})),
        ("bad_request", json!({"source": "a", "data": 1, "ttl_ms": 315_360_000_001u64})),
        ("bad_request", json!({"source": "a", "data": 1, "ack": "best"})),
        ("bad_request", json!({"source": "a", "data_b64": "AA"})),
        ("bad_request", json!({"source": "a", "data_b64": "A-_="})),
        ("bad_source", json!({"source": "", "data": 1})),
        ("bad_source", json!({"source": "a/../b", "data": 1})),
        ("bad_source", json!({"source": "a/*", "data": 1})),
        ("bad_source", json!({"source": "x".repeat(256), "data": 1})),
        ("bad_source", json!({"source": vec!["a"; 17].join("/"), "data": 1})),
        ("bad_source", json!({"source": "a\u{7f}", "data": 1})),
        ("bad_timestamp", json!({"source": "a", "ts": -1, "data": 1})),
        ("bad_timestamp", json!({"source": "a", "ts": 1.5, "data": 1})),
        ("bad_timestamp", json!({"source": "a", "ts": "1", "data": 1})),
        ("bad_timestamp", json!({"source": "a", "ts": 9_007_199_254_740_992u64, "data": 1})),
        ("future_timestamp", json!({"source": "a", "ts": wall_us() + 60_000_000, "data": 1})),
        ("future_timestamp", json!({"source": "a", "ts": 9_007_199_254_740_991u64, "data": 1})),
        ("too_large", json!({"source": "a", "data": "x".repeat(65_535)})),
        ("forbidden", json!({"source": "$sys/a", "data": 1})),
    ];
    for (code, record) in cases {
        assert_eq!(refusal(&mut client, record.clone()), code, "{:.200}", record.to_string());
    }
    assert!(node.latest("a").is_none());
    assert_eq!(client.publish(json!({"source": "a", "data": 1}))["result"]["outcome"], "applied");
}

#[test]
fn refusals_name_the_field() {
    let node = Node::single();
    let mut client = node.publisher();
    for (word, record) in [
        ("colour", json!({"source": "a", "data": 1, "colour": "red"})),
        ("source", json!({"data": 1})),
        ("ttl_ms", json!({"source": "a", "data": 1, "ttl_ms": -5})),
        ("ack", json!({"source": "a", "data": 1, "ack": "best"})),
        ("data_b64", json!({"source": "a", "data_b64": "?"})),
    ] {
        let answer = client.publish(record);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{word:?} in {answer}");
    }
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn text_that_is_no_json_is_refused_without_an_id() {
    let node = Node::single();
    let mut client = node.publisher();
    for text in
        ["", "{", "nonsense", r#"{"id":1,"source":"a","data":1"#, r#"{"id":1,"source":"a","data":01}"#]
    {
        client.send_text(text);
        let answer = client.json();
        assert_eq!(answer["error"]["code"], "bad_json", "{text:?} → {answer}");
        assert!(answer.get("id").is_none(), "{answer}");
    }
    for data in [r#""\ud800""#, r#""\udc00x""#, &nested(65)] {
        client.send_text(&format!(r#"{{"id":1,"source":"a","data":{data}}}"#));
        assert_eq!(client.json()["error"]["code"], "bad_json", "{data:.40}");
    }
    client.send_text(&format!(r#"{{"id":1,"source":"a","data":{}}}"#, nested(64)));
    assert_eq!(client.json()["result"]["outcome"], "applied");
}

#[test]
fn the_url_sets_the_level_and_a_record_may_say_otherwise() {
    let node = Node::single();
    let mut client = Client::open(&node.http, "/publish?ack=stored");
    assert_eq!(client.publish(json!({"source": "a", "data": 1}))["result"]["level"], "stored");
    let accepted = client.publish(json!({"source": "a", "data": 2, "ack": "accepted"}));
    assert_eq!(accepted["result"]["level"], "accepted");
}

#[test]
fn stored_holds_for_what_lost_as_well() {
    let node = Node::single();
    let mut client = Client::open(&node.http, "/publish?ack=stored");
    let first = client.publish(json!({"source": "a", "ts": 1000, "data": 1}));
    assert_eq!(first["result"], json!({"ts": 1000, "outcome": "applied", "level": "stored"}));
    let again = client.publish(json!({"source": "a", "ts": 1000, "data": 1}));
    assert_eq!(again["result"], json!({"ts": 1000, "outcome": "duplicate", "level": "stored"}));
    let older = client.publish(json!({"source": "a", "ts": 999, "data": 0}));
    assert_eq!(
        older["result"],
        json!({"ts": 999, "outcome": "stale", "current_ts": 1000, "level": "stored"})
    );
}

#[test]
fn alone_replicated_is_one_node() {
    let node = Node::single();
    let mut client = Client::open(&node.http, "/publish?ack=replicated");
    let first = client.publish(json!({"source": "a", "ts": 1000, "data": 1}));
    assert_eq!(first["result"], json!({"ts": 1000, "outcome": "applied", "level": "replicated", "nodes": 1}));
    let again = client.publish(json!({"source": "a", "ts": 1000, "data": 1}));
    assert_eq!((&again["result"]["outcome"], &again["result"]["nodes"]), (&json!("duplicate"), &json!(1)));
}

/// When the answer `replicated` arrives, every node has the record: the first read finds it.
#[test]
fn replicated_is_on_every_node() {
    let cluster = Cluster::start(3);
    let mut client = Client::open(&cluster[1].http, "/publish?ack=replicated");
    for index in 0..20 {
        let source = format!("a/{index}");
        let answer = client.publish(json!({"source": source, "data": index}));
        assert_eq!(answer["result"]["nodes"], 3, "{answer}");
        assert_eq!(answer["result"]["level"], "replicated", "{answer}");
        for node in cluster.nodes.iter() {
            assert_eq!(node.latest(&source).map(|record| record["data"].clone()), Some(json!(index)));
        }
    }
    // A batch is answered when its slowest item is done. A stale record is confirmed when all nodes hold the
    // newer one.
    client.send_json(json!([
        {"id": 1, "source": "b/1", "ts": 1000, "data": 1, "ack": "stored"},
        {"id": 2, "source": "b/2", "ts": 1000, "data": 2},
        {"id": 3, "source": "b/2", "ts": 999, "data": 3},
        {"id": 4, "source": "b//2", "data": 3},
        {"id": 5, "source": "b/5", "data": "x".repeat(12_000)},
    ]));
    let answers = client.json();
    let levels: Vec<&Value> = (0..5).map(|index| &answers[index]["result"]["level"]).collect();
    let (stored, replicated) = (&json!("stored"), &json!("replicated"));
    assert_eq!(levels, [stored, replicated, replicated, &Value::Null, replicated], "{answers}");
    assert_eq!(
        (&answers[2]["result"]["current_ts"], &answers[2]["result"]["nodes"]),
        (&json!(1000), &json!(3))
    );
    // At another node the record is a duplicate. That node does not spread it again, and must ask the others.
    let asked = json!({"source": "b/2", "ts": 1000, "data": 2}).to_string();
    let there = Http::post(&cluster[2].http, "/v1/publish?ack=replicated", &asked);
    assert_eq!(
        (there.status, there.json()),
        (200, json!({"ts": 1000, "outcome": "duplicate", "level": "replicated", "nodes": 3}))
    );
}

/// The answer waits for a member that does not respond until that is declared dead, at most five seconds.
#[test]
fn replicated_waits_for_who_is_not_dead() {
    let cluster = Cluster::start(3);
    let mut client = cluster[0].publisher();
    cluster[2].signal("STOP");
    let asked = json!({"source": "a", "ts": 1000, "data": 1, "ack": "replicated"});
    let answer = client.publish(asked.clone());
    match answer.get("result") {
        Some(result) => {
            assert_eq!(result["nodes"], 2, "{answer}");
            // The list of members is told a turn of the event loop later. A suspicion lasts longer than this wait.
            cluster[0].wait_member("c", "dead", Duration::from_millis(500));
        }
        None => {
            let error = &answer["error"];
            assert_eq!((&error["code"], &error["nodes"]), (&json!("timeout"), &json!(2)), "{answer}");
            assert_eq!((&error["applied"], &error["ts"]), (&json!(true), &json!(1000)), "{answer}");
        }
    }
    cluster[2].signal("CONT");
    cluster.wait_whole();
    let again = eventually("all three hold it", PATIENCE, || {
        let answer = client.publish(asked.clone());
        (answer["result"]["nodes"] == 3).then_some(answer)
    });
    assert_eq!(again["result"]["outcome"], "duplicate", "{again}");
    assert!(cluster[2].latest("a").is_some());
}

#[test]
fn a_full_map_refuses_new_sources_only() {
    let node = Node::start(NodeConfig::named("a").with(&["--max-memory", "4194304", "--history", "1"]));
    let mut client = node.publisher();
    let data = "x".repeat(60_000);
    let mut refused = None;
    for index in 0..200 {
        let answer = client.publish(json!({"source": format!("m/{index}"), "data": data}));
        if answer.get("error").is_some() {
            refused = Some(answer);
            break;
        }
    }
    let Some(refused) = refused else { panic!("200 records of 60 KB fit into 4 MiB") };
    assert_eq!(refused["error"]["code"], "overloaded", "{refused}");
    assert_eq!(refused["error"]["temporary"], true, "{refused}");
    assert_eq!(client.publish(json!({"source": "m/0", "data": "small"}))["result"]["outcome"], "applied");
}

/// What one node has taken must be held by all, so a full map is no reason to refuse what comes from a peer.
#[test]
fn a_full_map_takes_what_comes_from_peers() {
    let first = Node::start(NodeConfig::named("a").in_memory());
    let small = ["--max-memory", "4194304", "--history", "1"];
    let full = Node::start(NodeConfig::joining("b", &first).in_memory().with(&small));
    let data = "x".repeat(60_000);
    let is_full =
        (0..200).any(|index| full.post(json!({"source": format!("m/{index}"), "data": data})).status == 503);
    assert!(is_full, "200 records of 60 KB fit into 4 MiB");
    for index in 0..10 {
        let source = format!("peer/{index}");
        let ts = first.put(&source, json!(data));
        full.wait_ts(&source, ts);
    }
    full.post(json!({"source": "own", "data": data})).assert_problem(503, "overloaded");
}

#[test]
fn protobuf_says_the_same() {
    let node = Node::single();
    let mut client = ProtoClient::open(&node.http, "/publish");
    assert_eq!((client.connected.node.as_str(), client.connected.ping_ms), ("a", 25_000));
    assert_eq!(client.connected.members.len(), 1);
    let number = |number| Some(proto::Id { id: Some(proto::id::Id::Number(number)) });
    let data = |text: &str| Some(proto::publish::Value::Data(text.to_owned()));
    let record = proto::Publish { source: "p".into(), value: data("1.50"), ..Default::default() };
    client.publish(proto::Publish { id: number(-5), ts: Some(1000), ..record.clone() });
    let answer = client.answer();
    assert_eq!(answer.id, number(-5));
    let Some(proto::answer::Answer::Result(result)) = answer.answer else { panic!("{answer:?}") };
    assert_eq!((result.ts, result.outcome.as_str(), result.level.as_str()), (1000, "applied", "accepted"));
    client.publish(proto::Publish { id: number(6), ts: Some(999), ..record.clone() });
    let Some(proto::answer::Answer::Result(result)) = client.answer().answer else { panic!("no result") };
    assert_eq!((result.outcome.as_str(), result.current_ts), ("stale", Some(1000)));
    let bad = proto::Publish { source: "p//q".into(), ..record.clone() };
    client.send(ToNode::Batch(proto::PublishBatch { items: vec![record.clone(), bad] }));
    let FromNode::Answers(answers) = client.next() else { panic!("no batch of answers") };
    assert_eq!((answers.items.len(), answers.items[0].index), (1, Some(1)));
    let Some(proto::answer::Answer::Error(error)) = &answers.items[0].answer else { panic!("{answers:?}") };
    assert_eq!(error.code, "bad_source");
    let bad = proto::Publish { id: number(7), value: data("{nonsense"), ..record.clone() };
    client.publish(bad);
    let Some(proto::answer::Answer::Error(error)) = client.answer().answer else { panic!("no error") };
    assert_eq!(error.code, "bad_json");
    let bytes = proto::publish::Value::DataB64(vec![0, 255].into());
    client.publish(proto::Publish { id: number(8), value: Some(bytes), ..record });
    client.answer();
    assert_eq!(node.latest("p").map(|record| record["data_b64"].clone()), Some(json!("AP8=")));
}

#[test]
fn subprotocols_are_negotiated() {
    let node = Node::single();
    let chosen = |offer: &[&str]| Client::offering(&node.http, "/publish", offer).protocol;
    assert_eq!(chosen(&[]), None);
    assert_eq!(chosen(&["anode.v1.json"]).as_deref(), Some("anode.v1.json"));
    assert_eq!(chosen(&["anode.v1.protobuf"]).as_deref(), Some("anode.v1.protobuf"));
    assert_eq!(chosen(&["something.else", "anode.v1.json"]).as_deref(), Some("anode.v1.json"));
    let both = chosen(&["anode.v1.protobuf", "anode.v1.json"]);
    assert!(both.is_some_and(|name| name.starts_with("anode.v1.")));
    for path in ["/publish", "/subscribe"] {
        let answer = crate::harness::ws::refused(&node.http, path, &["mqtt", "stomp"]);
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}

#[test]
fn bad_url_parameters_are_refused_before_the_upgrade() {
    let node = Node::single();
    for path in ["/publish?ack=best", "/publish?ack=", "/publish?colour=red", "/publish?source=a"] {
        let answer = crate::harness::ws::refused(&node.http, path, &[]);
        answer.assert_problem(400, "bad_request");
        assert_eq!(answer.header("sec-websocket-version"), None, "the handshake is good: {answer:?}");
    }
    let answer = crate::harness::ws::refused(&node.http, "/elsewhere", &[]);
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn the_wrong_kind_of_frame_closes_1003() {
    let node = Node::single();
    for path in ["/publish", "/subscribe"] {
        let mut client = Client::open(&node.http, path);
        client.send(Message::binary(vec![1, 2, 3]));
        assert_eq!(client.close_code(), 1003, "{path}");
        let mut client = ProtoClient::open(&node.http, path);
        client.client.send_text("{}");
        assert_eq!(client.client.close_code(), 1003, "{path}");
    }
}

#[test]
fn undecodable_protobuf_closes_4002() {
    let node = Node::single();
    for bytes in [vec![0xff; 20], vec![0x0a, 0x7f], vec![0x0a, 0x02, 0x12, 0x05]] {
        let mut client = ProtoClient::open(&node.http, "/publish");
        client.client.send(Message::binary(bytes.clone()));
        assert_eq!(client.client.close_code(), 4002, "{bytes:?}");
    }
}

#[test]
fn answers_to_a_closed_publisher_harm_nobody() {
    let node = Node::single();
    let mut client = node.publisher();
    for index in 0..500 {
        client.send_json(json!({"id": index, "source": format!("c/{index}"), "data": 1, "ack": "stored"}));
    }
    let first = client.event(Duration::from_secs(20));
    assert!(matches!(first, Some(Event::Text(_))), "{first:?}");
    drop(client);
    assert_eq!(node.publisher().publish(json!({"source": "d", "data": 1}))["result"]["outcome"], "applied");
}
