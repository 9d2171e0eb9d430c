//! `anode sim soak`: repeats the scenarios safety and liveness with new seeds.

use super::{Arguments, plan, runs};
use crate::cli::CliError;
use crate::server::clock;
use crate::sim::scenario::named::{self, Knobs};

/// Numbers of nodes of the worlds, which are used in turn.
const SIZES: [usize; 6] = [3, 5, 8, 9, 16, 33];

/// Runs until the time is over or a run fails.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let hours = arguments.hours.unwrap_or(1.0);
    let end_us = clock::mono_us() + (hours * 3.6e9) as u64;
    let first = arguments.seed.unwrap_or_else(|| clock::chance() >> 16);
    println!("soak: {hours} h from seed {first}");
    let (mut seed, mut done, mut records) = (first, 0u64, 0u64);
    while clock::mono_us() < end_us {
        let mut round = Vec::new();
        for nodes in SIZES {
            for name in ["safety", "liveness"] {
                if let Some(scenario) = named::scenario(name, Some(nodes), Knobs::default()) {
                    let command = format!("anode sim {name} --seed {seed} --nodes {nodes}");
                    round.push(plan::Plan { scenario, seed, command });
                }
                seed += 1;
            }
        }
        let mut failed = Vec::new();
        let mut plans = round.iter();
        runs::run(&round, arguments.jobs(), |outcome, _| {
            done += 1;
            records += outcome.records;
            if let (Some(plan), Some(reason)) = (plans.next(), outcome.failure()) {
                failed.push(format!("anode: seed {}: {reason}\n  again: {}", plan.seed, plan.command));
            }
        })?;
        if !failed.is_empty() {
            failed.iter().for_each(|line| eprintln!("{line}"));
            return Err(CliError::Told);
        }
    }
    println!("{done} runs with {records} records, seeds {first} to {}: all held", seed - 1);
    Ok(())
}
