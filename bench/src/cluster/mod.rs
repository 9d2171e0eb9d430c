//! Compares clusters by one command: how many records per second every node of a cluster delivers to a
//! subscriber without losing one, and what half of that rate costs. aNode, nats-servers and memberlist are
//! measured in turns for each number of nodes, all on this machine.

mod group;
mod load;
mod steady;

use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;
use anode_loadgen::find_max::Search;
use clap::Args;

use crate::chart::{self, Group as Bars};
use crate::document;
use crate::folder::Folder;
use crate::machine::Machine;
use crate::median::median;
use crate::peers;
use crate::propagation::{Cluster, Memberlist};
use crate::subject::Subject;
use group::{Group, Nats};
use load::{P99_MS_MAX, PAYLOAD_BYTES, SOURCES, Seen};
use steady::{Busy, Steady};

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Numbers of nodes, split by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5, 8])]
    nodes: Vec<usize>,
    /// Seconds that count at each rate that is tried
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Constant rates, split by commas: what each costs and how late it is, rather than the highest rate
    #[arg(long, value_delimiter = ',')]
    steady: Vec<f64>,
    /// Other programs that keep a core busy each while the clusters are measured
    #[arg(long, default_value_t = 0)]
    busy: usize,
    /// Measure aNode also with a key, by which everything between its nodes is sealed
    #[arg(long)]
    sealed: bool,
    /// With --sealed: least share of what the plain cluster does that the sealed one must do, in records a second, or at
    /// constant rates in records for each second of the servers' CPU; the command fails below it
    #[arg(long, default_value_t = 0.9)]
    sealed_least: f64,
    /// aNode alone
    #[arg(long)]
    no_peers: bool,
    /// aNode and NATS alone
    #[arg(long)]
    no_memberlist: bool,
    /// Where the results go, as JSON
    #[arg(long, default_value = "target/cluster.json")]
    json: PathBuf,
}

/// The first rate that is tried, in records per second.
const FROM_PER_S: f64 = 20_000.0;
/// The first rate that is tried with memberlist, in records per second.
const MEMBERLIST_FROM_PER_S: u32 = 10;
/// Length of a memberlist run in seconds: it takes some time until growing queues show.
const MEMBERLIST_SECONDS: u32 = 6;

const ANODE: &str = "aNode";
const SEALED: &str = "aNode, sealed";
const NATS: &str = "NATS";
const MEMBERLIST: &str = "memberlist";

/// Measures, prints the results, and writes them.
pub fn run(arguments: Arguments) -> Outcome<()> {
    anode_loadgen::raise_open_files();
    let anode = arguments.subject.binary()?;
    let machine = Machine::look(&anode)?;
    println!("{machine}");
    let (nats, memberlist) = match arguments.no_peers {
        true => (Err("not asked for".to_owned()), Err("not asked for".to_owned())),
        false => {
            let folder = std::env::current_dir()?.join("target/peers");
            let memberlist = match arguments.no_memberlist {
                true => Err("not asked for".to_owned()),
                false => Memberlist::build(),
            };
            (peers::Programs::find(&folder)?.nats, memberlist)
        }
    };
    let version = |name: &str, found: Result<&String, &String>| match found {
        Ok(version) => format!("{name}: {version}"),
        Err(reason) => format!("{name}: NOT MEASURED: {reason}"),
    };
    let nats_version = version(NATS, nats.as_ref().map(|(_, version)| version));
    let versions = [nats_version, version(MEMBERLIST, memberlist.as_ref().map(|it| &it.version))];
    println!("{}", versions.join("\n"));
    let folder = Folder::new()?;
    let _busy = Busy::start(arguments.busy)?;
    if !arguments.steady.is_empty() {
        let nats = nats.as_ref().ok().map(|(program, _)| program.as_path());
        // memberlist is not measured at constant rates.
        let about = format!("{machine}\n{}", versions[0]);
        return run_steady(&arguments, &folder, &anode, nats, &about);
    }
    let mut all: Vec<Seen> = Vec::new();
    for run in 1..=arguments.subject.runs() {
        for &nodes in &arguments.nodes {
            let folder = folder.join(format!("cluster-{run}-{nodes}"));
            note(&mut all, ANODE, || {
                let group = Group::Anode(Cluster::start(&anode, &folder, nodes)?);
                load::measure(ANODE, &group, FROM_PER_S, arguments.seconds)
            });
            if arguments.sealed && nodes > 1 {
                note(&mut all, SEALED, || {
                    let group = Group::Anode(Cluster::start_sealed(&anode, &folder.join("sealed"), nodes)?);
                    load::measure(SEALED, &group, FROM_PER_S, arguments.seconds)
                });
            }
            if let Ok((program, _)) = &nats {
                note(&mut all, NATS, || {
                    let group = Group::Nats(Nats::start(program, &folder.join("nats"), nodes)?);
                    load::measure(NATS, &group, FROM_PER_S, arguments.seconds)
                });
            }
            if let (Ok(memberlist), true) = (&memberlist, nodes > 1) {
                note(&mut all, MEMBERLIST, || rumours(memberlist, nodes, run as u64));
            }
        }
    }
    let medians = medians(&all);
    let table = table(&medians);
    println!("\n{table}");
    std::fs::write(&arguments.json, serde_json::to_string_pretty(&all)?)?;
    if let Some(docs) = &arguments.subject.docs {
        write(docs, &arguments, &machine, &versions, &medians)?;
    }
    judge_sealed(&sealed_shares(&medians), arguments.sealed_least)
}

