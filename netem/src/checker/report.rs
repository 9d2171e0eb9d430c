//! The verdict and the figures of a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Settings;
use super::evidence::Evidence;
use super::promise::{Findings, Ledger, Promise};
use super::publishes::PublishState;
use super::series::{Latencies, Second};
use super::views::FalseSuspicions;
use super::waits::Scarcity;

/// What a run has shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the run.
    pub name: String,
    /// The command that runs it again.
    pub command: String,
    /// Says that no promise was broken.
    pub is_kept: bool,
    /// The findings about every promise.
    pub promises: Vec<PromiseReport>,
    /// Figures that were measured.
    pub figures: Figures,
    /// The faults, in the order of their numbers.
    pub faults: Vec<FaultTime>,
    /// Every second of the run.
    pub seconds: Vec<Second>,
    /// For each node the number of members that it took for alive, with the time in microseconds.
    pub alive_members: BTreeMap<String, Vec<(u64, usize)>>,
}

/// The findings about a promise, with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PromiseReport {
    /// Name of the promise.
    pub promise: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
}

/// A fault in the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultTime {
    /// Name for people.
    pub name: String,
    /// Time at which it began, in microseconds since the beginning of the run.
    pub began_us: u64,
    /// Time at which it ended; `None` if it lasted to the end.
    pub ended_us: Option<u64>,
}

/// Times after the last fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// Number of records that subscribers lacked when the last fault ended.
    pub lacked: u64,
    /// Time until the last of them came, in microseconds; `None` if something is lacking still.
    pub converged_us: Option<u64>,
    /// Time until nine tenths of the usual deliveries a second were reached, in microseconds; `None` if they were not,
    /// or if there was too little before the first fault to compare with.
    pub recovered_us: Option<u64>,
}

/// Figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Length of the run in microseconds.
    pub length_us: u64,
    /// Number of records offered.
    pub offered: u64,
    /// Number of records whose level was reached.
    pub acknowledged: u64,
    /// Number of records without an answer.
    pub unanswered: u64,
    /// Numbers of errors by their code.
    pub errors: BTreeMap<String, u64>,
    /// Number of records delivered.
    pub deliveries: u64,
    /// Latency of live deliveries before the first fault, or of all without a fault.
    pub latency_before: Latencies,
    /// Latency of live deliveries while faults lasted.
    pub latency_during: Latencies,
    /// Latency of live deliveries while faults lasted, from and to nodes that no fault hit.
    pub latency_healthy: Latencies,
    /// Latency of live deliveries after the last fault.
    pub latency_after: Latencies,
    /// Times after the last fault; `None` without a fault.
    pub settled: Option<Settled>,
    /// Healthy members that were suspected or declared dead.
    pub false_suspicions: FalseSuspicions,
    /// Bytes that nodes have sent each other.
    pub wire_bytes: u64,
    /// Bytes of acknowledged data, once for every node that had to get them.
    pub useful_bytes: u64,
    /// Number of deliveries that repeated what came after a resume token.
    pub resume_overlap: u64,
    /// How long the threads of nodes waited for a processor.
    pub scarcity: Scarcity,
    /// Greatest memory of each node's process, in bytes.
    pub memory_bytes_max: BTreeMap<String, u64>,
}

impl Report {
    /// The verdict in one line: the name of the run, and the broken promises or that all were kept.
    pub fn verdict(&self) -> String {
        let tried = self.promises.iter().filter(|promise| promise.findings.checked > 0).count();
        let checks: u64 = self.promises.iter().map(|promise| promise.findings.checked).sum();
        if self.is_kept {
            return format!("{}: kept: {tried} promises, {checks} checks", self.name);
        }
        let broken = self.promises.iter().filter(|promise| promise.findings.broken > 0);
        let broken: Vec<String> = broken
            .map(|promise| format!("{} ({} times)", promise.promise, promise.findings.broken))
            .collect();
        format!("{}: BROKEN: {}", self.name, broken.join(", "))
    }

