//! The subcommands other than the server: `pub`, `sub`, `get`, `history`, `health`, `members` and `demo`.

use std::time::Duration;

use serde_json::json;

use crate::harness::command::{Background, binary, run};
use crate::harness::{Cluster, Node, NodeConfig, Output, anode, eventually, json as parse};

fn ws(node: &Node) -> String {
    format!("ws://{}", node.http)
}

fn http(node: &Node) -> String {
    format!("http://{}", node.http)
}

#[track_caller]
fn ended(output: &Output, code: i32) {
    assert_eq!(output.code, Some(code), "{output:?}");
}

#[test]
fn pub_and_get() {
    let node = Node::single();
    ended(&anode(&["pub", "cli/number", "21.50", "--to", &ws(&node)]), 0);
    ended(&anode(&["pub", "cli/object", r#"{ "b":1, "a":2 }"#, "--to", &ws(&node), "--ack", "stored"]), 0);
    ended(&anode(&["pub", "cli/text", "no json at all", "--to", &ws(&node), "--ts", "1234"]), 0);
    let everywhere = anode(&["pub", "cli/all", "1", "--to", &ws(&node), "--ack", "replicated"]);
    ended(&everywhere, 0);
    assert_eq!(parse(everywhere.stdout.trim())["nodes"], 1, "{everywhere:?}");
    assert!(node.get("/v1/sources/cli/number").body.contains("\"data\":21.50"));
    assert!(node.get("/v1/sources/cli/object").body.contains(r#""data":{ "b":1, "a":2 }"#));
    let output = anode(&["get", "cli/text", "--from", &ws(&node)]);
    ended(&output, 0);
    assert_eq!(
        parse(output.stdout.trim()),
        json!({"source": "cli/text", "ts": 1234, "origin": "a", "data": "no json at all"})
    );
    let output = anode(&["get", "cli/none", "--from", &ws(&node)]);
    ended(&output, 1);
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    ended(&anode(&["get", "cli/text", "--from", &http(&node)]), 0);
}

#[test]
fn pub_reports_a_refusal() {
    let node = Node::single();
    let output = anode(&["pub", "a//b", "1", "--to", &ws(&node)]);
    ended(&output, 1);
    assert!(output.stderr.contains("bad_source"), "{output:?}");
    let output = anode(&["pub", "$sys", "1", "--to", &ws(&node)]);
    ended(&output, 1);
    assert!(output.stderr.contains("forbidden"), "{output:?}");
    let closed = format!("ws://127.0.0.1:{}", crate::harness::ports::free());
    ended(&anode(&["pub", "a", "1", "--to", &closed]), 1);
}

#[test]
fn pub_from_standard_input() {
    let node = Node::single();
    let to = ws(&node);
    let good = "{\"source\":\"i/1\",\"data\":1}\n{\"source\":\"i/2\",\"data\": 2.0 }\n{\"source\":\"i/3\",\"deleted\":true}";
    ended(&run(binary().args(["pub", "--stdin", "--to", &to]), good), 0);
    assert!(node.get("/v1/sources/i/2").body.contains("2.0"));
    let mixed = "{\"source\":\"j/1\",\"data\":1}\n{\"source\":\"j//2\",\"data\":2}\nnonsense\n{\"source\":\"j/4\",\"data\":4}\n";
    let output = run(binary().args(["pub", "--stdin", "--to", &to]), mixed);
    ended(&output, 1);
    assert!(output.stderr.contains("bad_source"), "{output:?}");
    assert!(
        node.latest("j/1").is_some() && node.latest("j/4").is_some(),
        "the rest is published all the same"
    );
    let many: String =
        (0..5000).map(|step| format!("{{\"source\":\"k/{step}\",\"data\":{step}}}\n")).collect();
    ended(&run(binary().args(["pub", "--stdin", "--to", &to, "--ack", "stored"]), &many), 0);
    assert_eq!(node.all_records("k/*").len(), 5000);
}

#[test]
fn sub_prints_an_object_a_line() {
    let node = Node::single();
    node.put("s/1", json!("old"));
    let output = anode(&["sub", "s/*", "--from", &ws(&node), "--count", "1"]);
    ended(&output, 0);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{output:?}");
    assert_eq!(parse(lines[0])["data"], "old");

    let mut sub = Background::start(binary().args([
        "sub",
        "s/*",
        "t",
        "--from",
        &ws(&node),
        "--no-snapshot",
        "--count",
        "2",
    ]));
    eventually("it is subscribed", Duration::from_secs(20), || {
        (node.metric("anode_connections", &[("endpoint", "subscribe")]) == 1.0).then_some(())
    });
    // `sub` is connected before it is subscribed, so records are published until it prints one.
    let mut step = 0;
    let first = eventually("the first line", Duration::from_secs(20), || {
        step += 1;
        node.put("t", json!(step));
        (!sub.stdout().is_empty()).then(|| sub.line(Duration::from_secs(5))).flatten()
    });
    assert_eq!(parse(&first)["source"], "t");
    node.put("s/1", json!("new"));
    assert_eq!(sub.wait(Duration::from_secs(20)), Some(0));
    assert_eq!(sub.stdout().lines().count(), 2);
}

#[test]
fn sub_of_all_prints_every_record() {
    let node = Node::single();
    let mut sub = Background::start(binary().args([
        "sub",
        "all",
        "--from",
        &ws(&node),
        "--mode",
        "all",
        "--count",
        "200",
    ]));
    eventually("it is subscribed", Duration::from_secs(20), || {
        (node.metric("anode_connections", &[("endpoint", "subscribe")]) == 1.0).then_some(())
    });
    let mut publisher = node.publisher();
    let mut step = 0u32;
    eventually("it has enough", Duration::from_secs(20), || {
        for _ in 0..50 {
            publisher.send_json(json!({"source": "all", "data": step}));
            step += 1;
        }
        (!sub.is_running()).then_some(())
    });
    assert_eq!(sub.wait(Duration::from_secs(20)), Some(0));
    let numbers: Vec<u64> = sub.stdout().lines().filter_map(|line| parse(line)["data"].as_u64()).collect();
    assert_eq!(numbers.len(), 200);
    assert!(numbers.windows(2).skip(1).all(|two| two[1] == two[0] + 1), "{numbers:?}");
}

/// In nats.go (#1777) a subscription ended silently after reconnecting.
#[test]
fn sub_survives_a_restart_of_its_node_without_repeating_itself() {
    let mut node = Node::single();
    node.put("r/old", json!(1));
    let mut sub = Background::start(binary().args(["sub", "r/*", "--from", &ws(&node)]));
    let first = sub.line(Duration::from_secs(20)).unwrap_or_default();
    assert_eq!(parse(&first)["source"], "r/old");
    node.sigterm();
    node.restart();
    node.put("r/new", json!(2));
    let next = sub.line(Duration::from_secs(40)).unwrap_or_default();
    assert_eq!(parse(&next)["source"], "r/new", "what was printed is not printed again");
    node.put("r/newer", json!(3));
    assert_eq!(parse(&sub.line(Duration::from_secs(20)).unwrap_or_default())["source"], "r/newer");
    sub.signal("INT");
    sub.wait(Duration::from_secs(10));
}

#[test]
fn sub_goes_on_at_another_node_when_its_own_is_gone() {
    let mut cluster = Cluster::start(2);
    cluster[0].put("r/old", json!(1));
    cluster.wait_equal("**", Duration::from_secs(10));
    let mut sub = Background::start(binary().args(["sub", "r/*", "--from", &ws(&cluster[0])]));
    assert_eq!(parse(&sub.line(Duration::from_secs(20)).unwrap_or_default())["source"], "r/old");
    cluster[0].kill9();
    cluster[1].put("r/new", json!(2));
    let next = sub.line(Duration::from_secs(60)).unwrap_or_default();
    assert_eq!(parse(&next)["source"], "r/new", "the greeting named the other member");
}

#[test]
fn health_is_an_exit_code() {
    let node = Node::single();
    ended(&anode(&["health", "--from", &http(&node)]), 0);
    ended(&anode(&["health", "--ready", "--from", &ws(&node)]), 0);
    let closed = format!("http://127.0.0.1:{}", crate::harness::ports::free());
    ended(&anode(&["health", "--from", &closed]), 1);
    ended(&anode(&["health", "--from", "ftp://x"]), 2);
}

#[test]
fn history_and_members() {
    let cluster = Cluster::start(2);
    let stamps: Vec<u64> = (0..5).map(|step| cluster[0].put("h", json!(step))).collect();
    let from = http(&cluster[0]);
    let output = anode(&["history", "h", "--from", &from]);
    ended(&output, 0);
    let datas: Vec<_> = output.stdout.lines().map(|line| parse(line)["data"].clone()).collect();
    assert_eq!(json!(datas), json!([4, 3, 2, 1, 0]));
    // `--from` is a timestamp if it is a number, and otherwise the URL of a node.
    let (least, most) = (stamps[1].to_string(), stamps[3].to_string());
    let output = anode(&["history", "h", "--from", &least, "--from", &from, "--to", &most, "--limit", "2"]);
    ended(&output, 0);
    assert_eq!(output.stdout.lines().count(), 2, "{output:?}");
    let output = anode(&["members", "--from", &from]);
    ended(&output, 0);
    assert!(output.stdout.contains("alive"), "{output:?}");
    for node in &cluster.nodes {
        assert!(output.stdout.contains(&node.http) && output.stdout.contains(&node.gossip), "{output:?}");
    }
}

#[test]
fn help_and_version() {
    for args in [vec!["--help"], vec!["serve", "--help"], vec!["pub", "--help"], vec!["sub", "--help"]] {
        let output = anode(&args);
        ended(&output, 0);
        assert!(output.stdout.contains("anode"), "{output:?}");
    }
    let serve = anode(&["serve", "--help"]).stdout;
    for flag in [
        "--http",
        "--gossip",
        "--advertise",
        "--join",
        "--cluster-name",
        "--node-name",
        "--zone",
        "--data-dir",
        "--store",
        "--history",
        "--tombstones",
        "--workers",
        "--max-record-bytes",
        "--max-frame-bytes",
        "--max-connections",
        "--max-memory",
        "--max-client-memory",
        "--profile",
        "--log",
        "--log-level",
        "--config",
    ] {
        assert!(serve.contains(flag), "{flag} is missing in\n{serve}");
    }
    let output = anode(&["--version"]);
    ended(&output, 0);
    assert!(output.stdout.contains(env!("CARGO_PKG_VERSION")), "{output:?}");
}

#[test]
fn a_reader_that_closes_its_pipe_is_no_disaster() {
    let node = Node::start(NodeConfig::named("a"));
    for step in 0..200 {
        node.put(&format!("pipe/{step}"), json!("x".repeat(1000)));
    }
    let script = format!("{} sub 'pipe/*' --from {} | head -1", env!("CARGO_BIN_EXE_anode"), ws(&node));
    let output = run(std::process::Command::new("timeout").args(["20", "bash", "-c", &script]), "");
    ended(&output, 0);
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

#[test]
fn demo_runs_a_cluster_with_a_feed() {
    let mut demo = Background::start(binary().args(["demo", "--nodes", "3"]));
    // The demo prints addresses. The first one must serve members and changing figures.
    let addr = eventually("it names an address", Duration::from_secs(30), || {
        let said = format!("{}\n{}", demo.stdout(), demo.stderr());
        let addresses = said.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
        let mut http = addresses.filter(|word| word.starts_with("127.0.0.1:") && word.len() > 10);
        http.find(|addr| {
            let answer = crate::harness::Http::attempt(addr, "GET", "/readyz", &[], b"");
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .map(str::to_owned)
    });
    eventually("three are alive", Duration::from_secs(30), || {
        let members = crate::harness::Http::get(&addr, "/v1/members").json();
        let alive = members["members"].as_array()?.iter().filter(|member| member["state"] == "alive").count();
        (alive == 3).then_some(())
    });
    // The page of one node may go on at each other one when its own is killed.
    let members = crate::harness::Http::get(&addr, "/v1/members").json();
    let addresses =
        members["members"].as_array().into_iter().flatten().filter_map(|member| member["http"].as_str());
    let addresses = addresses.map(str::to_owned).collect::<Vec<String>>();
    for (from, to) in addresses.iter().flat_map(|from| addresses.iter().map(move |to| (from, to))) {
        let (_, port) = from.split_once(':').expect("a port");
        for origin in [format!("http://{from}"), format!("http://localhost:{port}")] {
            let answer = crate::harness::Http::request(to, "GET", "/v1/members", &[("Origin", &origin)], b"");
            assert_eq!(
                answer.header("access-control-allow-origin"),
                Some(origin.as_str()),
                "{to}: {answer:?}"
            );
        }
    }
    let mut client = crate::harness::Client::open(&addr, "/subscribe?source=**&snapshot=false");
    client.snapshot();
    client.record();
    demo.signal("INT");
    assert_eq!(demo.wait(Duration::from_secs(20)), Some(0), "{}", demo.stderr());
}

/// The commands that the help of a command lists.
fn commands_of(words: &[&str]) -> Vec<String> {
    let help = run(binary().args(words).arg("--help"), "");
    ended(&help, 0);
    let list = help.stdout.split("\nCommands:\n").nth(1).unwrap_or_default();
    let list = list.split("\n\n").next().unwrap_or_default();
    let lines = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

/// The page on the command line left out all commands for pull sources and for middlewares.
#[test]
fn the_page_has_every_command_of_the_help() {
    let page = include_str!("../../docs/cli.md");
    let is_there = |words: &str| {
        let start = format!("anode {words}");
        let mut places = page.split(start.as_str()).skip(1);
        places.any(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-'))
    };
    let commands = commands_of(&[]);
    assert!(commands.len() > 20, "{commands:?}");
    for command in &commands {
        assert!(is_there(command), "anode {command}");
        for under in commands_of(&[command.as_str()]) {
            assert!(is_there(&format!("{command} {under}")), "anode {command} {under}");
        }
    }
}
