//! What a run has shown: the verdict, the figures, and the files in which it is kept.

use std::path::Path;

use anode_loadgen::Outcome;
use serde::Serialize;

use super::spec::Spec;
use crate::checker::{Report, timeline};
use crate::link::counts::Totals;

/// A promise that was broken, of those that need no checker.
#[derive(Clone, Debug, Serialize)]
pub struct Broken {
    /// Name of the promise.
    pub promise: &'static str,
    /// A sentence that says what was found.
    pub detail: String,
}

/// What the runner itself has measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// Seconds for which records were published.
    pub load_s: f64,
    /// Number of records sent.
    pub sent: u64,
    /// Records that were due and not sent.
    pub held: u64,
    /// Number of records delivered.
    pub delivered: u64,
    /// Seconds from the end of faults and load until all nodes were ready.
    pub ready_s: f64,
    /// Seconds from the end of faults and load until all nodes held the same; `None` if they did not.
    pub equal_s: Option<f64>,
    /// Counts of the links in user space.
    pub links: Option<Totals>,
    /// What faults have had to tell.
    pub notes: Vec<String>,
}

/// The outcome of a run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Name of the profile.
    pub profile: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Seconds of load.
    pub seconds: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Command that runs it again.
    pub again: String,
    /// Promises that were broken, of those that need no checker.
    pub broken: Vec<Broken>,
    /// What the runner has measured.
    pub measured: Measured,
    /// What the checker has found.
    pub report: Report,
}

impl Summary {
    /// Puts a summary together.
    pub fn new(spec: &Spec, report: Report, mut broken: Vec<Broken>, measured: Measured) -> Summary {
        let figures = &report.figures;
        if let (Some(most), before, during) =
            (spec.profile.p99_ratio_max, figures.latency_before.p99_us, figures.latency_during.p99_us)
            && before > 0
            && f64::from(during) > most * f64::from(before)
        {
            let detail = format!(
                "p99 of deliveries was {during} µs under faults and {before} µs before; {most} times as much is allowed"
            );
            broken.push(Broken { promise: "p99", detail });
        }
        Summary {
            profile: spec.name.clone(),
            nodes: spec.nodes,
            seconds: spec.seconds,
            seed: spec.arguments.seed,
            again: spec.again(),
            broken,
            measured,
            report,
        }
    }

    /// Returns whether no promise was broken.
    pub fn is_kept(&self) -> bool {
        self.report.is_kept && self.broken.is_empty()
    }

    /// Returns the verdict with everything that was broken, and the command that runs it again.
    pub fn text(&self) -> String {
        let mut text = self.report.text();
        for broken in &self.broken {
            text += &format!("\n  BROKEN {}: {}", broken.promise, broken.detail);
        }
        for note in &self.measured.notes {
            text += &format!("\n  note: {note}");
        }
        if let Some(why) = self.measured.links.and_then(|links| links.bottleneck()) {
            text += &format!("\n  note: the links were the bottleneck: {why}");
        }
        if self.report.is_kept && !self.broken.is_empty() {
            text += &format!("\n  again: {}", self.again);
        }
        text
    }

    /// Writes the report as JSON and the timeline as SVG into a directory.
    pub fn write(&self, dir: &Path) -> Outcome<()> {
        std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(self)?)?;
        match timeline(&self.report) {
            Ok(svg) => std::fs::write(dir.join("timeline.svg"), svg)?,
            Err(error) => eprintln!("  no timeline: {error}"),
        }
        Ok(())
    }

    /// Returns the row of the summary in a table; [`HEAD`] names the columns.
    pub fn row(&self) -> Vec<String> {
        let figures = &self.report.figures;
        let ms = |us: u32| format!("{:.1}", f64::from(us) / 1e3);
        let rate = |count: u64| format!("{:.0}", count as f64 / self.measured.load_s.max(1.0));
        let settled = figures.settled.and_then(|settled| settled.recovered_us);
        let memory = figures.memory_bytes_max.values().max().copied().unwrap_or(0);
        let wire = figures.wire_bytes as f64 / figures.useful_bytes.max(1) as f64;
        vec![
            self.profile.clone(),
            self.nodes.to_string(),
            self.seconds.to_string(),
            self.seed.to_string(),
            rate(figures.acknowledged),
            rate(self.measured.delivered),
            ms(figures.latency_before.p99_us),
            ms(figures.latency_during.p99_us),
            ms(figures.latency_after.p99_us),
            self.measured.equal_s.map_or("never".to_owned(), |seconds| format!("{seconds:.1}")),
            settled.map_or("–".to_owned(), |us| format!("{:.1}", us as f64 / 1e6)),
            format!("{}/{}", figures.false_suspicions.suspected, figures.false_suspicions.declared_dead),
            format!("{wire:.1}"),
            format!("{}", memory / (1024 * 1024)),
            if self.is_kept() { "kept".to_owned() } else { self.broken_names().join(", ") },
        ]
    }

    fn broken_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.report.broken().iter().map(|name| format!("BROKEN {name}")).collect();
        names.extend(self.broken.iter().map(|broken| format!("BROKEN {}", broken.promise)));
        names.dedup();
        names
    }
}

/// The columns of the table.
pub const HEAD: [&str; 15] = [
    "profile",
    "nodes",
    "s",
    "seed",
    "reached/s",
    "delivered/s",
    "p99 ms before",
    "during",
    "after",
    "equal s",
    "recovered s",
    "false suspect/dead",
    "wire/useful",
    "MiB max",
    "promises",
];
