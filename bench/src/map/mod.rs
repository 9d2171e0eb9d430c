//! Compares the map of the latest records with general concurrent maps, all doing the same work.
//!
//! Rounds are interleaved (A B C D A B C D), so that whatever else the machine does falls on all; every
//! round fills a new map and counts the merges that follow. Medians are compared.

mod contenders;
mod load;

use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Instant;

use anode::record::SharedRecord;
use anode_loadgen::Outcome;
use clap::Args;
use serde::Serialize;

use crate::document;
use crate::machine::Machine;
use crate::median::{geometric_mean, median};
use contenders::{CONTENDERS, Contender};
use load::{DATA_BYTES, Keys, Load};

/// Options of this command.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Sources in the map
    #[arg(long, default_value_t = 100_000)]
    sources: usize,
    /// Merges of a round
    #[arg(long, default_value_t = 400_000)]
    merges: usize,
    /// Rounds of each map; medians are printed
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Numbers of threads, split by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Count the threads' CPU time rather than the time that passes: for a machine that does other work, too
    #[arg(long)]
    cpu_time: bool,
    /// Of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Exit 1 if aNode's map has less than so much of the best rate in a row
    #[arg(long)]
    least: Option<f64>,
    /// Write the table into this folder's benchmarks.md
    #[arg(long)]
    docs: Option<PathBuf>,
    /// Where the results go, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One row of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    keys: String,
    threads: usize,
    /// Name and median of each map, in merges per second, aNode's first.
    merges_per_s: Vec<(String, f64)>,
    /// aNode's median divided by the best of the others.
    ratio: f64,
}

/// Measures all maps, and prints and writes the results.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let Arguments { sources, merges, rounds, .. } = *arguments;
    println!("map: {sources} sources, {merges} merges of {DATA_BYTES} bytes a round, {rounds} rounds");
    let mut rows = Vec::new();
    for keys in [Keys::Uniform, Keys::Zipf] {
        let load = Load::new(keys, sources.max(1), merges, arguments.seed)?;
        for &threads in &arguments.threads {
            rows.push(row(keys, &load, threads.max(1), arguments)?);
        }
    }
    let table = table(&rows);
    print!("{table}");
    if let Some(docs) = &arguments.docs {
        let machine = Machine::look(&crate::find_anode(None)?)?;
        let text = format!(
            "`anode-bench map`, medians of {rounds} rounds in turns: {sources} sources, {merges} merges of {DATA_BYTES} bytes.\n\n\
            ```\n{machine}\n```\n\n{table}"
        );
        document::replace(&docs.join("benchmarks.md"), "map", &text)?;
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    let worst = rows.iter().map(|row| row.ratio).fold(f64::INFINITY, f64::min);
    match arguments.least {
        Some(least) if worst < least => Err(format!("{worst:.2} of the best, wanted {least}").into()),
        _ => Ok(()),
    }
}

fn row(keys: Keys, load: &Load, threads: usize, arguments: &Arguments) -> Outcome<Row> {
    let mut took = vec![Vec::new(); CONTENDERS.len()];
    let mut fingerprints = Vec::new();
    for round in 0..arguments.rounds.max(1) {
        // Each round begins with another map, so that none always follows the same one.
        for index in (0..CONTENDERS.len()).map(|index| (index + round) % CONTENDERS.len()) {
            let (took_s, fingerprint) = measure(CONTENDERS[index], load, threads, arguments.cpu_time);
            took[index].push(took_s);
            fingerprints.push(fingerprint);
        }
    }
    if fingerprints.iter().any(|it| *it != fingerprints[0]) {
        return Err("the maps do not agree: they did not do the same work".into());
    }
    let per_s = |times: &[f64]| load.merges().len() as f64 / median(times);
    let named = CONTENDERS.iter().zip(&took).map(|((name, _), times)| (name.to_string(), per_s(times)));
    let merges_per_s: Vec<(String, f64)> = named.collect();
    let best = merges_per_s[1..].iter().map(|(_, rate)| *rate).fold(f64::MIN_POSITIVE, f64::max);
    let ratio = merges_per_s[0].1 / best;
    Ok(Row { keys: format!("{keys:?}").to_lowercase(), threads, merges_per_s, ratio })
}

/// Fills a new map and lets the threads merge. Returns how many seconds that took, and the map's fingerprint.
fn measure((_, make): Contender, load: &Load, threads: usize, is_cpu_time: bool) -> (f64, u64) {
    let map = make();
    for record in load.first() {
        map.merge(record);
    }
    let share = |thread: usize| {
        let all = load.merges();
        &all[all.len() * thread / threads..all.len() * (thread + 1) / threads]
    };
    let merge_all = |records: &[SharedRecord]| {
        for record in records {
            std::hint::black_box(map.merge(record));
        }
    };
    let barrier = Barrier::new(threads);
    let spans: Vec<(Instant, Instant, f64)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, merge_all) = (&barrier, &merge_all);
                scope.spawn(move || {
                    barrier.wait();
                    let (begun, cpu_s) = (Instant::now(), thread_cpu_s());
                    merge_all(share(thread));
                    (begun, Instant::now(), thread_cpu_s() - cpu_s)
                })
            })
            .collect();
        started.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let (begun, ended) = (spans.iter().map(|it| it.0).min(), spans.iter().map(|it| it.1).max());
    let passed_s = begun.zip(ended).map_or(0.0, |(begun, ended)| (ended - begun).as_secs_f64());
    let cpu_s = spans.iter().map(|it| it.2).fold(0.0, f64::max);
    (if is_cpu_time { cpu_s } else { passed_s }, map.fingerprint())
}

/// Returns the CPU time of this thread so far, in seconds.
fn thread_cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from("| keys | threads |");
    for (name, _) in CONTENDERS {
        out += &format!(" {name} |");
    }
    out += " aNode / best other |\n| --- | --- |";
    out += &" --- |".repeat(CONTENDERS.len() + 1);
    out.push('\n');
    for Row { keys, threads, merges_per_s, ratio } in rows {
        out += &format!("| {keys} | {threads} |");
        for (_, rate) in merges_per_s {
            out += &format!(" {:.2} M/s |", rate / 1e6);
        }
        out += &format!(" {ratio:.2} |\n");
    }
    let ratios: Vec<f64> = rows.iter().map(|row| row.ratio).collect();
    out += &format!("\nGeometric mean of the ratios: {:.2}.\n", geometric_mean(&ratios));
    out
}
