//! The commands of `docker`, and of the programs that enter the network namespace of a container.
//!
//! They run in a group of processes of their own, so that a Ctrl-C at the terminal reaches this program alone, which then
//! removes everything in order.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use anode_loadgen::Outcome;

/// Characters of an error of a command that are told.
const ERROR_END: usize = 600;

/// Runs `docker` with these words, and returns what it printed.
pub fn docker<S: AsRef<OsStr>>(words: &[S]) -> Outcome<String> {
    let mut command = command("docker");
    command.args(words);
    done(&mut command, None)
}

/// Runs a program in the network namespace of a process, gives it `input`, and returns what it printed.
pub fn inside(pid: u32, words: &[&str], input: Option<&str>) -> Outcome<String> {
    let mut command = command("nsenter");
    command.args(["--target", &pid.to_string(), "--net", "--"]).args(words);
    done(&mut command, input)
}

/// Runs a program in a network namespace that is there for this program only.
pub fn apart(words: &[&str], input: Option<&str>) -> Outcome<String> {
    let mut command = command("unshare");
    command.args(["--net", "--"]).args(words);
    done(&mut command, input)
}

/// Makes a command that a Ctrl-C at the terminal does not reach.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// Runs a command to its end, and returns what it printed.
pub fn done(command: &mut Command, input: Option<&str>) -> Outcome<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{program}: {error}");
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends before it has read everything says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    Err(format!("{program} {}: {}", words.join(" "), end_of(&output.stderr)).into())
}

/// Returns the last words of an output.
pub fn end_of(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(ERROR_END);
    text.chars().skip(skipped).collect()
}

/// Says why no services can be run here, if they cannot.
pub fn refusal() -> Option<String> {
    let run = |words: &[&str]| command("docker").args(words).output();
    missing(&run(&["version", "--format", "{{.Server.Version}}"]), &run(&["compose", "version", "--short"]))
}

/// Says what is missing, from what `docker version` and `docker compose version` gave.
fn missing(engine: &std::io::Result<Output>, compose: &std::io::Result<Output>) -> Option<String> {
    match engine {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some("docker is not installed (Debian: apt-get install docker.io)".to_owned());
        }
        Err(error) => return Some(format!("docker cannot be run: {error}")),
        Ok(output) if !output.status.success() => {
            return Some(format!("no docker engine answers: {}", end_of(&output.stderr)));
        }
        Ok(_) => {}
    }
    let has_compose = compose.as_ref().is_ok_and(|output| output.status.success());
    (!has_compose)
        .then(|| "docker has no compose: its plugin docker-compose, version 2, is missing".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, stderr: &str) -> std::io::Result<Output> {
        // The upper byte of a status is the exit code.
        Ok(Output { status: ExitStatus::from_raw(code << 8), stdout: Vec::new(), stderr: stderr.into() })
    }

    #[test]
    fn what_is_missing_is_named() {
        let absent = || Err(std::io::Error::from(ErrorKind::NotFound));
        assert_eq!(missing(&ended(0, ""), &ended(0, "")), None);
        let told = |engine, compose| missing(&engine, &compose).unwrap_or_default();
        assert!(told(absent(), absent()).starts_with("docker is not installed"));
        assert!(told(ended(1, "is the daemon running?"), ended(0, "")).contains("is the daemon running?"));
        assert!(told(ended(0, ""), ended(1, "unknown command")).contains("no compose"));
    }

    #[test]
    fn a_failure_says_which_command_and_why() {
        let mut command = command("sh");
        let error = done(command.args(["-c", "cat >&2; exit 3"]), Some("no such thing")).expect_err("code 3");
        assert!(error.to_string().starts_with("sh -c"), "{error}");
        assert!(error.to_string().ends_with("no such thing"), "{error}");
        let output = done(super::command("cat").arg("-"), Some("as it is")).expect("cat");
        assert_eq!(output, "as it is");
    }

    #[test]
    fn only_the_end_of_a_long_error_is_told() {
        let text = format!("{}the end\n", "x".repeat(5_000));
        let told = end_of(text.as_bytes());
        assert!(told.ends_with("the end") && told.len() == ERROR_END);
    }
}
