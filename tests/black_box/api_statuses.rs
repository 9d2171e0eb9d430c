//! The statuses of answers against those that the OpenAPI document describes.

use crate::api::{Described, openapi};
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::{Http, Node, NodeConfig};

/// What clients do wrong is answered by a status that is described, whatever they ask for.
#[test]
fn every_status_is_described() {
    let flags = ["--max-frame-bytes", "65536", "--max-record-bytes", "1024"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    let document = openapi(&node);
    let (long, large) = ("x".repeat(20_000), "x".repeat(70_000));
    for described in Described::all(&document) {
        if matches!(described.path, "/" | "/graphql" | "/v1/admin/drain") {
            continue;
        }
        let (method, target) = (described.method.to_uppercase(), described.target());
        let with = |suffix: &str| match target.contains('?') {
            true => format!("{target}&{suffix}"),
            false => format!("{target}?{suffix}"),
        };
        let ask = |method: &str, target: &str, fields: &[(&str, &str)], body: &str| {
            let answer = Http::request(&node.http, method, target, fields, body.as_bytes());
            described.check(&answer);
            answer.status
        };
        let is_health = matches!(described.path, "/healthz" | "/readyz" | "/metrics");
        let is_socket = matches!(described.path, "/publish" | "/subscribe");
        if !is_health && !is_socket {
            assert_eq!(ask(&method, &with("unknown=1"), &[], ""), 400, "{method} {target}");
            assert_eq!(ask(&method, &target, &[("Host", "elsewhere.example")], ""), 403, "{method} {target}");
        }
        assert_eq!(ask(&method, &target, &[("Host", "a b")], ""), 400, "{method} {target}");
        assert_eq!(ask(&method, &target, &[("X-Long", &long)], ""), 431, "{method} {target}");
        assert_eq!(ask("PATCH", &target, &[], ""), 405, "{target}");
        if is_socket {
            assert_eq!(ask(&method, &target, &[], ""), 426, "{target}");
        }
        // A middleware may be a module of many megabytes.
        let is_large_taken = described.path == "/v1/import" || described.path.starts_with("/v1/middleware");
        if described.operation["requestBody"].is_object() && !is_large_taken {
            let expected = ask(&method, &target, &[("Content-Type", "application/json")], &large);
            assert_eq!(expected, 413, "{method} {target}");
        }
        if described.path == "/v1/sources/{source}" {
            let expected = if method == "GET" { 404 } else { 412 };
            assert_eq!(ask(&method, &target, &[("If-Match", "\"1-2\"")], "1"), expected, "{method} {target}");
        }
    }
}

/// What rights, rates and conditions refuse is answered by a status that is described. Every path was asked by those who may do
/// everything only.
#[test]
fn statuses_of_rights_rates_and_conditions_are_described() {
    let everything = "publish = [\"**\"]\nsubscribe = [\"**\"]\nadmin = true";
    let file = RightsFile::new(
        &[
            token_entry("all", "all-secret", everything),
            token_entry("nobody", "nobody-secret", "subscribe = [\"none\"]"),
            token_entry("slow", "slow-secret", "publish = [\"**\"]\nrate = 1"),
        ]
        .concat(),
    );
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
    let ask = |token: Option<&str>, method: &str, target: &str, fields: &[(&str, &str)], body: &str| {
        let token = token.map(bearer);
        let mut fields = fields.to_vec();
        fields.extend(token.iter().map(|token| ("Authorization", token.as_str())));
        Http::request(&node.http, method, target, &fields, body.as_bytes())
    };
    let document = ask(Some("all-secret"), "GET", "/v1/openapi.json", &[], "").json();
    let json = [("Content-Type", "application/json")];
    for described in Described::all(&document) {
        if matches!(described.path, "/" | "/healthz" | "/readyz" | "/publish" | "/subscribe") {
            continue;
        }
        let (method, target) = (described.method.to_uppercase(), described.target());
        let unknown = ask(None, &method, &target, &json, "{}");
        assert_eq!(unknown.status, 401, "{method} {target}");
        described.check(&unknown);
        described.check(&ask(Some("nobody-secret"), &method, &target, &json, "{}"));
    }
    let of = |method: &str, path: &str| {
        let mut all = Described::all(&document).into_iter();
        all.find(|described| (described.method, described.path) == (method, path)).expect("it is described")
    };
    let (put, get) = (of("put", "/v1/sources/{source}"), of("get", "/v1/sources/{source}"));
    put.check(&ask(Some("slow-secret"), "PUT", "/v1/sources/a", &json, "1"));
    for (described, method, target) in
        [(put, "PUT", "/v1/sources/a"), (of("post", "/v1/publish"), "POST", "/v1/publish")]
    {
        let limited = ask(Some("slow-secret"), method, target, &json, "{\"source\":\"a\",\"data\":1}");
        assert_eq!(limited.status, 429, "{limited:?}");
        described.check(&limited);
    }
    let known = ask(Some("all-secret"), "GET", "/v1/sources/a", &[], "");
    get.check(&known);
    let tag = known.header("etag").expect("a tag");
    let unchanged = ask(Some("all-secret"), "GET", "/v1/sources/a", &[("If-None-Match", tag)], "");
    assert_eq!(unchanged.status, 304, "{unchanged:?}");
    get.check(&unchanged);
}
