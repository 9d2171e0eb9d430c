//! Turns arguments into a list of runs.

use std::path::Path;

use super::Arguments;
use crate::cli::CliError;
use crate::sim::scenario::named::{self, Knobs};
use crate::sim::scenario::{FaultKind, SCENARIO_FANOUT, Scenario, file};

/// Most seeds of one command.
const SEEDS_MAX: u64 = 100_000;

/// A range of seeds that includes both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    first: u64,
    last: u64,
}

/// One run of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The scenario that is run.
    pub scenario: Scenario,
    /// Seed of the run.
    pub seed: u64,
    /// The command that repeats this run alone.
    pub command: String,
}

/// Parses `A..B`, or `A..=B` with the same meaning.
pub fn seeds(text: &str) -> Result<Seeds, String> {
    let ends = text.split_once("..").and_then(|(first, last)| {
        let last = last.strip_prefix('=').unwrap_or(last);
        Some(Seeds { first: first.parse().ok()?, last: last.parse().ok()? })
    });
    let fits = |seeds: &Seeds| seeds.last.checked_sub(seeds.first).is_some_and(|more| more < SEEDS_MAX);
    ends.filter(fits).ok_or_else(|| "allowed: A..B with A not over B, both included, for example 1..5".into())
}

/// Parses the fanout. Only the value of the protocol is allowed.
pub fn fanout(text: &str) -> Result<usize, String> {
    let refusal =
        "allowed: 8, which is part of the protocol: nodes that cut differently would not be one cluster";
    text.parse().ok().filter(|fanout| *fanout == SCENARIO_FANOUT).ok_or_else(|| refusal.into())
}

/// Parses a rate: a number, or a percentage.
pub fn rate(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().map(|percent: f64| percent / 100.0),
        None => text.parse().ok(),
    };
    number.filter(|rate| (0.000_1..=1e6).contains(rate)).ok_or_else(|| "allowed: 0.0001 to 1000000".into())
}

/// Parses a fraction from 0 to 1: `0.05` or `5%`.
pub fn part(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().map(|percent: f64| percent / 100.0),
        None => text.parse().ok(),
    };
    number.filter(|part| (0.0..=1.0).contains(part)).ok_or_else(|| "allowed: 0 to 1, or 0% to 100%".into())
}

/// Returns whether the argument is a path and not the name of a scenario.
fn is_file(scenario: &str) -> bool {
    scenario.ends_with(".toml") || scenario.contains(['/', '\\'])
}

/// Returns the runs that are asked for: one for every combination of number of nodes, loss and seed.
pub fn plans(arguments: &Arguments) -> Result<Vec<Plan>, CliError> {
    misfits(arguments)?;
    let sizes: Vec<Option<usize>> = match arguments.nodes.is_empty() {
        true => vec![None],
        false => arguments.nodes.iter().map(|nodes| Some(*nodes as usize)).collect(),
    };
    let losses: Vec<f64> = match arguments.loss.is_empty() {
        true => vec![Knobs::default().loss],
        false => arguments.loss.clone(),
    };
    let seeds = arguments.seeds.unwrap_or_else(|| {
        let seed = arguments.seed.unwrap_or(1);
        Seeds { first: seed, last: seed }
    });
    let mut plans = Vec::new();
    for nodes in sizes {
        for &loss in &losses {
            let scenario = scenario(arguments, nodes, loss)?;
            for seed in seeds.first..=seeds.last {
                let command = command(arguments, nodes, loss, seed);
                plans.push(Plan { scenario: scenario.clone(), seed, command });
            }
        }
    }
    Ok(plans)
}

/// Refuses flags that have no meaning for the scenario. Otherwise one could believe that they had an effect.
fn misfits(arguments: &Arguments) -> Result<(), CliError> {
    let name = arguments.scenario.as_str();
    for (flag, is_given, of) in [
        ("--loss", !arguments.loss.is_empty(), "lossy"),
        ("--burst", arguments.burst, "lossy"),
        ("--fraction", arguments.fraction.is_some(), "kill"),
        ("--hours", arguments.hours.is_some(), "soak"),
        ("--quick", arguments.quick, "table"),
    ] {
        if is_given && name != of {
            return Err(CliError::Usage(format!("{flag} is for the scenario {of}, not for {name}")));
        }
    }
    Ok(())
}

