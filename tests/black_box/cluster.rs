//! Several nodes: a record that is published at one of them reaches subscribers of all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, Fabric, Http, Node, NodeConfig, ProtoClient, eventually, proto};

#[test]
fn published_at_one_received_at_the_others_in_both_codecs() {
    let cluster = Cluster::start(3);
    let mut plain = cluster[1].subscriber("source=sensors/**");
    plain.snapshot();
    let mut binary = ProtoClient::open(&cluster[2].http, "/subscribe?source=sensors/**&snapshot=false");
    binary.answer();
    assert!(matches!(binary.next(), proto::server_message::Message::Eos(_)));

    let ts = cluster[0].put("sensors/7/temp", json!({"c": 21.5}));
    let want = json!({"source": "sensors/7/temp", "ts": ts, "origin": "a", "data": {"c": 21.5}});
    assert_eq!(plain.record(), want);
    let record = binary.record();
    assert_eq!((record.source.as_str(), record.ts, record.origin.as_str()), ("sensors/7/temp", ts, "a"));
    assert_eq!(record.value, Some(proto::record::Value::Data("{\"c\":21.5}".into())));

    let mut publisher = ProtoClient::open(&cluster[2].http, "/publish");
    let value = Some(proto::publish::Value::DataB64(vec![1, 2, 3].into()));
    publisher.publish(proto::Publish { source: "sensors/8".into(), value, ..Default::default() });
    let record = plain.record();
    assert_eq!((&record["origin"], &record["data_b64"]), (&json!("c"), &json!("AQID")));
    assert_eq!(binary.record().value, Some(proto::record::Value::DataB64(vec![1, 2, 3].into())));
}

#[test]
fn a_stale_record_is_neither_kept_nor_spread() {
    let cluster = Cluster::start(2);
    let mut subscriber = cluster[1].subscriber("source=x");
    subscriber.snapshot();
    cluster[0].post(json!({"source": "x", "ts": 1000, "data": "new"}));
    assert_eq!(subscriber.record()["ts"], 1000);
    cluster[0].post(json!({"source": "x", "ts": 999, "data": "old"}));
    cluster[0].post(json!({"source": "x", "ts": 1000, "data": "new"}));
    // A record that is published at the other node is judged in the same way.
    assert_eq!(
        cluster[1].post(json!({"source": "x", "ts": 998, "data": "older"})).json()["outcome"],
        "stale"
    );
    subscriber.assert_silent(Duration::from_millis(500));
}

#[test]
fn deletions_and_times_to_live_hold_on_every_node() {
    let cluster = Cluster::start(3);
    cluster[0].put("gone", json!(1));
    let mut subscriber = cluster[2].subscriber("source=brief");
    subscriber.snapshot();
    let answer = cluster[0].post(json!({"source": "brief", "data": 1, "ttl_ms": 1000})).json();
    assert_eq!(subscriber.record()["data"], 1);
    assert_eq!(
        subscriber.record(),
        json!({"source": "brief", "ts": answer["ts"], "origin": "a", "deleted": true})
    );
    cluster[1]
        .wait_ts("gone", cluster[0].latest("gone").and_then(|record| record["ts"].as_u64()).unwrap_or(0));
    assert_eq!(cluster[1].post(json!({"source": "gone", "deleted": true})).status, 200);
    for node in &cluster.nodes {
        eventually("the deletion is everywhere", Duration::from_secs(5), || {
            node.latest("gone").is_none().then_some(())
        });
        assert!(node.latest("brief").is_none(), "{}", node.id);
    }
}

/// In prometheus/alertmanager#1340 a message larger than a datagram blocked the queue for ever.
#[test]
fn records_of_every_size_arrive_and_none_blocks_the_next() {
    let cluster = Cluster::start_with(3, &["--max-record-bytes", "524288"]);
    let mut subscriber = cluster[2].subscriber("source=size/**&mode=latest");
    subscriber.snapshot();
    let sizes = [
        0, 1, 100, 1_000, 1_100, 1_150, 1_200, 1_300, 5_000, 16_000, 16_384, 16_400, 65_000, 300_000,
        524_000, 10,
    ];
    for size in sizes {
        cluster[0].put(&format!("size/{size}"), json!("x".repeat(size)));
    }
    let mut seen = 0;
    let records = subscriber.records_until(Duration::from_secs(20), |_| {
        seen += 1;
        seen == sizes.len()
    });
    for record in records {
        let size =
            record["source"].as_str().and_then(|source| source.strip_prefix("size/")).map(str::to_owned);
        let length = record["data"].as_str().map(str::len);
        assert_eq!(length.map(|length| length.to_string()), size);
    }
}

