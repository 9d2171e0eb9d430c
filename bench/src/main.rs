//! `anode-bench`: measures, on this machine, the figures that the README states.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and sleeps")]

mod cassandra;
mod figures;
mod folder;
mod machine;
mod node;
mod propagation;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anode_loadgen::Outcome;
use clap::{Parser, Subcommand};

/// Measures aNode's figures on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Idle subscribers' memory, latency across three nodes, start with stored records
    Figures {
        /// The anode binary
        #[arg(long, default_value = "target/release/anode")]
        anode: PathBuf,
        /// Runs of each timed figure; medians are printed
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Idle subscribers
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Records stored before the node is started
        #[arg(long, default_value_t = 1_000_000)]
        stored: u64,
    },
    /// Published at one node until received at all others, against the number of nodes; memberlist beside it
    Propagation(propagation::Arguments),
    /// The store in a real Cassandra (`scripts/cassandra start`): throughput, kills, a pause, a load
    StoreCassandra {
        /// The anode binary
        #[arg(long, default_value = "target/release/anode")]
        anode: PathBuf,
        /// `IP:PORT` of Cassandra, which asks for no password
        #[arg(long, default_value = "127.0.0.1:9042")]
        cassandra: String,
        /// File with the process id of Cassandra, which is paused
        #[arg(long, default_value = "target/cassandra/node1/pid")]
        pid_file: PathBuf,
        /// Which figures
        #[arg(long, value_delimiter = ',', default_value = "throughput,kill,pause,load")]
        only: Vec<String>,
        /// Records of a throughput run
        #[arg(long, default_value_t = 100_000)]
        records: u64,
        /// Runs of throughput
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Kills
        #[arg(long, default_value_t = 20)]
        kills: usize,
        /// Seconds of the pause
        #[arg(long, default_value_t = 60)]
        pause_s: u32,
        /// Sources that a node is started with
        #[arg(long, default_value_t = 1_000_000)]
        sources: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<()> {
    match command {
        Command::Figures { anode, runs, connections, stored } => {
            figures::run(&figures::Plan { anode, runs: runs.max(1), connections, stored })
        }
        Command::Propagation(arguments) => propagation::run(arguments),
        Command::StoreCassandra {
            anode,
            cassandra,
            pid_file,
            only,
            records,
            runs,
            kills,
            pause_s,
            sources,
        } => {
            let plan = cassandra::Plan { anode, cassandra, pid_file, records, runs, kills, pause_s, sources };
            cassandra::run(&plan, &only)
        }
    }
}

/// The anode binary: the one asked for, or the one next to this program, or one that is built now.
fn find_anode(asked: Option<PathBuf>) -> Outcome<PathBuf> {
    if let Some(asked) = asked {
        return Ok(asked);
    }
    let beside = std::env::current_exe()?.with_file_name("anode");
    if beside.is_file() {
        return Ok(beside);
    }
    eprintln!("{} is not there: building it", beside.display());
    let built =
        std::process::Command::new("cargo").args(["build", "--release", "--bin", "anode"]).status()?;
    let path = Path::new("target/release/anode");
    match built.success() && path.is_file() {
        true => Ok(path.to_owned()),
        false => Err("cargo build --release --bin anode: no binary".into()),
    }
}
