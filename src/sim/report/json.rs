//! Writes a run as one line of JSON. The names in it are part of the program's interface.

use serde::Serialize;

use crate::sim::scenario::{RunOutcome, SCENARIO_FANOUT};

/// The fields of a line. Times are in microseconds, from a record's acceptance until it is applied at a
/// node other than its origin.
#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    seed: u64,
    nodes: usize,
    fanout: usize,
    zones: usize,
    loss: f64,
    burst: bool,
    records: u64,
    refused: u64,
    deliveries: u64,
    hops_p50: u64,
    hops_max: u64,
    time_us_p50: u64,
    time_us_p90: u64,
    time_us_p99: u64,
    time_us_p999: u64,
    time_us_max: u64,
    last_us_p50: u64,
    last_us_max: u64,
    copies_mean: f64,
    resent_share: f64,
    repaired: u64,
    reconciled: u64,
    busiest_over_mean: f64,
    crossings_mean: f64,
    missing: u64,
    unexplained_missing: u64,
    converged_us: Option<u64>,
    control_bytes_per_node_per_s: f64,
    bytes_per_node_per_s: f64,
    datagrams: u64,
    violations: &'a [String],
    passed: bool,
    digest: String,
    virtual_seconds: f64,
    wall_seconds: f64,
}

/// Writes one object, without a newline. `wall_us` is how long the run took in real time.
pub fn json_line(outcome: &RunOutcome, wall_us: u64) -> String {
    let line = Line {
        scenario: &outcome.scenario,
        seed: outcome.seed,
        nodes: outcome.nodes,
        fanout: SCENARIO_FANOUT,
        zones: outcome.zones,
        loss: outcome.loss,
        burst: outcome.is_bursty,
        records: outcome.records,
        refused: outcome.refused,
        deliveries: outcome.time_us.count,
        hops_p50: outcome.hops.p50,
        hops_max: outcome.hops.max,
        time_us_p50: outcome.time_us.p50,
        time_us_p90: outcome.time_us.p90,
        time_us_p99: outcome.time_us.p99,
        time_us_p999: outcome.time_us.p999,
        time_us_max: outcome.time_us.max,
        last_us_p50: outcome.last_us.p50,
        last_us_max: outcome.last_us.max,
        copies_mean: rounded(outcome.copies_mean),
        resent_share: rounded(outcome.resent_share),
        repaired: outcome.repaired,
        reconciled: outcome.reconciled,
        busiest_over_mean: rounded(outcome.busiest_over_mean),
        crossings_mean: outcome.crossings_mean,
        missing: outcome.missing,
        unexplained_missing: outcome.unexplained_missing,
        converged_us: outcome.converged_us,
        control_bytes_per_node_per_s: rounded(outcome.control_bytes_per_node_per_s),
        bytes_per_node_per_s: rounded(outcome.bytes_per_node_per_s),
        datagrams: outcome.datagrams,
        violations: &outcome.violations,
        passed: outcome.has_passed(),
        digest: format!("{:016x}", outcome.digest),
        virtual_seconds: outcome.virtual_us as f64 / 1e6,
        wall_seconds: rounded(wall_us as f64 / 1e6),
    };
    // It cannot fail: the line consists of numbers and strings alone.
    serde_json::to_string(&line).unwrap_or_default()
}

/// Rounds to four decimal places.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}
