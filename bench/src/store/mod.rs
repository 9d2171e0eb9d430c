//! Compares the embedded store, through a whole node, with a bare loop into the same kind of file on the
//! same disk: records per second that are answered as `stored`, and how long that takes at half of the rate.
//! Then it measures how much memory the node holds after many writes of few sources.

mod bare;
mod memory;

use std::path::Path;
use std::time::Duration;

use anode_loadgen::Outcome;
use anode_loadgen::args::{AckName, RunArgs};
use anode_loadgen::report::Report;
use clap::Args;
use serde::Serialize;

use crate::document;
use crate::folder::Folder;
use crate::machine::Machine;
use crate::median::median;
use crate::node::Node;
use crate::subject::Subject;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Seconds of a run
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Sources that are written in turn
    #[arg(long, default_value_t = 10_000)]
    sources: u32,
    /// Connections that publish
    #[arg(long, default_value_t = 4)]
    publishers: u32,
    /// Unanswered records of each
    #[arg(long, default_value_t = 4_096)]
    window: usize,
    /// Only the row of resident memory
    #[arg(long)]
    memory: bool,
}

/// Size of each record's data, in bytes.
const DATA_BYTES: usize = 128;
/// How long a node may take to start.
const DEADLINE: Duration = Duration::from_secs(60);

/// The results of one run of both.
#[derive(Clone, Copy, Debug, Serialize)]
struct Seen {
    bare_per_s: f64,
    stored_per_s: f64,
    /// Median time until a record was stored, at half of `stored_per_s`, in milliseconds.
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures, prints the results, and writes them.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let anode = arguments.subject.binary()?;
    let machine = Machine::look(&anode)?;
    println!("{machine}");
    let folder = Folder::new()?;
    let memory_row = memory_row(arguments, &anode, &folder)?;
    if arguments.memory {
        println!("{memory_row}");
        return Ok(());
    }
    let mut all = Vec::new();
    for run in 1..=arguments.subject.runs() {
        let seen = once(arguments, &anode, &folder.join(format!("store-{run}")))?;
        println!("run {run}: {seen:?}, {:.2} of the bare loop", seen.stored_per_s / seen.bare_per_s);
        all.push(seen);
    }
    let of = |figure: fn(&Seen) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>());
    let ratio = of(|it| it.stored_per_s / it.bare_per_s);
    let table = format!(
        "| figure | wanted | measured |\n| --- | --- | --- |\n\
        | bare loop, records/s | | {:.0} |\n\
        | answered as `stored`, records/s | ≥ 50,000 where the bare loop does that | {:.0} |\n\
        | by the bare loop's | ≥ 0.7 | {ratio:.2} |\n\
        | at half of it, p50 and p99, ms | p99 < 25 | {:.1}, {:.1} |\n{memory_row}",
        of(|it| it.bare_per_s),
        of(|it| it.stored_per_s),
        of(|it| it.p50_ms),
        of(|it| it.p99_ms)
    );
    println!("\n{table}");
    let Some(docs) = &arguments.subject.docs else { return Ok(()) };
    let Arguments { seconds, sources, publishers, window, .. } = arguments;
    let text = format!(
        "`anode-bench store`, medians of {} runs in turns of {seconds} s: {publishers} publishers with {window} unanswered records \
        each, {sources} sources, {DATA_BYTES} bytes. The bare loop is the best of groups of {:?}.\n\n```\n{machine}\n```\n\n{table}",
        arguments.subject.runs(),
        bare::GROUPS
    );
    document::replace(&docs.join("benchmarks.md"), "store", &text)
}

/// Measures the resident memory, and returns the row of the table that tells it.
fn memory_row(arguments: &Arguments, anode: &Path, folder: &Folder) -> Outcome<String> {
    let mut all = Vec::new();
    for run in 1..=arguments.subject.runs() {
        let folder = folder.join(format!("memory-{run}"));
        let resident_mib = memory::run(anode, &folder)? as f64 / f64::from(1 << 20);
        println!("run {run}: {resident_mib:.1} MiB resident");
        leave_nothing(&folder)?;
        all.push(resident_mib);
    }
    Ok(format!(
        "| resident memory after {} sources × {} writes of {} bytes, MiB | ≤ 64 | {:.0} |\n",
        memory::SOURCES,
        memory::WRITES,
        memory::DATA_BYTES,
        median(&all)
    ))
}

fn once(arguments: &Arguments, anode: &Path, folder: &Path) -> Outcome<Seen> {
    let time = Duration::from_secs_f64(arguments.seconds / bare::GROUPS.len() as f64);
    let mut bare_per_s = 0.0f64;
    for group in bare::GROUPS {
        let bare = bare::run(folder, group, arguments.sources as usize, DATA_BYTES, time)?;
        println!("    bare loop, groups of {}: {:.0}/s", bare.group, bare.records_per_s);
        bare_per_s = bare_per_s.max(bare.records_per_s);
        leave_nothing(folder)?;
    }
    let full = load(arguments, anode, folder, "max".to_owned())?;
    leave_nothing(folder)?;
    let stored_per_s = full.throughput.acked as f64 / full.throughput.seconds;
    // A fresh node is used: the other one would first have to catch up with its backlog.
    let half = load(arguments, anode, folder, (stored_per_s / 2.0).max(1.0).to_string())?;
    leave_nothing(folder)?;
    let times = half.ack_latency.ok_or("nothing was answered")?;
    Ok(Seen { bare_per_s, stored_per_s, p50_ms: times.at("p50") / 1e3, p99_ms: times.at("p99") / 1e3 })
}

/// Removes what a run wrote and waits for the disk, so that it does not slow the next run.
fn leave_nothing(folder: &Path) -> Outcome<()> {
    std::fs::remove_dir_all(folder)?;
    rustix::fs::sync();
    Ok(())
}

/// Puts a load on a fresh node.
fn load(arguments: &Arguments, anode: &Path, folder: &Path, rate: String) -> Outcome<Report> {
    let node = Node::start(anode, folder, &["--store", "embedded", "--log-level", "warn"])?;
    node.wait_ready(DEADLINE)?;
    let mut args = RunArgs::parse(&["--threads", "1", "--drain", "30"])?;
    (args.to, args.rate, args.ack) = (vec![node.http.clone()], rate, AckName::Stored);
    (args.publishers, args.subscribers) = (arguments.publishers, 0);
    (args.sources, args.window) = (Some(arguments.sources), arguments.window);
    (args.size, args.seconds, args.server_pid) =
        (DATA_BYTES.to_string(), arguments.seconds, vec![node.pid()]);
    let report = crate::load::run(&args)?;
    match report.correctness.is_fine() {
        true => Ok(report),
        false => Err(format!("{:?}", report.correctness).into()),
    }
}
