//! Nodes that were cut off and come back: partitions, pauses and long absences. At the end all nodes are
//! equal, and what was deleted stays deleted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::wait::{self, PATIENCE};
use crate::harness::{Cluster, Deadline, Fabric, Http, Node, NodeConfig, eventually, ports};

fn publish_many(node: &Node, prefix: &str, count: usize) {
    let mut client = node.publisher();
    for from in (0..count).step_by(1000) {
        let items: Vec<Value> = (from..count.min(from + 1000))
            .map(|step| json!({"source": format!("{prefix}/{step}"), "data": step}))
            .collect();
        client.send_json(json!(items));
    }
    let answer = client.publish(json!({"source": format!("{prefix}-done"), "data": 1}));
    assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
}

#[test]
fn a_node_that_was_away_while_50_000_changed_is_equal_within_seconds() {
    let mut cluster = Cluster::start(3);
    publish_many(&cluster[0], "before", 1000);
    cluster.wait_equal("before/*", PATIENCE);
    assert_eq!(cluster[2].sigterm(), Some(0));
    publish_many(&cluster[0], "away", 50_000);
    cluster[2].restart_unready();
    let held = || cluster[2].metric("anode_sources", &[]);
    let want = cluster[0].metric("anode_sources", &[]);
    let start = Deadline::after(Duration::from_secs(60));
    eventually("it has caught up", Duration::from_secs(60), || (held() >= want).then_some(()));
    println!("50,000 records caught up in {:?}", start.elapsed());
    cluster[2].wait_ready();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(60)).len(), 51_002);
}

/// In weaviate#10698 and antrea#4491 the sides of a partition never merged again, because dead members had
/// been forgotten.
#[test]
fn sides_of_a_partition_merge_again() {
    let (fabric, cluster) = Fabric::start(4, &[]);
    cluster[0].put("base", json!("base"));
    cluster.wait_equal("**", PATIENCE);
    fabric.cut(&[2, 3]);
    for (one, other) in [(0, 2), (0, 3), (2, 0), (3, 1)] {
        let name = cluster[other].id.clone();
        cluster[one].wait_member(&name, "dead", PATIENCE);
    }
    for step in 0..200 {
        cluster[step % 4].put(&format!("side/{step}"), json!(step));
        cluster[step % 4].put("contested", json!([step, cluster[step % 4].id]));
    }
    assert!(cluster[0].latest("side/2").is_none(), "the partition leaks");
    fabric.heal();
    for node in &cluster.nodes {
        eventually("all alive again", Duration::from_secs(40), || (node.alive() == 4).then_some(()));
    }
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(30)).len(), 202);
}

/// A short partition loses no record, and nothing waits until a member is declared dead.
#[test]
fn a_short_cut_is_repaired() {
    let (fabric, cluster) = Fabric::start(3, &[]);
    for round in 0..5 {
        fabric.cut(&[1]);
        for step in 0..20 {
            cluster[0].put(&format!("cut/{round}/{step}"), json!(step));
        }
        fabric.heal();
    }
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(30)).len(), 100);
}

/// A paused process is declared dead, but comes back and receives what it missed.
#[test]
fn a_paused_node_catches_up() {
    let cluster = Cluster::start(3);
    cluster[1].signal("STOP");
    publish_many(&cluster[0], "paused", 2000);
    cluster[2].wait_member("b", "dead", PATIENCE);
    cluster[1].signal("CONT");
    cluster.wait_whole();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(30)).len(), 2001);
}

