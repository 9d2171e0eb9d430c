//! TLS on the port for clients: what is spoken, what is refused, and how certificates change. What clients cost is in
//! `tls_bounds`.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use serde_json::json;

use crate::harness::http::{connect, read_all};
use crate::harness::raw::garbage;
use crate::harness::tls::{Authority, Pair, TlsNode, TlsStream, replace};
use crate::harness::wait::{PATIENCE, throughout};
use crate::harness::{Http, NodeConfig, anode, eventually};

const GET: &str = "GET /v1/sources/a HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Reads one answer with a `Content-Length` off a connection that stays open. Returns its head and body.
fn answer(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                assert_eq!(bytes.len(), end + 4 + length, "more than one answer");
                return (text, bytes[end + 4..].to_vec());
            }
        }
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

#[test]
fn both_versions_publish_and_subscribe() {
    let authority = Authority::new("ca");
    let mut node = TlsNode::start(&authority, &[]);
    for (versions, version) in [([&TLS12], ProtocolVersion::TLSv1_2), ([&TLS13], ProtocolVersion::TLSv1_3)] {
        node.client = authority.client(&versions);
        let mut subscriber = node.subscriber("source=t/**");
        assert_eq!(subscriber.0.get_ref().tls.protocol_version(), Some(version));
        let mut publisher = node.websocket(node.connect(), "/publish");
        for number in 0..100 {
            publisher.send(&json!({"source": "t/x", "data": number, "id": number}));
            assert_eq!(subscriber.record()["data"], number);
            assert_eq!(publisher.json()["id"], number);
        }
        // Frames of many records of TLS, in both directions.
        let large = "x".repeat(60_000);
        let frame: Vec<_> = (0..15).map(|at| json!({"source": format!("t/{at}"), "data": large})).collect();
        publisher.send(&json!(frame));
        for _ in 0..15 {
            assert_eq!(subscriber.record()["data"], large.as_str());
        }
        subscriber.0.close(None).unwrap_or_default();
        while subscriber.0.read().is_ok() {}
        node.put("t/x", json!(version.as_str()));
    }
    assert_eq!(node.get("/v1/sources/t/x").json()["data"], "TLSv1_3");
    assert!(node.metric("anode_tls_handshakes_total", &[("outcome", "full")]) >= 2.0);
}

/// A hello of TLS 1.0 or 1.1 with suites of its time is answered by an alert: that the handshake failed (40), or
/// that the version is not spoken (70).
#[test]
fn older_versions_are_refused_by_an_alert() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &[]);
    for minor in [1, 2] {
        let mut hello = vec![3, minor];
        hello.extend(garbage(1, 32));
        hello.extend([0, 0, 4, 0xc0, 0x2f, 0xc0, 0x13, 1, 0]);
        let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
        record.extend(hello);
        let mut stream = connect(&node.node.http);
        assert!(stream.write_all(&record).is_ok());
        let alert = read_all(&mut stream, PATIENCE);
        assert!(matches!(alert[..], [21, 3, _, 0, 2, 2, 40 | 70]), "{alert:?}");
    }
    let failed = node.metric("anode_tls_handshakes_total", &[("outcome", "failed")]);
    assert_eq!(failed, 2.0);
}

#[test]
fn http_keeps_its_connection_and_sends_large_pages() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &[]);
    for at in 0..20 {
        node.put(&format!("page/{at}"), json!("x".repeat(50_000)));
    }
    let mut stream = node.connect();
    for round in 0..3 {
        for path in ["/healthz", "/readyz", "/metrics", "/v1/members", "/healthz"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert!(stream.write_all(request.as_bytes()).is_ok(), "{path}");
            let (head, body) = answer(&mut stream);
            assert!(head.starts_with("HTTP/1.1 200") && !body.is_empty(), "{round} {path}: {head}");
        }
        let request = "GET /v1/sources?pattern=page/**&limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(stream.write_all(request.as_bytes()).is_ok());
        let (_, body) = answer(&mut stream);
        assert!(body.len() > 1_000_000, "{}", body.len());
        let page: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        assert_eq!(page["records"].as_array().map(Vec::len), Some(20));
    }
    // A body of many records of TLS.
    let records: Vec<_> =
        (0..15).map(|at| json!({"source": format!("b/{at}"), "data": "y".repeat(60_000)})).collect();
    let published = node.post(&json!(records));
    assert_eq!(published.status, 200, "{published:?}");
    assert_eq!(node.get("/v1/sources/b/14").json()["data"], "y".repeat(60_000));
}

