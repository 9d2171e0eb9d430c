//! Runs the program against a real node: everything that is published arrives, and the report says so.
#![allow(clippy::disallowed_methods, reason = "a test waits for processes")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Returns the node's binary, which is beside this test's; it is built if it is not there.
fn anode() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let binary = profile.join("anode");
    if !binary.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "anode", "--bin", "anode"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success(), "building anode");
    }
    binary
}

/// A node that is killed when the test ends.
struct Node {
    process: Child,
    http: String,
    _data: tempfile::TempDir,
}

impl Node {
    fn start() -> Node {
        Node::start_with(&[])
    }

    fn start_with(flags: &[&str]) -> Node {
        let data = tempfile::tempdir().expect("a folder");
        let mut process = Command::new(anode())
            .args(["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--store", "memory"])
            .args(["--workers", "1", "--data-dir"])
            .arg(data.path())
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a node");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("the ready line");
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).map(str::to_owned);
        Node { process, http: http.expect("an address in the ready line"), _data: data }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It does not matter if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn loadgen(arguments: &[&str]) -> Output {
    let out = Command::new(env!("CARGO_BIN_EXE_anode-loadgen")).args(arguments).output();
    out.expect("the program")
}

/// Runs a load of so many records without a warm-up, and returns the report.
fn report(node: &Node, arguments: &[&str]) -> Value {
    let fixed = ["--to", &node.http, "--quiet", "--json", "--verify", "--warmup", "0", "--drain", "30"];
    let out = loadgen(&[&arguments[..1], &fixed, &arguments[1..]].concat());
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(text.lines().last().expect("a line")).expect("a report")
}

fn is_whole(report: &Value, published: u64, expected: u64) {
    let it = &report["correctness"];
    assert_eq!(it["is_verified"], true);
    assert_eq!(
        (it["published"].as_u64(), it["expected"].as_u64()),
        (Some(published), Some(expected)),
        "{it}"
    );
    for fault in [
        "missing",
        "newest_missing",
        "duplicates",
        "out_of_order",
        "wrong",
        "foreign",
        "unanswered",
        "unsent",
    ] {
        assert_eq!(it[fault], 0, "{fault}: {it}");
    }
}

/// Every command that connects does so with TLS, too.
#[test]
fn loads_go_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let mut node = Node::start_with(&["--tls-cert", &cert, "--tls-key", &key]);
    let plain = node.http.clone();
    node.http = format!("wss://{plain}");
    let load = ["run", "--rate", "max", "--seconds", "30", "--records", "3000", "--in-flight", "200"];
    let many = ["--publishers", "3", "--subscribers", "8", "--sources", "30", "--size", "40..30000"];
    let whole = report(&node, &[&load[..], &many, &["--ca", &cert]].concat());
    is_whole(&whole, 3_000, 24_000);
    let to = node.http.as_str();
    for command in [
        &["latency", "--publish", to, "--subscribe", to, "--seconds", "1", "--rate", "200"][..],
        &["fill", "--to", to, "--count", "2000"],
        &["idle", "--to", to, "--connections", "20", "--seconds", "1"],
    ] {
        let out = loadgen(&[command, &["--ca", &cert]].concat());
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    for (unusable, words) in [
        (&["run", "--to", &plain, "--ca", &cert][..], "--ca"),
        (&["run", "--to", to, "--ca", "/missing.pem"], "missing.pem"),
        (&["run", "--publish-to", to, "--subscribe-to", &plain, "--ca", &cert], "wss://"),
    ] {
        let out = loadgen(unusable);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && text.contains(words), "{unusable:?}: {text}");
    }
}

