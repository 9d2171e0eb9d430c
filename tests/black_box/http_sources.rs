//! One source over HTTP: `PUT`, `DELETE`, entity tags, conditions and long polling.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::connect;
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Deadline, Http, Node, NodeConfig, encode, eventually, wall_us};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn put(node: &Node, path: &str, headers: &[(&str, &str)], body: &str) -> Http {
    Http::request(&node.http, "PUT", path, headers, body.as_bytes())
}

fn delete(node: &Node, path: &str, headers: &[(&str, &str)]) -> Http {
    Http::request(&node.http, "DELETE", path, headers, b"")
}

fn get(node: &Node, path: &str, headers: &[(&str, &str)]) -> Http {
    Http::request(&node.http, "GET", path, headers, b"")
}

fn etag(answer: &Http) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no ETag: {answer:?}")).to_owned()
}

/// Whether an answer is the result of a publish with this outcome.
fn is_outcome(answer: &Http, outcome: &str) {
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!(outcome)), "{answer:?}");
}

#[test]
fn json_is_kept_as_it_is_and_anything_else_as_bytes() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let answer = put(&node, "/v1/sources/a/b", &[JSON], "  { \"x\": 1.0,\n \"y\":[ ] } \n");
    is_outcome(&answer, "applied");
    assert_eq!(answer.json()["level"], "accepted");
    assert!(node.get("/v1/sources/a/b").body.ends_with(",\"data\":{ \"x\": 1.0,\n \"y\":[ ] }}"));
    let charset = ("Content-Type", "Application/JSON; charset=utf-8");
    is_outcome(&put(&node, "/v1/sources/a%2Fb", &[charset], "null"), "applied");
    assert_eq!(node.latest("a/b").map(|record| record["data"].clone()), Some(Value::Null));
    for kind in [&[("Content-Type", "text/plain")][..], &[("Content-Type", "application/octet-stream")], &[]]
    {
        is_outcome(&put(&node, "/v1/sources/a/bytes", kind, "{}\n"), "applied");
        assert_eq!(node.latest("a/bytes").map(|record| record["data_b64"].clone()), Some(json!("e30K")));
    }
    is_outcome(&put(&node, "/v1/sources/empty", &[], ""), "applied");
    assert_eq!(node.latest("empty").map(|record| record["data_b64"].clone()), Some(json!("")));
    let name = "ä b/%2F";
    is_outcome(&put(&node, &format!("/v1/sources/{}", encode(name)), &[JSON], "1"), "applied");
    assert!(node.latest(name).is_some());
}

#[test]
fn parameters_are_those_of_a_publish() {
    let node = Node::single();
    let ts = wall_us() - 5_000_000;
    let answer = put(&node, &format!("/v1/sources/a?ts={ts}&ttl_ms=3600000&ack=stored"), &[JSON], "1");
    assert_eq!(answer.json(), json!({"ts": ts, "outcome": "applied", "level": "stored"}));
    is_outcome(&put(&node, &format!("/v1/sources/a?ts={ts}"), &[JSON], "1"), "duplicate");
    let stale = put(&node, &format!("/v1/sources/a?ts={}", ts - 1), &[JSON], "2");
    assert_eq!(
        stale.json(),
        json!({"ts": ts - 1, "outcome": "stale", "current_ts": ts, "level": "accepted"})
    );
    assert_eq!(stale.header("etag"), None);
    is_outcome(&put(&node, "/v1/sources/short?ttl_ms=300", &[JSON], "1"), "applied");
    eventually("the value expires", Duration::from_secs(5), || {
        (node.get("/v1/sources/short").status == 404).then_some(())
    });
    let deleted = delete(&node, &format!("/v1/sources/a?ts={}&ack=stored", ts + 1), &[]);
    assert_eq!(deleted.json(), json!({"ts": ts + 1, "outcome": "applied", "level": "stored"}));
    let gone = node.get("/v1/sources/a");
    gone.assert_problem(404, "not_found");
    assert_eq!(gone.json()["deleted"], true);
    is_outcome(&delete(&node, "/v1/sources/never", &[]), "applied");
}