/// Returns for every number of nodes the records a second of the sealed cluster, as a share of those of the plain one.
fn sealed_shares(medians: &[Seen]) -> Vec<(String, f64)> {
    let mut shares = Vec::new();
    for sealed in medians.iter().filter(|it| it.system == SEALED) {
        let is_plain = |it: &&Seen| it.system == ANODE && it.nodes == sealed.nodes;
        if let Some(plain) = medians.iter().find(is_plain) {
            shares.push((format!("{} nodes", sealed.nodes), sealed.records_per_s / plain.records_per_s));
        }
    }
    shares
}

/// Prints the shares of what the plain cluster does that the sealed one did, and fails if one is less than `least`.
fn judge_sealed(shares: &[(String, f64)], least: f64) -> Outcome<()> {
    for (what, share) in shares {
        println!("{what}: sealed {share:.2} of plain");
    }
    match shares.iter().find(|(_, share)| share.is_nan() || *share < least) {
        None => Ok(()),
        Some((what, share)) => Err(format!("{what}: sealed {share:.2} of plain is less than {least}").into()),
    }
}

/// Measures constant rates, prints the medians, and writes all results. `about` describes the machine and the
/// programs that are measured.
fn run_steady(
    arguments: &Arguments,
    folder: &Folder,
    anode: &Path,
    nats: Option<&Path>,
    about: &str,
) -> Outcome<()> {
    let mut all: Vec<Steady> = Vec::new();
    for run in 1..=arguments.subject.runs() {
        for &nodes in &arguments.nodes {
            for &rate in &arguments.steady {
                let folder = folder.join(format!("steady-{run}-{nodes}-{rate:.0}"));
                note(&mut all, ANODE, || {
                    let group = Group::Anode(Cluster::start(anode, &folder, nodes)?);
                    steady::measure(ANODE, &group, rate, arguments.seconds)
                });
                if arguments.sealed && nodes > 1 {
                    note(&mut all, SEALED, || {
                        let group =
                            Group::Anode(Cluster::start_sealed(anode, &folder.join("sealed"), nodes)?);
                        steady::measure(SEALED, &group, rate, arguments.seconds)
                    });
                }
                if let Some(program) = nats {
                    note(&mut all, NATS, || {
                        let group = Group::Nats(Nats::start(program, &folder.join("nats"), nodes)?);
                        steady::measure(NATS, &group, rate, arguments.seconds)
                    });
                }
            }
        }
    }
    println!("\n{}", steady::table(&all, NATS));
    std::fs::write(&arguments.json, serde_json::to_string_pretty(&all)?)?;
    if let Some(docs) = &arguments.subject.docs {
        write_steady(docs, arguments, about, &all)?;
    }
    judge_sealed(&steady::shares(&all, (SEALED, ANODE)), arguments.sealed_least)
}

/// Adds the result of a measurement. If it fails, that is printed and the result is left out.
fn note<T: std::fmt::Debug>(all: &mut Vec<T>, system: &str, measure: impl FnOnce() -> Outcome<T>) {
    match measure() {
        Ok(seen) => {
            println!("{seen:?}");
            all.push(seen);
        }
        Err(error) => println!("{system}: NOT MEASURED: {error}"),
    }
}

/// Measures memberlist, whose driver publishes and receives in its own process.
fn rumours(memberlist: &Memberlist, nodes: usize, seed: u64) -> Outcome<Seen> {
    let run = |rate: f64| memberlist.run(nodes, rate as u32, MEMBERLIST_SECONDS, PAYLOAD_BYTES, seed);
    let mut search = Search::new(f64::from(MEMBERLIST_FROM_PER_S), 1e6, 0.2);
    while let Some(rate) = search.next() {
        let mut is_held = false;
        for _ in 0..load::ATTEMPTS {
            let seen = run(rate)?;
            is_held = seen.missing == 0.0 && seen.all_ms.p99 <= P99_MS_MAX;
            println!(
                "    {MEMBERLIST}, {nodes} nodes: {rate:.0}/s {} missing of {}, p99 {:.0} ms",
                seen.missing, seen.expected, seen.all_ms.p99
            );
            if is_held {
                break;
            }
        }
        search.note(rate, is_held);
    }
    let records_per_s = search.found().ok_or("no rate holds")?;
    let seen = run((records_per_s / 2.0).max(1.0))?;
    let busy_s = f64::from(MEMBERLIST_SECONDS) * (seen.busy_cpu_percent - seen.idle_cpu_percent) / 100.0;
    Ok(Seen {
        system: MEMBERLIST.to_owned(),
        nodes,
        records_per_s,
        p50_ms: seen.one_ms.p50,
        p99_ms: seen.one_ms.p99,
        p999_ms: seen.one_ms.p999,
        cpu_us_per_record: 1e6 * busy_s.max(0.0) / seen.records.max(1.0),
        bytes_per_record: seen.bytes_per_record_per_node * nodes as f64,
    })
}

