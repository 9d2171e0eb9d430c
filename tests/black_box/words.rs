//! The words of the contract: which names, timestamps and values there are, at the edges of what is allowed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{Background, binary};
use crate::harness::{Client, Http, Node, NodeConfig, anode, encode, wall_us};

/// Publishes a record, and returns the outcome or the code of the refusal.
fn told(client: &mut Client, record: Value) -> String {
    let answer = client.publish(record);
    let said = [&answer["result"]["outcome"], &answer["error"]["code"]];
    said.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned()
}

#[test]
fn sources_are_allowed_up_to_their_bounds() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut client = node.publisher();
    let sixteen = vec!["s"; 16].join("/");
    let longest = "x".repeat(255);
    // 127 characters of two bytes and one of one byte.
    let longest_of_two = format!("{}x", "ä".repeat(127));
    for source in [
        "a",
        "A",
        "a b",
        "a/b c/d",
        "ä",
        "a\u{308}",
        "日本/温度",
        "...",
        "a/.b",
        "a/$b",
        "#+?&%",
        &sixteen,
        &longest,
        &longest_of_two,
    ] {
        assert_eq!(told(&mut client, json!({"source": source, "data": source})), "applied", "{source}");
        assert_eq!(node.latest(source).map(|record| record["data"].clone()), Some(json!(source)), "{source}");
    }
    let too_long_of_two = "ä".repeat(128);
    for source in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/.",
        "a/../b",
        "a\u{0}",
        "a\nb",
        "a\u{7f}",
        "a\u{85}",
        "*",
        "a/*/b",
        "**",
        "a*",
        &format!("{sixteen}/s"),
        &format!("{longest}x"),
        &too_long_of_two,
    ] {
        assert_eq!(told(&mut client, json!({"source": source, "data": 1})), "bad_source", "{source:?}");
        let path = format!("/v1/sources?pattern={}", encode(source));
        let is_pattern = source.contains('*') && source != "a*";
        assert_eq!(node.get(&path).status == 200, is_pattern, "as a pattern: {source:?}");
    }
}

/// Names are compared byte by byte: what looks the same may be two sources.
#[test]
fn sources_are_compared_byte_by_byte() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    for (number, source) in ["ä", "a\u{308}", "Ä", "a"].into_iter().enumerate() {
        node.put(&format!("same/{source}"), json!(number));
    }
    let names: Vec<Value> =
        node.all_records("same/*").into_iter().map(|record| record["source"].clone()).collect();
    assert_eq!(names, ["same/a", "same/a\u{308}", "same/Ä", "same/ä"], "in the order of their bytes");
}

#[test]
fn names_of_the_system_are_read_by_all_and_published_by_nobody() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut client = node.publisher();
    for source in ["$", "$sys", "$sys/a", "$pull/x"] {
        assert_eq!(told(&mut client, json!({"source": source, "data": 1})), "forbidden", "{source}");
        assert_eq!(told(&mut client, json!({"source": source, "deleted": true})), "forbidden", "{source}");
        node.post(json!({"source": source, "data": 1})).assert_problem(403, "forbidden");
        node.get(&format!("/v1/sources/{}", encode(source))).assert_problem(404, "not_found");
        for method in ["PUT", "DELETE"] {
            let path = format!("/v1/sources/{}", encode(source));
            Http::request(&node.http, method, &path, &[], b"").assert_problem(403, "forbidden");
        }
    }
}

