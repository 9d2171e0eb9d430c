//! GraphQL over WebSocket: the subprotocol `graphql-transport-ws`, its close codes, and subscriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::harness::rights::{RightsFile, base64url, bearer, jwt, token_entry};
use crate::harness::wait::PATIENCE;
use crate::harness::ws::{Handshake, refused, shake_with};
use crate::harness::{Client, Event, Node, NodeConfig, eventually, wall_us};

const PROTOCOL: &[&str] = &["graphql-transport-ws"];

/// Opens a WebSocket with these header fields.
fn open_with(addr: &str, protocols: &[&str], fields: &[(&str, &str)]) -> Client {
    let fields: Vec<(&str, &str)> = [("Host", addr)].iter().chain(fields).copied().collect();
    match shake_with(addr, "/graphql", protocols, &fields) {
        Handshake::Open(socket, protocol) => {
            assert_eq!(protocol.as_deref(), Some("graphql-transport-ws"));
            Client::over(socket)
        }
        Handshake::Refused(answer) => panic!("refused: {answer:?}"),
    }
}

/// Opens a WebSocket and has it acknowledged.
fn open(node: &Node) -> Client {
    let mut client = open_with(&node.http, PROTOCOL, &[]);
    client.send_json(json!({"type": "connection_init"}));
    let ack = client.json();
    assert_eq!(ack["type"], "connection_ack", "{ack}");
    assert_eq!(ack["payload"], json!({"node": "a", "name": "anonymous", "expires": null}));
    client
}

const RECORDS: &str =
    "subscription($p: [String!]!, $s: Boolean, $m: Mode) { records(patterns: $p, snapshot: $s, mode: $m) {
    __typename ... on Record { source ts data dataB64 deleted origin } ... on Eos { resume } } }";

fn subscribe(client: &mut Client, id: &str, variables: Value) {
    client.send_json(
        json!({"id": id, "type": "subscribe", "payload": {"query": RECORDS, "variables": variables}}),
    );
}

/// The next event of the operation `id`.
fn event(client: &mut Client, id: &str) -> Value {
    let message = client.json();
    assert_eq!((&message["type"], &message["id"]), (&json!("next"), &json!(id)), "{message}");
    message["payload"]["data"]["records"].clone()
}

fn closed(client: &mut Client) -> u16 {
    loop {
        match client.event(PATIENCE) {
            Some(Event::Close(Some(code), _)) => return code,
            Some(Event::Text(_)) => {}
            other => panic!("expected a close, got {other:?}"),
        }
    }
}

#[test]
fn a_snapshot_ends_with_eos_and_goes_on_live() {
    let node = Node::single();
    node.put("s/1", json!({"a": 1.50}));
    node.post(json!({"source": "s/2", "data_b64": "AAEC"}));
    let mut client = open(&node);
    subscribe(&mut client, "one", json!({"p": ["s/*"]}));
    let mut first = [event(&mut client, "one"), event(&mut client, "one")];
    first.sort_by_key(|record| record["source"].to_string());
    assert_eq!((&first[0]["data"], &first[1]["dataB64"]), (&json!({"a": 1.5}), &json!("AAEC")));
    assert_eq!((&first[0]["__typename"], &first[0]["origin"]), (&json!("Record"), &json!("a")));
    let eos = event(&mut client, "one");
    assert_eq!(eos["__typename"], "Eos");
    let ts = node.put("s/3", json!(null));
    let live = event(&mut client, "one");
    assert_eq!((&live["source"], &live["ts"], &live["deleted"]), (&json!("s/3"), &json!(ts), &json!(false)));
    node.post(json!({"source": "s/3", "deleted": true}));
    assert_eq!(event(&mut client, "one")["deleted"], true);
    // The token is good where other clients resume, too.
    let resume = eos["resume"].as_str().expect("a token");
    let mut other = node.subscriber(&format!("source=s/*&resume={resume}"));
    assert_eq!(other.snapshot().result["recovered"], true);
    client.send_json(json!({"id": "one", "type": "complete"}));
    eventually("the subscription ends", PATIENCE, || {
        (node.metric("anode_graphql_subscriptions", &[]) == 0.0).then_some(())
    });
    node.put("s/4", json!(1));
    client.send_json(json!({"type": "ping", "payload": {"x": 1}}));
    assert_eq!(
        client.json(),
        json!({"type": "pong", "payload": {"x": 1}}),
        "nothing comes of what has ended"
    );
}

