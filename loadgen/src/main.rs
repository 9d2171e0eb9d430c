//! `anode-loadgen`: load for a node or a cluster, or for another broker.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a load generator sleeps")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anode_loadgen::access::AccessArgs;
use anode_loadgen::args::{PREFIX, RunArgs};
use anode_loadgen::engine;
use anode_loadgen::find_max::{Search, Trials};
use anode_loadgen::machine::{Machine, cpu_seconds, resident_bytes};
use anode_loadgen::plan::{Plan, Target, Transport};
use anode_loadgen::progress::{Interrupt, Progress};
use anode_loadgen::replay::Recording;
use anode_loadgen::report::{Report, compare, html, text};
use anode_loadgen::{Outcome, clean, fill, idle, latency};
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  One publisher at 10,000 messages a second, 100 subscribers, every payload verified:
    anode-loadgen run --rate 10000 --subscribers 100 --verify
  As fast as it goes, 64 publishers, in protobuf, with the node's CPU time in the report:
    anode-loadgen run --rate max -p 64 --format protobuf --server-pid $(pidof anode) --html out.html
  A hundred thousand sources of which a few are hot, random arrivals, at a cluster:
    anode-loadgen run --to a:7070,b:7070 --sources 100000 --skew 1.1 --shape poisson --rate 50000 --mode latest
  The same load for NATS over WebSocket, then both side by side:
    anode-loadgen run --target nats --transport ws --to 127.0.0.1:8080 --report nats.json
    anode-loadgen run --report anode.json && anode-loadgen compare nats.json anode.json
  The highest rate at which 99 % of all deliveries take at most 5 ms:
    anode-loadgen find-max --p99-ms 5 --subscribers 100
  Delete the sources that runs have left behind at a cluster:
    anode-loadgen clean --to 127.0.0.1:7070
  What anode sub has recorded, at ten times the speed:
    anode sub 'sensors/**' --mode all > day.jsonl; anode-loadgen replay day.jsonl --speed 10

Exit codes: 0 done, 1 failed or something was lost, refused or wrong, 2 unusable arguments.";

