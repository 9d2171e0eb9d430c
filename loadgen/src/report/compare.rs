//! Writes two reports side by side, with ratios.

use std::fmt::{self, Write};

use super::Report;
use super::text::time;

/// Reads a figure from a report, if the report has it.
type Figure = fn(&Report) -> Option<f64>;

/// A figure of both reports, and whether more of it is better.
pub struct Row {
    /// The name of the figure.
    pub name: String,
    /// The value in the first report.
    pub before: f64,
    /// The value in the second report.
    pub after: f64,
    /// Whether more is better.
    pub is_rate: bool,
}

impl Row {
    /// Returns the second value divided by the first.
    pub fn ratio(&self) -> f64 {
        self.after / self.before
    }

    /// Returns by which factor the second value is worse; under 1 if it is better.
    pub fn worse(&self) -> f64 {
        if self.is_rate { self.before / self.after } else { self.ratio() }
    }
}

/// Returns the figures that both reports have.
pub fn rows(before: &Report, after: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, is_rate, before: Option<f64>, after: Option<f64>| {
        if let (Some(before), Some(after)) = (before, after)
            && before > 0.0
            && after > 0.0
        {
            rows.push(Row { name: name.to_owned(), before, after, is_rate });
        }
    };
    let both = |of: Figure| (of(before), of(after));
    let rates: [(&str, Figure); 4] = [
        ("published/s", |it| Some(it.throughput.published_per_s)),
        ("delivered/s", |it| Some(it.throughput.delivered_per_s)),
        ("delivered/CPU s", |it| it.server.map(|server| server.delivered_per_cpu_s)),
        ("published/CPU s", |it| it.server.map(|server| server.published_per_cpu_s)),
    ];
    for (name, of) in rates {
        let (before, after) = both(of);
        add(name, true, before, after);
    }
    let kinds = [
        ("delivered", &before.latency, &after.latency),
        ("answered", &before.ack_latency, &after.ack_latency),
    ];
    for (kind, before, after) in kinds {
        for at in ["p50", "p90", "p99", "p99.9", "p99.99"] {
            let of = |times: &Option<super::Percentiles>| times.as_ref().map(|times| times.at(at));
            add(&format!("{kind} {at}"), false, of(before), of(after));
        }
    }
    rows
}

/// Returns the table as text, with the parameters that differ above it.
pub fn write(before: &Report, after: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = table(before, after, &mut out);
    out
}

fn table(before: &Report, after: &Report, out: &mut String) -> fmt::Result {
    for (name, one, other) in differences(before, after) {
        writeln!(out, "{name}: {one} → {other}")?;
    }
    writeln!(out, "{:<20} {:>14} {:>14} {:>8}", "", "first", "second", "ratio")?;
    for row in rows(before, after) {
        let show = |value: f64| if row.is_rate { format!("{value:.0}") } else { time(value) };
        let (first, second) = (show(row.before), show(row.after));
        writeln!(out, "{:<20} {first:>14} {second:>14} {:>8.3}", row.name, row.ratio())?;
    }
    for (which, report) in [("first", before), ("second", after)] {
        if !report.correctness.is_fine() {
            writeln!(out, "the {which} run had faults: {:?}", report.correctness)?;
        }
        if let Some(why) = &report.generator.is_bottleneck {
            writeln!(out, "in the {which} run the generator may have been the bottleneck: {why}")?;
        }
    }
    Ok(())
}

fn differences(before: &Report, after: &Report) -> Vec<(String, String, String)> {
    let all = |report: &Report| {
        let mut all = report.parameters.clone();
        all.extend(report.labels.clone());
        all.insert("machine".to_owned(), format!("{} × {}", report.machine.cores, report.machine.cpu));
        all.insert("commit".to_owned(), report.commit.clone().unwrap_or_default());
        all
    };
    let (before, after) = (all(before), all(after));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |report: &std::collections::BTreeMap<String, String>, name: &str| {
        report.get(name).cloned().unwrap_or_else(|| "–".to_owned())
    };
    let both = names.into_iter().map(|name| (name.clone(), of(&before, name), of(&after, name)));
    both.filter(|(_, one, other)| one != other).collect()
}