/// Every command that connects brings the token, wherever that is given, and is not let in with another one. Two of them
/// brought none, so a node that asks for tokens could neither be filled nor be measured.
#[test]
fn loads_bring_a_token() {
    let made = Command::new(anode()).args(["token", "--json"]).output().expect("a token");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let text = |name: &str| made[name].as_str().expect(name).to_owned();
    let (token, hash) = (text("token"), text("sha256"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (rights, secret) = (file("auth.toml"), file("load.token"));
    let entry = format!(
        "[[token]]\nname = \"load\"\nsha256 = \"{hash}\"\npublish = [\"**\"]\nsubscribe = [\"**\"]\n"
    );
    std::fs::write(&rights, entry).expect("written");
    std::fs::write(&secret, format!("{token}\n")).expect("written");
    let node = Node::start_with(&["--auth", &rights]);
    let load = ["run", "--rate", "max", "--seconds", "30", "--records", "300"];
    for brought in [["--token", &token], ["--token-file", &secret]] {
        is_whole(&report(&node, &[&load[..], &brought].concat()), 300, 300);
    }
    let to = node.http.as_str();
    for command in [
        &["latency", "--publish", to, "--subscribe", to, "--seconds", "1", "--rate", "200"][..],
        &["fill", "--to", to, "--count", "2000"],
        &["idle", "--to", to, "--connections", "20", "--seconds", "1"],
        &["clean", "--to", to],
    ] {
        let with_variable = |token: &str| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_anode-loadgen"));
            program.args(command).env("ANODE_TOKEN", token).output().expect("the program")
        };
        let with_file = loadgen(&[command, &["--token-file", &secret]].concat());
        for out in [with_file, with_variable(&token)] {
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
            assert!(!String::from_utf8_lossy(&out.stdout).contains(&token), "{command:?} shows the token");
        }
        let refused = with_variable("wrong");
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && told.contains("401"), "{command:?}: {told}");
    }
}

#[test]
fn every_record_comes_once_to_every_subscriber() {
    let node = Node::start();
    let load = ["run", "--rate", "max", "--seconds", "30", "--records", "3000", "--in-flight", "200"];
    let groups = ["--publishers", "3", "--subscribers", "8", "--sources", "30", "--groups", "4"];
    for format in ["json", "protobuf"] {
        let further = ["--patterns", "group", "--size", "40..400", "--unrelated", "3", "--format", format];
        let whole = report(&node, &[&load[..], &groups, &further].concat());
        // Each group has two subscribers.
        is_whole(&whole, 3_000, 6_000);
        let batches = ["--publish-batch", "20", "--subscribe-batch", "--ack", "accepted", "--format", format];
        let whole = report(&node, &[&load[..], &["--skew", "1.1", "--sources", "50"], &batches].concat());
        is_whole(&whole, 3_000, 3_000);
        assert_eq!(whole["ack_latency"]["count"], 3_000);
        assert_eq!(whole["latency"]["count"], 3_000);
    }
}

#[test]
fn with_mode_latest_the_newest_of_every_source_comes() {
    let node = Node::start();
    let load = ["run", "--rate", "max", "--seconds", "30", "--records", "5000", "--ack", "accepted"];
    let latest =
        report(&node, &[&load[..], &["--mode", "latest", "--subscribers", "4", "--sources", "20"]].concat());
    assert_eq!(latest["correctness"]["newest_missing"], 0);
    assert_eq!(latest["correctness"]["wrong"], 0);
    assert_eq!(latest["correctness"]["out_of_order"], 0);
}

/// Returns the colours that a part of a page gives to an attribute of its plots.
fn colors<'a>(part: &'a str, attribute: &str) -> BTreeSet<&'a str> {
    let opening = format!("{attribute}=\"");
    let values = part.split(opening.as_str()).skip(1).filter_map(|rest| rest.split('"').next());
    values.filter(|value| value.starts_with('#')).collect()
}

