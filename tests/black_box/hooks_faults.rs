//! Webhooks whose receiver fails in every way that receivers do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::clock::ShiftedClock;
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::tls::Authority;
use crate::harness::wait::throughout;
use crate::harness::{Node, NodeConfig, eventually, ports};
use crate::hooks::{LONG, put_hook, records, start_hook, state, values};

/// Each way of failing in turn, and then an answer: nothing is lost, nothing overtakes, and all attempts of a batch have
/// the same id.
#[test]
fn a_receiver_that_fails_in_every_way_gets_everything_in_order() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let addr = format!("127.0.0.1:{}", ports::free());
    let definition = json!({"on": "s", "url": format!("http://{addr}/"), "timeout": "500ms"});
    start_hook(&node, "h", definition);
    node.put("s", json!(0));
    // Nobody listens at first.
    let told = eventually("it is told that nobody listens", LONG, || {
        let told = state(&node, "h");
        (told["failures"].as_u64() > Some(0)).then_some(told)
    });
    assert!(told["error"].as_str().is_some_and(|error| error.contains("connection")), "{told}");
    assert!(told["failing_since"].is_u64(), "{told}");
    let count = AtomicUsize::new(0);
    let receiver = Receiver::at(&addr, None, move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reaction::status(500),
        1 => Reaction::Hang,
        2 => Reaction::Cut,
        3 => Reaction::HalfHead,
        4 => Reaction::with(302, "Location", "http://127.0.0.1:1/elsewhere"),
        _ => Reaction::status(200),
    });
    for n in 1..=3 {
        node.put("s", json!(n));
    }
    eventually("all came", Duration::from_secs(90), || {
        let requests = receiver.requests();
        values(&requests, "s").contains(&json!(3)).then_some(())
    });
    let requests = receiver.requests();
    assert!(requests.len() >= 6, "{}", requests.len());
    let first: Vec<_> =
        requests[..6].iter().map(|request| (request.header("webhook-id"), &request.body)).collect();
    assert!(first.iter().all(|one| *one == first[0]), "the same batch until it is taken: {first:?}");
    let taken = values(&requests[5..], "s");
    assert_eq!(taken, [json!(0), json!(1), json!(2), json!(3)]);
    let told = eventually("the state is fine again", LONG, || {
        Some(state(&node, "h")).filter(|told| told["error"].is_null() && told["failures"] == 0)
    });
    assert!(told["failing_since"].is_null() && told["last_success"].is_u64(), "{told}");
    assert!(node.metric("anode_hook_failures_total", &[]) >= 5.0);
}

/// Without a wish of the receiver, each further attempt comes after about twice the time.
#[test]
fn attempts_come_later_and_later() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0..4 => Reaction::status(500),
        _ => Reaction::status(200),
    });
    start_hook(&node, "h", json!({"on": "s", "url": format!("http://{}/", receiver.addr)}));
    node.put("s", json!(1));
    let requests =
        eventually("five attempts", LONG, || Some(receiver.requests()).filter(|all| all.len() >= 5));
    let waits_ms: Vec<u128> = requests.windows(2).map(|two| (two[1].at - two[0].at).as_millis()).collect();
    for (wait_ms, (least, most)) in
        waits_ms.iter().zip([(500, 1_000), (1_000, 2_000), (2_000, 4_000), (4_000, 8_000)])
    {
        // A machine with other work to do wakes late.
        assert!((least..most + 1_500).contains(wait_ms), "{waits_ms:?}");
    }
}

/// The status decides, however slowly a body comes behind it.
#[test]
fn a_slow_body_behind_a_good_status_holds_nothing_up() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let receiver = Receiver::start(|_| Reaction::SlowBody);
    let definition = json!({"on": "s", "url": format!("http://{}/", receiver.addr)});
    start_hook(&node, "h", definition);
    for n in 0..3 {
        node.put("s", json!(n));
        eventually("it came", Duration::from_secs(10), || {
            values(&receiver.requests(), "s").contains(&json!(n)).then_some(())
        });
    }
    assert_eq!(values(&receiver.requests(), "s").len(), 3, "each once");
}

#[test]
fn retry_after_is_kept_and_too_large_batches_are_cut() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let receiver = Receiver::start(|request| match records(std::slice::from_ref(request)).len() {
        0..3 => Reaction::status(200),
        _ => Reaction::status(413),
    });
    for n in 0..10 {
        node.put(&format!("s/{n}"), json!(n));
    }
    let url = format!("http://{}/", receiver.addr);
    start_hook(&node, "cut", json!({"on": "s/*", "url": url, "snapshot": true}));
    eventually("all came in parts", LONG, || {
        let requests = receiver.requests();
        let taken: Vec<_> =
            requests.into_iter().filter(|one| records(std::slice::from_ref(one)).len() < 3).collect();
        (records(&taken).len() >= 10).then_some(())
    });
    // A receiver that asks for time gets it.
    let asked = AtomicUsize::new(0);
    let slow = Receiver::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reaction::with(429, "Retry-After", "3"),
        1 => Reaction::with(503, "Retry-After", "2"),
        _ => Reaction::status(200),
    });
    start_hook(&node, "asks", json!({"on": "t", "url": format!("http://{}/", slow.addr)}));
    node.put("t", json!(1));
    let requests = eventually("three requests", LONG, || Some(slow.requests()).filter(|all| all.len() >= 3));
    let waits = [requests[1].at - requests[0].at, requests[2].at - requests[1].at];
    assert!(waits[0] >= Duration::from_secs(3) && waits[1] >= Duration::from_secs(2), "{waits:?}");
    assert!(waits[0] < Duration::from_secs(8), "{waits:?}");
}