#[test]
fn what_is_wrong_is_named() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--max-record-bytes", "1024"]));
    for (path, headers, body, status, code) in [
        ("/v1/sources/a", &[JSON][..], "{", 400, "bad_json"),
        ("/v1/sources/a", &[JSON], "", 400, "bad_json"),
        ("/v1/sources/a", &[JSON], "1 2", 400, "bad_json"),
        ("/v1/sources/a", &[JSON], "\"\\ud800\"", 400, "bad_json"),
        ("/v1/sources/a//b", &[JSON], "1", 400, "bad_source"),
        ("/v1/sources/", &[JSON], "1", 400, "bad_source"),
        ("/v1/sources/a/*", &[JSON], "1", 400, "bad_source"),
        ("/v1/sources/$sys/a", &[JSON], "1", 403, "forbidden"),
        ("/v1/sources/a?ts=-1", &[JSON], "1", 400, "bad_timestamp"),
        ("/v1/sources/a?ts=9007199254740991", &[JSON], "1", 400, "future_timestamp"),
        ("/v1/sources/a?ttl_ms=0", &[JSON], "1", 400, "bad_request"),
        ("/v1/sources/a?ttl_ms=x", &[JSON], "1", 400, "bad_request"),
        ("/v1/sources/a?ack=best", &[JSON], "1", 400, "bad_request"),
        ("/v1/sources/a?x=1", &[JSON], "1", 400, "bad_request"),
        ("/v1/sources/a", &[JSON, ("If-Match", "abc")], "1", 400, "bad_request"),
        ("/v1/sources/a", &[JSON, ("Content-Encoding", "gzip")], "1", 400, "bad_request"),
        ("/v1/sources/a", &[("Content-Range", "bytes 0-1/2")], "1", 400, "bad_request"),
        ("/v1/sources/a/history", &[JSON], "1", 405, "method_not_allowed"),
    ] {
        put(&node, path, headers, body).assert_problem(status, code);
    }
    put(&node, "/v1/sources/a", &[], &"x".repeat(1025)).assert_problem(413, "too_large");
    put(&node, "/v1/sources/a", &[], &"x".repeat(1_048_577)).assert_problem(413, "too_large");
    assert_eq!(node.get("/v1/sources/a").status, 404, "nothing was published");
    delete(&node, "/v1/sources/a?ttl_ms=1", &[]).assert_problem(400, "bad_request");
    let history = delete(&node, "/v1/sources/a/history", &[]);
    history.assert_problem(405, "method_not_allowed");
    assert_eq!(history.header("allow"), Some("GET,HEAD"));
    let patched = Http::request(&node.http, "PATCH", "/v1/sources/a", &[], b"");
    patched.assert_problem(405, "method_not_allowed");
    let mut allowed: Vec<&str> = patched.header("allow").unwrap_or_default().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
}

#[test]
fn conditions_are_checked_against_what_the_node_holds() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let path = "/v1/sources/lock";
    is_outcome(&put(&node, path, &[JSON, ("If-None-Match", "*")], "1"), "applied");
    put(&node, path, &[JSON, ("If-None-Match", "*")], "2").assert_problem(412, "precondition_failed");
    let first = get(&node, path, &[]);
    assert_eq!(first.json()["data"], 1);
    let tag = etag(&first);
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let second = put(&node, path, &[JSON, ("If-Match", &tag)], "2");
    is_outcome(&second, "applied");
    put(&node, path, &[JSON, ("If-Match", &tag)], "3").assert_problem(412, "precondition_failed");
    delete(&node, path, &[("If-Match", &tag)]).assert_problem(412, "precondition_failed");
    assert_eq!(etag(&second), etag(&get(&node, path, &[])));
    let weak = format!("W/{}", etag(&second));
    put(&node, path, &[JSON, ("If-Match", &weak)], "3").assert_problem(412, "precondition_failed");
    let several = format!("\"x\", {}", etag(&second));
    is_outcome(&delete(&node, path, &[("If-Match", &several)]), "applied");
    put(&node, path, &[JSON, ("If-Match", "*")], "3").assert_problem(412, "precondition_failed");
    is_outcome(&put(&node, path, &[JSON, ("If-None-Match", "*")], "4"), "applied");
    is_outcome(&put(&node, path, &[JSON, ("If-Match", "*")], "5"), "applied");
}

/// Of all who create or replace at the same time, one does.
#[test]
fn nothing_comes_between_the_check_and_the_publish() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let compete = |condition: (&'static str, String)| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (address, condition) = (node.http.clone(), condition.clone());
                thread::spawn(move || {
                    let headers = [JSON, (condition.0, condition.1.as_str())];
                    let path = "/v1/sources/one?ack=stored";
                    Http::request(&address, "PUT", path, &headers, number.to_string().as_bytes()).status
                })
            })
            .collect();
        let statuses: Vec<u16> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
    };
    compete(("If-None-Match", "*".into()));
    for _ in 0..20 {
        compete(("If-Match", etag(&node.get("/v1/sources/one"))));
    }
}