/// Load for aNode, NATS, MQTT brokers and Redis, and what came of it.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish and subscribe as told, and report throughput, latencies and losses
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// Publish the records of a file again, at the times at which they were
    Replay {
        /// Lines of JSON with source, data and ts, as anode sub prints them
        file: PathBuf,
        /// 2 is twice as fast
        #[arg(long, default_value_t = 1.0)]
        speed: f64,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Find the highest rate at which a latency holds and nothing is lost, in runs of --seconds each, and say how sure it is
    FindMax {
        /// Milliseconds that the 99th percentile may take
        #[arg(long, default_value_t = 10.0)]
        p99_ms: f64,
        /// The first rate that is tried
        #[arg(long, default_value_t = 10_000.0)]
        from: f64,
        /// The highest one
        #[arg(long, default_value_t = 100_000_000.0)]
        most: f64,
        /// How well the answer must be known: 0.05 is to five per cent
        #[arg(long, default_value_t = 0.05)]
        precision: f64,
        /// Runs at a rate, of which most decide whether it holds
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
        runs: u32,
        /// Runs in all at the rate that was found, which say how sure it is
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=999))]
        confirm: u32,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Compare two JSON reports
    Compare {
        /// The first
        before: PathBuf,
        /// The second
        after: PathBuf,
        /// Exit 1 if a figure of the second is worse by more than this factor
        #[arg(long)]
        worse_max: Option<f64>,
    },
    /// Publish at a constant rate at one node, receive at others, print each one's percentiles
    Latency {
        /// host:port to publish to, with TLS wss://host:port
        #[arg(long, default_value = "127.0.0.1:7070")]
        publish: String,
        /// host:port to subscribe to, with TLS wss://host:port, several split by commas
        #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7070")]
        subscribe: Vec<String>,
        #[command(flatten)]
        access: AccessArgs,
        /// Records a second
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// How long
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Sources, published to in turn
        #[arg(long, default_value_t = 100)]
        sources: u32,
        /// Bytes of padding in each record's data
        #[arg(long, default_value_t = 100)]
        padding_bytes: usize,
    },
    /// Publish many sources once, acknowledged as stored
    Fill {
        /// host:port, with TLS wss://host:port
        #[arg(long, default_value = "127.0.0.1:7070")]
        to: String,
        #[command(flatten)]
        access: AccessArgs,
        /// How many sources
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
        /// Records a frame
        #[arg(long, default_value_t = 1_000)]
        batch: u64,
        /// First segments of the sources' names
        #[arg(long, default_value = "loadgen/fill")]
        prefix: String,
        /// Bytes of padding in each record's data
        #[arg(long, default_value_t = 100)]
        padding_bytes: usize,
    },
    /// aNode: delete all sources that runs have made
    Clean {
        /// host:port, with TLS wss://host:port
        #[arg(long, default_value = "127.0.0.1:7070")]
        to: String,
        #[command(flatten)]
        access: AccessArgs,
        /// First segments of the names of the sources that are deleted
        #[arg(long, default_value = PREFIX)]
        prefix: String,
    },
    /// Open idle subscribers, hold them, and tell what they cost the server
    Idle {
        /// What they are held open at
        #[arg(long, value_enum, default_value = "anode")]
        target: Target,
        /// tcp or ws [default: ws for aNode, tcp for the others]
        #[arg(long, value_enum)]
        transport: Option<Transport>,
        /// host:port, with TLS wss://host:port [default: the target's port on 127.0.0.1]
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        access: AccessArgs,
        /// How many
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Process of the server: prints what each connection costs it, resident
        #[arg(long)]
        pid: Option<u32>,
        /// How long to hold them
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Addresses to connect from, in turn: each has some 28,000 ports
        #[arg(long, value_delimiter = ',')]
        local_address: Vec<IpAddr>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Run(args) => match args.plan(None) {
            Ok(plan) => measure(&args, plan),
            Err(reason) => Ok(unusable(&reason)),
        },
        Command::Replay { file, speed, run } => replay(&file, speed, &run),
        Command::FindMax { p99_ms, from, most, precision, runs, confirm, run } => {
            if !(p99_ms > 0.0 && from > 0.0 && most >= from && precision > 0.0) {
                return Ok(unusable(
                    "--p99-ms, --from, --most, --precision: must be above 0, --most not below --from",
                ));
            }
            let hunt = Hunt { args: &run, p99_ms, runs, interrupt: Interrupt::listen()?, own_limit: None };
            find_max(hunt, confirm, (from, most, precision))
        }
        Command::Compare { before, after, worse_max } => compare_files(&before, &after, worse_max),
        Command::Latency { publish, subscribe, access, rate, seconds, sources, padding_bytes } => {
            let warmup = rate;
            let plan = latency::Plan {
                access,
                publish,
                subscribe,
                rate_per_s: rate,
                seconds,
                warmup,
                sources,
                padding_bytes,
            };
            print_latencies(&plan)
        }
        Command::Fill { to, access, count, batch, prefix, padding_bytes } => {
            fill::run(&to, &access, &prefix, count, batch.max(1), padding_bytes)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Clean { to, access, prefix } => {
            let count = clean::run(&to, &access, &prefix)?;
            println!("deleted {count} sources beneath {prefix}/");
            Ok(ExitCode::SUCCESS)
        }
        Command::Idle { target, transport, to, access, connections, pid, seconds, local_address } => {
            let mut args = RunArgs::parse(&[])?;
            (args.target, args.transport, args.local_address) = (target, transport, local_address);
            (args.to, args.access) = (to.into_iter().collect(), access);
            hold_idle(args, connections, pid, seconds)
        }
    }
}

fn unusable(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(2)
}

fn one_run(args: &RunArgs, plan: Plan, interrupt: &Interrupt) -> Outcome<Report> {
    let parameters = args.parameters(&plan);
    let (plan, machine) = (Arc::new(plan), Machine::look());
    let whole_s = plan.whole_ns() as f64 / 1e9;
    let interrupt = interrupt.clone();
    let mut progress =
        if args.quiet { Progress::hidden(interrupt) } else { Progress::new(whole_s, interrupt) };
    let measured = engine::run(&plan, &mut progress)?;
    drop(progress);
    let labels = args.label.iter().cloned().collect();
    Ok(Report::new(&plan, &measured, parameters, labels, machine))
}

