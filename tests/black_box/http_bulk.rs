//! Export and import: all records of a node as lines, and back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::{connect, read_all};
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::pause;
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually, wall_us};

fn import(node: &Node, path: &str, lines: &str) -> Http {
    Http::request(&node.http, "POST", path, &[("Content-Type", "application/x-ndjson")], lines.as_bytes())
}

/// The lines of an export, by source.
fn lines(export: &Http) -> BTreeMap<String, Value> {
    assert_eq!(export.status, 200, "{export:?}");
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    let parsed = export.body.lines().map(crate::harness::json);
    parsed.map(|line| (line["source"].as_str().unwrap_or_default().to_owned(), line)).collect()
}

#[test]
fn an_export_is_what_was_published_and_can_be_imported() {
    let (a, b) = (Node::start(NodeConfig::named("a").in_memory()), Node::start(NodeConfig::named("b")));
    let ts = wall_us() - 10_000_000;
    let published = json!([
        {"source": "x/json", "ts": ts, "data": {"a": [1, null, "ü\n"]}},
        {"source": "x/bytes", "ts": ts + 1, "data_b64": "AP8="},
        {"source": "x/gone", "ts": ts + 2, "deleted": true},
        {"source": "x/short", "ts": ts + 3, "data": 1, "ttl_ms": 3_600_000},
        {"source": "y", "ts": ts + 4, "data": 2},
    ]);
    assert_eq!(a.post(published).status, 200);
    let export = a.get("/v1/export?pattern=x/**");
    let found = lines(&export);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["x/bytes", "x/gone", "x/json", "x/short"]);
    assert_eq!(found["x/json"], json!({"source": "x/json", "ts": ts, "data": {"a": [1, null, "ü\n"]}}));
    assert_eq!(found["x/bytes"], json!({"source": "x/bytes", "ts": ts + 1, "data_b64": "AP8="}));
    assert_eq!(found["x/gone"], json!({"source": "x/gone", "ts": ts + 2, "deleted": true}));
    let left = found["x/short"]["ttl_ms"].as_u64().unwrap_or_default();
    assert!((3_500_000..=3_590_000).contains(&left), "{left} ms are left");
    assert_eq!(lines(&a.get("/v1/export")).len(), 5);

    let whole = a.get("/v1/export").body;
    let told = import(&b, "/v1/import?ack=stored", &whole);
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(
        told.json(),
        json!({"applied": 5, "duplicate": 0, "stale": 0, "refused_total": 0, "refused": []})
    );
    for source in ["x/json", "x/bytes", "x/short", "y"] {
        let (mut there, mut here) =
            (a.latest(source).unwrap_or_default(), b.latest(source).unwrap_or_default());
        (there["origin"], here["origin"]) = (Value::Null, Value::Null);
        assert_eq!(there, here);
    }
    let left_there = lines(&b.get("/v1/export"))["x/short"]["ttl_ms"].as_u64().unwrap_or_default();
    assert!(left_there <= left && left_there + 60_000 > left, "{left} ms became {left_there} ms");
    let again = import(&b, "/v1/import", &whole).json();
    assert_eq!((&again["applied"], &again["duplicate"]), (&json!(0), &json!(5)));
    b.put("y", json!(3));
    let stale = import(&b, "/v1/import", &whole).json();
    assert_eq!((&stale["duplicate"], &stale["stale"]), (&json!(4), &json!(1)));
    assert_eq!(b.latest("y").map(|record| record["data"].clone()), Some(json!(3)));
}

/// A value of which half the time is over lives for the other half after its import.
#[test]
fn what_is_left_of_a_life_counts_from_the_import() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let line = json!({"source": "old", "ts": wall_us() - 60_000_000, "data": 1, "ttl_ms": 2_000});
    assert_eq!(import(&node, "/v1/import", &line.to_string()).json()["applied"], 1);
    assert!(node.latest("old").is_some(), "it has two seconds left");
    eventually("the value expires", Duration::from_secs(8), || node.latest("old").is_none().then_some(()));
}

#[test]
fn data_with_line_breaks_is_one_line() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put("a", json!(0));
    let body = "{\"source\":\"a\",\"data\":{\r\n \"x\": \"y\\n\"\n}}";
    assert_eq!(Http::post(&node.http, "/v1/publish", body).status, 200);
    let export = node.get("/v1/export?pattern=a");
    assert_eq!(export.body.lines().count(), 1, "{export:?}");
    assert_eq!(lines(&export)["a"]["data"], json!({"x": "y\n"}));
}