/// Worker 0 alone would have decoded and merged all that comes from peers. Whoever does it, a subscriber sees the
/// records of a source in order, and an answer `replicated` comes after the record can be read everywhere.
#[test]
fn all_workers_merge_what_comes_from_peers() {
    let cluster = Cluster::start_with(3, &["--workers", "4"]);
    let mut subscriber = cluster[2].subscriber("source=bulk/**&mode=all&snapshot=false");
    subscriber.snapshot();
    let (count, sources) = (10_000, 50);
    std::thread::scope(|scope| {
        for node in &cluster.nodes[..2] {
            let reader = &cluster[2];
            scope.spawn(move || {
                let mut client = node.publisher();
                for step in 0..count {
                    let source = format!("bulk/{}/{}", node.id, step % sources);
                    client.send_json(json!({"source": source, "ts": 1_000 + step, "data": step}));
                }
                let source = format!("bulk/{}/end", node.id);
                let answer = client.publish(json!({"source": source, "data": 1, "ack": "replicated"}));
                assert!(answer.get("result").is_some(), "{answer}");
                assert!(reader.latest(&source).is_some(), "answered before it is there");
            });
        }
    });
    let (mut latest, mut ends) = (BTreeMap::new(), 0);
    subscriber.records_until(Duration::from_secs(60), |record| {
        let (source, ts) = (record["source"].to_string(), record["ts"].as_u64());
        ends += usize::from(source.contains("/end"));
        let before = latest.insert(source, ts);
        assert!(before.is_none_or(|before| before < ts), "{record} after {before:?}");
        let is_last = |ts: &Option<u64>| ts.is_some_and(|ts| ts >= 1_000 + count - sources);
        ends == 2 && latest.values().all(is_last)
    });
    assert_eq!(latest.len() as u64, 2 * (sources + 1));
    let by_others = cluster[2].metric("anode_peer_batches_total", &[("merged_by", "other_worker")]);
    assert!(by_others > 0.0, "worker 0 has merged everything");
}

#[test]
fn zones_see_everything() {
    let first = Node::spawn(NodeConfig::named("a").with(&["--zone", "east"]));
    let second = Node::spawn(NodeConfig::joining("b", &first).with(&["--zone", "west"]));
    let third = Node::spawn(NodeConfig::joining("c", &first).with(&["--zone", "west"]));
    let cluster = Cluster { nodes: vec![first, second, third] };
    cluster.wait_whole();
    let members = cluster[0].get("/v1/members").json();
    let zones: Vec<_> =
        members["members"].as_array().into_iter().flatten().map(|member| member["zone"].clone()).collect();
    assert_eq!(zones.iter().filter(|zone| *zone == "west").count(), 2, "{members}");
    for (index, node) in cluster.nodes.iter().enumerate() {
        node.put(&format!("z/{index}"), json!(index));
    }
    assert_eq!(cluster.wait_equal("z/*", Duration::from_secs(5)).len(), 3);
}

#[test]
fn strangers_stay_strangers() {
    let ours = Cluster::start(2);
    let strange = NodeConfig { join: vec![ours[0].gossip.clone()], ..NodeConfig::named("x") };
    let strange = Node::spawn(strange);
    ours[0].put("secret", json!(1));
    crate::harness::wait::throughout("nobody meets", Duration::from_secs(2), || {
        strange.alive() <= 1 && ours[0].alive() == 2 && strange.latest("secret").is_none()
    });
    let ignored = ours[0].metric("anode_gossip_datagrams_ignored_total", &[]);
    assert!(ignored > 0.0, "what strangers send is counted");
}

/// Nodes talk to each other only through their advertised addresses, so a network that translates addresses
/// works.
#[test]
fn advertised_addresses_are_the_ones_used() {
    let (_fabric, cluster) = Fabric::start(3, &[]);
    let members = cluster[0].get("/v1/members").json();
    for (member, node) in members["members"].as_array().into_iter().flatten().zip(&cluster.nodes) {
        assert_eq!(member["gossip"], node.advertised(), "{members}");
    }
    cluster[1].put("x", json!("x".repeat(60_000)));
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(10)).len(), 1);
}

/// Every node receives about one copy of a record. No node is sent records that it has.
///
/// An acknowledgement that is late because the machine is busy looks like a lost record, so the best of five
/// rounds counts. A node that sends needless copies does so in every round.
#[test]
fn copies_received_are_about_one() {
    let cluster = Cluster::start(3);
    let mut publisher = cluster[0].publisher();
    let copies = || -> f64 {
        cluster.nodes.iter().map(|node| node.metric("anode_data_copies_received_total", &[])).sum()
    };
    let (mut before, mut best) = (0.0, f64::MAX);
    for round in 1..=5 {
        for step in 0..1000 {
            publisher.send_json(json!({"source": format!("c/{round}/{step}"), "data": step}));
        }
        eventually("all have all", PATIENCE, || {
            Some(cluster.wait_equal("**", PATIENCE)).filter(|records| records.len() == round * 1000)
        });
        // An idle node updates its metrics once a second.
        eventually("each copy is counted", PATIENCE, || (copies() >= before + 2000.0).then_some(()));
        let mut last = copies();
        crate::harness::wait::throughout("counters go up", Duration::from_millis(1500), || {
            copies() >= std::mem::replace(&mut last, copies())
        });
        best = f64::min(best, last - before);
        before = last;
        if best <= 2000.0 * 1.01 {
            return;
        }
    }
    panic!("at best {best} copies for 2 × 1,000 deliveries");
}

/// A node that starts with a wrong clock took records until it had found out. Now it takes none before it has
/// compared its clock with a member's, or no join target has answered for ten seconds.
#[test]
fn a_node_takes_no_publish_before_it_has_compared_its_clock() {
    let silent = match std::net::UdpSocket::bind("127.0.0.1:0") {
        Ok(socket) => socket,
        Err(error) => panic!("no socket: {error}"),
    };
    let address = silent.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let node = Node::spawn(NodeConfig { join: vec![address], ..NodeConfig::named("a") });
    node.post(json!({"source": "s", "data": 1})).assert_problem(503, "clock_skew");
    let ready = Http::get(&node.http, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("clock"), "{}", ready.body);
    node.wait_ready();
    assert_eq!(node.post(json!({"source": "s", "data": 1})).status, 200);
    // With a member that answers it takes no longer than joining does.
    let other = Node::start(NodeConfig::joining("b", &node));
    assert_eq!(other.post(json!({"source": "s", "data": 2})).status, 200);
}
