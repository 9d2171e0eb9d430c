//! The load that is put on every system, and the figures of one run.

use anode_loadgen::args::RunArgs;
use anode_loadgen::machine::resident_bytes;
use anode_loadgen::{Outcome, idle};
use serde::Serialize;

use super::system::{LOAD_CORE, Server, System};

/// A load: publishers, subscribers, and a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// Name of the scenario in tables.
    pub name: &'static str,
    /// Number of connections that publish.
    pub publishers: u32,
    /// Number of connections that subscribe, each to everything.
    pub subscribers: u32,
    /// Messages per second; `None`: as many as the server takes.
    pub rate_per_s: Option<u32>,
}

const fn saturated(name: &'static str, publishers: u32, subscribers: u32) -> Scenario {
    Scenario { name, publishers, subscribers, rate_per_s: None }
}

/// The scenarios at saturation: publishers send as much as the server takes.
pub const SATURATED: [Scenario; 4] = [
    saturated("1 → 1", 1, 1),
    saturated("1 → 100", 1, 100),
    saturated("1 → 1,000", 1, 1_000),
    saturated("64 → 1", 64, 1),
];

const fn steady(name: &'static str, publishers: u32, subscribers: u32, rate: u32) -> Scenario {
    Scenario { name, publishers, subscribers, rate_per_s: Some(rate) }
}

/// The scenarios with the same absolute rates for all systems.
pub const STEADY: [Scenario; 4] = [
    steady("1 → 1, 10,000/s", 1, 1, 10_000),
    steady("1 → 100, 20,000/s", 1, 100, 200),
    steady("1 → 1,000, 20,000/s", 1, 1_000, 20),
    steady("64 → 1, 10,000/s", 64, 1, 10_000),
];

/// Size of each message's payload, in bytes.
pub const PAYLOAD_BYTES: usize = 128;

/// How many seconds missing deliveries are waited for, as an option of the load generator.
const DRAIN_S: f64 = 30.0;

/// The figures of one run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seen {
    /// Number of deliveries per second of the server's CPU time.
    pub per_cpu_s: f64,
    /// Number of deliveries per second.
    pub per_s: f64,
    /// The server's CPU time, in cores.
    pub server_cores: f64,
    /// Part of the time in which the busiest thread of the load generator did not wait, 0 to 1.
    pub load_busy: f64,
    /// Median time from when a message was due until it was delivered, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the time from when a message was due until it was delivered, in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile of the time from when a message was due until it was delivered, in microseconds.
    pub p999_us: f64,
    /// Number of expected deliveries that did not happen.
    pub lost: u64,
}

impl Scenario {
    /// Puts the load on a server for `seconds` seconds, and returns the figures.
    pub fn run(&self, system: &System, server: &Server, seconds: f64) -> Outcome<Seen> {
        let mut args = args_for(system, server)?;
        (args.publishers, args.subscribers) = (self.publishers, self.subscribers);
        args.rate = self.rate_per_s.map_or("max".to_owned(), |rate| rate.to_string());
        args.size = PAYLOAD_BYTES.to_string();
        (args.seconds, args.server_pid) = (seconds, vec![server.pid()]);
        let report = crate::load::run(&args)?;
        if !report.correctness.faults.closed.is_empty() || !report.correctness.faults.refused.is_empty() {
            return Err(format!("{:?}", report.correctness.faults).into());
        }
        let latency = report.latency.unwrap_or_default();
        let server = report.server.ok_or("no CPU time of the server")?;
        Ok(Seen {
            per_cpu_s: server.delivered_per_cpu_s,
            per_s: report.throughput.delivered_per_s,
            server_cores: server.cores,
            load_busy: report.generator.busy.iter().copied().fold(0.0, f64::max),
            p50_us: latency.at("p50"),
            p99_us: latency.at("p99"),
            p999_us: latency.at("p99.9"),
            lost: report.correctness.missing,
        })
    }
}

fn args_for(system: &System, server: &Server) -> Outcome<RunArgs> {
    let mut args = RunArgs::parse(&["--to", &server.address])?;
    let (target, transport, format) = system.speaks();
    (args.target, args.transport, args.format) = (target, Some(transport), format);
    // Slow servers get the time to deliver what they took.
    args.drain = DRAIN_S;
    (args.threads, args.cpu) = (Some(1), vec![LOAD_CORE]);
    Ok(args)
}

/// Returns the server's resident bytes per idle subscriber.
pub fn idle_bytes(system: &System, server: &Server, connections: usize) -> Outcome<f64> {
    let before = resident_bytes(&[server.pid()])?;
    let idle = idle::Idle::open_with(args_for(system, server)?, connections)?;
    // Memory that is freed a moment later does not belong to the connections.
    std::thread::sleep(std::time::Duration::from_secs(2));
    idle.check()?;
    let after = resident_bytes(&[server.pid()])?;
    Ok(after.saturating_sub(before) as f64 / connections.max(1) as f64)
}
