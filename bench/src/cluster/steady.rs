//! What a cluster costs, and how late and how complete it delivers, at constant rates: aNode and NATS in turns.

use std::process::{Child, Command};

use anode_loadgen::Outcome;
use serde::Serialize;

use super::group::Group;
use super::load;
use crate::median::median;

/// The results of one system at one rate.
#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    /// Name of the system.
    pub system: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Rate at which records were offered to all nodes together, in records per second.
    pub rate: f64,
    /// CPU time of all servers per record, in microseconds.
    pub cpu_us_per_record: f64,
    /// Median time from due to delivered, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the time from due to delivered, in milliseconds.
    pub p99_ms: f64,
    /// Deliveries that were missing, in percent of those expected.
    pub missing_percent: f64,
    /// Bytes that the servers sent each other per record.
    pub bytes_per_record: f64,
}

/// Offers records at a constant rate for so many seconds.
pub fn measure(system: &str, group: &Group, rate: f64, seconds: f64) -> Outcome<Steady> {
    group.settle()?;
    let before = group.bytes_between()?;
    let report = load::run(group, rate, seconds)?;
    let bytes = group.bytes_between()? - before;
    let latency = report.latency.clone().ok_or("nothing was delivered")?;
    let server = report.server.ok_or("no CPU time of the servers")?;
    let correctness = &report.correctness;
    Ok(Steady {
        system: system.to_owned(),
        nodes: group.addresses().len(),
        rate,
        cpu_us_per_record: 1e6 * server.cpu_s / report.throughput.published.max(1) as f64,
        p50_ms: latency.at("p50") / 1e3,
        p99_ms: latency.at("p99") / 1e3,
        missing_percent: 100.0 * correctness.missing as f64 / correctness.expected.max(1) as f64,
        bytes_per_record: bytes / correctness.published.max(1) as f64,
    })
}

/// The medians of every system, number of nodes and rate, with aNode's ratios to the system `other`.
pub fn table(all: &[Steady], other: &str) -> String {
    let mut out = String::from(
        "| nodes | records/s | | CPU µs a record | p50 / p99, ms | missing, % | bytes a record between nodes | by NATS': CPU · p99 |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let medians = medians(all);
    for seen in &medians {
        let theirs =
            medians.iter().find(|it| it.system == other && it.nodes == seen.nodes && it.rate == seen.rate);
        let ratios = theirs.filter(|_| seen.system != other).map_or(String::new(), |theirs| {
            let cpu = seen.cpu_us_per_record / theirs.cpu_us_per_record;
            format!("{cpu:.2} · {:.2}", seen.p99_ms / theirs.p99_ms)
        });
        out += &format!(
            "| {} | {:.0} | {} | {:.1} | {:.2} / {:.2} | {:.2} | {:.0} | {ratios} |\n",
            seen.nodes,
            seen.rate,
            seen.system,
            seen.cpu_us_per_record,
            seen.p50_ms,
            seen.p99_ms,
            seen.missing_percent,
            seen.bytes_per_record
        );
    }
    out
}

/// Returns for every number of nodes and rate how many records `one` does for each second of CPU, as a share of those that
/// `other` does.
pub fn shares(all: &[Steady], (one, other): (&str, &str)) -> Vec<(String, f64)> {
    let medians = medians(all);
    let mut shares = Vec::new();
    for its in medians.iter().filter(|it| it.system == one) {
        let is_same = |it: &&Steady| it.system == other && it.nodes == its.nodes && it.rate == its.rate;
        if let Some(theirs) = medians.iter().find(is_same) {
            let what = format!("{} nodes at {:.0} records/s", its.nodes, its.rate);
            shares.push((what, theirs.cpu_us_per_record / its.cpu_us_per_record));
        }
    }
    shares
}

fn medians(all: &[Steady]) -> Vec<Steady> {
    let mut medians: Vec<Steady> = Vec::new();
    for seen in all {
        let is_same =
            |it: &&Steady| it.system == seen.system && it.nodes == seen.nodes && it.rate == seen.rate;
        if medians.iter().any(|it| is_same(&it)) {
            continue;
        }
        let of =
            |figure: fn(&Steady) -> f64| median(&all.iter().filter(is_same).map(figure).collect::<Vec<_>>());
        medians.push(Steady {
            cpu_us_per_record: of(|it| it.cpu_us_per_record),
            p50_ms: of(|it| it.p50_ms),
            p99_ms: of(|it| it.p99_ms),
            missing_percent: of(|it| it.missing_percent),
            bytes_per_record: of(|it| it.bytes_per_record),
            ..seen.clone()
        });
    }
    medians
}

/// Other programs that keep a core busy each, until this is dropped.
pub struct Busy(Vec<Child>);

impl Busy {
    /// Starts `count` programs.
    pub fn start(count: usize) -> Outcome<Busy> {
        let mut busy = Busy(Vec::new());
        for _ in 0..count {
            busy.0.push(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for program in &mut self.0 {
            // It does not matter if the program has ended already.
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
