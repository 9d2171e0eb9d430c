//! The recipes of the pages on archives and webhooks: their lines are run as a reader would copy them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::bucket::Bucket;
use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::{command, eventually, ports};

const ARCHIVES: &str = include_str!("../../docs/extend/archives.md");
const WEBHOOKS: &str = include_str!("../../docs/extend/webhooks.md");

/// The text of a section of a page.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let from = page.split(&format!("\n## {title}\n")).nth(1).expect("the section");
    from.split("\n## ").next().expect("its text")
}

/// All blocks of a language in a text.
fn blocks(text: &str, language: &str) -> String {
    let marked = format!("```{language}\n");
    text.split(&marked).skip(1).filter_map(|block| block.split("```").next()).collect()
}

/// Runs lines in a folder with `anode` in the path, and returns what they print. All that they start ends with them.
fn run(lines: &str, folder: &Path) -> String {
    let mut lines = lines.to_owned();
    for port in ["7070", "7071", "7946", "7947"] {
        lines = lines.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", ports::free()));
    }
    lines = lines.replace("/tmp/anode-", &format!("{}/anode-", folder.display()));
    let script = format!("set -e\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{lines}");
    let binary = command::binary().get_program().to_owned();
    let path = Path::new(&binary).parent().expect("a folder").display().to_string();
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(folder)
        .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}\n{script}");
    told.into_owned()
}

#[test]
fn a_nightly_archive_fills_a_new_cluster_and_leads_back_to_a_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let bucket = Bucket::start();
    let nightly = blocks(section(ARCHIVES, "Recipe: a nightly archive on S3"), "sh");
    let moment = blocks(section(ARCHIVES, "Recipe: back to a moment"), "sh");
    let lines = format!("{nightly}echo '---'\n{moment}").replace("http://127.0.0.1:9000", &bucket.endpoint());
    let told = run(&lines, folder.path());
    let (restored, back) = told.split_once("---\n").expect("both parts");
    let line = |part: &str| part.lines().last().unwrap_or_default().to_owned();
    assert!(line(restored).contains("21.5"), "{told}");
    assert!(line(back).contains("21.5"), "{told}");
    assert!(bucket.names().iter().any(|name| name.starts_with("plant-7/nightly/")), "{:?}", bucket.names());
}

#[test]
fn alarms_come_in_a_chat() {
    let folder = tempfile::tempdir().expect("a folder");
    let chat = Receiver::start(|_| Reaction::status(200));
    let text = section(WEBHOOKS, "Recipe: alarms in a chat");
    let relay = format!("127.0.0.1:{}", ports::free());
    let program = blocks(text, "python").replace("8088", relay.split(':').nth(1).expect("a port"));
    std::fs::write(folder.path().join("relay.py"), program).expect("written");
    let lines = blocks(text, "sh").replace("127.0.0.1:8088", &relay).replace("127.0.0.1:8089", &chat.addr);
    let taken = "until anode --url http://127.0.0.1:7070 --json hook list | grep -q '\"records\":2'; do sleep 0.2; done";
    run(&format!("{lines}\n{taken}\n"), folder.path());
    let told = eventually("both lines", Duration::from_secs(10), || {
        let requests = chat.requests();
        let bodies: Vec<String> =
            requests.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect();
        (bodies.len() >= 2).then_some(bodies)
    });
    assert_eq!(told, [r#"{"text": "alarms/7: hot"}"#, r#"{"text": "alarms/7: is over"}"#]);
    assert!(chat.requests().iter().all(|request| request.path == "/hooks/alarms"));
}
