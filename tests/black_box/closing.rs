//! Orderly shutdown: by SIGTERM, by SIGINT, and what a second signal does.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use serde_json::json;

use crate::harness::wait::{PATIENCE, throughout};
use crate::harness::{Client, Cluster, Deadline, Event, Http, Node, NodeConfig, eventually};

#[test]
fn sigterm_and_sigint_exit_0_within_ten_seconds() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::single();
        node.put("x", json!(1));
        let _idle = node.subscriber("source=x");
        let start = Deadline::after(Duration::from_secs(30));
        node.signal(signal);
        assert_eq!(node.process().wait(Duration::from_secs(15)), Some(0), "SIG{signal}");
        assert!(start.elapsed() < Duration::from_secs(10), "SIG{signal}: {:?}", start.elapsed());
    }
}

#[test]
fn clients_are_closed_4200() {
    let mut node = Node::single();
    let mut publisher = node.publisher();
    let mut subscriber = node.subscriber("source=x");
    subscriber.snapshot();
    node.signal("TERM");
    assert_eq!(subscriber.close_code(), 4200);
    assert_eq!(publisher.close_code(), 4200);
    assert_eq!(node.process().wait(Duration::from_secs(15)), Some(0));
}

#[test]
fn answers_that_were_due_come_before_the_end() {
    let mut node = Node::single();
    let mut client = Client::open(&node.http, "/publish?ack=stored");
    for step in 0..500 {
        client.send_json(json!({"id": step, "source": format!("d/{step}"), "data": step}));
    }
    // After the first answer, the node is known to be working on the requests.
    let mut answers = vec![client.json()];
    node.signal("TERM");
    loop {
        match client.event(Duration::from_secs(15)) {
            Some(Event::Text(text)) => answers.push(crate::harness::json(&text)),
            Some(Event::Close(code, _)) => {
                assert_eq!(code, Some(4200));
                break;
            }
            other => panic!("{other:?} after {} answers", answers.len()),
        }
    }
    assert_eq!(node.process().wait(Duration::from_secs(15)), Some(0));
    let applied: Vec<_> = answers.iter().filter(|answer| answer["result"]["level"] == "stored").collect();
    for answer in &answers {
        let is_refused = answer["error"]["code"] == "overloaded" && answer["error"]["temporary"] == true;
        assert!(answer["result"].is_object() || is_refused, "{answer}");
    }
    node.restart();
    for answer in applied {
        assert!(node.latest(&format!("d/{}", answer["id"])).is_some(), "{answer} was said and is lost");
    }
}

#[test]
fn others_are_told_left_and_take_over() {
    let mut cluster = Cluster::start(3);
    let ts = cluster[1].put("x", json!(1));
    assert_eq!(cluster[1].sigterm(), Some(0));
    for index in [0, 2] {
        cluster[index].wait_ts("x", ts);
        cluster[index].wait_member("b", "left", Duration::from_secs(5));
    }
    let ts = cluster[0].put("y", json!(2));
    cluster[2].wait_ts("y", ts);
}

#[test]
fn a_record_accepted_just_before_the_end_reaches_the_others() {
    let mut cluster = Cluster::start(2);
    let mut client = cluster[0].publisher();
    for step in 0..1000 {
        client.send_json(json!({"source": format!("l/{step}"), "data": step}));
    }
    assert_eq!(client.publish(json!({"source": "last", "data": 1}))["result"]["outcome"], "applied");
    assert_eq!(cluster[0].sigterm(), Some(0));
    assert_eq!(cluster[1].all_records("**").len(), 1001, "links drain before the node leaves");
}

/// Starts two nodes of which the first has more records to hand over than it can, because the second is
/// stopped.
fn with_a_drain() -> Cluster {
    let slow = |config: NodeConfig| NodeConfig { profile: "wan", ..config };
    let cluster = Cluster::configured(2, slow);
    cluster[1].signal("STOP");
    let data = "x".repeat(60_000);
    let mut publisher = cluster[0].publisher();
    for step in 0..40 {
        publisher.send_json(json!({"source": format!("d/{step}"), "data": data}));
    }
    let last = publisher.publish(json!({"source": "d/last", "data": 1}));
    assert_eq!(last["result"]["outcome"], "applied", "{last}");
    cluster
}

/// As [`with_a_drain`], with a client that waits for `replicated`. How soon a node gives up a member that is
/// silent depends on the round trips that it measured, and was seen to be after 1 s; but it owes the client an
/// answer until the member is dead or 5 s have passed.
fn with_a_drain_that_lasts() -> (Cluster, Client) {
    let cluster = with_a_drain();
    let mut waiting = Client::open(&cluster[0].http, "/publish?ack=replicated");
    waiting.send_json(json!({"id": 1, "source": "d/waiting", "data": 1}));
    eventually("the record is taken", PATIENCE, || cluster[0].latest("d/waiting").map(drop));
    (cluster, waiting)
}

/// Returns the status of `/readyz`; 0 if nobody answers.
fn readiness(node: &Node) -> u16 {
    Http::attempt(&node.http, "GET", "/readyz", &[], b"").map_or(0, |answer| answer.status)
}

