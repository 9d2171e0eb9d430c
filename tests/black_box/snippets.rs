//! Every block of code in the documentation is run or checked by something. This file runs what no other test does, and
//! knows for every block by what it is checked, so that a new one cannot be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::command::{anode, binary, run};
use crate::harness::rights::{RightsFile, jwt, sha256_hex};
use crate::harness::{Client, Http, Node, NodeConfig};

/// By what the block is checked that begins with a text, in the pages that the entry names.
struct Block {
    page: &'static str,
    begins: &'static str,
    checked_by: CheckedBy,
}

enum CheckedBy {
    /// A test or script that reads the page, or does what the block says: its file.
    File(&'static str),
    /// A test of this file.
    Here,
    /// Nothing can run it here, for this reason.
    Nothing(&'static str),
}
use CheckedBy::{File, Here, Nothing};

const fn block(page: &'static str, begins: &'static str, checked_by: CheckedBy) -> Block {
    Block { page, begins, checked_by }
}

const QUICK_STARTS: CheckedBy = File("clients/conformance/quick_starts.py");
const LOADGEN: CheckedBy = File("loadgen/src/main.rs");
const BENCH: CheckedBy = File("bench/src/main.rs");
const COMPOSE: CheckedBy = File("scripts/compose-smoke");
const OUTPUT: CheckedBy = Nothing("it is the output of a run, with the machine and the commit");
const CARGO: CheckedBy = Nothing("it builds the program, as this test's own run does");

/// Every block that is not in a page of [`READ_WHOLE`].
const BLOCKS: &[Block] = &[
    block("README.md", "cargo run --release -- demo", File("tests/black_box/terminal_top.rs")),
    block("README.md", "target/release/anode serve", Here),
    block("README.md", "target/release/anode sub", Here),
    block("README.md", "curl -X PUT", Here),
    block("README.md", "import asyncio", QUICK_STARTS),
    block("README.md", "import { connect }", QUICK_STARTS),
    block("README.md", "#[tokio::main]", QUICK_STARTS),
    block("README.md", "export ANODE_CLUSTER_KEY", File("tests/black_box/guide.rs")),
    block("docs/benchmarks.md", "machine: ", OUTPUT),
    block("docs/benchmarks.md", "anode-bench cluster", BENCH),
    block("docs/benchmarks.md", "anode serve --store memory", LOADGEN),
    block("docs/cassandra.md", "anode serve --store cassandra", File("tests/black_box/cassandra.rs")),
    block("docs/cli.md", "anode export", Here),
    block("docs/cli.md", "anode completions", Here),
    block("docs/clients.md", "(cd clients/typescript", File("scripts/clients-test")),
    block("docs/clients.md", "import { connect }", QUICK_STARTS),
    block("docs/clients.md", "import asyncio", QUICK_STARTS),
    block("docs/clients.md", "#[tokio::main]", QUICK_STARTS),
    block("docs/faults.md", "netem/run --list", File("netem/src/arguments.rs")),
    block("docs/faults.md", "about = ", File("netem/src/profile/mod.rs")),
    block("docs/faults.md", "anode-netem-local", File("netem/src/bin/anode-netem-local.rs")),
    block("docs/loadgen.md", "cargo build", LOADGEN),
    block("docs/operation.md", "deploy/secrets   ", COMPOSE),
    block("docs/operation.md", "deploy/secrets secrets", File("scripts/chart-check")),
    block("docs/operation.md", "helm install", File("scripts/chart-check")),
    block("docs/operation.md", "ANODE_HTTP=", Here),
    block(
        "docs/operation.md",
        "docker run",
        Nothing("it needs a container engine and the volumes of a cluster"),
    ),
    block("docs/operation.md", "ANODE_IMAGE=", File("tests/deploy.rs")),
    block("docs/operation.md", "docker compose build", COMPOSE),
    block("docs/page.md", "cd web && npm install", File("scripts/web-test")),
    block("docs/protocol.md", "{\"source\":\"sensors/7/temp\",\"data\":21.5}", Here),
    block("docs/protocol.md", "{\"id\":7,\"result\"", Here),
    block("docs/protocol.md", "/subscribe?source=", Here),
    block("docs/protocol.md", "→ {\"id\":1,\"subscribe\"", Here),
    block("docs/protocol.md", "{\"connected\"", Here),
    block("docs/protocol.md", "→ {\"id\":1,\"auth\"", Here),
    block("docs/protocol.md", "event: record", File("tests/black_box/streams.rs")),
    block("docs/protocol.md", "{\"applied\":2", Here),
    block("docs/protocol.md", "mutation {", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\"publish\"", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\n  record", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\"record\"", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\n  members", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "subscription {", File("tests/black_box/graphql.rs")),
    block("docs/security.md", "deploy/secrets", File("tests/black_box/guide.rs")),
    block("docs/security.md", "export ANODE_CLUSTER_KEY", File("tests/black_box/guide.rs")),
    block("docs/security.md", "anode pub sensors", File("tests/black_box/guide.rs")),
    block("docs/security.md", "anode members", File("tests/black_box/guide.rs")),
    block("docs/security.md", "anode serve --http 0.0.0.0:7070", File("tests/black_box/tls.rs")),
    block("docs/security.md", "anode sub", File("tests/black_box/tls_clients.rs")),
    block("docs/security.md", "[anonymous]", Here),
    block("docs/security.md", "[jwt]", Here),
    block("docs/security.md", "{\"iss\"", Here),
    block("docs/security.md", "curl -fsS", Nothing("it asks an identity provider of the reader")),
    block("docs/security.md", "anode keys new", File("tests/black_box/sealed.rs")),
    block("docs/security.md", "ID  STATE", File("tests/black_box/sealed.rs")),
    block(
        "docs/security.md",
        "map $http_upgrade",
        Nothing("it is the configuration of nginx, with names of the reader"),
    ),
    block("docs/simulator.md", "anode sim spread", Here),
    block("docs/simulator.md", "CARGO_PROFILE", CARGO),
    block("docs/extend/archives.md", "kind = \"s3\"", File("tests/black_box/archives.rs")),
    block("docs/extend/archives.md", "kind = \"ipfs\"", File("tests/black_box/archives.rs")),
    block("docs/extend/archives.md", "anode archive put hourly", File("tests/black_box/archives.rs")),
    block("docs/extend/filters.md", "anode sub", File("tests/black_box/filters.rs")),
    block("docs/extend/filters.md", "data.c > 20.5", File("src/expression/page_tests.rs")),
    block("docs/extend/pull.md", "anode pull test", File("tests/black_box/pull_http.rs")),
    block("docs/extend/webhooks.md", "anode --url", File("tests/black_box/hooks.rs")),
    block("docs/extend/webhooks.md", "POST /in", File("tests/black_box/hooks.rs")),
    block(
        "docs/extend/middlewares.md",
        "anode middleware put celsius",
        File("tests/black_box/middlewares.rs"),
    ),
    block("docs/extend/middlewares.md", "anode middleware rollback", File("tests/black_box/middlewares.rs")),
    block("docs/extend/middlewares.md", "$ echo", File("tests/black_box/middlewares.rs")),
    block("docs/extend/middlewares.md", "rustup target", File("tests/black_box/middleware_modules.rs")),
    block("docs/extend/middlewares.md", "wit_bindgen", File("tests/black_box/middleware_modules.rs")),
    block(
        "docs/extend/middlewares.md",
        "cd guests/typescript",
        File("tests/black_box/middleware_modules.rs"),
    ),
];

/// Pages, or sections by their headings, of which a test runs every block: the page, the heading or nothing, the test.
const READ_WHOLE: &[(&str, &str, &str)] = &[
    ("docs/tutorial.md", "", "tests/black_box/tutorial.rs"),
    ("docs/extend/middlewares.md", "Recipes", "tests/black_box/middleware_recipes.rs"),
    ("docs/extend/pull.md", "Recipes", "tests/black_box/pull_recipes.rs"),
    ("docs/extend/archives.md", "Recipe", "tests/black_box/recipes_delivery.rs"),
    ("docs/extend/webhooks.md", "Recipe", "tests/black_box/recipes_delivery.rs"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages for users: the README and everything under docs/, without the figures that runs have written.
fn pages() -> BTreeMap<String, String> {
    let mut folders = vec![root().join("docs")];
    let mut found = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let name = |path: &PathBuf| path.strip_prefix(root()).expect("beneath").display().to_string();
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("a page"))).collect()
}

/// The blocks of code of a page, each with the heading of second level that it stands under.
fn blocks(text: &str) -> Vec<(String, String)> {
    let (mut found, mut heading, mut open) = (Vec::new(), String::new(), None::<String>);
    for line in text.lines() {
        match (&mut open, line.trim_start().starts_with("```")) {
            (Some(block), true) => {
                found.push((heading.clone(), std::mem::take(block)));
                open = None;
            }
            (Some(block), false) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, true) => open = Some(String::new()),
            (None, false) => {
                if let Some(title) = line.strip_prefix("## ") {
                    heading = title.to_owned();
                }
            }
        }
    }
    assert_eq!(open, None, "a block has no end");
    found
}

/// The only block of a page that begins with a text.
fn block_of(page: &str, begins: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).expect("a page");
    let found = blocks(&text).into_iter().find(|(_, block)| block.starts_with(begins));
    found.unwrap_or_else(|| panic!("{page} has no block that begins with {begins:?}")).1
}

#[test]
fn every_block_of_code_is_checked_by_something() {
    let (mut unknown, mut used) = (Vec::new(), BTreeSet::new());
    for (page, text) in pages() {
        for (heading, block) in blocks(&text) {
            if READ_WHOLE.iter().any(|(whole, section, _)| {
                *whole == page && (section.is_empty() || heading.starts_with(section))
            }) {
                continue;
            }
            match BLOCKS.iter().position(|entry| entry.page == page && block.starts_with(entry.begins)) {
                Some(at) => {
                    used.insert(at);
                }
                None => unknown.push(format!("{page}, {heading}:\n{block}")),
            }
        }
    }
    assert!(unknown.is_empty(), "say in BLOCKS by what these are checked:\n{}", unknown.join("\n"));
    for (at, entry) in BLOCKS.iter().enumerate() {
        assert!(used.contains(&at), "{} has no block that begins with {:?}", entry.page, entry.begins);
        match entry.checked_by {
            File(file) => assert!(root().join(file).is_file(), "there is no {file}"),
            Nothing(reason) => assert!(!reason.is_empty()),
            Here => {}
        }
    }
    for (page, _, file) in READ_WHOLE {
        let test = std::fs::read_to_string(root().join(file)).expect("a test");
        assert!(test.contains(page), "{file} does not read {page}");
    }
}

/// The words of a command as a shell would split it, up to a comment, a redirection or the next command.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in command.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => word.push(letter),
            (None, '\'' | '"') => quote = Some(letter),
            (None, '|' | ';' | '<' | '>' | '&' | ')' | '(') => break,
            (None, '#') if word.is_empty() => break,
            (None, ' ') => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            (None, _) => word.push(letter),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// The commands of `anode` in a page: in its blocks, and within its lines as `code`.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ").replace("target/release/anode ", "anode ").replace("\\|", "/");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("anode ") {
        let before = &text[..at];
        let is_in_line = before.ends_with('`');
        // Where a shell expects a command.
        let begins =
            ["\n", "| ", "&& ", "; ", "until ", "do ", "$ ", "$("].iter().any(|end| before.ends_with(end));
        if is_in_line || (begins && before.matches("```").count() % 2 == 1) {
            let line = text[at..].split(['\n', '`']).next().unwrap_or_default();
            found.push(words(&line.replace(['[', ']'], " ")));
        }
    }
    found
}

