//! Shows how the work with records of peers is spread over the threads of a node, for several numbers of workers.
//!
//! Two nodes form a cluster. Clients publish at one of them, so all that the other does is to receive. Its
//! threads are compared by the processor time that they take, or by their instructions, which callgrind counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::args::RunArgs;
use clap::Args;

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
    /// Numbers of workers of the node that receives, split by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    /// Records that are published each second
    #[arg(long, default_value_t = 60_000)]
    rate: u32,
    /// Seconds that records are published for
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Size of each record's payload, in bytes
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Count instructions, under callgrind, in place of processor time: use a rate of some thousand records
    #[arg(long)]
    instructions: bool,
}

/// Name of the thread that reads the cluster's sockets.
const GOSSIP: &str = "worker-0";
/// Number of sources.
const SOURCES: u32 = 10_000;
/// How long the nodes may take to find each other. Under callgrind everything takes some fifty times as long.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long the receiving node may take for what was published, after publishing has ended.
const RECEIVE_MAX: Duration = Duration::from_secs(120);

/// How long callgrind may take to write what it has counted.
const DUMP: Duration = Duration::from_secs(4);

/// Measures the processor time that each thread of a node spends on a record that a peer sent.
struct Spent {
    /// Cost of a record on each thread that has any, by the name of the thread.
    threads: BTreeMap<String, f64>,
    /// Share of all cost that is on the thread of the cluster's sockets.
    share: f64,
}

/// Measures, and prints a table.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let anode = arguments.subject.binary()?;
    println!("{}", Machine::look(&anode)?);
    let unit = if arguments.instructions { "instructions" } else { "µs of processor time" };
    println!("{} records/s of {} bytes; {unit} a received record", arguments.rate, arguments.size);
    println!(
        "| workers | {GOSSIP} | all threads | share of {GOSSIP} | threads |\n| --- | --- | --- | --- | --- |"
    );
    for &workers in &arguments.workers {
        let all: Outcome<Vec<Spent>> =
            (0..arguments.subject.runs()).map(|_| measure(arguments, &anode, workers)).collect();
        let all = all?;
        let middle = median(&all.iter().map(|spent| spent.share).collect::<Vec<f64>>());
        let nearest = |one: &&Spent, other: &&Spent| {
            (one.share - middle).abs().total_cmp(&(other.share - middle).abs())
        };
        let Some(spent) = all.iter().min_by(nearest) else { continue };
        let threads: Vec<String> =
            spent.threads.iter().map(|(name, cost)| format!("{name} {cost:.2}")).collect();
        let gossip = spent.threads.get(GOSSIP).copied().unwrap_or(0.0);
        let sum: f64 = spent.threads.values().sum();
        println!(
            "| {workers} | {gossip:.2} | {sum:.2} | {:.0} % | {} |",
            100.0 * spent.share,
            threads.join(", ")
        );
    }
    Ok(())
}

/// Measures a node with this number of workers once.
fn measure(arguments: &Arguments, anode: &Path, workers: usize) -> Outcome<Spent> {
    let folder = Folder::new()?;
    let origin_options = ["--store", "memory", "--workers", "1", "--log-level", "warn"];
    let origin = Node::start(anode, &folder.join("origin"), &origin_options)?;
    let count = workers.to_string();
    let options = ["--store", "memory", "--workers", &count, "--log-level", "warn", "--join", &origin.gossip];
    let counts = folder.join("callgrind.out");
    let program = match arguments.instructions {
        true => counting(anode, &folder, &counts)?,
        false => anode.to_owned(),
    };
    let node = Node::start(&program, &folder.join("node"), &options)?;
    for each in [&origin, &node] {
        each.wait_members(2, DEADLINE)?;
        each.wait_ready(DEADLINE)?;
    }
    let before_us = cpu_us(node.pid())?;
    if arguments.instructions {
        control(&["--instr=on", &node.pid().to_string()])?;
    }
    let received = publish(arguments, &origin, &node)?;
    let mut threads = match arguments.instructions {
        true => {
            control(&["--dump=counted", &node.pid().to_string()])?;
            // The files are written a little later, and nothing says when.
            std::thread::sleep(DUMP);
            instructions(&folder, &counts)?
        }
        false => {
            let mut spent = cpu_us(node.pid())?;
            spent.iter_mut().for_each(|(name, us)| *us -= before_us.get(name).unwrap_or(&0.0));
            spent
        }
    };
    let sum: f64 = threads.values().sum();
    let share = threads.get(GOSSIP).copied().unwrap_or(0.0) / sum;
    threads.retain(|_, cost| *cost > sum / 1_000.0);
    threads.values_mut().for_each(|cost| *cost /= received);
    Ok(Spent { threads, share })
}

