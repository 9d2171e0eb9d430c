//! The figures that are wanted, and whether they are reached.

use std::fmt::Write;

use super::results::{Figure, Results};
use super::scenario::{SATURATED, STEADY, Seen};
use super::system::{ANODE, BUSY, LIMIT, NATS, PROTOBUF, STORED, TWO};
use crate::median::median;

/// A ratio and its bound.
pub struct Wanted {
    /// Description of the figure.
    pub what: String,
    /// The ratio that was measured.
    pub ratio: f64,
    /// The ratio that is wanted.
    pub bound: f64,
    /// Whether the bound is a least value rather than a greatest one.
    pub is_least: bool,
}

impl Wanted {
    /// Returns whether the ratio is within the bound, after the bound was eased by the factor `eased` (1: not
    /// eased).
    pub fn is_met(&self, eased: f64) -> bool {
        if self.is_least { self.ratio >= self.bound * eased } else { self.ratio <= self.bound / eased }
    }
}

fn per_cpu_s(seen: &Seen) -> f64 {
    seen.per_cpu_s
}

/// The system with which a rate is compared.
enum Other {
    Best,
    Named(&'static str),
}

/// Returns every figure for which there are measurements.
pub fn all(results: &Results) -> Vec<Wanted> {
    let [one, hundred, thousand, publishers] = SATURATED.map(|scenario| scenario.name);
    let rates = [
        (ANODE, one, Other::Named(NATS), 1.0),
        (ANODE, hundred, Other::Best, 1.0),
        (ANODE, thousand, Other::Best, 1.2),
        (ANODE, thousand, Other::Named(LIMIT), 0.7),
        (ANODE, publishers, Other::Named(NATS), 1.0),
        (PROTOBUF, publishers, Other::Named(NATS), 1.3),
        (STORED, thousand, Other::Named(ANODE), 0.75),
        (TWO, hundred, Other::Named(ANODE), 0.85),
    ];
    let mut found: Vec<Wanted> = rates
        .into_iter()
        .filter_map(|(system, scenario, other, bound)| {
            let own = results.median(system, scenario, per_cpu_s)?;
            let (name, theirs) = match other {
                Other::Best => results.best_peer(scenario, per_cpu_s, true)?,
                Other::Named(name) => (name, results.median(name, scenario, per_cpu_s)?),
            };
            let what = format!("deliveries per CPU second, {scenario}: {system} by {name}");
            Some(Wanted { what, ratio: own / theirs, bound, is_least: true })
        })
        .collect();
    let times: [(&str, Figure, f64); 3] =
        [("p50", |it| it.p50_us, 1.0), ("p99", |it| it.p99_us, 1.0), ("p99.9", |it| it.p999_us, 1.1)];
    for (system, scenario) in [ANODE, BUSY].into_iter().flat_map(|it| STEADY.map(|scenario| (it, scenario))) {
        for (percentile, figure, bound) in times {
            let own = results.median(system, scenario.name, figure);
            let best = results.best_peer(scenario.name, figure, false);
            if let Some((own, (name, theirs))) = own.zip(best) {
                let what = format!("{percentile}, {}: {system} by {name}", scenario.name);
                found.push(Wanted { what, ratio: own / theirs, bound, is_least: false });
            }
        }
    }
    found.extend(acked(results));
    found.extend(idle(results));
    found
}

fn acked(results: &Results) -> Option<Wanted> {
    let of = |name: &str| {
        let runs = &results.0.iter().find(|it| it.system == name)?.acked_p50_us;
        (!runs.is_empty()).then(|| median(runs))
    };
    let what = format!("p50 of one answered at a time: {ANODE} by {NATS}");
    Some(Wanted { what, ratio: of(ANODE)? / of(NATS)?, bound: 1.0, is_least: false })
}

fn idle(results: &Results) -> Option<Wanted> {
    let bytes = results.0.iter().find(|it| it.system == ANODE)?.idle_bytes?;
    let what = "KiB resident of an idle connection".to_owned();
    Some(Wanted { what, ratio: bytes / 1024.0, bound: 4.0, is_least: false })
}

/// Returns the figures as a table in Markdown.
pub fn table(wanted: &[Wanted]) -> String {
    let mut out = String::from("| figure | wanted | measured | |\n| --- | --- | --- | --- |\n");
    for it in wanted {
        let (sign, word) =
            (if it.is_least { "≥" } else { "≤" }, if it.is_met(1.0) { "met" } else { "short" });
        // It cannot fail: the target is a string.
        let _ = writeln!(out, "| {} | {sign} {} | {:.2} | {word} |", it.what, it.bound, it.ratio);
    }
    out
}
