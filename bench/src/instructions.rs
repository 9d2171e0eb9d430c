//! Counts how many instructions each piece of a record's way takes. The counts are compared with a baseline that
//! is kept in the repository.
//!
//! A piece is run some times, then more times; the difference does not contain what setting it up takes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anode_bench::micro::{RECORDS, WORKS, Work};
use anode_loadgen::Outcome;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::callgrind;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    /// Keep what was counted as the baseline
    #[arg(long)]
    save: bool,
    /// Only pieces whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Exit 1 if a piece takes more than the baseline by this factor
    #[arg(long, default_value_t = 1.05)]
    most: f64,
    /// Also show in which source files the instructions are
    #[arg(long)]
    files: bool,
    /// The baseline
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    baseline: PathBuf,
}

/// Numbers of calls in the shorter and in the longer run.
const CALLS: [u64; 2] = [20, 120];

/// The counts that are kept in the repository.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// Version of the compiler: another one makes other instructions.
    rustc: String,
    valgrind: String,
    /// Number of instructions per record, by the name of the piece.
    instructions: BTreeMap<String, f64>,
}

/// Counts the pieces, compares the counts with the baseline, and keeps them if asked to.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let mut counted =
        Baseline { rustc: version("rustc")?, valgrind: version("valgrind")?, instructions: BTreeMap::new() };
    let before: Baseline = match std::fs::read_to_string(&arguments.baseline) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => Baseline::default(),
    };
    if before.rustc != counted.rustc {
        println!("the baseline is of {:?}, this is {:?}", before.rustc, counted.rustc);
    }
    println!("| piece | instructions a record | baseline | ratio |\n| --- | --- | --- | --- |");
    let mut worse = Vec::new();
    for work in WORKS.iter().filter(|work| work.name.contains(&arguments.only)) {
        let (each, files) = each_record(work)?;
        counted.instructions.insert(work.name.to_owned(), (each * 10.0).round() / 10.0);
        match before.instructions.get(work.name) {
            Some(&then) => {
                println!("| {} | {each:.1} | {then:.1} | {:.3} |", work.name, each / then);
                if each > then * arguments.most {
                    worse.push(work.name);
                }
            }
            None => println!("| {} | {each:.1} | | |", work.name),
        }
        if arguments.files {
            print_files(each, files);
        }
    }
    if arguments.save {
        let all =
            before.instructions.into_iter().filter(|(name, _)| WORKS.iter().any(|work| work.name == name));
        for (name, value) in all {
            counted.instructions.entry(name).or_insert(value);
        }
        std::fs::write(&arguments.baseline, serde_json::to_string_pretty(&counted)? + "\n")?;
        println!("kept in {}", arguments.baseline.display());
        return Ok(());
    }
    match worse.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("more instructions than {} × the baseline: {}", arguments.most, worse.join(", "))
                .into())
        }
    }
}

/// Calls one piece of work `calls` times. The counting runs this under valgrind.
pub fn work(name: &str, calls: u64) -> Outcome<()> {
    let work = WORKS.iter().find(|work| work.name == name).ok_or_else(|| format!("no piece {name:?}"))?;
    let mut act = (work.make)();
    (0..calls).for_each(|_| act());
    Ok(())
}

/// Returns the number of instructions for each record, in all and by source file.
fn each_record(work: &Work) -> Outcome<(f64, Vec<(String, f64)>)> {
    let [few, many] = [callgrind::count(work, CALLS[0])?, callgrind::count(work, CALLS[1])?];
    let records = ((CALLS[1] - CALLS[0]) * RECORDS as u64) as f64;
    let files = many.by_file.into_iter().map(|(file, count)| {
        let before = few.by_file.get(&file).copied().unwrap_or(0);
        (file, count.saturating_sub(before) as f64 / records)
    });
    Ok((many.all.saturating_sub(few.all) as f64 / records, files.collect()))
}

/// Prints the files that have at least a hundredth of the instructions, those with most first.
fn print_files(each: f64, mut files: Vec<(String, f64)>) {
    files.sort_by(|one, other| other.1.total_cmp(&one.1));
    for (file, count) in files.into_iter().filter(|(_, count)| *count >= each / 100.0) {
        println!("| · {} | {count:.1} | | |", short(&file));
    }
}

/// Returns the end of a path, from its last `src` on with the folder before, or its last two parts.
fn short(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let from = parts.iter().rposition(|part| *part == "src").unwrap_or(parts.len().saturating_sub(1));
    parts[from.saturating_sub(1)..].join("/")
}

fn version(program: &str) -> Outcome<String> {
    let run = Command::new(program).arg("--version").output();
    let run = run.map_err(|error| format!("starting {program}: {error}"))?;
    Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
}
