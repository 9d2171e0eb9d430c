//! The three figures of the README.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anode_loadgen::{Outcome, fill, idle, latency};

use crate::node::Node;

/// What to measure with.
pub struct Plan {
    /// The binary.
    pub anode: PathBuf,
    /// Runs of each timed figure.
    pub runs: usize,
    /// Idle subscribers.
    pub connections: usize,
    /// Stored records.
    pub stored: u64,
}

/// How long a node may take for anything before the run is given up.
const DEADLINE: Duration = Duration::from_secs(60);

/// Measures and prints all of them.
pub fn run(plan: &Plan) -> Outcome<()> {
    print_machine(&plan.anode)?;
    let folder = Folder::new()?;
    idle_subscribers(plan, &folder.0.join("idle"))?;
    for run in 1..=plan.runs {
        three_nodes(plan, &folder.0.join(format!("latency-{run}")), run)?;
    }
    start_with_records(plan, &folder.0.join("stored"))
}

fn idle_subscribers(plan: &Plan, data_dir: &Path) -> Outcome<()> {
    let node = Node::start(&plan.anode, data_dir, &["--store", "memory"])?;
    node.wait_ready(DEADLINE)?;
    let before = idle::resident_bytes(node.pid())?;
    let idle = idle::Idle::open(&node.http, plan.connections)?;
    let after = idle::resident_bytes(node.pid())?;
    let each = after.saturating_sub(before) / idle.len().max(1) as u64;
    println!("idle subscribers: {}: {each} resident bytes each ({before} before, {after} after)", idle.len());
    Ok(())
}

fn three_nodes(plan: &Plan, data_dir: &Path, run: usize) -> Outcome<()> {
    let first = Node::start(&plan.anode, &data_dir.join("1"), &[])?;
    let join = ["--join", &first.gossip];
    let nodes = [
        Node::start(&plan.anode, &data_dir.join("2"), &join)?,
        Node::start(&plan.anode, &data_dir.join("3"), &join)?,
    ];
    for node in nodes.iter().chain([&first]) {
        node.wait_members(3, DEADLINE)?;
        node.wait_ready(DEADLINE)?;
    }
    let latency = latency::Plan {
        publish: first.http.clone(),
        subscribe: nodes.iter().map(|node| node.http.clone()).collect(),
        rate_per_s: 1_000,
        seconds: 15,
        warmup: 2_000,
        sources: 100,
        padding_bytes: 100,
    };
    if run == 1 {
        println!("three nodes on loopback, embedded store, {latency:?}");
    }
    for seen in latency::run(&latency)? {
        let at = |q: f64| seen.latency_ns.value_at_quantile(q) as f64 / 1e6;
        println!(
            "run {run}, published at {}, received at {}: p50 {:.3} ms, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3}; {} missing",
            first.http,
            seen.http,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
            seen.missing
        );
        if seen.missing > 0 {
            return Err("records are missing".into());
        }
    }
    Ok(())
}

fn start_with_records(plan: &Plan, data_dir: &Path) -> Outcome<()> {
    let node = Node::start(&plan.anode, data_dir, &[])?;
    node.wait_ready(DEADLINE)?;
    fill::run(&node.http, "fill", plan.stored, 1_000, 100)?;
    node.kill()?;
    for run in 1..=plan.runs {
        let begun = std::time::Instant::now();
        let node = Node::start(&plan.anode, data_dir, &[])?;
        node.wait_ready(DEADLINE)?;
        println!(
            "start {run} after kill -9 with {} stored records: ready line after {:.2} s, readyz 200 after {:.2} s",
            plan.stored,
            node.start.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        );
        node.kill()?;
    }
    Ok(())
}

fn print_machine(anode: &Path) -> Outcome<()> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "machine: {cores} cores,{}, Linux {}",
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim()
    );
    let version = Command::new(anode).arg("--version").output()?;
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    println!("version: {}, commit {commit}", String::from_utf8_lossy(&version.stdout).trim());
    Ok(())
}

/// A folder under `target/`, gone with the run.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Folder> {
        let path = std::env::current_dir()?.join(format!("target/bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leaving data behind is no failure of the measurement.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
