//! Compares aNode and its peers by one command: the same load, in turns (A B A B), with the server alone on
//! one core and the load on another. Every measurement has a fresh server.
//!
//! By file: `install` finds or fetches the peers, `system` starts them, `scenario` puts load on each, `acked`
//! measures messages answered one at a time, `results` makes medians and tables, `wanted` has the figures
//! that are wanted.

mod acked;
mod install;
mod results;
mod scenario;
mod system;
mod wanted;

use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;
use clap::Args;

use crate::chart::{self, Group};
use crate::document;
use crate::folder::Folder;
use crate::machine::Machine;
use crate::subject::Subject;
pub use install::Programs;
use results::Results;
use scenario::{SATURATED, STEADY, Scenario};
use system::{ANODE, BUSY, LIMIT, NATS, PROTOBUF, SINGLY, STORED, System, TWO};

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Seconds that count of a run at saturation
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Seconds that count of a run at a constant rate
    #[arg(long, default_value_t = 8.0)]
    steady_seconds: f64,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Messages of a run that are answered one at a time
    #[arg(long, default_value_t = 5_000)]
    acked: usize,
    /// Only systems whose name holds one of these, aNode's besides
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Two minutes: ratios against NATS and the limit alone, with generous bounds; exit 1 if one is missed
    #[arg(long)]
    short: bool,
    /// Where the results go, as JSON
    #[arg(long, default_value = "target/peers.json")]
    json: PathBuf,
}

/// Factor by which a figure of a short run may be worse than is wanted: a short run only guards against
/// regressions.
const EASED: f64 = 0.6;

/// Measures, prints the results, and writes them.
pub fn run(arguments: Arguments) -> Outcome<()> {
    anode_loadgen::raise_open_files();
    let anode = std::fs::canonicalize(arguments.subject.binary()?)?;
    let machine = Machine::look(&anode)?;
    println!("{machine}");
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("two cores are needed: one for the server, one for the load".into());
    }
    let programs = Programs::find(&std::env::current_dir()?.join("target/peers"))?;
    let (mut systems, missing) = system::systems(&anode, &machine.version, &programs);
    missing.iter().for_each(|line| println!("{line}"));
    let wanted = |name: &str| match arguments.short {
        true => [ANODE, NATS, LIMIT, PROTOBUF].contains(&name),
        false => {
            let is_named = |part: &String| name.to_lowercase().contains(&part.to_lowercase());
            arguments.only.is_empty() || name == ANODE || arguments.only.iter().any(is_named)
        }
    };
    systems.retain(|system| wanted(system.name));
    let folder = Folder::new()?;
    let results = match arguments.short {
        true => Rounds { arguments: &arguments, folder: &folder, number: 0 }.short(&systems)?,
        false => Rounds { arguments: &arguments, folder: &folder, number: 0 }.all(&systems)?,
    };
    let figures = wanted::all(&results);
    println!("\n{}\n{}", results.tables(), wanted::table(&figures));
    std::fs::write(&arguments.json, serde_json::to_string_pretty(&results)?)?;
    if let Some(docs) = &arguments.subject.docs {
        let parameters = parameters(&arguments, &machine, &missing);
        write(docs, &format!("{parameters}\n\n{}\n{}", wanted::table(&figures), results.tables()), &results)?;
    }
    match figures.iter().find(|figure| arguments.short && !figure.is_met(EASED)) {
        Some(figure) => Err(format!("regression: {}: {:.2}", figure.what, figure.ratio).into()),
        None => Ok(()),
    }
}

/// The settings and the progress of all measurements.
struct Rounds<'a> {
    arguments: &'a Arguments,
    folder: &'a Folder,
    number: usize,
}