#[test]
fn a_recording_is_replayed_and_reports_are_kept() {
    let node = Node::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let mut file = std::fs::File::create(path("day.jsonl")).expect("a file");
    for n in 0..200u64 {
        let ts = 1_700_000_000_000_000 + n * 1_000;
        writeln!(file, r#"{{"source":"s/{}","ts":{ts},"origin":"x","data":{{"n":{n}}}}}"#, n % 7)
            .expect("written");
    }
    writeln!(file, r#"{{"source":"s/1","ts":1700000001000000,"deleted":true}}"#).expect("written");
    drop(file);
    let (day, json, html) = (path("day.jsonl"), path("a.json"), path("a.html"));
    let kept = ["--speed", "10", "--report", &json, "--html", &html, "--label", "what=replay"];
    let whole = report(&node, &[&["replay", "--subscribers", "2"][..], &kept, &[&day]].concat());
    is_whole(&whole, 200, 400);
    assert_eq!(whole["labels"]["what"], "replay");
    let page = std::fs::read_to_string(&html).expect("a page");
    assert_eq!(page.matches("<svg").count(), 4);
    // Published and delivered have scales of their own, and the page can be read in the dark.
    assert!(page.contains("Messages published a second") && page.contains("Messages delivered a second"));
    assert!(page.contains("prefers-color-scheme:dark"));
    // A colour of the plots that the style does not know would stay dark on dark. Black is filled in for text only, and the
    // style has a rule for text.
    let (style, plots) = page.split_once("</style>").expect("a style");
    assert_eq!(colors(style, "stroke").len(), 5, "{style}");
    assert_eq!(colors(style, "stroke"), colors(plots, "stroke"));
    assert_eq!(colors(style, "fill"), BTreeSet::from(["#FFFFFF"]));
    assert_eq!(colors(plots, "fill"), BTreeSet::from(["#000000", "#FFFFFF"]));
    let mut black = plots.split('<').filter(|element| element.contains("fill=\"#000000\""));
    assert!(style.contains("svg text{fill:") && black.all(|element| element.starts_with("text ")));
    assert!(!page.contains("src="), "the page needs nothing else");
    let same = loadgen(&["compare", &json, &json, "--worse-max", "1.0"]);
    assert!(same.status.success());
    assert!(String::from_utf8_lossy(&same.stdout).contains("delivered p99"));
}

/// Number of searches of which one must find the rate, on a machine that may be busy with other things.
const SEARCHES_MAX: usize = 10;

#[test]
fn a_search_finds_a_rate_that_holds() {
    let node = Node::start();
    let bounds = ["--p99-ms", "60000", "--from", "500", "--most", "500", "--seconds", "0.2", "--warmup", "0"];
    let command = [&["find-max", "--quiet", "--to", &node.http][..], &bounds].concat();
    // A machine that is busy with other things may not send even these few in time. The search says so, and nothing else
    // may be the reason; then it is made again.
    let searches = (0..SEARCHES_MAX).map(|_| {
        let out = loadgen(&command);
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    });
    let mut last = String::new();
    for (is_success, text) in searches {
        last = text;
        if is_success && last.contains("highest rate with p99 of at most 60000 ms: 500/s") {
            assert!(last.contains("with a confidence of 95 %"), "{last}");
            assert!(last.contains("no higher rate was tried: --most is 500"), "{last}");
            assert!(last.matches("500/s  p99").count() >= 5, "the rate is run several times: {last}");
            return;
        }
        assert!(last.contains("were sent"), "{last}");
    }
    panic!("no search found a rate: {last}");
}

/// Asks a node for the number of sources that match a pattern, at most a page of them.
fn sources(node: &Node, pattern: &str) -> usize {
    let mut get = std::net::TcpStream::connect(&node.http).expect("the node");
    let path = format!("/v1/sources?pattern={pattern}&limit=1000");
    write!(get, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("asked");
    let text = std::io::read_to_string(get).expect("an answer");
    text.matches("\"source\":").count()
}

/// What a run had published stayed in the cluster for ever, under names that nobody could tell from others.
#[test]
fn what_runs_leave_behind_is_deleted_and_nothing_else() {
    let node = Node::start();
    report(&node, &["run", "--records", "700", "--rate", "max", "--seconds", "30", "--sources", "700"]);
    let other = ["--prefix", "mine/all", "--count", "40"];
    let filled = loadgen(&[&["fill", "--to", &node.http][..], &other].concat());
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    assert_eq!((sources(&node, "loadgen/**"), sources(&node, "**")), (700, 740));
    let cleaned = loadgen(&["clean", "--to", &node.http]);
    let text = String::from_utf8_lossy(&cleaned.stdout);
    assert!(cleaned.status.success() && text.contains("deleted 700 sources beneath loadgen/"), "{cleaned:?}");
    assert_eq!((sources(&node, "loadgen/**"), sources(&node, "**")), (0, 40));
    let cleaned = loadgen(&["clean", "--to", &node.http, "--prefix", "mine/all"]);
    assert!(String::from_utf8_lossy(&cleaned.stdout).contains("deleted 40 sources"), "{cleaned:?}");
    let cleaned = loadgen(&["clean", "--to", &node.http, "--prefix", "mine/all"]);
    assert!(String::from_utf8_lossy(&cleaned.stdout).contains("deleted 0 sources"), "{cleaned:?}");
    let refused = loadgen(&["clean", "--to", &node.http, "--prefix", "**"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--prefix"),
        "{refused:?}"
    );
}

#[test]
fn unusable_arguments_and_absent_servers_are_told() {
    let unusable: [&[&str]; 5] = [
        &["run", "--size", "3"],
        &["run", "--target", "nats", "--ack", "stored"],
        &["run", "--rate", "fast"],
        &["run", "--publishers", "9", "--sources", "3"],
        &["run", "--target", "redis", "--transport", "ws"],
    ];
    for arguments in unusable {
        let out = loadgen(arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("--"), "the option is named");
    }
    let out = loadgen(&["run", "--to", "127.0.0.1:1", "--quiet"]);
    assert_eq!(out.status.code(), Some(1));
}

/// Starts a long run and waits until its records are delivered.
fn long_run(node: &Node) -> Child {
    let mut run = Command::new(env!("CARGO_BIN_EXE_anode-loadgen"))
        .args(["run", "--to", &node.http, "--quiet", "--json", "--rate", "2000", "--seconds", "60"])
        .args(["--warmup", "0", "--drain", "0.2", "--subscribers", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let deliveries = || {
        let mut get = std::net::TcpStream::connect(&node.http).expect("the node");
        write!(get, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("asked");
        let text = std::io::read_to_string(get).expect("an answer");
        let line = text.lines().find_map(|line| line.strip_prefix("anode_deliveries_total "));
        line.and_then(|count| count.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    while deliveries() == 0.0 {
        assert!(run.try_wait().expect("a status").is_none(), "the run ended before anything came");
    }
    run
}

/// Waits for a run, and returns the exit code and the report.
fn ended(run: Child) -> (Option<i32>, Value) {
    let out = run.wait_with_output().expect("the run ends");
    let text = String::from_utf8_lossy(&out.stdout);
    let report = serde_json::from_str(text.lines().last().expect("a line")).expect("a report");
    (out.status.code(), report)
}

/// The number by which the kernel's table shows an established connection.
const ESTABLISHED: &str = "01";

/// Halts a node and waits until records lie in its sockets that it will never read.
fn halt_with_records_unread(node: &Node, run: &mut Child) {
    let pid = rustix::process::Pid::from_child(&node.process);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("a signal");
    let port: u16 = node.http.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let local = format!(":{port:04X}");
    let is_unread = || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the sockets");
        table.lines().any(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, at, _, ESTABLISHED, queues, ..] => at.ends_with(&local) && !queues.ends_with(":00000000"),
            _ => false,
        })
    };
    while !is_unread() {
        assert!(run.try_wait().expect("a status").is_none(), "the run ended before it sent more");
    }
}

/// A run must not wait for a lost connection for ever, and must report it. It was once counted twice where
/// reading and writing both noticed it; and the test itself failed where the node had delivered everything
/// at the moment it was killed, so that nothing was missing.
#[test]
fn a_node_that_dies_is_reported() {
    let mut node = Node::start();
    let mut run = long_run(&node);
    halt_with_records_unread(&node, &mut run);
    node.process.kill().expect("killed");
    let (code, report) = ended(run);
    assert_eq!(code, Some(1));
    let closed = report["correctness"]["closed"].as_object().expect("reasons");
    assert_eq!(closed.values().filter_map(Value::as_u64).sum::<u64>(), 3, "{closed:?}");
    assert!(report["correctness"]["missing"].as_u64() > Some(0));
}

#[test]
fn an_interrupted_run_reports_what_was() {
    let node = Node::start();
    let run = long_run(&node);
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let (code, report) = ended(run);
    assert_eq!(code, Some(0), "{report}");
    assert!(report["correctness"]["published"].as_u64() > Some(0));
    assert!(report["throughput"]["seconds"].as_f64() < Some(60.0));
}

/// A target that takes less than is due once made the run end in an error, without a report.
#[test]
fn a_target_that_falls_behind_is_reported() {
    let node = Node::start();
    let load = ["run", "--to", &node.http, "--quiet", "--json", "--rate", "1000000", "--records", "500000"];
    let slow = ["--warmup", "0", "--seconds", "0.5", "--drain", "0", "--ack", "accepted", "--window", "1"];
    let out = loadgen(&[&load[..], &slow].concat());
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stdout);
    let report: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("a report");
    let it = &report["correctness"];
    let (published, unsent) = (it["published"].as_u64(), it["unsent"].as_u64());
    assert_eq!(published.zip(unsent).map(|(sent, unsent)| sent + unsent), Some(500_000), "{it}");
}
