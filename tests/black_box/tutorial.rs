//! The tutorial does what it says: its lines are run as a reader would copy them, and print what stands below them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{command, ports};

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
/// The script prints this between the output of two blocks.
const END: &str = "\u{1}\n";

/// The blocks of shell of the page, each with the output that stands below it.
fn steps() -> Vec<(&'static str, Option<&'static str>)> {
    let blocks = TUTORIAL.split("```sh\n").skip(1);
    let step = |text: &'static str| {
        let (lines, rest) = text.split_once("```\n").expect("the end of a block");
        let output = rest.strip_prefix("```text\n").and_then(|rest| rest.split_once("```"));
        (lines, output.map(|(output, _)| output))
    };
    blocks.map(step).collect()
}

/// Returns whether a text is as a pattern says, in which `…` stands for anything on one line.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    for part in parts {
        // The last part of the pattern ends where the text does.
        let found =
            if part.is_empty() { Some(rest.len()) } else { rest.find(part).map(|at| at + part.len()) };
        let Some(end) = found else { return false };
        rest = &rest[end..];
    }
    rest.is_empty()
}

/// Returns whether the output is what the page shows. A line with nothing but `…` stands for any lines.
fn is_output(told: &str, shown: &str) -> bool {
    let (told, shown): (Vec<&str>, Vec<&str>) = (told.lines().collect(), shown.lines().collect());
    let (told, shown) = match shown.split_first() {
        Some((&"…", rest)) if told.len() >= rest.len() => (&told[told.len() - rest.len()..], rest),
        _ => (&told[..], &shown[..]),
    };
    told.len() == shown.len() && told.iter().zip(shown).all(|(told, shown)| is_like(told, shown))
}

#[test]
fn every_line_of_the_tutorial_prints_what_stands_below_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let steps = steps();
    let mut script: String = steps.iter().map(|(lines, _)| format!("{lines}printf '\\1\\n'\n")).collect();
    // Other tests, and other programs, may use the ports of the page.
    for port in ["7070", "7071", "7072", "7946", "7947", "7948"] {
        script = script.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", ports::free()));
    }
    let ports: Vec<String> = script
        .match_indices("--http 127.0.0.1:")
        .map(|(at, start)| script[at + start.len()..].chars().take_while(char::is_ascii_digit).collect())
        .collect();
    script = script.replace("for port in 7071 7072;", &format!("for port in {} {};", ports[1], ports[2]));
    script = script.replace("/tmp/anode-", &format!("{}/anode-", folder.path().display()));
    // Job control gives the jobs the numbers that the page uses.
    let script = format!("set -e -m\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{script}");
    let binary = command::binary().get_program().to_owned();
    let path = Path::new(&binary).parent().expect("a folder").display().to_string();
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(folder.path())
        .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}\n{script}");
    let outputs: Vec<&str> = told.split_terminator(END).collect();
    assert_eq!(outputs.len(), steps.len(), "{told}\n{errors}");
    for ((lines, shown), told) in steps.iter().zip(outputs) {
        assert!(
            shown.is_none_or(|shown| is_output(told, shown)),
            "{lines}prints\n{told}\ninstead of\n{shown:?}\n{errors}"
        );
    }
}

#[test]
fn output_is_compared_with_what_the_page_shows() {
    assert!(is_output("{\"ts\":17}\n", "{\"ts\":…}\n") && is_output("x\ny\n{1}\n", "…\n{…}\n"));
    assert!(!is_output("{\"ts\":17}\nmore\n", "{\"ts\":…}\n") && !is_output("", "{…}\n"));
    assert!(!is_output("{\"ts\":17,\"error\":1}", "{\"ts\":…,\"ok\"}\n") && is_output("3\n", "3\n"));
}
