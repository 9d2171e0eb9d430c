//! Middlewares in WebAssembly, and what one may cost a node. A program without them says so, and is tested for that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::archives::table;
use crate::harness::command::{binary, run};
use crate::harness::{Cluster, Deadline, Http, Node, NodeConfig, eventually};

const GUIDE: &str = include_str!("../../docs/extend/middlewares.md");
const BEHAVIOURS: &[u8] = include_bytes!("../guests/behaviours.wasm");
const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/template.wasm");
const WASM: (&str, &str) = ("Content-Type", "application/wasm");
/// Time within which a middleware must be in force at every node. A program that was not optimized compiles slowly.
const IN_FORCE: Duration = Duration::from_secs(60);

fn put(node: &Node, name: &str, parameters: &str, module: &[u8]) -> Http {
    let path = format!("/v1/middleware/{name}?{parameters}");
    Http::request(&node.http, "PUT", &path, &[WASM], module)
}

/// Puts the module of the tests. `false`: this program was built without modules, and said so.
fn put_in_force<'n>(
    nodes: impl IntoIterator<Item = &'n Node> + Clone,
    parameters: &str,
    module: &[u8],
) -> bool {
    let first = nodes.clone().into_iter().next().expect("a node");
    let answer = put(first, "m", parameters, module);
    if !cfg!(feature = "wasm") {
        answer.assert_problem(400, "bad_request");
        assert!(answer.body.contains("built without WebAssembly"), "{answer:?}");
        return false;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let in_force = format!("middleware is in force name=m version={}", answer.json()["version"]);
    for node in nodes {
        eventually("the module is in force", IN_FORCE, || node.log().contains(&in_force).then_some(()));
    }
    true
}

fn publish(node: &Node, source: &str, data: Value) -> Http {
    node.post(json!({"source": source, "data": data}))
}

fn data(node: &Node, source: &str) -> Option<Value> {
    node.latest(source).map(|record| record["data"].clone())
}

#[test]
fn a_module_decides_at_every_node() {
    let cluster = Cluster::start(3);
    if !put_in_force(&cluster.nodes, "on=m/*", BEHAVIOURS) {
        return;
    }
    for node in &cluster.nodes {
        let source = format!("m/{}", node.config.name);
        assert_eq!(publish(node, &source, json!("pass")).json()["outcome"], "applied");
        assert_eq!(data(node, &source), Some(json!("pass")));
        assert_eq!(publish(node, &source, json!("replace [1.50]")).json()["outcome"], "applied");
        assert!(node.get(&format!("/v1/sources/{source}")).body.contains("\"data\":[1.50]"));
        assert_eq!(publish(node, &source, json!("drop")).json()["outcome"], "dropped");
        publish(node, &source, json!("reject too bad")).assert_problem(422, "rejected");
        assert_eq!(publish(node, &source, json!(format!("twice other/{}", node.config.name))).status, 200);
        assert_eq!(data(node, &format!("other/{}", node.config.name)), Some(json!(2)));
        let stored = json!({"source": source, "data": "many 3", "ack": "stored"});
        assert_eq!(node.post(stored).json()["level"], "stored");
        assert_eq!(data(node, &format!("{source}/2")), Some(json!(2)));
        publish(node, &source, json!("rename $middleware/x")).assert_problem(500, "middleware_failed");
        publish(node, &source, json!("large 100000")).assert_problem(413, "too_large");
        assert_eq!(publish(node, &source, json!("look other/a")).status, 200);
        assert_eq!(data(node, &source), Some(json!([2, "", true])));
    }
    cluster.wait_equal("**", Duration::from_secs(10));
}

/// Publishes one record after another at the second node, until the version that was put is in force at all nodes. Adds the
/// status of each answer to `statuses`, whose length numbers the sources.
fn publish_until_in_force(cluster: &Cluster, was_put: &Http, statuses: &mut Vec<u16>) {
    assert_eq!(was_put.status, 200, "{was_put:?}");
    let in_force = format!("middleware is in force name=m version={}", was_put.json()["version"]);
    eventually("the version is in force", IN_FORCE, || {
        let answer = publish(&cluster[1], &format!("t/{}", statuses.len()), json!("replace [1]"));
        statuses.push(answer.status);
        cluster.nodes.iter().all(|node| node.log().contains(&in_force)).then_some(())
    });
}

/// While one module replaces another, and while the one before comes back, each record meets one of the two. The module of the
/// tests makes `[1]` of the records, and the template rejects them. One that met neither would be kept as it was published.
#[test]
fn a_module_is_replaced_and_comes_back_while_records_come() {
    let cluster = Cluster::start(2);
    if !put_in_force(&cluster.nodes, "on=t/*", BEHAVIOURS) {
        return;
    }
    let template = std::fs::read(TEMPLATE).expect("the template");
    let mut statuses = Vec::new();
    let replaced = put(&cluster[0], "m", "on=t/*", &template);
    publish_until_in_force(&cluster, &replaced, &mut statuses);
    publish(&cluster[1], "t/text", json!("replace [1]")).assert_problem(422, "rejected");
    assert_eq!(publish(&cluster[1], "t/object", json!({"f": 70.7})).status, 200);
    assert_eq!(data(&cluster[1], "t/object"), Some(json!({"c": 21.5})));
    let back = Http::post(&cluster[0].http, "/v1/middleware/m/rollback", "");
    publish_until_in_force(&cluster, &back, &mut statuses);
    assert_eq!(publish(&cluster[1], "t/text", json!("replace [1]")).status, 200);
    assert_eq!(data(&cluster[1], "t/text"), Some(json!([1])));
    cluster.wait_equal("t/*", Duration::from_secs(10));
    let kept = table(&cluster[0], "t/*");
    for (number, status) in statuses.iter().enumerate() {
        let expected = match status {
            200 => Some(json!([1])),
            422 => None,
            other => panic!("t/{number} was answered with {other}"),
        };
        assert_eq!(kept.get(&format!("t/{number}")), expected.as_ref(), "t/{number}");
    }
}

#[test]
fn what_a_module_may_cost_is_bounded() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    if !put_in_force([&node], "on=m/*&on_failure=refuse", BEHAVIOURS) {
        return;
    }
    let before = node.rss_bytes();
    for order in ["loop", "memory", "stack", "panic", "large 9000000", "many 101"] {
        let begun = Deadline::after(Duration::from_secs(60));
        publish(&node, "m/1", json!(order)).assert_problem(500, "middleware_failed");
        assert!(begun.elapsed() < Duration::from_secs(2), "{order} took {:?}", begun.elapsed());
        assert_eq!(publish(&node, "m/1", json!("pass")).status, 200, "the next record has another instance");
    }
    // The module has no other clock than the node's, no files and no network: whatever it calls of them stops it.
    let imports = [("clock", "wasi:clocks"), ("file", "wasi:filesystem"), ("network", "wasi:sockets")];
    for (order, named) in imports {
        let answer = publish(&node, "m/1", json!(order));
        answer.assert_problem(500, "middleware_failed");
        assert!(answer.body.contains(named), "{order}: {}", answer.body);
        assert_eq!(publish(&node, "m/1", json!("pass")).status, 200, "the next record has another instance");
    }
    for _ in 0..200 {
        publish(&node, "m/1", json!("memory"));
        publish(&node, "m/1", json!("pass"));
    }
    let grown = node.rss_bytes().saturating_sub(before);
    assert!(grown < 96 << 20, "grew by {} MiB", grown >> 20);
    for _ in 0..9 {
        publish(&node, "m/1", json!("loop")).assert_problem(500, "middleware_failed");
    }
    publish(&node, "m/1", json!("loop"));
    eventually("it is off", Duration::from_secs(5), || {
        (publish(&node, "m/1", json!("loop")).status == 200).then_some(())
    });
    let state = node.get("/v1/middleware/m").json()["state"].clone();
    assert!(state["reason"].as_str().is_some_and(|reason| reason.contains("10 ms")), "{state}");
}

