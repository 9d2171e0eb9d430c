//! Pull sources at a real Kafka, as `scripts/kafka start` runs it. Tests that need it are ignored otherwise, and
//! `scripts/test` runs them, or says that Kafka could not be had.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{binary, run};
use crate::harness::pulls::SOON;
use crate::harness::{Cluster, Node, NodeConfig, eventually};

const GUIDE: &str = include_str!("../../docs/extend/pull.md");
/// Kafka beside a compiler may take its time.
const LATE: Duration = Duration::from_secs(60);

/// A name of a topic that no other run has used.
fn topic(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), crate::harness::wall_us())
}

/// Publishes lines in a topic as Kafka's own producer does. A line is a key, a colon and a value; `NULL` is no value.
fn produce(topic: &str, codec: &str, lines: &str) {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(format!("{root}/scripts/kafka"));
    command.args(["produce", topic, "--compression-codec", codec, "--property", "parse.key=true"]);
    command.args(["--property", "key.separator=:", "--property", "null.marker=NULL"]);
    let mut producer = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("scripts/kafka");
    producer.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("taken");
    assert!(producer.wait().is_ok_and(|status| status.success()), "Kafka takes what is produced");
}

fn definition(topic: &str, more: &str) -> String {
    format!("kind = \"kafka\"\nbrokers = [\"127.0.0.1:9092\"]\ntopics = [\"{topic}\"]\n{more}")
}

fn numbers(key: &str, range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{key}:{n}\n")).collect()
}

fn wait_late(node: &Node, source: &str, data: &Value) -> Value {
    eventually(&format!("{source} is {data}; {}", node.get("/v1/pull").body), LATE, || {
        node.latest(source).filter(|record| record["data"] == *data)
    })
}

/// A node whose program knows no Kafka takes the definition all the same, for members that do.
#[test]
fn definitions_are_checked_and_members_without_kafka_leave_them_to_others() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let refused = node.try_put_pull("t", "kind = \"kafka\"\ntopics = [\"t\"]");
    refused.assert_problem(400, "bad_request");
    assert!(refused.body.contains("brokers: missing; allowed: a list of brokers"), "{}", refused.body);
    node.put_pull("t", &definition("t", "").replace("9092", "1"));
    if cfg!(feature = "kafka") {
        node.wait_pull_error("t", "127.0.0.1:1: ");
        return;
    }
    let why = "this program was built without Kafka (the feature kafka)";
    eventually("the node says why it does not run it", SOON, || {
        (node.pull("t")["cannot"]["a"] == why).then_some(())
    });
}

#[test]
#[ignore = "needs Kafka: scripts/test"]
fn kafka_messages_of_every_codec_become_records() {
    let topic = topic("codecs");
    produce(&topic, "none", "a:{\"v\":1.50}\nb:plain text\n");
    let node = Node::single();
    let rule = "records = [{ source = \"kafka/{key}\", pointer = \"\" }]";
    node.put_pull("orders", &definition(&topic, rule));
    wait_late(&node, "kafka/a", &json!({"v": 1.5}));
    assert!(node.get("/v1/sources/kafka/a").body.contains("1.50"), "data is passed on verbatim");
    wait_late(&node, "kafka/b", &json!("plain text"));
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        produce(
            &topic,
            codec,
            &format!("{codec}:{{\"codec\":\"{codec}\",\"long\":\"{}\"}}\n", "x".repeat(20_000)),
        );
        let long = "x".repeat(20_000);
        wait_late(&node, &format!("kafka/{codec}"), &json!({"codec": codec, "long": long}));
    }
    // A message without a value says that the key has none any longer.
    produce(&topic, "none", "a:NULL\nb:new\n");
    wait_late(&node, "kafka/b", &json!("new"));
    eventually("the deletion is published", LATE, || node.latest("kafka/a").is_none().then_some(()));
    // The state is told at most once a second. There are three partitions with eight messages.
    let state = eventually("all places are told", LATE, || {
        let state = node.pull("orders")["state"].clone();
        let places = state["places"]["topics"][&topic].as_object()?.clone();
        let read: i64 = places.values().filter_map(|place| place["next"].as_i64()).sum();
        ((places.len(), read) == (3, 8)).then_some(state)
    });
    assert_eq!((&state["error"], state["failed"].as_u64()), (&Value::Null, Some(0)), "{state}");
    // Without rules, the topic is the source.
    node.put_pull("plain", &definition(&topic, "from = \"end\""));
    eventually("it is connected", LATE, || node.pull("plain")["state"]["last_success"].as_u64().map(drop));
    produce(&topic, "none", "k:7\n");
    wait_late(&node, &topic, &json!(7));
}

#[test]
#[ignore = "needs Kafka: scripts/test"]
fn kafka_is_read_on_from_the_place_where_a_killed_runner_stopped() {
    let topic = topic("places");
    produce(&topic, "lz4", &numbers("k", 0..800));
    let mut node = Node::start(NodeConfig::named("a").with(&["--history", "1000"]));
    let slow = "max_records_per_s = 150\nrecords = [{ source = \"n/{key}\" }]";
    node.put_pull("numbers", &definition(&topic, slow));
    let at = |node: &Node| node.latest("n/k").and_then(|record| record["data"].as_u64());
    eventually("some are published", LATE, || at(&node).filter(|at| *at > 250));
    node.kill9();
    node.restart();
    eventually("it goes on", LATE, || at(&node).filter(|at| *at > 450));
    node.kill9();
    node.restart();
    wait_late(&node, "n/k", &json!(799));
    produce(&topic, "none", &numbers("k", 800..810));
    wait_late(&node, "n/k", &json!(809));
    let expected: Vec<Value> = (0..810).map(Value::from).collect();
    assert_eq!(node.history_of("n/k"), expected, "no message is lost, and none is published twice");
}