#[test]
fn tags_tell_what_is_known_already() {
    let cluster = Cluster::start(2);
    let ts = cluster[0].put("a", json!(1));
    cluster[1].wait_ts("a", ts);
    let tag = etag(&get(&cluster[0], "/v1/sources/a", &[]));
    assert_eq!(etag(&get(&cluster[1], "/v1/sources/a", &[])), tag, "every node has the same tag");
    let known = get(&cluster[1], "/v1/sources/a", &[("If-None-Match", &tag)]);
    assert_eq!((known.status, known.body.as_str(), etag(&known)), (304, "", tag.clone()));
    assert_eq!(get(&cluster[0], "/v1/sources/a", &[("If-None-Match", "*")]).status, 304);
    assert_eq!(get(&cluster[0], "/v1/sources/a", &[("If-None-Match", &format!("W/{tag}"))]).status, 304);
    assert_eq!(get(&cluster[0], "/v1/sources/a", &[("If-None-Match", "\"1-2\"")]).status, 200);
    get(&cluster[0], "/v1/sources/a", &[("If-Match", "\"1-2\"")]).assert_problem(412, "precondition_failed");
    let head = Http::request(&cluster[0].http, "HEAD", "/v1/sources/a", &[], b"");
    let whole = get(&cluster[0], "/v1/sources/a", &[]);
    assert_eq!((head.status, head.body.as_str(), etag(&head)), (200, "", tag.clone()));
    assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
    let absent = Http::request(&cluster[0].http, "HEAD", "/v1/sources/none", &[], b"");
    assert_eq!((absent.status, absent.body.as_str()), (404, ""));
    cluster[0].put("a", json!(2));
    let changed = get(&cluster[0], "/v1/sources/a", &[("If-None-Match", &tag)]);
    assert_eq!((changed.status, &changed.json()["data"]), (200, &json!(2)));
}

/// Asks for the source in the background.
fn wait(node: &Node, path: &str, tag: Option<&str>) -> thread::JoinHandle<(Http, Duration)> {
    let (address, path, tag) = (node.http.clone(), path.to_owned(), tag.map(str::to_owned));
    thread::spawn(move || {
        let began = Deadline::after(Duration::from_secs(90));
        let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("If-None-Match", tag.as_str())).collect();
        (Http::request(&address, "GET", &path, &headers, b""), began.elapsed())
    })
}

fn joined<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| panic!("the request failed"))
}

#[test]
fn long_polling_waits_for_something_newer() {
    let cluster = Cluster::start(2);
    let ts = cluster[0].put("a", json!(1));
    cluster[1].wait_ts("a", ts);
    let tag = etag(&get(&cluster[1], "/v1/sources/a", &[]));
    let known = joined(wait(&cluster[1], "/v1/sources/a?wait_ms=300", Some(&tag)));
    assert!(known.0.status == 304 && known.1 >= Duration::from_millis(300), "{known:?}");
    let waiting = wait(&cluster[1], "/v1/sources/a?wait_ms=60000", Some(&tag));
    let others = [(); 5].map(|()| wait(&cluster[1], "/v1/sources/new/b?wait_ms=60000", None));
    throughout("time passes", Duration::from_millis(500), || true);
    cluster[0].put("a/x", json!(0));
    assert!(!waiting.is_finished(), "another source has changed");
    cluster[0].put("a", json!(2));
    let (answer, elapsed) = joined(waiting);
    assert_eq!((answer.status, &answer.json()["data"]), (200, &json!(2)));
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    cluster[0].put("new/b", json!("here"));
    for other in others {
        assert_eq!(joined(other).0.json()["data"], "here");
    }
    // What is newer than the tag is there already.
    let at_once = joined(wait(&cluster[1], "/v1/sources/a?wait_ms=60000", Some(&tag)));
    assert!(at_once.0.status == 200 && at_once.1 < Duration::from_secs(5), "{at_once:?}");
    let without = joined(wait(&cluster[1], "/v1/sources/a?wait_ms=60000", None));
    assert!(without.0.status == 200 && without.1 < Duration::from_secs(5), "{without:?}");
    let never = joined(wait(&cluster[1], "/v1/sources/never?wait_ms=200", None));
    never.0.assert_problem(404, "not_found");
    for bad in ["60001", "-1", "x", ""] {
        get(&cluster[0], &format!("/v1/sources/a?wait_ms={bad}"), &[]).assert_problem(400, "bad_request");
    }
}

