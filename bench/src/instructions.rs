//! Counts how many instructions each piece of a record's way takes, by valgrind's callgrind: the number is
//! the same in every run, whatever else the machine does. It is compared with a baseline that is kept in
//! the repository.
//!
//! A piece is run some times, then more times; the difference does not contain what setting it up takes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anode_bench::micro::{RECORDS, WORKS};
use anode_loadgen::Outcome;
use clap::Args;
use serde::{Deserialize, Serialize};

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
        let [few, many] = [count(work.name, CALLS[0])?, count(work.name, CALLS[1])?];
        let each = many.saturating_sub(few) as f64 / ((CALLS[1] - CALLS[0]) * RECORDS as u64) as f64;
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

/// Calls one piece of work so often. [`count`] runs this under valgrind.
pub fn work(name: &str, calls: u64) -> Outcome<()> {
    let work = WORKS.iter().find(|work| work.name == name).ok_or_else(|| format!("no piece {name:?}"))?;
    let mut act = (work.make)();
    (0..calls).for_each(|_| act());
    Ok(())
}

fn count(name: &str, calls: u64) -> Outcome<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["work", name, &calls.to_string()])
        .output()
        .map_err(|error| format!("starting valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&run.stderr);
    let found = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match found {
        Some(count) if run.status.success() => Ok(count),
        _ => Err(format!("valgrind of {name}: {}\n{text}", run.status).into()),
    }
}

fn version(program: &str) -> Outcome<String> {
    let run = Command::new(program).arg("--version").output();
    let run = run.map_err(|error| format!("starting {program}: {error}"))?;
    Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
}
