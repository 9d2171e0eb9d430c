//! Webhooks: what a receiver gets, how it is signed, and what becomes of it when nodes die.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::command::{binary, run};
use crate::harness::receiver::{Reaction, Received, Receiver};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually, rights};

pub const LONG: Duration = Duration::from_secs(40);

/// Puts a webhook by HTTP.
pub fn put_hook(node: &Node, name: &str, definition: Value) -> Http {
    let headers = [("Content-Type", "application/json")];
    Http::request(&node.http, "PUT", &format!("/v1/hook/{name}"), &headers, definition.to_string().as_bytes())
}

/// Puts a webhook that must be taken, and waits until it runs and has its first token.
pub fn start_hook(node: &Node, name: &str, definition: Value) {
    let answer = put_hook(node, name, definition);
    assert_eq!(answer.status, 200, "{}", answer.body);
    eventually("the webhook runs", LONG, || node.latest(&format!("$hook/{name}/token")));
}

/// The state of a webhook.
pub fn state(node: &Node, name: &str) -> Value {
    node.get(&format!("/v1/hook/{name}")).json()["state"].clone()
}

/// All records in the requests that were answered, in the order in which they came.
pub fn records(requests: &[Received]) -> Vec<Value> {
    let arrays = requests.iter().map(|request| match serde_json::from_slice::<Vec<Value>>(&request.body) {
        Ok(records) => records,
        Err(error) => panic!("no JSON array ({error}): {}", String::from_utf8_lossy(&request.body)),
    });
    arrays.flatten().collect()
}

/// The data of the records of one source, in the order in which they came.
pub fn values(requests: &[Received], source: &str) -> Vec<Value> {
    let all = records(requests);
    all.iter().filter(|record| record["source"] == source).map(|record| record["data"].clone()).collect()
}

#[test]
fn a_receiver_gets_signed_batches_of_what_changes() {
    let key = [7; 32];
    let secret = format!("whsec_{}", STANDARD.encode(key));
    let node = Node::start(NodeConfig::named("a").in_memory().with_env("HOOK_SECRET", &secret));
    let receiver = Receiver::start(|_| Reaction::status(204));
    node.put("s/before", json!(0));
    let url = format!("http://{}/in?x=1", receiver.addr);
    let output = run(
        binary().args(["--url", &format!("http://{}", node.http), "hook", "put", "mine"]).args([
            "--on",
            "s/**",
            "--on",
            "t",
            "--url",
            &url,
            "--secret",
            "env:HOOK_SECRET",
            "--header",
            "x-a=b",
        ]),
        "",
    );
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    eventually("it runs", LONG, || node.latest("$hook/mine/token"));
    for n in 0..50 {
        node.put("s/1", json!({"n": n}));
    }
    let headers = [("Content-Type", "application/json")];
    let frame = json!([{"source": "t", "data_b64": "AP8="}, {"source": "s/1", "deleted": true}, {"source": "u", "data": 1}]);
    Http::request(&node.http, "POST", "/v1/publish", &headers, frame.to_string().as_bytes());
    eventually("all came", LONG, || (records(&receiver.requests()).len() >= 52).then_some(()));
    let requests = receiver.requests();
    let all = records(&requests);
    assert_eq!(all.len(), 52, "each once, and nothing from before: {all:?}");
    let expected: Vec<Value> = (0..50).map(|n| json!({"n": n})).chain([Value::Null]).collect();
    assert_eq!(values(&requests, "s/1"), expected, "in order");
    let last = all.iter().rfind(|record| record["source"] == "s/1").expect("a deletion");
    assert_eq!((&last["deleted"], &last["origin"]), (&json!(true), &json!("a")));
    assert!(all.iter().any(|record| record["data_b64"] == "AP8="));
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/in?x=1"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("x-a"), Some("b"));
        let header = |name| request.header(name).expect(name).to_owned();
        let message =
            [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), &request.body]
                .concat();
        let signature = format!("v1,{}", STANDARD.encode(rights::hmac(&key, &message)));
        assert_eq!(header("webhook-signature"), signature);
        let age = crate::harness::wall_us() / 1_000_000
            - header("webhook-timestamp").parse::<u64>().expect("seconds");
        assert!(age < 60, "{age}");
    }
    let told =
        eventually("the state", LONG, || Some(state(&node, "mine")).filter(|state| state["records"] == 52));
    assert_eq!((&told["runner"], &told["error"], &told["dead"]), (&json!("a"), &Value::Null, &json!(false)));
    assert!(node.metric("anode_hook_records_total", &[]) >= 52.0);
    // Nobody is told the secret.
    for text in [node.get("/v1/hook").body, node.get("/v1/export?pattern=$hook/**").body, node.log()] {
        assert!(!text.contains("whsec_"), "{text}");
    }
    take_away(&node, &receiver);
}