impl Rounds<'_> {
    fn all(&mut self, systems: &[System]) -> Outcome<Results> {
        let mut results = Results::new(systems);
        for run in 1..=self.arguments.subject.runs() {
            for scenario in SATURATED {
                // At saturation a server never sleeps, so polling before it does makes no difference.
                for system in systems.iter().filter(|system| system.name != BUSY) {
                    self.load(run, &scenario, system, self.arguments.seconds, &mut results);
                }
            }
            // Systems that differ from aNode only in their settings show no other latencies.
            let is_steady = |name| ![STORED, TWO, SINGLY].contains(&name);
            for scenario in STEADY {
                for system in systems.iter().filter(|system| is_steady(system.name)) {
                    self.load(run, &scenario, system, self.arguments.steady_seconds, &mut results);
                }
            }
            self.acked(systems, &mut results);
        }
        let is_idle = |name| [PROTOBUF, STORED, BUSY, TWO, SINGLY].contains(&name);
        for system in systems.iter().filter(|system| !is_idle(system.name)) {
            self.idle(system, &mut results);
        }
        Ok(results)
    }

    fn short(&mut self, systems: &[System]) -> Outcome<Results> {
        let mut results = Results::new(systems);
        for run in 1..=2 {
            for scenario in SATURATED {
                for system in systems {
                    self.load(run, &scenario, system, 1.5, &mut results);
                }
            }
            self.acked(systems, &mut results);
        }
        Ok(results)
    }

    fn server(&mut self, system: &System) -> Outcome<system::Server> {
        self.number += 1;
        system.start(&self.folder.join(format!("peers-{}", self.number)))
    }

    /// Makes one run of one system. If it fails, that is printed and the run is left out.
    fn load(
        &mut self,
        run: usize,
        scenario: &Scenario,
        system: &System,
        seconds: f64,
        results: &mut Results,
    ) {
        let seen = self.server(system).and_then(|server| scenario.run(system, &server, seconds));
        match seen {
            Ok(seen) => {
                println!(
                    "run {run}  {:22} {:22} {:7.3} M/CPU s  {:7.3} M/s  {:4.2} cores  load {:3.0} %  p50 {:.0} p99 {:.0} p99.9 {:.0} µs  lost {}",
                    scenario.name,
                    system.name,
                    seen.per_cpu_s / 1e6,
                    seen.per_s / 1e6,
                    seen.server_cores,
                    100.0 * seen.load_busy,
                    seen.p50_us,
                    seen.p99_us,
                    seen.p999_us,
                    seen.lost
                );
                if let Some(measured) = results.of(system.name) {
                    measured.runs.entry(scenario.name.to_owned()).or_default().push(seen);
                }
            }
            Err(error) => println!("run {run}  {} {}: NOT MEASURED: {error}", scenario.name, system.name),
        }
    }

    fn acked(&mut self, systems: &[System], results: &mut Results) {
        let count = self.arguments.acked;
        for system in systems.iter().filter(|system| [ANODE, NATS].contains(&system.name)) {
            let seen = self.server(system).and_then(|server| match system.name {
                ANODE => acked::anode(&server.address, count),
                _ => acked::nats(&server.address, count),
            });
            match seen {
                Ok(seen) => {
                    let [p50, p99] = [0.5, 0.99].map(|q| seen.value_at_quantile(q) as f64 / 1e3);
                    println!("one answered at a time  {:22} p50 {p50:.1} p99 {p99:.1} µs", system.name);
                    if let Some(measured) = results.of(system.name) {
                        measured.acked_p50_us.push(p50);
                    }
                }
                Err(error) => println!("one answered at a time  {}: NOT MEASURED: {error}", system.name),
            }
        }
    }

    fn idle(&mut self, system: &System, results: &mut Results) {
        let connections = self.arguments.connections;
        let seen = self.server(system).and_then(|server| scenario::idle_bytes(system, &server, connections));
        match seen {
            Ok(bytes) => {
                println!("idle  {:22} {bytes:.0} bytes each of {connections}", system.name);
                if let Some(measured) = results.of(system.name) {
                    measured.idle_bytes = Some(bytes);
                }
            }
            Err(error) => println!("idle  {}: NOT MEASURED: {error}", system.name),
        }
    }
}

fn parameters(arguments: &Arguments, machine: &Machine, missing: &[String]) -> String {
    let Arguments { seconds, steady_seconds, connections, .. } = arguments;
    let mut text = format!(
        "`anode-bench peers`, medians of {} runs in turns of {seconds} s ({steady_seconds} s at constant rates) behind 1 s of \
        warm-up, payloads of {} bytes, {connections} idle connections.\n\n```\n{machine}\n```",
        arguments.subject.runs(),
        scenario::PAYLOAD_BYTES
    );
    if !arguments.only.is_empty() {
        text += &format!("\n\nOnly aNode and {} were asked for.", arguments.only.join(", "));
    }
    for line in missing {
        text += &format!("\n\n{line}");
    }
    text
}

/// Writes the section of the page, and the charts.
fn write(docs: &Path, text: &str, results: &Results) -> Outcome<()> {
    let charts = docs.join("benchmarks");
    std::fs::create_dir_all(&charts)?;
    let saturated = groups(results, &SATURATED, |seen| seen.per_cpu_s / 1e6);
    let title = "Deliveries per CPU second of the server, in millions";
    std::fs::write(charts.join("peers.svg"), chart::bars(title, &saturated, |it| format!("{it:.2}")))?;
    let steady = groups(results, &STEADY, |seen| seen.p99_us);
    let title = "From due to delivered, p99 in µs";
    std::fs::write(charts.join("latency.svg"), chart::bars(title, &steady, |it| format!("{it:.0}")))?;
    let images =
        "![Deliveries per CPU second](benchmarks/peers.svg)\n\n![p99 by system](benchmarks/latency.svg)";
    document::replace(&docs.join("benchmarks.md"), "peers", &format!("{text}\n{images}"))
}

fn groups(results: &Results, scenarios: &[Scenario], figure: results::Figure) -> Vec<Group> {
    let of = |scenario: &Scenario| {
        let bars =
            results.0.iter().filter_map(|it| Some((it.system.clone(), it.median(scenario.name, figure)?)));
        Group { name: scenario.name.to_owned(), bars: bars.collect() }
    };
    scenarios.iter().map(of).collect()
}
