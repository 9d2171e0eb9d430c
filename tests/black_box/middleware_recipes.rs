//! The recipes of the guide to middlewares, run as they stand there.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::command::{self, binary};
use crate::harness::{Node, NodeConfig, eventually};

const GUIDE: &str = include_str!("../../docs/extend/middlewares.md");

/// One recipe: its title, its command, and its lines.
struct Recipe<'a> {
    title: &'a str,
    command: &'a str,
    lines: Vec<Line<'a>>,
}

/// A record, and what is to become of it.
struct Line<'a> {
    source: &'a str,
    data: Value,
    expected: &'a str,
}

fn recipes() -> Vec<Recipe<'static>> {
    let section = GUIDE.split("\n## Recipes\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let section = section.expect("the section");
    section.split("\n### ").skip(1).map(recipe).collect()
}

fn recipe(text: &'static str) -> Recipe<'static> {
    let (title, rest) = text.split_once('\n').expect("a title");
    let mut blocks = rest.split("```").skip(1).step_by(2);
    let command = blocks.next().and_then(|block| block.strip_prefix("sh\n")).expect("a command");
    let lines = blocks.next().expect("lines").trim().lines().map(|line| {
        let (sent, expected) = line.split_once("=>").expect("what becomes of it");
        let (source, data) = sent.split_once(' ').expect("a source and data");
        Line { source, data: serde_json::from_str(data).expect("JSON"), expected: expected.trim() }
    });
    Recipe { title, command, lines: lines.collect() }
}

#[test]
fn every_recipe_does_what_it_says() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let all = recipes();
    assert!(all.len() >= 8, "{} recipes", all.len());
    for wanted in ["Deadband", "Rounding", "Renaming", "Unit conversion", "JSON Schema"] {
        assert!(all.iter().any(|recipe| recipe.title.contains(wanted)), "there is no recipe for {wanted}");
    }
    let program = binary().get_program().to_owned();
    let folder = std::path::Path::new(&program).parent().expect("a folder").display().to_string();
    for (number, recipe) in all.iter().enumerate() {
        let mut shell = std::process::Command::new("bash");
        shell.arg("-ec").arg(recipe.command).stdin(Stdio::null());
        shell.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap_or_default()));
        shell.env("ANODE_URL", format!("http://{}", node.http));
        let put = command::run(&mut shell, "");
        assert_eq!(put.code, Some(0), "{}: {put:?}", recipe.title);
        eventually("it is in force", Duration::from_secs(5), || {
            (node.log().matches("middleware is in force").count() > number).then_some(())
        });
        for Line { source, data, expected } in &recipe.lines {
            let answer = node.post(json!({"source": source, "data": data}));
            let told = format!("{}: {source} {data}: {answer:?}", recipe.title);
            match *expected {
                "dropped" => assert_eq!(answer.json()["outcome"], "dropped", "{told}"),
                expected => match expected.strip_prefix("rejected: ") {
                    Some(reason) => {
                        answer.assert_problem(422, "rejected");
                        assert!(answer.body.contains(reason), "{told}");
                    }
                    None => {
                        assert_eq!(answer.json()["outcome"], "applied", "{told}");
                        let held = node.latest(source).map(|record| record["data"].clone());
                        let expected = serde_json::from_str::<Value>(expected).expect("JSON");
                        assert_eq!(held, Some(expected), "{told}");
                    }
                },
            }
        }
    }
}