/// The largest module there may be comes to all nodes, is stored, and comes to those that join later.
#[test]
fn a_module_of_sixteen_mebibytes_comes_everywhere() {
    // A custom section with noise, which the engine passes over, makes the module as large as it may be.
    let room = (16 << 20) - BEHAVIOURS.len();
    let content = room - 1 - 5;
    let mut module = BEHAVIOURS.to_vec();
    module.push(0);
    let mut rest = content;
    for at in 0..5 {
        module.push((rest & 0x7f) as u8 | if at < 4 { 0x80 } else { 0 });
        rest >>= 7;
    }
    module.push(5);
    module.extend_from_slice(b"noise");
    let mut seed = 1u64;
    while module.len() < 16 << 20 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        module.push((seed >> 56) as u8);
    }
    let mut cluster = Cluster::start(2);
    let mut larger = module.clone();
    larger.push(0);
    put(&cluster[0], "large", "on=m/*", &larger).assert_problem(400, "bad_request");
    if !put_in_force(&cluster.nodes, "on=m/*", &module) {
        return;
    }
    let late = Node::start(NodeConfig::joining("late", &cluster[1]));
    eventually("it is in force at the node that joined", IN_FORCE, || {
        late.log().contains("middleware is in force name=m").then_some(())
    });
    publish(&late, "m/1", json!("reject it")).assert_problem(422, "rejected");
    cluster[1].kill9();
    cluster[1].restart();
    eventually("it is in force after a restart", IN_FORCE, || {
        let answer = publish(&cluster[1], "m/1", json!("reject it"));
        (answer.status == 422).then_some(())
    });
    let removed = Http::request(&cluster[0].http, "DELETE", "/v1/middleware/m", &[], b"");
    assert_eq!(removed.status, 200);
    eventually("its parts are gone", Duration::from_secs(10), || {
        cluster[0].all_records("$middleware/**").is_empty().then_some(())
    });
}

