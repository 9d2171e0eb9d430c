//! What a run has shown: the verdict, the figures, and the files in which it is kept.

use std::path::Path;

use anode_loadgen::Outcome;
use serde::Serialize;

use super::spec::Spec;
use crate::checker::{Figures, Report, timeline};
use crate::link::counts::Totals;
use crate::profile::Profile;

/// A promise that was broken, of those that need no checker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Greatest number of seconds from the start of a node under load until it was ready; `None` without a start.
    pub slowest_start_s: Option<f64>,
    /// Seconds from the end of faults and load until all nodes held the same; `None` if they did not.
    pub equal_s: Option<f64>,
    /// Counts of the links in user space.
    pub links: Option<Totals>,
    /// What faults have had to tell.
    pub notes: Vec<String>,
    /// Bounds in time that were passed while the machine had too much to do to judge them.
    pub unjudged: Vec<Broken>,
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
    pub fn new(spec: &Spec, report: Report, mut broken: Vec<Broken>, mut measured: Measured) -> Summary {
        let calm_us = report.faults.iter().map(|fault| fault.began_us).min().unwrap_or(0);
        let slow = slower(&spec.profile, &report.figures, calm_us);
        let is_scarce = report.figures.scarcity.is_too_great();
        if is_scarce { &mut measured.unjudged } else { &mut broken }.extend(slow);
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
        for late in &self.measured.unjudged {
            text += &format!(
                "\n  not judged: {}, because the machine had too much to do: {}",
                late.promise, late.detail
            );
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
            ms(figures.latency_healthy.p99_us),
            ms(figures.latency_after.p99_us),
            self.measured.slowest_start_s.map_or("–".to_owned(), |seconds| format!("{seconds:.1}")),
            self.measured.equal_s.map_or("never".to_owned(), |seconds| format!("{seconds:.1}")),
            settled.map_or("–".to_owned(), |us| format!("{:.1}", us as f64 / 1e6)),
            format!("{}/{}", figures.false_suspicions.suspected, figures.false_suspicions.declared_dead),
            format!("{wire:.1}"),
            format!("{}", memory / (1024 * 1024)),
            format!(
                "{:.1}/{:.0}",
                figures.scarcity.mean_us as f64 / 1e3,
                figures.scarcity.longest_us as f64 / 1e3
            ),
            self.verdict(),
        ]
    }

    fn verdict(&self) -> String {
        if !self.is_kept() {
            return self.broken_names().join(", ");
        }
        let mut unjudged = self.report.unjudged();
        unjudged.extend(self.measured.unjudged.iter().map(|late| late.promise));
        unjudged.dedup();
        if unjudged.is_empty() {
            "kept".to_owned()
        } else {
            format!("kept; not judged: {}", unjudged.join(", "))
        }
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
pub const HEAD: [&str; 18] = [
    "profile",
    "nodes",
    "s",
    "seed",
    "reached/s",
    "delivered/s",
    "p99 ms before",
    "during",
    "healthy nodes",
    "after",
    "start s",
    "equal s",
    "recovered s",
    "false suspect/dead",
    "wire/useful",
    "MiB max",
    "waited ms",
    "promises",
];

/// Time without faults before the first one, in microseconds, that a difference of a few percent can be compared with.
/// The 99th percentiles of single seconds without any fault were between 3.8 and 8.5 ms.
const CALM_US_MIN: u64 = 5_000_000;

/// Says by how much deliveries were slower under faults than in the `calm_us` microseconds before, if that is more than the
/// profile allows.
fn slower(profile: &Profile, figures: &Figures, calm_us: u64) -> Vec<Broken> {
    let before_us = figures.latency_before.p99_us;
    let healthy_ratio_max = profile.healthy_p99_ratio_max.filter(|_| calm_us >= CALM_US_MIN);
    let bounds = [
        ("p99", profile.p99_ratio_max, figures.latency_during.p99_us, "all nodes"),
        ("p99-of-healthy", healthy_ratio_max, figures.latency_healthy.p99_us, "healthy nodes"),
    ];
    let late = bounds.into_iter().filter_map(|(promise, most, during_us, of)| {
        let most = most?;
        let is_slower = before_us > 0 && f64::from(during_us) > most * f64::from(before_us);
        let detail = format!(
            "p99 of deliveries of {of} was {during_us} µs under faults and {before_us} µs before; {most} times as much is allowed"
        );
        is_slower.then_some(Broken { promise, detail })
    });
    late.collect()
}
