//! What a node tells its operator when its surroundings fail it.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::command::{Background, binary};
use crate::harness::file_size::set_writable;
use crate::harness::wait::{PATIENCE, eventually, pause, throughout};
use crate::harness::{Deadline, Http, Node, NodeConfig, ports};

/// Returns the lines of a log that contain all these words.
fn lines(log: &str, words: &[&str]) -> Vec<String> {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

/// A node whose join targets did not answer once ran alone for ever, and its log did not say so.
#[test]
fn join_targets_that_do_not_answer_are_named() {
    let stranger = Node::single();
    let nobody = format!("127.0.0.1:{}", ports::free());
    let join = vec![nobody.clone(), stranger.gossip.clone(), "nobody.invalid:7946".into()];
    let node = Node::spawn(NodeConfig { join, ..NodeConfig::named("b") });
    let alone = eventually("the node says that it runs alone", PATIENCE * 2, || {
        lines(&node.log(), &["WARN", "runs alone"]).pop()
    });
    for words in [
        format!("{nobody} ({nobody}: refused)"),
        format!("{0} ({0}: a node of another cluster", stranger.gossip),
        "nobody.invalid:7946 (no address: ".into(),
    ] {
        assert!(alone.contains(&words), "{words:?} is missing: {alone}");
    }
    // The node has other members later on, and one of its targets still does not answer.
    let other = Node::start(NodeConfig {
        join: vec![nobody.clone(), node.gossip.clone()],
        ..NodeConfig::joining("c", &node)
    });
    let told = eventually("the other node names the target", PATIENCE, || {
        lines(&other.log(), &["WARN", "join targets do not answer", &nobody]).pop()
    });
    assert!(!told.contains("runs alone") && !told.contains(&node.gossip), "{told}");
    assert_eq!(lines(&node.log(), &["do not answer"]).len(), 1, "one line a minute: {}", node.log());
}

#[test]
fn a_node_whose_targets_answer_warns_of_nothing() {
    let first = Node::single();
    let second = Node::start(NodeConfig::joining("b", &first));
    let join = vec![first.gossip.clone(), second.gossip.clone()];
    let third = Node::start(NodeConfig { join, ..NodeConfig::joining("c", &first) });
    third.wait_alive(3);
    throughout("no warning", Duration::from_secs(2), || !third.log().contains("do not answer"));
}

/// Twenty lines a second were logged. And the first event loop took two more files when the node was ready, so a node whose
/// clients were faster ended.
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
    let deadline = Deadline::after(Duration::from_secs(2));
    while deadline.left().is_some() {
        let said = lines(&process.stderr(), &["WARN"]).len() + lines(&process.stderr(), &["ERROR"]).len();
        assert!(said <= 1, "{said} lines after {:?}: {}", deadline.elapsed(), process.stderr());
        pause();
    }
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

/// A node whose log was a file on the disk that ran full lost the thread of its store, for good: a line that could not be
/// written was reported on the same file, and the failure of that ended whichever thread had logged.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let log = dir.path().join("log");
    let mut command = Command::new("sh");
    let script = "trap '' XFSZ && exec \"$0\" \"$@\" 2>\"$LOG\"";
    command.args(["-c", script]).arg(binary().get_program()).env("LOG", &log);
    command.args(["serve", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data-dir"]);
    command.arg(dir.path().join("data"));
    let mut process = Background::start(&mut command);
    let ready = process.line(PATIENCE).unwrap_or_default();
    let http = ready.split(' ').find_map(|word| word.strip_prefix("http=")).unwrap_or_default().to_owned();
    let store = || Http::post(&http, "/v1/publish?ack=stored", "{\"source\":\"s\",\"data\":1}");
    eventually("a record is stored", PATIENCE, || (store().status == 200).then_some(()));
    set_writable(process.pid(), false);
    store().assert_problem(503, "store_unavailable");
    // Every attempt to write fails, and is a line of the log that cannot be written, either.
    throughout("the store is tried again", Duration::from_secs(1), || {
        let readiness = Http::get(&http, "/readyz");
        let says = |words: &str| readiness.body.contains(words);
        readiness.status == 503 && says("the store fails") && says("I/O error") && !says("died")
    });
    set_writable(process.pid(), true);
    eventually("a record is stored again", PATIENCE, || (store().status == 200).then_some(()));
    let told = std::fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(lines(&told, &["INFO", "the store commits again"]).len(), 1, "{told}");
}
