//! What all four kinds of things that users add have in common: the same requests with the same rights, over HTTP, GraphQL
//! and as records, and definitions that all nodes keep.

use serde_json::{Value, json};

use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually};

/// The kinds, each with a definition that reaches nobody.
fn definitions() -> [(&'static str, Value); 4] {
    [
        (
            "pull",
            json!({"kind": "http", "every": "1h", "url": "http://127.0.0.1:9/", "records": [{"source": "x", "pointer": ""}]}),
        ),
        ("middleware", json!({"on": "none/*", "cel": "data"})),
        ("archive", json!({"kind": "ipfs", "api": "http://127.0.0.1:9", "every": "1h", "pattern": "none/*"})),
        ("hook", json!({"on": "none/*", "url": "http://127.0.0.1:9/"})),
    ]
}

fn guarded() -> (Node, RightsFile) {
    let entries = [
        token_entry("ops", "o", "admin = true"),
        token_entry("watch", "w", "observe = true"),
        token_entry("all", "a", "subscribe = [\"**\"]\npublish = [\"**\"]"),
    ];
    let rights = RightsFile::new(&entries.concat());
    (
        Node::start(NodeConfig { flags: vec!["--auth".into(), rights.path()], ..NodeConfig::named("a") }),
        rights,
    )
}

fn ask(node: &Node, token: &str, method: &str, path: &str, body: &str) -> Http {
    let fields = [("Content-Type", "application/json"), ("Authorization", &bearer(token))];
    Http::request(&node.http, method, path, &fields, body.as_bytes())
}

/// Whatever can be asked of a definition, those who may `admin` may ask it, those who may `observe` may look, and nobody
/// else may do either, whatever patterns they have.
#[test]
fn admins_change_and_observers_read_definitions_of_every_kind() {
    let (node, _rights) = guarded();
    for (kind, definition) in definitions() {
        let (all, one) = (format!("/v1/{kind}"), format!("/v1/{kind}/mine"));
        let body = definition.to_string();
        for (token, status) in [("w", 403), ("a", 403), ("o", 200)] {
            assert_eq!(ask(&node, token, "PUT", &one, &body).status, status, "{token} {kind}");
        }
        for path in [&all, &one] {
            for (token, status) in [("w", 200), ("a", 403), ("o", 200)] {
                assert_eq!(ask(&node, token, "GET", path, "").status, status, "{token} {path}");
            }
        }
        Http::request(&node.http, "GET", &all, &[], b"").assert_problem(401, "unauthorized");
        let listed = ask(&node, "w", "GET", &all, "").json()[kind][0].clone();
        assert_eq!(listed["name"], "mine", "{kind}: {listed}");
        for (field, value) in definition.as_object().expect("an object") {
            assert_eq!(&listed["definition"][field], value, "{kind}: {listed}");
        }
        // The record of the system's name is for the same people, and no pattern lets a client publish it.
        let record = format!("/v1/sources/${kind}/mine");
        for (token, status) in [("w", 200), ("a", 403), ("o", 200)] {
            assert_eq!(ask(&node, token, "GET", &record, "").status, status, "{token} {record}");
        }
        let draft = json!({"source": format!("${kind}/other"), "data": definition}).to_string();
        ask(&node, "a", "POST", "/v1/publish", &draft).assert_problem(403, "forbidden");
        graphql_shows(&node, kind, &definition);
        for (token, status) in [("w", 403), ("a", 403), ("o", 200)] {
            assert_eq!(ask(&node, token, "DELETE", &one, "").status, status, "{token} {kind}");
        }
        ask(&node, "o", "GET", &one, "").assert_problem(404, "not_found");
        ask(&node, "o", "POST", &one, "").assert_problem(405, "method_not_allowed");
    }
}

fn graphql_shows(node: &Node, kind: &str, definition: &Value) {
    let query = format!("{{ extensions(kind: {}) {{ name runner definition state }} }}", kind.to_uppercase());
    let query = json!({"query": query}).to_string();
    let told = ask(node, "w", "POST", "/graphql", &query).json()["data"]["extensions"][0].clone();
    assert_eq!(told["name"], "mine", "{kind}: {told}");
    let (field, value) = definition.as_object().and_then(|map| map.iter().next()).expect("a field");
    assert_eq!(&told["definition"][field], value, "{told}");
    let refused = ask(node, "a", "POST", "/graphql", &query).json();
    assert_eq!(refused["errors"][0]["extensions"]["code"], "forbidden", "{refused}");
}

/// Paths beneath a definition are for those who may `admin`, but for the list of archives.
#[test]
fn what_can_be_asked_beneath_a_definition_is_for_admins() {
    let (node, _rights) = guarded();
    for (path, method) in [
        ("/v1/middleware/mine/rollback", "POST"),
        ("/v1/middleware/mine/test", "POST"),
        ("/v1/archive/mine/verify", "POST"),
        ("/v1/archive/mine/restore", "POST"),
    ] {
        for token in ["w", "a"] {
            ask(&node, token, method, path, "{}").assert_problem(403, "forbidden");
        }
        ask(&node, "o", method, path, "{}").assert_problem(404, "not_found");
    }
    for (token, status) in [("w", 404), ("o", 404), ("a", 403)] {
        assert_eq!(ask(&node, token, "GET", "/v1/archive/mine/archives", "").status, status, "{token}");
    }
}

/// The answer 405 has to name the methods that there are. Those to requests beneath a definition did not.
#[test]
fn a_method_that_is_unknown_beneath_a_kind_is_answered_with_those_that_are_known() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    for kind in ["pull", "middleware", "archive", "hook"] {
        for method in ["GET", "PUT", "DELETE", "POST", "PATCH"] {
            for rest in
                ["", "/x", "/x/rollback", "/x/test", "/x/verify", "/x/restore", "/x/archives", "/test"]
            {
                let path = format!("/v1/{kind}{rest}");
                let fields = [("Content-Type", "application/json")];
                let answer = Http::request(&node.http, method, &path, &fields, b"{}");
                let allow = answer.header("allow");
                assert_eq!(answer.status == 405, allow.is_some(), "{method} {path}: {answer:?}");
                assert!(
                    !allow.is_some_and(|known| known.split(',').any(|one| one == method)),
                    "{method} {path}"
                );
            }
        }
    }
}