#[test]
fn the_end_of_a_value_is_waited_for_too() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    is_outcome(&put(&node, "/v1/sources/a?ttl_ms=1500", &[JSON], "1"), "applied");
    let tag = etag(&node.get("/v1/sources/a"));
    let (answer, elapsed) = joined(wait(&node, "/v1/sources/a?wait_ms=60000", Some(&tag)));
    answer.assert_problem(404, "not_found");
    assert_eq!(answer.json()["deleted"], true);
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    let next = wait(&node, "/v1/sources/a?wait_ms=60000", Some(&etag(&answer)));
    throughout("time passes", Duration::from_millis(200), || true);
    is_outcome(&put(&node, "/v1/sources/a", &[JSON], "2"), "applied");
    assert_eq!(joined(next).0.json()["data"], 2);
    let deleted = wait(&node, "/v1/sources/a?wait_ms=60000", Some(&etag(&node.get("/v1/sources/a"))));
    throughout("time passes", Duration::from_millis(200), || true);
    delete(&node, "/v1/sources/a", &[]);
    joined(deleted).0.assert_problem(404, "not_found");
}

/// A node that stops answers those who wait, and does not wait for them.
#[test]
fn those_who_wait_are_answered_when_the_node_stops() {
    let mut node = Node::start(NodeConfig::named("a").in_memory());
    node.put("a", json!(1));
    let tag = etag(&node.get("/v1/sources/a"));
    let waiting = wait(&node, "/v1/sources/a?wait_ms=60000", Some(&tag));
    throughout("time passes", Duration::from_millis(300), || true);
    assert_eq!(node.sigterm(), Some(0));
    let (answer, elapsed) = joined(waiting);
    assert_eq!(answer.status, 304, "{answer:?}");
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// Requests that wait lend their places, so they keep nobody out.
#[test]
fn those_who_wait_keep_nobody_out() {
    let flags = ["--max-client-memory", "8MiB", "--max-frame-bytes", "65536"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    let streams: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = connect(&node.http);
            let request = "GET /v1/sources/none?wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(node.get("/v1/members").status, 200);
    }
    eventually("those who have waited longest have made room", Duration::from_secs(10), || {
        let is_answered = |stream: &&TcpStream| {
            let _ = stream.set_nonblocking(true);
            stream.peek(&mut [0; 64]).is_ok()
        };
        (streams.iter().filter(is_answered).count() >= 8).then_some(())
    });
}

#[test]
fn a_list_holds_only_what_is_newer() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let first = node.put("l/1", json!(1));
    let second = node.put("l/2", json!(2));
    node.put("l/3", json!(3));
    let names = |query: &str| -> Vec<String> {
        let answer = node.get(&format!("/v1/sources?pattern=l/*&{query}")).json();
        let records = answer["records"].as_array().cloned().unwrap_or_default();
        records.iter().filter_map(|record| record["source"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(names("updated_since=0"), ["l/1", "l/2", "l/3"]);
    assert_eq!(names(&format!("updated_since={first}")), ["l/2", "l/3"]);
    assert_eq!(names(&format!("updated_since={second}&limit=1")), ["l/3"]);
    node.get("/v1/sources?updated_since=x").assert_problem(400, "bad_timestamp");
}

#[test]
fn reading_and_writing_have_rights_of_their_own() {
    let reader = token_entry("reader", "r", "subscribe = [\"a/**\"]");
    let writer = token_entry("writer", "w", "publish = [\"a/**\"]");
    let rights = RightsFile::new(&format!("{reader}{writer}"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let ask = |method: &str, path: &str, token: &str| {
        let bearer = bearer(token);
        Http::request(&node.http, method, path, &[("Authorization", &bearer), JSON], b"1").status
    };
    assert_eq!(ask("PUT", "/v1/sources/a/x", "w"), 200);
    assert_eq!(ask("PUT", "/v1/sources/b/x", "w"), 403);
    assert_eq!(ask("PUT", "/v1/sources/a/x", "r"), 403);
    assert_eq!(ask("DELETE", "/v1/sources/a/x", "r"), 403);
    assert_eq!(ask("GET", "/v1/sources/a/x", "r"), 200);
    assert_eq!(ask("GET", "/v1/sources/a/x?wait_ms=100", "w"), 403);
    assert_eq!(ask("PUT", "/v1/sources/a/x", "nobody"), 401);
    put(&node, "/v1/sources/a/x", &[JSON], "1").assert_problem(401, "unauthorized");
    let foreign = ("Origin", "https://elsewhere.example");
    let answer = Http::request(
        &node.http,
        "PUT",
        "/v1/sources/a/x",
        &[("Authorization", &bearer("w")), JSON, foreign],
        b"2",
    );
    answer.assert_problem(403, "forbidden");
    assert_eq!(ask("DELETE", "/v1/sources/a/x", "w"), 200);
}
