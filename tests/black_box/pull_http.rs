//! Pull sources over HTTP, at a server that answers well, late, wrongly or not at all.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{anode, binary, run};
use crate::harness::origin::{Origin, answer, answer_json};
use crate::harness::pulls::SOON;
use crate::harness::wait::{pause_for, throughout};
use crate::harness::{Http, Node, NodeConfig, eventually};

const WEATHER: &str = r#"records = [ { source = "weather/{/city}", pointer = "/current", ts = "/time" } ]"#;

#[test]
fn what_a_server_answers_is_published_and_what_has_not_changed_is_not() {
    let step = Arc::new(AtomicUsize::new(1));
    let now = step.clone();
    let origin = Origin::start(move |asked, stream| {
        let step = now.load(Ordering::Relaxed);
        let tag = format!("\"v{step}\"");
        if asked.header("if-none-match") == Some(&tag) {
            return answer(stream, "304 Not Modified", "");
        }
        let body = format!(
            r#"{{"city":"oslo","time":{},"current":{{"c":-1.50,"n":{step}}}}}"#,
            1_763_800_000 + step
        );
        answer(stream, &format!("200 OK\nContent-Type: application/json\nETag: {tag}"), &body);
    });
    let node = Node::single();
    node.put_pull(
        "weather",
        &format!("kind = \"http\"\nevery = \"100ms\"\nurl = \"{}\"\n{WEATHER}", origin.url("/w")),
    );
    let record = node.wait_data("weather/oslo", &json!({"c": -1.5, "n": 1}));
    assert_eq!(record["ts"], 1_763_800_001_000_000u64);
    assert!(node.get("/v1/sources/weather/oslo").body.contains("-1.50"), "data is passed on verbatim");
    eventually("it is asked whether something has changed", SOON, || {
        let asked = origin.asked("/w");
        asked.iter().any(|asked| asked.header("if-none-match") == Some("\"v1\"")).then_some(())
    });
    step.store(2, Ordering::Relaxed);
    node.wait_data("weather/oslo", &json!({"c": -1.5, "n": 2}));
    assert_eq!(node.history_of("weather/oslo").len(), 2);
    let told = eventually("the state tells of it", SOON, || {
        let told = node.pull("weather");
        (told["state"]["records"] == 2 && told["state"]["last_success"].is_u64()).then_some(told)
    });
    assert_eq!((&told["runner"], &told["state"]["runner"]), (&json!("a"), &json!("a")), "{told}");
    assert_eq!(told["state"]["error"], json!(null));
    let listed = anode(&["pull", "list", "--url", &format!("http://{}", node.http)]);
    for column in ["NAME", "RUNNER", "RECORDS/S", "LAST SUCCESS", "LAST ERROR"] {
        assert!(listed.stdout.lines().next().is_some_and(|head| head.contains(column)), "{listed:?}");
    }
    let row: Vec<&str> = listed.stdout.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!((row[0], row[1]), ("weather", "a"), "{listed:?}");
    assert!(row[2].parse::<f64>().is_ok() && row.contains(&"ago"), "{listed:?}");
    assert_eq!(node.metric("anode_pull_running", &[]), 1.0);
    assert_eq!(node.metric("anode_pull_records_total", &[("outcome", "published")]), 2.0);
    let removed = anode(&["pull", "rm", "weather", "--url", &format!("http://{}", node.http)]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    eventually("nothing runs any more", SOON, || {
        (node.metric("anode_pull_running", &[]) == 0.0).then_some(())
    });
    let asked = origin.asked("/w").len();
    throughout("nobody asks", Duration::from_millis(500), || origin.asked("/w").len() == asked);
    assert_eq!(node.get("/v1/pull/weather").status, 404);
    assert_eq!(node.get("/v1/sources/$pull/weather/state").status, 404);
}

/// A server that knows no tags may know when its answer has changed.
#[test]
fn what_has_changed_since_a_time_is_asked_for() {
    const CHANGED: &str = "Sat, 22 Nov 2025 08:26:40 GMT";
    let origin = Origin::start(|asked, stream| match asked.header("if-modified-since") {
        Some(CHANGED) => answer(stream, "304 Not Modified", ""),
        _ => {
            let head = format!("200 OK\nContent-Type: application/json\nLast-Modified: {CHANGED}");
            answer(stream, &head, r#"{"source":"old","data":1}"#);
        }
    });
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put_pull("old", &format!("kind = \"http\"\nevery = \"100ms\"\nurl = \"{}\"", origin.url("/")));
    node.wait_data("old", &json!(1));
    eventually("it is asked whether something has changed since", SOON, || {
        let asked = origin.asked("/");
        let times = asked.iter().filter(|asked| asked.header("if-modified-since") == Some(CHANGED)).count();
        (times >= 2).then_some(())
    });
    assert_eq!(node.pull("old")["state"]["error"], json!(null), "an answer without content is a success");
    assert_eq!(node.history_of("old").len(), 1);
}

#[test]
fn a_server_without_tags_is_compared_by_what_it_says() {
    let origin = Origin::start(|_, stream| answer_json(stream, r#"[{"id":"a","v":1},{"id":"b","v":2}]"#));
    let node = Node::single();
    let definition =
        |url: &str, more: &str| format!("kind = \"http\"\nevery = \"100ms\"\nurl = \"{url}\"\n{more}\n");
    node.put_pull(
        "changed",
        &definition(&origin.url("/c"), "records = [{ source = \"c/{/id}\", pointer = \"/v\" }]"),
    );
    let always = "always = true\nrecords = [{ source = \"always/{/id}\", pointer = \"/v\" }]";
    node.put_pull("always", &definition(&origin.url("/a"), always));
    eventually("both were asked often", SOON, || {
        (origin.asked("/c").len() > 5 && origin.asked("/a").len() > 5).then_some(())
    });
    assert_eq!(node.history_of("c/a"), [json!(1)]);
    assert_eq!(node.history_of("c/b"), [json!(2)]);
    assert!(node.history_of("always/a").len() >= 4);
}

#[test]
fn redirects_are_followed_within_the_host_and_secrets_go_nowhere_else() {
    let elsewhere = Origin::start(|_, stream| answer_json(stream, r#"{"source":"stolen","data":1}"#));
    let other = elsewhere.url("/taken");
    let origin = Origin::start(move |asked, stream| match asked.path.as_str() {
        "/moved" => answer(stream, "302 Found\nLocation: /here", ""),
        "/here" => answer_json(stream, r#"{"source":"here","data":1}"#),
        "/away" => answer(stream, &format!("302 Found\nLocation: {other}"), ""),
        _ => answer(stream, "302 Found\nLocation: /loop", ""),
    });
    let node = Node::start(NodeConfig::named("a").with_variable("PULL_KEY", "hunter2"));
    for path in ["moved", "away", "loop"] {
        let headers = "headers = { Authorization = \"env:PULL_KEY\" }";
        let url = origin.url(&format!("/{path}"));
        node.put_pull(path, &format!("kind = \"http\"\nevery = \"100ms\"\nurl = \"{url}\"\n{headers}"));
    }
    node.wait_data("here", &json!(1));
    assert_eq!(origin.asked("/here")[0].header("authorization"), Some("hunter2"));
    node.wait_pull_error("away", "redirected to another host (127.0.0.1)");
    node.wait_pull_error("loop", "redirected more than 5 times");
    assert!(elsewhere.asked("/taken").is_empty());
    for text in [node.get("/v1/pull").body, node.log(), node.get("/v1/sources?pattern=$pull/**").body] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn bad_servers_are_named_and_hold_up_nobody() {
    let origin = Origin::start(|asked, stream| match asked.path.as_str() {
        "/good" => {
            answer_json(stream, &format!(r#"{{"source":"good","data":{}}}"#, crate::harness::wall_us()))
        }
        "/silent" => drop(stream.read(&mut [0; 1])),
        "/slow" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                pause_for(Duration::from_millis(50));
            }
        }
        "/failing" => answer(stream, "503 Service Unavailable\nRetry-After: 3600", "no"),
        "/garbage" => answer_json(stream, "<html>"),
        "/large" => answer_json(stream, &format!("\"{}\"", "x".repeat(2_000))),
        "/endless" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"");
            while stream.write_all(&[b'x'; 1_000]).is_ok() {}
        }
        "/nonsense" => drop(stream.write_all(b"SSH-2.0-OpenSSH\r\n")),
        "/forbidden" => answer_json(stream, r#"[{"source":"$sys/x","data":1},{"source":"fine","data":1}]"#),
        _ => {}
    });
    let node = Node::single();
    let put = |name: &str, url: &str| {
        let bounds = "every = \"100ms\"\ntimeout = \"500ms\"\nmax_bytes = 1000";
        node.put_pull(name, &format!("kind = \"http\"\nurl = \"{url}\"\n{bounds}"));
    };
    let expected = [
        ("silent", "timed out after 500 ms"),
        ("slow", "timed out after 500 ms"),
        ("failing", "the server answers 503"),
        ("garbage", "is no JSON"),
        ("large", "more than 1000 bytes"),
        ("endless", "more than 1000 bytes"),
        ("nonsense", "invalid HTTP version"),
        ("forbidden", "forbidden"),
    ];
    expected.iter().for_each(|(name, _)| put(name, &origin.url(&format!("/{name}"))));
    put("refused", "http://127.0.0.1:1/");
    put("unknown", "http://no-such-host.invalid/");
    put("good", &origin.url("/good"));
    for (name, error) in expected {
        node.wait_pull_error(name, error);
    }
    node.wait_pull_error("refused", "onnection refused");
    node.wait_pull_error("unknown", "");
    node.wait_data("fine", &json!(1));
    assert_eq!(origin.asked("/failing").len(), 1, "the server asked to be left alone");
    let asked = origin.asked("/good").len();
    eventually("the good one goes on ten times a second", Duration::from_secs(5), || {
        (origin.asked("/good").len() >= asked + 20).then_some(())
    });
    // Ten polls a second would be a hundred requests by now.
    assert!(origin.asked("/garbage").len() > 1);
    assert!(origin.asked("/silent").len() < 20, "failures are answered by longer and longer waits");
    eventually("the state tells of what was refused", SOON, || {
        (node.pull("forbidden")["state"]["refused"].as_u64() >= Some(1)).then_some(())
    });
    assert!(node.metric("anode_pull_errors_total", &[]) >= 8.0);
    assert!(node.metric("anode_pull_records_total", &[("outcome", "refused")]) >= 1.0);
    assert!(node.metric("anode_pull_bytes_total", &[]) > 0.0);
}

#[test]
fn lines_and_events_are_published_as_they_come() {
    let origin = Origin::start(|asked, stream| match asked.path.as_str() {
        "/lines" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n");
            for n in 0..1_000 {
                let line = format!("{{\"source\":\"lines/{}\",\"data\":{n}}}\n", n % 10);
                if stream
                    .write_all(&line.as_bytes()[..9])
                    .and_then(|()| stream.write_all(&line.as_bytes()[9..]))
                    .is_err()
                {
                    return;
                }
                pause_for(Duration::from_millis(20));
            }
        }
        "/events" => {
            let next: u32 =
                asked.header("last-event-id").map_or(1, |id| id.parse::<u32>().expect("an id") + 1);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 100\n\n";
            let _ = stream.write_all(head.as_bytes());
            for id in next..next + 3 {
                let _ =
                    write!(stream, "event: tick\nid: {id}\ndata: {{\"id\":{id},\"v\":\ndata: [{id}]}}\n\n");
            }
        }
        "/text" => answer(stream, "200 OK\nContent-Type: text/plain", "up 3 days"),
        _ => {}
    });
    let node = Node::single();
    let url = |path: &str| format!("kind = \"http\"\nevery = \"200ms\"\nurl = \"{}\"\n", origin.url(path));
    node.put_pull("lines", &url("/lines"));
    node.put_pull(
        "events",
        &(url("/events") + "always = true\nrecords = [{ source = \"{event}/v\", pointer = \"/v\" }]"),
    );
    node.put_pull("text", &(url("/text") + "records = [{ source = \"uptime\" }]"));
    node.wait_data("uptime", &json!("up 3 days"));
    node.wait_data("lines/9", &json!(9));
    assert_eq!(origin.asked("/lines").len(), 1, "lines are published while the answer lasts");
    eventually("events of three connections", SOON, || (node.history_of("tick/v").len() >= 7).then_some(()));
    let history = node.history_of("tick/v");
    let expected: Vec<_> = (1..=history.len()).map(|id| json!([id])).collect();
    assert_eq!(history, expected, "each event once, in order, over several connections");
}

#[test]
fn the_rate_of_records_is_bounded() {
    let origin = Origin::start(|_, stream| {
        let all: Vec<_> = (0..200).map(|n| json!({"source": format!("fast/{n}"), "data": n})).collect();
        answer_json(stream, &json!(all).to_string());
    });
    let node = Node::single();
    let bound = "max_records_per_s = 50\nevery = \"1h\"";
    node.put_pull("fast", &format!("kind = \"http\"\nurl = \"{}\"\n{bound}", origin.url("/")));
    node.wait_data("fast/49", &json!(49));
    assert_eq!(node.latest("fast/199"), None, "more than 50 in the first second");
    node.wait_data("fast/199", &json!(199));
    assert!(node.metric("anode_pull_slowed_total", &[]) > 100.0);
    eventually("the state tells how long records have waited", SOON, || {
        (node.pull("fast")["state"]["slowed_ms"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn bad_definitions_are_refused_by_field() {
    let node = Node::single();
    let refused = |toml: &str| {
        let answer = node.try_put_pull("x", toml);
        answer.assert_problem(400, "bad_request");
        answer.json()["detail"].as_str().expect("a reason").to_owned()
    };
    assert!(refused("every = \"5s\"").starts_with("kind: missing; allowed: http, mqtt, kafka, file, exec"));
    assert!(refused("kind = \"ftp\"").starts_with("kind: \"ftp\"; allowed: http"));
    let http = "kind = \"http\"\nurl = \"http://h/\"\n";
    assert!(refused("kind = \"http\"").starts_with("url: missing"));
    assert!(refused("kind = \"http\"\nurl = \"ftp://h/\"").starts_with("url: \"ftp://h/\""));
    assert!(!refused("kind = \"http\"\nurl = \"http://u:hunter2@h/\"").contains("hunter2"));
    assert!(refused(&format!("{http}every = \"5\"")).starts_with("every: \"5\""));
    assert!(refused(&format!("{http}evry = \"5s\"")).starts_with("evry: \"5s\"; allowed: no such field"));
    assert!(refused(&format!("{http}headers = {{ Authorization = \"x\" }}")).contains("env:NAME"));
    assert!(refused(&format!("{http}headers = {{ X = \"env:ANODE_JOIN\" }}")).starts_with("headers.X"));
    let rule = refused(&format!("{http}records = [{{ source = \"a/{{city}}\" }}]"));
    assert!(rule.starts_with("records[0].source: \"a/{city}\""), "{rule}");
    assert!(refused("kind = \"file\"\npath = \"x\"\nnode = \"a\"").starts_with("path: \"x\""));
    assert!(refused("kind = \"exec\"").starts_with("command: missing"));
    assert!(refused("kind = \"mqtt\"\nurl = \"mqtt://h\"\ntopics = [\"a#\"]").starts_with("topics"));
    assert_eq!(node.get("/v1/pull").json(), json!({"pull": []}));
}

#[test]
fn a_definition_is_tried_out_without_a_node() {
    let origin = Origin::start(|asked, stream| match asked.path.as_str() {
        "/w" => answer_json(stream, r#"[{"city":"oslo","time":1763800000,"current":1.50},{"city":"a//b"}]"#),
        "/ok" => answer_json(stream, r#"{"source":"x","data":{"y":1}}"#),
        _ => answer(stream, "404 Not Found", ""),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let test = |toml: &str, name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, toml).expect("written");
        run(binary().args(["pull", "test"]).arg(path), "")
    };
    let url = |path: &str| format!("kind = \"http\"\nurl = \"{}\"\n", origin.url(path));
    let ok = test(&url("/ok"), "ok.toml");
    assert_eq!((ok.code, ok.stdout.as_str()), (Some(0), "{\"source\":\"x\",\"data\":{\"y\":1}}\n"), "{ok:?}");
    let half = test(&(url("/w") + WEATHER), "half.toml");
    assert_eq!(half.stdout, "{\"source\":\"weather/oslo\",\"ts\":1763800000000000,\"data\":1.50}\n");
    assert_eq!(half.code, Some(1), "{half:?}");
    let failed = test(&url("/none"), "failed.toml");
    assert!(failed.code == Some(1) && failed.stderr.contains("404"), "{failed:?}");
    let bad = test("kind = \"http\"", "bad.toml");
    assert!(bad.code == Some(2) && bad.stderr.contains("url: missing"), "{bad:?}");
}

#[test]
fn a_definition_is_tried_out_at_a_node() {
    let origin = Origin::start(|asked, stream| match asked.path.as_str() {
        "/w" => answer_json(stream, r#"[{"city":"oslo","time":1763800000,"current":1.50},{"city":"a//b"}]"#),
        "/many" => {
            let all: Vec<Value> =
                (0..1_500).map(|n| json!({"source": format!("n/{n}"), "data": n})).collect();
            answer_json(stream, &json!(all).to_string());
        }
        _ => answer(stream, "404 Not Found", ""),
    });
    let node = Node::start(NodeConfig::named("a").in_memory());
    let url = |path: &str| format!("kind = \"http\"\nurl = \"{}\"\n", origin.url(path));
    let post = |path: &str, toml: &str| {
        Http::request(&node.http, "POST", path, &[("Content-Type", "application/toml")], toml.as_bytes())
    };
    let test = |toml: &str| post("/v1/pull/test", toml);
    let told = test(&(url("/w") + WEATHER));
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.body.contains("\"data\":1.50"), "data is passed on verbatim: {}", told.body);
    let told = told.json();
    assert_eq!(
        told["records"],
        json!([{"source": "weather/oslo", "ts": 1_763_800_000_000_000u64, "data": 1.5}])
    );
    assert!(told["error"].as_str().is_some_and(|why| why.contains("finds nothing")), "{told}");
    let many = test(&url("/many")).json();
    assert_eq!((many["records"].as_array().map(Vec::len), &many["more"]), (Some(1_000), &json!(500)));
    let failed = test(&url("/none")).json();
    assert!(failed["error"].as_str().is_some_and(|why| why.contains("404")), "{failed}");
    test("kind = \"http\"").assert_problem(400, "bad_request");
    let elsewhere = test("kind = \"file\"\nnode = \"b\"\npath = \"/x\"");
    elsewhere.assert_problem(400, "bad_request");
    assert!(elsewhere.body.contains("this node cannot run it: "), "{}", elsewhere.body);
    post("/v1/pull/other", &url("/w")).assert_problem(405, "method_not_allowed");
    // Nothing was kept of all this, and a definition may have the name all the same.
    assert_eq!(node.get("/v1/pull").json(), json!({"pull": []}));
    assert_eq!(node.get("/v1/sources?pattern=**").json()["records"], json!([]));
    node.put_pull("test", &url("/w"));
    assert_eq!(node.pull("test")["name"], "test");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("w.toml");
    std::fs::write(&path, url("/many")).expect("written");
    let node_url = format!("http://{}", node.http);
    let printed = run(binary().args(["pull", "--url", &node_url, "test"]).arg(&path), "");
    assert_eq!((printed.code, printed.stdout.lines().count()), (Some(0), 1_000), "{printed:?}");
    assert!(printed.stderr.contains("500 more records"), "{printed:?}");
    let refused =
        run(binary().args(["pull", "test", "--allow-exec", "/", "--url", &node_url]).arg(&path), "");
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

/// The node is named before or behind the command of a kind, as with all other commands.
#[test]
fn the_node_is_named_before_or_behind_the_command() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let url = format!("http://{}", node.http);
    for kind in ["pull", "middleware", "archive", "hook"] {
        for line in
            [["--url", &url, kind, "list"], [kind, "--url", &url, "list"], [kind, "list", "--url", &url]]
        {
            let listed = run(binary().args(line), "");
            assert_eq!(
                (listed.code, listed.stdout.starts_with("NAME")),
                (Some(0), true),
                "{line:?}: {listed:?}"
            );
        }
    }
}

/// A definition may be put as JSON, and is then the same.
#[test]
fn definitions_come_as_json_too() {
    let origin = Origin::start(|asked, stream| {
        answer_json(stream, &json!({"source": "posted", "data": [asked.method, asked.body]}).to_string());
    });
    let node = Node::single();
    let body = json!({"kind": "http", "url": origin.url("/"), "method": "POST", "body": "{ x }"}).to_string();
    let headers = [("Content-Type", "application/json")];
    let put = Http::request(&node.http, "PUT", "/v1/pull/posted", &headers, body.as_bytes());
    assert_eq!(put.status, 200, "{}", put.body);
    node.wait_data("posted", &json!(["POST", "{ x }"]));
}
