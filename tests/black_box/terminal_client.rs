//! The commands that are clients of a node: how they find it, what they print, and what they say where they are misused.

use std::time::Duration;

use serde_json::json;

use crate::harness::command::{Background, binary, run};
use crate::harness::{Cluster, Node, NodeConfig, Output, anode, eventually, json as parse, ports};

fn http(node: &Node) -> String {
    format!("http://{}", node.http)
}

/// Runs a command to its end, and returns what it printed if it succeeded.
#[track_caller]
fn told(args: &[&str]) -> String {
    let output = anode(args);
    assert_eq!(output.code, Some(0), "{args:?} → {output:?}");
    output.stdout
}

#[track_caller]
fn unusable(args: &[&str], words: &[&str]) {
    let output = anode(args);
    assert_eq!(output.code, Some(2), "{args:?} → {output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is missing: {args:?} → {}", output.stderr);
    }
}

#[test]
fn the_url_is_given_before_or_behind_the_command_or_in_the_environment() {
    let node = Node::single();
    let url = http(&node);
    told(&["pub", "a/b", "1", "--url", &url]);
    assert_eq!(parse(&told(&["--url", &url, "get", "a/b"]))["data"], 1);
    assert_eq!(parse(&told(&["get", "a/b", "--url", &url, "--json"]))["data"], 1);
    let output = run(binary().args(["get", "a/b"]).env("ANODE_URL", &url), "");
    assert_eq!(parse(&output.stdout)["data"], 1, "{output:?}");
    // The flag goes before the environment, and the older names of the flag still serve.
    let nowhere = format!("http://127.0.0.1:{}", ports::free());
    let output = run(binary().args(["get", "a/b", "--url", &url]).env("ANODE_URL", &nowhere), "");
    assert_eq!(output.code, Some(0), "{output:?}");
    told(&["pub", "a/b", "2", "--to", &url]);
    assert_eq!(parse(&told(&["get", "a/b", "--from", &url]))["data"], 2);
    for args in [&["get", "a", "--url", "ftp://x"][..], &["--url", "ftp://x", "get", "a"]] {
        unusable(args, &["--url", "ftp://x", "ws://"]);
    }
    let output = run(binary().args(["get", "a"]).env("ANODE_URL", "ftp://x"), "");
    assert!(output.code == Some(2) && output.stderr.contains("ANODE_URL"), "{output:?}");
    unusable(&["--url", &url, "serve"], &["--url", "serve"]);
}

#[test]
fn of_several_urls_the_next_is_tried() {
    let node = Node::single();
    let nowhere = format!("http://127.0.0.1:{}", ports::free());
    let both = format!("{nowhere},{}", http(&node));
    told(&["pub", "a/b", "1", "--url", &both]);
    assert_eq!(parse(&told(&["get", "a/b", "--url", &nowhere, "--url", &http(&node)]))["data"], 1);
    assert_eq!(parse(&told(&["sub", "a/*", "--count", "1", "--url", &both]))["data"], 1);
    assert_eq!(parse(&told(&["get", "a/b", "--from", &nowhere, "--from", &http(&node)]))["data"], 1);
    // A refusal is an answer: another node would give the same.
    let output = anode(&["get", "none", "--url", &format!("{},{nowhere}", http(&node))]);
    assert!(output.code == Some(1) && output.stderr.contains("not_found"), "{output:?}");
    let other = format!("http://127.0.0.1:{}", ports::free());
    let output = anode(&["get", "a/b", "--url", &nowhere, "--url", &other]);
    assert_eq!(output.code, Some(1), "{output:?}");
    for url in [&nowhere, &other] {
        let address = url.trim_start_matches("http://");
        assert!(output.stderr.contains(address), "both are named: {output:?}");
    }
}

