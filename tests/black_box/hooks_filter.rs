//! The filter of a webhook: what its receiver gets, and what it is never told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::command::{binary, run};
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::{Node, NodeConfig, eventually};
use crate::hooks::{LONG, put_hook, records, start_hook, state, values};

/// Records for which the filter is true come, and deletions; nothing else does, whatever the data is.
#[test]
fn only_what_the_filter_lets_through_is_sent() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let receiver = Receiver::start(|_| Reaction::status(204));
    let url = format!("http://{}/", receiver.addr);
    let put = run(
        binary()
            .args(["--url", &format!("http://{}", node.http), "hook", "put", "warm", "--on", "s/*"])
            .args(["--url", &url, "--filter", "data.t > 10.0 && source != \"s/never\""]),
        "",
    );
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    eventually("it runs", LONG, || node.latest("$hook/warm/token"));
    for t in [5, 15, 3, 20] {
        node.put("s/1", json!({"t": t}));
    }
    node.put("s/2", json!("warm"));
    node.put("s/never", json!({"t": 99}));
    node.post(json!({"source": "s/2", "deleted": true}));
    node.post(json!({"source": "s/1", "deleted": true}));
    node.put("s/end", json!({"t": 11}));
    eventually("the last one came", LONG, || {
        (!values(&receiver.requests(), "s/end").is_empty()).then_some(())
    });
    let told = records(&receiver.requests());
    assert_eq!(values(&receiver.requests(), "s/1"), [json!({"t": 15}), json!({"t": 20}), json!(null)]);
    let deleted: Vec<_> = told.iter().filter(|record| record["deleted"] == true).collect();
    assert_eq!(deleted.len(), 2, "deletions always come: {told:?}");
    assert_eq!(told.len(), 5, "{told:?}");
    // Another filter is another webhook: it begins anew, with what comes from then on.
    start_hook(&node, "warm", json!({"on": "s/*", "url": url, "filter": "data.t < 10.0"}));
    eventually("the new filter is in force", LONG, || {
        node.put("s/1", json!({"t": 1}));
        values(&receiver.requests(), "s/1").contains(&json!({"t": 1})).then_some(())
    });
}

#[test]
fn a_bad_filter_is_refused_with_the_place() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    for (filter, place) in [
        ("data >", "line 1, column 7"),
        ("data > 1 &&\n now > 2", "line 2, column 2"),
        ("drop()", "line 1, column 1"),
    ] {
        let answer = put_hook(&node, "x", json!({"on": "a", "url": "http://127.0.0.1:1/", "filter": filter}));
        answer.assert_problem(400, "bad_request");
        assert!(answer.body.contains("filter") && answer.body.contains(place), "{filter}: {}", answer.body);
    }
    assert_eq!(node.get("/v1/hook").json()["hook"], json!([]));
}

/// A webhook that falls behind gets the newest record of each source. A subscription is told then that a source has left
/// its filter; such a notice once came to the receiver as if it were a record.
#[test]
fn a_receiver_that_falls_behind_is_not_told_what_has_left_the_filter() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = is_slow.clone();
    let receiver = Receiver::start(move |_| match slow.load(Ordering::Relaxed) {
        true => Reaction::Hang,
        false => Reaction::status(200),
    });
    let url = format!("http://{}/", receiver.addr);
    start_hook(&node, "h", json!({"on": "s/*", "url": url, "timeout": "1s", "filter": "data.n % 2 == 0"}));
    let mut publisher = node.publisher();
    let text = "x".repeat(20_000);
    for n in 0..600 {
        publisher.publish(json!({"source": format!("s/{}", n % 5), "data": {"n": 2 * n, "x": text}}));
    }
    for source in 0..4 {
        publisher.publish(json!({"source": format!("s/{source}"), "data": {"n": 1}}));
    }
    is_slow.store(false, Ordering::Relaxed);
    eventually("the newest that matches came", Duration::from_secs(60), || {
        values(&receiver.requests(), "s/4").iter().any(|data| data["n"] == json!(1_198)).then_some(())
    });
    eventually("it is not behind", LONG, || (state(&node, "h")["behind"] == false).then_some(()));
    node.put("s/end", json!({"n": 0}));
    eventually("and goes on", LONG, || (!values(&receiver.requests(), "s/end").is_empty()).then_some(()));
    for record in records(&receiver.requests()) {
        assert!(record.get("gone").is_none() && record["origin"] == "a", "{record}");
        assert!(record["data"]["n"].as_u64().is_some_and(|n| n % 2 == 0), "{record}");
    }
}