/// Help of a command, by its names.
fn help(path: &[String], known: &mut BTreeMap<Vec<String>, String>) -> String {
    let told = known.entry(path.to_vec()).or_insert_with(|| {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let output = anode(&words);
        assert_eq!(output.code, Some(0), "anode {words:?}: {}", output.stderr);
        output.stdout
    });
    told.clone()
}

/// Names of the commands beneath one, as its help has them.
fn beneath(help: &str) -> Vec<String> {
    let lines = help.split("\nCommands:\n").nth(1).unwrap_or_default().lines();
    let lines = lines.take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_in_the_pages_exists() {
    let (mut known, mut count) = (BTreeMap::new(), 0);
    for (page, text) in pages() {
        for command in commands(&text) {
            let mut path = Vec::new();
            for word in command.iter().skip(1).filter(|word| *word != "help") {
                let told = help(&path, &mut known);
                if beneath(&told).contains(word) {
                    path.push(word.clone());
                } else if let Some(option) = word.strip_prefix("--").filter(|option| !option.is_empty()) {
                    let option = option.split('=').next().unwrap_or(option);
                    let is_there = |help: &str| {
                        help.match_indices(&format!("--{option}")).any(|(at, name)| {
                            !help[at + name.len()..]
                                .starts_with(|next: char| next.is_alphanumeric() || next == '-')
                        })
                    };
                    assert!(
                        is_there(&told) || is_there(&help(&[], &mut known)),
                        "{page}: {command:?} has no option --{option}"
                    );
                    count += 1;
                } else if word == "--" {
                    break;
                }
            }
            let first = command.get(1).map_or("", String::as_str);
            let is_plain = first != "help"
                && !first.is_empty()
                && first.chars().all(|letter| letter.is_ascii_lowercase());
            assert!(!is_plain || !path.is_empty(), "{page}: there is no {command:?}");
        }
    }
    assert!(count > 100, "only {count} options were found in the pages");
}

#[test]
fn a_command_that_is_not_there_would_be_found() {
    let found =
        commands("Run `anode sub 'a b' --count 3 | sort` and anode is up.\n```\nanode get x # --no\n```\n");
    assert_eq!(found, [vec!["anode", "sub", "a b", "--count", "3"], vec!["anode", "get", "x"]]);
    assert_eq!(beneath("x\nCommands:\n  put   Puts\n  list  Lists\n\nOptions:\n"), ["put", "list"]);
}

/// The names of all members of a JSON value, with their places: what a message consists of, whatever it says.
fn shape(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found.insert(format!("{at}.{name}"));
            // What a record holds is its publisher's.
            if name != "data" {
                shape(value, &format!("{at}.{name}"), found);
            }
        }),
        Value::Array(items) => items.iter().for_each(|item| shape(item, &format!("{at}[]"), found)),
        _ => {}
    }
}

