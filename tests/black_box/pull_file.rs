//! Pull sources that follow a file while it grows, is rotated, truncated and replaced, and the node dies.

use std::fs::{File, OpenOptions, rename, write};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::harness::pulls::SOON;
use crate::harness::wait::{Deadline, pause, throughout};
use crate::harness::{Cluster, Node, NodeConfig, eventually};

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file");
    file.write_all(text.as_bytes()).expect("written");
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn definition(path: &Path) -> String {
    let rule = "records = [{ source = \"log\", pointer = \"/n\" }]";
    format!("kind = \"file\"\nnode = \"a\"\nevery = \"20ms\"\npath = \"{}\"\n{rule}\n", path.display())
}

/// Waits until the history of the source is `0..end`, each number once and in order.
fn wait_all(node: &Node, end: u32) {
    let expected: Vec<_> = (0..end).map(|n| json!(n)).collect();
    let deadline = Deadline::after(SOON);
    let mut seen = node.history_of("log");
    while seen.len() < expected.len() && deadline.left().is_some() {
        pause();
        seen = node.history_of("log");
    }
    assert_eq!(seen, expected, "within {SOON:?}: {}", node.pull("log"));
}

fn node() -> Node {
    Node::start(NodeConfig::named("a").with(&["--history", "1000"]))
}

#[test]
fn a_file_is_followed_through_rotation_by_rename_and_by_truncation() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.log");
    write(&path, lines(0..3)).expect("written");
    let node = node();
    node.put_pull("log", &definition(&path));
    wait_all(&node, 3);
    append(&path, "{\"n\":3");
    throughout("half a line is no line", Duration::from_millis(300), || node.history_of("log").len() == 3);
    append(&path, "}\n");
    wait_all(&node, 4);
    // Renamed, and written to for a moment more, the last line without an end.
    rename(&path, folder.path().join("app.log.1")).expect("renamed");
    append(&folder.path().join("app.log.1"), "{\"n\":4}\n{\"n\":5}");
    append(&path, &lines(6..8));
    wait_all(&node, 8);
    // Truncated in place, and written anew: shorter first, then beyond what was read.
    write(&path, lines(8..9)).expect("written");
    wait_all(&node, 9);
    File::create(&path).expect("truncated");
    append(&path, &lines(9..30));
    wait_all(&node, 30);
    assert_eq!(node.pull("log")["state"]["error"], json!(null));
}

#[test]
fn a_restart_neither_loses_nor_repeats_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.log");
    write(&path, "").expect("written");
    let mut node = node();
    node.put_pull("log", &definition(&path));
    let mut next = 0;
    for round in 0..4 {
        append(&path, &lines(next..next + 20));
        next += 20;
        if round % 2 == 0 {
            wait_all(&node, next);
            node.sigterm();
        } else {
            // In the middle of it, wherever that is.
            eventually("some lines are there", SOON, || {
                (node.history_of("log").len() as u32 > next - 20).then_some(())
            });
            node.kill9();
        }
        append(&path, &lines(next..next + 5));
        next += 5;
        if round == 1 {
            rename(&path, folder.path().join("app.log.1")).expect("renamed");
            append(&path, &lines(next..next + 5));
            next += 5;
        }
        node.restart();
        wait_all(&node, next);
    }
}

#[test]
fn text_is_followed_on_the_named_node_alone_and_may_begin_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("text.log");
    write(&path, "old\n").expect("written");
    let cluster = Cluster::start(2);
    let definition = format!(
        "kind = \"file\"\nnode = \"b\"\nfrom = \"end\"\nformat = \"text\"\nmax_bytes = 100\npath = \"{}\"\n\
         records = [{{ source = \"files/{{file}}\" }}]",
        path.display()
    );
    cluster[0].put_pull("text", &definition);
    eventually("b follows it", SOON, || (cluster[0].pull("text")["runner"] == "b").then_some(()));
    eventually("b has found the end", SOON, || {
        cluster[0].pull("text")["state"]["position"].as_object().map(drop)
    });
    append(&path, &format!("7\n\n{}\nlast\r\n", "x".repeat(200)));
    cluster[0].wait_data("files/text.log", &json!("last"));
    assert_eq!(cluster[1].history_of("files/text.log"), [json!("7"), json!("last")]);
    cluster[0].wait_pull_error("text", "more than 100 bytes");
    let told = cluster[0].pull("text");
    assert_eq!(told["cannot"]["a"], "the file is on node b", "{told}");
    // A file that is not there is waited for.
    let later = folder.path().join("later.log");
    cluster[0].put_pull("log", &format!("{}always = true", self::definition(&later)));
    cluster[0].wait_pull_error("log", "No such file");
    append(&later, &lines(0..1));
    cluster[1].wait_data("log", &json!(0));
}