#[test]
fn a_second_signal_exits_at_once() {
    let (mut cluster, _waiting) = with_a_drain_that_lasts();
    cluster[0].signal("TERM");
    eventually("it drains", PATIENCE, || (readiness(&cluster[0]) == 503).then_some(()));
    // Two signals within a second are one: see below.
    throughout("it drains", Duration::from_millis(1_100), || cluster[0].process().is_running());
    cluster[0].signal("TERM");
    let start = Deadline::after(PATIENCE);
    cluster[0].process().wait(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Supervisors signal a process and its group, and wrappers pass a signal on that the process has got
/// already. The second of two signals at the same time ended the process before anything was stored.
#[test]
fn a_second_signal_within_a_second_is_the_same_one() {
    let (mut cluster, _waiting) = with_a_drain_that_lasts();
    cluster[0].signal("TERM");
    for signal in ["TERM", "INT", "TERM"] {
        throughout("it drains", Duration::from_millis(100), || cluster[0].process().is_running());
        cluster[0].signal(signal);
    }
    assert_eq!(cluster[0].process().wait(PATIENCE), Some(0), "it was stopped in order");
    cluster[0].restart_unready();
    eventually("the store is loaded", PATIENCE, || cluster[0].latest("d/last").map(drop));
}

/// A node that stops closed its listening sockets with connections in their queues, and dropped those whose
/// requests had not come whole: clients saw resets, which say nothing about what to do next.
#[test]
fn until_it_is_gone_a_stopping_node_answers_503_with_retry_after() {
    let mut cluster = with_a_drain();
    let http = cluster[0].http.clone();
    let mut early = crate::harness::http::connect(&http);
    let mut partial = crate::harness::http::connect(&http);
    assert!(partial.write_all(b"GET /v1/members HTTP/1.1\r\n").is_ok());
    cluster[0].signal("TERM");
    let (mut refused, mut resets) = (0, 0);
    while cluster[0].process().is_running() {
        match Http::attempt(&http, "GET", "/v1/members", &[], b"") {
            Ok(answer) if answer.status == 200 => assert_eq!(refused, 0, "it serves again: {answer:?}"),
            Ok(answer) => {
                answer.assert_problem(503, "overloaded");
                assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
                if refused == 0 {
                    let sent = early.write_all(b"GET /v1/members HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    assert!(sent.is_ok());
                }
                refused += 1;
            }
            // The kernel resets a connection that is made in the instant in which the socket is closed.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && resets == 0 => resets += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
    }
    assert!(refused > 0, "no request came while it was stopping");
    for stream in [&mut early, &mut partial] {
        let answer = Http::read(stream);
        assert!(answer.as_ref().is_ok_and(|answer| answer.header("retry-after") == Some("1")), "{answer:?}");
    }
    assert_eq!(cluster[0].process().wait(PATIENCE), Some(0));
}

/// While a node hands over its last records it is not ready, and refuses publishes even on connections that
/// are open.
#[test]
fn while_draining_it_is_not_ready() {
    let (mut cluster, _waiting) = with_a_drain_that_lasts();
    let mut publisher = cluster[0].publisher();
    let start = Deadline::after(PATIENCE);
    cluster[0].signal("TERM");
    eventually("it is not ready", PATIENCE, || (readiness(&cluster[0]) == 503).then_some(()));
    cluster[0].post(json!({"source": "x", "data": 1})).assert_problem(503, "overloaded");
    let error = publisher.publish(json!({"source": "x", "data": 1}))["error"].clone();
    assert_eq!((&error["code"], &error["temporary"]), (&json!("overloaded"), &json!(true)), "{error}");
    assert!(cluster[0].latest("d/last").is_some(), "readers are served to the end");
    assert!(cluster[0].latest("x").is_none(), "what is refused is not applied");
    while cluster[0].process().is_running() {
        assert!(matches!(readiness(&cluster[0]), 0 | 503));
    }
    assert_eq!(cluster[0].process().wait(PATIENCE), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn the_port_is_free_again_at_once() {
    let mut node = Node::single();
    let mut held: Vec<Client> = (0..5).map(|_| node.subscriber("source=x")).collect();
    held.iter_mut().for_each(|client| drop(client.snapshot()));
    for _ in 0..3 {
        assert_eq!(node.sigterm(), Some(0));
        node.restart();
    }
}

/// A shutdown that waits for one thing after the other takes the sum of all their time limits. Here are
/// things of every kind that never end by themselves.
#[test]
fn neither_hung_requests_nor_slow_consumers_hold_up_the_end() {
    let mut node = Node::single();
    let mut held: Vec<_> = [
        "GET /v1/me",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    .iter()
    .map(|said| {
        let mut stream = crate::harness::http::connect(&node.http);
        assert!(stream.write_all(said.as_bytes()).is_ok());
        stream
    })
    .collect();
    let mut slow = node.subscriber("source=big");
    slow.snapshot();
    let mut publisher = node.publisher();
    let filler = "x".repeat(60_000);
    for n in 0..200 {
        publisher.publish(json!({"source": "big", "data": {"n": n, "filler": filler}}));
    }
    let start = Deadline::after(Duration::from_secs(30));
    node.signal("TERM");
    assert_eq!(node.process().wait(Duration::from_secs(15)), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    held.clear();
}