fn assert_alike(told: &Value, shown: &Value) {
    let [mut of_told, mut of_shown] = [BTreeSet::new(), BTreeSet::new()];
    shape(told, "", &mut of_told);
    shape(shown, "", &mut of_shown);
    assert_eq!(of_told, of_shown, "{told} instead of {shown}");
}

/// The JSON value at the beginning of a text. A comment may stand behind it.
fn first_json(text: &str) -> Value {
    let text = text.replace("TOKEN", "\"TOKEN\"").replace(",…", "");
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    values.next().and_then(Result::ok).unwrap_or_else(|| panic!("no JSON: {text}"))
}

const PROTOCOL: &str = "docs/protocol.md";

#[test]
fn publishes_of_the_reference_are_answered_as_it_shows() {
    let node = Node::single();
    let mut publisher = node.publisher();
    let examples = block_of(PROTOCOL, "{\"source\":\"sensors/7/temp\",\"data\":21.5}");
    for line in examples.lines() {
        publisher.send_text(line);
    }
    let mut ids: Vec<Value> = (0..2).map(|_| publisher.next()["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [json!(7), json!(8)], "only records with an id are answered");
    let shown = block_of(PROTOCOL, "{\"id\":7,\"result\"");
    let shown: Vec<Value> = shown.lines().map(first_json).collect();
    let ts = 1_763_800_000_000_000_u64;
    let told = [
        json!({"id": 7, "source": "shown", "ts": ts, "data": 1, "ack": "stored"}),
        json!({"id": 7, "source": "sensors/7/temp", "ts": ts, "data": 1, "ack": "stored"}),
        json!({"id": 7, "source": "other", "ts": ts, "data": 1, "ack": "replicated"}),
        json!({"id": 7, "source": "x", "ts": crate::harness::wall_us() + 120_000_000, "data": 1}),
    ]
    .map(|record| publisher.ask(record));
    for (told, shown) in told.iter().zip(&shown) {
        assert_alike(told, shown);
        assert_eq!(told["result"]["outcome"], shown["result"]["outcome"]);
    }
    let message = told[3]["error"]["message"].as_str().expect("a message");
    assert!(message.ends_with(" s ahead of this node's clock; at most 10 s"), "{message}");
    let url = block_of(PROTOCOL, "/subscribe?source=");
    assert!(Client::open(&node.http, url.trim()).connected.is_object());
}

/// Speaks a dialogue of the reference: what stands behind an arrow to the right is sent, and what stands behind one to the
/// left must come, with these members. `before` is done before the line with this number.
fn speak(client: &mut Client, dialogue: &str, token: &str, mut before: impl FnMut(usize, &mut Client)) {
    for (at, line) in dialogue.lines().enumerate() {
        before(at, client);
        if let Some(sent) = line.strip_prefix("→ ") {
            client.send_text(&sent.replace("TOKEN", &format!("\"{token}\"")));
        } else if let Some(shown) = line.strip_prefix("← ") {
            let (told, shown) = (client.next(), first_json(shown));
            assert_alike(&told, &shown);
            for (name, value) in [("error", "message"), ("error", "code"), ("result", "recovered")] {
                assert_eq!(told[name][value], shown[name][value], "{told}");
            }
        }
    }
}

#[test]
fn dialogues_of_the_reference_are_spoken() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    node.put("sensors/7/temp", json!(1));
    let mut client = Client::open(&node.http, "/subscribe");
    let greeting = first_json(&block_of(PROTOCOL, "{\"connected\"").replace('\n', ""));
    let names =
        |greeting: &Value| greeting.as_object().expect("a greeting").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&client.connected), names(&greeting["connected"]));
    client.send_json(json!({"id": 0, "subscribe": {"sources": ["sensors/*/temp"]}}));
    let token = client.snapshot().resume;
    node.put("sensors/7/temp", json!(21.5));
    let dialogue = block_of(PROTOCOL, "→ {\"id\":1,\"subscribe\":{\"sources\":[\"sensors/*/temp\"]");
    let mut client = Client::open(&node.http, "/subscribe");
    speak(&mut client, &dialogue, &token, |at, _| {
        if at == 4 {
            node.put("sensors/7/temp", json!(21.7));
        }
    });
    let dialogue = block_of(PROTOCOL, "→ {\"id\":1,\"subscribe\":{\"sources\":[\"sensors/*\"]");
    let mut client = Client::open(&node.http, "/subscribe");
    speak(&mut client, &dialogue, "", |at, client| match at {
        1 => {
            // The answer, and the end of a snapshot with nothing in it.
            assert!(client.next()["result"].is_object() && client.next()["eos"].is_object());
            node.put("sensors/7", json!({"c": 21.5}));
        }
        2 => {
            node.put("sensors/7", json!({"c": 1.5}));
        }
        3 => client.send_json(json!({"id": 2, "subscribe": {"sources": ["x"], "filter": "data.c >"}})),
        _ => {}
    });
    let mut client = Client::open(&node.http, "/publish");
    speak(&mut client, &block_of(PROTOCOL, "→ {\"id\":1,\"auth\""), "", |_, _| {});
    let lines = "{\"source\":\"i/1\",\"ts\":5,\"data\":1}\n{\"source\":\"i/2\",\"data\":1}\n{\"source\":\"i//1\",\"data\":1}\n\
                 {\"source\":\"i/1\",\"ts\":4,\"data\":1}\n";
    let told = Http::post(&node.http, "/v1/import", lines).json();
    let shown = first_json(&block_of(PROTOCOL, "{\"applied\":2"));
    for count in ["applied", "duplicate", "stale", "refused_total"] {
        assert_eq!(told[count], shown[count], "{told}");
    }
    assert_eq!(told["refused"][0]["line"], shown["refused"][0]["line"]);
    assert_eq!(told["refused"][0]["error"]["code"], shown["refused"][0]["error"]["code"]);
}

