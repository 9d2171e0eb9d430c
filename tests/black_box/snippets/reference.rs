//! The messages in the reference of the protocol are those of a node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::block_of;
use crate::harness::{Client, Http, Node, NodeConfig};

/// The names of all members of a JSON value, with their places: what a message consists of, whatever it says.
fn shape(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found.insert(format!("{at}.{name}"));
            // What a record holds is its publisher's.
            if name != "data" {
                shape(value, &format!("{at}.{name}"), found);
            }
        }),
        Value::Array(items) => items.iter().for_each(|item| shape(item, &format!("{at}[]"), found)),
        _ => {}
    }
}

/// Fails unless both messages have the same members.
pub fn assert_alike(told: &Value, shown: &Value) {
    let [mut of_told, mut of_shown] = [BTreeSet::new(), BTreeSet::new()];
    shape(told, "", &mut of_told);
    shape(shown, "", &mut of_shown);
    assert_eq!(of_told, of_shown, "{told} instead of {shown}");
}

/// The JSON value at the beginning of a text. A comment may stand behind it.
pub fn first_json(text: &str) -> Value {
    let text = text.replace("TOKEN", "\"TOKEN\"").replace(",…", "");
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    values.next().and_then(Result::ok).unwrap_or_else(|| panic!("no JSON: {text}"))
}

const PROTOCOL: &str = "docs/protocol.md";

#[test]
fn publishes_of_the_reference_are_answered_as_it_shows() {
    let node = Node::single();
    let mut publisher = node.publisher();
    let examples = block_of(PROTOCOL, "{\"source\":\"sensors/7/temp\",\"data\":21.5}");
    for line in examples.lines() {
        publisher.send_text(line);
    }
    let mut ids: Vec<Value> = (0..2).map(|_| publisher.next()["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [json!(7), json!(8)], "only records with an id are answered");
    let shown = block_of(PROTOCOL, "{\"id\":7,\"result\"");
    let shown: Vec<Value> = shown.lines().map(first_json).collect();
    let ts = 1_763_800_000_000_000_u64;
    let told = [
        json!({"id": 7, "source": "shown", "ts": ts, "data": 1, "ack": "stored"}),
        json!({"id": 7, "source": "sensors/7/temp", "ts": ts, "data": 1, "ack": "stored"}),
        json!({"id": 7, "source": "other", "ts": ts, "data": 1, "ack": "replicated"}),
        json!({"id": 7, "source": "x", "ts": crate::harness::wall_us() + 120_000_000, "data": 1}),
    ]
    .map(|record| publisher.ask(record));
    for (told, shown) in told.iter().zip(&shown) {
        assert_alike(told, shown);
        assert_eq!(told["result"]["outcome"], shown["result"]["outcome"]);
    }
    let message = told[3]["error"]["message"].as_str().expect("a message");
    assert!(message.ends_with(" s ahead of this node's clock; at most 10 s"), "{message}");
    let url = block_of(PROTOCOL, "/subscribe?source=");
    assert!(Client::open(&node.http, url.trim()).connected.is_object());
}

/// Speaks a dialogue of the reference: what stands behind an arrow to the right is sent, and what stands behind one to the
/// left must come, with these members. `before` is done before the line with this number.
fn speak(client: &mut Client, dialogue: &str, token: &str, mut before: impl FnMut(usize, &mut Client)) {
    for (at, line) in dialogue.lines().enumerate() {
        before(at, client);
        if let Some(sent) = line.strip_prefix("→ ") {
            client.send_text(&sent.replace("TOKEN", &format!("\"{token}\"")));
        } else if let Some(shown) = line.strip_prefix("← ") {
            let (told, shown) = (client.next(), first_json(shown));
            assert_alike(&told, &shown);
            for (name, value) in [("error", "message"), ("error", "code"), ("result", "recovered")] {
                assert_eq!(told[name][value], shown[name][value], "{told}");
            }
        }
    }
}

#[test]
fn dialogues_of_the_reference_are_spoken() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put("sensors/7/temp", json!(1));
    let mut client = Client::open(&node.http, "/subscribe");
    let greeting = first_json(&block_of(PROTOCOL, "{\"connected\"").replace('\n', ""));
    let names =
        |greeting: &Value| greeting.as_object().expect("a greeting").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&client.connected), names(&greeting["connected"]));
    client.send_json(json!({"id": 0, "subscribe": {"sources": ["sensors/*/temp"]}}));
    let token = client.snapshot().resume;
    node.put("sensors/7/temp", json!(21.5));
    let dialogue = block_of(PROTOCOL, "→ {\"id\":1,\"subscribe\":{\"sources\":[\"sensors/*/temp\"]");
    let mut client = Client::open(&node.http, "/subscribe");
    speak(&mut client, &dialogue, &token, |at, _| {
        if at == 4 {
            node.put("sensors/7/temp", json!(21.7));
        }
    });
    let dialogue = block_of(PROTOCOL, "→ {\"id\":1,\"subscribe\":{\"sources\":[\"sensors/*\"]");
    let mut client = Client::open(&node.http, "/subscribe");
    speak(&mut client, &dialogue, "", |at, client| match at {
        1 => {
            // The answer, and the end of a snapshot with nothing in it.
            assert!(client.next()["result"].is_object() && client.next()["eos"].is_object());
            node.put("sensors/7", json!({"c": 21.5}));
        }
        2 => {
            node.put("sensors/7", json!({"c": 1.5}));
        }
        3 => client.send_json(json!({"id": 2, "subscribe": {"sources": ["x"], "filter": "data.c >"}})),
        _ => {}
    });
    let mut client = Client::open(&node.http, "/publish");
    speak(&mut client, &block_of(PROTOCOL, "→ {\"id\":1,\"auth\""), "", |_, _| {});
    let lines = "{\"source\":\"i/1\",\"ts\":5,\"data\":1}\n{\"source\":\"i/2\",\"data\":1}\n{\"source\":\"i//1\",\"data\":1}\n\
                 {\"source\":\"i/1\",\"ts\":4,\"data\":1}\n";
    let told = Http::post(&node.http, "/v1/import", lines).json();
    let shown = first_json(&block_of(PROTOCOL, "{\"applied\":2"));
    for count in ["applied", "duplicate", "stale", "refused_total"] {
        assert_eq!(told[count], shown[count], "{told}");
    }
    assert_eq!(told["refused"][0]["line"], shown["refused"][0]["line"]);
    assert_eq!(told["refused"][0]["error"]["code"], shown["refused"][0]["error"]["code"]);
}
