//! Clients by other authors: Python's `websockets`, Node's `ws`, `graphql`, `graphql-ws` and `standardwebhooks`, and curl.
//! `scripts/test` installs them. Without them these tests fail with an error that tells so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::command::{Background, run};
use crate::harness::{Cluster, Node, NodeConfig};
use crate::hooks::start_hook;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path of something that `scripts/interop` has installed.
pub fn installed(path: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let full = target.join("interop").join(path);
    assert!(
        full.exists(),
        "{} is missing: run scripts/interop (scripts/test does), which needs the network once",
        full.display()
    );
    full
}

/// Runs a script of tests/interop with the addresses of two nodes of a cluster. It must succeed.
fn check(mut command: Command, script: &str) {
    let cluster = Cluster::start(2);
    command.arg(root().join("tests/interop").join(script)).arg(&cluster[0].http).arg(&cluster[1].http);
    let output = run(&mut command, "");
    assert_eq!(output.code, Some(0), "{script}:\n{}\n{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("interop ok"), "{script}: {output:?}");
}

#[test]
fn python_websockets() {
    check(Command::new(installed("python/bin/python")), "client.py");
}

#[test]
fn node_ws() {
    let modules = installed("node/node_modules");
    let mut command = Command::new("node");
    command.env("INTEROP_MODULES", modules);
    check(command, "client.cjs");
}

/// The schema is one by the rules of the reference implementation, and its WebSocket client gets what it should.
#[test]
fn node_graphql() {
    let mut command = Command::new("node");
    command.env("INTEROP_MODULES", installed("node/node_modules"));
    installed("node/node_modules/graphql-ws");
    check(command, "graphql.cjs");
}

/// The library of Standard Webhooks takes what a node sends, also what it sends again after a failure, and refuses it where
/// anything was changed.
#[test]
fn node_standardwebhooks() {
    let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
    installed("node/node_modules/standardwebhooks");
    let mut command = Command::new("node");
    command.env("INTEROP_MODULES", installed("node/node_modules"));
    command.arg(root().join("tests/interop/webhooks.cjs")).args([secret.as_str(), "20"]);
    let mut receiver = Background::start(&mut command);
    let mut said = || {
        let line = receiver.line(Duration::from_secs(40));
        line.unwrap_or_else(|| panic!("{}", receiver.stderr()))
    };
    let url = said();
    let node = Node::start(NodeConfig::named("a").in_memory().with_env("HOOK_SECRET", &secret));
    start_hook(&node, "signed", json!({"on": "s/*", "url": url, "secret": "env:HOOK_SECRET"}));
    for n in 0..20 {
        node.put(&format!("s/{n}"), json!({"n": n, "text": "größer als ☃"}));
    }
    assert_eq!(said(), "interop ok 20");
}

#[test]
fn curl_reads_and_writes() {
    let node = Node::single();
    let url = |path: &str| format!("http://{}{path}", node.http);
    let curl = |args: &[&str]| {
        run(Command::new("curl").args(["--silent", "--show-error", "--max-time", "20"]).args(args), "")
    };
    let output =
        curl(&["--fail", "-d", r#"{"source":"curl/1","data":{"c":21.5}}"#, &url("/v1/publish?ack=stored")]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(crate::harness::json(&output.stdout)["level"], "stored");
    let output = curl(&["--fail", &url("/v1/sources/curl/1")]);
    assert_eq!(crate::harness::json(&output.stdout)["data"], json!({"c": 21.5}));
    let output = curl(&["-o", "/dev/null", "-w", "%{http_code} %{content_type}", &url("/v1/sources/none")]);
    assert!(output.stdout.starts_with("404 application/problem+json"), "{output:?}");
    // Before a large body, curl sends only the head and waits (`Expect: 100-continue`).
    let body = json!({"source": "curl/large", "data": "x".repeat(60_000)}).to_string();
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--fail",
        "--max-time",
        "20",
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        "@-",
        &url("/v1/publish"),
    ]);
    assert_eq!(run(&mut command, &body).code, Some(0));
    // The body is chunked, because its length is not known in advance.
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--fail",
        "--max-time",
        "20",
        "-H",
        "Transfer-Encoding: chunked",
        "--data-binary",
        "@-",
        &url("/v1/publish"),
    ]);
    assert_eq!(run(&mut command, r#"{"source":"curl/chunked","data":1}"#).code, Some(0));
    assert!(node.latest("curl/chunked").is_some());
}

/// Runs the README's example with Node's built-in WebSocket, which is the closest to that of a browser.
#[test]
fn the_first_lines_of_the_readme() {
    let node = Node::single();
    let script = format!(
        "const s = new (globalThis.WebSocket ?? require('{}'))('ws://{}/subscribe?source=tour/**');\
         s.onmessage = m => console.log(m.data);",
        installed("node/node_modules").join("ws").display(),
        node.http
    );
    let mut process = Background::start(Command::new("node").args(["-e", &script]));
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("\"eos\"")) {
        lines.push(process.line(Duration::from_secs(20)).unwrap_or_else(|| panic!("{}", process.stderr())));
    }
    node.put("tour/1", json!("hello"));
    let line = process.line(Duration::from_secs(20)).unwrap_or_default();
    assert_eq!(crate::harness::json(&line)["data"], "hello");
}