#[test]
fn gone_ends_it_until_it_is_put_anew() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reaction::status(410),
        _ => Reaction::status(200),
    });
    let definition = json!({"on": "s", "url": format!("http://{}/", receiver.addr)});
    start_hook(&node, "h", definition.clone());
    node.put("s", json!(1));
    let told = eventually("it is dead", LONG, || Some(state(&node, "h")).filter(|told| told["dead"] == true));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("410")), "{told}");
    node.put("s", json!(2));
    throughout("nothing more is sent", Duration::from_secs(2), || receiver.requests().len() == 1);
    assert_eq!(node.metric("anode_hook_ended_total", &[]), 1.0);
    assert_eq!(put_hook(&node, "h", definition).status, 200);
    // What came meanwhile comes now.
    eventually("it is alive again", LONG, || {
        values(&receiver.requests()[1..], "s").contains(&json!(2)).then_some(())
    });
    eventually("it is told", LONG, || (state(&node, "h")["dead"] == false).then_some(()));
}

#[test]
fn after_a_day_without_success_it_is_dead() {
    let clock = ShiftedClock::ahead_by(0);
    let node = Node::start(NodeConfig::named("a").in_memory().with_clock(&clock));
    let receiver = Receiver::start(|_| Reaction::status(503));
    start_hook(&node, "h", json!({"on": "s", "url": format!("http://{}/", receiver.addr)}));
    node.put("s", json!(1));
    eventually("it fails", LONG, || (state(&node, "h")["failures"].as_u64() >= Some(1)).then_some(()));
    clock.set_ahead_by(23 * 3_600);
    let before = receiver.requests().len();
    eventually("it still tries", LONG, || (receiver.requests().len() > before).then_some(()));
    assert_eq!(state(&node, "h")["dead"], json!(false));
    clock.set_ahead_by(24 * 3_600 + 5);
    let told = eventually("it is dead", LONG, || Some(state(&node, "h")).filter(|told| told["dead"] == true));
    let error = told["error"].as_str().unwrap_or_default();
    assert!(error.contains("a day") && error.contains("503"), "{told}");
}

/// A receiver whose certificate nobody vouches for gets nothing, and one that is vouched for does.
#[test]
fn certificates_are_checked() {
    let authority = Authority::new("hooks");
    let pair = authority.of_node();
    let addr = format!("127.0.0.1:{}", ports::free());
    let receiver = Receiver::at(&addr, Some(&pair), |_| Reaction::status(200));
    let definition = json!({"on": "s", "url": format!("https://{addr}/")});
    let stranger = Node::start(NodeConfig::named("a").in_memory());
    start_hook(&stranger, "h", definition.clone());
    stranger.put("s", json!(1));
    let told =
        eventually("it fails", LONG, || Some(state(&stranger, "h")).filter(|told| !told["error"].is_null()));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("certificate")), "{told}");
    assert!(receiver.requests().is_empty());
    drop(stranger);
    let config = NodeConfig::named("b").in_memory().with_env("SSL_CERT_FILE", &authority.file("ca.pem"));
    let node = Node::start(config);
    start_hook(&node, "h", definition);
    node.put("s", json!(1));
    eventually("it came", LONG, || values(&receiver.requests(), "s").contains(&json!(1)).then_some(()));
}

/// While a receiver hangs, far more is published than may wait for it. In the end it has the newest record of every source.
#[test]
fn a_receiver_that_falls_behind_gets_the_newest() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let is_slow = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let slow = is_slow.clone();
    let receiver = Receiver::start(move |_| match slow.load(Ordering::Relaxed) {
        true => Reaction::Hang,
        false => Reaction::status(200),
    });
    let url = format!("http://{}/", receiver.addr);
    let batch =
        json!({"on": "s/*", "url": url, "timeout": "1s", "batch_records": 1000, "batch_bytes": 1 << 20});
    start_hook(&node, "h", batch);
    let before = node.rss_bytes();
    let mut publisher = node.publisher();
    let text = "x".repeat(20_000);
    for n in 0..600 {
        let record = json!({"source": format!("s/{}", n % 5), "data": {"n": n, "x": text}});
        publisher.publish(record);
    }
    // The figure of its queue follows what waits for the receiver.
    let waiting = || node.metric("anode_queue_bytes", &[("queue", "hooks")]);
    eventually("records wait", LONG, || (waiting() > 3.0 * 1024.0 * 1024.0).then_some(()));
    assert!(waiting() < 5.0 * 1024.0 * 1024.0, "{}", waiting());
    let grown = node.rss_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "grew by {} MiB", grown >> 20);
    is_slow.store(false, Ordering::Relaxed);
    eventually("the newest of each came", Duration::from_secs(60), || {
        let requests = receiver.requests();
        let newest = |source: usize| {
            let last = values(&requests, &format!("s/{source}")).pop().unwrap_or_default();
            last["n"] == json!(595 + source)
        };
        (0..5).all(newest).then_some(())
    });
    let told = eventually("it is not behind", LONG, || {
        Some(state(&node, "h")).filter(|told| told["behind"] == false)
    });
    assert!(told["error"].is_null(), "{told}");
    eventually("nothing waits", LONG, || (waiting() == 0.0).then_some(()));
}