/// The last of two fields of the same name counted, without a word. In TOML, and in a publish, they are refused.
#[test]
fn a_definition_with_a_field_twice_is_refused() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    for (kind, definition) in definitions() {
        let text = definition.to_string();
        let (first, rest) = text.split_once(',').expect("more than one field");
        for body in
            [format!("{first},{},{rest}", &first[1..]), text.replacen('{', "{\"zz\":{\"a\":1,\"a\":2},", 1)]
        {
            let fields = [("Content-Type", "application/json")];
            let answer =
                Http::request(&node.http, "PUT", &format!("/v1/{kind}/mine"), &fields, body.as_bytes());
            answer.assert_problem(400, "bad_request");
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.contains(" is there twice at line 1 column "), "{kind}: {detail}");
        }
    }
}

/// The variables of aNode itself may hold secrets of the node. A pull source could not name them, but a webhook and an archive
/// could, and so whoever may put definitions could have them sent to an address of their choice.
#[test]
fn no_definition_names_a_variable_of_the_node_itself() {
    let node = Node::start(NodeConfig::named("a"));
    let s3 = json!({"kind": "s3", "bucket": "backup", "endpoint": "http://127.0.0.1:9"});
    let ipfs = json!({"kind": "ipfs", "api": "http://127.0.0.1:9"});
    let pull = definitions()[0].1.clone();
    let hook = definitions()[3].1.clone();
    for (kind, definition, field) in [
        ("pull", &pull, "headers"),
        ("hook", &hook, "headers"),
        ("hook", &hook, "secret"),
        ("archive", &s3, "access_key_id"),
        ("archive", &s3, "secret_access_key"),
        ("archive", &s3, "session_token"),
        ("archive", &ipfs, "authorization"),
    ] {
        for variable in ["env:ANODE_TOKEN", "env:anode_token"] {
            let mut definition = definition.clone();
            definition[field] = if field == "headers" { json!({"X-Key": variable}) } else { json!(variable) };
            let fields = [("Content-Type", "application/json")];
            let body = definition.to_string();
            let answer =
                Http::request(&node.http, "PUT", &format!("/v1/{kind}/mine"), &fields, body.as_bytes());
            answer.assert_problem(400, "bad_request");
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.starts_with(field), "{kind} {field}: {detail}");
        }
    }
}

/// Definitions are records as all others: every node has them, those that were put while a node was away come when it
/// returns, and they are there after all nodes were killed.
#[test]
fn definitions_of_every_kind_are_spread_stored_and_healed() {
    let mut cluster = Cluster::start(2);
    let put = |node: &Node, kind: &str, name: &str, definition: &Value| {
        let fields = [("Content-Type", "application/json")];
        let path = format!("/v1/{kind}/{name}");
        let answer = Http::request(&node.http, "PUT", &path, &fields, definition.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{kind}: {answer:?}");
    };
    for (kind, definition) in definitions() {
        put(&cluster[0], kind, "early", &definition);
    }
    cluster.nodes[1].kill9();
    for (kind, definition) in definitions() {
        put(&cluster[0], kind, "late", &definition);
    }
    cluster.nodes[1].restart();
    let has_all = |node: &Node| {
        let names = |kind: &str| -> Vec<Value> {
            let listed = node.get(&format!("/v1/{kind}")).json()[kind].clone();
            listed.as_array().into_iter().flatten().map(|one| one["name"].clone()).collect()
        };
        definitions().iter().all(|(kind, _)| names(kind) == [json!("early"), json!("late")])
    };
    eventually("the node that was away has all", PATIENCE, || has_all(&cluster[1]).then_some(()));
    cluster.nodes.iter_mut().for_each(Node::kill9);
    cluster.nodes.iter_mut().for_each(Node::restart_unready);
    for node in &cluster.nodes {
        node.wait_ready();
        eventually("they are there after a restart of all", PATIENCE, || has_all(node).then_some(()));
    }
}
