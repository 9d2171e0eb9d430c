//! Tests of the subscription: against nodes that the tests play, and of the order in which nodes are tried.

use std::net::{TcpListener, TcpStream};
use std::thread;

use tungstenite::WebSocket;
use tungstenite::protocol::frame::coding::CloseCode;

use super::*;

fn accept(listener: &TcpListener) -> (WebSocket<TcpStream>, serde_json::Value) {
    let (stream, _) = listener.accept().expect("accepts");
    let mut socket = tungstenite::accept(stream).expect("handshake");
    socket.send(r#"{"connected":{"node":"n1","session":"s","members":[]}}"#.into()).expect("sends");
    let asked = socket.read().expect("subscribe").into_text().expect("text");
    (socket, serde_json::from_str(&asked).expect("JSON"))
}

fn url_of(listener: &TcpListener) -> NodeUrl {
    let address = listener.local_addr().expect("address").to_string();
    NodeUrl::parse(&address, "--url", &Default::default()).expect("url")
}

fn until(subscription: &mut Subscription, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = subscription.next().expect("goes on");
        if wanted(&event) {
            return event;
        }
    }
}

fn wanted() -> WantedSources {
    WantedSources { sources: vec!["a/*".into()], has_snapshot: false, mode: "latest".into(), filter: None }
}

/// In nats.go (#1777) a subscription ended silently after reconnecting.
#[test]
fn goes_on_with_its_token_after_a_lost_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let home = url_of(&listener);
    let node = thread::spawn(move || {
        let (mut socket, asked) = accept(&listener);
        assert_eq!(asked["subscribe"]["snapshot"], false);
        assert!(asked["subscribe"]["resume"].is_null());
        let record = r#"{"source":"a/b","ts":1,"origin":"n1","data": 1.0}"#;
        let frames = [
            r#"{"id":1,"result":{"subscription":1,"recovered":false}}"#.to_owned(),
            r#"{"eos":{"subscription":1,"resume":"t1"}}"#.to_owned(),
            format!("[{record}, {record}]"),
            r#"{"resume":"t2"}"#.to_owned(),
        ];
        for frame in frames {
            socket.send(frame.into()).expect("sends");
        }
        // The connection is lost without a close frame.
        drop(socket);
        let (mut socket, asked) = accept(&listener);
        assert_eq!(asked["subscribe"]["resume"], "t2");
        assert_eq!(asked["subscribe"]["snapshot"], true);
        socket.send(r#"{"id":1,"result":{"subscription":1,"recovered":true}}"#.into()).expect("sends");
        let frame = CloseFrame { code: CloseCode::from(4003), reason: "no".into() };
        socket.close(Some(frame)).expect("closes");
        while socket.read().is_ok() {}
    });
    let mut subscription = Subscription::new(home, wanted());
    let event = until(&mut subscription, |event| matches!(event, Event::Subscribed { .. }));
    assert_eq!(event, Event::Subscribed { node: "n1".into(), recovered: None });
    let event = until(&mut subscription, |event| matches!(event, Event::Records(_)));
    let record = r#"{"source":"a/b","ts":1,"origin":"n1","data": 1.0}"#.to_owned();
    assert_eq!(event, Event::Records(vec![record]));
    until(&mut subscription, |event| matches!(event, Event::Lost(_)));
    let event = until(&mut subscription, |event| matches!(event, Event::Subscribed { .. }));
    assert_eq!(event, Event::Subscribed { node: "n1".into(), recovered: Some(true) });
    let error = loop {
        match subscription.next() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the node closed with 4003 no");
    node.join().expect("node");
}

#[test]
fn repeated_records_are_dropped_and_newer_ones_are_not() {
    let mut repeats = Repeats::default();
    let record = |ts: u64, data: &str| format!(r#"{{"source":"a","ts":{ts},"data":{data}}}"#);
    for (text, is_new) in [
        (record(5, "1"), true),
        (record(5, "1"), false),
        (record(5, "2"), true),
        (record(4, "3"), false),
        (record(6, "1"), true),
    ] {
        assert_eq!(repeats.is_new(&text), is_new, "{text}");
    }
}

#[test]
fn a_node_that_is_not_there_at_first_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let home = url_of(&listener);
    let address = listener.local_addr().expect("address");
    drop(listener);
    let mut subscription = Subscription::new(home, wanted());
    let lost = until(&mut subscription, |event| matches!(event, Event::Lost(_)));
    assert!(matches!(lost, Event::Lost(lost) if lost.reason.contains("refused")));
    let listener = TcpListener::bind(address).expect("binds again");
    let node = thread::spawn(move || {
        let (mut socket, _) = accept(&listener);
        socket.send(r#"{"id":1,"result":{"subscription":1,"recovered":false}}"#.into()).expect("sends");
        while socket.read().is_ok() {}
    });
    let event = until(&mut subscription, |event| matches!(event, Event::Subscribed { .. }));
    assert_eq!(event, Event::Subscribed { node: "n1".into(), recovered: None });
    subscription.close();
    node.join().expect("node");
}

#[test]
fn given_nodes_and_members_are_tried_in_turn() {
    let node = |at: &str| NodeUrl::parse(at, "--url", &Default::default()).expect("a URL");
    let homes = Nodes::new(vec![node("a:1"), node("b:2")]).expect("two");
    let mut subscription = Subscription::new(homes, wanted());
    let mut tried = |members: &[&str]| {
        subscription.members = members.iter().map(|at| node(at)).collect();
        let tries = 0..4;
        tries
            .map(|tries| {
                subscription.tries = tries;
                subscription.candidate().0.to_string()
            })
            .collect::<Vec<String>>()
    };
    assert_eq!(tried(&[]), ["a:1", "b:2", "a:1", "b:2"]);
    assert_eq!(tried(&["c:3"]), ["a:1", "c:3", "b:2", "c:3"]);
}

/// With ten nodes, of which three were there, it took more than half a minute to find one of them.
#[test]
fn the_wait_grows_when_all_nodes_have_been_tried() {
    let node = |at: &str| NodeUrl::parse(at, "--url", &Default::default()).expect("a URL");
    let homes = Nodes::new((1..=10).map(|port| node(&format!("a:{port}"))).collect()).expect("ten");
    let mut subscription = Subscription::new(homes, wanted());
    let member = r#"{"id":"n","http":"service:1"}"#;
    let greeting =
        format!(r#"{{"connected":{{"node":"n1","session":"s","members":[{member},{member},{member}]}}}}"#);
    subscription.take(&greeting).expect("taken");
    assert_eq!(subscription.members, [node("service:1")], "named once");
    for attempt in 0..60 {
        let longest_us = 100_000 << (attempt / 20);
        let Event::Lost(lost) = subscription.lose("gone".into(), false) else { panic!("it is lost") };
        assert!((longest_us / 2..longest_us).contains(&lost.retry_us), "{attempt}: {lost:?}");
    }
}
