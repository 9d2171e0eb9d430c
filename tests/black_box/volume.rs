//! Many records, many sources and slow readers: nothing is lost, and no memory grows without bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::ws::{Handshake, shake};
use crate::harness::{Client, Cluster, Event, Node, NodeConfig, eventually, raw};

const LONG: Duration = Duration::from_secs(180);

/// A subscriber that joins while records are published gets every record once, either in the snapshot or
/// live. None is lost in between.
fn join_amid(mode: &str) {
    let cluster = Cluster::start(2);
    let total = 10_000;
    std::thread::scope(|scope| {
        let publisher = &cluster[0];
        scope.spawn(move || {
            let mut client = publisher.publisher();
            for step in 0..total {
                client.send_json(json!({"source": format!("seam/{step}"), "data": step}));
            }
            client.publish(json!({"source": "last", "data": 1}));
        });
        for node in &cluster.nodes {
            scope.spawn(move || {
                eventually("the stream runs", LONG, || node.latest("seam/500"));
                let mut client = node.subscriber(&format!("source=seam/*&mode={mode}"));
                let mut seen = BTreeSet::new();
                let records = client.records_until(LONG, |frame| {
                    if let Some(source) = frame["source"].as_str() {
                        assert!(seen.insert(source.to_owned()), "{source} twice");
                    }
                    seen.len() == total
                });
                let ends = records.iter().filter(|frame| frame.get("eos").is_some()).count();
                assert!(ends <= 1, "{ends} ends of one snapshot");
            });
        }
    });
}

#[test]
fn nothing_is_lost_at_the_seam_of_latest() {
    join_amid("latest");
}

#[test]
fn nothing_is_lost_at_the_seam_of_all() {
    join_amid("all");
}

/// In emqx#15605 a snapshot was truncated silently.
#[test]
fn a_snapshot_of_100_000_sources_is_whole() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--history", "1"]));
    fill(&node, "big", 100_000, "0");
    for query in ["source=big/*", "source=big/*&batch=true", "source=big/*&mode=all"] {
        let snapshot = node.subscriber(query).snapshot();
        let distinct: BTreeSet<_> = snapshot.sources().into_iter().collect();
        assert_eq!((snapshot.records.len(), distinct.len()), (100_000, 100_000), "{query}");
    }
}

/// Publishes `count` sources in batches and waits until all are applied.
fn fill(node: &Node, prefix: &str, count: usize, data: &str) {
    let mut client = node.publisher();
    for from in (0..count).step_by(1000) {
        let to = count.min(from + 1000);
        let items: Vec<Value> =
            (from..to).map(|step| json!({"source": format!("{prefix}/{step}"), "data": data})).collect();
        client.send_json(json!(items));
    }
    assert!(client.publish(json!({"source": "filled", "data": 1})).get("result").is_some());
}

/// In hashicorp/consul#9927 and prometheus/alertmanager#1409 queues grew without bound under load.
#[test]
fn a_reader_that_stops_ends_with_the_newest_and_costs_little() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--history", "1"]));
    let (sources, rounds) = (1000, 1000);
    fill(&node, "slow", sources, "start");
    let mut client = node.subscriber("source=slow/*");
    assert_eq!(client.snapshot().records.len(), sources);
    let before = node.rss_bytes();
    let mut publisher = node.publisher();
    let mut most = before;
    for round in 0..rounds {
        let items: Vec<Value> = (0..sources)
            .map(|step| json!({"source": format!("slow/{step}"), "data": [round, "padding padding"]}))
            .collect();
        publisher.send_json(json!(items));
        if round % 50 == 0 {
            most = most.max(node.rss_bytes());
            // A pong shows that the client is alive and has only stopped reading.
            client.send_bytes(&raw::frame(true, 0xa, b""));
        }
    }
    assert!(publisher.publish(json!({"source": "done", "data": 1})).get("result").is_some());
    most = most.max(node.rss_bytes());
    let mut newest: BTreeMap<String, Value> = BTreeMap::new();
    let mut finished = 0;
    let records = client.records_until(LONG, |record| {
        let source = record["source"].as_str().unwrap_or_default().to_owned();
        finished += usize::from(record["data"][0] == rounds - 1);
        newest.insert(source, record["data"][0].clone());
        finished == sources
    });
    assert!(newest.len() == sources && newest.values().all(|round| *round == rounds - 1));
    assert!(records.len() < sources * rounds / 2, "{} records: nothing was conflated", records.len());
    assert!(node.metric("anode_conflated_total", &[]) > 0.0);
    let grown = most.saturating_sub(before);
    assert!(grown < 96 << 20, "grew by {} MiB", grown >> 20);
}

/// A reader with `mode=all` that cannot keep up is closed with a code of its own.
#[test]
fn a_slow_reader_of_all_is_closed_4202() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut slow = node.subscriber("source=flood/*&mode=all");
    slow.snapshot();
    let mut quick = node.subscriber("source=flood/end");
    quick.snapshot();
    let mut publisher = node.publisher();
    let data = "x".repeat(20_000);
    for step in 0..2000 {
        publisher.send_json(json!({"source": format!("flood/{}", step % 10), "data": data}));
    }
    publisher.publish(json!({"source": "flood/end", "data": 1}));
    assert_eq!(quick.record()["source"], "flood/end");
    assert_eq!(slow.close_code_within(LONG), 4202);
}

/// In openobserve (#13676) a storm of reconnects left hundreds of watchers behind.
#[test]
fn a_reconnect_storm_leaves_nothing_behind() {
    let node = Node::single();
    node.put("x", json!(1));
    let connections = || node.metric("anode_connections", &[("endpoint", "subscribe")]);
    let mut kept = node.subscriber("source=x");
    kept.snapshot();
    for round in 0..300 {
        let mut client = node.subscriber("source=**");
        match round % 3 {
            // The clients end in three ways: in order, in the middle of the snapshot, or in the middle of a
            // frame.
            0 => drop(client.close()),
            1 => drop(client),
            _ => client.send_bytes(&[0x81, 0xfe]),
        }
    }
    eventually("only the kept one is left", Duration::from_secs(10), || (connections() == 1.0).then_some(()));
    node.put("x", json!(2));
    assert_eq!(kept.record()["data"], 2);
    drop(kept);
    eventually("none is left", Duration::from_secs(10), || (connections() == 0.0).then_some(()));
}

#[test]
fn the_bound_on_connections_is_told() {
    let node = Node::start(NodeConfig::named("a").with(&["--max-connections", "8"]));
    let mut held: Vec<Client> = Vec::new();
    let mut refused = None;
    for _ in 0..12 {
        match shake(&node.http, "/publish", &[]) {
            Handshake::Open(socket, _) => {
                let mut client = Client::over(socket);
                match client.event(Duration::from_secs(5)) {
                    Some(Event::Text(_)) => held.push(client),
                    other => refused = Some(format!("{other:?}")),
                }
            }
            Handshake::Refused(answer) => refused = Some(answer.status.to_string()),
        }
    }
    let refused = refused.unwrap_or_default();
    assert!(refused.contains("4100") || refused == "503", "over the bound: {refused:?}");
    assert!((1..=8).contains(&held.len()), "{} connections", held.len());
    let mut first = held.swap_remove(0);
    assert!(first.publish(json!({"source": "a", "data": 1})).get("result").is_some());
    drop((first, held));
    eventually("there is room again", Duration::from_secs(10), || {
        matches!(shake(&node.http, "/publish", &[]), Handshake::Open(..)).then_some(())
    });
}
