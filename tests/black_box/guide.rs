//! The guide to a closed cluster does what it says: its lines are run as a reader would copy them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{command, ports};
use crate::snippets::block_of;

const GUIDE: &str = include_str!("../../docs/security.md");

/// The lines of all blocks of shell in a section of the guide.
fn lines_of(section: &str) -> String {
    let from = GUIDE.split(&format!("\n## {section}\n")).nth(1).expect("the section");
    let section = from.split("\n## ").next().expect("its text");
    section.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect()
}

#[test]
fn a_closed_cluster_of_three_comes_up_by_copying_its_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(root.join("deploy"), folder.path().join("deploy")).expect("the scripts");
    let mut lines = lines_of("A closed cluster of three");
    // Other tests, and other programs, may use the ports of the guide.
    for port in ["7070", "7071", "7072", "7946", "7947", "7948"] {
        lines = lines.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", ports::free()));
    }
    lines = lines.replace("/tmp/anode-", &format!("{}/anode-", folder.path().display()));
    let wrong = lines.lines().find(|line| line.starts_with("anode get")).expect("a read");
    let wrong = wrong.split(" --token-file").next().expect("without a token");
    let script =
        format!("set -e\ntrap 'kill $(jobs -p)' EXIT\n{lines}\n{wrong} && exit 9 || echo \"refused: $?\"\n");
    let binary = command::binary().get_program().to_owned();
    let path = Path::new(&binary).parent().expect("a folder").display().to_string();
    let output = Command::new("bash")
        .arg("-c")
        .arg(script)
        .current_dir(folder.path())
        .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}");
    assert_eq!(told.matches("\"data\":21.5}").count(), 2, "read with anode and with curl: {told}\n{errors}");
    assert_eq!(told.matches(" alive ").count(), 6, "three members, twice: {told}");
    // A node that has just been started may not have told its keys.
    assert!(told.contains(" require"), "{told}");
    assert!(told.ends_with("refused: 1\n") && errors.contains("unauthorized"), "{told}\n{errors}");
}

/// The words behind `export` in some lines, in the order of the alphabet.
fn settings(lines: &str) -> Vec<&str> {
    let exports = lines.lines().filter_map(|line| line.strip_prefix("export "));
    let mut found: Vec<&str> = exports.flat_map(str::split_whitespace).collect();
    found.sort_unstable();
    found
}

#[test]
fn the_readme_closes_a_node_by_the_settings_of_the_guide() {
    let of_the_readme = block_of("README.md", "export ANODE_CLUSTER_KEY");
    let of_the_guide = lines_of("A closed cluster of three");
    let settings_of_the_readme = settings(&of_the_readme);
    assert_eq!(settings_of_the_readme, settings(&of_the_guide));
    assert_eq!(settings_of_the_readme.len(), of_the_readme.lines().count(), "one on each line");
}
