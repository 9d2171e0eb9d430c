//! The lines in the pages on archives, filters, pull sources, webhooks and middlewares: they are run as a reader would copy
//! them, at a node and a server of the test.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::block_of;
use super::reference::assert_alike;
use super::terminal::run_in;
use crate::archives;
use crate::harness::bucket::Bucket;
use crate::harness::origin::{Origin, answer_json};
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::{Http, Node, NodeConfig, eventually, json as parse};
use crate::hooks;

/// Longest wait for what a definition does.
const LONG: Duration = Duration::from_secs(40);

const ARCHIVES: &str = "docs/extend/archives.md";
const FILTERS: &str = "docs/extend/filters.md";
const PULL: &str = "docs/extend/pull.md";
const WEBHOOKS: &str = "docs/extend/webhooks.md";
const MIDDLEWARES: &str = "docs/extend/middlewares.md";

#[test]
fn the_first_archive_is_put_listed_verified_and_restored() {
    let bucket = Bucket::start();
    let node = Node::start(archives::config("a"));
    node.put("sensors/1", json!(1));
    let folder = tempfile::tempdir().expect("a folder");
    let definition = block_of(ARCHIVES, "kind = \"s3\"")
        .replace("https://s3.example.org", &bucket.endpoint())
        .replace("\"backup\"", "\"archives\"");
    std::fs::write(folder.path().join("hourly.toml"), definition).expect("written");
    let lines = block_of(ARCHIVES, "anode archive put hourly");
    let (put, others) = lines.split_once('\n').expect("several lines");
    run_in(folder.path(), put, &node.http);
    let archive = archives::wait_listed(&node, "hourly", 1).remove(0);
    let told = run_in(folder.path(), others, &node.http);
    assert!(told.contains(archive["id"].as_str().expect("an id")), "{told}");
    eventually("the definition is gone", LONG, || node.all_records("$archive/**").is_empty().then_some(()));
    assert!(bucket.names().iter().any(|name| name.starts_with("plant-7/hourly/")), "{:?}", bucket.names());
}

/// Nobody listens at the address of the definition, which is one of this machine. That it works with Kubo is tested by
/// `scripts/archives-test`.
#[test]
fn the_archive_on_ipfs_is_one_that_a_node_takes() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let text = block_of(ARCHIVES, "kind = \"ipfs\"").replace(":5001", ":9");
    archives::put_archive(&node, "copy", &text);
    let definition = node.get("/v1/archive/copy").json()["definition"].clone();
    assert_eq!(definition, json!({"kind": "ipfs", "api": "http://127.0.0.1:9"}));
}

/// Nobody listens at the addresses, which are of this machine. That it works with Tableland is tested by `scripts/tableland-test`.
#[test]
fn the_archive_on_tableland_is_one_that_a_node_takes() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let text = block_of(ARCHIVES, "kind = \"tableland\"")
        .replace("https://tableland.network", "http://127.0.0.1:9")
        .replace(":8545", ":9");
    archives::put_archive(&node, "copy", &text);
    let definition = node.get("/v1/archive/copy").json()["definition"].clone();
    assert_eq!(
        (&definition["table"], &definition["rpc"]),
        (&json!("anode_8453_12"), &json!("http://127.0.0.1:9"))
    );
}

#[test]
fn the_first_filter_leaves_out_what_it_says() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put("sensors/1", json!({"c": 30.0, "room": "lab"}));
    node.put("sensors/2", json!({"c": 20.0, "room": "hall"}));
    node.put("sensors/3", json!({"c": 30.0, "room": "hall"}));
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!("{} --count 1", block_of(FILTERS, "anode sub").trim());
    let told = run_in(folder.path(), &line, &node.http);
    assert_eq!(parse(told.trim())["source"], "sensors/3", "{told}");
}

