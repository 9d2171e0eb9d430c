//! What `stored` promises, and what a node has after a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Event, Node, NodeConfig};

/// In Jepsen's test of NATS 2.12.1 acknowledged writes were lost, because they were synced later.
#[test]
fn what_was_acknowledged_as_stored_survives_kill_9() {
    let mut node = Node::single();
    for round in 0..3 {
        let mut client = crate::harness::Client::open(&node.http, "/publish?ack=stored");
        let mut acknowledged: BTreeMap<String, (u64, Value)> = BTreeMap::new();
        let mut sent: Vec<(String, Value)> = Vec::new();
        let target = 400;
        while acknowledged.len() < target {
            while sent.len() < acknowledged.len() + 200 {
                let step = sent.len();
                let (source, data) = (format!("k/{round}/{step}"), json!([round, step]));
                client.send_json(json!({"id": step, "source": source, "data": data}));
                sent.push((source, data));
            }
            let Some(Event::Text(text)) = client.event(Duration::from_secs(20)) else { panic!("no answers") };
            let answer = crate::harness::json(&text);
            let step = answer["id"].as_u64().unwrap_or_default() as usize;
            assert_eq!(answer["result"]["level"], "stored", "{answer}");
            let (source, data) = sent[step].clone();
            acknowledged.insert(source, (answer["result"]["ts"].as_u64().unwrap_or_default(), data));
        }
        node.kill9();
        node.restart();
        let held: BTreeMap<String, Value> = node
            .all_records("**")
            .into_iter()
            .map(|record| (record["source"].as_str().unwrap_or_default().to_owned(), record))
            .collect();
        for (source, (ts, data)) in &acknowledged {
            let Some(record) = held.get(source) else { panic!("{source} was acknowledged and is lost") };
            assert_eq!((record["ts"].as_u64(), &record["data"]), (Some(*ts), data), "{source}");
        }
    }
}

/// If `stored` is confirmed for a stale record, the newer record has been stored.
#[test]
fn a_stale_stored_answer_means_the_winner_is_safe() {
    let mut node = Node::single();
    let mut client = node.publisher();
    client.send_json(json!({"source": "w", "ts": 2000, "data": "winner"}));
    let answer = client.publish(json!({"source": "w", "ts": 1000, "data": "loser", "ack": "stored"}));
    assert_eq!(answer["result"]["outcome"], "stale");
    node.kill9();
    node.restart();
    assert_eq!(node.latest("w").map(|record| record["data"].clone()), Some(json!("winner")));
}

#[test]
fn a_clean_stop_loses_nothing_at_all() {
    let mut node = Node::single();
    let mut client = node.publisher();
    for step in 0..3000 {
        client.send_json(json!({"source": format!("s/{step}"), "data": step}));
    }
    client.publish(json!({"source": "s/gone", "data": 1}));
    client.publish(json!({"source": "s/gone", "deleted": true}));
    client.publish(json!({"source": "s/brief", "data": 1, "ttl_ms": 86_400_000}));
    assert_eq!(node.sigterm(), Some(0));
    node.restart();
    assert_eq!(node.all_records("s/*").len(), 3001);
    // The deletion is stored too: an older value does not come back.
    assert_eq!(node.post(json!({"source": "s/gone", "ts": 5, "data": "old"})).json()["outcome"], "stale");
}

#[test]
fn history_survives_a_restart() {
    let mut node = Node::start(NodeConfig::named("a").with(&["--history", "5"]));
    for step in 0..8 {
        node.put("h", json!(step));
    }
    assert_eq!(node.sigterm(), Some(0));
    node.restart();
    let history = node.get("/v1/sources/h/history").json();
    let datas: Vec<_> =
        history["records"].as_array().into_iter().flatten().map(|record| record["data"].clone()).collect();
    assert_eq!(json!(datas), json!([7, 6, 5, 4, 3]));
}

#[test]
fn a_node_restarted_with_empty_data_gets_everything_back() {
    let mut cluster = Cluster::start(3);
    for step in 0..500 {
        cluster[step % 3].put(&format!("e/{step}"), json!(step));
    }
    cluster.wait_equal("**", Duration::from_secs(10));
    cluster[2].kill9();
    cluster[2].forget_data();
    cluster[2].restart();
    cluster.wait_whole();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(20)).len(), 500);
    // The node numbers its records from 1 again, and new records still reach all nodes.
    let ts = cluster[2].put("e/new", json!("life"));
    cluster[0].wait_ts("e/new", ts);
    cluster[1].wait_ts("e/new", ts);
}

