//! The log at `info` tells the story of a node; and it follows the configuration file while the node runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{Background, binary};
use crate::harness::file_size::set_writable;
use crate::harness::wait::{PATIENCE, throughout};
use crate::harness::{Client, Cluster, Fabric, Http, Node, NodeConfig, eventually, json as parse};

/// Returns the lines of a log in JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().filter(|line| line.starts_with('{')).map(parse).collect()
}

/// Waits for a line whose message contains `words`, and returns it.
#[track_caller]
fn line(node: &Node, words: &str) -> Value {
    eventually(&format!("{} logs {words:?}", node.id), Duration::from_secs(30), || {
        lines(&node.log()).into_iter().find(|line| says(line, words))
    })
}

fn says(line: &Value, words: &str) -> bool {
    line["message"].as_str().is_some_and(|message| message.contains(words))
}

fn count(node: &Node, words: &str) -> usize {
    lines(&node.log()).iter().filter(|line| says(line, words)).count()
}

#[test]
fn members_come_fail_return_and_leave_each_once() {
    let mut cluster = Cluster::start_with(3, &["--log", "json"]);
    let start = line(&cluster[0], "a node starts");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    for field in ["http", "gossip", "store", "cluster", "workers", "max_memory", "has_auth"] {
        assert!(!start[field].is_null(), "{field} in {start}");
    }
    for name in ["b", "c"] {
        eventually("it has joined", Duration::from_secs(20), || {
            let log = lines(&cluster[0].log());
            log.into_iter().find(|line| says(line, "a member has joined") && line["member"] == name)
        });
    }
    cluster[1].kill9();
    let failed = line(&cluster[0], "a member has failed");
    assert_eq!((&failed["member"], &failed["level"]), (&json!("b"), &json!("WARN")));
    assert!(failed["address"].is_string() && failed["alive"] == 2, "{failed}");
    cluster[1].restart();
    let returned = line(&cluster[0], "a member has returned");
    assert_eq!(returned["member"], "b");
    assert!(returned["away_ms"].as_u64() > Some(0), "{returned}");
    assert_eq!(cluster[2].sigterm(), Some(0));
    assert_eq!(line(&cluster[0], "a member has left")["member"], "c");
    assert!(!line(&cluster[2], "stopped").is_null());
    for (words, times) in [
        ("a node starts", 1),
        ("a member has joined", 2),
        ("a member has failed", 1),
        ("a member has returned", 1),
        ("a member has left", 1),
    ] {
        assert_eq!(count(&cluster[0], words), times, "{words}: {}", cluster[0].log());
    }
}

#[test]
fn a_partition_and_its_healing_are_told() {
    let (fabric, cluster) = Fabric::start(4, &["--log", "json"]);
    fabric.cut(&[2, 3]);
    for node in &cluster.nodes {
        let told = line(node, "partitioned");
        assert_eq!((&told["alive"], &told["lost"]), (&json!(2), &json!(2)), "{told}");
    }
    fabric.heal();
    for node in &cluster.nodes {
        line(node, "the partition has healed");
        assert_eq!(count(node, "network is partitioned"), 1);
    }
}

#[test]
fn refused_connections_are_one_line_with_their_number() {
    let node =
        Node::start(NodeConfig::named("a").in_memory().with(&["--log", "json", "--max-connections", "3"]));
    let held: Vec<Client> = (0..2).map(|_| Client::open(&node.http, "/subscribe?source=**")).collect();
    eventually("connections are refused", Duration::from_secs(20), || {
        let open: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(&node.http)).collect();
        let _ = crate::harness::Http::attempt(&node.http, "GET", "/v1/members", &[], b"");
        drop(open);
        (count(&node, "connections were refused") > 0).then_some(())
    });
    let told = line(&node, "connections were refused");
    assert_eq!(told["status"], 503, "{told}");
    assert!(
        told["clients"].as_u64() >= Some(1) && told["reason"].is_string() && told["last"].is_string(),
        "{told}"
    );
    assert_eq!(count(&node, "connections were refused"), 1, "once a minute: {}", node.log());
    drop(held);
}

/// Publishes a record and waits until it survives a power cut.
fn store(node: &Node, record: Value) -> Http {
    Http::post(&node.http, "/v1/publish?ack=stored", &record.to_string())
}

