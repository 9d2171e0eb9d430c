//! Clients that show a certificate instead of a token: which token they are, and that a port without TLS pays nothing
//! for what it does not use.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::harness::http::connect;
use crate::harness::rights::{RightsFile, bearer, token_entry};
use crate::harness::tls::{Authority, TlsNode, TlsStream};
use crate::harness::{Http, Node, NodeConfig, anode, eventually};

/// Sends `method path` with header fields over TLS, and returns the answer.
fn ask(node: &TlsNode, method: &str, path: &str, fields: &str, body: &str) -> Http {
    let mut stream = TlsStream::connect(&node.node.http, &node.client);
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    );
    let answer = stream.write_all(request.as_bytes()).map_err(|error| error.to_string());
    answer
        .and_then(|()| Http::read(&mut stream).map_err(|error| error.to_string()))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn publish(node: &TlsNode, source: &str, fields: &str) -> Http {
    ask(node, "POST", "/v1/publish", fields, &json!({"source": source, "data": 1}).to_string())
}

/// The name in a certificate is that of a token, which needs no secret: the first DNS name, and the common name only
/// where there is none. A token that is brought beside a certificate decides.
#[test]
fn the_name_in_a_certificate_is_that_of_a_token() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    authority.write(&authority.of_node());
    let entries = [
        "[[token]]\nname = \"device.example\"\npublish = [\"dns/**\"]\n".to_owned(),
        "[[token]]\nname = \"gateway\"\npublish = [\"common/**\"]\n".to_owned(),
        token_entry("sensors", "sensors-secret", "publish = [\"token/**\"]"),
    ];
    let rights = RightsFile::new(&entries.concat());
    let flags = ["--tls-client-ca", &clients.file("ca.pem"), "--auth", &rights.path()];
    let mut node = TlsNode::start_with(&authority, NodeConfig::named("a").in_memory().with(&flags));
    // The common name of this one is that of another token, and does not count.
    node.client = authority.client_as(&clients.pair("gateway", &["device.example", "gateway"]));
    assert_eq!(publish(&node, "dns/1", "").status, 200);
    publish(&node, "common/1", "").assert_problem(403, "forbidden");
    let token = format!("Authorization: {}\r\n", bearer("sensors-secret"));
    assert_eq!(publish(&node, "token/1", &token).status, 200);
    publish(&node, "dns/1", &token).assert_problem(403, "forbidden");
    publish(&node, "dns/1", "Authorization: Bearer wrong\r\n").assert_problem(401, "unauthorized");
    let mut socket = node.websocket(node.connect(), "/publish");
    socket.send(&json!({"id": 1, "source": "dns/2", "data": 1}));
    assert_eq!(socket.json()["result"]["outcome"], "applied");
    socket.send(&json!({"id": 2, "source": "common/2", "data": 1}));
    assert_eq!(socket.json()["error"]["code"], "forbidden");
    // Without a DNS name, the common name counts. An address is no name.
    node.client = authority.client_as(&clients.pair("gateway", &["10.0.0.1"]));
    assert_eq!(publish(&node, "common/1", "").status, 200);
    publish(&node, "dns/1", "").assert_problem(403, "forbidden");
    // A name without an entry is nobody, and so is one whose entry was taken away.
    node.client = authority.client_as(&clients.pair("stranger", &["stranger.example"]));
    publish(&node, "dns/1", "").assert_problem(401, "unauthorized");
    assert_eq!(ask(&node, "GET", "/healthz", "", "").status, 200);
    rights.write(&entries[1..].concat());
    assert_eq!(socket.close_code(Duration::from_secs(10)), 4001);
    // The name of a token that has a secret works for its certificate, too.
    node.client = authority.client_as(&clients.pair("sensors", &[]));
    assert_eq!(publish(&node, "token/2", "").status, 200);
}

/// A file of rights whose token has neither a secret nor, for want of `--tls-client-ca`, a certificate lets nobody in.
#[test]
fn a_token_without_a_secret_is_no_open_door() {
    let rights = RightsFile::new("[[token]]\nname = \"gateway\"\nadmin = true\n");
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    for token in ["", "gateway", " "] {
        let fields = [("Authorization", bearer(token))];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Http::request(&node.http, "GET", "/v1/members", &fields, b"").assert_problem(401, "unauthorized");
    }
}

/// All files that the operator may change are read again on SIGHUP, and nobody who is connected notices. The file of
/// rights is read although it has not changed, since a file that it names may be on a disk that shows no changes.
#[test]
fn sighup_reads_rights_and_keys_again() {
    let rights = RightsFile::new(&token_entry("ops", "ops-secret", "admin = true"));
    let key = || anode(&["keys", "new"]).stdout;
    let (old, new) = (key(), key());
    rights.write_file("cluster.key", old.as_bytes());
    let keys = rights.file("cluster.key").display().to_string();
    let flags = ["--auth", &rights.path(), "--cluster-key", &keys];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    let mut client = crate::harness::Client::with_token(&node.http, "/publish", "ops-secret");
    let patience = Duration::from_secs(5);
    node.signal("HUP");
    eventually("the rights are read again", patience, || {
        node.log().contains("the file of rights was read again").then_some(())
    });
    assert!(!node.log().contains("the cluster keys have changed"), "they have not: {}", node.log());
    rights.write_file("cluster.key", format!("{new}{old}").as_bytes());
    node.signal("HUP");
    eventually("the keys are read again", patience, || {
        node.log().contains("the cluster keys have changed").then_some(())
    });
    assert!(!node.log().contains(new.trim()) && !node.log().contains(old.trim()), "no key is logged");
    assert_eq!(client.publish(json!({"source": "a", "data": 1}))["result"]["outcome"], "applied");
}

/// What TLS adds to a node is there only where it is used: no memory of a connection, no thread, no counter that moves.
#[test]
fn tls_costs_nothing_where_it_is_not_used() {
    let count = 400;
    let authority = Authority::new("ca");
    let plain = Node::start(NodeConfig::named("a").in_memory());
    let sealed = TlsNode::start(&authority, &[]);
    let threads = |node: &Node| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        line.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or_default()
    };
    let warm: Vec<_> = (0..50).map(|_| plain.subscriber("source=x")).collect();
    let before = plain.rss_bytes();
    let idle: Vec<_> = (0..count).map(|_| plain.subscriber("source=x")).collect();
    let each = plain.rss_bytes().saturating_sub(before) / count;
    let held = plain.metric("anode_client_memory_bytes", &[]);
    println!("{each} bytes an idle subscriber, {held} bytes counted");
    assert!(each < 8 << 10, "{each} bytes an idle subscriber; the state of TLS alone has more");
    assert!(threads(&plain) > 0 && threads(&plain) <= threads(&sealed.node), "no thread more than with TLS");
    // Bytes that look like TLS are refused as what they are, and begin no handshake.
    let mut stream = connect(&plain.http);
    let hello = [&[22, 3, 1, 0, 200][..], &[1; 200]].concat();
    assert!(stream.write_all(&hello).is_ok());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("the beginning of TLS"), "{answer:?}");
    let metrics = plain.get("/metrics").body;
    for line in metrics.lines().filter(|line| line.starts_with("anode_tls_")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    drop((warm, idle));
}
