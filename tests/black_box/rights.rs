//! Tokens and rights: who may do what, over HTTP and WebSocket, in JSON and protobuf, and when rights change.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{binary, run};
use crate::harness::proto;
use crate::harness::rights::{RightsFile, base64url, bearer, token_entry};
use crate::harness::wait::throughout;
use crate::harness::ws::{Handshake, shake_with};
use crate::harness::{Client, Event, Http, Node, NodeConfig, ProtoClient, anode, eventually};

const SENSORS: &str = "sensors-secret";
const READER: &str = "reader-secret";
const OPS: &str = "ops-secret";
const WATCHER: &str = "watcher-secret";

/// The file of the guide, with a reader in addition.
fn file() -> String {
    let tokens = [
        token_entry("sensors", SENSORS, "publish = [\"sensors/**\"]"),
        token_entry("reader", READER, "subscribe = [\"sensors/**\", \"public/*\"]"),
        token_entry("ops", OPS, "admin = true"),
        token_entry("prometheus", WATCHER, "observe = true"),
    ];
    tokens.concat()
}

fn start(text: &str, flags: &[&str]) -> (Node, RightsFile) {
    let file = RightsFile::new(text);
    let config = NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]).with(flags);
    (Node::start(config), file)
}

fn post(node: &Node, token: &str, record: Value) -> Http {
    let fields = [("Authorization", bearer(token)), ("Content-Type", "application/json".to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Http::request(&node.http, "POST", "/v1/publish", &fields, record.to_string().as_bytes())
}

fn is_challenged(answer: &Http) {
    answer.assert_problem(401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer:?}");
}

/// Every path with its method, and the tokens that may use it.
const PATHS: &[(&str, &str, &[&str])] = &[
    ("GET", "/metrics", &[WATCHER, OPS]),
    ("GET", "/v1/members", &[WATCHER, OPS]),
    ("GET", "/v1/sources", &[READER, OPS]),
    ("GET", "/v1/sources/sensors/1", &[READER, OPS]),
    ("GET", "/v1/sources/sensors/1/history", &[READER, OPS]),
    ("GET", "/v1/export", &[READER, OPS]),
    ("GET", "/v1/pull", &[WATCHER, OPS]),
    ("POST", "/v1/publish", &[SENSORS, OPS]),
    ("POST", "/v1/import", &[SENSORS, OPS]),
    ("PUT", "/v1/sources/sensors/1", &[SENSORS, OPS]),
    ("DELETE", "/v1/sources/sensors/1", &[SENSORS, OPS]),
    ("PUT", "/v1/pull/x", &[OPS]),
    ("POST", "/v1/admin/forget/x", &[OPS]),
    ("GET", "/v1/openapi.json", &[SENSORS, READER, OPS, WATCHER]),
    ("GET", "/v1/asyncapi.json", &[SENSORS, READER, OPS, WATCHER]),
    ("GET", "/graphql?query=%7Bnode%7Bid%7D%7D", &[SENSORS, READER, OPS, WATCHER]),
    ("GET", "/v1/none", &[SENSORS, READER, OPS, WATCHER]),
];

#[test]
fn each_path_is_for_those_who_have_its_right() {
    let (node, _file) = start(&file(), &[]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(node.get(path).status, 200);
        assert_eq!(Http::with_token(&node.http, "GET", path, "wrong").status, 200, "{path} is for everybody");
    }
    for &(method, path, may) in PATHS {
        is_challenged(&Http::request(&node.http, method, path, &[], b""));
        is_challenged(&Http::with_token(&node.http, method, path, "wrong"));
        let basic = [("Authorization", "Basic c2Vuc29ycy1zZWNyZXQ=")];
        is_challenged(&Http::request(&node.http, method, path, &basic, b""));
        for token in [SENSORS, READER, OPS, WATCHER] {
            let answer = Http::with_token(&node.http, method, path, token);
            if may.contains(&token) {
                assert!(!matches!(answer.status, 401 | 403), "{method} {path} by {token}: {answer:?}");
            } else {
                answer.assert_problem(403, "forbidden");
            }
        }
    }
    // A token never comes in a URL.
    is_challenged(&node.get(&format!("/v1/sources?token={READER}")));
    is_challenged(&node.get(&format!("/v1/sources?access_token={READER}")));
}

/// One in 64 of the tokens that `anode token` makes begins with a dash. The command line took those for further flags.
#[test]
fn a_token_on_the_command_line_may_begin_with_a_dash() {
    for token in ["-GFfg8vAXEwX", "--FFfg8vAXEwX"] {
        let (node, _file) = start(&token_entry("dash", token, "publish = [\"**\"]"), &[]);
        let output = anode(&["pub", "a", "1", "--token", token, "--url", &node.http]);
        assert_eq!(output.code, Some(0), "{token}: {output:?}");
    }
}

#[test]
fn records_and_lists_are_what_the_token_may_see() {
    let (node, _file) = start(&file(), &[]);
    for source in ["sensors/1", "sensors/a/b", "public/x", "public/x/y", "secret/1", "$sys/x"] {
        assert_eq!(post(&node, OPS, json!({"source": source, "data": 1})).status, 200, "{source}");
    }
    post(&node, SENSORS, json!({"source": "sensors/2", "data": 2})).json();
    post(&node, SENSORS, json!({"source": "secret/2", "data": 2})).assert_problem(403, "forbidden");
    post(&node, SENSORS, json!({"source": "$sys/y", "data": 2})).assert_problem(403, "forbidden");
    let batch =
        json!([{"id": 1, "source": "sensors/3", "data": 1}, {"id": 2, "source": "secret/3", "data": 1}]);
    let answers = post(&node, SENSORS, batch).json();
    assert_eq!(answers[0]["result"]["outcome"], "applied", "{answers}");
    assert_eq!(answers[1]["error"]["code"], "forbidden", "{answers}");
    let names = |token: &str, query: &str| {
        let page = Http::with_token(&node.http, "GET", &format!("/v1/sources{query}"), token).json();
        let records = page["records"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> =
            records.iter().map(|record| record["source"].as_str().unwrap_or_default().to_owned()).collect();
        (names, page["after"].as_str().map(str::to_owned))
    };
    let seen = ["public/x", "sensors/1", "sensors/2", "sensors/3", "sensors/a/b"];
    assert_eq!(names(READER, "").0, seen);
    assert_eq!(names(READER, "?pattern=public/**").0, ["public/x"]);
    assert_eq!(names(READER, "?pattern=secret/**").0, [""; 0]);
    assert_eq!(names(OPS, "").0.len(), 7);
    let (first, after) = names(READER, "?limit=2");
    assert_eq!((first.len(), after.as_deref()), (2, Some("sensors/1")), "pages hold what may be seen");
    assert_eq!(names(READER, "?limit=2&after=sensors%2F1").0, ["sensors/2", "sensors/3"]);
    for path in ["/v1/sources/secret/1", "/v1/sources/secret/1/history", "/v1/sources/public/x/y"] {
        Http::with_token(&node.http, "GET", path, READER).assert_problem(403, "forbidden");
    }
    assert_eq!(Http::with_token(&node.http, "GET", "/v1/sources/public/x", READER).status, 200);
}

fn refused(node: &Node, path: &str, protocols: &[&str], fields: &[(&str, &str)]) -> Http {
    let fields: Vec<(&str, &str)> = [("Host", node.http.as_str())].iter().chain(fields).copied().collect();
    match shake_with(&node.http, path, protocols, &fields) {
        Handshake::Refused(answer) => answer,
        Handshake::Open(..) => panic!("{path} was upgraded"),
    }
}

#[test]
fn a_token_comes_before_the_upgrade_in_a_header_or_as_a_subprotocol() {
    let (node, _file) = start(&file(), &[]);
    let mut publisher = Client::with_token(&node.http, "/publish", SENSORS);
    assert_eq!(publisher.publish(json!({"source": "sensors/1", "data": 1}))["result"]["outcome"], "applied");
    let offer = format!("anode.token.{}", base64url(READER.as_bytes()));
    for protocols in [&["anode.v1.json", &offer][..], &[&offer, "anode.v1.json"]] {
        let mut reader = Client::offering(&node.http, "/subscribe?source=sensors/**", protocols);
        assert_eq!(reader.protocol.as_deref(), Some("anode.v1.json"), "the token is not echoed");
        assert_eq!(reader.snapshot().sources(), ["sensors/1"]);
    }
    assert_eq!(Client::offering(&node.http, "/subscribe", &[&offer]).protocol, None);
    let wrong = format!("anode.token.{}", base64url(b"wrong"));
    for path in ["/publish", "/subscribe", "/subscribe?source=sensors/1"] {
        is_challenged(&refused(&node, path, &[], &[("Authorization", "Bearer wrong")]));
        is_challenged(&refused(&node, path, &["anode.v1.json", &wrong], &[]));
        is_challenged(&refused(&node, path, &["anode.v1.json", "anode.token.!"], &[]));
    }
    // A URL is written to logs, so a token in it is none, and is not repeated.
    for (path, name) in [("/subscribe?source=sensors/1&", "token"), ("/publish?", "access_token")] {
        let answer = refused(&node, &format!("{path}{name}={READER}"), &[], &[]);
        assert!(answer.status == 400 && !answer.body.contains(READER), "{answer:?}");
    }
    let forbidden = |path: &str, token: &str| {
        refused(&node, path, &[], &[("Authorization", &bearer(token))]).assert_problem(403, "forbidden");
    };
    forbidden("/publish", READER);
    forbidden("/subscribe", SENSORS);
    forbidden("/publish", WATCHER);
    forbidden("/subscribe?source=**", READER);
    forbidden("/subscribe?source=sensors/1&source=secret/1", READER);
}

#[test]
fn a_token_comes_in_the_first_frame() {
    let (node, _file) = start(&file(), &[]);
    let mut publisher = Client::open(&node.http, "/publish");
    assert_eq!(publisher.connected["members"], json!([]), "strangers are not told of the cluster");
    let answer = publisher.ask(json!({"id": 1, "auth": {"token": SENSORS}}));
    assert_eq!(answer, json!({"id": 1, "result": {"name": "sensors", "expires": null}}));
    assert_eq!(publisher.publish(json!({"source": "sensors/1", "data": 1}))["result"]["outcome"], "applied");
    let mut reader = Client::open(&node.http, "/subscribe?source=sensors/**");
    let answer = reader.ask(json!({"id": "x", "auth": {"token": READER}}));
    assert_eq!(answer["result"]["name"], "reader");
    assert_eq!(reader.snapshot().sources(), ["sensors/1"], "what the URL asks for begins then");
    // What a URL asks for may turn out to be too much.
    let mut reader = Client::open(&node.http, "/subscribe?source=**");
    reader.ask(json!({"id": 1, "auth": {"token": READER}}));
    assert_eq!(reader.next()["error"]["code"], "forbidden");
    assert_eq!(
        reader.ask(json!({"id": 2, "subscribe": {"sources": ["public/*"]}}))["result"]["subscription"],
        1
    );
}

#[test]
fn who_brings_no_token_or_a_wrong_one_is_closed_with_4001() {
    let (node, _file) = start(&file(), &[]);
    for (path, first) in [
        ("/publish", json!({"id": 1, "source": "sensors/1", "data": 1})),
        ("/publish", json!({"id": 1, "auth": {"token": "wrong"}})),
        ("/subscribe", json!({"id": 1, "subscribe": {"sources": ["public/*"]}})),
        ("/subscribe", json!({"id": 1, "auth": {"token": "wrong"}})),
    ] {
        let mut client = Client::open(&node.http, path);
        client.send_json(first.clone());
        assert_eq!(client.next()["error"]["code"], "unauthorized", "{path} {first}");
        assert_eq!(client.close_code(), 4001, "{path} {first}");
    }
    let mut silent = Client::open(&node.http, "/subscribe?source=public/*");
    let start = crate::harness::Deadline::after(Duration::from_secs(20));
    assert_eq!(silent.next()["error"]["code"], "unauthorized");
    assert_eq!(silent.close_code(), 4001);
    let elapsed = start.elapsed();
    assert!((4..9).contains(&elapsed.as_secs()), "closed after {elapsed:?}");
    assert_eq!(Http::with_token(&node.http, "GET", "/v1/sources", OPS).json()["records"], json!([]));
    // A frame that is malformed may be sent again.
    let mut client = Client::open(&node.http, "/publish");
    let answer = client.ask(json!({"id": 1, "auth": {"token": 5}}));
    assert_eq!(answer["error"]["code"], "bad_request");
    assert_eq!(client.ask(json!({"id": 2, "auth": {"token": SENSORS}}))["result"]["name"], "sensors");
}

#[test]
fn a_record_or_subscription_beyond_the_rights_leaves_the_connection_open() {
    let (node, _file) = start(&file(), &[]);
    let mut publisher = Client::with_token(&node.http, "/publish", SENSORS);
    for round in 0..3 {
        for source in ["secret/1", "$sys/a", "sensors"] {
            let answer = publisher.publish(json!({"source": source, "data": round}));
            assert_eq!(answer["error"]["code"], "forbidden", "{answer}");
            assert_eq!(answer["error"]["temporary"], false, "{answer}");
        }
        let answer = publisher.publish(json!({"source": "sensors/1", "data": round}));
        assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
    }
    let mut reader = Client::with_token(&node.http, "/subscribe", READER);
    for pattern in ["**", "*/1", "public/**", "secret/*", "$sys/**"] {
        let answer = reader.ask(json!({"id": 1, "subscribe": {"sources": ["sensors/1", pattern]}}));
        assert_eq!(answer["error"]["code"], "forbidden", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("{pattern:?}")), "{message}");
    }
    let answer = reader.ask(json!({"id": 2, "subscribe": {"sources": ["sensors/*/x", "public/a"]}}));
    assert_eq!(answer["result"]["subscription"], 1, "{answer}");
    let mut admin = Client::with_token(&node.http, "/publish", OPS);
    assert_eq!(admin.publish(json!({"source": "$sys/a", "data": 1}))["result"]["outcome"], "applied");
    let mut watcher = Client::with_token(&node.http, "/subscribe?source=$sys/**", OPS);
    assert_eq!(watcher.snapshot().sources(), ["$sys/a"]);
}

#[test]
fn protobuf_says_the_same() {
    use proto::client_message::Message as Asked;
    use proto::server_message::Message as Told;
    let (node, _file) = start(&file(), &[]);
    let id = || Some(proto::Id { id: Some(proto::id::Id::Number(7)) });
    let auth = |token: &str| Asked::Auth(proto::Auth { id: id(), token: token.into() });
    let publish = |source: &str| proto::Publish {
        id: id(),
        source: source.into(),
        value: Some(proto::publish::Value::Data("1".into())),
        ..Default::default()
    };
    let code = |answer: proto::Answer| match answer.answer {
        Some(proto::answer::Answer::Error(error)) => error.code,
        other => format!("{other:?}"),
    };
    let mut publisher = ProtoClient::open(&node.http, "/publish");
    publisher.send(auth(SENSORS));
    let answer = publisher.answer();
    assert_eq!(answer.id, id());
    let Some(proto::answer::Answer::Authenticated(result)) = answer.answer else { panic!("{answer:?}") };
    assert_eq!((result.name.as_str(), result.expires), ("sensors", None));
    publisher.publish(publish("secret/1"));
    assert_eq!(code(publisher.answer()), "forbidden");
    publisher.publish(publish("sensors/1"));
    assert!(matches!(publisher.answer().answer, Some(proto::answer::Answer::Result(_))));
    let fields = [("Authorization", bearer(READER))];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut reader = ProtoClient::with_fields(&node.http, "/subscribe?source=sensors/1", &fields);
    reader.send(Asked::Subscribe(proto::Subscribe {
        id: id(),
        sources: vec!["**".into()],
        ..Default::default()
    }));
    let mut codes = Vec::new();
    while codes.is_empty() {
        match reader.next() {
            Told::Answer(answer) if answer.id == id() => codes.push(code(answer)),
            _ => {}
        }
    }
    assert_eq!(codes, ["forbidden"]);
    for first in [auth("wrong"), Asked::Publish(publish("sensors/1"))] {
        let mut client = ProtoClient::open(&node.http, "/publish");
        client.send(first);
        assert_eq!(code(client.answer()), "unauthorized");
        assert_eq!(client.client.close_code(), 4001);
    }
}

#[test]
fn those_without_a_token_have_the_rights_of_anonymous() {
    let text = format!("[anonymous]\nsubscribe = [\"public/**\"]\n{}", file());
    let (node, _file) = start(&text, &[]);
    post(&node, OPS, json!({"source": "public/a", "data": 1})).json();
    post(&node, OPS, json!({"source": "sensors/a", "data": 1})).json();
    assert_eq!(node.get("/v1/sources").json()["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.get("/v1/sources/public/a").status, 200);
    is_challenged(&node.get("/v1/sources/sensors/a"));
    is_challenged(&node.get("/v1/members"));
    is_challenged(&node.post(json!({"source": "public/a", "data": 2})));
    let mut reader = Client::open(&node.http, "/subscribe?source=public/*");
    assert_eq!(reader.snapshot().sources(), ["public/a"]);
    let answer = reader.ask(json!({"id": 5, "subscribe": {"sources": ["**"]}}));
    assert_eq!(answer["error"]["code"], "forbidden");
    // The same connection becomes more by a token.
    assert_eq!(reader.ask(json!({"id": 6, "auth": {"token": READER}}))["result"]["name"], "reader");
    let answer = reader.ask(json!({"id": 7, "subscribe": {"sources": ["sensors/**"]}}));
    assert_eq!(answer["result"]["subscription"], 2, "{answer}");
}

#[test]
fn the_file_is_read_again_and_live_connections_are_judged_by_it() {
    let (mut node, rights) = start(&file(), &[]);
    node.allowed_errors = vec!["the file of rights is refused"];
    let mut revoked = Client::with_token(&node.http, "/publish", SENSORS);
    let mut kept = Client::with_token(&node.http, "/subscribe?source=sensors/**", READER);
    kept.snapshot();
    let status = |token: &str| Http::with_token(&node.http, "GET", "/v1/members", token).status;
    assert_eq!(status("new-secret"), 401);
    // A bad file changes nothing, and is told once.
    rights.write("[[token]]\nname = \"x\"\nrate = \"fast\"\n");
    eventually("the file is refused", Duration::from_secs(10), || {
        node.log().contains("the file of rights is refused").then_some(())
    });
    assert!(node.log().contains("auth.toml:3:"), "{}", node.log());
    assert_eq!(status(WATCHER), 200);
    assert_eq!(revoked.publish(json!({"source": "sensors/1", "data": 1}))["result"]["outcome"], "applied");
    throughout("the refusal is told once", Duration::from_millis(2_500), || {
        node.log().matches("the file of rights is refused").count() == 1
    });
    let without_sensors = file().replace("name = \"sensors\"", "name = \"old\"").replace(
        &crate::harness::rights::sha256_hex(SENSORS),
        &crate::harness::rights::sha256_hex("another-secret"),
    );
    rights.write(&format!("{without_sensors}{}", token_entry("new", "new-secret", "observe = true")));
    eventually("the file is read", Duration::from_secs(10), || {
        node.log().contains("the file of rights was read again").then_some(())
    });
    assert_eq!(status("new-secret"), 200);
    loop {
        match revoked.event(Duration::from_secs(5)) {
            Some(Event::Text(text)) => assert!(text.contains("unauthorized"), "{text}"),
            Some(Event::Close(code, _)) => break assert_eq!(code, Some(4001)),
            other => panic!("{other:?}"),
        }
    }
    is_challenged(&post(&node, SENSORS, json!({"source": "sensors/1", "data": 1})));
    post(&node, OPS, json!({"source": "sensors/1", "data": "still there"})).json();
    // Others go on.
    kept.records_until(Duration::from_secs(10), |record| record["data"] == "still there");
    rights.write(&file().replace("\"sensors/**\", \"public/*\"", "\"public/*\""));
    assert_eq!(kept.close_code(), 4003, "its subscription is not allowed any longer");
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_with_its_place() {
    let rights = RightsFile::new("[[token]]\nname = \"a\"\nsha256 = \"oops-my-secret\"\n");
    let output =
        anode(&["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--auth", &rights.path()]);
    assert_eq!(output.code, Some(2), "{output:?}");
    for part in ["auth.toml:3:10", "token.sha256", "allowed: the 64 hexadecimal digits"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    assert!(!output.stderr.contains("oops-my-secret"), "{}", output.stderr);
    let output = anode(&["serve", "--http", "127.0.0.1:0", "--auth", "/no/such/file"]);
    assert_eq!(output.code, Some(2), "{output:?}");
}

#[test]
fn secrets_are_in_no_log() {
    let text =
        format!("{}{}", file(), token_entry("limited", "limited-secret", "publish = [\"**\"]\nrate = 1"));
    let (mut node, rights) = start(&text, &["--log-level", "trace"]);
    node.allowed_errors = vec!["the file of rights is refused"];
    for token in [SENSORS, "wrong-secret"] {
        Http::with_token(&node.http, "GET", "/v1/members", token);
        let mut client = Client::open(&node.http, "/publish");
        client.send_json(json!({"id": 1, "auth": {"token": token}}));
        client.next();
    }
    Http::request(&node.http, "GET", "/metrics", &[("Authorization", "Basic basic-secret")], b"");
    let offer = format!("anode.token.{}", base64url(READER.as_bytes()));
    Client::offering(&node.http, "/subscribe", &[&offer, "anode.v1.json"]);
    rights.write("[[token]]\nname = \"x\"\nsha256 = \"file-secret\"\n");
    eventually("the file is refused", Duration::from_secs(10), || {
        node.log().contains("the file of rights is refused").then_some(())
    });
    let metrics = Http::with_token(&node.http, "GET", "/metrics", WATCHER).body;
    assert!(metrics.contains("anode_auth_entries_total{kind=\"token\",name=\"sensors\"} 2"), "{metrics}");
    assert!(metrics.contains("anode_auth_failures_total 2"), "{metrics}");
    let log = node.log();
    assert!(log.contains("a token is refused"), "{log}");
    for secret in ["-secret", &base64url(READER.as_bytes())] {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!metrics.contains(secret), "{secret} is in the metrics");
    }
}

#[test]
fn the_command_line_makes_tokens_and_brings_them() {
    let output = anode(&["token"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    let [_, token, _, hash] = words[..] else { panic!("{}", output.stdout) };
    assert_eq!(crate::harness::rights::sha256_hex(token), hash);
    assert_eq!(token.len(), 43, "256 bits in base64url");
    assert_ne!(anode(&["token"]).stdout, output.stdout);
    let entry =
        format!("[[token]]\nname = \"all\"\nsha256 = \"{hash}\"\npublish = [\"**\"]\nsubscribe = [\"**\"]\n");
    let (node, rights) = start(&format!("{entry}observe = true\n"), &[]);
    rights.write_file("token", format!("{token}\n").as_bytes());
    let (to, file) = (format!("ws://{}", node.http), rights.file("token").display().to_string());
    let published = anode(&["pub", "a/b", "5", "--to", &to, "--token", token]);
    assert_eq!(published.code, Some(0), "{published:?}");
    for arguments in [
        &["get", "a/b", "--from", &to, "--token-file", &file][..],
        &["history", "a/b", "--from", &to, "--token-file", &file],
        &["sub", "a/*", "--from", &to, "--count", "1", "--token-file", &file],
        &["members", "--from", &to, "--token", token],
    ] {
        let output = anode(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        let from_environment =
            run(binary().args(&arguments[..arguments.len() - 2]).env("ANODE_TOKEN", token), "");
        assert_eq!(from_environment.code, Some(0), "{arguments:?}: {from_environment:?}");
        let without = anode(&arguments[..arguments.len() - 2]);
        assert_eq!(without.code, Some(1), "{arguments:?}: {without:?}");
        assert!(without.stderr.contains("unauthorized"), "{}", without.stderr);
    }
    assert_eq!(anode(&["health", "--from", &to, "--ready"]).code, Some(0), "health needs no token");
}