#[test]
fn timestamps_are_integers_from_zero_to_ten_seconds_ahead() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut client = node.publisher();
    for (at, ts) in [0, 1, 1_763_800_000_000_000, wall_us() + 9_500_000].into_iter().enumerate() {
        let source = format!("t/{at}");
        assert_eq!(told(&mut client, json!({"source": source, "ts": ts, "data": 1})), "applied", "{ts}");
        assert_eq!(node.latest(&source).map(|record| record["ts"].clone()), Some(json!(ts)));
    }
    for (ts, code) in [
        ("-1", "bad_timestamp"),
        ("1.0", "bad_timestamp"),
        ("1e3", "bad_timestamp"),
        ("null", "bad_timestamp"),
        ("\"1\"", "bad_timestamp"),
        ("9007199254740992", "bad_timestamp"),
        ("9007199254740991", "future_timestamp"),
        (&(wall_us() + 12_000_000).to_string(), "future_timestamp"),
    ] {
        client.send_text(&format!(r#"{{"id":1,"source":"t","ts":{ts},"data":1}}"#));
        assert_eq!(client.json()["error"]["code"], code, "{ts}");
    }
}

/// `null` is a value as any other; what is not there, or there twice, is none.
#[test]
fn a_record_has_exactly_one_value() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut client = node.publisher();
    assert_eq!(told(&mut client, json!({"source": "v", "data": null})), "applied");
    assert!(node.get("/v1/sources/v").body.ends_with(",\"data\":null}"));
    for fields in [
        "",
        r#","data":1,"data":1"#,
        r#","data":1,"data_b64":"AA==""#,
        r#","data":null,"deleted":true"#,
        r#","data_b64":"AA==","deleted":true"#,
        r#","deleted":false"#,
        r#","deleted":1"#,
        r#","data_b64":null"#,
    ] {
        client.send_text(&format!(r#"{{"id":1,"source":"v"{fields}}}"#));
        assert_eq!(client.json()["error"]["code"], "bad_request", "{fields}");
    }
}

#[test]
fn a_member_has_a_name_of_up_to_63_characters() {
    let longest = format!("Node-1.x_{}", "z".repeat(54));
    let node = Node::start(NodeConfig::named(&longest).in_memory());
    assert_eq!(node.id, longest);
    assert_eq!(node.publisher().connected["node"], longest);
    assert_eq!(node.latest("none"), None);
    node.put("x", json!(1));
    assert_eq!(node.latest("x").map(|record| record["origin"].clone()), Some(json!(longest)));
    for name in [&format!("{longest}z"), "", "a b", "ä", "a/b", "a:b"] {
        let output = anode(&["serve", "--node-name", name]);
        assert_eq!(output.code, Some(2), "{name:?}: {output:?}");
        assert!(output.stderr.contains("--node-name"), "{output:?}");
    }
}

/// Scripts wait for the line that says `ready`, and read the addresses from it.
#[test]
fn a_server_prints_one_line_and_no_other() {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let mut command = binary();
    command.args(["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--node-name", "one"]);
    let mut node = Background::start(command.current_dir(folder.path()));
    let line = node.line(Duration::from_secs(30)).unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [ready, name, http, gossip] = words[..] else { panic!("{line:?}") };
    assert_eq!((ready, name), ("ready", "node=one"));
    let http = http.strip_prefix("http=").unwrap_or_else(|| panic!("{line:?}"));
    let gossip = gossip.strip_prefix("gossip=").unwrap_or_else(|| panic!("{line:?}"));
    for address in [http, gossip] {
        assert!(address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.port() > 0), "{line:?}");
    }
    let mut client = Client::open(http, "/publish");
    assert_eq!(told(&mut client, json!({"source": "x", "data": 1, "ack": "stored"})), "applied");
    assert!(folder.path().join("anode-data").is_dir(), "the default of --data-dir");
    node.signal("TERM");
    assert_eq!(node.wait(Duration::from_secs(15)), Some(0), "{}", node.stderr());
    assert_eq!(node.stdout(), format!("{line}\n"));
}

/// Every flag of `anode serve` that the contract names, with its default.
#[test]
fn flags_have_their_names_and_defaults() {
    let help = anode(&["serve", "--help"]).stdout;
    for (flag, default) in [
        ("http", "127.0.0.1:7070"),
        ("gossip", "127.0.0.1:7946"),
        ("advertise-http", ""),
        ("advertise", ""),
        ("join", ""),
        ("cluster-name", "anode"),
        ("node-name", ""),
        ("zone", ""),
        ("data-dir", "./anode-data"),
        ("store", "embedded"),
        ("cassandra", ""),
        ("keyspace", "anode"),
        ("cassandra-user", ""),
        ("cassandra-password-file", ""),
        ("cassandra-tls-ca", ""),
        ("consistency", "LOCAL_QUORUM"),
        ("replication", ""),
        ("history", "256"),
        ("tombstones", "24h"),
        ("workers", "one per core"),
        ("max-record-bytes", "65536"),
        ("max-frame-bytes", "1048576"),
        ("max-connections", "100000"),
        ("max-memory", "half of this machine's memory"),
        ("profile", "lan"),
        ("log", "text"),
        ("log-level", "info"),
        ("config", ""),
        ("tls-cert", ""),
        ("tls-key", ""),
        ("tls-client-ca", ""),
        ("metrics", ""),
        ("auth", ""),
        ("allow-origin", ""),
        ("allow-host", ""),
        ("max-connections-per-address", "0"),
        ("max-subscriptions", "10000"),
        ("cluster-key", ""),
        ("cluster-key-phase", "require"),
        ("allow-exec", ""),
        ("trace-sample", "0"),
    ] {
        let mut lines =
            help.lines().map(str::trim).skip_while(|line| !line.starts_with(&format!("--{flag} ")));
        let told: String = lines.by_ref().take(2).collect::<Vec<_>>().join(" ");
        assert!(!told.is_empty(), "--{flag} is missing in\n{help}");
        let is_shown = default.is_empty() || told.contains(&format!("[default: {default}]"));
        assert!(is_shown, "{default:?} of {told}");
        let variable = format!("[env: ANODE_{}=", flag.to_uppercase().replace('-', "_"));
        assert!(told.contains(&variable), "{variable} in {told}");
    }
}