fn measure(args: &RunArgs, plan: Plan) -> Outcome<ExitCode> {
    let report = one_run(args, plan, &Interrupt::listen()?)?;
    print!("{}", text::write(&report));
    keep(args, &report)?;
    Ok(if report.correctness.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn keep(args: &RunArgs, report: &Report) -> Outcome<()> {
    if let Some(path) = &args.html {
        write(path, &html::write(report)?)?;
    }
    if let Some(path) = &args.report {
        write(path, &serde_json::to_string_pretty(report)?)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(report)?);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn replay(file: &Path, speed: f64, args: &RunArgs) -> Outcome<ExitCode> {
    if !(speed > 0.0 && speed <= 1e6) {
        return Ok(unusable("--speed: must be above 0, at most 1,000,000"));
    }
    let open = std::fs::File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let recording = Recording::read(std::io::BufReader::new(open), speed)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    if recording.deletions > 0 {
        eprintln!("{} deletions are left out", recording.deletions);
    }
    match args.plan(Some(recording)) {
        Ok(plan) => measure(args, plan),
        Err(reason) => Ok(unusable(&reason)),
    }
}

/// A search for the highest rate that holds, with the runs that it needs.
struct Hunt<'a> {
    args: &'a RunArgs,
    p99_ms: f64,
    /// Runs at a rate, of which most decide.
    runs: u32,
    interrupt: Interrupt,
    /// Why the generator itself may have been too slow in a run that did not hold.
    own_limit: Option<String>,
}

impl Hunt<'_> {
    /// Runs once at a rate, prints what came of it, and returns the report if the bound held.
    fn run_once(&mut self, rate: f64, trials: &mut Trials) -> Outcome<Option<Report>> {
        let args = RunArgs { rate: rate.to_string(), ..self.args.clone() };
        let report = one_run(&args, args.plan(None)?, &self.interrupt)?;
        if self.interrupt.is_set() {
            return Err("interrupted".into());
        }
        let why_not = report.exceeds(self.p99_ms);
        let times = report.latency.as_ref().or(report.ack_latency.as_ref());
        let p99 = times.map_or("none".to_owned(), |times| text::time(times.at("p99")));
        println!("{rate:>12.0}/s  p99 {p99:>12}  {}", why_not.as_deref().unwrap_or("held"));
        trials.note(why_not.is_none());
        if why_not.is_none() {
            return Ok(Some(report));
        }
        self.own_limit = report.generator.is_bottleneck.or(self.own_limit.take());
        Ok(None)
    }

    /// Runs at a rate until most of `of` runs have decided. Returns whether it holds, the runs, and a report of one
    /// that held.
    fn decide(&mut self, rate: f64, of: u32) -> Outcome<(bool, Trials, Option<Report>)> {
        let (mut trials, mut last) = (Trials::default(), None);
        loop {
            last = self.run_once(rate, &mut trials)?.or(last);
            if let Some(is_held) = trials.verdict(of) {
                return Ok((is_held, trials, last));
            }
        }
    }
}

/// Runs at one rate after the other, and then more often at the rate that was found. If that does not hold any more, the
/// search goes on below it. The report of the last run that held is kept.
fn find_max(mut hunt: Hunt<'_>, confirm: u32, bounds: (f64, f64, f64)) -> Outcome<ExitCode> {
    if let Err(reason) = hunt.args.plan(None) {
        return Ok(unusable(&reason));
    }
    let (from, most, precision) = bounds;
    let mut search = Search::new(from, most, precision);
    // What came of each rate that was tried, and the report of the best one.
    let mut tried: Vec<(f64, Trials)> = Vec::new();
    let (rate, trials, report) = loop {
        let mut best = None;
        while let Some(rate) = search.next() {
            let (is_held, trials, report) = hunt.decide(rate, hunt.runs)?;
            tried.push((rate, trials));
            if is_held {
                best = Some((rate, trials, report));
            }
            search.note(rate, is_held);
        }
        let Some((rate, mut trials, mut report)) = best else {
            warn_of(&hunt);
            return Err("no rate holds in most runs".into());
        };
        while trials.runs < confirm {
            report = hunt.run_once(rate, &mut trials)?.or(report);
        }
        if trials.verdict(trials.runs) == Some(true) {
            break (rate, trials, report);
        }
        println!(
            "{rate:>12.0}/s  held in {} of {} runs, which is not most: searching below",
            trials.held, trials.runs
        );
        tried.push((rate, trials));
        search = Search::new(from.min(rate / 2.0), rate * (1.0 - precision), precision);
    };
    warn_of(&hunt);
    println!("highest rate with p99 of at most {} ms: {rate:.0}/s", hunt.p99_ms);
    let sure = format!(
        "held in {} of {} runs: with a confidence of 95 %, it holds in {:.0} % of all runs or more",
        trials.held,
        trials.runs,
        trials.share_min() * 100.0
    );
    println!("{sure}");
    let above = tried.iter().filter(|(other, _)| *other > rate).min_by(|a, b| a.0.total_cmp(&b.0));
    match above {
        Some((other, trials)) => {
            println!(
                "the next higher rate that was tried, {other:.0}/s, held in {} of {} runs",
                trials.held, trials.runs
            );
        }
        None => println!("no higher rate was tried: --most is {most:.0}"),
    }
    if let Some(mut report) = report {
        report.labels.insert("find_max".to_owned(), format!("{rate:.0}/s {sure}"));
        keep(hunt.args, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn warn_of(hunt: &Hunt<'_>) {
    if let Some(why) = &hunt.own_limit {
        println!("WARNING: where it did not hold, the generator may have been the bottleneck: {why}");
    }
}

fn compare_files(before: &Path, after: &Path, worse_max: Option<f64>) -> Outcome<ExitCode> {
    let read = |path: &Path| -> Outcome<Report> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    };
    let (before, after) = (read(before)?, read(after)?);
    print!("{}", compare::write(&before, &after));
    let rows = compare::rows(&before, &after);
    let is_worse = |row: &compare::Row| worse_max.is_some_and(|most| row.worse() > most);
    for row in rows.iter().filter(|row| is_worse(row)) {
        println!("{} is worse by {:.2}", row.name, row.worse());
    }
    Ok(if rows.iter().any(is_worse) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_latencies(plan: &latency::Plan) -> Outcome<ExitCode> {
    println!("{plan:?}");
    for seen in latency::run(plan)? {
        let (counted, missing) = (seen.latency_ns.len(), seen.missing);
        println!("{}: {}; {counted} counted, {missing} missing", seen.http, seen.percentiles());
    }
    Ok(ExitCode::SUCCESS)
}

fn hold_idle(args: RunArgs, connections: usize, pid: Option<u32>, seconds: u64) -> Outcome<ExitCode> {
    let pids: Vec<u32> = pid.into_iter().collect();
    let before = resident_bytes(&pids)?;
    let idle = idle::Idle::open_with(args, connections)?;
    let cpu_before = cpu_seconds(&pids)?;
    std::thread::sleep(Duration::from_secs(seconds));
    idle.check()?;
    if !pids.is_empty() {
        let each = resident_bytes(&pids)?.saturating_sub(before) / idle.len().max(1) as u64;
        let cpu = cpu_seconds(&pids)? - cpu_before;
        println!("{} connections, {each} resident bytes each, {cpu:.2} CPU s in {seconds} s", idle.len());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_pages_are_understood() {
        let pages = [include_str!("../../docs/loadgen.md"), include_str!("../../docs/benchmarks.md")];
        let text = pages.join("\n").replace("\\\n", " ").replace("$(pidof anode)", "1");
        let commands: Vec<&str> = text.lines().filter(|line| line.starts_with("anode-loadgen ")).collect();
        assert!(commands.len() > 10, "{commands:?}");
        for command in commands {
            // A comment may stand behind a command.
            let words = command.split(" # ").next().unwrap_or_default().split_whitespace();
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
    }
}