/// In cortex#4420 deleted data came back from a node that had been away longer than tombstones were kept. In
/// cortex#4010 tombstones were never removed.
#[test]
fn who_was_away_past_the_tombstones_brings_nothing_back() {
    let flags = ["--tombstones", "2s"];
    let mut cluster = Cluster::start_with(3, &flags);
    for step in 0..50 {
        cluster[0].put(&format!("z/{step}"), json!(step));
    }
    cluster.wait_equal("**", PATIENCE);
    assert_eq!(cluster[2].sigterm(), Some(0));
    cluster[0].wait_member("c", "left", PATIENCE);
    for step in 0..25 {
        cluster[0].post(json!({"source": format!("z/{step}"), "deleted": true}));
    }
    eventually("the deletions are everywhere", PATIENCE, || {
        cluster[1].latest("z/24").is_none().then_some(())
    });
    // Tombstones are kept for two seconds, as the flag says, and for twice as long again before they are
    // removed.
    wait::throughout("deleted stays deleted", Duration::from_secs(6), || cluster[1].latest("z/3").is_none());
    cluster[2].restart();
    cluster.wait_whole();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(20)).len(), 25);
    wait::throughout("nothing comes back", Duration::from_secs(3), || {
        cluster.nodes.iter().all(|node| node.latest("z/3").is_none() && node.latest("z/30").is_some())
    });
}

/// Deletions reach nodes that were away when they were made.
#[test]
fn who_was_away_learns_of_deletions() {
    let mut cluster = Cluster::start(2);
    for step in 0..20 {
        cluster[0].put(&format!("d/{step}"), json!(step));
    }
    cluster.wait_equal("**", PATIENCE);
    cluster[1].kill9();
    for step in 0..10 {
        cluster[0].post(json!({"source": format!("d/{step}"), "deleted": true}));
    }
    cluster[1].restart();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(20)).len(), 10);
}

#[test]
fn joining_through_a_node_that_is_down_at_first() {
    let first = NodeConfig::named("a");
    let second = NodeConfig {
        join: vec![first.gossip.clone()],
        cluster_name: first.cluster_name.clone(),
        ..NodeConfig::named("b")
    };
    let second = Node::spawn(second);
    let answer = second.get("/readyz");
    assert_eq!(answer.status, 503, "no join target has failed for 10 s yet: {answer:?}");
    assert!(!answer.body.is_empty(), "it says why");
    assert_eq!(second.get("/healthz").status, 200);
    second.post(json!({"source": "early", "data": 1})).assert_problem(503, "clock_skew");
    // After ten seconds in which nobody answers, the node serves alone.
    second.wait_ready();
    second.put("early", json!(1));
    let cluster = Cluster { nodes: vec![Node::spawn(first), second] };
    for node in &cluster.nodes {
        eventually("they meet", Duration::from_secs(40), || (node.alive() == 2).then_some(()));
    }
    assert_eq!(cluster.wait_equal("**", PATIENCE).len(), 1);
}

#[test]
fn one_join_target_of_several_is_enough_and_its_own_address_is_ignored() {
    let first = Node::single();
    let mut config = NodeConfig::joining("b", &first);
    config.join = vec![format!("127.0.0.1:{}", ports::free()), config.gossip.clone(), first.gossip.clone()];
    let second = Node::spawn(config);
    second.wait_alive(2);
    first.wait_alive(2);
}

/// All nodes are restarted at once, twice. They find each other again and have their records. In
/// hashicorp/memberlist#311 a node stayed dead for ever after a mass restart.
#[test]
fn a_mass_restart_ends_with_everyone_alive() {
    let mut cluster = Cluster::start(3);
    // A record that is not stored yet is lost if all nodes are killed at once.
    let body = json!({"source": "x", "data": 1}).to_string();
    let stored = Http::post(&cluster[0].http, "/v1/publish?ack=stored", &body);
    assert_eq!(stored.status, 200, "{stored:?}");
    cluster.wait_equal("**", PATIENCE);
    for _ in 0..2 {
        cluster.nodes.iter_mut().for_each(Node::kill9);
        cluster.nodes.iter_mut().for_each(Node::restart_unready);
        for node in &cluster.nodes {
            eventually("all alive again", Duration::from_secs(40), || (node.alive() == 3).then_some(()));
        }
    }
    assert_eq!(cluster.wait_equal("**", PATIENCE).len(), 1);
}
