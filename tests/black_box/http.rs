//! The HTTP interface: every path, with valid and with invalid requests.

use serde_json::{Value, json};

use crate::api::assert_described;
use crate::harness::{Cluster, Http, Node, NodeConfig, encode, wall_us};

#[test]
fn health_and_readiness() {
    let node = Node::single();
    assert_eq!(node.get("/healthz").status, 200);
    assert_eq!(node.get("/readyz").status, 200);
}

#[test]
fn what_is_not_there_is_a_problem() {
    let node = Node::single();
    node.get("/").assert_problem(404, "not_found");
    node.get("/v1/nothing").assert_problem(404, "not_found");
    node.get("/v1/sources/none").assert_problem(404, "not_found");
    let answer = Http::request(&node.http, "DELETE", "/v1/members", &[], b"");
    assert_eq!(answer.status, 405, "{answer:?}");
    let answer = node.get("/v1/publish");
    assert_eq!(answer.status, 405, "{answer:?}");
}

#[test]
fn head_is_get_without_a_body() {
    let node = Node::single();
    let answer = Http::request(&node.http, "HEAD", "/healthz", &[], b"");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
}

#[test]
fn connections_are_kept_for_the_next_request() {
    use std::io::{Read, Write};
    let node = Node::single();
    let mut stream = crate::harness::http::connect(&node.http);
    for _ in 0..3 {
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut answer = vec![0; 12];
        assert!(sent.is_ok() && stream.read_exact(&mut answer).is_ok());
        assert_eq!(answer, b"HTTP/1.1 200");
        let mut rest = Vec::new();
        let mut byte = [0];
        while !rest.ends_with(b"\r\n\r\n") {
            assert!(stream.read_exact(&mut byte).is_ok());
            rest.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&rest).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        assert!(stream.read_exact(&mut body).is_ok());
    }
}

