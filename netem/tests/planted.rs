//! The test of the tests: a node in which a bug was planted must be found out, and the promise that it breaks must be
//! named; and the same node without the bug must not be accused.
//!
//! The program `anode-planted` is built for this, unless the variable `NETEM_PLANTED` names one that is. The runs use the
//! loopback alone and take about two minutes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anode_netem::checker::Report;
use anode_netem::kill_store::{self, KillDisk, KillPlan, KillResult};
use anode_netem::trial::{self, Trial};

/// Name of the variable that chooses a planted bug.
const VARIABLE: &str = "ANODE_PLANTED_BUG";

/// Returns the path of the program, which is built once if it was not before.
fn planted() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(built) = std::env::var_os("NETEM_PLANTED") {
            return built.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        build.args(["build", "--package", "anode", "--bin", "anode-planted", "--features", "planted-bugs"]);
        // The test program lies in `deps` of the directory in which its profile builds.
        let own = std::env::current_exe().expect("a path");
        let dir = own.ancestors().nth(2).expect("a directory").to_owned();
        if dir.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo");
        assert!(status.success(), "anode-planted could not be built");
        dir.join("anode-planted")
    })
}

fn variables(bug: Option<&str>) -> Vec<(String, String)> {
    bug.map(|bug| (VARIABLE.to_owned(), bug.to_owned())).into_iter().collect()
}

fn try_out(bug: Option<&str>) -> Report {
    let dir = tempfile::tempdir().expect("a directory");
    let report = trial::run(&Trial {
        name: bug.unwrap_or("no bug").to_owned(),
        binary: planted().to_owned(),
        dir: dir.path().to_owned(),
        variables: variables(bug),
        rate: 900.0,
        seed: 1,
        command: trial::command(planted(), bug),
    });
    let report = report.expect("a run");
    println!("{}", report.text());
    report
}

fn kill(bug: Option<&str>, times: u32) -> KillResult {
    let dir = tempfile::tempdir().expect("a directory");
    let result = kill_store::run(KillPlan {
        binary: planted().to_owned(),
        dir: dir.path().to_owned(),
        times,
        seed: 1,
        disk: KillDisk::Plain,
        variables: variables(bug),
        command: "cargo test -p anode-netem --test planted".to_owned(),
    });
    let result = result.expect("a run");
    println!("{}\n{}", result.line(), result.report.text());
    result
}

/// Asserts that one of these promises is broken, with a witness.
#[track_caller]
fn names(report: &Report, promises: &[&str]) {
    let broken = report.broken();
    assert!(broken.iter().any(|name| promises.contains(name)), "{promises:?}: {}", report.text());
    let found =
        report.promises.iter().find(|found| promises.contains(&found.promise) && found.findings.broken > 0);
    let witness = found.and_then(|found| found.findings.witnesses.first()).expect("a witness");
    assert!(!witness.source.is_empty() && witness.ts > 0 && !witness.node.is_empty(), "{witness:?}");
}

/// The runs come after each other, because each needs the machine for itself.
#[test]
fn planted_bugs_are_found_and_nothing_else() {
    let honest = try_out(None);
    assert!(honest.is_kept, "{}", honest.text());
    let tried: Vec<&str> = honest
        .promises
        .iter()
        .filter(|found| found.findings.checked > 0)
        .map(|found| found.promise)
        .collect();
    for promise in
        ["stored-kept", "accepted-kept", "replicated-true", "all-complete", "nothing-returns", "converges"]
    {
        assert!(tried.contains(&promise), "{promise} was not tried: {}", honest.text());
    }
    names(&try_out(Some("loses-records")), &["all-complete"]);
    names(&try_out(Some("ignores-tombstones")), &["nothing-returns"]);
    names(&try_out(Some("drops-shard")), &["stored-kept", "accepted-kept"]);
    let honest = kill(None, 2);
    assert!(honest.missing == 0 && honest.report.is_kept && honest.acknowledged > 0, "{}", honest.line());
    let lying = kill(Some("stored-before-fsync"), 5);
    assert!(lying.missing > 0, "{}", lying.line());
    names(&lying.report, &["stored-kept"]);
}
