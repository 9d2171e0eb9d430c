//! Metrics for operators: the process, acknowledgements, clients and queues.

use std::time::Duration;

use serde_json::json;

use crate::harness::file_size::set_writable;
use crate::harness::rights::{RightsFile, token_entry};
use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Cluster, Http, Node, NodeConfig, eventually, ports};

#[test]
fn the_process_is_measured() {
    let node = Node::single();
    let value = |name: &str| node.metric(name, &[]);
    eventually("it was sampled", Duration::from_secs(10), || {
        (value("process_resident_memory_bytes") > 1e6).then_some(())
    });
    let resident = value("process_resident_memory_bytes");
    assert!((resident / node.rss_bytes() as f64 - 1.0).abs() < 0.5, "{resident}");
    assert!(value("process_open_fds") > 5.0 && value("process_max_fds") >= value("process_open_fds"));
    let now_s = crate::harness::wall_us() as f64 / 1e6;
    let started_s = value("process_start_time_seconds");
    assert!((now_s - 120.0..now_s + 5.0).contains(&started_s), "{started_s} at {now_s}");
    assert!(
        value("anode_disk_free_bytes") > 0.0 && value("anode_disk_bytes") >= value("anode_disk_free_bytes")
    );
    let before = value("process_cpu_seconds_total");
    eventually("it takes processor time", Duration::from_secs(30), || {
        for at in 0..200 {
            node.put("cpu", json!(at));
        }
        (value("process_cpu_seconds_total") > before).then_some(())
    });
}

#[test]
fn acknowledgements_and_commits_are_timed() {
    let cluster = Cluster::start(2);
    let node = &cluster[0];
    let count = |name: &str, labels: &[(&str, &str)]| node.metric(&format!("anode_{name}_count"), labels);
    let mut publisher = node.publisher();
    for step in 0..5 {
        publisher.publish(json!({"source": "s", "data": step, "ack": "stored"}));
        publisher.publish(json!({"source": "r", "data": step, "ack": "replicated"}));
    }
    Http::post(&node.http, "/v1/publish?ack=replicated", "{\"source\":\"h\",\"data\":1}");
    assert!(count("ack_seconds", &[("level", "stored")]) >= 1.0);
    assert_eq!(count("ack_seconds", &[("level", "replicated")]), 6.0);
    assert!(count("store_commit_seconds", &[]) >= 1.0);
    let sum = node.metric("anode_ack_seconds_sum", &[("level", "replicated")]);
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
}

#[test]
fn clients_are_counted_by_bytes_patterns_and_ends() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let value = |name: &str, labels: &[(&str, &str)]| node.metric(&format!("anode_{name}"), labels);
    let mut client = Client::open(&node.http, "/subscribe?source=a/*&source=b/*");
    client.snapshot();
    assert_eq!(value("subscription_patterns", &[]), 2.0);
    let (received, sent) = (value("client_bytes_received_total", &[]), value("client_bytes_sent_total", &[]));
    let mut publisher = node.publisher();
    let data = "x".repeat(10_000);
    publisher.publish(json!({"source": "a/b", "data": data}));
    client.record();
    assert!(value("client_bytes_received_total", &[]) >= received + 10_000.0);
    eventually("what was sent is counted", Duration::from_secs(10), || {
        (value("client_bytes_sent_total", &[]) >= sent + 10_000.0).then_some(())
    });
    // A binary frame on a connection of JSON is a mistake that ends it.
    publisher.send(tungstenite::Message::Binary(b"x".to_vec().into()));
    eventually("the close is counted", Duration::from_secs(10), || {
        (value("client_closes_total", &[("code", "1003")]) == 1.0).then_some(())
    });
    assert_eq!(value("slow_consumers_total", &[]), 0.0);
    // Bodies and answers of plain HTTP were not counted.
    let (received, sent) = (value("client_bytes_received_total", &[]), value("client_bytes_sent_total", &[]));
    assert_eq!(node.put("h", json!(data)), node.latest("h").expect("a record")["ts"]);
    assert!(value("client_bytes_received_total", &[]) >= received + 10_000.0);
    assert!(value("client_bytes_sent_total", &[]) >= sent + 10_000.0);
    drop(client);
    eventually("its patterns are gone", Duration::from_secs(10), || {
        (value("subscription_patterns", &[]) == 0.0).then_some(())
    });
}