#[test]
fn the_template_of_the_guide_runs_from_the_terminal() {
    let node = Node::single();
    let url = format!("http://{}", node.http);
    let put =
        run(binary().args(["middleware", "put", "m", "--on", "t/*", "--wasm", TEMPLATE, "--url", &url]), "");
    if !cfg!(feature = "wasm") {
        assert!(put.code == Some(1) && put.stderr.contains("built without WebAssembly"), "{put:?}");
        return;
    }
    assert_eq!(put.code, Some(0), "{put:?}");
    eventually("it is in force", IN_FORCE, || {
        publish(&node, "t/1", json!({"f": 70.7}));
        (data(&node, "t/1") == Some(json!({"c": 21.5}))).then_some(())
    });
    publish(&node, "t/1", json!({"f": 212}));
    assert_eq!(data(&node, "alarms/t/1"), Some(json!({"c": 100.0})));
    publish(&node, "t/1", json!({"f": -1000})).assert_problem(422, "rejected");
    let tested = run(
        binary().args(["middleware", "test", "m", "--url", &url]),
        "{\"source\":\"t/1\",\"data\":{\"f\":32}}\n",
    );
    let line: Value = serde_json::from_str(tested.stdout.trim()).expect("JSON");
    assert_eq!(line, json!({"outcome": "changed", "records": [{"source": "t/1", "data": {"c": 0.0}}]}));
}

/// The middleware in Rust of the guide is built and put by its lines, in a copy of the template. Then the one whose code the guide
/// shows is built in the same place. Where a compiler for modules is missing, the test says so.
#[test]
fn the_template_in_rust_is_built_and_put_by_the_lines_of_the_guide() {
    let libraries =
        Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-wasip2"]).output();
    let libraries = libraries.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if !cfg!(feature = "wasm") || !libraries.is_ok_and(|path| Path::new(&path).exists()) {
        eprintln!(
            "NOT TESTED: the template in Rust, which needs the feature wasm and the target wasm32-wasip2"
        );
        return;
    }
    let section = GUIDE.split("\n### In Rust\n").nth(1).expect("the section");
    let lines = section.split("```sh\n").nth(1).and_then(|text| text.split("```").next()).expect("the lines");
    let copy = copy_of("rust");
    build_and_try(&copy, lines);
    let code = section.split("```rust\n").nth(1).and_then(|text| text.split("```").next()).expect("the code");
    build_and_try_code(&copy, code);
}