/// Lists the webhook `mine` and takes it away: nothing of it is left, and nothing more is sent.
fn take_away(node: &Node, receiver: &Receiver) {
    let url = format!("http://{}", node.http);
    let listed = run(binary().args(["--url", &url, "hook", "list"]), "");
    assert!(listed.stdout.contains("mine") && listed.stdout.contains("RECORDS"), "{}", listed.stdout);
    let removed = run(binary().args(["--url", &url, "hook", "rm", "mine"]), "");
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    eventually("all of it is gone", LONG, || node.all_records("$hook/**").is_empty().then_some(()));
    let before = receiver.requests().len();
    node.put("s/1", json!("after"));
    let is_quiet = || receiver.requests().len() == before;
    throughout("nothing more is sent", Duration::from_millis(500), is_quiet);
}

#[test]
fn batches_keep_their_bounds_and_wait_for_others() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let receiver = Receiver::start(|_| Reaction::status(200));
    for n in 0..30 {
        node.put(&format!("s/{n}"), json!("x".repeat(300)));
    }
    let url = format!("http://{}/", receiver.addr);
    let definition = json!({
        "on": "s/*", "url": url, "batch_records": 7, "batch_bytes": 1500, "linger": "300ms", "snapshot": true,
    });
    start_hook(&node, "bounds", definition);
    eventually("the latest records came first", LONG, || {
        (records(&receiver.requests()).len() >= 30).then_some(())
    });
    for request in receiver.requests() {
        let count = records(std::slice::from_ref(&request)).len();
        assert!(count <= 7 && request.body.len() <= 1_500, "{count} records, {} bytes", request.body.len());
    }
    // What comes within the time for which records wait is sent together.
    let before = receiver.requests().len();
    let frame: Vec<Value> = (0..3).map(|n| json!({"source": format!("s/{n}"), "data": n})).collect();
    node.post(Value::from(frame));
    eventually("three more", LONG, || (records(&receiver.requests()).len() >= 33).then_some(()));
    assert_eq!(receiver.requests().len(), before + 1);
    // A record that is larger than a batch goes alone.
    node.put("s/large", json!("y".repeat(5_000)));
    let large = || receiver.requests().iter().any(|request| request.body.len() > 5_000);
    eventually("the large one", LONG, || large().then_some(()));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let fine = json!({"on": "a", "url": "http://127.0.0.1:1/"});
    for (field, value) in [
        ("on", json!("a//b")),
        ("url", json!("ftp://x/")),
        ("secret", json!("whsec_plain")),
        ("batch_records", json!(0)),
        ("batch_bytes", json!(1_u64 << 40)),
        ("timeout", json!("1y")),
        ("colour", json!("red")),
    ] {
        let mut definition = fine.clone();
        definition[field] = value;
        let answer = put_hook(&node, "x", definition);
        answer.assert_problem(400, "bad_request");
        assert!(answer.body.contains(field) && answer.body.contains("allowed"), "{}", answer.body);
    }
    assert_eq!(node.get("/v1/hook").json()["hook"], json!([]));
    // A node without the secret says so, and does not run it.
    let mut definition = fine;
    definition["secret"] = json!("env:NO_SUCH_SECRET");
    assert_eq!(put_hook(&node, "x", definition).status, 200);
    let why = eventually("why nobody runs it", LONG, || {
        let told = node.get("/v1/hook/x").json();
        told["cannot"]["a"].as_str().map(str::to_owned)
    });
    assert!(why.contains("NO_SUCH_SECRET"), "{why}");
}

