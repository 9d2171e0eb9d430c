//! Measures how long it takes until a record is at all nodes, over real sockets, against the number of
//! nodes.
//!
//! There are N node processes on loopback with a subscription at each; records are published at random
//! nodes, at a modest constant rate. The same is done with hashicorp/memberlist with its LAN defaults, in
//! turns (A B A B), so that whatever else the machine does falls on both.
//!
//! By file: `cluster` has the processes and their counters, `drive` publishes and receives, `memberlist`
//! runs the Go driver, `measures` holds the figures of a run, `report` writes the table and JSON, `plot`
//! draws the SVG.

mod cluster;
mod drive;
mod measures;
mod memberlist;
mod plot;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use clap::Args;
use serde::Serialize;

pub use cluster::Cluster;
use drive::{Driver, Load, PAYLOAD_BYTES_MIN, Seen};
use measures::{Measures, Percentiles};
pub use memberlist::Memberlist;
use report::Report;

use crate::folder::Folder;
use crate::machine::Machine;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    /// The anode binary [default: the one next to this program, else it is built]
    #[arg(long)]
    anode: Option<PathBuf>,
    /// Numbers of nodes, split by commas
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8, 16, 32, 64, 128])]
    nodes: Vec<usize>,
    /// Runs of each; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Records a second, at random nodes. memberlist's queues grow from about 12 on, at 128 nodes
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// How long records are published in each run
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Bytes of each record's data
    #[arg(long, default_value_t = 128)]
    payload_bytes: usize,
    /// Chooses the nodes that are published at
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// 4, 16 and 64 nodes, 4 seconds, one run
    #[arg(long)]
    quick: bool,
    /// aNode alone
    #[arg(long)]
    no_memberlist: bool,
    /// No run is begun after so many minutes
    #[arg(long, default_value_t = 12)]
    minutes: u64,
    /// Where the results go
    #[arg(long, default_value = "target/propagation.json")]
    json: PathBuf,
    /// Where the plot goes
    #[arg(long, default_value = "target/propagation.svg")]
    svg: PathBuf,
}

/// The checked parameters of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    nodes: Vec<usize>,
    runs: usize,
    rate_per_s: u32,
    seconds: u32,
    payload_bytes: usize,
    seed: u64,
}

/// For how many seconds the idle traffic is counted.
const IDLE_SECONDS: u64 = 3;
/// How long to wait before anything is counted, until messages about the joins have died down.
const SETTLE: Duration = Duration::from_secs(3);
/// How long to wait after the last delivery for acknowledgements, and for heads in probes.
const DRAIN: Duration = Duration::from_secs(1);

/// If the driver itself is later than this (in ms) in one of ten cases, it measures the machine's other work.
const LATE_MS_MAX: f64 = 10.0;
/// Number of runs after which the last one is taken as it is.
const ATTEMPTS: usize = 3;

/// Measures, prints the table, and writes the files.
pub fn run(arguments: Arguments) -> Outcome<()> {
    let begun = Instant::now();
    let plan = plan(&arguments)?;
    let anode = crate::find_anode(arguments.anode)?;
    anode_loadgen::raise_open_files();
    let machine = Machine::look(&anode)?;
    println!("{machine}");
    let memberlist = match arguments.no_memberlist {
        true => Err("not asked for".to_owned()),
        false => Memberlist::build(),
    };
    match &memberlist {
        Ok(memberlist) => println!("memberlist: {}, LAN defaults", memberlist.version),
        Err(reason) => println!("memberlist: NOT MEASURED: {reason}"),
    }
    println!("{plan:?}");
    let mut report = Report::new(machine, &plan, memberlist.as_ref().ok().map(|it| it.version.clone()));
    let folder = Folder::new()?;
    'runs: for run in 1..=plan.runs {
        for &nodes in &plan.nodes {
            if begun.elapsed() > Duration::from_secs(60 * arguments.minutes) {
                println!("stopped after {} minutes: run {run} is not complete", arguments.minutes);
                break 'runs;
            }
            let seed = plan.seed.wrapping_add(run as u64 - 1);
            let folder = folder.join(format!("{run}-{nodes}"));
            report.add(run, undisturbed(|| measure(Cluster::start(&anode, &folder, nodes)?, &plan, seed))?);
            if let Ok(memberlist) = &memberlist {
                match undisturbed(|| memberlist.measure(&plan, nodes, seed)) {
                    Ok(measures) => report.add(run, measures),
                    Err(error) => println!("run {run}: memberlist N = {nodes}: NOT MEASURED: {error}"),
                }
            }
        }
    }
    report.print_medians()?;
    report.write_json(&arguments.json)?;
    std::fs::write(&arguments.svg, plot::svg(&report.medians()?))?;
    println!("written: {}, {}", arguments.json.display(), arguments.svg.display());
    report.check()
}