fn scenario(arguments: &Arguments, nodes: Option<usize>, loss: f64) -> Result<Scenario, CliError> {
    let name = arguments.scenario.as_str();
    let plain = Knobs::default();
    let is_churn = name == "churn";
    let knobs = Knobs {
        loss,
        is_bursty: arguments.burst,
        churn: arguments.rate.filter(|_| is_churn).unwrap_or(plain.churn),
        fraction: arguments.fraction.unwrap_or(plain.fraction),
    };
    if knobs.churn > 1.0 {
        return Err(CliError::Usage("--rate: churn takes a part of the nodes, 0 to 1".into()));
    }
    let mut scenario = match is_file(name) {
        true => from_file(name)?,
        false => named::scenario(name, nodes, knobs).ok_or_else(|| unknown(name))?,
    };
    scenario.nodes = nodes.unwrap_or(scenario.nodes);
    scenario.zones = arguments.zones.map_or(scenario.zones, |zones| zones as usize);
    let publishing = &mut scenario.publishing;
    publishing.records = arguments.records.map_or(publishing.records, |records| records as usize);
    let record_rate = arguments.record_rate.or(arguments.rate.filter(|_| !is_churn));
    publishing.rate = record_rate.unwrap_or(publishing.rate);
    // Faults that last as long as records are published must do so for the chosen number of records, too.
    let publishing_us = scenario.publishing_us();
    if !is_file(name) {
        for fault in &mut scenario.faults {
            if matches!(fault.kind, FaultKind::Churn(_) | FaultKind::PauseInTurns(_)) {
                fault.for_us = publishing_us;
            }
        }
    }
    Ok(scenario)
}

fn from_file(path: &str) -> Result<Scenario, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::Usage(format!("{path}: a readable file of TOML is wanted ({error})")))?;
    let name = Path::new(path).file_stem().map_or(path.into(), |stem| stem.to_string_lossy().into_owned());
    file::parse(&name, &text).map_err(|error| CliError::Usage(format!("{path}: {error}")))
}

fn unknown(name: &str) -> CliError {
    let names: Vec<&str> = named::NAMES.iter().map(|(name, _)| *name).collect();
    CliError::Usage(format!(
        "SCENARIO: {name:?} cannot be used; allowed: {}, table, soak, or a file of TOML",
        names.join(", ")
    ))
}

/// Returns the command that repeats one run.
fn command(arguments: &Arguments, nodes: Option<usize>, loss: f64, seed: u64) -> String {
    let mut command = format!("anode sim {} --seed {seed}", arguments.scenario);
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            command.push_str(&format!(" --{flag} {value}"));
        }
    };
    add("nodes", nodes.map(|nodes| nodes.to_string()));
    add("zones", arguments.zones.map(|zones| zones.to_string()));
    add("records", arguments.records.map(|records| records.to_string()));
    add("rate", arguments.rate.map(|rate| rate.to_string()));
    add("record-rate", arguments.record_rate.map(|rate| rate.to_string()));
    add("loss", (!arguments.loss.is_empty()).then(|| loss.to_string()));
    add("fraction", arguments.fraction.map(|fraction| fraction.to_string()));
    if arguments.burst {
        command.push_str(" --burst");
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn planned(line: &str) -> Result<Vec<Plan>, String> {
        let words = std::iter::once("sim").chain(line.split(' '));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        plans(&line.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_for_every_size_loss_and_seed() {
        let plans = planned("lossy --nodes 10,20 --loss 5%,0.1 --seeds 3..5 --records 7").expect("plans");
        assert_eq!(plans.len(), 2 * 2 * 3);
        let last = plans.last().expect("a plan");
        assert_eq!((last.scenario.nodes, last.seed, last.scenario.publishing.records), (20, 5, 7));
        assert_eq!(last.scenario.links.loss_per_million, 100_000);
        assert_eq!(last.command, "anode sim lossy --seed 5 --nodes 20 --records 7 --loss 0.1");
        assert_eq!(
            planned(last.command.trim_start_matches("anode sim ")).expect("plans").first(),
            Some(last)
        );
    }

    #[test]
    fn the_rate_of_churn_is_of_nodes() {
        let plans = planned("churn --rate 1% --record-rate 50").map_err(|error| error.len());
        assert!(plans.is_err(), "one flag for each");
        let plans = planned("churn --rate 1%").expect("plans");
        assert!(matches!(plans[0].scenario.faults[0].kind, FaultKind::Churn(part) if part == 0.01));
        assert_eq!(planned("spread --rate 20").expect("plans")[0].scenario.publishing.rate, 20.0);
        assert!(planned("churn --rate 20").is_err());
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for line in [
            "spred",
            "spread --fanout 4",
            "spread --seeds 5..3",
            "spread --seeds 1-3",
            "lossy --loss 5",
            "spread --loss 0.1",
            "spread --burst",
            "lossy --fraction 0.5",
            "spread --nodes 0",
            "nowhere/x.toml",
            "spread --seed 1 --seeds 1..2",
            "spread --hours 1",
            "spread --quick",
            "spread --rate -1",
        ] {
            assert!(planned(line).is_err(), "{line}");
        }
        assert!(planned("spread --fanout 8").is_ok());
    }
}