/// A store whose writes fail is told by one line, however often it tries and whatever is published, and by one more when it
/// writes again; and both once more when it happens again.
#[test]
fn a_store_that_fails_and_works_again_is_told_once_each() {
    const FAILS: &str = "the store failed to commit";
    const WORKS: &str = "the store commits again";
    let config = NodeConfig { survives_failing_writes: true, ..NodeConfig::named("a") };
    let mut node = Node::start(config.with(&["--log", "json"]));
    node.allowed_errors = vec![FAILS];
    for round in 1..=2 {
        assert_eq!(store(&node, json!({"source": "before", "data": round})).status, 200);
        set_writable(node.pid(), false);
        // This record is in memory when the store turns out to fail, and the answer says so.
        let late = store(&node, json!({"source": "late", "data": round}));
        late.assert_problem(503, "store_unavailable");
        let late = late.json();
        assert_eq!((&late["temporary"], &late["applied"]), (&json!(true), &json!(true)), "{late}");
        eventually("the error is told", PATIENCE, || (count(&node, FAILS) == round).then_some(()));
        // Further ones are not taken, at any level, while the store is tried again and again.
        throughout("the log says no more", Duration::from_secs(2), || {
            let batch =
                json!([{"id": 1, "source": "late", "data": 0}, {"id": 2, "source": "new", "data": 0}]);
            let answers = node.post(batch).json();
            for answer in answers.as_array().into_iter().flatten() {
                let error = &answer["error"];
                assert!(error["code"] == "store_unavailable" && error["applied"].is_null(), "{answers}");
            }
            assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
            count(&node, FAILS) == round && count(&node, WORKS) == round - 1
        });
        let held = node.latest("late").unwrap_or_default();
        assert_eq!((&held["ts"], &held["data"]), (&late["ts"], &json!(round)), "{held}");
        assert!(node.latest("new").is_none(), "it was refused");
        let readiness = node.get("/readyz");
        assert!(readiness.status == 503 && readiness.body.contains("the store fails"), "{readiness:?}");
        assert_eq!(node.metric("anode_store_up", &[]), 0.0);
        set_writable(node.pid(), true);
        eventually("the store works again", PATIENCE, || (count(&node, WORKS) == round).then_some(()));
        node.wait_ready();
        assert_eq!(node.metric("anode_store_up", &[]), 1.0);
        let again = store(&node, json!({"source": "late", "data": round, "ts": late["ts"]})).json();
        assert_eq!(again["outcome"], "duplicate", "{again}");
        assert_eq!((count(&node, FAILS), count(&node, WORKS)), (round, round), "{}", node.log());
    }
    for line in lines(&node.log()).iter().filter(|line| says(line, FAILS) || says(line, WORKS)) {
        let level = if says(line, FAILS) { "ERROR" } else { "INFO" };
        assert_eq!((&line["level"], &line["records"]), (&json!(level), &json!(1)), "{line}");
        assert_eq!(line["error"].is_string(), says(line, FAILS), "{line}");
    }
    // What was acknowledged as stored is there after a kill.
    node.kill9();
    node.restart();
    assert_eq!(node.latest("late").unwrap_or_default()["data"], 2);
}

#[test]
fn secrets_are_not_in_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let path = folder.path().join("cluster.key");
    std::fs::write(&path, key).expect("written");
    let flags = ["--log", "json", "--log-level", "debug", "--cluster-key", &path.display().to_string()];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    assert_eq!(line(&node, "a node starts")["has_cluster_key"], true);
    assert!(!node.log().contains(&key[..16]), "{}", node.log());
}

#[test]
fn the_level_follows_the_configuration_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("anode.toml");
    let write = |level: &str, more: &str| {
        let text = format!(
            "http = \"127.0.0.1:0\"\ngossip = \"127.0.0.1:0\"\nlog = \"json\"\nlog-level = \"{level}\"\n{more}"
        );
        std::fs::write(&path, text).expect("written");
    };
    write("info", "");
    let mut command = binary();
    command.args(["serve", "--store", "memory", "--config"]).arg(&path).current_dir(folder.path());
    let mut node = Background::start(&mut command);
    assert!(node.line(Duration::from_secs(30)).is_some_and(|line| line.starts_with("ready ")));
    let logged = |node: &Background, words: &str| {
        eventually(&format!("it logs {words}"), Duration::from_secs(20), || {
            lines(&node.stderr()).into_iter().find(|line| says(line, words))
        })
    };
    write("debug", "");
    node.signal("HUP");
    assert!(!logged(&node, "as SIGHUP asks for").is_null());
    assert_eq!(logged(&node, "the level of the log has changed")["to"], "debug");
    write("debug", "max-connections = 77\n");
    node.signal("HUP");
    assert_eq!(logged(&node, "next start only")["settings"], "max-connections");
    std::fs::write(&path, "log-levl = \"info\"\n").expect("written");
    node.signal("HUP");
    let refused = logged(&node, "the configuration file is refused");
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("log-level")), "{refused}");
    node.signal("TERM");
    assert_eq!(node.wait(Duration::from_secs(20)), Some(0));
}
