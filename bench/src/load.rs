//! Runs the load generator in this process, without output.

use std::sync::Arc;

use anode_loadgen::Outcome;
use anode_loadgen::args::RunArgs;
use anode_loadgen::engine::{self, Sample, Watcher};
use anode_loadgen::machine::Machine;
use anode_loadgen::report::Report;

/// Runs a load with these options, and returns the report.
pub fn run(args: &RunArgs) -> Outcome<Report> {
    let plan = args.plan(None)?;
    let (parameters, plan) = (args.parameters(&plan), Arc::new(plan));
    let measured = engine::run(&plan, &mut Silent)?;
    Ok(Report::new(&plan, &measured, parameters, [].into(), Machine::look()))
}

/// A watcher that shows nothing.
struct Silent;

impl Watcher for Silent {
    fn opening(&mut self, _: u64, _: u64) {}
    fn running(&mut self, _: Sample, _: Sample) {}
    fn draining(&mut self) {}
}
