//! The results of all systems, as medians, tables and ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::scenario::{SATURATED, STEADY, Scenario, Seen};
use super::system::System;
use crate::median::median;

/// The results of one system.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Name of the system.
    pub system: String,
    /// Version of the program.
    pub version: String,
    /// Whether aNode is compared with this system.
    pub is_peer: bool,
    /// All runs, by scenario.
    pub runs: BTreeMap<String, Vec<Seen>>,
    /// Resident bytes per idle connection.
    pub idle_bytes: Option<f64>,
    /// Median time until a message is answered when messages are sent one at a time, in microseconds, of each
    /// run.
    pub acked_p50_us: Vec<f64>,
}

/// The results of all systems.
#[derive(Debug, Serialize)]
pub struct Results(pub Vec<Measured>);

/// Reads a figure from a run.
pub type Figure = fn(&Seen) -> f64;

impl Results {
    /// Makes results of these systems, without runs.
    pub fn new(systems: &[System]) -> Results {
        let of = |system: &System| Measured {
            system: system.name.to_owned(),
            version: system.version.clone(),
            is_peer: system.is_peer(),
            runs: BTreeMap::new(),
            idle_bytes: None,
            acked_p50_us: Vec::new(),
        };
        Results(systems.iter().map(of).collect())
    }

    /// Returns the results of one system.
    pub fn of(&mut self, system: &str) -> Option<&mut Measured> {
        self.0.iter_mut().find(|measured| measured.system == system)
    }

    /// Returns the median of a figure, if there was a run.
    pub fn median(&self, system: &str, scenario: &str, figure: Figure) -> Option<f64> {
        let measured = self.0.iter().find(|measured| measured.system == system)?;
        measured.median(scenario, figure)
    }

    /// Returns the best peer in a scenario, and the median of its figure.
    pub fn best_peer(&self, scenario: &str, figure: Figure, more_is_better: bool) -> Option<(&str, f64)> {
        let of = |it: &'_ Measured| Some((it.median(scenario, figure)?, ()));
        let peers = self.0.iter().filter(|it| it.is_peer).filter_map(|it| Some((it, of(it)?.0)));
        let best = |a: &(&Measured, f64), b: &(&Measured, f64)| a.1.total_cmp(&b.1);
        let found = if more_is_better { peers.max_by(best) } else { peers.min_by(best) };
        found.map(|(measured, value)| (measured.system.as_str(), value))
    }

    /// Returns all tables, in Markdown.
    pub fn tables(&self) -> String {
        let mut out = String::new();
        self.saturation(&mut out);
        self.latencies(&mut out);
        self.others(&mut out);
        out
    }

    fn saturation(&self, out: &mut String) {
        out.push_str(
            "Deliveries per CPU second of the server at saturation, in millions, and by the best peer's:\n\n",
        );
        head(out, &SATURATED);
        for measured in &self.0 {
            let _ = write!(out, "| {} |", measured.system);
            for scenario in &SATURATED {
                let cell = measured.median(scenario.name, |seen| seen.per_cpu_s).map(|value| {
                    let best = self.best_peer(scenario.name, |seen| seen.per_cpu_s, true);
                    let lost = measured.lost(scenario.name);
                    let ratio = best.map_or(String::new(), |(_, best)| format!(" ({:.2})", value / best));
                    let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
                    format!("{:.2}{ratio}{lost}", value / 1e6)
                });
                let _ = write!(out, " {} |", cell.unwrap_or_default());
            }
            out.push('\n');
        }
    }

    fn latencies(&self, out: &mut String) {
        out.push_str("\nFrom due to delivered at the same rates, p50 / p99 / p99.9 in µs:\n\n");
        head(out, &STEADY);
        for measured in self.0.iter().filter(|it| STEADY.iter().any(|s| it.runs.contains_key(s.name))) {
            let _ = write!(out, "| {} |", measured.system);
            for scenario in &STEADY {
                let at = |figure: Figure| measured.median(scenario.name, figure).map(|us| format!("{us:.0}"));
                let cell = [at(|it| it.p50_us), at(|it| it.p99_us), at(|it| it.p999_us)];
                let cell: Vec<String> = cell.into_iter().flatten().collect();
                let lost = measured.lost(scenario.name);
                let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
                let _ = write!(out, " {}{lost} |", cell.join(" / "));
            }
            out.push('\n');
        }
    }

    fn others(&self, out: &mut String) {
        out.push_str(
            "\n| | resident bytes of an idle connection | p50 of one answered at a time, µs | version |\n",
        );
        out.push_str("| --- | --- | --- | --- |\n");
        for measured in &self.0 {
            let idle = measured.idle_bytes.map_or(String::new(), |bytes| format!("{bytes:.0}"));
            let acked = match measured.acked_p50_us.as_slice() {
                [] => String::new(),
                runs => format!("{:.0}", median(runs)),
            };
            let _ = writeln!(out, "| {} | {idle} | {acked} | {} |", measured.system, measured.version);
        }
    }
}

fn head(out: &mut String, scenarios: &[Scenario]) {
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    let _ = writeln!(out, "| | {} |\n| --- |{}", names.join(" | "), " --- |".repeat(names.len()));
}

impl Measured {
    /// Returns the median of a figure over the runs of a scenario.
    pub fn median(&self, scenario: &str, figure: Figure) -> Option<f64> {
        let runs: Vec<f64> = self.runs.get(scenario)?.iter().map(figure).collect();
        (!runs.is_empty()).then(|| median(&runs))
    }

    fn lost(&self, scenario: &str) -> u64 {
        self.runs.get(scenario).into_iter().flatten().map(|seen| seen.lost).sum()
    }
}