#[test]
fn the_first_node_restarted_with_empty_data_gets_everything_back() {
    let mut cluster = Cluster::start(2);
    cluster[0].put("e/1", json!(1));
    cluster[1].put("e/2", json!(2));
    cluster.wait_equal("**", Duration::from_secs(10));
    // The node is not given an address to join. The other node must contact it.
    cluster[0].kill9();
    cluster[0].forget_data();
    cluster[0].restart();
    cluster.wait_whole();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(20)).len(), 2);
}

#[test]
fn memory_forgets_and_the_cluster_remembers() {
    let mut cluster = Cluster::configured(2, NodeConfig::in_memory);
    cluster[0].put("m", json!(1));
    cluster.wait_equal("**", Duration::from_secs(10));
    cluster[1].kill9();
    cluster[1].restart();
    assert_eq!(cluster.wait_equal("**", Duration::from_secs(20)).len(), 1);
}

/// Runs a node in a data directory in which it must not start, and returns what it wrote to its log.
#[track_caller]
fn refused_in(dir: &std::path::Path) -> String {
    let config = NodeConfig::named("a");
    let mut command = crate::harness::command::binary();
    command.args(["serve", "--http", &config.http, "--gossip", &config.gossip, "--data-dir"]).arg(dir);
    let output = crate::harness::command::run(&mut command, "");
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:?}");
    output.stderr
}

/// An empty file was taken for a new store: a node whose file had been truncated started without its records
/// and said nothing.
#[test]
fn a_store_file_that_is_empty_or_not_a_store_is_refused() {
    let mut node = Node::single();
    node.put("x", json!(1));
    assert_eq!(node.sigterm(), Some(0));
    let path = node.data_dir().join("anode.redb");
    let store = std::fs::read(&path).unwrap_or_default();
    for (bytes, words) in [
        (Vec::new(), ["anode.redb", "empty", "backup"]),
        (b"PK\x03\x04 something else".to_vec(), ["anode.redb", "not a store of aNode", "--data-dir"]),
        (vec![0; 65_536], ["anode.redb", "not a store of aNode", "--data-dir"]),
    ] {
        let written = std::fs::write(&path, &bytes);
        assert!(written.is_ok(), "{written:?}");
        let log = refused_in(&node.data_dir());
        assert!(words.iter().all(|word| log.contains(word)), "{words:?}: {log}");
        assert_eq!(std::fs::read(&path).ok(), Some(bytes), "the file was changed");
    }
    let written = std::fs::write(&path, store);
    assert!(written.is_ok(), "{written:?}");
    node.restart();
    assert!(node.latest("x").is_some());
}

/// Every user of the machine could read all records.
#[test]
fn the_data_belongs_to_the_user_alone() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut node = Node::single();
    let dir = node.data_dir();
    let paths = [(dir.clone(), 0o700), (dir.join("anode.redb"), 0o600), (dir.join("anode.lock"), 0o600)];
    let check = || {
        for (path, expected) in &paths {
            let mode = std::fs::metadata(path).map(|found| found.mode() & 0o777).ok();
            assert_eq!(mode, Some(*expected), "{path:?}: {mode:?}");
        }
    };
    check();
    node.kill9();
    for (path, mode) in &paths {
        let set = std::fs::set_permissions(path, PermissionsExt::from_mode(mode | 0o055));
        assert!(set.is_ok(), "{set:?}");
    }
    node.restart();
    check();
}

/// A data directory can be used by one process only.
#[test]
fn a_data_directory_in_use_is_refused() {
    let node = Node::single();
    let config = NodeConfig { data_dir: Some(node.data_dir()), ..NodeConfig::named("b") };
    let output = crate::harness::command::run(
        crate::harness::command::binary()
            .args(["serve", "--http", &config.http, "--gossip", &config.gossip, "--data-dir"])
            .arg(node.data_dir()),
        "",
    );
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
}