/// `hook put --url` names the receiver. The other commands for webhooks took no `--url` behind them, as all others do.
#[test]
fn the_node_is_named_behind_the_other_commands() {
    let (node, other) =
        (Node::start(NodeConfig::named("a").in_memory()), Node::start(NodeConfig::named("b").in_memory()));
    let (url, elsewhere) = (format!("http://{}", node.http), format!("http://{}", other.http));
    let told = |args: &[&str]| {
        let output = run(binary().args(args), "");
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.stdout
    };
    let receiver = "http://127.0.0.1:9/in";
    told(&["hook", "--url", &url, "put", "one", "--on", "a/**", "--url", receiver, "--json"]);
    let listed = crate::harness::json(&told(&["hook", "list", "--url", &url, "--json"]));
    assert_eq!(listed["hook"][0]["definition"]["url"], receiver, "{listed}");
    // What stands behind the command goes before what stands in front of it.
    let listed = told(&["--url", &elsewhere, "hook", "list", "--url", &url]);
    assert!(listed.contains("one") && listed.contains(receiver), "{listed}");
    told(&["hook", "rm", "one", "--url", &url]);
    assert_eq!(crate::harness::json(&told(&["hook", "list", "--json", "--url", &url]))["hook"], json!([]));
}

/// The runner dies, and another node goes on from the token. While the receiver did not answer, nothing is lost.
#[test]
fn another_node_goes_on_when_the_runner_dies() {
    let cluster = Cluster::configured(2, |config| config);
    let is_up = Arc::new(AtomicBool::new(true));
    let up = is_up.clone();
    let receiver = Receiver::start(move |_| match up.load(Ordering::Relaxed) {
        true => Reaction::status(200),
        false => Reaction::status(500),
    });
    let Cluster { mut nodes, .. } = cluster;
    let definition = json!({"on": "s/**", "url": format!("http://{}/", receiver.addr)});
    start_hook(&nodes[0], "h", definition);
    let runner = eventually("a runner", LONG, || state(&nodes[0], "h")["runner"].as_str().map(str::to_owned));
    let at = nodes.iter().position(|node| node.id == runner).expect("a node");
    let mut dies = nodes.swap_remove(at);
    let lives = &nodes[0];
    for n in 0..20 {
        lives.put(&format!("s/{n}"), json!("first"));
    }
    eventually("twenty came", LONG, || (records(&receiver.requests()).len() >= 20).then_some(()));
    is_up.store(false, Ordering::Relaxed);
    let mut stamps = Vec::new();
    for n in 20..40 {
        stamps.push((format!("s/{n}"), lives.put(&format!("s/{n}"), json!("second"))));
    }
    for (source, ts) in &stamps {
        dies.wait_ts(source, *ts);
    }
    dies.kill9();
    is_up.store(true, Ordering::Relaxed);
    for n in 40..60 {
        lives.put(&format!("s/{n}"), json!("third"));
    }
    let seen = Mutex::new(0);
    eventually("all sixty were taken", Duration::from_secs(60), || {
        let requests = receiver.requests();
        let count = (0..60).filter(|n| !values(&requests, &format!("s/{n}")).is_empty()).count();
        if let Ok(mut seen) = seen.lock() {
            *seen = count;
        }
        (count == 60).then_some(())
    });
    assert_eq!(state(lives, "h")["runner"], json!(lives.id));
    drop(dies);
}
