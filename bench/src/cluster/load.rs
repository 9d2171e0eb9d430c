//! The load on a cluster: clients publish and subscribe at every node, and every subscriber wants everything.

use anode_loadgen::Outcome;
use anode_loadgen::args::RunArgs;
use anode_loadgen::find_max::Search;
use anode_loadgen::plan::{Target, Transport};
use anode_loadgen::report::Report;
use serde::Serialize;

use super::group::Group;

/// Size of each record's payload, in bytes.
pub const PAYLOAD_BYTES: usize = 128;
/// Number of sources: so many that records which wait for each other are of different sources.
pub const SOURCES: u32 = 10_000;
/// A rate is not kept if 1 % of the deliveries take longer than this, in milliseconds.
pub const P99_MS_MAX: f64 = 1_000.0;
/// The search ends when the rate is known up to this fraction of the rate.
const PRECISION: f64 = 0.1;
/// Number of tries after which a rate has failed.
pub const ATTEMPTS: usize = 2;

/// The results of a cluster.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Name of the system.
    pub system: String,
    /// Number of nodes.
    pub nodes: usize,
    /// The highest rate at which every record reached every subscriber, in records per second.
    pub records_per_s: f64,
    /// Median time from due to delivered, at half of `records_per_s`, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the time from due to delivered, at half of `records_per_s`, in milliseconds.
    pub p99_ms: f64,
    /// 99.9th percentile of the time from due to delivered, at half of `records_per_s`, in milliseconds.
    pub p999_ms: f64,
    /// CPU time of all servers per record, in microseconds.
    pub cpu_us_per_record: f64,
    /// Bytes that the servers sent each other per record.
    pub bytes_per_record: f64,
}

/// Searches the highest rate that the cluster keeps, beginning at `from`, and then measures at half of it.
pub fn measure(system: &str, group: &Group, from: f64, seconds: f64) -> Outcome<Seen> {
    let nodes = group.addresses().len();
    let mut search = Search::new(from, 10_000_000.0, PRECISION);
    while let Some(rate) = search.next() {
        let mut why_not = None;
        for _ in 0..ATTEMPTS {
            group.settle()?;
            why_not = match run(group, rate, seconds) {
                Ok(report) => report.exceeds(P99_MS_MAX),
                Err(error) => Some(error.to_string()),
            };
            if why_not.is_none() {
                break;
            }
        }
        let word = why_not.as_deref().unwrap_or("held");
        println!("    {system}, {nodes} nodes: {rate:.0}/s {word}");
        search.note(rate, why_not.is_none());
    }
    let records_per_s = search.found().ok_or("no rate holds")?;
    group.settle()?;
    let before = group.bytes_between()?;
    let report = run(group, records_per_s / 2.0, seconds * 2.0)?;
    let bytes = group.bytes_between()? - before;
    let latency = report.latency.clone().ok_or("nothing was delivered")?;
    let server = report.server.ok_or("no CPU time of the servers")?;
    Ok(Seen {
        system: system.to_owned(),
        nodes,
        records_per_s,
        p50_ms: latency.at("p50") / 1e3,
        p99_ms: latency.at("p99") / 1e3,
        p999_ms: latency.at("p99.9") / 1e3,
        cpu_us_per_record: 1e6 * server.cpu_s / report.throughput.published.max(1) as f64,
        bytes_per_record: bytes / report.correctness.published.max(1) as f64,
    })
}

/// Offers records at a constant rate: a publisher and a subscriber of everything at every node.
pub fn run(group: &Group, rate: f64, seconds: f64) -> Outcome<Report> {
    let mut args = RunArgs::parse(&["--threads", "1"])?;
    args.to = group.addresses();
    let nodes = u32::try_from(args.to.len())?;
    (args.publishers, args.subscribers, args.sources) = (nodes, nodes, Some(SOURCES));
    (args.rate, args.size) = (rate.to_string(), PAYLOAD_BYTES.to_string());
    (args.seconds, args.server_pid) = (seconds, group.pids());
    (args.target, args.transport) = match group {
        Group::Anode(_) => (Target::Anode, Some(Transport::Ws)),
        Group::Nats(_) => (Target::Nats, Some(Transport::Ws)),
    };
    crate::load::run(&args)
}
