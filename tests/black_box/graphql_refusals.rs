//! GraphQL over HTTP: what is no request, what is beyond the bounds, and who may not.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::assert_described;
use crate::graphql::{data, error, post, text};
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::ws::{Handshake, shake_with};
use crate::harness::{Deadline, Http, Node, NodeConfig};

#[test]
fn what_is_no_request_is_refused_by_name() {
    let node = Node::single();
    let raw = |body: &str| {
        let answer = Http::post(&node.http, "/graphql", body);
        assert_described(&node, ("post", "/graphql"), &answer);
        answer
    };
    raw("{").assert_problem(400, "bad_json");
    raw("").assert_problem(400, "bad_json");
    raw("7").assert_problem(400, "bad_request");
    raw("{\"query\":7}").assert_problem(400, "bad_request");
    raw("[{\"query\":\"{ node { id } }\"}]").assert_problem(400, "bad_request");
    raw(&format!("{{\"query\":\"{}\"}}", "x".repeat(1_100_000))).assert_problem(413, "too_large");
    for query in [
        "",
        "{",
        "{ nothing }",
        "{ node }",
        "{ node { nothing } }",
        "subscription { records(patterns: [\"a\"]) { __typename } }",
    ] {
        assert_eq!(error(&node, query, Value::Null).0, "bad_request", "{query}");
    }
    // Who asks for the newer media type sees it by the status, too.
    let fields = [("Accept", "application/graphql-response+json")];
    let answer = post(&node.http, &fields, &json!({"query": "{ nothing }"}));
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (400, Some("application/graphql-response+json"))
    );
    let answer = post(&node.http, &fields, &json!({"query": "{ node { id } }"}));
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/graphql-response+json"))
    );
}

#[test]
fn requests_are_bounded() {
    let node = Node::single();
    let record = "record(source: \"a\") { history { nodes { ";
    let deep = |pairs: usize| format!("{{ {}ts{} }}", record.repeat(pairs), " } } }".repeat(pairs));
    let (code, message) = error(&node, &deep(4), Value::Null);
    assert_eq!((code.as_str(), message.contains("deep")), ("bad_request", true), "{message}");
    // The bound is 10: that many are answered, and one more is refused.
    let below = |last: &str| {
        let history = "history(first: 1) { nodes { ";
        format!(
            "{{ record(source: \"a\") {{ {} history(first: 1) {{ {last} }} }} }} }} }} }} }} }} }}",
            history.repeat(3)
        )
    };
    assert_eq!(data(&node, &below("nodes { ts }"), Value::Null), json!({"record": null}));
    let (code, message) = error(&node, &below("edges { node { ts } }"), Value::Null);
    assert_eq!((code.as_str(), message.contains("deep")), ("bad_request", true), "{message}");
    let (code, message) = error(
        &node,
        "{ records(first: 10000) { nodes { history(first: 10000) { nodes { ts } } } } }",
        Value::Null,
    );
    assert_eq!((code.as_str(), message.contains("complex")), ("bad_request", true), "{message}");
    let bomb: String =
        (0..30).map(|n| format!(" fragment F{n} on Query {{ ...F{m} ...F{m} }}", m = n + 1)).collect();
    let deadline = Deadline::after(Duration::from_secs(10));
    for query in [
        format!("{{ ...F0 }}{bomb} fragment F30 on Query {{ node {{ id }} }}"),
        "{ ...A } fragment A on Query { ...A }".to_owned(),
        format!("{{ a(b: {} ) }}", "[".repeat(60_000)),
        format!("{{ {} }}", "a ".repeat(30_000)),
        format!("{{ node {{ id {} }} }}", "@skip(if: false) ".repeat(1_000)),
        "#".repeat(70_000),
    ] {
        let (code, _) = error(&node, &query, Value::Null);
        assert!(matches!(code.as_str(), "bad_request" | "too_large"), "{code}: {query:.60}");
    }
    assert!(deadline.left().is_some(), "{:?}", deadline.elapsed());
    assert_eq!(data(&node, "{ node { id } }", Value::Null), json!({"node": {"id": "a"}}));
    // What tools send to learn the schema is let through.
    let schema = "{ __schema { types { fields { args { type { ofType { ofType { ofType { ofType { ofType { name } } } } } } } } } } }";
    assert!(data(&node, schema, Value::Null)["__schema"]["types"].is_array());
}