/// Runs lines of a page in an empty folder, with `anode` in the path.
fn run_lines(lines: &str, node: &Node) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().display().to_string();
    let lines = lines
        .replace("target/release/anode", "anode")
        .replace("/etc/bash_completion.d", &here)
        .replace("/usr/share/man/man1", &here);
    let program = PathBuf::from(binary().get_program());
    let path = program.parent().expect("a folder").display().to_string();
    let mut command = Command::new("bash");
    command
        .args(["-ec", &lines])
        .current_dir(folder.path())
        .env("ANODE_URL", format!("http://{}", node.http));
    command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap_or_default()));
    let output = run(&mut command, "");
    assert_eq!(output.code, Some(0), "{lines}\n{output:?}");
    let entries = std::fs::read_dir(folder.path()).expect("the folder").flatten();
    let files: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    format!("{}\n{}", files.join(" "), output.stdout)
}

#[test]
fn lines_for_the_terminal_do_what_they_say() {
    let node = Node::single();
    node.put("a/b", json!(1));
    assert!(run_lines(&block_of("docs/cli.md", "anode export"), &node).contains("backup.ndjson"));
    let told = run_lines(&block_of("docs/cli.md", "anode completions"), &node);
    assert!(told.contains("anode-serve.1") && told.contains("anode"), "{told}");
    // The tour of the README, at one node in place of three.
    let mut tour =
        [block_of("README.md", "target/release/anode sub"), block_of("README.md", "curl -X PUT")].concat();
    tour = tour.replace("anode sub", "anode sub --count 1");
    for port in ["7070", "7071", "7072"] {
        tour = tour.replace(&format!("127.0.0.1:{port}"), &node.http);
    }
    node.put("sensors/1", json!(1));
    let told = run_lines(&tour, &node);
    assert_eq!(told.matches("\"source\":\"sensors/").count(), 2, "{told}");
    assert!(told.contains("\"data\":{\"c\":21.5}"), "{told}");
    let serves = block_of("README.md", "target/release/anode serve");
    assert_eq!(serves.lines().filter(|line| line.contains(" serve --http 127.0.0.1:707")).count(), 3);
}

