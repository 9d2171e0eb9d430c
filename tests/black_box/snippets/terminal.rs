//! The lines for a terminal in the README and the documentation of the command line do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{block_of, root};
use crate::harness::command::{binary, run};
use crate::harness::{Node, json as parse};

/// Runs lines of a page in a folder, as a reader would copy them: with `anode` in the path, and the node at this address in
/// `ANODE_URL`. Returns what they print.
pub fn run_in(folder: &Path, lines: &str, address: &str) -> String {
    let program = PathBuf::from(binary().get_program());
    let path = program.parent().expect("a folder").display().to_string();
    let mut command = Command::new("bash");
    command.args(["-ec", lines]).current_dir(folder).env("ANODE_URL", format!("http://{address}"));
    command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap_or_default()));
    let output = run(&mut command, "");
    assert_eq!(output.code, Some(0), "{lines}\n{output:?}");
    output.stdout
}

/// Runs lines of a page in an empty folder. Returns the names of the files that they leave there, and what they print.
fn run_lines(lines: &str, node: &Node) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().display().to_string();
    let lines = lines
        .replace("target/release/anode", "anode")
        .replace("/etc/bash_completion.d", &here)
        .replace("/usr/share/man/man1", &here);
    let told = run_in(folder.path(), &lines, &node.http);
    let entries = std::fs::read_dir(folder.path()).expect("the folder").flatten();
    let files: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    format!("{}\n{told}", files.join(" "))
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

/// Lines that only name what is there: the script with all tests, and the package that npm makes of the client.
#[test]
fn files_in_the_lines_have_these_names() {
    let first = block_of("README.md", "cargo run --release -- demo");
    let script = first.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a second line");
    assert!(root().join(script).is_file(), "there is no {script}");
    let text = std::fs::read_to_string(root().join("clients/typescript/package.json")).expect("the package");
    let package = parse(&text);
    let member = |name: &str| package[name].as_str().expect(name).to_owned();
    let lines = block_of("docs/clients/typescript.md", "(cd clients/typescript");
    let file = format!("clients/typescript/{}-{}.tgz ws", member("name"), member("version"));
    assert!(lines.contains(&file), "the lines have no {file}: {lines}");
}