#[test]
fn a_plain_request_is_told_so_in_plain_text() {
    let authority = Authority::new("ca");
    authority.write(&authority.of_node());
    let config = NodeConfig::named("a").in_memory().with(&["--tls-client-ca", &authority.file("ca.pem")]);
    let node = TlsNode::start_with(&authority, config);
    let address = &node.node.http;
    let upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    for refused in [
        Http::get(address, "/healthz"),
        Http::get(address, "/v1/sources/a"),
        Http::post(address, "/v1/publish", &"x".repeat(300_000)),
        Http::request(address, "GET", "/subscribe?source=a", &upgrade, b""),
    ] {
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        assert!(refused.body.contains("TLS") && refused.body.contains("https"), "{refused:?}");
    }
}

/// Bytes that are neither TLS nor text end the connection, and nothing else.
#[test]
fn garbage_does_no_harm() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &[]);
    let mut subscriber = node.subscriber("source=x");
    for seed in 0..50 {
        let mut bytes = garbage(seed, 3_000);
        bytes[0] = 22;
        if seed % 2 == 0 {
            bytes[1..5].copy_from_slice(&[3, 3, 4, 0]);
        }
        let mut stream = connect(&node.node.http);
        assert!(stream.write_all(&bytes).is_ok());
        let _ = stream.shutdown(Shutdown::Write);
        read_all(&mut stream, PATIENCE);
        // The same behind a handshake.
        let mut stream = node.connect();
        let _ = stream.socket.write_all(&garbage(seed, 3_000));
        let _ = stream.socket.shutdown(Shutdown::Write);
        read_all(&mut stream.socket, PATIENCE);
    }
    node.put("x", json!(1));
    assert_eq!(subscriber.record()["data"], 1);
}

#[test]
fn records_may_come_byte_by_byte() {
    let authority = Authority::new("ca");
    let mut node = TlsNode::start(&authority, &[]);
    for versions in [[&TLS12], [&TLS13]] {
        node.client = authority.client(&versions);
        let mut stream = TlsStream::connect(&node.node.http, &node.client);
        stream.piece_bytes = 1;
        let mut socket = node.websocket(stream, "/publish");
        for id in 0..5 {
            socket.send(&json!({"source": "slow", "data": "x".repeat(300), "id": id}));
            assert_eq!(socket.json()["result"]["outcome"], "applied");
        }
        let mut stream = TlsStream::connect(&node.node.http, &node.client);
        stream.piece_bytes = 1;
        assert!(stream.write_all(GET.replace("sources/a", "sources/slow").as_bytes()).is_ok());
        assert!(answer(&mut stream).0.starts_with("HTTP/1.1 200"));
    }
}

/// A client that has ended its side, as TLS demands, still gets its answer, and an end behind it. One whose
/// connection was cut in the middle of a request has not published anything.
#[test]
fn an_end_is_told_from_a_cut() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &[]);
    node.put("a", json!(1));
    for path in ["/v1/sources/a", "/healthz"] {
        let mut stream = node.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(stream.write_all(request.as_bytes()).is_ok());
        stream.tls.send_close_notify();
        assert!(stream.send_tls().is_ok());
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        assert!(read.is_ok() && text.starts_with("HTTP/1.1 200"), "{path}: {read:?} {text}");
    }
    let head = "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let body = r#"{"source":"cut","data":1}"#;
    let mut stream = node.connect();
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len() + 1);
    assert!(stream.write_all(request.as_bytes()).is_ok());
    assert!(stream.socket.shutdown(Shutdown::Write).is_ok());
    read_all(&mut stream.socket, PATIENCE);
    assert_eq!(node.get("/v1/sources/cut").status, 404);
    // A session whose connection was cut ends, too.
    let socket = node.subscriber("source=a");
    let subscribed = || node.metric("anode_connections", &[("endpoint", "subscribe")]);
    assert_eq!(subscribed(), 1.0);
    assert!(socket.0.get_ref().socket.shutdown(Shutdown::Write).is_ok());
    eventually("the session has ended", PATIENCE, || (subscribed() == 0.0).then_some(()));
}

#[test]
fn clients_come_back_by_a_ticket() {
    let authority = Authority::new("ca");
    let mut node = TlsNode::start(&authority, &[]);
    for versions in [[&TLS12], [&TLS13]] {
        node.client = authority.client(&versions);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut stream = node.connect();
            assert!(stream.write_all(GET.as_bytes()).is_ok());
            answer(&mut stream);
            kinds.push(stream.tls.handshake_kind());
        }
        let resumed = Some(HandshakeKind::Resumed);
        assert_eq!(kinds, [Some(HandshakeKind::Full), resumed, resumed], "{versions:?}");
    }
    assert_eq!(node.metric("anode_tls_handshakes_total", &[("outcome", "resumed")]), 4.0);
}

/// The certificate that the node shows.
fn shown(node: &TlsNode) -> Option<Vec<u8>> {
    let mut stream = TlsStream::connect(&node.node.http, &node.client);
    stream.shake().ok()?;
    let certificates = stream.tls.peer_certificates()?;
    certificates.first().map(|first| first.as_ref().to_vec())
}

