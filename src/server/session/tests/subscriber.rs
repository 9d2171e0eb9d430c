use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::limits::{ALL_QUEUE_BYTES_MAX, LATEST_BUFFER_BYTES_MAX};

fn subscriber(world: &mut World, url: &str) -> usize {
    let client = world.open(url);
    let hello = world.read(client);
    assert!(hello[0].get("connected").is_some());
    client
}

#[test]
fn snapshot_then_eos_then_live() {
    let mut world = World::new();
    let first = world.publish("a/1", "1");
    world.publish("b/1", "1");
    world.publish("a/2", "1");
    let deleted = world.delete("a/2");
    let client = world.open("/subscribe?source=a/*");
    let told = world.read_all(client);
    assert_eq!(told[1], json!({"result": {"subscription": 1}}));
    assert_eq!(told[2], json!({"source": "a/1", "ts": first, "origin": "n1", "data": 1}));
    assert_eq!(told[3]["eos"]["subscription"], 1);
    assert_eq!(told.len(), 4, "a plain snapshot has no deletions");
    let live = world.publish("a/2", "2");
    assert!(live > deleted);
    world.publish("b/2", "2");
    world.delete("a/1");
    let told = world.read_all(client);
    assert_eq!(told[0], json!({"source": "a/2", "ts": live, "origin": "n1", "data": 2}));
    assert_eq!((&told[1]["source"], &told[1]["deleted"]), (&json!("a/1"), &json!(true)));
    assert_eq!(told.len(), 2);
}