#[test]
fn what_looks_like_a_flag_is_one() {
    let node = Node::single();
    let url = http(&node);
    told(&["pub", "a/b", "1", "--url", &url]);
    // This published the text "--delete" once.
    let output = told(&["pub", "a/b", "--delete", "--url", &url]);
    assert_eq!(parse(&output)["outcome"], "applied");
    assert_eq!(node.get("/v1/sources/a/b").status, 404);
    told(&["pub", "a/b", "--url", &url, "--", "--delete"]);
    assert_eq!(node.latest("a/b").expect("there")["data"], "--delete");
    told(&["pub", "a/b", "-5", "--url", &url]);
    assert_eq!(node.latest("a/b").expect("there")["data"], -5);
    unusable(&["pub", "a/b", "--delte"], &["--delte", "--delete"]);
    unusable(&["pub", "a/b", "1", "--delete"], &["--delete"]);
    unusable(&["sub", "a", "--moed", "all"], &["--moed", "--mode"]);
    unusable(&["get", "a", "--formt"], &["--formt"]);
    unusable(&["members", "--verbose"], &["--verbose"]);
    unusable(&["memebers"], &["memebers", "members"]);
    unusable(&["pub", "a", "1", "--ack", "replicatd"], &["replicatd", "replicated"]);
    for command in
        ["list", "delete", "export", "import", "top", "doctor", "completions", "man", "token", "keys"]
    {
        unusable(&[command, "--no-such-flag"], &["--no-such-flag"]);
    }
}