/// Publishes at one node, and waits until the other has received everything. Returns the number of records that it
/// received.
fn publish(arguments: &Arguments, origin: &Node, node: &Node) -> Outcome<f64> {
    const RECEIVED: &str = "anode_data_copies_received_total";
    let before = node.metric(RECEIVED)?;
    let mut args = RunArgs::parse(&["--threads", "1"])?;
    args.to = vec![origin.http.clone()];
    (args.publishers, args.subscribers, args.sources) = (1, 0, Some(SOURCES));
    (args.rate, args.size) = (arguments.rate.to_string(), arguments.size.to_string());
    args.seconds = arguments.seconds;
    crate::load::run(&args)?;
    let published = origin.metric("anode_records_published_total")?;
    let (begun, mut received) = (Instant::now(), 0.0);
    // Records that waited at the origin may have been merged to the newest of their sources.
    while begun.elapsed() < RECEIVE_MAX && received < published {
        std::thread::sleep(Duration::from_millis(500));
        let now = node.metric(RECEIVED)? - before;
        if now == received && now > 0.0 {
            break;
        }
        received = now;
    }
    match received > 0.0 {
        true => Ok(received),
        false => Err("nothing was received".into()),
    }
}

/// Returns the processor time of the threads of a process so far, in microseconds, by name.
fn cpu_us(pid: u32) -> Outcome<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        let name = std::fs::read_to_string(path.join("comm"))?.trim().to_owned();
        let stat = std::fs::read_to_string(path.join("schedstat"))?;
        let used_ns: f64 = stat.split(' ').next().unwrap_or_default().parse()?;
        *threads.entry(name).or_insert(0.0) += used_ns / 1e3;
    }
    Ok(threads)
}

/// Writes a program that runs `anode` under callgrind, which counts when it is told to.
fn counting(anode: &Path, folder: &Folder, counts: &Path) -> Outcome<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("counting");
    let text = format!(
        "#!/bin/sh\nexec valgrind -q --tool=callgrind --separate-threads=yes --instr-atstart=no \
         --callgrind-out-file='{}' '{}' \"$@\"\n",
        counts.display(),
        std::path::absolute(anode)?.display()
    );
    std::fs::write(&program, text)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    Ok(program)
}

/// Tells callgrind in a running process to do something.
fn control(options: &[&str]) -> Outcome<()> {
    let run = Command::new("callgrind_control").args(options).output();
    let run = run.map_err(|error| format!("starting callgrind_control: {error}"))?;
    match run.status.success() {
        true => Ok(()),
        false => Err(format!("callgrind_control: {}", String::from_utf8_lossy(&run.stderr)).into()),
    }
}

/// Reads the instructions of each thread from the files that callgrind has written. Threads have no names there:
/// they are told apart by the functions that they run.
fn instructions(folder: &Folder, counts: &Path) -> Outcome<BTreeMap<String, f64>> {
    let prefix = counts.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join(""))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(&prefix) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let number = |field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
        };
        let (Some(thread), Some(count)) = (number("thread: "), number("summary: ")) else { continue };
        let name = if text.contains("server::gossip::Gossip") {
            GOSSIP.to_owned()
        } else if text.contains("server::worker::Worker") {
            format!("worker (thread {thread})")
        } else {
            format!("thread {thread}")
        };
        *threads.entry(name).or_insert(0.0) += count;
    }
    Ok(threads)
}
