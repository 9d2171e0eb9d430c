//! Running programs of the system.

use std::process::{Command, Stdio};

use anode_loadgen::Outcome;

/// Runs a command, whose words are separated by spaces, and returns what it printed.
pub fn run(line: &str) -> Outcome<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    run_words(&words)
}

/// Runs a command that is given as words, and returns what it printed.
pub fn run_words(words: &[&str]) -> Outcome<String> {
    let (program, arguments) = words.split_first().ok_or("an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", words.join(" "), error.trim()).into())
}
