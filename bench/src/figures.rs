//! Measures the figures of one node and of three nodes in docs/benchmarks.md: memory of idle subscribers,
//! latency, and the time of a start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anode_loadgen::access::AccessArgs;
use anode_loadgen::machine::resident_bytes;
use anode_loadgen::{Outcome, fill, idle, latency};

use crate::folder::Folder;
use crate::machine::Machine;
use crate::node::Node;

/// The parameters of the measurement.
pub struct Plan {
    /// Path of the anode binary.
    pub anode: PathBuf,
    /// Number of runs of each timed figure.
    pub runs: usize,
    /// Number of idle subscribers.
    pub connections: usize,
    /// Number of records stored before the node is started.
    pub stored: u64,
}

/// How long a node may take for anything before the measurement fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Measures and prints all three figures.
pub fn run(plan: &Plan) -> Outcome<()> {
    println!("{}", Machine::look(&plan.anode)?);
    let folder = Folder::new()?;
    idle_subscribers(plan, &folder.join("idle"))?;
    for run in 1..=plan.runs {
        three_nodes(plan, &folder.join(format!("latency-{run}")), run)?;
    }
    start_with_records(plan, &folder.join("stored"))
}

fn idle_subscribers(plan: &Plan, data_dir: &Path) -> Outcome<()> {
    let node = Node::start(&plan.anode, data_dir, &["--store", "memory"])?;
    node.wait_ready(DEADLINE)?;
    let before = resident_bytes(&[node.pid()])?;
    let idle = idle::Idle::open(&node.http, plan.connections)?;
    let after = resident_bytes(&[node.pid()])?;
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
        access: AccessArgs::default(),
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
        println!(
            "run {run}, published at {}, received at {}: {}; {} missing",
            first.http,
            seen.http,
            seen.percentiles(),
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
    fill::run(&node.http, &AccessArgs::default(), "fill", plan.stored, 1_000, 100)?;
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
