//! Clients of a node that speaks TLS: the command line, and those of other authors.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::interop::{installed, root};
use crate::harness::command::{Background, Output, binary, run};
use crate::harness::tls::{Authority, TlsNode};
use crate::harness::{Node, anode, json};

fn node() -> (Authority, TlsNode) {
    let authority = Authority::new("an authority for tests");
    let node = TlsNode::start(&authority, &[]);
    (authority, node)
}

fn succeeded(output: &Output) -> &str {
    assert_eq!(output.code, Some(0), "{output:?}");
    &output.stdout
}

#[test]
fn every_command_speaks_tls() {
    let (authority, node) = node();
    let (wss, https) = (format!("wss://{}", node.node.http), format!("https://{}", node.node.http));
    let ca = authority.file("ca.pem");
    let told = |args: &[&str]| succeeded(&anode(&[args, &["--ca", &ca]].concat())).to_owned();
    let published = told(&["pub", "cli/a", "21.5", "--to", &wss]);
    assert_eq!(json(&published)["outcome"], "applied");
    assert_eq!(json(&told(&["get", "cli/a", "--from", &https]))["data"], 21.5);
    assert_eq!(json(&told(&["history", "cli/a", "--from", &wss]))["data"], 21.5);
    assert_eq!(json(&told(&["sub", "cli/*", "--count", "1", "--from", &wss]))["source"], "cli/a");
    assert!(told(&["members", "--from", &https]).contains("alive"));
    told(&["health", "--ready", "--from", &wss]);
    // Many records, of which the answers come while others are sent.
    let lines: Vec<String> = (0..3_000)
        .map(|at| json!({"source": format!("many/{at}"), "data": "x".repeat(500)}).to_string())
        .collect();
    let mut command = binary();
    command.args(["pub", "--stdin", "--to", &wss, "--ca", &ca]);
    succeeded(&run(&mut command, &lines.join("\n")));
    let records = told(&["sub", "many/**", "--count", "3000", "--from", &wss]);
    assert_eq!(records.lines().count(), 3_000);
    // A subscription goes on to print what comes.
    let mut command = binary();
    command.args(["sub", "later", "--from", &wss, "--ca", &ca]);
    let mut subscriber = Background::start(&mut command);
    node.put("later", json!(1));
    assert_eq!(json(&subscriber.line(Duration::from_secs(20)).unwrap_or_default())["data"], 1);
}

#[test]
fn a_node_that_is_not_trusted_is_not_spoken_to() {
    let (authority, node) = node();
    let other = Authority::new("another authority");
    let (ca, other) = (authority.file("ca.pem"), other.file("ca.pem"));
    let url = format!("wss://{}", node.node.http);
    for args in [&["--ca", &other][..], &[]] {
        let output = anode(&[&["get", "a", "--from", &url], args].concat());
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains("certificate"), "{output:?}");
    }
    // The certificate is one for other names.
    let pair = authority.pair("x", &["other.example"]);
    authority.write(&pair);
    let config = crate::harness::NodeConfig::named("b").in_memory();
    let misnamed = TlsNode::start_with(&authority, config);
    let url_of_it = format!("wss://{}", misnamed.node.http);
    let output = anode(&["pub", "a", "1", "--to", &url_of_it, "--ca", &ca]);
    assert!(output.code == Some(1) && output.stderr.contains("certificate"), "{output:?}");
    // What would not be checked is not taken.
    let plain = Node::single();
    let output = anode(&["get", "a", "--from", &format!("ws://{}", plain.http), "--ca", &ca]);
    assert!(output.code == Some(2) && output.stderr.contains("--ca"), "{output:?}");
    let output = anode(&["get", "a", "--from", &url, "--ca", &authority.file("missing.pem")]);
    assert!(output.code == Some(2) && output.stderr.contains("missing.pem"), "{output:?}");
    // A plain command is told what the port speaks, and one with TLS that the port does not.
    let output = anode(&["get", "a", "--from", &format!("ws://{}", node.node.http)]);
    assert!(output.code == Some(1) && output.stderr.contains("400"), "{output:?}");
    let output = anode(&["get", "a", "--from", &format!("wss://{}", plain.http), "--ca", &ca]);
    assert_eq!(output.code, Some(1), "{output:?}");
}

