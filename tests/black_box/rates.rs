//! Rates, floods, guessing, and the bounds of one address and one connection.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::wait::throughout;
use crate::harness::ws::{Handshake, shake_with};
use crate::harness::{Client, Cluster, Deadline, Event, Http, Node, NodeConfig, eventually};

fn start(text: &str) -> (Node, RightsFile) {
    let file = RightsFile::new(text);
    (Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()])), file)
}

fn post(node: &Node, token: &str, body: &str) -> Http {
    Http::request(&node.http, "POST", "/v1/publish", &[("Authorization", &bearer(token))], body.as_bytes())
}

#[test]
fn a_rate_is_a_seconds_worth_at_once_for_all_connections_of_a_token_together() {
    let entries = [
        token_entry("slow", "slow-secret", "publish = [\"**\"]\nrate = 10"),
        token_entry("free", "free-secret", "publish = [\"**\"]"),
    ];
    let (node, _file) = start(&entries.concat());
    let mut one = Client::with_token(&node.http, "/publish", "slow-secret");
    let mut other = Client::with_token(&node.http, "/publish", "slow-secret");
    let (mut taken, mut refused) = (0, 0);
    for number in 0..15 {
        for client in [&mut one, &mut other] {
            let answer = client.publish(json!({"source": "a", "data": number}));
            match answer["error"]["code"].as_str() {
                None => taken += 1,
                Some(code) => {
                    refused += 1;
                    assert_eq!(
                        (code, &answer["error"]["temporary"]),
                        ("rate_limited", &json!(true)),
                        "{answer}"
                    );
                    let wait_ms = answer["error"]["retry_after_ms"].as_u64();
                    assert!(wait_ms.is_some_and(|ms| (1..=1_000).contains(&ms)), "{answer}");
                }
            }
        }
    }
    assert!((10..=25).contains(&taken) && refused >= 5, "{taken} taken, {refused} refused");
    let batch: Vec<_> = (0..50).map(|n| json!({"id": n, "source": "a", "data": n})).collect();
    let answers = post(&node, "slow-secret", &json!(batch).to_string()).json();
    assert!(answers.to_string().contains("rate_limited"), "{answers}");
    let limited = post(&node, "slow-secret", r#"{"source":"a","data":1}"#);
    limited.assert_problem(429, "rate_limited");
    assert_eq!(limited.header("retry-after"), Some("1"), "{limited:?}");
    assert!(limited.json()["retry_after_ms"].is_u64(), "{limited:?}");
    for number in 0..100 {
        let answer = post(&node, "free-secret", &json!({"source": "b", "data": number}).to_string());
        assert_eq!(answer.status, 200, "others are not affected: {answer:?}");
    }
    throughout("the rate fills up", Duration::from_millis(1_100), || true);
    let again = one.publish(json!({"source": "a", "data": "later"}));
    assert_eq!(again["result"]["outcome"], "applied", "{again}");
}

/// A rate is that of a token into one node: what it has used up at one node is there at another one.
#[test]
fn each_node_has_a_bucket_of_its_own() {
    let entry = token_entry("slow", "slow-secret", "publish = [\"**\"]\nrate = 5");
    let file = RightsFile::new(&format!("[anonymous]\nobserve = true\n{entry}"));
    let cluster = Cluster::start_with(2, &["--auth", &file.path()]);
    let batch: Vec<_> = (0..30).map(|n| json!({"id": n, "source": "a", "data": n})).collect();
    for node in &cluster.nodes {
        let answers = post(node, "slow-secret", &json!(batch).to_string()).json();
        let answers = answers.as_array().cloned().unwrap_or_default();
        let taken = answers.iter().filter(|answer| answer["result"].is_object()).count();
        let limited = answers.iter().filter(|answer| answer["error"]["code"] == "rate_limited").count();
        assert_eq!(taken + limited, 30, "{}: {answers:?}", node.id);
        assert!((5..30).contains(&taken), "{}: {taken} taken", node.id);
    }
}

#[test]
fn who_goes_on_at_ten_times_the_rate_is_closed_with_4101() {
    let (node, _file) = start(&token_entry("slow", "slow-secret", "publish = [\"**\"]\nrate = 5"));
    let mut calm = Client::with_token(&node.http, "/publish", "slow-secret");
    let mut flood = Client::with_token(&node.http, "/publish", "slow-secret");
    let start = Deadline::after(Duration::from_secs(40));
    let code = loop {
        assert!(start.left().is_some(), "the flood goes on");
        let batch: Vec<_> = (0..20).map(|n| json!({"source": "a", "data": n})).collect();
        flood.try_send(tungstenite::Message::text(json!(batch).to_string()));
        match flood.event(Duration::from_millis(100)) {
            Some(Event::Close(code, _)) => break code,
            Some(Event::Eof) => panic!("closed without a code"),
            _ => {}
        }
    };
    assert_eq!(code, Some(4101));
    assert!(start.elapsed() >= Duration::from_secs(9), "closed after {:?}", start.elapsed());
    let answer = calm.publish(json!({"source": "a", "data": "calm"}));
    assert!(answer["result"].is_object() || answer["error"]["code"] == "rate_limited", "{answer}");
}

/// Sends `GET path` with a token from another address of this machine.
fn get_from(address: &str, node: &Node, token: &str) -> Http {
    let stream = connect_from(address, node);
    let request = format!(
        "GET /v1/members HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n",
        node.http
    );
    let mut stream = stream;
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    Http::read(&mut stream).unwrap_or_else(|error| panic!("{error}"))
}

fn connect_from(address: &str, node: &Node) -> TcpStream {
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let from: SocketAddr = format!("{address}:0").parse().map_err(std::io::Error::other)?;
        let to: SocketAddr = node.http.parse().map_err(std::io::Error::other)?;
        socket.bind(&from.into())?;
        socket.connect(&to.into())?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    };
    connect().unwrap_or_else(|error| panic!("from {address}: {error}"))
}