#[test]
fn the_first_pull_source_is_tried_put_listed_and_removed() {
    let answer = block_of(PULL, "[ {\"city\": \"oslo\"");
    let origin = Origin::start(move |_, stream| answer_json(stream, &answer));
    let node = Node::start(NodeConfig::named("a").in_memory());
    let folder = tempfile::tempdir().expect("a folder");
    let definition = block_of(PULL, "kind = \"http\"").replace("http://127.0.0.1:8080", &origin.url(""));
    std::fs::write(folder.path().join("weather.toml"), definition).expect("written");
    let told = run_in(folder.path(), &block_of(PULL, "anode pull test"), &node.http);
    assert!(told.contains("weather/oslo") && told.contains("weather/rome"), "{told}");
    eventually("the definition is gone", LONG, || {
        (node.get("/v1/pull").json() == json!({"pull": []})).then_some(())
    });
}

#[test]
fn the_first_webhook_sends_what_the_page_shows() {
    let secret = format!("whsec_{}", STANDARD.encode([7_u8; 32]));
    let node = Node::start(NodeConfig::named("a").in_memory().with_env("ALARM_SECRET", &secret));
    let receiver = Receiver::start(|_| Reaction::status(204));
    node.put("alarms/3", json!({"text": "cold"}));
    let folder = tempfile::tempdir().expect("a folder");
    let lines = block_of(WEBHOOKS, "anode --url")
        .replace("http://127.0.0.1:7070", &format!("http://{}", node.http))
        .replace("https://example.org", &format!("http://{}", receiver.addr));
    let (put, others) = lines.split_once('\n').expect("several lines");
    run_in(folder.path(), put, &node.http);
    eventually("the webhook runs", LONG, || node.latest("$hook/alarms/token"));
    node.put("alarms/7", json!({"text": "hot"}));
    Http::request(&node.http, "DELETE", "/v1/sources/alarms/3", &[], b"");
    eventually("both came", LONG, || (hooks::records(&receiver.requests()).len() >= 2).then_some(()));
    let requests = receiver.requests();
    let block = block_of(WEBHOOKS, "POST /in");
    let (head, body) = block.split_once("\n\n").expect("a head and a body");
    for request in &requests {
        assert_eq!(head.lines().next(), Some(&*format!("{} {} HTTP/1.1", request.method, request.path)));
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            let told = request.header(name).expect(name);
            // What stands before a comma or an underscore is the same for every request.
            let kind = value.split_inclusive([',', '_']).next().unwrap_or(value);
            assert!(told.starts_with(kind) || name == "webhook-timestamp", "{name}: {told}");
        }
    }
    let Value::Array(shown) = parse(body) else { panic!("no array: {body}") };
    let records = hooks::records(&requests);
    for shown in &shown {
        let told = records.iter().find(|record| record["source"] == shown["source"]).expect("the source");
        assert_alike(told, shown);
        assert_eq!((&told["data"], &told["deleted"]), (&shown["data"], &shown["deleted"]));
    }
    let told = run_in(folder.path(), others, &node.http);
    assert!(told.contains("alarms"), "{told}");
    eventually("the webhook is gone", LONG, || node.all_records("$hook/**").is_empty().then_some(()));
}

#[test]
fn the_first_middleware_is_put_tried_and_rolled_back() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let folder = tempfile::tempdir().expect("a folder");
    run_in(folder.path(), &block_of(MIDDLEWARES, "anode middleware put celsius"), &node.http);
    let held = |record: Value| {
        node.post(record.clone());
        node.latest(record["source"].as_str().unwrap_or_default()).map(|held| held["data"].clone())
    };
    let is_in_celsius =
        || held(json!({"source": "sensors/2", "data": {"f": 212}})) == Some(json!({"c": 100.0}));
    eventually("it is in force", LONG, || is_in_celsius().then_some(()));
    let trial = block_of(MIDDLEWARES, "$ echo");
    let (line, shown) = trial.split_once('\n').expect("a line and its output");
    let told = run_in(folder.path(), line.trim_start_matches("$ "), &node.http);
    assert_eq!(parse(told.trim()), parse(shown.trim()));
    run_in(folder.path(), "anode middleware put celsius --on 'sensors/**' --cel '0'", &node.http);
    eventually("the other version is in force", LONG, || {
        (held(json!({"source": "sensors/2", "data": {"f": 212}})) == Some(json!(0))).then_some(())
    });
    run_in(folder.path(), &block_of(MIDDLEWARES, "anode middleware rollback"), &node.http);
    eventually("the version before is in force", LONG, || is_in_celsius().then_some(()));
}
