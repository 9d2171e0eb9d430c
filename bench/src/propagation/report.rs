//! Writes the table and the JSON of all runs.

use std::path::Path;

use anode_loadgen::Outcome;
use serde::Serialize;

use super::Plan;
use super::measures::{Measures, median};
use crate::machine::Machine;

/// Number of nodes for which the wanted figures are stated.
const WANTED_NODES: f64 = 64.0;
/// Wanted median of the time until all nodes have a record, in milliseconds.
const WANTED_ALL_MS: f64 = 10.0;
/// Wanted factor by which all nodes have a record sooner than with memberlist.
const WANTED_TIMES: f64 = 50.0;

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    plan: Plan,
    memberlist: Option<String>,
    runs: Vec<Measures>,
}

impl Report {
    /// Makes a report without runs.
    pub fn new(machine: Machine, plan: &Plan, memberlist: Option<String>) -> Report {
        Report { machine, plan: plan.clone(), memberlist, runs: Vec::new() }
    }

    /// Adds a run, and prints it.
    pub fn add(&mut self, run: usize, measures: Measures) {
        if self.runs.is_empty() {
            println!("{}", heading());
        }
        println!("{}", row(&measures));
        println!("  run {run}: {}", remarks(&measures));
        self.runs.push(measures);
    }

    /// Returns the median of every figure, by system and number of nodes.
    pub fn medians(&self) -> Outcome<Vec<Measures>> {
        let mut medians: Vec<Measures> = Vec::new();
        for measures in &self.runs {
            let same = |other: &&Measures| other.system == measures.system && other.nodes == measures.nodes;
            if medians.iter().any(|seen| same(&seen)) {
                continue;
            }
            medians.push(median(&self.runs.iter().filter(same).collect::<Vec<_>>())?);
        }
        medians.sort_by(|a, b| (a.nodes.total_cmp(&b.nodes)).then_with(|| a.system.cmp(&b.system)));
        Ok(medians)
    }

    /// Prints the medians as a table, and which wanted figures were reached.
    pub fn print_medians(&self) -> Outcome<()> {
        let medians = self.medians()?;
        println!("\nmedians, in ms from when a record was due:");
        println!("{}", heading());
        medians.iter().for_each(|measures| println!("{}", row(measures)));
        for nodes in &self.plan.nodes {
            let of =
                |system: &str| medians.iter().find(|it| it.system == system && it.nodes == *nodes as f64);
            if let (Some(ours), Some(theirs)) = (of("anode"), of("memberlist")) {
                println!("N = {nodes}: all have it {:.0} times sooner (p50)", times(ours, theirs));
            }
        }
        let missing = |system: &str| {
            let runs = self.runs.iter().filter(|run| run.system == system);
            let (missing, expected) =
                runs.fold((0.0, 0.0), |(a, b), run| (a + run.missing, b + run.expected));
            format!("{missing} of {expected} deliveries")
        };
        println!("never arrived: anode {}, memberlist {}", missing("anode"), missing("memberlist"));
        Ok(())
    }

    /// Writes all runs and medians as JSON.
    pub fn write_json(&self, path: &Path) -> Outcome<()> {
        let mut value = serde_json::to_value(self)?;
        value["medians"] = serde_json::to_value(self.medians()?)?;
        Ok(std::fs::write(path, serde_json::to_string_pretty(&value)? + "\n")?)
    }

    /// Tells whether the wanted figures were reached. It is an error if aNode lost a record.
    pub fn check(&self) -> Outcome<()> {
        let medians = self.medians()?;
        let of = |system: &str| medians.iter().find(|it| it.system == system && it.nodes == WANTED_NODES);
        if let Some(ours) = of("anode") {
            let verdict = |is_met: bool| if is_met { "met" } else { "NOT MET" };
            let all_ms = ours.all_ms.p50;
            println!(
                "N = {WANTED_NODES}: all have it in p50 {all_ms:.3} ms, wanted < {WANTED_ALL_MS}: {}",
                verdict(all_ms < WANTED_ALL_MS)
            );
            if let Some(theirs) = of("memberlist") {
                let times = times(ours, theirs);
                println!(
                    "N = {WANTED_NODES}: {times:.0} times sooner than memberlist, wanted ≥ {WANTED_TIMES}: {}",
                    verdict(times >= WANTED_TIMES)
                );
            }
        }
        match self.runs.iter().find(|run| run.system == "anode" && run.missing > 0.0) {
            Some(run) => Err(format!("{} deliveries are missing at N = {}", run.missing, run.nodes).into()),
            None => Ok(()),
        }
    }
}

fn times(ours: &Measures, theirs: &Measures) -> f64 {
    theirs.all_ms.p50 / ours.all_ms.p50
}

/// Returns how late records were published, the percentiles by the nodes' own histogram, and losses.
fn remarks(measures: &Measures) -> String {
    let Measures { records, late_ms: late, missing, expected, partial, .. } = measures;
    let own = measures.own_ms.map_or(String::new(), |own| {
        format!("own histogram p50 ≤ {} ms, p99 ≤ {} ms; ", own.p50_at_most, own.p99_at_most)
    });
    format!(
        "{records} records, published late p50 {:.3} ms, p99 {:.3}; {own}{missing} of {expected} deliveries missing, \
        {partial} records not everywhere",
        late.p50, late.p99
    )
}

/// Returns the names of the columns of [`row`].
fn heading() -> String {
    format!(
        "{:<11}{:>4} | {:>9}{:>9}{:>9}{:>9}{:>9} | {:>9}{:>9}{:>9} | {:>7}{:>7}{:>7} | {:>7}{:>8} | {:>6}{:>6}{:>7}",
        "system",
        "N",
        "one p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "all p50",
        "p99",
        "max",
        "copies",
        "dgrams",
        "bytes",
        "idle/s",
        "bytes/s",
        "idle%",
        "busy%",
        "driver%"
    )
}

/// Returns the figures of one run, or the medians of several, as a row of the table.
fn row(measures: &Measures) -> String {
    let Measures { system, nodes, one_ms: one, all_ms: all, .. } = measures;
    format!(
        "{system:<11}{nodes:>4} | {:>9.3}{:>9.3}{:>9.3}{:>9.3}{:>9.3} | {:>9.3}{:>9.3}{:>9.3} | {:>7.3}{:>7.2}{:>7.0} | {:>7.1}{:>8.0} | {:>6.1}{:>6.1}{:>7.1}",
        one.p50,
        one.p90,
        one.p99,
        one.p999,
        one.max,
        all.p50,
        all.p99,
        all.max,
        measures.copies_per_delivery,
        measures.datagrams_per_record_per_node,
        measures.bytes_per_record_per_node,
        measures.idle_datagrams_per_node_per_s,
        measures.idle_bytes_per_node_per_s,
        measures.idle_cpu_percent,
        measures.busy_cpu_percent,
        measures.driver_cpu_percent
    )
}