/// Who guessed tokens over plain HTTP was neither counted nor logged.
#[test]
fn requests_that_the_door_refuses_are_counted_and_logged() {
    let rights = RightsFile::new("[anonymous]\nobserve = true\n");
    let node =
        Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path(), "--log", "json"]));
    let refused = |status| node.metric("anode_client_refusals_total", &[("status", status)]);
    assert_eq!(node.post(json!({"source": "s", "data": 1})).status, 401);
    assert_eq!(Http::with_token(&node.http, "GET", "/v1/members", "guessed").status, 401);
    assert_eq!(refused("401"), 2.0);
    let log = eventually("it is logged", Duration::from_secs(10), || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains("connections were refused"))?;
        Some(crate::harness::json(line))
    });
    assert_eq!((&log["status"], &log["code"]), (&json!(401), &json!("unauthorized")), "{log}");
    assert_eq!(log["last"], "127.0.0.1", "{log}");
    // A node without rights has pages and names that it refuses.
    let node = Node::start(NodeConfig::named("b").in_memory());
    let body = br#"{"source":"s","data":1}"#;
    let origin = [("Origin", "http://other.example"), ("Content-Type", "application/json")];
    assert_eq!(Http::request(&node.http, "POST", "/v1/publish", &origin, body).status, 403);
    assert_eq!(node.metric("anode_client_refusals_total", &[("status", "403")]), 1.0);
}

/// Whoever reaches the port for those who watch may watch, with or without TLS on the port for clients, and whatever that
/// asks for.
#[test]
fn those_who_watch_bring_no_token() {
    let rights = RightsFile::new("");
    let watch = format!("127.0.0.1:{}", ports::free());
    let flags = ["--auth", &rights.path(), "--metrics", &watch];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(Http::get(&watch, path).status, 200, "{path}");
    }
    node.get("/metrics").assert_problem(401, "unauthorized");
    for path in ["/", "/v1/members", "/v1/sources"] {
        Http::get(&watch, path).assert_problem(404, "not_found");
    }
}

/// A token that reached for what it may not have was neither counted nor logged when the path alone did not tell: a record or
/// a source beyond its rights, or too many records.
#[test]
fn requests_that_handlers_refuse_are_counted_and_logged() {
    let token = token_entry("slow", "secret", "publish = [\"slow/*\"]\nsubscribe = [\"slow/*\"]\nrate = 1");
    let anonymous = "[anonymous]\nobserve = true\nsubscribe = [\"open/*\"]\n\n";
    let rights = RightsFile::new(&format!("{anonymous}{token}"));
    let node =
        Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path(), "--log", "json"]));
    let refused = |status| node.metric("anode_client_refusals_total", &[("status", status)]);
    assert_eq!(node.get("/v1/sources/open/none").status, 404);
    assert_eq!(node.get("/v1/sources/closed/a").status, 401);
    assert_eq!(refused("401"), 1.0);
    let ask = |method, path: &str| Http::with_token(&node.http, method, path, "secret");
    assert_eq!(ask("GET", "/v1/sources/closed/a").status, 403);
    assert_eq!(ask("PUT", "/v1/sources/closed/a").status, 403);
    assert_eq!(refused("403"), 2.0);
    let statuses: Vec<u16> = (0..20).map(|_| ask("PUT", "/v1/sources/slow/a").status).collect();
    let too_many = statuses.iter().filter(|&&status| status == 429).count();
    assert!(too_many > 0, "{statuses:?}");
    assert_eq!(refused("429"), too_many as f64);
    // What is wrong with a request itself is no refusal of its sender.
    assert_eq!(refused("400") + refused("other"), 0.0);
    let log = eventually("it is logged", Duration::from_secs(10), || {
        let log = node.log();
        let line =
            log.lines().find(|line| line.contains("were refused") && line.contains("\"status\":403"))?;
        Some(crate::harness::json(line))
    });
    assert_eq!((&log["code"], &log["last"]), (&json!("forbidden"), &json!("127.0.0.1")), "{log}");
}

#[test]
fn a_slow_consumer_is_counted() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let slow = Client::open(&node.http, "/subscribe?source=**&mode=all&snapshot=false");
    let mut publisher = node.publisher();
    let data = "x".repeat(50_000);
    eventually("it is closed", Duration::from_secs(60), || {
        for _ in 0..50 {
            publisher.send_json(json!({"source": "a", "data": data}));
        }
        (node.metric("anode_slow_consumers_total", &[]) == 1.0).then_some(())
    });
    assert_eq!(node.metric("anode_client_closes_total", &[("code", "4202")]), 1.0);
    drop(slow);
}

#[test]
fn queues_and_bounds_have_figures() {
    let node =
        Node::start(NodeConfig::named("a").with(&["--max-connections", "1234", "--max-memory", "64MiB"]));
    let text = node.get("/metrics").body;
    for queue in ["outbox", "store", "mailboxes", "merges", "streams", "datagrams", "hooks", "traces"] {
        assert!(text.contains(&format!("anode_queue_bytes{{queue=\"{queue}\"}} ")), "{queue} in\n{text}");
    }
    assert_eq!(node.metric("anode_limit", &[("name", "connections")]), 1234.0);
    assert_eq!(node.metric("anode_limit", &[("name", "map_bytes")]), 64.0 * 1024.0 * 1024.0);
    // Every metric has its head, and none stands twice.
    let mut series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series)
        .collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all);
}

