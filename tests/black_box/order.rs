//! The order of records, which is the same everywhere: stale and duplicate records, ties, and timestamps
//! given by nodes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Node, eventually, wall_us};

fn outcome(node: &Node, record: Value) -> String {
    let answer = node.post(record);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["outcome"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn older_is_stale_and_equal_is_duplicate() {
    let node = Node::single();
    let mut subscriber = node.subscriber("source=a");
    subscriber.snapshot();
    assert_eq!(outcome(&node, json!({"source": "a", "ts": 100, "data": 1})), "applied");
    assert_eq!(outcome(&node, json!({"source": "a", "ts": 100, "data": 1})), "duplicate");
    let stale = node.post(json!({"source": "a", "ts": 99, "data": 2})).json();
    assert_eq!((&stale["outcome"], &stale["current_ts"]), (&json!("stale"), &json!(100)));
    assert_eq!(outcome(&node, json!({"source": "a", "ts": 101, "data": 3})), "applied");
    assert_eq!(subscriber.record()["ts"], 100);
    assert_eq!(subscriber.record()["ts"], 101);
    subscriber.assert_silent(Duration::from_millis(300));
    assert_eq!(node.metric("anode_records_stale_total", &[]), 1.0);
    assert_eq!(node.metric("anode_records_duplicate_total", &[]), 1.0);
    assert_eq!(node.metric("anode_records_published_total", &[]), 4.0);
}

/// Of records with equal timestamps the one with the greater (`deleted`, hash of the data) wins, in whichever
/// order they arrive.
#[test]
fn a_tie_has_the_same_winner_in_every_order() {
    let node = Node::single();
    let values = [json!("one"), json!("two"), json!("three"), json!(4), json!({"five": 5})];
    let mut winners = Vec::new();
    for round in 0..values.len() {
        let source = format!("t/{round}");
        for step in 0..values.len() {
            let data = &values[(round + step) % values.len()];
            let answer = node.post(json!({"source": source, "ts": 500, "data": data})).json();
            if answer["outcome"] == "stale" {
                assert_eq!(answer["current_ts"], 500, "{answer}");
            }
        }
        winners.push(node.latest(&source).map(|record| record["data"].clone()));
    }
    assert!(winners.iter().all(|winner| winner.is_some() && *winner == winners[0]), "{winners:?}");
    // A deletion wins against every value with the same timestamp.
    assert_eq!(outcome(&node, json!({"source": "t/0", "ts": 500, "deleted": true})), "applied");
    assert_eq!(outcome(&node, json!({"source": "t/0", "ts": 500, "data": "one"})), "stale");
    assert_eq!(outcome(&node, json!({"source": "t/0", "ts": 500, "deleted": true})), "duplicate");
    assert!(node.latest("t/0").is_none());
    assert_eq!(outcome(&node, json!({"source": "t/0", "ts": 501, "data": "back"})), "applied");
}

/// In vernemq#507 and emqx#11711 the retained value of a topic differed from node to node.
#[test]
fn writers_at_all_nodes_end_in_one_value_everywhere() {
    let cluster = Cluster::start(3);
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            scope.spawn(move || {
                let mut client = node.publisher();
                for step in 0..300 {
                    let source = format!("r/{}", step % 10);
                    client.send_json(
                        json!({"source": source, "ts": 1000 + step / 10, "data": [node.id, step]}),
                    );
                }
                assert!(
                    client
                        .publish(json!({"source": format!("end/{}", node.id), "data": 1}))
                        .get("result")
                        .is_some()
                );
            });
        }
    });
    let records = cluster.wait_equal("**", Duration::from_secs(20));
    assert_eq!(records.len(), 13);
    assert!(
        records.iter().filter(|record| record["source"] != "end").all(|record| record["origin"].is_string())
    );
}

/// In Jepsen's tests of Riak and Cassandra, a slow clock made the node's writes get lost silently, and a fast
/// clock blocked a key for years.
#[test]
fn an_unstamped_publish_wins_over_all_its_node_has_seen() {
    let node = Node::single();
    let ahead = wall_us() + 8_000_000;
    assert_eq!(outcome(&node, json!({"source": "f", "ts": ahead, "data": "ahead"})), "applied");
    let answer = node.post(json!({"source": "f", "data": "mine"})).json();
    assert_eq!((&answer["outcome"], answer["ts"].as_u64()), (&json!("applied"), Some(ahead + 1)));
    assert_eq!(node.latest("f").map(|record| record["data"].clone()), Some(json!("mine")));
    let far = node.post(json!({"source": "f", "ts": wall_us() + 3_600_000_000, "data": "poison"}));
    far.assert_problem(400, "future_timestamp");
}

/// One publisher with a fast clock made every source of its node, and of the nodes behind it, be stamped ahead
/// of time.
#[test]
fn no_source_pushes_the_stamps_of_another_ahead() {
    let mut node = Node::single();
    let ahead = wall_us() + 9_900_000;
    assert_eq!(outcome(&node, json!({"source": "fast", "ts": ahead, "data": 1})), "applied");
    let mut last = node.put("fast", json!(2));
    assert_eq!(last, ahead + 1);
    let published = wall_us();
    let answer = node.post(json!({"source": "x", "data": 1, "ttl_ms": 1000})).json();
    let ts = answer["ts"].as_u64().unwrap_or_default();
    assert!((published..=wall_us()).contains(&ts), "{ts} is not between {published} and now");
    // The life of a value is counted from the acceptance where its stamp is ahead.
    let ahead_again = wall_us() + 9_900_000;
    let brief = json!({"source": "brief", "ts": ahead_again, "data": 1, "ttl_ms": 1000});
    assert_eq!(outcome(&node, brief), "applied");
    eventually("both values have expired", Duration::from_secs(4), || {
        (node.latest("x").is_none() && node.latest("brief").is_none()).then_some(())
    });
    assert!(wall_us() >= published + 1_000_000, "a life of one second ended early");
    // After a restart, what is stored of a source serves for that source, and for no other.
    node.sigterm();
    node.restart();
    for step in 0..3 {
        let ts = node.put("fast", json!(step));
        assert!(ts > last, "{ts} after {last}");
        last = ts;
    }
    let restarted = wall_us();
    let ts = node.put("x", json!(2));
    assert!((restarted..=wall_us()).contains(&ts), "{ts} is not between {restarted} and now");
}

/// A node that published to a source of another node, of which the stamps were ahead, stamped all of its own
/// sources ahead from then on.
#[test]
fn a_source_that_is_ahead_drags_no_other_node() {
    let cluster = Cluster::start(2);
    let ahead = wall_us() + 9_900_000;
    assert_eq!(outcome(&cluster[0], json!({"source": "fast", "ts": ahead, "data": 1})), "applied");
    cluster[1].wait_ts("fast", ahead);
    assert_eq!(cluster[1].put("fast", json!(2)), ahead + 1);
    cluster[0].wait_ts("fast", ahead + 1);
    for node in &cluster.nodes {
        let published = wall_us();
        let ts = node.put(&format!("of/{}", node.id), json!(1));
        assert!(
            (published..=wall_us()).contains(&ts),
            "{ts} at {} is not between {published} and now",
            node.id
        );
    }
}
