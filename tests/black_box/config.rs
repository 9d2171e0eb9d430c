//! Flags, environment and file: which values are refused, and what the error tells.

use std::time::Duration;

use serde_json::json;

use crate::harness::command::{Background, binary, run};
use crate::harness::{Node, NodeConfig, Output, anode, eventually, ports};

/// Checks that the exit code is 2 and that the error contains these words: the flag, the value, or what is
/// allowed.
#[track_caller]
fn unusable(args: &[&str], words: &[&str]) {
    let output = anode(args);
    assert_eq!(output.code, Some(2), "{args:?} → {output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is missing: {args:?} → {}", output.stderr);
    }
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn unusable_arguments_name_flag_value_and_what_is_allowed() {
    unusable(&["serve", "--store", "punchcards"], &["store", "punchcards", "embedded", "memory"]);
    unusable(&["serve", "--profile", "moon"], &["profile", "moon", "lan", "wan", "local"]);
    unusable(&["serve", "--log", "xml"], &["log", "xml", "text", "json"]);
    unusable(&["serve", "--log-level", "loud"], &["log-level", "loud", "info"]);
    unusable(&["serve", "--http", "nowhere"], &["http", "nowhere"]);
    unusable(&["serve", "--http", "127.0.0.1:99999"], &["http", "99999"]);
    unusable(&["serve", "--gossip", "127.0.0.1"], &["gossip", "127.0.0.1"]);
    unusable(&["serve", "--join", "a:b:c"], &["join", "a:b:c"]);
    unusable(&["serve", "--join", ","], &["--join", "\",\"", "HOST:PORT"]);
    unusable(&["serve", "--zone", "a b"], &["--zone", "a b", "white space"]);
    unusable(
        &["serve", "--max-record-bytes", "10000", "--max-frame-bytes", "10000"],
        &["--max-record-bytes", "10000", "at most 9991", "--max-frame-bytes"],
    );
    unusable(&["serve", "--node-name", "no spaces"], &["node-name", "no spaces"]);
    unusable(&["serve", "--node-name", ""], &["node-name"]);
    unusable(&["serve", "--history", "many"], &["history", "many"]);
    unusable(&["serve", "--tombstones", "soon"], &["tombstones", "soon"]);
    unusable(&["serve", "--workers", "0"], &["workers", "0"]);
    unusable(&["serve", "--max-record-bytes", "-1"], &["max-record-bytes", "-1", "allowed"]);
    unusable(&["serve", "--history", "-5"], &["history", "-5", "allowed"]);
    unusable(&["serve", "--tombstones", "-1h"], &["tombstones", "-1h", "allowed"]);
    // A negative number was taken for a flag, and the error did not name the flag before it.
    unusable(&["pub", "a", "1", "--ts", "-1"], &["--ts", "-1"]);
    unusable(&["history", "a", "--limit", "-1"], &["--limit", "-1"]);
    unusable(&["sub", "a", "--count", "-1"], &["--count", "-1"]);
    unusable(&["serve", "--max-record-bytes", "99999999999"], &["max-record-bytes", "99999999999"]);
    unusable(&["serve", "--max-record-bytes", "2000000", "--max-frame-bytes", "1000"], &["max-"]);
    unusable(&["serve", "--no-such-flag"], &["no-such-flag"]);
    unusable(&["serve", "--config", "/nowhere/anode.toml"], &["/nowhere/anode.toml"]);
    unusable(&["dance"], &["dance"]);
    unusable(&[], &[]);
    unusable(&["pub", "a"], &[]);
    unusable(&["pub", "a", "1", "--ack", "best"], &["ack", "best", "accepted", "stored", "replicated"]);
    unusable(&["pub", "a", "1", "--to", "ftp://x"], &["to", "ftp://x"]);
    unusable(&["pub", "a", "1", "--ts", "-1"], &["ts", "-1", "allowed"]);
    unusable(&["sub"], &[]);
    unusable(&["sub", "x", "--count", "-1"], &["count", "-1", "allowed"]);
    unusable(&["history", "x", "--limit", "-1"], &["limit", "-1", "allowed"]);
    unusable(&["sub", "x", "--mode", "some"], &["mode", "some", "latest", "all"]);
}