/// Measures, and repeats it once or twice if the machine did something else at the same time.
fn undisturbed(measure: impl Fn() -> Outcome<Measures>) -> Outcome<Measures> {
    for _ in 1..ATTEMPTS {
        match measure() {
            Ok(measures) if measures.late_ms.p90 <= LATE_MS_MAX => return Ok(measures),
            Ok(Measures { system, nodes, late_ms, .. }) => {
                println!(
                    "{system} N = {nodes}: disturbed: published {:.1} ms late (p90): again",
                    late_ms.p90
                );
            }
            Err(error) => println!("again, because of this: {error}"),
        }
    }
    measure()
}

fn plan(arguments: &Arguments) -> Outcome<Plan> {
    let mut plan = Plan {
        nodes: arguments.nodes.clone(),
        runs: arguments.runs.max(1),
        rate_per_s: arguments.rate.max(1),
        seconds: arguments.seconds.max(1),
        payload_bytes: arguments.payload_bytes,
        seed: arguments.seed,
    };
    if arguments.quick {
        plan = Plan { nodes: vec![4, 16, 64], runs: 1, seconds: 4, ..plan };
    }
    if plan.nodes.iter().any(|&nodes| nodes < 2) || plan.payload_bytes < PAYLOAD_BYTES_MIN {
        return Err(format!("at least 2 nodes and {PAYLOAD_BYTES_MIN} bytes").into());
    }
    Ok(plan)
}

/// Makes one run of aNode.
fn measure(cluster: Cluster, plan: &Plan, seed: u64) -> Outcome<Measures> {
    let count = cluster.nodes.len() as f64;
    let mut driver = Driver::connect(cluster.nodes.iter().map(|node| node.http.as_str()))?;
    std::thread::sleep(SETTLE);
    let before = cluster.traffic()?;
    let (idle_begun, idle_cpu_s) = (Instant::now(), cluster.cpu_s());
    std::thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let idle_cpu_s = (cluster.cpu_s() - idle_cpu_s) / idle_begun.elapsed().as_secs_f64();
    let idle = cluster.traffic()?;

    let records = plan.rate_per_s * plan.seconds;
    let load = Load { records, rate_per_s: plan.rate_per_s, payload_bytes: plan.payload_bytes, seed };
    let (busy_begun, busy_cpu_s) = (Instant::now(), cluster.cpu_s());
    let seen = driver.run(load)?;
    let busy_s = busy_begun.elapsed().as_secs_f64();
    let busy_cpu_s = (cluster.cpu_s() - busy_cpu_s) / busy_s;
    driver.check_refusals()?;
    std::thread::sleep(DRAIN);
    let after = cluster.traffic()?;

    let (idle_s, load_s) = ((idle.at - before.at).as_secs_f64(), (after.at - idle.at).as_secs_f64());
    let idle_datagrams_per_s = (idle.datagrams - before.datagrams) / idle_s;
    let idle_bytes_per_s = (idle.bytes - before.bytes) / idle_s;
    let each = f64::from(records) * count;
    let expected = f64::from(records) * (count - 1.0);
    let (missing, partial) = missing(&seen);
    Ok(Measures {
        system: "anode".into(),
        nodes: count,
        records: f64::from(records),
        expected,
        missing,
        partial,
        one_ms: Percentiles::of(seen.records.iter().flat_map(drive::Record::elsewhere_ns).collect()),
        all_ms: Percentiles::of(seen.records.iter().filter_map(|it| it.elsewhere_ns().max()).collect()),
        late_ms: Percentiles::of(seen.late_ns),
        copies_per_delivery: (after.copies - idle.copies) / expected,
        datagrams_per_record_per_node: (after.datagrams - idle.datagrams - idle_datagrams_per_s * load_s)
            / each,
        bytes_per_record_per_node: (after.bytes - idle.bytes - idle_bytes_per_s * load_s) / each,
        idle_datagrams_per_node_per_s: idle_datagrams_per_s / count,
        idle_bytes_per_node_per_s: idle_bytes_per_s / count,
        idle_cpu_percent: 100.0 * idle_cpu_s,
        busy_cpu_percent: 100.0 * busy_cpu_s,
        driver_cpu_percent: 100.0 * seen.cpu_s / busy_s,
        own_ms: Some(after.own_since(&idle)),
    })
}

/// Returns the number of expected deliveries that did not happen, and the number of records that lack one or
/// more.
fn missing(seen: &Seen) -> (f64, f64) {
    let lacks = |record: &drive::Record| record.delivered_ns.iter().filter(|it| it.is_none()).count();
    let missing = seen.records.iter().map(lacks).sum::<usize>();
    let partial = seen.records.iter().filter(|record| lacks(record) > 0).count();
    (missing as f64, partial as f64)
}
