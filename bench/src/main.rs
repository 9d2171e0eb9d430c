//! `anode-bench figures`: measures, on this machine, the figures that the README states.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and sleeps")]

mod figures;
mod node;

use std::path::PathBuf;
use std::process::ExitCode;

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
}

fn main() -> ExitCode {
    let Command::Figures { anode, runs, connections, stored } = Arguments::parse().command;
    let plan = figures::Plan { anode, runs: runs.max(1), connections, stored };
    match figures::run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