#[test]
fn what_an_address_needs_is_said() {
    // The address is unspecified, there is no node to route to, and nothing else to tell other nodes.
    unusable(&["serve", "--http", "127.0.0.1:0", "--gossip", "0.0.0.0:0"], &["advertise"]);
}

/// If flags of a store that is not used were accepted, users would believe in their effect.
#[test]
fn flags_of_cassandra_are_refused_without_it() {
    for args in [
        ["--cassandra", "127.0.0.1:9042"],
        ["--keyspace", "k"],
        ["--cassandra-user", "u"],
        ["--cassandra-password-file", "/dev/null"],
        ["--cassandra-tls-ca", "/dev/null"],
        ["--consistency", "QUORUM"],
        ["--replication", "3"],
        ["--history-ttl", "1h"],
    ] {
        unusable(&["serve", args[0], args[1]], &[args[0], "--store cassandra"]);
    }
    unusable(&["serve", "--store", "cassandra"], &["--cassandra", "HOST:PORT"]);
}

#[test]
fn a_port_that_is_taken_exits_1() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no port: {error}"));
    let addr = held.local_addr().map(|addr| addr.to_string()).unwrap_or_default();
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let serve = |http: &str, gossip: &str| {
        run(
            binary()
                .args(["serve", "--http", http, "--gossip", gossip, "--store", "memory", "--data-dir"])
                .arg(dir.path()),
            "",
        )
    };
    let check = |output: Output, addr: &str| {
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(addr) && output.stdout.is_empty(), "{output:?}");
    };
    check(serve(&addr, "127.0.0.1:0"), &addr);
    check(serve("127.0.0.1:0", &addr), &addr);
    // Ports of another node are in use too, although its own listeners share them among threads.
    let node = Node::single();
    check(serve(&node.http, "127.0.0.1:0"), &node.http);
    check(serve("127.0.0.1:0", &node.gossip), &node.gossip);
    assert_eq!(node.get("/readyz").status, 200);
}

#[test]
fn port_0_is_any_free_one() {
    let config =
        NodeConfig { http: "127.0.0.1:0".into(), gossip: "127.0.0.1:0".into(), ..NodeConfig::named("a") };
    let node = Node::start(config);
    for addr in [&node.http, &node.gossip] {
        let port = addr.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        assert!(port.is_some_and(|port| port > 0), "{addr}");
    }
    node.put("x", json!(1));
}