    /// The verdict with the first witnesses of every broken promise, those that the run does not speak about, and for
    /// a broken run the command that runs it again.
    pub fn text(&self) -> String {
        let mut lines = vec![self.verdict()];
        for promise in &self.promises {
            for witness in &promise.findings.witnesses {
                lines.push(format!(
                    "  {} at {:.3} s: source={} ts={} node={}: {}",
                    promise.promise,
                    witness.at_us as f64 / 1e6,
                    witness.source,
                    witness.ts,
                    witness.node,
                    witness.detail
                ));
            }
        }
        for promise in &self.promises {
            if let Some(excused) = &promise.findings.excused {
                lines.push(format!(
                    "  not judged: {} {} times, because the machine had too much to do, first at {:.3} s: {} {}",
                    promise.promise,
                    promise.findings.unjudged,
                    excused.at_us as f64 / 1e6,
                    excused.node,
                    excused.detail
                ));
            }
        }
        let untried: Vec<&str> = self
            .promises
            .iter()
            .filter(|promise| promise.findings.checked == 0 && promise.findings.unjudged == 0)
            .map(|promise| promise.promise)
            .collect();
        if !untried.is_empty() {
            lines.push(format!("  not tried: {}", untried.join(", ")));
        }
        if !self.is_kept {
            lines.push(format!("  again: {}", self.command));
        }
        lines.join("\n")
    }

    /// The report as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// The names of the promises with a bound in time that was passed while the machine had too much to do.
    pub fn unjudged(&self) -> Vec<&'static str> {
        let some = self.promises.iter().filter(|promise| promise.findings.unjudged > 0);
        some.map(|promise| promise.promise).collect()
    }

    /// The names of the broken promises.
    pub fn broken(&self) -> Vec<&'static str> {
        self.promises
            .iter()
            .filter(|promise| promise.findings.broken > 0)
            .map(|promise| promise.promise)
            .collect()
    }
}

/// Puts the report together.
pub(super) fn report(
    settings: &Settings,
    evidence: &Evidence,
    ledger: &Ledger,
    false_suspicions: FalseSuspicions,
) -> Report {
    let promises: Vec<PromiseReport> = Promise::ALL
        .iter()
        .map(|promise| PromiseReport { promise: promise.name(), findings: ledger.findings(*promise) })
        .collect();
    let faults = evidence.processes.faults().map(|span| FaultTime {
        name: span.name.clone(),
        began_us: span.began_us,
        ended_us: span.ended_us,
    });
    Report {
        name: settings.name.clone(),
        command: settings.command.clone(),
        is_kept: promises.iter().all(|promise| promise.findings.broken == 0),
        promises,
        figures: figures(evidence, false_suspicions),
        faults: faults.collect(),
        seconds: evidence.series.seconds(),
        alive_members: evidence.views.alive_counts(&evidence.nodes),
    }
}

fn figures(evidence: &Evidence, false_suspicions: FalseSuspicions) -> Figures {
    let seconds = evidence.series.seconds();
    let others = (evidence.nodes.iter().count() as u64).saturating_sub(1);
    let is_done = |state: &PublishState| matches!(state, PublishState::Done(_));
    let faulty_us = evidence.processes.faulty_us();
    let (began_us, ended_us) = faulty_us.unwrap_or((u64::MAX, u64::MAX));
    let mut figures = Figures {
        length_us: evidence.last_us,
        deliveries: seconds.iter().map(|second| second.deliveries).sum(),
        latency_before: evidence.series.latency(0, began_us),
        latency_during: evidence.series.latency(began_us, ended_us),
        latency_healthy: evidence.series.latency_healthy(began_us, ended_us),
        latency_after: evidence.series.latency(ended_us, u64::MAX),
        scarcity: evidence.waits.within(0, u64::MAX),
        false_suspicions,
        wire_bytes: evidence.costs.wire_bytes(),
        resume_overlap: evidence.subscribers.iter().map(|(_, subscriber)| subscriber.overlap).sum(),
        errors: evidence.publishes.refused().iter().map(|(code, count)| (code.clone(), *count)).collect(),
        ..Figures::default()
    };
    for offered in evidence.publishes.iter() {
        figures.offered += 1;
        figures.unanswered += u64::from(offered.state == PublishState::Unknown);
        if is_done(&offered.state) {
            figures.acknowledged += 1;
            figures.useful_bytes += u64::from(offered.data_bytes) * others;
        }
    }
    figures.settled = evidence.convergence.lacked().map(|lacked| Settled {
        lacked,
        converged_us: evidence.convergence.took_us(),
        recovered_us: faulty_us.and_then(|faulty_us| evidence.series.recovery_us(faulty_us)),
    });
    for (node, memory) in evidence.costs.memory() {
        figures.memory_bytes_max.insert(evidence.nodes.name(node).to_owned(), memory.bytes_max);
    }
    figures
}