#[test]
fn settings_in_the_pages_are_settings() {
    let told = anode(&["serve", "--help"]).stdout;
    for line in block_of("docs/operation.md", "ANODE_HTTP=").lines() {
        let name = line.split('=').next().unwrap_or_default();
        let flag = name.trim_start_matches("ANODE_").to_lowercase().replace('_', "-");
        assert!(told.contains(&format!("--{flag} ")), "{line}");
    }
    let rights = block_of("docs/security.md", "[anonymous]");
    let mut parts = rights.split("\"…\"");
    let mut file = parts.next().unwrap_or_default().to_owned();
    for (at, part) in parts.enumerate() {
        file.push_str(&format!("\"{}\"{part}", sha256_hex(&at.to_string())));
    }
    let file = RightsFile::new(&file);
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
    // The example has the hash of this word.
    let put = Http::with_token(&node.http, "PUT", "/v1/sources/sensors/1", "test");
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(Http::with_token(&node.http, "GET", "/v1/sources/sensors/1", "0").status, 200);
    assert_eq!(node.get("/v1/sources/sensors/1").status, 401);
}

#[test]
fn the_issuer_of_the_pages_is_believed() {
    let jwt_table = block_of("docs/security.md", "[jwt]");
    let keys = root().join("tests/keys");
    let mut claims = first_json(&block_of("docs/security.md", "{\"iss\"").replace('\n', " "));
    claims["exp"] = json!(crate::harness::wall_us() / 1_000_000 + 600);
    // The lines that begin with "or" are other ways to say whose keys are meant.
    for kept in ["keys = ", "jwks = "] {
        let is_kept = |line: &&str| {
            let is_key =
                ["keys = ", "jwks = ", "hmac_secret_file = "].iter().any(|key| line.starts_with(key));
            !is_key || line.starts_with(kept)
        };
        let file = RightsFile::new(&jwt_table.lines().filter(is_kept).collect::<Vec<_>>().join("\n"));
        for (name, copy) in [("ed25519.pub.pem", "issuer.pem"), ("jwks.json", "jwks.json")] {
            std::fs::copy(keys.join(name), file.file(copy)).expect("a key");
        }
        let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
        let header = match kept {
            "keys = " => json!({"alg": "EdDSA"}),
            _ => json!({"alg": "EdDSA", "kid": kid_of_ed25519()}),
        };
        let token = jwt(header, claims.clone(), "ed25519");
        let put = Http::with_token(&node.http, "PUT", "/v1/sources/sensors/7/temp", &token);
        assert_eq!(put.status, 200, "{}", put.body);
        assert_eq!(Http::with_token(&node.http, "PUT", "/v1/sources/sensors/8/temp", &token).status, 403);
    }
}

/// Name of the Ed25519 key in the tests' set of JWKs.
fn kid_of_ed25519() -> Value {
    let text = std::fs::read_to_string(root().join("tests/keys/jwks.json")).expect("the keys");
    let set = crate::harness::json(&text);
    let keys = set["keys"].as_array().expect("keys");
    keys.iter().find(|key| key["kty"] == "OKP").expect("an Ed25519 key")["kid"].clone()
}

/// The comparison named versions of other systems that nobody had measured.
#[test]
fn the_comparison_names_the_versions_that_were_measured() {
    let page = |name: &str| std::fs::read_to_string(root().join(name)).expect("a page");
    let (told, measured) = (page("docs/comparison.md"), page("docs/benchmarks.md"));
    for version in ["2.15.3", "7.0.15", "2.0.11", "1.4.5", "8.23.0"] {
        assert!(told.contains(version) && measured.contains(version), "{version}");
    }
}
