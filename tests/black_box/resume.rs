//! Resume tokens: they are valid on every node, and never hide a record that was missed.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Fabric, Node, encode, eventually};

pub fn resumed(node: &Node, pattern: &str, token: &str) -> crate::harness::ws::Snapshot {
    let query = format!("source={}&resume={}", encode(pattern), encode(token));
    node.subscriber(&query).snapshot()
}

#[test]
fn on_the_same_node_only_what_is_new_comes() {
    let node = Node::single();
    for step in 0..20 {
        node.put(&format!("r/{step}"), json!("old"));
    }
    let token = node.subscriber("source=r/*").snapshot().resume;
    node.put("r/3", json!("new"));
    node.put("r/new", json!("new"));
    node.post(json!({"source": "r/4", "deleted": true}));
    let snapshot = resumed(&node, "r/*", &token);
    assert_eq!(snapshot.result["recovered"], true);
    assert_eq!(snapshot.sources(), ["r/3", "r/4", "r/new"]);
    let deleted: Vec<_> = snapshot.records.iter().filter(|record| record["deleted"] == true).collect();
    assert_eq!(deleted.len(), 1, "deletions are part of what was missed");
    assert!(resumed(&node, "r/*", &snapshot.resume).records.is_empty());
}

#[test]
fn on_another_node_the_same() {
    let cluster = Cluster::start(3);
    for step in 0..20 {
        cluster[step % 3].put(&format!("r/{step}"), json!("old"));
    }
    cluster.wait_equal("r/*", Duration::from_secs(10));
    // A token covers everything once the node knows that no record is missing.
    let token = eventually("a token proves everything", Duration::from_secs(20), || {
        let token = cluster[0].subscriber("source=r/*").snapshot().resume;
        let snapshot = resumed(&cluster[1], "r/*", &token);
        (snapshot.result["recovered"] == true && snapshot.records.is_empty()).then_some(token)
    });
    cluster[2].put("r/5", json!("new"));
    cluster[0].post(json!({"source": "r/6", "deleted": true}));
    cluster.wait_equal("r/*", Duration::from_secs(10));
    for node in &cluster.nodes[1..] {
        let snapshot = resumed(node, "r/*", &token);
        assert_eq!(snapshot.result["recovered"], true);
        assert_eq!(snapshot.sources(), ["r/5", "r/6"], "at {}", node.id);
    }
}

/// Records that reach a node late, after a partition, have sequence numbers that no token from the other side
/// covers. A subscriber that resumes there must be sent them.
#[test]
fn late_records_of_a_healed_partition_are_not_missed() {
    let (fabric, cluster) = Fabric::start(3, &[]);
    for step in 0..10 {
        cluster[step % 3].put(&format!("p/{step}"), json!("before"));
    }
    cluster.wait_equal("p/*", Duration::from_secs(10));
    fabric.cut(&[2]);
    for step in 0..50 {
        cluster[2].put(&format!("p/lonely/{step}"), json!("from the small side"));
        cluster[0].put(&format!("p/many/{step}"), json!("from the great side"));
    }
    // So far this client has been connected to the larger side only.
    let mut client = cluster[0].subscriber("source=p/**");
    let snapshot = client.snapshot();
    assert_eq!(snapshot.records.len(), 60);
    drop(client);
    fabric.heal();
    let whole = cluster.wait_equal("p/**", Duration::from_secs(60));
    assert_eq!(whole.len(), 110);
    for node in &cluster.nodes {
        let again = resumed(node, "p/**", &snapshot.resume);
        let sources = again.sources();
        let late = sources.iter().filter(|source| source.starts_with("p/lonely/")).count();
        assert_eq!(late, 50, "at {}, recovered: {}", node.id, again.result["recovered"]);
    }
}

/// In nats.go (#1777) a subscription ended silently after reconnecting.
#[test]
fn a_resumed_subscription_lives() {
    let mut cluster = Cluster::start(2);
    let token = cluster[0].subscriber("source=x/*").snapshot().resume;
    cluster[0].put("x/1", json!(1));
    cluster[1].wait_ts("x/1", cluster[0].latest("x/1").and_then(|record| record["ts"].as_u64()).unwrap_or(0));
    cluster[0].sigterm();
    let mut client = cluster[1].subscriber(&format!("source=x/*&resume={}", encode(&token)));
    assert_eq!(client.snapshot().sources(), ["x/1"]);
    cluster[1].put("x/2", json!(2));
    assert_eq!(client.record()["source"], "x/2");
}

/// If the node cannot prove what a token covers, it sends a full snapshot and tells the client so.
#[test]
fn a_token_of_another_world_gives_a_full_snapshot() {
    let elsewhere = Node::single();
    elsewhere.put("e", json!(1));
    let token = elsewhere.subscriber("source=**").snapshot().resume;
    let cluster = Cluster::start(2);
    for step in 0..5 {
        cluster[0].put(&format!("t/{step}"), json!(step));
    }
    let snapshot = resumed(&cluster[0], "t/*", &token);
    assert_eq!(snapshot.records.len(), 5);
    assert!(snapshot.result["recovered"].is_boolean(), "{}", snapshot.result);
}

/// The restart of a node does not invalidate tokens: what the subscriber has seen was stored.
#[test]
fn a_token_outlives_a_restart_of_its_node() {
    let mut node = Node::single();
    node.put("r/old", json!(1));
    let token = node.subscriber("source=r/*").snapshot().resume;
    assert_eq!(node.sigterm(), Some(0));
    node.restart();
    node.put("r/new", json!(2));
    let snapshot = resumed(&node, "r/*", &token);
    assert_eq!(snapshot.result["recovered"], true);
    assert_eq!(snapshot.sources(), ["r/new"]);
}

/// After a crash, tokens of the node are not valid: the subscriber may have seen records that were not
/// stored.
#[test]
fn a_token_does_not_outlive_a_crash_of_its_node() {
    let mut node = Node::single();
    node.put("r/old", json!(1));
    let token = node.subscriber("source=r/*").snapshot().resume;
    node.kill9();
    node.restart();
    assert_eq!(resumed(&node, "r/*", &token).result["recovered"], false);
}

/// A token is valid for its own patterns only. A wider pattern matches records that the client has not seen.
#[test]
fn a_token_of_fewer_sources_hides_none() {
    let node = Node::single();
    node.put("w/1", json!(1));
    node.put("w/2", json!(2));
    let token = node.subscriber("source=w/1").snapshot().resume;
    let snapshot = resumed(&node, "w/*", &token);
    assert!(snapshot.sources().contains(&"w/2".to_owned()), "{snapshot:?}");
}

#[test]
fn a_malformed_token_is_refused() {
    let node = Node::single();
    let token = node.subscriber("source=x").snapshot().resume;
    let mut client = node.subscriber("");
    let half: String = token.chars().take(token.chars().count() / 2).collect();
    for bad in ["", "x", "ä", "AAAA", &half, &format!("{token}x"), &"A".repeat(5000)] {
        let answer = client.ask(json!({"id": 1, "subscribe": {"sources": ["x"], "resume": bad}}));
        assert_eq!(answer["error"]["code"], "bad_request", "{bad:.60} → {answer}");
    }
}
