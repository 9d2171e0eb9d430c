//! What middlewares cost a node: records a second that it takes without one, with an expression of one comparison, and
//! with a module in WebAssembly; and the processor time and the memory that it takes for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::args::RunArgs;
use clap::Args;

use crate::folder::Folder;
use crate::machine::{Machine, cpu_us};
use crate::median::median;
use crate::node::Node;
use crate::subject::Subject;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// The expression
    #[arg(long, default_value = "data != null ? data : drop()")]
    cel: String,
    /// The module; the program must be built with the feature wasm
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/behaviours.wasm"))]
    wasm: PathBuf,
    /// Seconds that records are published for
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Size of each record's payload, in bytes
    #[arg(long, default_value_t = 128)]
    size: usize,
}

/// How long a node may take to be ready, and a middleware to be in force.
const DEADLINE: Duration = Duration::from_secs(60);
/// Least part of the records a second that the contract demands with an expression, and with a module.
const PARTS: [f64; 2] = [0.5, 0.25];

/// The figures of one run.
#[derive(Clone, Copy)]
struct Taken {
    /// Records a second.
    rate: f64,
    /// Processor time of the node for a record, in microseconds.
    cpu_us: f64,
    /// Memory of the node at the end, in MiB.
    memory_mib: f64,
}

/// Measures, and prints a table. Fails if less is left than the contract demands.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let anode = arguments.subject.binary()?;
    println!("{}", Machine::look(&anode)?);
    println!("| middleware | records/s | of none | µs of processor time a record | MiB |");
    println!("| --- | --- | --- | --- | --- |");
    let wasm = arguments.wasm.display().to_string();
    let cases: [(&str, Option<[&str; 2]>); 3] = [
        ("none", None),
        ("expression", Some(["--cel", &arguments.cel])),
        ("module", Some(["--wasm", &wasm])),
    ];
    let mut rates = Vec::new();
    for (name, rule) in cases {
        let all: Outcome<Vec<Taken>> =
            (0..arguments.subject.runs()).map(|_| measure(arguments, &anode, rule)).collect();
        let all = all?;
        let of = |field: fn(&Taken) -> f64| median(&all.iter().map(field).collect::<Vec<f64>>());
        let rate = of(|taken| taken.rate);
        rates.push(rate);
        let part = rate / rates.first().copied().unwrap_or(rate);
        let (cpu_us, memory) = (of(|taken| taken.cpu_us), of(|taken| taken.memory_mib));
        println!("| {name} | {rate:.0} | {part:.2} | {cpu_us:.2} | {memory:.0} |");
    }
    let parts = rates.iter().skip(1).map(|rate| rate / rates.first().copied().unwrap_or(*rate));
    match parts.zip(PARTS).find(|(part, least)| part < least) {
        Some((part, least)) => Err(format!("{part:.2} of the records/s is left; at least {least}").into()),
        None => Ok(()),
    }
}

/// Measures a node with this middleware once.
fn measure(arguments: &Arguments, anode: &Path, rule: Option<[&str; 2]>) -> Outcome<Taken> {
    let folder = Folder::new()?;
    let options = ["--store", "memory", "--workers", "1", "--log-level", "warn"];
    let node = Node::start(anode, &folder.join("node"), &options)?;
    node.wait_ready(DEADLINE)?;
    if let Some(rule) = rule {
        put(anode, &node, rule)?;
    }
    let before = (cpu_us(node.pid())?, node.metric("anode_records_published_total")?);
    let mut args = RunArgs::parse(&["--threads", "1"])?;
    args.to = vec![node.http.clone()];
    (args.publishers, args.subscribers, args.sources) = (1, 0, Some(10_000));
    (args.rate, args.size, args.seconds) = ("max".into(), arguments.size.to_string(), arguments.seconds);
    crate::load::run(&args)?;
    let records = node.metric("anode_records_published_total")? - before.1;
    if records <= 0.0 {
        return Err("nothing was published".into());
    }
    Ok(Taken {
        rate: records / arguments.seconds,
        cpu_us: (cpu_us(node.pid())? - before.0) / records,
        memory_mib: node.metric("process_resident_memory_bytes")? / f64::from(1 << 20),
    })
}

/// Puts a middleware for all records, and waits until it is in force.
fn put(anode: &Path, node: &Node, rule: [&str; 2]) -> Outcome<()> {
    let url = format!("http://{}", node.http);
    let mut command = Command::new(anode);
    command.args(["middleware", "put", "measured", "--on", "**"]).args(rule).args(["--url", &url]);
    let put = command.output()?;
    if !put.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&put.stderr)).into());
    }
    let begun = Instant::now();
    while node.metric("anode_middlewares")? < 1.0 {
        if begun.elapsed() > DEADLINE {
            return Err("the middleware is not in force".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