fn der(pair: &Pair) -> Option<Vec<u8>> {
    use rustls::pki_types::pem::PemObject;
    let read = rustls::pki_types::CertificateDer::from_pem_slice(pair.cert.as_bytes());
    read.ok().map(|certificate| certificate.as_ref().to_vec())
}

#[test]
fn certificates_are_read_again_when_they_change_and_on_sighup() {
    let authority = Authority::new("ca");
    let (one, two, three) = (authority.of_node(), authority.of_node(), authority.of_node());
    authority.write(&one);
    let mut node = TlsNode::start_with(&authority, NodeConfig::named("a").in_memory());
    node.node.allowed_errors = vec!["is refused"];
    let mut subscriber = node.subscriber("source=x");
    // Every connection of this client does a whole handshake, in which it sees the certificate.
    let fresh = |node: &mut TlsNode| {
        node.client = authority.client(&[&TLS13]);
        shown(node)
    };
    assert_eq!(fresh(&mut node), der(&one));
    replace(&authority.path("cert.pem"), &two.cert);
    replace(&authority.path("key.pem"), &two.key);
    let second = Duration::from_secs(3);
    eventually("the new pair is shown", second, || (fresh(&mut node) == der(&two)).then_some(()));
    // A key of another certificate, told by an error line, while the old pair serves on.
    let refused = |node: &TlsNode| node.metric("anode_tls_reloads_total", &[("outcome", "refused")]);
    let before = refused(&node);
    replace(&authority.path("key.pem"), &three.key);
    eventually("the pair is refused", second, || (refused(&node) > before).then_some(()));
    eventually("an error line names the file", second, || {
        let log = node.node.log();
        log.lines().any(|line| line.contains(" ERROR ") && line.contains("--tls-key")).then_some(())
    });
    assert_eq!(fresh(&mut node), der(&two));
    // Asked for by a signal, it is refused again, at once.
    let before = refused(&node);
    node.node.signal("HUP");
    eventually("it is refused again", second, || (refused(&node) > before).then_some(()));
    assert_eq!(fresh(&mut node), der(&two));
    replace(&authority.path("cert.pem"), &three.cert);
    eventually("the pair fits", second, || (fresh(&mut node) == der(&three)).then_some(()));
    let used = |node: &TlsNode| node.metric("anode_tls_reloads_total", &[("outcome", "used")]);
    let before = used(&node);
    node.node.signal("HUP");
    eventually("it is read again", second, || (used(&node) > before).then_some(()));
    // Who was connected all the time did not notice.
    node.put("x", json!(1));
    assert_eq!(subscriber.record()["data"], 1);
    let removed = std::fs::remove_file(authority.path("key.pem"));
    assert!(removed.is_ok());
    eventually("a missing file is told", second, || node.node.log().contains("No such file").then_some(()));
    assert_eq!(fresh(&mut node), der(&three));
}

#[test]
fn a_client_shows_a_certificate_of_the_authority() {
    let (authority, other) = (Authority::new("ca"), Authority::new("another"));
    let clients = Authority::new("clients");
    authority.write(&authority.of_node());
    let config = NodeConfig::named("a").in_memory().with(&["--tls-client-ca", &clients.file("ca.pem")]);
    let mut node = TlsNode::start_with(&authority, config);
    // In TLS 1.3 the client has done its handshake before the node refuses it.
    let is_served = |node: &TlsNode| {
        let mut stream = TlsStream::connect(&node.node.http, &node.client);
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        sent.is_ok() && Http::read(&mut stream).is_ok_and(|answer| answer.status == 200)
    };
    for versions in [[&TLS12], [&TLS13]] {
        node.client = authority.client(&versions);
        assert!(!is_served(&node), "without a certificate");
    }
    node.client = authority.client_as(&other.pair("sensors", &["sensors"]));
    assert!(!is_served(&node), "of another authority");
    node.client = authority.client_as(&clients.pair("sensors", &[]));
    assert!(is_served(&node) && is_served(&node));
    node.put("x", json!(1));
    let mut subscriber = node.subscriber("source=x");
    node.put("x", json!(2));
    assert_eq!(subscriber.record()["data"], 2);
    assert_eq!(node.metric("anode_tls_handshakes_total", &[("outcome", "resumed")]), 0.0);
    // An authority that is taken away is not believed any longer, and one that is added is.
    replace(&clients.path("ca.pem"), &std::fs::read_to_string(other.path("ca.pem")).unwrap_or_default());
    eventually("the authority is another one", PATIENCE, || (!is_served(&node)).then_some(()));
    node.client = authority.client_as(&other.pair("sensors", &["sensors"]));
    assert!(is_served(&node));
}