/// Builds the code that the guide shows in place of the template's, and publishes what its middleware passes and rejects.
fn build_and_try_code(copy: &Path, code: &str) {
    let package = copy.join("guests/rust");
    std::fs::write(package.join("src/lib.rs"), code).expect("written");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", "wasm32-wasip2"]).current_dir(&package);
    let built = cargo.env_remove("CARGO_TARGET_DIR").output().expect("cargo runs");
    assert!(built.status.success(), "{built:?}");
    let module = package.join("target/wasm32-wasip2/release/anode_middleware_template.wasm");
    let module = std::fs::read(module).expect("the module");
    let node = Node::single();
    assert!(put_in_force([&node], "on=*", &module));
    assert_eq!(publish(&node, &"x".repeat(40), json!(1)).status, 200);
    let refused = publish(&node, &"x".repeat(41), json!(1));
    refused.assert_problem(422, "rejected");
    assert!(refused.body.contains("the name is too long"), "{}", refused.body);
}

/// The same in TypeScript, with the packages that npm fetches.
#[test]
fn the_template_in_typescript_is_built_and_put_by_the_lines_of_the_guide() {
    let registry = Command::new("timeout").args(["20", "npm", "ping"]).output();
    if !cfg!(feature = "wasm") || !registry.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "NOT TESTED: the template in TypeScript, which needs the feature wasm and the registry of npm"
        );
        return;
    }
    let section = GUIDE.split("\n### In TypeScript\n").nth(1).expect("the section");
    let lines = section.split("```sh\n").nth(1).and_then(|text| text.split("```").next()).expect("the lines");
    build_and_try(&copy_of("typescript"), lines);
}

/// The folder of the programs that are tested.
fn programs() -> PathBuf {
    let program = PathBuf::from(binary().get_program());
    program.parent().expect("a folder").to_owned()
}

/// Copies a template and what it needs into a folder, with the paths that they have in the project. Returns the folder.
fn copy_of(template: &str) -> PathBuf {
    // Beside the programs, so that the next run finds what was compiled.
    let copy = programs().join("guide");
    std::fs::create_dir_all(copy.join("guests")).expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["wit".to_owned(), format!("guests/{template}")] {
        let to = copy.join(&part).parent().expect("a folder").to_owned();
        let copied = Command::new("cp").arg("-r").arg(root.join(&part)).arg(to).status();
        assert!(copied.is_ok_and(|status| status.success()), "{part} is copied");
    }
    copy
}

/// Runs lines of the guide in a copy of a template, and publishes what its middleware changes, doubles and rejects.
fn build_and_try(copy: &Path, lines: &str) {
    let node = Node::single();
    let mut shell = Command::new("bash");
    shell.args(["-ec", lines]).current_dir(copy).env_remove("CARGO_TARGET_DIR");
    shell.env("PATH", format!("{}:{}", programs().display(), std::env::var("PATH").unwrap_or_default()));
    shell.env("ANODE_URL", format!("http://{}", node.http));
    let put = shell.output().expect("bash runs");
    assert!(put.status.success(), "{put:?}");
    eventually("it is in force", IN_FORCE, || {
        publish(&node, "sensors/1", json!({"f": 70.7}));
        (data(&node, "sensors/1") == Some(json!({"c": 21.5}))).then_some(())
    });
    publish(&node, "sensors/1", json!({"f": 212}));
    // JavaScript writes 100 where Rust writes 100.0.
    let alarm = data(&node, "alarms/sensors/1").unwrap_or_default();
    assert_eq!(alarm["c"].as_f64(), Some(100.0), "{alarm}");
    publish(&node, "sensors/1", json!({"f": -1000})).assert_problem(422, "rejected");
}
