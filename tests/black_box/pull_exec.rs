//! Pull sources that are programs, good and nasty ones.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::harness::pulls::{MOVED, SOON};
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Node, NodeConfig, eventually};

/// A folder of programs, and a node that may run them.
struct Programs {
    folder: tempfile::TempDir,
}

impl Programs {
    fn new() -> Programs {
        Programs { folder: tempfile::tempdir().expect("a folder") }
    }

    fn add(&self, name: &str, script: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("changed");
        path
    }

    fn node(&self) -> Node {
        let folder = self.folder.path().display().to_string();
        Node::start(
            NodeConfig::named("a").with(&["--allow-exec", &folder]).with_variable("TOOL_KEY", "hunter2"),
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn put(node: &Node, name: &str, more: &str) {
    node.put_pull(name, &format!("kind = \"exec\"\ncommand = [\"{name}\"]\n{more}"));
}

/// Returns the process ids in a file, a line each.
fn pids(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn is_alive(pid: u32) -> bool {
    // A process that has ended and was not waited for has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn what_a_program_prints_is_published() {
    let programs = Programs::new();
    let script = "echo \"{\\\"source\\\":\\\"said\\\",\\\"data\\\":[\\\"$1\\\",\\\"$KEY\\\",\\\"$ANODE_HTTP$TOOL_KEY\\\"]}\"\nsleep 60\n";
    programs.add("tool", script);
    let node = programs.node();
    node.put_pull("tool", "kind = \"exec\"\ncommand = [\"tool\", \"x y\"]\nenv = { KEY = \"env:TOOL_KEY\" }");
    node.wait_data("said", &json!(["x y", "hunter2", ""]));
    assert!(!node.get("/v1/pull").body.contains("hunter2"));
    // One that is done when it ends is run at its interval.
    programs.add("counter", "echo x >> $(dirname $0)/runs\necho $(wc -l < $(dirname $0)/runs)\n");
    put(&node, "counter", "every = \"100ms\"\nrecords = [{ source = \"count\" }]");
    eventually("it is run again and again", SOON, || {
        node.latest("count").filter(|record| record["data"].as_u64() >= Some(5)).map(drop)
    });
    assert_eq!(node.pull("counter")["state"]["error"], json!(null));
}

#[test]
fn programs_that_crash_hang_or_print_nonsense_are_named_and_tried_again() {
    let programs = Programs::new();
    programs.add("crash", "echo '{\"source\":\"crash\",\"data\":1}'\necho why >&2\nexit 3\n");
    programs.add(
        "nonsense",
        "head -c 3000 /dev/urandom\necho\necho '{\"source\":\"after\",\"data\":1}'\nsleep 60\n",
    );
    programs.add("hang", "echo $$ >> $(dirname $0)/hang.pids\ntrap '' TERM\nsleep 1000\n");
    programs.add("text", "echo hello\nsleep 60\n");
    let node = programs.node();
    put(&node, "crash", "");
    put(&node, "nonsense", "max_bytes = 1000");
    put(&node, "hang", "max_silence = \"300ms\"");
    put(&node, "text", "");
    node.wait_pull_error("crash", "exit status: 3");
    node.wait_pull_error("hang", "printed nothing for 300 ms");
    node.wait_pull_error("text", "is an object");
    node.wait_data("after", &json!(1));
    node.wait_pull_error("nonsense", "");
    eventually("the one that hangs is started anew", SOON, || {
        (pids(&programs.file("hang.pids")).len() >= 2).then_some(())
    });
    let hung = pids(&programs.file("hang.pids"));
    assert!(!is_alive(hung[0]), "the first one is gone");
    eventually("what programs complain of is in the log", SOON, || node.log().contains("why").then_some(()));
    eventually("the crash is run again", SOON, || (node.history_of("crash").len() >= 2).then_some(()));
}

#[test]
fn a_program_ends_with_all_that_it_has_started() {
    let programs = Programs::new();
    let script = "trap '' TERM HUP\nsh -c 'trap \"\" TERM; echo $$ > $0.child; sleep 1000' $0 &\necho $$ > $0.parent\nwait\nsleep 1000\n";
    programs.add("family", script);
    let mut node = programs.node();
    let family = || {
        eventually("the family runs", SOON, || {
            let all = [pids(&programs.file("family.parent")), pids(&programs.file("family.child"))].concat();
            (all.len() == 2 && all.iter().all(|pid| is_alive(*pid))).then_some(all)
        })
    };
    put(&node, "family", "");
    let first = family();
    node.remove_pull("family");
    let gone = |all: &[u32]| {
        eventually("nobody is left", SOON, || (!all.iter().any(|pid| is_alive(*pid))).then_some(()));
    };
    gone(&first);
    put(&node, "family", "");
    let second = eventually("another family", SOON, || Some(family()).filter(|all| *all != first));
    node.sigterm();
    gone(&second);
}

#[test]
fn a_program_that_prints_fast_waits_and_holds_up_nobody() {
    let programs = Programs::new();
    programs.add(
        "fast",
        "while :; do printf '{\"source\":\"fast\",\"data\":1}\\n%.0s' 1 2 3 4 5 6 7 8 9; done\n",
    );
    programs.add("endless", "head -c 100000000 /dev/zero | tr '\\0' x\nsleep 60\n");
    // It ends when nobody reads what it prints.
    programs.add("steady", "while date +%s%N; do sleep 0.1; done\n");
    let node = programs.node();
    put(&node, "fast", "max_records_per_s = 500");
    put(&node, "endless", "");
    put(&node, "steady", "records = [{ source = \"steady\" }]");
    eventually("the steady one is published", SOON, || node.latest("steady").map(drop));
    eventually("the fast one is slowed down", SOON, || {
        (node.metric("anode_pull_slowed_total", &[]) > 100.0).then_some(())
    });
    let published = || node.metric("anode_pull_records_total", &[("outcome", "published")]);
    let (before, steady) = (published(), node.history_of("steady").len());
    throughout("all is well", Duration::from_secs(3), || node.rss_bytes() < 400 << 20);
    let rate = (published() - before) / 3.0;
    assert!((100.0..800.0).contains(&rate), "{rate} records a second");
    assert!(node.history_of("steady").len() >= steady + 10);
}

#[test]
fn programs_outside_of_the_folder_are_not_run() {
    let programs = Programs::new();
    programs.add("tool", "echo '{\"source\":\"ran\",\"data\":1}'\n");
    std::os::unix::fs::symlink("/bin/echo", programs.file("link")).expect("a link");
    let node = programs.node();
    let not_allowed = Node::single();
    for (name, program) in [("shell", "/bin/echo"), ("link", "link"), ("up", "../../../bin/echo")] {
        node.put_pull(name, &format!("kind = \"exec\"\ncommand = [\"{program}\", \"x\"]"));
        let told = eventually("nobody can run it", SOON, || {
            let told = node.pull(name);
            told["cannot"]["a"].is_string().then_some(told)
        });
        assert_eq!(told["runner"], json!(null), "{told}");
    }
    put(&not_allowed, "tool", "");
    eventually("the node says why", SOON, || {
        not_allowed.pull("tool")["cannot"]["a"].as_str()?.contains("--allow-exec").then_some(())
    });
    assert_eq!(not_allowed.latest("ran"), None);
}

/// One member runs the program. When it dies, the other one starts the program, and the one that was left behind meets a closed
/// pipe at its next line.
#[test]
fn another_member_starts_the_program_when_the_runner_dies() {
    let programs = Programs::new();
    let line = "echo \"{\\\"source\\\":\\\"who\\\",\\\"data\\\":\\\"$NAME\\\"}\"";
    let script = format!("echo $$ >> $(dirname $0)/$NAME.pids\nwhile :; do {line}; sleep 0.1; done\n");
    programs.add("who", &script);
    let folder = programs.folder.path().display().to_string();
    let mut cluster = Cluster::configured(2, |config| {
        let name = config.name.clone();
        config.with(&["--allow-exec", &folder]).with_variable("TOOL_NAME", &name)
    });
    put(&cluster[0], "who", "env = { NAME = \"env:TOOL_NAME\" }");
    let started = |node: &str| pids(&programs.file(&format!("{node}.pids")));
    let runner = eventually("one member runs it", SOON, || {
        let told = cluster[0].pull("who");
        let runner = told["runner"].as_str()?.to_owned();
        (cluster[0].latest("who")?["data"] == runner.as_str()).then_some(runner)
    });
    let dead = cluster.nodes.iter().position(|node| node.id == runner).expect("a node");
    let other = cluster[1 - dead].id.clone();
    assert!(started(&other).is_empty(), "one member runs it");
    let left = started(&runner);
    cluster[dead].kill9();
    eventually("the other member runs it", MOVED, || {
        (cluster[1 - dead].latest("who")?["data"] == other.as_str()).then_some(())
    });
    eventually("the program that was left behind has ended", SOON, || {
        (!left.iter().any(|pid| is_alive(*pid))).then_some(())
    });
    assert_eq!((left.len(), started(&other).len()), (1, 1), "each member has started it once");
}
