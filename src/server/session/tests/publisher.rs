use serde_json::json;

use super::*;
use crate::limits::{REPLICATED_US_MAX, STORED_US_MAX};

fn publisher(url: &str) -> (World, usize) {
    let mut world = World::new();
    let client = world.open(url);
    let hello = world.read(client);
    assert_eq!(hello[0]["connected"]["node"], "n1");
    assert_eq!(hello[0]["connected"]["ping_ms"], 25_000);
    (world, client)
}

fn codes(values: &[Value]) -> Vec<&str> {
    values.iter().map(|value| value["error"]["code"].as_str().unwrap_or("ok")).collect()
}

#[test]
fn answers_only_with_an_id_or_when_refused() {
    let (mut world, client) = publisher("/publish");
    world.say(client, r#"{"source":"a","data":1}"#);
    assert!(world.read(client).is_empty());
    world.say(client, r#"{"id":" x\u0041","source":"a","ts":7,"data":1}"#);
    let stale = world.read(client);
    let current = stale[0]["result"]["current_ts"].as_u64().expect("a ts");
    assert_eq!(
        stale,
        [
            json!({"id": " xA", "result": {"ts": 7, "outcome": "stale", "current_ts": current, "level": "accepted"}})
        ]
    );
    world.say(client, r#"{"source":"a","data":1,"x":2}"#);
    world.say(client, r#"{"source":"$a","data":1}"#);
    world.say(client, r#"{"source":"a/*","data":1}"#);
    world.say(client, r#"{"id":1,"subscribe":{"sources":["a"]}}"#);
    world.say(client, r#"{"source":"a","#);
    world.say(client, "[]");
    let answers = world.read(client);
    assert_eq!(
        codes(&answers),
        ["bad_request", "forbidden", "bad_source", "bad_request", "bad_json", "bad_request"]
    );
    assert_eq!(answers[3]["id"], 1);
    assert!(answers[4].get("id").is_none() && world.clients[client].closed.is_none());
    assert_eq!(world.node.metrics.records_published(), 2);
}

#[test]
fn ids_are_echoed_as_they_came() {
    let (mut world, client) = publisher("/publish");
    world.say(client, r#"{"id":"\u0041/\/","source":"a","data":1}"#);
    let mut bytes = Vec::new();
    world.clients[client].out.flush(&mut bytes).expect("flushes");
    assert!(payloads(&bytes)[0].starts_with(br#"{"id":"\u0041/\/","result""#));
}

#[test]
fn a_batch_is_one_array_when_its_slowest_item_is_done() {
    let (mut world, client) = publisher("/publish?ack=stored");
    world.say(
        client,
        r#"[{"id":1,"source":"a","data":1},{"source":"b","data":1},{"id":2,"source":"c","data":1,"ack":"accepted"},{"source":"d"}]"#,
    );
    world.say(client, r#"{"id":3,"source":"e","data":1,"ack":"accepted"}"#);
    assert_eq!(world.read(client)[0]["id"], 3, "answers may overtake one another");
    world.node.durable.set(1);
    world.turn(client, |session, turn| session.handle_durable(turn));
    assert!(world.read(client).is_empty());
    world.node.durable.set(3);
    world.turn(client, |session, turn| session.handle_durable(turn));
    let answers = world.read(client);
    let batch = answers[0].as_array().expect("an array");
    let told: Vec<_> = batch.iter().map(|entry| (entry["index"].as_u64(), entry["id"].as_u64())).collect();
    assert_eq!(told, [(Some(0), Some(1)), (Some(2), Some(2)), (Some(3), None)]);
    assert_eq!(batch[0]["result"]["level"], "stored");
    assert_eq!(batch[1]["result"]["level"], "accepted");
    assert_eq!(batch[2]["error"]["code"], "bad_request");
    assert!(!world.clients[client].session.has_unanswered());
}

/// Jepsen, NATS 2.12.1: writes were acknowledged before they were synced.
#[test]
fn stored_is_never_said_before_the_mark() {
    let (mut world, client) = publisher("/publish?ack=stored");
    world.say(client, r#"{"id":1,"source":"a","ts":5,"data":1}"#);
    world.say(client, r#"{"id":2,"source":"a","ts":5,"data":1}"#);
    world.say(client, r#"{"id":3,"source":"a","ts":4,"data":1}"#);
    world.pass(STORED_US_MAX - 1);
    assert!(world.read(client).is_empty());
    world.node.durable.set(1);
    world.turn(client, |session, turn| session.handle_durable(turn));
    let outcomes: Vec<_> = world.read(client).iter().map(|v| v["result"]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["applied", "duplicate", "stale"]);
}

#[test]
fn what_is_not_stored_in_time_says_that_it_was_applied() {
    let (mut world, client) = publisher("/publish");
    world.say(client, r#"{"source":"a","ts":5,"data":1,"ack":"stored"}"#);
    world.say(client, r#"{"id":2,"source":"a","ts":4,"data":1,"ack":"stored"}"#);
    world.pass(STORED_US_MAX);
    let answers = world.read(client);
    assert_eq!(codes(&answers), ["timeout", "timeout"]);
    assert_eq!((&answers[0]["error"]["applied"], &answers[0]["error"]["ts"]), (&json!(true), &json!(5)));
    assert_eq!(answers[0]["error"]["temporary"], true);
    assert!(answers[1]["error"].get("applied").is_none(), "a stale one was not applied");
    world.say(client, r#"{"id":3,"source":"a","ts":5,"data":1,"ack":"stored"}"#);
    *world.node.ingest.downstream().sick.lock() = Some("disk full".into());
    world.turn(client, |session, turn| session.handle_durable(turn));
    let answers = world.read(client);
    assert_eq!(codes(&answers), ["store_unavailable"]);
    assert_eq!((&answers[0]["error"]["applied"], &answers[0]["error"]["ts"]), (&json!(true), &json!(5)));
}

#[test]
fn replicated_is_said_when_the_cluster_says_so() {
    let (mut world, client) = publisher("/publish?ack=replicated");
    world.say(client, r#"{"id":1,"source":"a","ts":5,"data":1}"#);
    world.say(client, r#"{"id":2,"source":"a","ts":4,"data":1}"#);
    world.say(client, r#"{"id":3,"source":"b","ts":6,"data":1}"#);
    world.node.durable.set(u64::MAX);
    world.turn(client, |session, turn| session.handle_durable(turn));
    world.pass(REPLICATED_US_MAX);
    assert!(world.read(client).is_empty() && world.clients[client].session.has_unanswered());
    for (token, reached) in [(2, Ok(3)), (3, Err(2)), (1, Ok(3)), (1, Ok(3)), (9, Ok(3))] {
        world.turn(client, |session, turn| session.handle_replicated(turn, token, reached));
    }
    let answers = world.read(client);
    assert_eq!(
        answers[0],
        json!({"id": 2, "result": {"ts": 4, "outcome": "stale", "current_ts": 5, "level": "replicated", "nodes": 3}})
    );
    let error = &answers[1]["error"];
    assert_eq!(
        (&answers[1]["id"], &error["code"], &error["nodes"]),
        (&json!(3), &json!("timeout"), &json!(2))
    );
    assert_eq!(
        (&error["applied"], &error["ts"], &error["temporary"]),
        (&json!(true), &json!(6), &json!(true))
    );
    assert_eq!(
        answers[2],
        json!({"id": 1, "result": {"ts": 5, "outcome": "applied", "level": "replicated", "nodes": 3}})
    );
    assert_eq!(answers.len(), 3);
    assert!(!world.clients[client].session.has_unanswered());
    assert_eq!(world.node.ingest.outbox().lock().take_awaited().len(), 3);
}

#[test]
fn a_batch_waits_for_the_store_and_for_the_members() {
    let (mut world, client) = publisher("/publish?ack=stored");
    let batch = r#"[{"id":1,"source":"a","data":1},{"id":2,"source":"b","data":1,"ack":"replicated"},{"id":3,"source":"c","data":1,"ack":"accepted"}]"#;
    world.say(client, batch);
    world.turn(client, |session, turn| session.handle_replicated(turn, 1, Ok(7)));
    assert!(world.read(client).is_empty(), "not stored");
    world.node.durable.set(u64::MAX);
    world.turn(client, |session, turn| session.handle_durable(turn));
    let told = world.read(client);
    let levels: Vec<_> = (0..3).map(|index| told[0][index]["result"]["level"].clone()).collect();
    assert_eq!(levels, ["stored", "replicated", "accepted"]);

    // The store takes too long, and the cluster never answers.
    world.node.durable.set(0);
    world.say(client, batch);
    world.pass(STORED_US_MAX);
    assert!(world.read(client).is_empty());
    world.pass(1_000_000);
    let told = world.read(client);
    let told = told[0].as_array().expect("an array");
    assert_eq!(codes(told), ["timeout", "timeout", "ok"]);
    assert_eq!((&told[0]["error"]["nodes"], &told[1]["error"]["nodes"]), (&Value::Null, &json!(1)));
    assert!(!world.clients[client].session.has_unanswered());
}

/// hashicorp/consul#9927: queues without bound.
#[test]
fn a_publisher_that_outruns_the_store_is_not_read() {
    let (mut world, client) = publisher("/publish?ack=stored");
    let is_blocked = |world: &World| {
        let Client { session, out, .. } = &world.clients[client];
        session.blocks_reading(out.len())
    };
    let mut said = 0;
    while !is_blocked(&world) {
        world.say(client, &format!(r#"{{"id":{said},"source":"a","data":1}}"#));
        said += 1;
        assert!(said < 100_000);
    }
    world.node.durable.set(u64::MAX);
    world.turn(client, |session, turn| session.handle_durable(turn));
    assert_eq!(world.read(client).len(), said);
    assert!(!is_blocked(&world));
}

#[test]
fn the_wrong_kind_of_frame_closes() {
    let mut world = World::new();
    let json = world.open("/publish");
    let protobuf = world.open_as("/subscribe", Codec::Protobuf);
    let close = |world: &mut World, client, message: Incoming<'static>| {
        world.turn(client, |session, turn| session.handle_message(turn, message)).expect_err("closes").code
    };
    assert_eq!(close(&mut world, json, Incoming::Binary(b"{}")), 1003);
    assert_eq!(close(&mut world, protobuf, Incoming::Text("{}")), 1003);
    assert_eq!(close(&mut world, protobuf, Incoming::Binary(&[0xff, 0xff])), 4002);
    for bad in ["ack=x", "source=a", "x"] {
        assert!(Session::open(Endpoint::Publish, Codec::Json, bad, String::new()).is_err(), "{bad}");
    }
}