#[test]
fn without_a_snapshot_eos_comes_at_once() {
    let node = Node::single();
    node.put("s/1", json!(1));
    let mut client = open(&node);
    subscribe(&mut client, "1", json!({"p": ["s/*"], "s": false}));
    assert_eq!(event(&mut client, "1")["__typename"], "Eos");
    node.put("s/1", json!(2));
    assert_eq!(event(&mut client, "1")["data"], 2);
}

#[test]
fn nothing_is_lost_or_repeated_at_the_seam() {
    let node = Node::single();
    let publish = |round: u64| {
        let batch: Vec<Value> =
            (0..200).map(|n| json!({"source": format!("seam/{n}"), "data": round})).collect();
        assert_eq!(node.post(Value::Array(batch)).status, 200);
    };
    publish(0);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..=40).for_each(publish));
        for mode in ["ALL", "LATEST"] {
            let mut client = open(&node);
            subscribe(&mut client, "1", json!({"p": ["seam/**"], "m": mode}));
            let (mut stamps, mut values): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
            let mut has_eos = false;
            while !(has_eos && values.len() == 200 && values.values().all(|value| *value == 40)) {
                let record = event(&mut client, "1");
                if record["__typename"] == "Eos" {
                    assert!(!has_eos && values.len() == 200, "the snapshot is whole");
                    has_eos = true;
                    continue;
                }
                let source = record["source"].as_str().expect("a source").to_owned();
                let (ts, value) =
                    (record["ts"].as_u64().expect("ts"), record["data"].as_u64().expect("a number"));
                let before = stamps.insert(source.clone(), ts);
                assert!(before.is_none_or(|before| before < ts), "{source} repeats or goes back");
                let last = values.insert(source.clone(), value);
                if mode == "ALL" && has_eos {
                    assert_eq!(last, Some(value - 1), "{source} lost a record");
                }
            }
        }
    });
}