#[test]
fn refused_lines_are_named_by_their_numbers() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--max-record-bytes", "2048"]));
    let long = format!("{{\"source\":\"long\",\"data\":\"{}\"}}", "x".repeat(3_000));
    let huge = format!("{{\"source\":\"huge\",\"data\":\"{}\"}}", "x".repeat(1_100_000));
    let text = [
        "{\"source\":\"a\",\"data\":1}",
        "",
        "{\"source\":\"b//c\",\"data\":1}",
        "nonsense",
        "[{\"source\":\"d\",\"data\":1}]",
        &long,
        &huge,
        "{\"source\":\"$sys\",\"data\":1}\r",
        "{\"id\":\"mine\",\"source\":\"e\",\"data\":1,\"ack\":\"accepted\"}",
        // This text once stood for a line that is too long.
        "\"a line that is too long\"",
    ]
    .join("\n");
    let told = import(&node, "/v1/import", &text).json();
    assert_eq!((&told["applied"], &told["refused_total"]), (&json!(2), &json!(7)), "{told}");
    let refused: Vec<(u64, &str)> = (told["refused"].as_array().into_iter().flatten())
        .map(|line| (line["line"].as_u64().unwrap_or(0), line["error"]["code"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        refused,
        [
            (3, "bad_source"),
            (4, "bad_json"),
            (5, "bad_request"),
            (6, "too_large"),
            (7, "too_large"),
            (8, "forbidden"),
            (10, "bad_request")
        ]
    );
    let huge = &told["refused"][4]["error"]["message"];
    assert_eq!(huge, "the line has more than 1048576 bytes", "a stand-in for the line was quoted");
    assert!(node.latest("a").is_some() && node.latest("e").is_some());
    assert_eq!(import(&node, "/v1/import", "").json()["applied"], 0);
    import(&node, "/v1/import?ack=best", "").assert_problem(400, "bad_request");
    import(&node, "/v1/import?x=1", "").assert_problem(400, "bad_request");
    node.get("/v1/import").assert_problem(405, "method_not_allowed");
    import(&node, "/v1/export", "").assert_problem(405, "method_not_allowed");
    node.get("/v1/export?pattern=a**").assert_problem(400, "bad_pattern");
    node.get("/v1/export?limit=1").assert_problem(400, "bad_request");
}

/// Fills a node with so many sources of so many bytes each.
fn fill(node: &Node, count: usize, bytes: usize) {
    let data = "x".repeat(bytes);
    let all: String =
        (0..count).map(|number| format!("{{\"source\":\"s/{number}\",\"data\":\"{data}\"}}\n")).collect();
    let told = import(node, "/v1/import", &all).json();
    assert_eq!(told["applied"], count, "{told}");
}

#[test]
fn a_whole_map_is_exported_without_a_copy_of_it_and_imported_by_a_cluster() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    fill(&node, 20_000, 2_000);
    let before = node.rss_bytes();
    // The reader takes only the beginning, so the rest must not be put together.
    let mut slow = connect(&node.http);
    let request = b"GET /v1/export HTTP/1.1\r\nHost: localhost\r\n\r\n";
    slow.write_all(request).unwrap_or_else(|error| panic!("{error}"));
    let mut beginning = [0; 1_000];
    slow.read_exact(&mut beginning).unwrap_or_else(|error| panic!("{error}"));
    for _ in 0..20 {
        pause();
    }
    let grown = node.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "an export that waits for its reader holds {} MiB", grown >> 20);
    let export = node.get("/v1/export");
    assert_eq!(lines(&export).len(), 20_000);
    drop(slow);
    let cluster = Cluster::start(2);
    let told = import(&cluster[0], "/v1/import", &export.body).json();
    assert_eq!((&told["applied"], &told["refused_total"]), (&json!(20_000), &json!(0)));
    eventually("the other node has everything", Duration::from_secs(30), || {
        (cluster[1].metric("anode_sources", &[]) >= 20_000.0).then_some(())
    });
}

#[test]
fn a_rate_slows_an_import_down_and_refuses_nothing() {
    let rights = RightsFile::new(&token_entry("t", "t", "publish = [\"**\"]\nrate = 500"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let text: String =
        (0..1_500).map(|number| format!("{{\"source\":\"s/{number}\",\"data\":1}}\n")).collect();
    let answer =
        Http::request(&node.http, "POST", "/v1/import", &[("Authorization", &bearer("t"))], text.as_bytes());
    assert_eq!((&answer.json()["applied"], &answer.json()["refused_total"]), (&json!(1_500), &json!(0)));
}

#[test]
fn an_export_holds_what_the_token_may_see() {
    let own = token_entry("own", "o", "subscribe = [\"a/**\", \"b\"]");
    let all = token_entry("all", "p", "publish = [\"**\"]");
    let rights = RightsFile::new(&format!("{own}{all}"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let fields = [("Authorization", bearer("p"))];
    let publisher: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let text: String =
        ["a/1", "a/2", "b", "c"].map(|name| format!("{{\"source\":\"{name}\",\"data\":1}}\n")).concat();
    let told = Http::request(&node.http, "POST", "/v1/import", &publisher, text.as_bytes());
    assert_eq!(told.json()["applied"], 4, "{told:?}");
    let export = Http::with_token(&node.http, "GET", "/v1/export", "o");
    assert_eq!(lines(&export).keys().collect::<Vec<_>>(), ["a/1", "a/2", "b"]);
    Http::with_token(&node.http, "GET", "/v1/export", "p").assert_problem(403, "forbidden");
    Http::with_token(&node.http, "POST", "/v1/import", "o").assert_problem(403, "forbidden");
    node.get("/v1/export").assert_problem(401, "unauthorized");
}

/// What came before the body was cut off stays, and the answer says how much that is.
#[test]
fn a_body_that_is_cut_off_is_told_how_far_it_came() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let text: String =
        (0..20_000).map(|number| format!("{{\"source\":\"s/{number}\",\"data\":1}}\n")).collect();
    let mut stream = connect(&node.http);
    let head = format!(
        "POST /v1/import HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        text.len() + 1
    );
    let written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
    written
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
        .unwrap_or_else(|error| panic!("{error}"));
    let answer = String::from_utf8_lossy(&read_all(&mut stream, Duration::from_secs(20))).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let applied = crate::harness::json(body)["applied"].as_u64().unwrap_or(0);
    assert!(applied > 5_000 && applied as f64 <= node.metric("anode_sources", &[]), "{answer}");
}
