//! What is done to every system, and what comes out of one run of it.

use anode_loadgen::args::RunArgs;
use anode_loadgen::machine::resident_bytes;
use anode_loadgen::{Outcome, idle};
use serde::Serialize;

use super::system::{LOAD_CORE, Server, System};

/// Publishers, subscribers, and at which rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// In tables.
    pub name: &'static str,
    /// Connections that publish.
    pub publishers: u32,
    /// Connections that subscribe, each to everything.
    pub subscribers: u32,
    /// Messages a second; `None`: as many as the server takes.
    pub rate_per_s: Option<u32>,
}

const fn saturated(name: &'static str, publishers: u32, subscribers: u32) -> Scenario {
    Scenario { name, publishers, subscribers, rate_per_s: None }
}

/// As much as the server takes.
pub const SATURATED: [Scenario; 4] = [
    saturated("1 → 1", 1, 1),
    saturated("1 → 100", 1, 100),
    saturated("1 → 1,000", 1, 1_000),
    saturated("64 → 1", 64, 1),
];

const fn steady(name: &'static str, publishers: u32, subscribers: u32, rate: u32) -> Scenario {
    Scenario { name, publishers, subscribers, rate_per_s: Some(rate) }
}

/// The same absolute rates for all.
pub const STEADY: [Scenario; 4] = [
    steady("1 → 1, 10,000/s", 1, 1, 10_000),
    steady("1 → 100, 20,000/s", 1, 100, 200),
    steady("1 → 1,000, 20,000/s", 1, 1_000, 20),
    steady("64 → 1, 10,000/s", 64, 1, 10_000),
];

/// Bytes of each message's payload.
pub const PAYLOAD_BYTES: usize = 128;

/// So long is waited for what was not delivered yet.
const DRAIN_S: f64 = 30.0;

/// What one run showed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seen {
    /// Deliveries a second of the server's CPU time.
    pub per_cpu_s: f64,
    /// Deliveries a second.
    pub per_s: f64,
    /// The server's cores' worth of CPU time.
    pub server_cores: f64,
    /// The busiest thread of the generator: share of the time in which it did not wait.
    pub load_busy: f64,
    /// From due to delivered, in microseconds.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub p999_us: f64,
    /// Deliveries that never came.
    pub lost: u64,
}

impl Scenario {
    /// Puts it on a server for so long, and says what came of it.
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
    // The slow ones are given the time to deliver what they took.
    args.drain = DRAIN_S;
    (args.threads, args.cpu) = (Some(1), vec![LOAD_CORE]);
    Ok(args)
}

/// Resident bytes of the server for each of so many idle subscribers.
pub fn idle_bytes(system: &System, server: &Server, connections: usize) -> Outcome<f64> {
    let before = resident_bytes(&[server.pid()])?;
    let idle = idle::Idle::open_with(args_for(system, server)?, connections)?;
    // What is collected or given back a moment later is not theirs.
    std::thread::sleep(std::time::Duration::from_secs(2));
    idle.check()?;
    let after = resident_bytes(&[server.pid()])?;
    Ok(after.saturating_sub(before) as f64 / connections.max(1) as f64)
}