#[test]
fn ipv6_in_brackets() {
    assert!(ports::has_ipv6(), "this machine has no IPv6 loopback, which the tests need");
    let at = || format!("[::1]:{}", ports::free_on("::1"));
    let first = Node::start(NodeConfig { http: at(), gossip: at(), ..NodeConfig::named("a") });
    let second = NodeConfig { http: at(), gossip: at(), ..NodeConfig::joining("b", &first) };
    let second = Node::start(second);
    first.wait_alive(2);
    let ts = first.put("six", json!(6));
    second.wait_ts("six", ts);
    let output = anode(&["get", "six", "--from", &format!("ws://{}", second.http)]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// Runs a node with nothing but the given flags and environment, in a directory of its own.
fn bare(
    setup: impl FnOnce(&mut std::process::Command, &std::path::Path),
) -> (Background, String, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let mut command = binary();
    command.arg("serve").current_dir(dir.path());
    setup(&mut command, dir.path());
    let mut process = Background::start(&mut command);
    let Some(line) = process.line(Duration::from_secs(30)) else { panic!("not ready: {}", process.stderr()) };
    assert!(line.starts_with("ready "), "{line:?}");
    (process, line, dir)
}

fn word(line: &str, prefix: &str) -> String {
    line.split(' ').find_map(|word| word.strip_prefix(prefix)).unwrap_or_default().to_owned()
}

#[test]
fn flags_beat_environment_beats_file() {
    let file = |dir: &std::path::Path| {
        let text = format!(
            "http = \"127.0.0.1:{}\"\ngossip = \"127.0.0.1:{}\"\nnode-name = \"from-file\"\nstore = \"memory\"\nmax-record-bytes = 1234\n",
            ports::free(),
            ports::free()
        );
        let path = dir.join("anode.toml");
        let written = std::fs::write(&path, text);
        assert!(written.is_ok(), "{written:?}");
        path
    };
    let (_one, line, _) = bare(|command, dir| {
        command.arg("--config").arg(file(dir));
    });
    assert_eq!(word(&line, "node="), "from-file");
    let client = crate::harness::Client::open(&word(&line, "http="), "/publish");
    assert_eq!(client.connected["max_record_bytes"], 1234);
    let (_two, line, _) = bare(|command, dir| {
        command.arg("--config").arg(file(dir)).env("ANODE_NODE_NAME", "from-environment");
    });
    assert_eq!(word(&line, "node="), "from-environment");
    let (_three, line, _) = bare(|command, dir| {
        command
            .arg("--config")
            .arg(file(dir))
            .env("ANODE_NODE_NAME", "from-environment")
            .args(["--node-name", "from-flag"]);
    });
    assert_eq!(word(&line, "node="), "from-flag");
}

#[test]
fn the_environment_has_the_same_names() {
    let http = format!("127.0.0.1:{}", ports::free());
    let (_node, line, _dir) = bare(|command, dir| {
        command.env("ANODE_HTTP", &http).env("ANODE_GOSSIP", "127.0.0.1:0").env("ANODE_STORE", "memory");
        command.env("ANODE_MAX_FRAME_BYTES", "200000").env("ANODE_DATA_DIR", dir);
    });
    assert_eq!(word(&line, "http="), http);
    let client = crate::harness::Client::open(&http, "/publish");
    assert_eq!(client.connected["max_frame_bytes"], 200_000);
}

#[test]
fn a_file_with_an_unknown_or_wrong_entry_exits_2() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    for (name, text, words) in [
        ("unknown.toml", "colour = \"red\"\n", ["colour", "unknown.toml"]),
        ("wrong.toml", "store = \"punchcards\"\n", ["store", "punchcards"]),
        ("broken.toml", "http = \n", ["broken.toml", "http"]),
        ("kind.toml", "history = \"many\"\n", ["history", "kind.toml"]),
    ] {
        let path = dir.path().join(name);
        let written = std::fs::write(&path, text);
        assert!(written.is_ok(), "{written:?}");
        let path = path.to_string_lossy().into_owned();
        let output = anode(&["serve", "--config", &path]);
        assert_eq!(output.code, Some(2), "{name}: {output:?}");
        // Which of the words the parser's message contains differs from case to case. One of them must be
        // there.
        assert!(words.iter().any(|word| output.stderr.contains(word)), "{name}: {output:?}");
    }
}

#[test]
fn a_name_made_up_once_is_kept_in_the_data_directory() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let start = || {
        let mut command = binary();
        command
            .args(["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path());
        let mut process = Background::start(&mut command);
        let line = process.line(Duration::from_secs(30)).unwrap_or_default();
        process.signal("TERM");
        assert_eq!(process.wait(Duration::from_secs(15)), Some(0), "{}", process.stderr());
        word(&line, "node=")
    };
    let first = start();
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    assert!((1..=63).contains(&first.len()) && first.chars().all(is_name), "{first:?}");
    assert_eq!(start(), first);
    let other =
        Node::start(NodeConfig { data_dir: Some(dir.path().join("other")), ..NodeConfig::named("b") });
    assert_ne!(other.id, first);
}

#[test]
fn the_log_goes_to_stderr_as_text_or_json() {
    let node = Node::start(NodeConfig::named("a").with(&["--log", "json"]));
    let log =
        eventually("it logs", Duration::from_secs(10), || Some(node.log()).filter(|log| log.contains('\n')));
    for line in log.lines() {
        assert!(crate::harness::json(line).is_object(), "{line}");
    }
}
