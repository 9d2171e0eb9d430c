//! Measures what a hung Cassandra (SIGSTOP) delays while records flow from one node to the subscribers of
//! two, whether anything is lost, and how much memory it takes.
//!
//! The same flow is measured before the pause and after it, so that the effects of the machine itself can
//! be told apart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::access::AccessArgs;
use anode_loadgen::latency::{self, Seen};
use anode_loadgen::machine::resident_bytes;

use super::{Bench, READY};
use crate::node::Node;

/// Longest time until all waiting records must be written.
const WRITTEN: Duration = Duration::from_secs(900);
/// How often memory and the queues are sampled.
const LOOK: Duration = Duration::from_millis(500);

/// Number of sources, published to in turn: each every ten seconds at the default rate, so that a record
/// that arrives late is still the latest one and not dropped as superseded.
const SOURCES: u32 = 50_000;

/// The greatest values that were seen during a run.
#[derive(Default)]
struct Peaks {
    resident_bytes: u64,
    spilled_records: f64,
}

/// Measures, and prints the results.
///
/// # Errors
///
/// A record did not reach a subscriber, or is not in Cassandra's history.
pub fn measure(bench: &Bench) -> Outcome<()> {
    let keyspace = bench.keyspace("pause");
    let first = bench.start(&keyspace, &bench.folder.join("pause-1"), None)?;
    let second = bench.start(&keyspace, &bench.folder.join("pause-2"), Some(&first))?;
    first.wait_members(2, READY)?;
    let pid = bench.pid()?.to_string();
    let (rate_per_s, seconds) = (bench.arguments.rate, bench.arguments.pause_s);
    let plan = latency::Plan {
        access: AccessArgs::default(),
        publish: first.http.clone(),
        subscribe: vec![first.http.clone(), second.http.clone()],
        rate_per_s,
        seconds,
        warmup: rate_per_s,
        sources: SOURCES,
        padding_bytes: 100,
    };
    let before = observe("before the pause", &plan, &first)?;
    wait_written(&first)?;
    signal("STOP", &pid)?;
    let during = observe("paused", &plan, &first);
    signal("CONT", &pid)?;
    let during = during?;
    let took = wait_written(&first)?;
    println!("pause: all that waited was written {:.1} s after it", took.as_secs_f64());
    let after = observe("after the pause", &plan, &first)?;
    wait_written(&first)?;
    let total = 3 * u64::from(rate_per_s) * u64::from(seconds);
    let query = format!("SELECT ts FROM {keyspace}.history");
    let rows = bench.runtime.block_on(bench.bare.rows(&query))?.len() as u64;
    println!(
        "pause: p99 at the other node {during:.2} ms, {before:.2} before, {after:.2} after; \
         {total} published, {rows} in Cassandra's history"
    );
    drop((first, second));
    bench.forget(&keyspace)?;
    if rows == total { Ok(()) } else { Err("records are missing in Cassandra".into()) }
}

/// Runs the flow once and prints the figures. Returns the p99 at the other node, in milliseconds.
fn observe(label: &str, plan: &latency::Plan, node: &Node) -> Outcome<f64> {
    let is_over = AtomicBool::new(false);
    let (seen, peaks) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peaks = Peaks::default();
            while !is_over.load(Ordering::Relaxed) {
                let resident_bytes = resident_bytes(&[node.pid()]).unwrap_or_default();
                let spilled = node.metric("anode_store_spilled_records").unwrap_or_default();
                peaks.resident_bytes = peaks.resident_bytes.max(resident_bytes);
                peaks.spilled_records = peaks.spilled_records.max(spilled);
                thread::sleep(LOOK);
            }
            peaks
        });
        let seen = latency::run(plan);
        is_over.store(true, Ordering::Relaxed);
        (seen, watching.join().unwrap_or_default())
    });
    let seen = seen?;
    for (place, seen) in ["the same node", "the other node"].iter().zip(&seen) {
        println!("{label}, at {place}: {}; {} missing", seen.percentiles(), seen.missing);
    }
    println!(
        "{label}: at most {} MB resident and {} records on the disk for Cassandra",
        peaks.resident_bytes / 1_000_000,
        peaks.spilled_records
    );
    if seen.iter().any(|seen| seen.missing > 0) {
        return Err("records did not reach a subscriber".into());
    }
    let p99_ns = |seen: &Seen| seen.latency_ns.value_at_quantile(0.99);
    Ok(seen.last().map_or(0, p99_ns) as f64 / 1e6)
}

/// Waits until no record waits for Cassandra any more.
fn wait_written(node: &Node) -> Outcome<Duration> {
    let began = Instant::now();
    while node.metric("anode_store_pending_records")? > 0.0 {
        if began.elapsed() > WRITTEN {
            return Err(format!("what waited was not written in {WRITTEN:?}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(began.elapsed())
}

fn signal(name: &str, pid: &str) -> Outcome<()> {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), pid]).status()?;
    if status.success() { Ok(()) } else { Err(format!("Cassandra cannot be sent {name}").into()) }
}