#[test]
fn guessing_costs_an_address_more_each_time_and_others_nothing() {
    let (node, _file) = start(&token_entry("ops", "ops-secret", "admin = true"));
    let mut waits = Vec::new();
    for number in 0..200 {
        let answer = get_from("127.0.0.9", &node, &format!("guess-{number}"));
        match answer.status {
            401 => assert!(number < 160, "{number}: {answer:?}"),
            429 => {
                answer.assert_problem(429, "rate_limited");
                let wait = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok());
                waits.push(wait.unwrap_or_else(|| panic!("{answer:?}")));
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!((30..150).contains(&waits.len()), "{} of 200 were looked at", 200 - waits.len());
    assert!(waits.iter().all(|wait| (1..=60).contains(wait)), "{waits:?}");
    // After the wait one more guess is looked at, and costs more.
    let wait = Duration::from_secs(waits.last().copied().unwrap_or(0).min(20) + 1);
    throughout("the debt is forgiven", wait, || true);
    assert_eq!(get_from("127.0.0.9", &node, "one-more").status, 401);
    let next = get_from("127.0.0.9", &node, "and-another");
    let next = next.header("retry-after").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    assert!(next > *waits.first().unwrap_or(&0), "{next} after {waits:?}");
    assert_eq!(get_from("127.0.0.1", &node, "wrong").status, 401, "another address has its own debts");
    assert_eq!(get_from("127.0.0.1", &node, "ops-secret").status, 200);
    assert_eq!(get_from("127.0.0.9", &node, "ops-secret").status, 200, "a good token is let in");
}

/// A wrong token in a frame costs its address as much as one in a request.
#[test]
fn guessing_in_frames_costs_as_much() {
    let (node, _file) = start(&token_entry("ops", "ops-secret", "admin = true"));
    for number in 0..130 {
        let mut client = Client::open(&node.http, "/publish");
        client.send_json(json!({"id": 1, "auth": {"token": format!("guess-{number}")}}));
        let code = client.next()["error"]["code"].clone();
        assert!(code == "unauthorized" || number > 90 && code == "rate_limited", "{number}: {code}");
    }
    let body = r#"{"source":"a","data":1}"#;
    eventually("the address has to wait", Duration::from_secs(10), || {
        (post(&node, "one-more", body).status == 429).then_some(())
    });
    assert_eq!(post(&node, "ops-secret", body).status, 200, "a good token is let in");
}

#[test]
fn one_address_has_as_many_connections_as_it_may() {
    let flags = ["--max-connections-per-address", "3"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    // The connections by which the start was waited for may still be open.
    throughout("they end", Duration::from_millis(500), || true);
    let held: Vec<Client> = (0..3).map(|_| Client::open(&node.http, "/publish")).collect();
    let Handshake::Refused(answer) = shake_with(&node.http, "/publish", &[], &[("Host", &node.http)]) else {
        panic!("the fourth connection was upgraded")
    };
    answer.assert_problem(429, "rate_limited");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    node.get("/v1/members").assert_problem(429, "rate_limited");
    assert_eq!(node.get("/healthz").status, 200, "health is told whatever there is");
    let from_elsewhere = get_from("127.0.0.9", &node, "none");
    assert_eq!(from_elsewhere.status, 200, "another address has its own bound");
    drop(held);
    eventually("there is room again", Duration::from_secs(10), || {
        (node.get("/v1/members").status == 200).then_some(())
    });
    // Connections with the control plane count as long as they are open.
    let idle: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = connect_from("127.0.0.8", &node);
            let request = format!("GET /v1/members HTTP/1.1\r\nHost: {}\r\n\r\n", node.http);
            std::io::Write::write_all(&mut stream, request.as_bytes())
                .unwrap_or_else(|error| panic!("{error}"));
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            stream
        })
        .collect();
    assert_eq!(get_from("127.0.0.8", &node, "none").status, 429);
    drop(idle);
    eventually("there is room again", Duration::from_secs(10), || {
        (get_from("127.0.0.8", &node, "none").status == 200).then_some(())
    });
}

#[test]
fn one_connection_has_as_many_patterns_as_it_may() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--max-subscriptions", "5"]));
    let mut client = Client::open(&node.http, "/subscribe");
    let ask = |client: &mut Client, sources: &[&str]| {
        client.ask(json!({"id": 1, "subscribe": {"sources": sources}}))
    };
    assert_eq!(ask(&mut client, &["a", "b", "c"])["result"]["subscription"], 1);
    let refused = ask(&mut client, &["d", "e", "f"]);
    assert_eq!(refused["error"]["code"], "bad_request", "{refused}");
    assert!(refused.to_string().contains("--max-subscriptions"), "{refused}");
    assert_eq!(ask(&mut client, &["d", "e"])["result"]["subscription"], 2);
    assert_eq!(ask(&mut client, &["f"])["error"]["code"], "bad_request");
    assert_eq!(client.ask(json!({"id": 2, "unsubscribe": 1}))["result"]["subscription"], 1);
    assert_eq!(ask(&mut client, &["f", "g"])["result"]["subscription"], 3);
}

#[test]
fn a_connection_has_ten_thousand_patterns_unless_told_otherwise() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut client = Client::open(&node.http, "/subscribe");
    let mut subscribe = |from: usize, count: usize| {
        let sources: Vec<String> = (from..from + count).map(|number| format!("n/{number}")).collect();
        client.ask(json!({"id": "s", "subscribe": {"sources": sources, "snapshot": false}}))
    };
    for from in (0..10_000).step_by(250) {
        let answer = subscribe(from, 250);
        assert!(answer["result"].is_object(), "{from}: {answer}");
    }
    let refused = subscribe(10_000, 1);
    assert_eq!(refused["error"]["code"], "bad_request", "{refused}");
    assert!(refused.to_string().contains("at most 10000 (--max-subscriptions)"), "{refused}");
}
