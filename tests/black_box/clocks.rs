//! Nodes whose wall clock is wrong: they drag nobody along, and notice it themselves where others can tell.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::assert_described;
use crate::harness::clock::ShiftedClock;
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Node, NodeConfig, eventually, wall_us};

/// Nearly a day, in seconds: peers refuse what is further ahead.
const NEARLY_A_DAY_S: i64 = 86_000;
const HOUR_US: u64 = 3_600_000_000;

/// Publishes and checks that the stamp is that of a right clock.
fn is_stamped_now(node: &Node, source: &str) {
    let before = wall_us();
    let ts = node.put(source, json!(1));
    assert!((before..=wall_us()).contains(&ts), "{source} has the stamp {ts} at {before}");
}

/// A node whose clock was a day ahead for a moment stamped everything a day ahead from then on, after a restart too, and
/// so did every node that published to one of its sources.
#[test]
fn a_clock_that_was_ahead_for_a_moment_drags_nobody() {
    let clock = ShiftedClock::ahead_by(NEARLY_A_DAY_S);
    let mut node = Node::start(NodeConfig::named("a").with_clock(&clock));
    let other = Node::start(NodeConfig::joining("b", &node));
    let ahead = node.put("dragged", json!(1));
    assert!(ahead > wall_us() + 23 * HOUR_US, "the clock of the node was not moved");
    clock.set_ahead_by(0);
    is_stamped_now(&node, "right");
    assert_eq!(node.put("dragged", json!(2)), ahead + 1, "a source's own stamps rise");
    other.wait_ts("dragged", ahead + 1);
    assert_eq!(other.put("dragged", json!(3)), ahead + 2);
    is_stamped_now(&other, "right at the other");
    node.wait_ts("dragged", ahead + 2);
    node.kill9();
    node.restart();
    is_stamped_now(&node, "right after a restart");
    node.wait_ts("dragged", ahead + 2);
    assert_eq!(node.put("dragged", json!(4)), ahead + 3);
}

/// A clock that is set while the node runs was noticed by nobody where there was no member to compare it with.
#[test]
fn a_clock_that_jumps_is_logged_and_counted() {
    let clock = ShiftedClock::ahead_by(0);
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--log", "json"]).with_clock(&clock));
    let jumps = || node.metric("anode_clock_jumps_total", &[]);
    throughout("the clock is right", Duration::from_millis(1_500), || jumps() == 0.0);
    for (ahead_s, count) in [(60, 1.0), (-600, 2.0)] {
        clock.set_ahead_by(ahead_s);
        eventually("the jump is noticed", Duration::from_secs(10), || (jumps() == count).then_some(()));
    }
    throughout("it is told once", Duration::from_millis(1_500), || jumps() == 2.0);
    let log = node.log();
    let lines: Vec<Value> = log.lines().map(crate::harness::json).collect();
    let told: Vec<&Value> = (lines.iter())
        .filter(|line| line["message"].as_str().is_some_and(|message| message.contains("wall clock")))
        .collect();
    assert_eq!(told.len(), 1, "once a minute: {log}");
    assert_eq!(told[0]["level"], "WARN", "{log}");
    assert!(told[0]["seconds"].as_f64().is_some_and(|seconds| (59.0..61.0).contains(&seconds)), "{log}");
}

/// Of three nodes, the one with the wrong clock took records all the same: the guard wanted three peers. A node that
/// started with a wrong clock took records until it had met enough of them.
#[test]
fn of_three_nodes_the_one_with_the_wrong_clock_takes_no_records() {
    let cluster = Cluster::start(2);
    let clock = ShiftedClock::ahead_by(60);
    let wrong = Node::spawn(NodeConfig::joining("c", &cluster.nodes[0]).with_clock(&clock));
    let answer = eventually("the node compares its clock", Duration::from_secs(20), || {
        let answer = wrong.post(json!({"source": "c", "data": 1}));
        assert_ne!(answer.status, 200, "a record with a wrong stamp is taken: {answer:?}");
        (answer.json()["code"] == "clock_skew").then_some(answer)
    });
    answer.assert_problem(503, "clock_skew");
    assert_described(&wrong, ("post", "/v1/publish"), &answer);
    assert_eq!(wrong.get("/readyz").status, 503);
    let offset = wrong.metric("anode_clock_offset_seconds", &[]);
    assert!((55.0..65.0).contains(&offset.abs()), "the offset is shown as {offset}");
    is_stamped_now(&cluster.nodes[0], "a");
    clock.set_ahead_by(0);
    eventually("the clock is right again", Duration::from_secs(20), || {
        (wrong.post(json!({"source": "c", "data": 2})).status == 200).then_some(())
    });
    wrong.wait_ready();
    let seen: Option<Value> = wrong.latest("c");
    assert!(seen.is_some_and(|record| record["data"] == 2));
}
