//! `anode sim`: runs the cluster code of real nodes in a virtual world, with hundreds or thousands of nodes.
//!
//! The world itself is pure. Everything that it must not use is here: threads, a clock, files and a terminal.
//!
//! By file: `plan` turns arguments into runs, `runs` runs several of them in parallel and shows their
//! progress, `hands` lets several threads work on one run, `soak` runs for hours, `table` measures the
//! required figures, `memory` measures the memory of members, and `huge_pages` makes all of them faster.

mod hands;
mod huge_pages;
mod memory;
mod plan;
mod plots;
mod runs;
mod soak;
mod table;

use std::path::PathBuf;

use super::{CliError, whole_number};
use crate::sim::report;
use crate::sim::scenario::{NODES_MAX, RunOutcome, ScenarioError};

/// Arguments of the simulator. The same arguments and seed give exactly the same run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Scenarios:\n\
    \x20 spread       records reach everyone; nothing goes wrong\n\
    \x20 lossy        datagrams are lost: --loss P, one by one or in bursts: --burst\n\
    \x20 churn        nodes restart: --rate P of them every second\n\
    \x20 kill         nodes die at once, just before the first record: --fraction P\n\
    \x20 partition    two halves cannot reach each other for ten seconds\n\
    \x20 pause        4 % of the nodes at a time are paused, up to a second each\n\
    \x20 join-storm   all nodes join through one at once, while records are published\n\
    \x20 safety       faults of all kinds; invariants are checked after every step\n\
    \x20 liveness     faults of all kinds, which stop: all nodes must become equal in time\n\
    \x20 table        measures every required figure and compares it with the requirement\n\
    \x20 soak         safety and liveness, again and again with new seeds: --hours H\n\
    \x20 FILE.toml    a scenario of your own: see docs/simulator.md\n\n\
    Examples:\n\
    \x20 anode sim spread --nodes 100\n\
    \x20 anode sim lossy --nodes 100 --loss 5% --seeds 1..3\n\n\
    P is a fraction: 0.05 or 5%. Exit codes: 0 all held, 1 something did not (stderr has the command that\n\
    repeats it), 2 unusable arguments.")]
pub struct Arguments {
    /// Name of a scenario, or a file: a path that ends in .toml or contains a slash
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// Seed of all random numbers
    #[arg(long, value_name = "S", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Make a run for every seed from A to B, both included
    #[arg(long, value_name = "A..B", value_parser = plan::seeds)]
    seeds: Option<plan::Seeds>,
    /// Number of nodes; several numbers make a run for each
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', value_parser = whole_number(1..=NODES_MAX as u64))]
    nodes: Vec<u64>,
    /// Number of zones that the nodes are spread over; zones are 40 ms apart
    #[arg(long, value_name = "Z", value_parser = whole_number(1..=255))]
    zones: Option<u64>,
    /// Number of members that a hand-over is divided among: always 8, which is part of the protocol
    #[arg(long, value_name = "8", value_parser = plan::fanout)]
    fanout: Option<usize>,
    /// Number of records that are published in all
    #[arg(long, value_name = "R", value_parser = whole_number(0..=10_000_000))]
    records: Option<u64>,
    /// Records per second, all nodes together; for churn: the fraction of the nodes that restarts every
    /// second
    #[arg(long, value_name = "R", value_parser = plan::rate)]
    rate: Option<f64>,
    /// Records per second, for churn too
    #[arg(long, value_name = "R", value_parser = plan::rate, conflicts_with = "rate")]
    record_rate: Option<f64>,
    /// lossy: fraction of datagrams that are lost; several make a run for each
    #[arg(long, value_name = "P[,P…]", value_delimiter = ',', value_parser = plan::part)]
    loss: Vec<f64>,
    /// lossy: lose datagrams in bursts: half of what a link carries in one direction, for 10 ms at a time
    #[arg(long)]
    burst: bool,
    /// kill: fraction of the nodes that die
    #[arg(long, value_name = "P", value_parser = plan::part)]
    fraction: Option<f64>,
    /// Print one JSON object per run instead of the table
    #[arg(long)]
    json: bool,
    /// Write plots (SVG) into this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Number of threads: runs at the same time, or up to four that work on a single run [default: one per
    /// core]
    #[arg(long, value_name = "J", value_parser = whole_number(1..=1_024))]
    jobs: Option<u64>,
    /// soak: how many hours to run
    #[arg(long, value_name = "H", value_parser = plan::rate)]
    hours: Option<f64>,
    /// table: use smaller samples
    #[arg(long)]
    quick: bool,
}

impl Arguments {
    fn jobs(&self) -> usize {
        self.jobs.map_or_else(|| super::machine::this_machine().cores, |jobs| jobs as usize)
    }
}

impl From<ScenarioError> for CliError {
    fn from(error: ScenarioError) -> CliError {
        CliError::Usage(error.to_string())
    }
}

/// Makes the runs that the arguments ask for. Returns an error if a check fails in any of them.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    match arguments.scenario.as_str() {
        "table" => table::run(arguments),
        "soak" => soak::run(arguments),
        _ => {
            huge_pages::ask_for();
            plain(arguments)
        }
    }
}

/// Runs scenarios that are given by name or by file, and prints their outcomes.
fn plain(arguments: &Arguments) -> Result<(), CliError> {
    let plans = plan::plans(arguments)?;
    let mut all: Vec<(RunOutcome, u64)> = Vec::new();
    let mut lines = String::new();
    runs::run(&plans, arguments.jobs(), |outcome, wall_us| {
        if arguments.json {
            lines.push_str(&report::json_line(&outcome, wall_us));
            lines.push('\n');
        }
        all.push((outcome, wall_us));
    })?;
    match arguments.json {
        true => print!("{lines}"),
        false => print!("{}", report::table(&all)),
    }
    if let Some(directory) = &arguments.plot {
        let outcomes: Vec<RunOutcome> = all.iter().map(|(outcome, _)| outcome.clone()).collect();
        plots::write(directory, &outcomes)?;
    }
    let failed = all.iter().zip(&plans).filter_map(|((outcome, _), plan)| Some((outcome.failure()?, plan)));
    let told: Vec<_> = failed
        .map(|(reason, plan)| eprintln!("anode: seed {}: {reason}\n  again: {}", plan.seed, plan.command))
        .collect();
    if told.is_empty() { Ok(()) } else { Err(CliError::Told) }
}
