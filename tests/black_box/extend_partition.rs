//! Webhooks and archives during a partition, in which each side has a runner, and what becomes of the two when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::archives::{
    LONG, archive, archive_json, config, definition, listed, put_archive, table, wait_listed,
};
use crate::harness::bucket::Bucket;
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Fabric, Node, NodeConfig, eventually};
use crate::hooks::{put_hook, records, start_hook, state, values};

/// Longest time until one member runs a definition, after a partition.
const MOVED: Duration = Duration::from_secs(5);

/// Returns whether a node runs a definition, by what it has logged.
fn runs(node: &Node, name: &str) -> bool {
    let log = node.log();
    let count = |said: &str| {
        let of_name = |line: &&str| line.contains(said) && line.contains(&format!("name={name}"));
        log.lines().filter(of_name).count()
    };
    count("this member runs a definition") > count("this member stops running a definition")
}

/// Lets the nodes reach each other again, and waits until one of the two runs the definition. It goes on running it.
fn heal(fabric: &Fabric, cluster: &Cluster, name: &str) {
    let running = || cluster.nodes.iter().filter(|node| runs(node, name)).count();
    assert_eq!(running(), 2, "each side runs it");
    fabric.heal();
    eventually("the members see each other", LONG, || {
        cluster.nodes.iter().all(|node| node.alive() == 2).then_some(())
    });
    eventually("one of the two runs it", MOVED, || (running() == 1).then_some(()));
    throughout("no more than one runs it", Duration::from_secs(1), || running() <= 1);
    eventually("one still runs it", MOVED, || (running() == 1).then_some(()));
}

/// Every record comes: once from before and from after the partition, and from the time of it once from each of the two
/// runners at most. The records of a source never go back in time.
#[test]
fn a_webhook_sends_on_both_sides_and_from_one_after_it() {
    let (fabric, cluster) = Fabric::start(2, &[]);
    let receiver = Receiver::start(|_| Reaction::status(204));
    start_hook(&cluster[0], "both", json!({"on": "s/**", "url": format!("http://{}/", receiver.addr)}));
    let came = |source: &str, data: &Value| {
        eventually(&format!("{source} {data} came"), LONG, || {
            values(&receiver.requests(), source).contains(data).then_some(())
        });
    };
    for n in 0..10 {
        let ts = cluster[n % 2].put(&format!("s/before/{n}"), json!(n));
        cluster[1 - n % 2].wait_ts(&format!("s/before/{n}"), ts);
        came(&format!("s/before/{n}"), &json!(n));
    }
    // With the token that both nodes have now, the runner of the other side goes on.
    fabric.cut(&[0]);
    for node in &cluster.nodes {
        eventually("each side has a runner", LONG, || {
            (state(node, "both")["runner"] == node.id.as_str()).then_some(())
        });
    }
    for n in 0..10 {
        for node in &cluster.nodes {
            let (own, data) = (format!("s/{}/{n}", node.id), json!({"n": n, "at": node.id}));
            node.put(&own, data.clone());
            node.put("s/shared", data.clone());
            came(&own, &data);
            came("s/shared", &data);
        }
    }
    // What is defined on one side is on both when they are one again.
    let late = json!({"on": "none", "url": "http://127.0.0.1:9/"});
    assert_eq!(put_hook(&cluster[0], "late", late).status, 200);
    heal(&fabric, &cluster, "both");
    eventually("what was defined meanwhile is everywhere", LONG, || {
        (cluster[1].get("/v1/hook/late").status == 200).then_some(())
    });
    for n in 0..10 {
        let source = format!("s/after/{n}");
        cluster[n % 2].put(&source, json!(n));
        came(&source, &json!(n));
    }
    let mut counts = BTreeMap::<(String, u64), usize>::new();
    let mut newest = BTreeMap::<String, u64>::new();
    for record in records(&receiver.requests()) {
        let source = record["source"].as_str().unwrap_or_default().to_owned();
        let ts = record["ts"].as_u64().unwrap_or_default();
        let before = newest.insert(source.clone(), ts).unwrap_or(0);
        assert!(before <= ts, "{source} went back from {before} to {ts}");
        *counts.entry((source, ts)).or_default() += 1;
    }
    assert_eq!(counts.len(), 10 + 2 * 10 + 2 * 10 + 10, "every record came");
    for ((source, ts), count) in &counts {
        let most = if source.starts_with("s/after/") { 1 } else { 2 };
        assert!(*count <= most, "{source} at {ts} came {count} times");
    }
}

/// Both sides write archives into the same place, from the same parent. Afterwards one goes on: every archive is whole, and
/// the newest brings back the records of both sides.
#[test]
fn archives_of_both_sides_are_whole_and_the_next_one_has_everything() {
    let (bucket, fabric) = (Bucket::start(), Fabric::new(2));
    let start = |index: usize, name: &str, cluster_name: Option<&str>| {
        let mut config: NodeConfig = fabric.place(index, config(name));
        if let Some(cluster_name) = cluster_name {
            config.cluster_name = cluster_name.to_owned();
        }
        let node = Node::spawn(config);
        fabric.restarted(index, &node);
        node
    };
    let first = start(0, "a", None);
    let second = start(1, "b", Some(&first.config.cluster_name));
    let cluster = Cluster { nodes: vec![first, second] };
    cluster.wait_whole();
    for n in 0..20 {
        cluster[0].put(&format!("s/before/{n}"), json!(n));
    }
    cluster.wait_equal("s/**", LONG);
    put_archive(&cluster[0], "n", &definition(&bucket, "every = \"1s\"\npattern = \"s/**\""));
    wait_listed(&cluster[0], "n", 1);
    wait_listed(&cluster[1], "n", 1);
    fabric.cut(&[0]);
    for node in &cluster.nodes {
        eventually("each side writes archives", LONG, || {
            node.put(&format!("s/{}/x", node.id), json!(crate::harness::wall_us()));
            node.put("s/shared", json!(node.id));
            listed(node, "n").iter().any(|one| one["node"] == node.id.as_str()).then_some(())
        });
    }
    heal(&fabric, &cluster, "n");
    for node in &cluster.nodes {
        node.put(&format!("s/after/{}", node.id), json!(1));
    }
    let held = cluster.wait_equal("s/**", LONG);
    let covers_all = |node: &Node| {
        let newest = held.iter().filter_map(|record| record["ts"].as_u64()).max().unwrap_or(0);
        listed(node, "n").first().is_some_and(|archive| archive["at"].as_u64() > Some(newest + 1_000_000))
    };
    // An archive is written when something has changed, so a source that belongs to nothing else changes.
    eventually("an archive from after all of it", LONG, || {
        cluster[0].put("s/tick", json!(crate::harness::wall_us()));
        covers_all(&cluster[0]).then_some(())
    });
    let verified = archive(&cluster[0], &["verify", "n"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    let fresh = Node::start(config("fresh"));
    put_archive(&fresh, "n", &definition(&bucket, "every = \"1h\"\npattern = \"s/**\""));
    wait_listed(&fresh, "n", 2);
    let restored = archive_json(&fresh, &["restore", "n"]);
    assert_eq!(restored["refused"], json!(0), "{restored}");
    let (mut restored, mut held) = (table(&fresh, "s/**"), table(&cluster[0], "s/**"));
    restored.remove("s/tick");
    held.remove("s/tick");
    assert_eq!(restored, held);
}