#[test]
fn publish_one() {
    let node = Node::single();
    let answer = node.post(json!({"source": "p", "data": 1}));
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    let result = answer.json();
    assert_eq!((&result["outcome"], &result["level"]), (&json!("applied"), &json!("accepted")));
    assert!(result["ts"].is_u64(), "{result}");
    let stored = Http::post(&node.http, "/v1/publish?ack=stored", r#"{"source":"p","data":2}"#);
    assert_eq!(stored.json()["level"], "stored", "{stored:?}");
    // In a cluster of one node, this node is every member.
    let everywhere = Http::post(&node.http, "/v1/publish?ack=replicated", r#"{"source":"q","data":3}"#);
    assert_eq!((everywhere.status, &everywhere.json()["nodes"]), (200, &json!(1)), "{everywhere:?}");
    let batch =
        json!([{"id": 1, "source": "q", "data": 3, "ack": "replicated"}, {"source": "q//", "data": 4}]);
    let batch = node.post(batch);
    assert_eq!((batch.status, &batch.json()[0]["result"]["level"]), (200, &json!("replicated")), "{batch:?}");
    assert_eq!(batch.json()[1]["error"]["code"], "bad_source", "{batch:?}");
    Http::post(&node.http, "/v1/publish?ack=replicated", "{}").assert_problem(400, "bad_request");
}

#[test]
fn refusals_are_problems_with_their_status() {
    let node = Node::single();
    let far = wall_us() + 3_600_000_000;
    for (status, code, body) in [
        (400, "bad_json", "{".to_owned()),
        (400, "bad_json", String::new()),
        (400, "bad_request", json!({"source": "a"}).to_string()),
        (400, "bad_request", "[]".to_owned()),
        (400, "bad_request", "7".to_owned()),
        (400, "bad_source", json!({"source": "a//b", "data": 1}).to_string()),
        (400, "bad_timestamp", json!({"source": "a", "data": 1, "ts": -1}).to_string()),
        (400, "future_timestamp", json!({"source": "a", "data": 1, "ts": far}).to_string()),
        (403, "forbidden", json!({"source": "$a", "data": 1}).to_string()),
        (413, "too_large", json!({"source": "a", "data": "x".repeat(70_000)}).to_string()),
        (413, "too_large", json!({"source": "a", "data": "x".repeat(2_000_000)}).to_string()),
    ] {
        let answer = Http::post(&node.http, "/v1/publish", &body);
        answer.assert_problem(status, code);
        if let Some(said) = answer.json().get("status") {
            assert_eq!(*said, status, "{answer:?}");
        }
    }
    Http::post(&node.http, "/v1/publish?ack=best", r#"{"source":"a","data":1}"#)
        .assert_problem(400, "bad_request");
    assert!(node.latest("a").is_none());
}

/// An answer of failure must say that the record was taken all the same, or a client would publish it anew. A member
/// that does not answer is waited for until it is dead, at most five seconds.
#[test]
fn a_level_that_is_not_reached_is_504_and_the_record_is_applied() {
    let cluster = Cluster::configured(2, |config| NodeConfig { profile: "wan", ..config });
    cluster[1].signal("STOP");
    let body = r#"{"source":"late","ts":1000,"data":1}"#;
    let answer = Http::post(&cluster[0].http, "/v1/publish?ack=replicated", body);
    let said = answer.json();
    match answer.status {
        200 => {
            let state = cluster[0].member_state("b");
            assert_eq!((&said["nodes"], state.as_deref()), (&json!(1), Some("dead")), "{answer:?}");
        }
        _ => {
            answer.assert_problem(504, "timeout");
            assert_described(&cluster[0], ("post", "/v1/publish"), &answer);
            assert_eq!((&said["applied"], &said["ts"]), (&json!(true), &json!(1000)), "{answer:?}");
            assert_eq!((&said["nodes"], &said["temporary"]), (&json!(1), &json!(true)), "{answer:?}");
        }
    }
    assert_eq!(cluster[0].latest("late").map(|record| record["data"].clone()), Some(json!(1)));
    cluster[1].signal("CONT");
    cluster.wait_whole();
    let again = Http::post(&cluster[0].http, "/v1/publish?ack=replicated", body).json();
    assert_eq!((&again["outcome"], &again["nodes"]), (&json!("duplicate"), &json!(2)), "{again}");
}

#[test]
fn publish_many() {
    let node = Node::single();
    let answer = node.post(json!([
        {"id": "x", "source": "m/1", "data": 1},
        {"source": "m/2", "data": 2},
        {"source": "m//3", "data": 3},
    ]));
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json();
    let items = items.as_array().cloned().unwrap_or_default();
    let first = items.iter().find(|item| item["index"] == 0).cloned().unwrap_or_default();
    assert_eq!((&first["id"], &first["result"]["outcome"]), (&json!("x"), &json!("applied")));
    let last = items.iter().find(|item| item["index"] == 2).cloned().unwrap_or_default();
    assert_eq!(last["error"]["code"], "bad_source");
    assert!(node.latest("m/2").is_some());
}

#[test]
fn a_source_is_read_as_it_was_published() {
    let node = Node::single();
    let ts = node.put("sensors/7/temp", json!({"c": 21.5}));
    let want = json!({"source": "sensors/7/temp", "ts": ts, "origin": "a", "data": {"c": 21.5}});
    for path in
        ["/v1/sources/sensors/7/temp", "/v1/sources/sensors%2F7%2Ftemp", "/v1/sources/sensors%2f7/temp"]
    {
        let answer = node.get(path);
        assert_eq!((answer.status, answer.json()), (200, want.clone()), "{path}");
    }
    node.put("a b/ä?#%", json!(1));
    assert_eq!(node.get(&format!("/v1/sources/{}", encode("a b/ä?#%"))).json()["data"], 1);
}

#[test]
fn a_deleted_source_is_not_found_and_says_so() {
    let node = Node::single();
    node.put("d", json!(1));
    node.post(json!({"source": "d", "deleted": true}));
    let answer = node.get("/v1/sources/d");
    answer.assert_problem(404, "not_found");
    assert_eq!(answer.json()["deleted"], true, "{answer:?}");
    assert!(node.get("/v1/sources/never").json().get("deleted").is_none());
    node.get("/v1/sources/a//b").assert_problem(400, "bad_source");
    node.get("/v1/sources/a%2A").assert_problem(400, "bad_source");
}

#[test]
fn a_literal_last_history_means_history() {
    let node = Node::single();
    for step in 0..3 {
        node.put("h", json!(step));
    }
    let ts = node.put("h/history", json!("a source of that name"));
    let history = node.get("/v1/sources/h/history").json();
    assert_eq!(history["records"].as_array().map(Vec::len), Some(3), "{history}");
    let source = node.get("/v1/sources/h%2Fhistory");
    assert_eq!(source.json()["ts"], ts, "{source:?}");
    let both = node.get("/v1/sources/h%2Fhistory/history").json();
    assert_eq!(both["records"][0]["data"], "a source of that name", "{both}");
}

#[test]
fn history_is_newest_first_bounded_and_paged() {
    let node = Node::start(NodeConfig::named("a").with(&["--history", "10"]));
    let stamps: Vec<u64> = (0..15).map(|step| node.put("h", json!(step))).collect();
    let datas = |answer: &Value| -> Vec<Value> {
        answer["records"].as_array().into_iter().flatten().map(|record| record["data"].clone()).collect()
    };
    let all = node.get("/v1/sources/h/history").json();
    let want: Vec<Value> = (5..15).rev().map(|step| json!(step)).collect();
    assert_eq!((datas(&all), &all["after"]), (want.clone(), &Value::Null));
    let part = node.get(&format!("/v1/sources/h/history?from={}&to={}", stamps[7], stamps[9])).json();
    let inner = datas(&part);
    assert!(inner.contains(&json!(8)) && inner.contains(&json!(7)) && !inner.contains(&json!(10)), "{part}");
    let mut seen = Vec::new();
    // An empty cursor is the beginning. Lists of sources took it, and histories did not.
    let mut after = "&after=".to_owned();
    for _ in 0..10 {
        let page = node.get(&format!("/v1/sources/h/history?limit=3{after}")).json();
        let records = datas(&page);
        assert!(records.len() <= 3, "{page}");
        seen.extend(records);
        let Some(cursor) =
            page["after"].as_str().map(encode).or(page["after"].as_u64().map(|n| n.to_string()))
        else {
            break;
        };
        after = format!("&after={cursor}");
    }
    assert_eq!(seen, want);
    // A stale record has never been the newest and is not in the history. A deletion is.
    node.post(json!({"source": "h", "ts": 5, "data": "stale"}));
    node.post(json!({"source": "h", "deleted": true}));
    let history = node.get("/v1/sources/h/history").json();
    assert_eq!(history["records"][0]["deleted"], true, "{history}");
    assert!(!datas(&history).contains(&json!("stale")));
    for (bad, code) in [
        ("limit=0", "bad_request"),
        ("limit=x", "bad_request"),
        ("from=x", "bad_timestamp"),
        ("to=-1", "bad_timestamp"),
        ("colour=red", "bad_request"),
    ] {
        node.get(&format!("/v1/sources/h/history?{bad}")).assert_problem(400, code);
    }
}

#[test]
fn sources_are_listed_in_order_of_name_through_pages() {
    let node = Node::single();
    for step in 0..25 {
        node.put(&format!("l/{step:02}"), json!(step));
    }
    node.put("other", json!(1));
    node.put("l/05", json!("newer"));
    node.post(json!({"source": "l/06", "deleted": true}));
    let mut names = Vec::new();
    let mut after = String::new();
    for pages in 1.. {
        let page = node.get(&format!("/v1/sources?pattern=l/*&limit=10{after}")).json();
        let records = page["records"].as_array().cloned().unwrap_or_default();
        names.extend(records.iter().filter_map(|record| record["source"].as_str().map(str::to_owned)));
        let Some(cursor) = page["after"].as_str() else {
            assert_eq!(pages, 3, "pages of 10 for 24 records");
            break;
        };
        assert_eq!(records.len(), 10, "{page}");
        after = format!("&after={}", encode(cursor));
    }
    let want: Vec<String> = (0..25).filter(|step| *step != 6).map(|step| format!("l/{step:02}")).collect();
    assert_eq!(names, want);
    assert_eq!(node.get("/v1/sources?pattern=**").json()["records"].as_array().map(Vec::len), Some(25));
    let everything = node.get("/v1/sources");
    assert_eq!(everything.status, 200, "{everything:?}");
    node.get("/v1/sources?pattern=a**").assert_problem(400, "bad_pattern");
    node.get("/v1/sources?limit=0").assert_problem(400, "bad_request");
    node.get("/v1/sources?limit=many").assert_problem(400, "bad_request");
    node.get("/v1/sources?colour=red").assert_problem(400, "bad_request");
}

#[test]
fn listing_has_a_hundred_records_unless_told() {
    let node = Node::single();
    let items: Vec<Value> =
        (0..150).map(|step| json!({"source": format!("n/{step:03}"), "data": step})).collect();
    assert_eq!(node.post(json!(items)).status, 200);
    let page = node.get("/v1/sources?pattern=n/*").json();
    assert_eq!(page["records"].as_array().map(Vec::len), Some(100));
    assert!(page["after"].is_string());
}

/// A page was one piece of memory that grew, was copied and was given back to the system, which held up the event loops
/// while clients asked for pages of large records. Now it is sent in pieces, and large data is not copied.
#[test]
fn a_page_of_small_and_large_records_is_one_document() {
    let node = Node::single();
    let mut want = Vec::new();
    for step in 0..60 {
        let source = format!("p/{step:02}");
        let data = match step % 3 {
            0 => json!(step),
            1 => json!("x".repeat(1_000 * step)),
            _ => json!(vec![step; 1_500]),
        };
        node.put(&source, data.clone());
        want.push((source, data));
    }
    let item = json!({"source": "p/bytes", "data_b64": "AP8".repeat(4_000)});
    node.post(item.clone());
    let answer = node.get("/v1/sources?pattern=p/*");
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let page = answer.json();
    let records = page["records"].as_array().expect("records");
    for ((source, data), record) in want.iter().zip(records) {
        assert_eq!((&record["source"], &record["data"]), (&json!(source), data));
    }
    let last = records.last().expect("the bytes");
    assert_eq!((records.len(), &last["data_b64"]), (61, &item["data_b64"]));
    let history = node.get("/v1/sources/p%2F58/history").json();
    assert_eq!(history["records"][0]["data"], want[58].1);
}

#[test]
fn members_are_described() {
    let cluster = Cluster::start(2);
    let answer = cluster[0].get("/v1/members");
    assert_eq!(answer.status, 200);
    let members = answer.json();
    let list = members["members"].as_array().cloned().unwrap_or_default();
    assert_eq!(list.len(), 2, "{members}");
    for (member, node) in list.iter().zip(&cluster.nodes) {
        assert_eq!((&member["id"], &member["state"]), (&json!(node.id), &json!("alive")));
        assert_eq!((&member["http"], &member["gossip"]), (&json!(node.http), &json!(node.gossip)));
        assert_eq!(member["zone"], "");
        assert!(member["incarnation"].is_u64() && member["boot"].is_u64(), "{member}");
        assert_eq!(member["version"], env!("CARGO_PKG_VERSION"));
        assert!(member.get("rtt_us").is_some(), "{member}");
    }
}

#[test]
fn metrics_have_their_names() {
    let cluster = Cluster::start(2);
    let mut subscriber = cluster[1].subscriber("source=x");
    subscriber.snapshot();
    let ts = cluster[0].put("x", json!(1));
    assert_eq!(subscriber.record()["ts"], ts);
    let answer = cluster[1].get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    for name in [
        "anode_records_published_total",
        "anode_records_applied_total",
        "anode_records_stale_total",
        "anode_records_duplicate_total",
        "anode_deliveries_total",
        "anode_conflated_total",
        "anode_members",
        "anode_gossip_datagrams_sent_total",
        "anode_gossip_datagrams_received_total",
        "anode_gossip_bytes_sent_total",
        "anode_gossip_bytes_received_total",
        "anode_data_copies_received_total",
        "anode_propagation_seconds_bucket",
        "anode_propagation_seconds_sum",
        "anode_propagation_seconds_count",
        "anode_shards_differing",
        "anode_clock_offset_seconds",
        "anode_store_pending_records",
        "anode_connections",
        "anode_sources",
    ] {
        assert!(
            crate::harness::http::metric(&answer.body, name, &[]).is_some(),
            "{name} is missing in\n{}",
            answer.body
        );
    }
    let value = |name, labels: &[(&str, &str)]| cluster[1].metric(name, labels);
    assert_eq!(value("anode_members", &[("state", "alive")]), 2.0);
    assert_eq!(value("anode_connections", &[("endpoint", "subscribe")]), 1.0);
    assert_eq!(value("anode_deliveries_total", &[]), 1.0);
    assert_eq!(value("anode_records_applied_total", &[]), 1.0);
    assert_eq!(value("anode_records_published_total", &[]), 0.0);
    assert_eq!(value("anode_propagation_seconds_count", &[]), 1.0);
    assert_eq!(value("anode_sources", &[]), 1.0);
    let (datagrams, bytes) =
        (value("anode_gossip_datagrams_sent_total", &[]), value("anode_gossip_bytes_sent_total", &[]));
    assert!(datagrams > 0.0 && bytes > 28.0 * datagrams, "{bytes} bytes in {datagrams} datagrams");
}
