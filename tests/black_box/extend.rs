//! What users add to a cluster, whatever its kind: definitions are records that every node has, survive restarts, and are
//! for admins to change and for observers to see.

use serde_json::{Value, json};

use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually};

/// A definition that runs wherever it is: it fetches once an hour, from nobody.
fn definition() -> Value {
    json!({"kind": "http", "every": "1h", "url": "http://127.0.0.1:9/", "records": [{"source": "x", "pointer": ""}]})
}

fn put(node: &Node, path: &str, body: &Value) -> Http {
    let fields = [("Content-Type", "application/json")];
    Http::request(&node.http, "PUT", path, &fields, body.to_string().as_bytes())
}

#[test]
fn definitions_are_put_listed_and_taken_away_at_any_node() {
    let cluster = Cluster::start(2);
    let answer = put(&cluster[0], "/v1/pull/room", &definition());
    assert_eq!((answer.status, &answer.json()["name"]), (200, &json!("room")), "{answer:?}");
    let ts = answer.json()["ts"].as_u64().expect("a timestamp");
    let listed = eventually("the other node lists it with its runner", PATIENCE, || {
        let listed = cluster[1].get("/v1/pull").json();
        listed["pull"][0]["runner"].is_string().then_some(listed)
    });
    let one = &listed["pull"][0];
    assert_eq!((&one["name"], &one["ts"], &one["definition"]), (&json!("room"), &json!(ts), &definition()));
    let runner = one["runner"].as_str().expect("a runner");
    assert!([&cluster[0].id, &cluster[1].id].iter().any(|id| *id == runner), "{one}");
    let state = eventually("the runner tells its state", PATIENCE, || {
        let one = cluster[0].get("/v1/pull/room").json();
        one["state"].is_object().then(|| one["state"].clone())
    });
    assert_eq!((&state["runner"], state["since"].is_u64()), (&json!(runner), true), "{state}");
    assert_eq!(cluster[1].latest("$pull/room").expect("the record")["data"], definition());
    let answer = Http::request(&cluster[1].http, "DELETE", "/v1/pull/room", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    for node in [&cluster[0], &cluster[1]] {
        eventually("it is gone", PATIENCE, || {
            let is_gone = node.get("/v1/pull").json() == json!({"pull": []});
            (is_gone && node.latest("$pull/room/state").is_none()).then_some(())
        });
    }
    Http::request(&cluster[0].http, "DELETE", "/v1/pull/room", &[], b"").assert_problem(404, "not_found");
    cluster[0].get("/v1/pull/room").assert_problem(404, "not_found");
}

#[test]
fn definitions_survive_the_restart_of_all_nodes() {
    let mut node = Node::single();
    assert_eq!(put(&node, "/v1/pull/room", &definition()).status, 200);
    node.kill9();
    node.restart();
    assert_eq!(node.get("/v1/pull/room").json()["definition"], definition());
    eventually("it runs again", PATIENCE, || {
        (node.get("/v1/pull/room").json()["runner"] == node.id.as_str()).then_some(())
    });
}

#[test]
fn what_cannot_be_a_definition_is_refused_with_the_reason() {
    let node = Node::single();
    let with = |kind: &str, body: &[u8]| {
        Http::request(&node.http, "PUT", "/v1/pull/room", &[("Content-Type", kind)], body)
    };
    let toml = b"kind = \"http\"\nevery = 5s\n";
    with("application/toml", toml).assert_problem(400, "bad_request");
    let detail = with("application/toml", toml).json()["detail"].as_str().expect("a reason").to_owned();
    assert!(detail.contains("line 2, column"), "{detail}");
    with("application/json", b"{").assert_problem(400, "bad_json");
    with("application/json", b"[1]").assert_problem(400, "bad_request");
    with("text/plain", b"x").assert_problem(400, "bad_request");
    with("application/json", "x".repeat(70_000).as_bytes()).assert_problem(413, "too_large");
    for name in ["a%2Fb", "%C3%A4", ".", "a%20b", ""] {
        put(&node, &format!("/v1/pull/{name}"), &definition()).assert_problem(400, "bad_request");
    }
    put(&node, "/v1/pull/room?x=1", &definition()).assert_problem(400, "bad_request");
    assert_eq!(node.get("/v1/pull").json(), json!({"pull": []}));
}

#[test]
fn admins_change_definitions_and_observers_read_them() {
    let entries = [
        token_entry("ops", "o", "admin = true"),
        token_entry("watch", "w", "observe = true"),
        token_entry("reader", "r", "subscribe = [\"**\"]"),
    ];
    let rights = RightsFile::new(&entries.concat());
    let node =
        Node::start(NodeConfig { flags: vec!["--auth".into(), rights.path()], ..NodeConfig::named("a") });
    let ask = |token: &str, method: &str, path: &str, body: &str| {
        let fields = [("Content-Type", "application/json"), ("Authorization", &bearer(token))];
        Http::request(&node.http, method, path, &fields, body.as_bytes())
    };
    let body = definition().to_string();
    for (token, status) in [("w", 403), ("r", 403), ("o", 200)] {
        assert_eq!(ask(token, "PUT", "/v1/pull/room", &body).status, status, "{token}");
    }
    for path in ["/v1/pull", "/v1/pull/room"] {
        for (token, status) in [("w", 200), ("r", 403), ("o", 200)] {
            assert_eq!(ask(token, "GET", path, "").status, status, "{token} {path}");
        }
    }
    // The records themselves are there for the same.
    for (token, status) in [("w", 200), ("r", 403), ("o", 200)] {
        assert_eq!(ask(token, "GET", "/v1/sources/$pull/room", "").status, status, "{token}");
    }
    assert_eq!(
        ask("w", "GET", "/v1/sources?pattern=$pull/*", "").json()["records"][0]["source"],
        "$pull/room"
    );
    assert_eq!(ask("w", "GET", "/v1/sources/other", "").status, 403);
    let query = json!({"query": "{ extensions(kind: PULL) { name runner definition } }"}).to_string();
    let answer = ask("w", "POST", "/graphql", &query).json();
    assert_eq!(answer["data"]["extensions"][0]["definition"], definition(), "{answer}");
    let answer = ask("r", "POST", "/graphql", &query).json();
    assert_eq!(answer["errors"][0]["extensions"]["code"], "forbidden", "{answer}");
    for (token, status) in [("w", 403), ("o", 200)] {
        assert_eq!(ask(token, "DELETE", "/v1/pull/room", "").status, status, "{token}");
    }
}