/// Nothing tested that the figure of a queue follows what waits in it. Records of peers wait for a store that fails, and what
/// is being written when it fails is not counted as waiting.
#[test]
fn the_figure_of_a_queue_rises_and_falls() {
    let mut cluster = Cluster::configured(2, |config| NodeConfig { survives_failing_writes: true, ..config });
    cluster.nodes[1].allowed_errors = vec!["the store failed to commit"];
    let (a, b) = (&cluster[0], &cluster[1]);
    let waiting = || b.metric("anode_queue_bytes", &[("queue", "store")]);
    let pending = || b.metric("anode_store_pending_records", &[]);
    b.wait_ts("q/first", a.put("q/first", json!(0)));
    eventually("it is written", PATIENCE, || (pending() == 0.0 && waiting() == 0.0).then_some(()));
    set_writable(b.pid(), false);
    b.wait_ts("q/first", a.put("q/first", json!(1)));
    eventually("the store fails", PATIENCE, || (b.metric("anode_store_up", &[]) == 0.0).then_some(()));
    let data = "x".repeat(5_000);
    let mut waited = waiting();
    for part in 0..4 {
        let record =
            |number: i32| json!({"id": number, "source": format!("q/{part}/{number}"), "data": data});
        let answers = a.post(json!((0..50).map(record).collect::<Vec<_>>()));
        assert_eq!(answers.body.matches("\"applied\"").count(), 50, "{answers:?}");
        eventually("what waits has grown", PATIENCE, || (waiting() >= waited + 250_000.0).then_some(()));
        waited = waiting();
    }
    assert!((1_000_000.0..2_000_000.0).contains(&waited), "{waited}");
    assert_eq!(pending(), 201.0);
    eventually("nothing waits at the other node, whose store works", PATIENCE, || {
        (a.metric("anode_queue_bytes", &[("queue", "store")]) == 0.0).then_some(())
    });
    set_writable(b.pid(), true);
    eventually("nothing waits", PATIENCE, || (pending() == 0.0 && waiting() == 0.0).then_some(()));
}

/// The queues and tables of membership and replication had figures in the simulator alone.
#[test]
fn what_membership_and_replication_hold_has_figures_and_bounds() {
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        eventually("it knows the others", PATIENCE, || {
            (node.metric("anode_gossip_queue", &[("queue", "members")]) == 3.0).then_some(())
        });
        let text = node.get("/metrics").body;
        let bounds: Vec<&str> =
            text.lines().filter(|line| line.starts_with("anode_gossip_queue_limit{")).collect();
        assert!(bounds.len() > 10, "{text}");
        for line in bounds {
            let (series, bound) = line.rsplit_once(' ').expect("a value");
            let used = series.replace("anode_gossip_queue_limit", "anode_gossip_queue") + " ";
            let used = text.lines().find_map(|line| line.strip_prefix(&used)).expect("each has both figures");
            let (used, bound): (f64, f64) =
                (used.parse().expect("a number"), bound.parse().expect("a number"));
            // Without keys, no lives with a seal are kept.
            assert!(used <= bound && (bound > 0.0 || line.contains("seal")), "{line}: {used}");
        }
    }
    assert_eq!(cluster[0].metric("anode_gossip_datagrams_dropped_total", &[]), 0.0);
}

/// What a client has not read is counted until it has read it, or has gone.
#[test]
fn what_a_subscriber_has_not_read_rises_and_falls() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let held = || node.metric("anode_client_memory_bytes", &[]);
    let mut slow = node.subscriber("source=s&mode=all");
    slow.snapshot();
    let mut publisher = node.publisher();
    let before = held();
    let data = "x".repeat(50_000);
    let mut number = 0usize;
    let mut flood = || {
        eventually("what is not read is counted", PATIENCE, || {
            number += 1;
            publisher.publish(json!({"source": "s", "data": {"number": number, "data": data}}));
            (held() > before + 250_000.0).then_some(number)
        })
    };
    let is_free = || eventually("it is free", PATIENCE, || (held() < before + 60_000.0).then_some(()));
    let last = flood();
    let read = slow.records_until(PATIENCE, |record| record["data"]["number"] == last);
    let records = read.iter().filter(|message| message["source"] == "s").count();
    assert_eq!(records, last, "every record, because the client reads again before it is closed");
    is_free();
    flood();
    drop(slow);
    is_free();
}
