//! What a node tells its operator when its surroundings fail it.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::Http;
use crate::harness::command::{Background, binary};
use crate::harness::wait::{PATIENCE, eventually, throughout};

/// Returns the lines of a log that contain all these words.
fn lines(log: &str, words: &[&str]) -> Vec<String> {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

/// Twenty lines a second were logged.
#[test]
fn a_node_without_file_descriptors_says_so_once_a_minute() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(binary().get_program());
    command.args(["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--store", "memory"]);
    command.args(["--workers", "2", "--data-dir"]).arg(dir.path());
    let mut process = Background::start(&mut command);
    let ready = process.line(PATIENCE).unwrap_or_else(|| panic!("not ready: {}", process.stderr()));
    let http = ready.split(' ').find_map(|word| word.strip_prefix("http=")).unwrap_or_default().to_owned();
    let connections: Vec<_> = (0..80).map(|_| TcpStream::connect(&http)).collect();
    assert!(connections.iter().all(Result::is_ok), "{connections:?}");
    let warnings = || lines(&process.stderr(), &["cannot be accepted"]);
    eventually("it says that connections wait", PATIENCE, || warnings().pop());
    throughout("there is one line", Duration::from_millis(800), || warnings().len() == 1);
    drop(connections);
    let failures = eventually("it serves again", PATIENCE, || {
        let answer = Http::attempt(&http, "GET", "/metrics", &[], b"").ok()?;
        crate::harness::http::metric(&answer.body, "anode_accept_failures_total", &[])
    });
    assert!((5.0..100.0).contains(&failures), "{failures}");
    assert_eq!(warnings().len(), 1);
}