#[test]
fn the_demo_runs_over_tls() {
    let authority = Authority::new("an authority for tests");
    authority.write(&authority.of_node());
    let (cert, key, ca) = (authority.file("cert.pem"), authority.file("key.pem"), authority.file("ca.pem"));
    let flags = ["demo", "--seconds", "4", "--tls-cert", &cert, "--tls-key", &key, "--ca", &ca];
    let output = anode(&flags);
    assert!(succeeded(&output).contains("3"), "{output:?}");
    assert!(!output.stderr.contains("ERROR"), "{output:?}");
}

fn openssl(node: &TlsNode, authority: &Authority, flags: &[&str], input: &str) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &node.node.http, "-CAfile", &authority.file("ca.pem")]);
    run(command.args(["-verify_return_error"]).args(flags), input)
}

/// The versions and suites that are spoken, by a client that has all of them.
#[test]
fn openssl_speaks_what_is_safe_and_nothing_else() {
    let (authority, node) = node();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let output = openssl(&node, &authority, &[version, "-quiet", "-ign_eof"], request);
        assert!(output.stdout.starts_with("HTTP/1.1 200"), "{version}: {output:?}");
        for group in ["X25519:P-256", "P-256", "P-384:P-256"] {
            let output = openssl(&node, &authority, &[version, "-groups", group, "-brief"], "");
            assert_eq!(output.code, Some(0), "{version} {group}: {output:?}");
        }
    }
    let old = "DEFAULT:@SECLEVEL=0";
    for refused in [
        &["-tls1", "-cipher", old][..],
        &["-tls1_1", "-cipher", old],
        &["-tls1_2", "-cipher", "AES128-SHA"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
        &["-tls1_3", "-alpn", "h2"],
    ] {
        let output = openssl(&node, &authority, refused, "");
        assert_ne!(output.code, Some(0), "{refused:?}: {output:?}");
    }
    let session = authority.file("session.pem");
    openssl(&node, &authority, &["-tls1_2", "-sess_out", &session], "Q\n");
    let again = openssl(&node, &authority, &["-tls1_2", "-sess_in", &session], "Q\n");
    assert!(again.stdout.contains("Reused, TLSv1.2"), "{again:?}");
    // TLS 1.2 knows renegotiation, which could be asked for again and again.
    let asked = openssl(&node, &authority, &["-tls1_2"], "R\n");
    assert_ne!(asked.code, Some(0), "{asked:?}");
    node.put("after", json!(1));
}

#[test]
fn curl_reads_and_writes_over_tls() {
    let (authority, node) = node();
    let ca = authority.file("ca.pem");
    let url = |path: &str| format!("https://{}{path}", node.node.http);
    for version in ["1.2", "1.3"] {
        let curl = |args: &[&str], input: &str| {
            let mut command = Command::new("curl");
            command.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", &ca]);
            command.args([&format!("--tlsv{version}"), "--tls-max", version]);
            succeeded(&run(command.args(args), input)).to_owned()
        };
        let body = json!({"source": "curl/a", "data": "x".repeat(60_000)}).to_string();
        let answer = curl(&["--data-binary", "@-", &url("/v1/publish?ack=stored")], &body);
        assert_eq!(json(&answer)["level"], "stored");
        let two = curl(&[&url("/v1/sources/curl/a"), &url("/v1/sources/curl/a")], "");
        assert_eq!(two.matches("\"source\":\"curl/a\"").count(), 2, "{two}");
        let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", "@-", &url("/v1/publish")];
        curl(&chunked, r#"{"source":"curl/b","data":1}"#);
    }
}

/// Runs a script of tests/interop over TLS. Both addresses are those of one node.
fn check(mut command: Command, script: &str) {
    let (authority, node) = node();
    let ca = authority.file("ca.pem");
    let command = command
        .arg(root().join("tests/interop").join(script))
        .args([&node.node.http, &node.node.http])
        .envs([("INTEROP_SCHEME", "wss"), ("SSL_CERT_FILE", &ca), ("NODE_EXTRA_CA_CERTS", &ca)]);
    let output = run(command, "");
    assert!(succeeded(&output).contains("interop ok"), "{script}: {output:?}");
}

#[test]
fn python_websockets_over_tls() {
    check(Command::new(installed("python/bin/python")), "client.py");
}

#[test]
fn node_ws_over_tls() {
    let mut command = Command::new("node");
    command.env("INTEROP_MODULES", installed("node/node_modules"));
    check(command, "client.cjs");
}