const SENSORS: &str = "sensors-secret";
const READER: &str = "reader-secret";
const WATCHER: &str = "watcher-secret";

#[test]
fn each_field_is_for_those_who_have_its_right() {
    let rights = [
        token_entry("sensors", SENSORS, "publish = [\"sensors/**\"]\nrate = 3"),
        token_entry("reader", READER, "subscribe = [\"public/**\"]"),
        token_entry("watcher", WATCHER, "observe = true"),
        token_entry("ops", "ops-secret", "admin = true"),
    ];
    let file = RightsFile::new(&rights.concat());
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
    let ask = |token: &str, query: &str| {
        post(&node.http, &[("Authorization", &bearer(token))], &json!({"query": query}))
    };
    let seed = "mutation { publish(records: [{source: \"public/1\", data: 1}, {source: \"secret/1\", data: 1}]) { outcome } }";
    assert_eq!(ask("ops-secret", seed).json()["data"]["publish"][1]["outcome"], "APPLIED");
    for answer in [node.get("/graphql?query=%7Bnode%7Bid%7D%7D"), ask("wrong", "{ node { id } }")] {
        answer.assert_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let code = |token: &str, query: &str| text(&ask(token, query).json()["errors"][0]["extensions"]["code"]);
    let all = "{ records { nodes { source } } }";
    assert_eq!(ask(READER, all).json()["data"]["records"]["nodes"], json!([{"source": "public/1"}]));
    assert_eq!(code(READER, "{ record(source: \"secret/1\") { ts } }"), "forbidden");
    assert_eq!(code(READER, "{ members { id } }"), "forbidden");
    assert_eq!(code(SENSORS, all), "forbidden");
    assert_eq!(ask(WATCHER, "{ node { id } members { id } }").json()["data"]["node"]["id"], "a");
    assert_eq!(code(WATCHER, all), "forbidden");
    let publish = |source: &str| {
        format!(
            "mutation {{ publish(records: [{{source: \"{source}\", data: 1}}]) {{ outcome error {{ code retryAfterMs }} }} }}"
        )
    };
    let result =
        |token: &str, source: &str| ask(token, &publish(source)).json()["data"]["publish"][0].clone();
    assert_eq!(result(READER, "public/1")["error"]["code"], "forbidden");
    assert_eq!(result(SENSORS, "other/1")["error"]["code"], "forbidden");
    assert_eq!(result(SENSORS, "sensors/1")["outcome"], "APPLIED");
    let ten: Vec<String> = (0..10).map(|n| format!("{{source: \"sensors/{n}\", data: 1}}")).collect();
    let query = format!(
        "mutation {{ publish(records: [{}]) {{ outcome error {{ code retryAfterMs }} }} }}",
        ten.join(", ")
    );
    let results = ask(SENSORS, &query).json()["data"]["publish"].clone();
    let results = results.as_array().expect("results");
    let over = results.iter().find(|result| !result["error"].is_null()).expect("more than the rate");
    assert_eq!(over["error"]["code"], "rate_limited");
    assert!(over["error"]["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{over}");
}

#[test]
fn other_pages_and_names_are_refused() {
    let node = Node::single();
    let foreign = [("Origin", "https://evil.example")];
    let request = json!({"query": "mutation { publish(records: [{source: \"o/1\", data: 1}]) { ts } }"});
    let refused = post(&node.http, &foreign, &request);
    refused.assert_problem(403, "forbidden");
    assert!(refused.header("access-control-allow-origin").is_none() && node.latest("o/1").is_none());
    post(&node.http, &[("Host", "evil.example")], &request).assert_problem(403, "forbidden");
    let own = format!("http://{}", node.http);
    let allowed = post(&node.http, &[("Origin", &own)], &request);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some(own.as_str())));
    let fields = [("Host", node.http.as_str()), ("Origin", "https://evil.example")];
    match shake_with(&node.http, "/graphql", &["graphql-transport-ws"], &fields) {
        Handshake::Refused(answer) => answer.assert_problem(403, "forbidden"),
        Handshake::Open(..) => panic!("a page of another host has connected"),
    }
}