#[test]
fn frames_subscribe_and_unsubscribe() {
    let mut world = World::new();
    world.publish("a", "1");
    let client = subscriber(&mut world, "/subscribe");
    world.say(client, r#"{"id":"q","subscribe":{"sources":["a"],"snapshot":false}}"#);
    let told = world.read_all(client);
    assert_eq!(told[0], json!({"id": "q", "result": {"subscription": 1}}));
    assert_eq!(told[1]["eos"]["subscription"], 1);
    assert_eq!(told.len(), 2);
    world.publish("a", "2");
    assert_eq!(records(&world.read_all(client)).len(), 1);
    world.say(client, r#"{"id":2,"unsubscribe":1}"#);
    world.publish("a", "3");
    assert_eq!(world.read_all(client), [json!({"id": 2, "result": {"subscription": 1}})]);
    assert!(world.work.index.is_empty());
    for (text, code) in [
        (r#"{"id":3,"unsubscribe":1}"#, "bad_request"),
        (r#"{"id":3,"subscribe":{"sources":["a//"]}}"#, "bad_pattern"),
        (r#"{"id":3,"source":"a","data":1}"#, "bad_request"),
        (r#"{"id":3"#, "bad_json"),
        (r#"{"id":3,"subscribe":{"sources":["a"],"mode":"all"}}"#, "bad_request"),
    ] {
        world.say(client, text);
        assert_eq!(world.read(client)[0]["error"]["code"], code, "{text}");
    }
    world.say(client, r#"{"subscribe":{"sources":["a"]}}"#);
    let told = world.read_all(client);
    assert_eq!(told[0]["result"]["subscription"], 2, "numbers are not given twice");
    assert_eq!(records(&told).len(), 1);
    world.turn(client, |session, turn| session.handle_closed(turn));
    assert!(world.work.index.is_leaving(client) && !world.work.index.sweep(1));
    assert!(world.work.index.is_empty() && !world.work.index.is_leaving(client));
}

#[test]
fn overlapping_subscriptions_repeat_nothing() {
    let mut world = World::new();
    for n in 0..20 {
        world.publish(&format!("a/{n}"), "1");
    }
    world.publish("b", "1");
    let client = subscriber(&mut world, "/subscribe?source=a/*&source=a/1");
    assert_eq!(records(&world.read_all(client)).len(), 20);
    world.say(client, r#"{"subscribe":{"sources":["**","a/*"]}}"#);
    world.say(client, r#"{"subscribe":{"sources":["b","a/1"]}}"#);
    let told = world.read_all(client);
    assert_eq!(records(&told).iter().map(|r| r.0.as_str()).collect::<Vec<_>>(), ["b"]);
    let eos = told.iter().filter(|value| value.get("eos").is_some()).count();
    assert_eq!(eos, 2);
    world.publish("a/1", "2");
    assert_eq!(records(&world.read_all(client)).len(), 1, "once, however many match");
}

#[test]
fn a_snapshot_after_a_subscription_without_one_is_whole() {
    let mut world = World::new();
    for n in 0..10 {
        world.publish(&format!("a/{n}"), "1");
    }
    let client = subscriber(&mut world, "/subscribe?source=a/*&snapshot=false");
    world.read_all(client);
    world.publish("a/3", "2");
    assert_eq!(records(&world.read_all(client)).len(), 1);
    world.say(client, r#"{"subscribe":{"sources":["a/**"]}}"#);
    let told = records(&world.read_all(client));
    assert_eq!(told.len(), 9, "all but the one that was sent");
    assert!(!told.iter().any(|(source, _)| source == "a/3"));
}

/// emqx#15605: the snapshot was silently truncated.
#[test]
fn a_snapshot_of_100_000_sources_is_whole_and_paced() {
    let mut world = World::new();
    for n in 0..100_000 {
        world.publish(&format!("s/{n}"), "\"some data\"");
    }
    while world.drain_one() {}
    let client = subscriber(&mut world, "/subscribe?source=s/**&batch=true");
    let mut seen = std::collections::BTreeSet::new();
    loop {
        world.settle();
        assert!(world.clients[client].out.len() < LATEST_BUFFER_BYTES_MAX + 80_000);
        let told = world.read(client);
        seen.extend(records(&told).into_iter().map(|record| record.0));
        if told.iter().any(|value| value.get("eos").is_some()) {
            break;
        }
        assert!(!told.is_empty());
    }
    assert_eq!(seen.len(), 100_000);
}

#[test]
fn latest_conflates_and_ends_with_the_newest() {
    let mut world = World::new();
    let client = subscriber(&mut world, "/subscribe?source=a/*");
    world.read_all(client);
    let data = format!("\"{}\"", "x".repeat(1_000));
    let mut newest = BTreeMap::new();
    for round in 0..200 {
        for n in 0..10 {
            let source = format!("a/{n}");
            let ts = world.publish(&source, &data);
            newest.insert(source, ts);
        }
        if round % 10 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert!(world.clients[client].out.len() < LATEST_BUFFER_BYTES_MAX + 2_000);
    assert!(world.work.conflated > 1_000);
    let told = records(&world.read_all(client));
    assert_eq!(told.len() as u64, world.work.deliveries);
    assert_eq!(world.work.deliveries + world.work.conflated, 2_000);
    assert_eq!(told.into_iter().collect::<BTreeMap<_, _>>(), newest);
}

/// A record for which the buffer had room again was sent before those of other sources that still waited for it.
/// So a reader that stopped at a last record had not been told what was published before.
#[test]
fn no_record_overtakes_those_that_wait() {
    let mut world = World::new();
    let client = subscriber(&mut world, "/subscribe?source=a/*");
    world.read_all(client);
    let data = format!("\"{}\"", "x".repeat(50_000));
    let published: Vec<_> =
        (0..20).map(|n| (format!("a/{n}"), world.publish(&format!("a/{n}"), &data))).collect();
    while world.drain_one() {}
    let mut told = records(&world.read(client));
    assert!(told.len() < 10, "some of them wait");
    let last = world.publish("a/last", "1");
    while world.drain_one() {}
    told.extend(records(&world.read_all(client)));
    assert_eq!(told[..20], published);
    assert_eq!(told[20..], [("a/last".to_owned(), last)]);
}

/// prometheus/alertmanager#1409: what waits for a slow reader must be bounded.
#[test]
fn mode_all_is_whole_and_in_order_or_closed() {
    let mut world = World::new();
    let client = subscriber(&mut world, "/subscribe?source=a&mode=all");
    world.read_all(client);
    let stamps: Vec<_> = (0..1_000).map(|n| world.publish("a", &n.to_string())).collect();
    world.settle();
    let told: Vec<_> = records(&world.read_all(client)).into_iter().map(|record| record.1).collect();
    assert_eq!(told, stamps);
    let data = format!("\"{}\"", "x".repeat(10_000));
    for _ in 0..200 {
        world.publish("a", &data);
    }
    world.settle();
    assert_eq!(world.clients[client].closed.as_ref().map(|close| close.code), Some(CloseCode::TooSlow));
    assert!(world.clients[client].out.len() <= ALL_QUEUE_BYTES_MAX + 20_000);
}

#[test]
fn a_subscription_waits_for_the_store() {
    let mut world = World::new();
    world.node.is_loaded.set(false);
    let client = subscriber(&mut world, "/subscribe?source=a");
    world.say(client, r#"{"id":2,"subscribe":{"sources":["b"]}}"#);
    world.say(client, r#"{"id":3,"unsubscribe":2}"#);
    let told = world.read_all(client);
    assert_eq!(told[0], json!({"id": 2, "result": {"subscription": 2}}));
    assert_eq!(told[1], json!({"id": 3, "result": {"subscription": 2}}));
    world.publish("a", "1");
    world.settle();
    world.pass(1_000_000);
    assert!(world.read_all(client).is_empty());
    world.node.is_loaded.set(true);
    world.pass(1_000_000);
    let told = world.read_all(client);
    assert_eq!(told[0]["result"]["subscription"], 1);
    assert_eq!(records(&told).len(), 1);
    assert!(told[2].get("eos").is_some());
}

#[test]
fn expiries_are_deletions_of_the_same_stamp() {
    let mut world = World::new();
    let ts = world.publish_draft("a", None, DraftPayload::Json(b"1"), 1_000);
    let client = subscriber(&mut world, "/subscribe?source=a");
    assert_eq!(records(&world.read_all(client)).len(), 1);
    world.pass(1_000_000);
    world.node.ingest.sweep(world.now, true, 10);
    let told = world.read_all(client);
    assert_eq!(told, [json!({"source": "a", "ts": ts, "origin": "n1", "deleted": true})]);
    let late = subscriber(&mut world, "/subscribe?source=a");
    assert!(records(&world.read_all(late)).is_empty());
}

#[test]
fn nothing_comes_after_the_answer_to_unsubscribe() {
    let mut world = World::new();
    let client = subscriber(&mut world, "/subscribe?source=a/*");
    world.read_all(client);
    let data = format!("\"{}\"", "x".repeat(10_000));
    for n in 0..100 {
        world.publish(&format!("a/{n}"), &data);
    }
    world.settle();
    world.say(client, r#"{"id":1,"unsubscribe":1}"#);
    let told = world.read_all(client);
    let answer = told.iter().position(|value| value.get("id").is_some()).expect("answered");
    assert_eq!(answer + 1, told.len());
}

#[test]
fn protobuf_and_batches() {
    let mut world = World::new();
    world.publish("a", "{\"x\": 1}");
    let single = world.open_as("/subscribe?source=a", Codec::Protobuf);
    let batched = world.open_as("/subscribe?source=a&batch=true", Codec::Protobuf);
    let json = world.open("/subscribe?source=a&batch=true");
    world.settle();
    world.publish("a", "2");
    world.publish("a", "3");
    world.settle();
    assert_eq!(records(&world.read(json)).len(), 3);
    let mut count = |client: usize| {
        let mut bytes = Vec::new();
        world.clients[client].out.flush(&mut bytes).expect("flushes");
        // The keys of the messages connected, answer, record, records and eos.
        payloads(&bytes).iter().map(|payload| payload[0] >> 3).collect::<Vec<_>>()
    };
    assert_eq!(count(single), [1, 2, 4, 6, 4, 4]);
    assert_eq!(count(batched), [1, 2, 5, 6, 5]);
}

/// gorilla/websocket and NATS users know the slow node that sends everybody away at once. A mailbox
/// that overflows brings `latest` up to date, each source once, and closes `all`.
#[test]
fn an_overflow_of_the_mailbox_loses_nothing_of_the_latest() {
    let mut world = World::with_mailbox(4_096);
    world.publish("old", "0");
    let latest = world.open("/subscribe?source=**");
    let bare = world.open("/subscribe?source=a/*&snapshot=false");
    let all = world.open("/subscribe?source=**&mode=all");
    let nothing = world.open("/subscribe?mode=all");
    for client in [latest, bare, all] {
        world.read_all(client);
    }
    let newest: Vec<_> =
        (0..100).map(|n| (format!("a/{}", n % 40), world.publish(&format!("a/{}", n % 40), "1"))).collect();
    let deleted = world.delete("old");
    let mut expected: BTreeMap<String, u64> = newest.into_iter().collect();
    for client in [bare, latest] {
        if client == latest {
            expected.insert("old".into(), deleted);
        }
        let told = records(&world.read_all(client));
        let mut last = BTreeMap::new();
        for (source, ts) in told {
            assert!(last.insert(source, ts).is_none_or(|before| before < ts));
        }
        assert_eq!(last, expected);
        assert!(world.clients[client].closed.is_none());
    }
    assert_eq!(world.clients[all].closed.as_ref().map(|close| close.code), Some(CloseCode::TooSlow));
    assert!(world.clients[nothing].closed.is_none());
    // Later changes are sent as usual.
    let ts = world.publish("a/1", "2");
    assert_eq!(records(&world.read_all(latest)), [("a/1".to_owned(), ts)]);
}

/// Closing a connection with 16 MiB of patterns took its worker up to 107 ms.
#[test]
fn the_patterns_of_a_closed_connection_leave_in_parts() {
    let mut world = World::new();
    let client = world.open("/subscribe?source=live/*&snapshot=false");
    world.read_all(client);
    for part in 0..10 {
        let patterns: Vec<String> = (0..200).map(|n| format!(r#""room/{part}/{n}/*""#)).collect();
        let asked =
            format!(r#"{{"subscribe":{{"sources":[{}],"snapshot":{}}}}}"#, patterns.join(","), part % 2);
        world.say(client, &asked.replace(":0}", ":false}").replace(":1}", ":true}"));
    }
    // One live subscription ends while others are starting, and stays as a ghost.
    world.say(client, r#"{"unsubscribe":1}"#);
    assert_eq!(world.work.index.len(), 2_001);
    world.turn(client, |session, turn| session.handle_closed(turn));
    let mut turns = 0;
    while world.work.index.sweep(100) {
        turns += 1;
        assert_eq!(world.work.index.is_leaving(client), !world.work.index.is_empty());
    }
    assert!((20..30).contains(&turns), "{turns}");
    assert!(world.work.index.is_empty() && world.work.index.bytes() == 0);
}

/// While a snapshot was under way, each record was compared with every pattern of the connection, and when a
/// subscription ended, every record that waited was.
#[test]
fn what_waits_for_an_ended_subscription_is_not_sent() {
    let mut world = World::new();
    let client = world.open("/subscribe?source=a/*&source=b/*");
    world.read_all(client);
    world.say(client, r#"{"subscribe":{"sources":["a/*","c/*"]}}"#);
    world.read_all(client);
    let data = format!("\"{}\"", "x".repeat(50_000));
    for n in 0..20 {
        for source in ["a", "b", "c"] {
            world.publish(&format!("{source}/{n}"), &data);
        }
    }
    while world.drain_one() {}
    let before: Vec<_> = records(&world.read(client)).into_iter().map(|record| record.0).collect();
    assert!(before.len() < 10, "most of them wait");
    world.say(client, r#"{"unsubscribe":1}"#);
    let after: Vec<_> = records(&world.read_all(client)).into_iter().map(|record| record.0).collect();
    assert!(after.iter().all(|name| !name.starts_with('b')), "{after:?}");
    let of = |first: char| before.iter().chain(&after).filter(|name| name.starts_with(first)).count();
    assert_eq!((of('a'), of('c')), (20, 20));
}

/// Each session got ten thousand records a turn, so a thousand snapshots at a time took seconds of one turn.
#[test]
fn all_snapshots_share_the_steps_of_a_turn() {
    let mut world = World::new();
    for n in 0..3_000 {
        world.publish(&format!("a/{n}"), "1");
    }
    let clients: Vec<usize> = (0..20).map(|_| world.open("/subscribe?source=*/nomatch&source=a/*")).collect();
    world.work.scans = Default::default();
    let mut used = Vec::new();
    for &client in clients.iter().cycle() {
        assert!(world.clients[client].session.may_scan());
        world.turn_in_the_same_turn(client);
        used.push(world.work.scans.take_count());
        if world.work.scans.is_used_up() {
            break;
        }
    }
    assert!(used.len() > clients.len(), "each has several turns");
    let most = crate::limits::SCAN_STEPS_PER_SESSION as u64;
    assert!(used.iter().all(|used| *used <= most), "{used:?}");
    let sum: u64 = used.iter().sum();
    assert_eq!(sum, crate::limits::SCAN_STEPS_PER_TURN as u64);
    assert!(world.work.scans.is_used_up());
    for client in clients {
        let told = world.read_all(client);
        assert_eq!(records(&told).len(), 3_000);
        assert!(!world.clients[client].session.may_scan());
    }
}

/// A client that had stopped reading left a queue of as many records as there are sources, and its worker freed all
/// of them at once.
#[test]
fn what_waits_for_a_closed_connection_is_freed_in_parts() {
    for mode in ["latest", "all"] {
        let mut world = World::new();
        let client = world.open(&format!("/subscribe?source=a/*&mode={mode}"));
        world.read_all(client);
        let data = format!("\"{}\"", "x".repeat(5_000));
        for n in 0..150 {
            world.publish(&format!("a/{n}"), &data);
        }
        while world.drain_one() {}
        world.turn(client, |session, turn| session.handle_closed(turn));
        let is_waiting = mode == "latest";
        assert_eq!(world.work.remains.is_empty(), !is_waiting, "mode=all keeps all in its buffer");
        let mut turns = 0;
        while !world.work.remains.is_empty() {
            world.work.remains.sweep(10);
            turns += 1;
        }
        assert!(!is_waiting || (5..16).contains(&turns), "{turns} turns");
    }
}