#[test]
fn several_operations_share_a_connection() {
    let node = Node::single();
    let mut client = open(&node);
    subscribe(&mut client, "a", json!({"p": ["x/1"]}));
    assert_eq!(event(&mut client, "a")["__typename"], "Eos");
    subscribe(&mut client, "b", json!({"p": ["x/*"]}));
    assert_eq!(event(&mut client, "b")["__typename"], "Eos");
    let publish = "mutation { publish(records: [{source: \"x/1\", data: [1]}]) { outcome } }";
    client.send_json(json!({"id": "m", "type": "subscribe", "payload": {"query": publish}}));
    let mut seen: Vec<String> = (0..4)
        .map(|_| {
            let message = client.json();
            if message["id"] == "m" && message["type"] == "next" {
                assert_eq!(message["payload"]["data"]["publish"][0]["outcome"], "APPLIED");
            }
            format!("{} {}", message["id"], message["type"])
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, ["\"a\" \"next\"", "\"b\" \"next\"", "\"m\" \"complete\"", "\"m\" \"next\""]);
    // An id is free again when its operation is over.
    client.send_json(json!({"id": "m", "type": "subscribe", "payload": {"query": "{ node { id } }"}}));
    assert_eq!(client.json()["payload"]["data"]["node"]["id"], "a");
    assert_eq!(client.json(), json!({"id": "m", "type": "complete"}));
    assert_eq!(node.metric("anode_connections", &[("endpoint", "graphql")]), 1.0);
    assert_eq!(node.metric("anode_graphql_subscriptions", &[]), 2.0);
    drop(client);
    eventually("all of it ends", PATIENCE, || {
        let open = node.metric("anode_connections", &[("endpoint", "graphql")])
            + node.metric("anode_graphql_subscriptions", &[]);
        (open == 0.0).then_some(())
    });
}

#[test]
fn an_operation_that_fails_leaves_the_others() {
    let node = Node::single();
    let mut client = open(&node);
    subscribe(&mut client, "good", json!({"p": ["a/*"]}));
    assert_eq!(event(&mut client, "good")["__typename"], "Eos");
    let records = |args: &str| format!("subscription {{ records({args}) {{ __typename }} }}");
    for (query, code) in [
        (records("patterns: [\"a/**/b\"]"), "bad_pattern"),
        (records("patterns: []"), "bad_request"),
        (records("patterns: [\"a\"], filter: \"x\""), "bad_filter"),
        (records("patterns: [7]"), "bad_request"),
        ("subscription { nothing }".into(), "bad_request"),
        ("{".into(), "bad_request"),
        ("subscription { a: records(patterns: [\"a\"]) { __typename } b: records(patterns: [\"a\"]) { __typename } }".into(), "bad_request"),
    ] {
        client.send_json(json!({"id": "bad", "type": "subscribe", "payload": {"query": query}}));
        let answer = client.json();
        assert_eq!((&answer["id"], &answer["type"]), (&json!("bad"), &json!("error")), "{query}: {answer}");
        assert_eq!(answer["payload"][0]["extensions"]["code"], code, "{query}: {answer}");
    }
    node.put("a/1", json!(1));
    assert_eq!(event(&mut client, "good")["source"], "a/1");
}

#[test]
fn connections_are_closed_with_the_codes_of_the_protocol() {
    let node = Node::single();
    let query =
        json!({"id": "1", "type": "subscribe", "payload": {"query": RECORDS, "variables": {"p": ["a"]}}});
    let code_after = |messages: &[Value], is_open: bool| {
        let mut client = if is_open { open(&node) } else { open_with(&node.http, PROTOCOL, &[]) };
        messages.iter().for_each(|message| client.send_json(message.clone()));
        closed(&mut client)
    };
    let init = json!({"type": "connection_init"});
    assert_eq!(code_after(std::slice::from_ref(&query), false), 4401);
    assert_eq!(code_after(&[init.clone(), init.clone()], false), 4429);
    assert_eq!(code_after(&[init], true), 4429);
    assert_eq!(code_after(&[query.clone(), query], true), 4409);
    for bad in [
        json!({"type": "start"}),
        json!([]),
        json!({"type": "subscribe", "id": "1"}),
        json!({"id": 1, "type": "complete"}),
    ] {
        assert_eq!(code_after(std::slice::from_ref(&bad), true), 4400, "{bad}");
    }
    let mut client = open(&node);
    client.send_text("no json");
    assert_eq!(closed(&mut client), 4400);
    let mut client = open(&node);
    client.send(Message::binary(vec![1, 2, 3]));
    assert_eq!(closed(&mut client), 4400);
    let mut client = open(&node);
    client.send_json(json!({"type": "ping", "payload": {"x": "y".repeat(200_000)}}));
    assert_eq!(closed(&mut client), 1009);
    // Closes of GraphQL were in no figure.
    for (code, count) in
        [("4400", 6.0), ("4401", 1.0), ("4409", 1.0), ("4429", 2.0), ("1009", 1.0), ("4500", 0.0)]
    {
        assert_eq!(node.metric("anode_client_closes_total", &[("code", code)]), count, "{code}");
    }
    // Nothing comes for 5 s.
    assert_eq!(closed(&mut open_with(&node.http, PROTOCOL, &[])), 4408);
}

#[test]
fn only_the_one_subprotocol_is_spoken() {
    let node = Node::single();
    for offered in [&[][..], &["graphql-ws"], &["anode.v1.json"]] {
        refused(&node.http, "/graphql", offered).assert_problem(400, "bad_request");
    }
    open_with(&node.http, &["graphql-ws", "graphql-transport-ws"], &[]);
}

#[test]
fn a_node_that_stops_closes_with_its_own_code() {
    let mut node = Node::single();
    let mut client = open(&node);
    subscribe(&mut client, "1", json!({"p": ["a"]}));
    assert_eq!(event(&mut client, "1")["__typename"], "Eos");
    let closing = std::thread::spawn(move || closed(&mut client));
    assert_eq!(node.sigterm(), Some(0));
    assert_eq!(closing.join().expect("closed"), 4200);
}

const READER: &str = "reader-secret";
const OTHER: &str = "other-secret";

fn guarded() -> (Node, RightsFile) {
    let text = [
        token_entry("reader", READER, "subscribe = [\"public/**\"]"),
        token_entry("other", OTHER, "publish = [\"public/**\"]"),
        "[jwt]\nhmac_secret_file = \"secret\"\n".to_owned(),
    ]
    .concat();
    let file = RightsFile::new("");
    file.write_file("secret", b"a secret that is long enough for it");
    file.write(&text);
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
    (node, file)
}

fn init(client: &mut Client, payload: Value) {
    client.send_json(json!({"type": "connection_init", "payload": payload}));
}

#[test]
fn a_token_comes_by_header_subprotocol_or_first_message() {
    let (node, _file) = guarded();
    let named = |client: &mut Client| client.json()["payload"]["name"].clone();
    let mut client = open_with(&node.http, PROTOCOL, &[("Authorization", &bearer(READER))]);
    init(&mut client, Value::Null);
    assert_eq!(named(&mut client), "reader");
    subscribe(&mut client, "1", json!({"p": ["public/**"]}));
    assert_eq!(event(&mut client, "1")["__typename"], "Eos");
    subscribe(&mut client, "2", json!({"p": ["**"]}));
    let refused = client.json();
    assert_eq!(refused["payload"][0]["extensions"]["code"], "forbidden", "{refused}");
    let by_protocol = format!("anode.token.{}", base64url(READER.as_bytes()));
    let mut client = open_with(&node.http, &[&by_protocol, "graphql-transport-ws"], &[]);
    init(&mut client, json!({}));
    assert_eq!(named(&mut client), "reader");
    for payload in [
        json!({"token": READER}),
        json!({"Authorization": bearer(READER)}),
        json!({"authorization": bearer(READER)}),
        json!({"headers": {"Authorization": bearer(READER)}}),
    ] {
        let mut client = open_with(&node.http, PROTOCOL, &[]);
        init(&mut client, payload);
        assert_eq!(named(&mut client), "reader");
    }
    for payload in [json!({"token": "wrong"}), json!({}), Value::Null] {
        let mut client = open_with(&node.http, PROTOCOL, &[]);
        init(&mut client, payload.clone());
        assert_eq!(closed(&mut client), 4403, "{payload}");
    }
    let fields = [("Host", node.http.as_str()), ("Authorization", "Bearer wrong")];
    match shake_with(&node.http, "/graphql", PROTOCOL, &fields) {
        Handshake::Refused(answer) => answer.assert_problem(401, "unauthorized"),
        Handshake::Open(..) => panic!("a wrong token was let in"),
    }
    let mut client = open_with(&node.http, PROTOCOL, &[("Authorization", &bearer(OTHER))]);
    init(&mut client, Value::Null);
    assert_eq!(named(&mut client), "other");
    subscribe(&mut client, "1", json!({"p": ["public/**"]}));
    assert_eq!(client.json()["payload"][0]["extensions"]["code"], "forbidden");
}

#[test]
fn a_token_that_ends_or_is_revoked_ends_what_it_allowed() {
    let (node, file) = guarded();
    let secret = "a secret that is long enough for it";
    let expires = wall_us() / 1_000_000 + 2;
    let claims = json!({"sub": "short", "exp": expires, "anode": {"subscribe": ["public/**"]}});
    let token = jwt(json!({"alg": "HS256", "typ": "JWT"}), claims, secret);
    let mut short = open_with(&node.http, PROTOCOL, &[]);
    init(&mut short, json!({"token": token}));
    assert_eq!(short.json()["payload"], json!({"node": "a", "name": "short", "expires": expires}));
    subscribe(&mut short, "1", json!({"p": ["public/**"]}));
    assert_eq!(closed(&mut short), 4403);
    let mut client = open_with(&node.http, PROTOCOL, &[]);
    init(&mut client, json!({"token": READER}));
    assert_eq!(client.json()["type"], "connection_ack");
    subscribe(&mut client, "1", json!({"p": ["public/**"]}));
    assert_eq!(event(&mut client, "1")["__typename"], "Eos");
    file.write(&token_entry("other", OTHER, "publish = [\"public/**\"]"));
    let ended = client.json();
    assert_eq!(
        (&ended["type"], &ended["payload"][0]["extensions"]["code"]),
        (&json!("error"), &json!("unauthorized"))
    );
    subscribe(&mut client, "2", json!({"p": ["public/**"]}));
    assert_eq!(closed(&mut client), 4403);
}

#[test]
fn a_slow_client_gets_the_newest_or_an_error() {
    let node = Node::single();
    let big = "x".repeat(30_000);
    let publish = |round: u64| {
        let batch: Vec<Value> =
            (0..20).map(|n| json!({"source": format!("slow/{n}"), "data": [round, &big]})).collect();
        assert_eq!(node.post(Value::Array(batch)).status, 200);
    };
    let mut latest = open(&node);
    subscribe(&mut latest, "1", json!({"p": ["slow/**"]}));
    assert_eq!(event(&mut latest, "1")["__typename"], "Eos");
    let mut all = open(&node);
    subscribe(&mut all, "1", json!({"p": ["slow/**"], "m": "ALL"}));
    assert_eq!(event(&mut all, "1")["__typename"], "Eos");
    (1..=60).for_each(publish);
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = 0;
    while !(values.len() == 20 && values.values().all(|value| *value == 60)) {
        let record = event(&mut latest, "1");
        let value = record["data"][0].as_u64().expect("a round");
        let before = values.insert(record["source"].to_string(), value);
        assert!(before.is_none_or(|before| before < value), "{record:.80}");
        count += 1;
    }
    assert!(count < 60 * 20, "older values were left out: {count}");
    let error = loop {
        let message = all.json();
        if message["type"] != "next" {
            break message;
        }
    };
    assert_eq!(
        (&error["type"], &error["payload"][0]["extensions"]["code"]),
        (&json!("error"), &json!("too_slow")),
        "{error}"
    );
    assert_eq!(node.metric("anode_slow_consumers_total", &[]), 1.0);
    // The connection is as good as before.
    all.send_json(json!({"type": "ping"}));
    assert_eq!(all.json(), json!({"type": "pong"}));
}

#[test]
fn operations_of_a_connection_are_bounded() {
    let node = Node::single();
    let mut client = open(&node);
    for number in 0..100 {
        subscribe(&mut client, &number.to_string(), json!({"p": ["b/*"]}));
        assert_eq!(event(&mut client, &number.to_string())["__typename"], "Eos");
    }
    subscribe(&mut client, "beyond", json!({"p": ["b/*"]}));
    let refused = client.json();
    assert_eq!((&refused["id"], &refused["type"]), (&json!("beyond"), &json!("error")));
    assert_eq!(refused["payload"][0]["extensions"]["code"], "bad_request");
    client.send_json(json!({"id": "7", "type": "complete"}));
    subscribe(&mut client, "beyond", json!({"p": ["b/*"]}));
    assert_eq!(event(&mut client, "beyond")["__typename"], "Eos");
    assert!(client.event(Duration::from_millis(100)).is_none());
}