#[test]
fn those_who_watch_have_a_plain_port() {
    let authority = Authority::new("ca");
    let node = TlsNode::start(&authority, &["--max-connections", "1"]);
    let _only = node.subscriber("source=x");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(Http::get(&node.watch, path).status, 200, "{path}");
        let head = Http::request(&node.watch, "HEAD", path, &[], b"");
        assert!(head.status == 200 && head.body.is_empty(), "{head:?}");
    }
    for path in ["/", "/v1/members", "/v1/sources/x", "/publish", "/metrics/"] {
        Http::get(&node.watch, path).assert_problem(404, "not_found");
    }
    Http::post(&node.watch, "/v1/publish", r#"{"source":"x","data":1}"#).assert_problem(404, "not_found");
    Http::post(&node.watch, "/metrics", "").assert_problem(404, "not_found");
    crate::harness::ws::refused(&node.watch, "/subscribe?source=x", &[]).assert_problem(404, "not_found");
    // It keeps connections, and asks no more of one than of another.
    let mut stream = connect(&node.watch);
    for _ in 0..10 {
        assert!(stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_ok());
        assert!(answer(&mut stream).0.starts_with("HTTP/1.1 200"));
    }
    // Silent connections do not keep others out.
    let _silent: Vec<_> = (0..200).map(|_| connect(&node.watch)).collect();
    for _ in 0..3 {
        assert_eq!(Http::get(&node.watch, "/healthz").status, 200);
    }
    // Metrics cost more than the other paths, and are not to be had at any rate.
    let statuses: Vec<u16> = (0..60).map(|_| Http::get(&node.watch, "/metrics").status).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
}

#[test]
fn a_stop_tells_clients_over_tls() {
    let authority = Authority::new("ca");
    let mut node = TlsNode::start(&authority, &[]);
    let mut subscriber = node.subscriber("source=x");
    node.node.signal("TERM");
    assert_eq!(subscriber.close_code(PATIENCE), 4200);
    let ended = subscriber.0.get_mut().socket.read(&mut [0; 1]);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() != ErrorKind::WouldBlock));
    assert_eq!(node.node.process().wait(PATIENCE), Some(0));
}

/// SIGHUP does not end a node that has nothing to read again.
#[test]
fn sighup_does_not_end_a_node() {
    let node = crate::harness::Node::single();
    node.signal("HUP");
    throughout("the node serves", Duration::from_millis(300), || node.get("/healthz").status == 200);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let pair = authority.of_node();
    authority.write(&pair);
    other.write(&other.of_node());
    let (cert, key, ca) = (authority.file("cert.pem"), authority.file("key.pem"), authority.file("ca.pem"));
    let (other_key, missing) = (other.file("key.pem"), authority.file("missing.pem"));
    let empty = authority.file("empty.pem");
    assert!(std::fs::write(authority.path("empty.pem"), "").is_ok());
    let unusable = |flags: &[&str], words: &[&str]| {
        let dir = authority.file("data");
        let ports = ["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data-dir", &dir];
        let output = anode(&[&ports[..], flags].concat());
        assert_eq!(output.code, Some(2), "{flags:?} → {output:?}");
        for word in words {
            assert!(output.stderr.contains(word), "{word:?} is missing: {flags:?} → {}", output.stderr);
        }
    };
    unusable(&["--tls-cert", &cert], &["--tls-key:", "--tls-cert is", &cert]);
    unusable(&["--tls-key", &key], &["--tls-cert:", "--tls-key is", &key]);
    unusable(&["--tls-client-ca", &ca], &["--tls-client-ca:", &ca, "--tls-cert and --tls-key"]);
    unusable(
        &["--tls-cert", &cert, "--tls-key", &other_key],
        &["--tls-key:", &other_key, "another certificate"],
    );
    unusable(&["--tls-cert", &missing, "--tls-key", &key], &["--tls-cert:", &missing, "No such file"]);
    unusable(&["--tls-cert", &cert, "--tls-key", &missing], &["--tls-key:", &missing, "No such file"]);
    unusable(&["--tls-cert", &empty, "--tls-key", &key], &["--tls-cert:", &empty, "no certificate"]);
    unusable(&["--tls-cert", &cert, "--tls-key", &cert], &["--tls-key:", "private key"]);
    unusable(&["--tls-cert", "", "--tls-key", &key], &["--tls-cert:", "the path of a file"]);
    let with_ca = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca"];
    unusable(&[&with_ca[..], &[&empty]].concat(), &["--tls-client-ca:", &empty, "no certificate"]);
    unusable(&["--metrics", "nowhere"], &["--metrics:", "nowhere", "IP:PORT"]);
    assert!(!authority.path("data").exists(), "nothing was begun");
}