#[test]
#[ignore = "needs Kafka: scripts/test"]
fn kafka_is_read_on_by_another_member_when_the_runner_dies() {
    let topic = topic("moves");
    produce(&topic, "zstd", &numbers("k", 0..600));
    let mut cluster = Cluster::start_with(2, &["--history", "1000"]);
    let slow = "max_records_per_s = 100\nrecords = [{ source = \"m/{key}\" }]";
    cluster[0].put_pull("moves", &definition(&topic, slow));
    let at = |node: &Node| node.latest("m/k").and_then(|record| record["data"].as_u64());
    eventually("some are published", LATE, || at(&cluster[0]).filter(|at| *at > 250));
    let runner = cluster[0].pull("moves")["runner"].as_str().expect("a runner").to_owned();
    let dead = cluster.nodes.iter().position(|node| node.id == runner).expect("a node");
    let published =
        |node: &Node| -> Vec<u64> { node.history_of("m/k").iter().filter_map(Value::as_u64).collect() };
    // A record that comes to the other node after a newer one of its source is not in the history there, and is known here.
    let mut seen: BTreeSet<u64> = published(&cluster[dead]).into_iter().collect();
    cluster[dead].kill9();
    let other = &cluster[1 - dead];
    wait_late(other, "m/k", &json!(599));
    let history = published(other);
    seen.extend(&history);
    let lost: Vec<u64> = (0..600).filter(|number| !seen.contains(number)).collect();
    assert!(lost.is_empty(), "{lost:?} are lost: {}", other.pull("moves"));
    // What the dead runner had not told the others yet is published again, and nothing else.
    assert!(history.len() < 700, "{} records of 600 messages", history.len());
}

#[test]
#[ignore = "needs Kafka: scripts/test"]
fn kafka_over_tls_with_a_login_and_what_it_refuses() {
    let target = std::env::var("CARGO_TARGET_DIR")
        .unwrap_or_else(|_| format!("{}/target", env!("CARGO_MANIFEST_DIR")));
    let (ca, topic) = (format!("{target}/kafka/tls/ca.pem"), topic("secure"));
    produce(&topic, "none", "k:1\n");
    let node = Node::start(
        NodeConfig::named("a").with_variable("RIGHT", "kafka-secret").with_variable("WRONG", "x"),
    );
    let secure = |variable: &str, ca: &str| {
        let login = format!("tls = true\nusername = \"kafka\"\npassword = \"env:{variable}\"\n{ca}");
        definition(&topic, &login).replace("127.0.0.1:9092", "localhost:9094")
    };
    let ca = format!("ca = \"{ca}\"");
    let rule = "\nrecords = [{ source = \"secure/{key}\" }]";
    node.put_pull("right", &(secure("RIGHT", &ca) + rule));
    node.put_pull("wrong", &secure("WRONG", &ca));
    node.put_pull("unknown", &secure("RIGHT", ""));
    node.put_pull("open", &definition(&topic, "").replace("127.0.0.1:9092", "localhost:9094"));
    node.put_pull("nowhere", &definition("no-such-topic-here", ""));
    node.put_pull("plain", &definition(&topic, "username = \"u\"\npassword = \"env:RIGHT\""));
    wait_late(&node, "secure/k", &json!(1));
    node.wait_pull_error("wrong", "the broker refuses the login");
    node.wait_pull_error("unknown", "certificate");
    node.wait_pull_error("open", "localhost:9094: the broker closed the connection");
    node.wait_pull_error("nowhere", "topic no-such-topic-here: there is no such topic");
    node.wait_pull_error("plain", "the broker expects no login at this port");
    assert!(!node.log().contains("kafka-secret") && !node.get("/v1/pull").body.contains("kafka-secret"));
}

#[test]
#[ignore = "needs Kafka: scripts/test"]
fn kafka_of_the_guide_is_read_and_tried_out_at_a_node() {
    let topic = topic("orders");
    produce(&topic, "none", "7:{\"total\":21.5}\n");
    let recipe = GUIDE.split("```toml recipe=kafka\n").nth(1).and_then(|text| text.split("```").next());
    let recipe = recipe.expect("the recipe").replace("\"orders\"", &format!("\"{topic}\""));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.toml");
    std::fs::write(&path, &recipe).expect("written");
    let node = Node::single();
    let url = format!("http://{}", node.http);
    for place in [&[][..], &["--url", &url]] {
        let tried = run(binary().args(["pull", "test"]).arg(&path).args(place), "");
        assert_eq!(tried.code, Some(0), "{tried:?}");
        let told: Value = serde_json::from_str(&tried.stdout).expect("one record");
        assert_eq!((&told["source"], &told["data"]), (&json!("orders/7"), &json!({"total": 21.5})));
    }
    node.put_pull("orders", &recipe);
    wait_late(&node, "orders/7", &json!({"total": 21.5}));
}