#[test]
fn pub_takes_files_and_times_to_live() {
    let node = Node::single();
    let url = http(&node);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    told(&["pub", "f/json", "--file", &file("a.json", b"{\"x\": 1.0}\n"), "--url", &url]);
    assert!(node.get("/v1/sources/f/json").body.contains(r#""data":{"x": 1.0}"#));
    told(&["pub", "f/text", "--file", &file("a.txt", b"two\nlines\n"), "--url", &url]);
    assert_eq!(node.latest("f/text").expect("there")["data"], "two\nlines\n");
    told(&["pub", "f/bytes", "--file", &file("a.bin", &[0, 1, 255]), "--url", &url]);
    assert_eq!(node.latest("f/bytes").expect("there")["data_b64"], "AAH/");
    unusable(&["pub", "f/x", "--file", "/no/such/file", "--url", &url], &["--file", "/no/such/file"]);
    told(&["pub", "t", "1", "--ttl", "400ms", "--url", &url]);
    assert!(node.latest("t").is_some());
    eventually("it expires", Duration::from_secs(10), || node.latest("t").is_none().then_some(()));
    unusable(&["pub", "t", "1", "--ttl", "soon"], &["--ttl", "soon", "ms"]);
    unusable(&["pub", "t", "1", "--ttl", "0"], &["--ttl", "0"]);
}

#[test]
fn list_delete_and_their_pages() {
    let node = Node::single();
    let url = http(&node);
    let many: String = (0..1_500).map(|at| format!("{{\"source\":\"l/{at:04}\",\"data\":{at}}}\n")).collect();
    let output = run(binary().args(["pub", "--stdin", "--url", &url]), &many);
    assert!(output.code == Some(0) && output.stderr.contains("1500 applied"), "{output:?}");
    told(&["pub", "other", "1", "--url", &url]);
    let listed = told(&["list", "l/*", "--url", &url]);
    assert_eq!(listed.lines().count(), 1_500);
    assert_eq!(parse(listed.lines().next().expect("a line"))["source"], "l/0000");
    assert_eq!(told(&["list", "l/*", "--names", "--limit", "2", "--url", &url]), "l/0000\nl/0001\n");
    assert_eq!(told(&["list", "--names", "--url", &url]).lines().count(), 1_501, "all of them");
    let result = parse(&told(&["delete", "l/0000", "--ack", "stored", "--url", &url]));
    assert_eq!((&result["outcome"], &result["level"]), (&json!("applied"), &json!("stored")));
    assert_eq!(told(&["list", "l/*", "--names", "--limit", "1", "--url", &url]), "l/0001\n");
    let output = anode(&["delete", "a//b", "--url", &url]);
    assert!(output.code == Some(1) && output.stderr.contains("bad_source"), "{output:?}");
    unusable(&["list", "a/**/b", "--url", &url], &["a/**/b"]);
}

#[test]
fn history_has_times_and_a_url_of_its_own() {
    let node = Node::single();
    let url = http(&node);
    let stamps: Vec<String> = (0..4).map(|at| node.put("h", json!(at)).to_string()).collect();
    let data = |args: &[&str]| {
        let args = [&["history", "h", "--url", &url], args].concat();
        told(&args).lines().map(|line| parse(line)["data"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(data(&[]), [3, 2, 1, 0]);
    assert_eq!(data(&["--from", &stamps[1], "--to", &stamps[2]]), [2, 1]);
    assert_eq!(data(&["--limit", "1", "--from", &stamps[2]]), [3]);
    let output = anode(&["history", "h", "--from", &url, "--from", &stamps[3]]);
    assert!(output.code == Some(0) && output.stdout.lines().count() == 1, "the older form: {output:?}");
    unusable(&["history", "h", "--from", "yesterday"], &["--from", "yesterday", "--url"]);
    unusable(&["history", "h", "--from", "-1"], &["--from", "-1"]);
}

#[test]
fn sub_waits_for_a_node_that_is_not_up_yet() {
    let config = NodeConfig::named("a");
    let url = format!("ws://{}", config.http);
    let mut sub = Background::start(binary().args(["sub", "w/*", "--count", "1", "--url", &url]));
    eventually("it says that it waits", Duration::from_secs(20), || {
        sub.stderr().contains("waiting for the node").then_some(())
    });
    let node = Node::start(config);
    node.put("w/1", json!("here"));
    let line = sub.line(Duration::from_secs(30)).unwrap_or_default();
    assert_eq!(parse(&line)["data"], "here");
    assert_eq!(sub.wait(Duration::from_secs(20)), Some(0));
    // What another attempt would not mend is an error at once.
    let refused = anode(&["sub", "w/*", "--url", &format!("ws://{}/nowhere", node.http)]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
}

#[test]
fn members_shows_the_living_unless_all_are_asked_for() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster[2].sigterm(), Some(0));
    eventually("it has left", Duration::from_secs(20), || {
        let members = cluster[0].get("/v1/members").json();
        let left = members["members"].as_array()?.iter().any(|member| member["state"] == "left");
        left.then_some(())
    });
    let url = http(&cluster[0]);
    let output = anode(&["members", "--url", &url]);
    assert!(output.code == Some(0) && !output.stdout.contains("left"), "{output:?}");
    assert!(output.stderr.contains("--all"), "the hidden one is mentioned: {output:?}");
    assert!(told(&["members", "--all", "--url", &url]).contains("left"));
    let count = |args: &[&str]| parse(&told(args))["members"].as_array().map_or(0, Vec::len);
    assert_eq!(count(&["members", "--json", "--url", &url]), 2);
    assert_eq!(count(&["--json", "members", "--all", "--url", &url]), 3);
}

#[test]
fn programs_get_json() {
    let node = Node::single();
    let url = http(&node);
    let health = parse(&told(&["health", "--ready", "--json", "--url", &url]));
    assert_eq!((&health["ok"], &health["path"]), (&json!(true), &json!("/readyz")));
    let nowhere = format!("http://127.0.0.1:{}", ports::free());
    let output = anode(&["health", "--json", "--url", &nowhere]);
    assert_eq!((output.code, &parse(&output.stdout)["ok"]), (Some(1), &json!(false)), "{output:?}");
    assert!(parse(&told(&["token", "--json"]))["sha256"].is_string());
    assert!(parse(&told(&["keys", "new", "--json"]))["key"].is_string());
    assert!(parse(&told(&["keys", "--json", "--url", &url]))["members"].is_array());
    let output =
        run(binary().args(["pub", "--stdin", "--json", "--url", &url]), "{\"source\":\"a\",\"data\":1}\n");
    assert_eq!(parse(&output.stdout)["outcomes"]["applied"], 1, "{output:?}");
}

#[test]
fn help_has_examples_and_shells_and_man_know_every_command() {
    let commands = [
        "serve",
        "demo",
        "pub",
        "sub",
        "get",
        "list",
        "delete",
        "history",
        "export",
        "import",
        "health",
        "members",
        "top",
        "doctor",
        "keys",
        "token",
        "sim",
        "completions",
        "man",
    ];
    let all = told(&["--help"]);
    let folder = tempfile::tempdir().expect("a folder");
    told(&["man", "--dir", &folder.path().display().to_string()]);
    let main_page = told(&["man"]);
    let bash = told(&["completions", "bash"]);
    for command in commands {
        assert!(all.contains(&format!("  {command}")), "{command} in\n{all}");
        let help = told(&[command, "--help"]);
        let shown = if command == "sim" { "Scenarios:" } else { "Example" };
        assert!(help.contains(shown), "{command}: {help}");
        let page = std::fs::read_to_string(folder.path().join(format!("anode-{command}.1"))).expect(command);
        assert!(page.contains(".TH"), "{page}");
        assert!(main_page.contains(&format!("anode\\-{command}(1)")), "{command} in\n{main_page}");
        assert!(
            bash.contains(&format!("anode__subcmd__{command}"))
                || bash.contains(&format!("anode__{command}"))
        );
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(told(&["completions", shell]).contains("doctor"), "{shell}");
    }
    assert!(told(&["man", "pub"]).contains("Examples"));
    unusable(&["completions", "csh"], &["csh", "bash", "zsh", "fish"]);
    unusable(&["man", "dance"], &["dance", "serve"]);
    // A shell takes the script without complaint.
    let output = run(std::process::Command::new("bash").arg("-n"), &bash);
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[track_caller]
fn with_variable(name: &str, value: &str, args: &[&str]) -> Output {
    run(binary().args(args).env(name, value), "")
}

#[test]
fn variables_that_are_not_known_are_named() {
    let output = with_variable("ANODE_TOKN", "x", &["token"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("ANODE_TOKN") && output.stderr.contains("ANODE_TOKEN"), "{output:?}");
    let output = with_variable("ANODE_CLIENTS_SERVICE_HOST", "10.0.0.1", &["token"]);
    assert!(output.stderr.is_empty(), "Kubernetes makes such variables: {output:?}");
    // Somebody believes that this node is protected.
    let output = with_variable("ANODE_AUTHH", "/etc/auth.toml", &["serve", "--http", "127.0.0.1:0"]);
    assert!(output.code == Some(2) && output.stderr.contains("ANODE_AUTH?"), "{output:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = binary();
    command.args([
        "serve",
        "--http",
        "127.0.0.1:0",
        "--gossip",
        "127.0.0.1:0",
        "--store",
        "memory",
        "--log",
        "json",
    ]);
    command.current_dir(folder.path()).env("ANODE_HTPP", "127.0.0.1:1");
    let mut node = Background::start(&mut command);
    assert!(node.line(Duration::from_secs(30)).is_some_and(|line| line.starts_with("ready ")));
    let log = node.stderr();
    let warning = log.lines().map(parse).find(|line| line["variable"] == "ANODE_HTPP");
    assert_eq!(warning.expect("a warning")["meant"], "ANODE_HTTP");
}

#[test]
fn a_wrong_file_is_told_with_line_and_column_and_what_was_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |text: &str| {
        let path = folder.path().join("anode.toml");
        std::fs::write(&path, text).expect("written");
        let output = anode(&["serve", "--config", &path.display().to_string()]);
        assert_eq!(output.code, Some(2), "{text}: {output:?}");
        output.stderr
    };
    let error = refused("# a comment\nzone = \"z\"\nhtpt = \"x\"\n");
    assert!(error.contains("anode.toml:3:1") && error.contains("line 3, column 1"), "{error}");
    assert!(error.contains("\"htpt\"; did you mean \"http\"?"), "{error}");
    let error = refused("http = \"127.0.0.1:0\"\n   store = \"embeded\"\n");
    assert!(error.contains("anode.toml:2:12: --store"), "{error}");
    assert!(error.contains("did you mean \"embedded\"?"), "{error}");
    let error = refused("http = \n");
    assert!(error.contains("line 1, column "), "{error}");
    let output = with_variable("ANODE_STORE", "memry", &["serve"]);
    assert!(
        output.stderr.contains("ANODE_STORE: --store") && output.stderr.contains("\"memory\"?"),
        "{output:?}"
    );
}
