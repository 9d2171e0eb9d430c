//! Runs that need no network of their own: a node that is killed while it stores, a short trial of three nodes, and a
//! faulty disk for other programs.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anode_loadgen::Outcome;
use anode_netem::disk::{FaultyDisk, FsyncMode, mount_refusal};
use anode_netem::kill_store::{self, KillDisk, KillPlan};
use anode_netem::local::find_binary;
use anode_netem::trial::{self, Trial};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs on the loopback of this machine, which need no network of their own
#[derive(Debug, Parser)]
#[command(name = "anode-netem-local", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kills a node again and again while it stores records, and counts what it has acknowledged and lost
    KillStore(KillArguments),
    /// Runs three nodes, kills one and starts it again, and checks what clients were promised
    Trial(TrialArguments),
    /// Shows a directory through a disk whose faults are switched by lines written to its file .disk-faults
    Disk(DiskArguments),
}

#[derive(Debug, Args)]
struct KillArguments {
    /// Number of kills
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
    /// Disk under the store: a plain directory, where what the system has taken survives a kill, or a faulty disk at which
    /// the power is cut after each kill
    #[arg(long, value_enum, default_value_t = DiskKind::Faulty)]
    disk: DiskKind,
    /// What an fsync of the faulty disk does from the first kill on. Those that fail do so for 200 ms of each life
    #[arg(long, value_enum, default_value_t = FsyncKind::Honest)]
    fsync: FsyncKind,
    /// Time that every operation of the faulty disk takes more, in microseconds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    delay_us: u64,
    /// At a power cut, some sectors that were not synced are kept at random
    #[arg(long)]
    keeps_some: bool,
    /// Seed of the times of the kills and of the power cuts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    place: PlaceArguments,
}

/// The program that is run, and where it keeps its files
#[derive(Debug, Args)]
struct PlaceArguments {
    /// The anode program [default: the one beside this program]
    #[arg(long, value_name = "FILE", env = "ANODE_BINARY")]
    anode: Option<PathBuf>,
    /// Directory for data, logs and the report, which is kept [default: one that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TrialArguments {
    /// Records a second, of all publishers together
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    load: u32,
    /// Seed of the records
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    place: PlaceArguments,
}

#[derive(Debug, Args)]
struct DiskArguments {
    /// The real directory
    #[arg(long, value_name = "DIR")]
    real: PathBuf,
    /// An empty directory, at which it is shown until standard input ends
    #[arg(long, value_name = "DIR")]
    at: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DiskKind {
    Plain,
    Faulty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FsyncKind {
    Honest,
    Lies,
    Fails,
    FailsAndForgets,
}

impl FsyncKind {
    fn mode(self) -> FsyncMode {
        match self {
            FsyncKind::Honest => FsyncMode::Honest,
            FsyncKind::Lies => FsyncMode::Lies,
            FsyncKind::Fails => FsyncMode::Fails,
            FsyncKind::FailsAndForgets => FsyncMode::FailsAndForgets,
        }
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::KillStore(arguments) => kill(&arguments),
        Command::Trial(arguments) => try_out(&arguments),
        Command::Disk(arguments) => show(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("anode-netem-local: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The words with which this program was started.
fn again() -> String {
    std::env::args().collect::<Vec<String>>().join(" ")
}

fn kill(arguments: &KillArguments) -> Outcome<bool> {
    let disk = match arguments.disk {
        DiskKind::Plain => KillDisk::Plain,
        DiskKind::Faulty => {
            if let Some(refusal) = mount_refusal() {
                return Err(format!("{refusal}; --disk plain needs no mount").into());
            }
            KillDisk::Faulty {
                fsync: arguments.fsync.mode(),
                delay: Duration::from_micros(arguments.delay_us),
                keeps_some: arguments.keeps_some,
            }
        }
    };
    let (dir, _removed_at_the_end) = kill_store::run_dir(arguments.place.dir.as_deref())?;
    let result = kill_store::run(KillPlan {
        binary: find_binary(arguments.place.anode.as_deref(), "anode")?,
        dir,
        times: arguments.times,
        seed: arguments.seed,
        disk,
        variables: Vec::new(),
        command: again(),
    })?;
    println!("{}", result.line());
    println!("{}", result.report.text());
    Ok(result.missing == 0 && result.report.is_kept)
}

fn try_out(arguments: &TrialArguments) -> Outcome<bool> {
    let (dir, _removed_at_the_end) = kill_store::run_dir(arguments.place.dir.as_deref())?;
    std::fs::create_dir_all(&dir)?;
    let report = trial::run(&Trial {
        name: "trial".to_owned(),
        binary: find_binary(arguments.place.anode.as_deref(), "anode")?,
        dir: dir.clone(),
        variables: Vec::new(),
        rate: f64::from(arguments.load),
        seed: arguments.seed,
        command: again(),
    })?;
    println!("{}", report.text());
    std::fs::write(dir.join("report.json"), report.json())?;
    std::fs::write(dir.join("timeline.svg"), anode_netem::checker::timeline(&report)?)?;
    Ok(report.is_kept)
}

fn show(arguments: &DiskArguments) -> Outcome<bool> {
    let disk = FaultyDisk::mount(&arguments.real, &arguments.at)?;
    println!("{} shows {}", disk.path().display(), arguments.real.display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("{:?}", disk.counts());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_page_are_understood() {
        let page = include_str!("../../../docs/faults.md");
        let commands: Vec<&str> =
            page.lines().filter(|line| line.starts_with("anode-netem-local ")).collect();
        assert!(commands.len() >= 4, "{commands:?}");
        for command in commands {
            // What a command does stands behind it, with space in between.
            let words = command.split("  ").next().unwrap_or_default().split_whitespace();
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
    }
}
