//! The recipes of the guide to pull sources do what it says.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::harness::command::{binary, run};
use crate::harness::origin::{Origin, answer_json};
use crate::harness::{Node, NodeConfig};

const GUIDE: &str = include_str!("../../docs/extend/pull.md");

/// The text of a block of the guide that begins with this line.
fn block(head: &str) -> &'static str {
    let after = GUIDE.split(&format!("```{head}\n")).nth(1).expect("the block");
    after.split("```").next().expect("its text")
}

fn recipe(name: &str) -> &'static str {
    block(&format!("toml recipe={name}"))
}

/// Runs the lines of a recipe as a reader would copy them, beside a file with its definition. Returns what they print.
fn run_lines(node: &Node, name: &str, definition: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(format!("{name}.toml")), definition).expect("written");
    let program = binary().get_program().to_owned();
    let programs = std::path::Path::new(&program).parent().expect("a folder").display().to_string();
    let mut shell = std::process::Command::new("timeout");
    shell.args(["60", "bash", "-ec", block(&format!("sh recipe={name}"))]).current_dir(folder.path());
    shell.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
    shell.env("ANODE_URL", format!("http://{}", node.http));
    let output = run(&mut shell, "");
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

#[test]
fn the_weather_becomes_a_live_table() {
    let answer = block("json");
    let origin = Origin::start(move |_, stream| answer_json(stream, answer));
    let node = Node::single();
    let mut table = node.subscriber("source=weather/*");
    let definition = recipe("weather").replace("http://127.0.0.1:8080", &origin.url(""));
    let printed = run_lines(&node, "weather", &definition);
    for source in ["weather/oslo", "weather/rome"] {
        assert_eq!(printed.matches(source).count(), 2, "tried out, and subscribed: {printed}");
    }
    let oslo = node.wait_data("weather/oslo", &json!({"celsius": -1.5}));
    assert_eq!(oslo["ts"], 1_763_800_000_000_000u64);
    node.wait_data("weather/rome", &json!({"celsius": 14.0}));
    let mut rows = std::collections::BTreeSet::new();
    while rows.len() < 2 {
        if let Some(source) = table.json()["source"].as_str() {
            rows.insert(source.to_owned());
        }
    }
    assert_eq!(rows.into_iter().collect::<Vec<String>>(), ["weather/oslo", "weather/rome"]);
}

#[test]
fn a_forecast_is_cut_into_hours() {
    let forecast =
        r#"{"place":"oslo","hourly":{"time":["00:00","01:00","02:00"],"temperature":[1.5,0.5,-0.5]}}"#;
    let origin = Origin::start(move |_, stream| answer_json(stream, forecast));
    let node = Node::single();
    node.put_pull("forecast", &recipe("forecast").replace("http://127.0.0.1:8080", &origin.url("")));
    node.wait_data("forecast/oslo/0", &json!({"at": "00:00", "celsius": 1.5}));
    node.wait_data("forecast/oslo/2", &json!({"at": "02:00", "celsius": -0.5}));
    let refused = node.try_put_pull("bad", "kind = \"http\"\nurl = \"http://h/\"\ncel = \"data.\"");
    refused.assert_problem(400, "bad_request");
    assert!(
        refused.json()["detail"].as_str().is_some_and(|why| why.starts_with("cel: ")),
        "{}",
        refused.body
    );
}

#[test]
fn topics_are_bridged() {
    let broker = super::pull_mqtt::Broker::start("allow_anonymous true");
    let node = Node::single();
    broker.publish("plant/6/temp", b"20.5", 1, true);
    let printed =
        run_lines(&node, "bridge", &recipe("bridge").replace(":1883", &format!(":{}", broker.port())));
    assert!(printed.contains("\"plant/6/temp\"") && printed.contains("20.5"), "{printed}");
    super::pull_mqtt::wait_connected(&node, "bridge");
    broker.publish("plant/7/temp", b"21.5", 1, false);
    node.wait_data("plant/7/temp", &json!(21.5));
}

#[test]
fn the_last_line_of_a_log_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.log");
    let mut file = std::fs::File::create(&path).expect("a file");
    let node = Node::single();
    node.put_pull("log", &recipe("log").replace("/var/log/app.log", &path.display().to_string()));
    file.write_all(b"one\n42\n").expect("written");
    node.wait_data("log/app.log", &json!("42"));
}

#[test]
fn a_program_tells_the_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = GUIDE.split("```sh\n").find(|text| text.starts_with("#!/bin/sh")).expect("a script");
    let path = folder.path().join("load.sh");
    std::fs::write(&path, script.split("```").next().expect("its text")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("changed");
    let allowed = folder.path().display().to_string();
    let node = Node::start(NodeConfig::named("a").with(&["--allow-exec", &allowed]));
    node.put_pull("load", recipe("load"));
    crate::harness::eventually("the load is a number", crate::harness::pulls::SOON, || {
        node.latest("machine/load").filter(|record| record["data"].is_number())
    });
}