/// Returns the median of every figure over the runs of the same kind.
fn medians(all: &[Seen]) -> Vec<Seen> {
    let mut medians: Vec<Seen> = Vec::new();
    for seen in all {
        if medians.iter().any(|it| it.system == seen.system && it.nodes == seen.nodes) {
            continue;
        }
        let same: Vec<&Seen> =
            all.iter().filter(|it| it.system == seen.system && it.nodes == seen.nodes).collect();
        let of = |figure: fn(&Seen) -> f64| median(&same.iter().map(|it| figure(it)).collect::<Vec<_>>());
        medians.push(Seen {
            system: seen.system.clone(),
            nodes: seen.nodes,
            records_per_s: of(|it| it.records_per_s),
            p50_ms: of(|it| it.p50_ms),
            p99_ms: of(|it| it.p99_ms),
            p999_ms: of(|it| it.p999_ms),
            cpu_us_per_record: of(|it| it.cpu_us_per_record),
            bytes_per_record: of(|it| it.bytes_per_record),
        });
    }
    medians
}

fn table(medians: &[Seen]) -> String {
    let mut out = String::from(
        "| nodes | | records/s without loss | by NATS' | at half of it: p50 / p99 / p99.9, ms | CPU µs a record | bytes a record between nodes |\n\
        | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for seen in medians {
        let nats = medians.iter().find(|it| it.system == NATS && it.nodes == seen.nodes);
        let ratio =
            nats.map_or(String::new(), |nats| format!("{:.2}", seen.records_per_s / nats.records_per_s));
        out += &format!(
            "| {} | {} | {:.0} | {ratio} | {:.2} / {:.2} / {:.2} | {:.1} | {:.0} |\n",
            seen.nodes,
            seen.system,
            seen.records_per_s,
            seen.p50_ms,
            seen.p99_ms,
            seen.p999_ms,
            seen.cpu_us_per_record,
            seen.bytes_per_record
        );
    }
    out
}

fn write(
    docs: &Path,
    arguments: &Arguments,
    machine: &Machine,
    versions: &[String],
    medians: &[Seen],
) -> Outcome<()> {
    let charts = docs.join("benchmarks");
    std::fs::create_dir_all(&charts)?;
    let groups = arguments.nodes.iter().map(|&nodes| {
        let of = medians.iter().filter(|it| it.nodes == nodes);
        let name = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        Bars { name, bars: of.map(|it| (it.system.clone(), it.records_per_s)).collect() }
    });
    let title = "Records a second that every node delivers to a subscriber, none lost";
    let svg = chart::bars(title, &groups.collect::<Vec<_>>(), |it| format!("{it:.0}"));
    std::fs::write(charts.join("cluster.svg"), svg)?;
    let Arguments { seconds, busy, .. } = arguments;
    let text = format!(
        "`anode-bench cluster`, medians of {} runs in turns, {seconds} s at each rate that was tried; a publisher and a subscriber \
        of everything at every node, {SOURCES} sources, {PAYLOAD_BYTES} bytes.{} A rate holds if every record came to every \
        subscriber and 99 % within {P99_MS_MAX} ms. memberlist's nodes share a process, and a delivery counts when its callback has it.\n\n\
        ```\n{machine}\n{}\n```\n\n{}\n![Records a second by nodes](benchmarks/cluster.svg)",
        arguments.subject.runs(),
        beside(*busy),
        versions.join("\n"),
        table(medians)
    );
    document::replace(&docs.join("benchmarks.md"), "cluster", &text)
}

/// Writes the table of constant rates. Runs beside other programs have a part of the page of their own, so
/// that neither replaces the other.
fn write_steady(docs: &Path, arguments: &Arguments, about: &str, all: &[Steady]) -> Outcome<()> {
    let Arguments { seconds, busy, .. } = arguments;
    let text = format!(
        "`anode-bench cluster --steady`, medians of {} runs in turns, {seconds} s at each rate; a publisher and a subscriber \
        of everything at every node, {SOURCES} sources, {PAYLOAD_BYTES} bytes.{}\n\n\
        ```\n{about}\n```\n\n{}",
        arguments.subject.runs(),
        beside(*busy),
        steady::table(all, NATS)
    );
    let name = if *busy == 0 { "steady" } else { "steady-busy" };
    document::replace(&docs.join("benchmarks.md"), name, &text)
}

/// Returns the sentence about `count` other programs that were busy during the measurement; empty if there was
/// none.
fn beside(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " One other program kept a core busy.".to_owned(),
        _ => format!(" {count} other programs kept a core busy each."),
    }
}
