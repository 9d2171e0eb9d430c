//! `anode-loadgen`: load for a node or a cluster.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a load generator sleeps")]

use std::process::ExitCode;
use std::time::Duration;

use anode_loadgen::{Outcome, fill, idle, latency};
use clap::{Parser, Subcommand};

/// Load for an aNode cluster.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish at a constant rate at one node, receive at others, print the latency's percentiles
    Latency {
        /// host:port to publish to
        #[arg(long, default_value = "127.0.0.1:7070")]
        publish: String,
        /// host:port to subscribe to, several split by commas
        #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7070")]
        subscribe: Vec<String>,
        /// Records a second
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// How long
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Sources, published to in turn
        #[arg(long, default_value_t = 100)]
        sources: u32,
        /// Bytes of padding in each record's data
        #[arg(long, default_value_t = 100)]
        padding_bytes: usize,
    },
    /// Publish many sources once, acknowledged as stored
    Fill {
        /// host:port
        #[arg(long, default_value = "127.0.0.1:7070")]
        to: String,
        /// How many sources
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
        /// Records a frame
        #[arg(long, default_value_t = 1_000)]
        batch: u64,
        /// First segments of the sources' names
        #[arg(long, default_value = "fill")]
        prefix: String,
        /// Bytes of padding in each record's data
        #[arg(long, default_value_t = 100)]
        padding_bytes: usize,
    },
    /// Open idle subscribers and hold them
    Idle {
        /// host:port
        #[arg(long, default_value = "127.0.0.1:7070")]
        to: String,
        /// How many
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Process of the node: prints what each connection costs it, resident
        #[arg(long)]
        pid: Option<u32>,
        /// How long to hold them
        #[arg(long, default_value_t = 10)]
        seconds: u64,
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
        Command::Latency { publish, subscribe, rate, seconds, sources, padding_bytes } => {
            let plan = latency::Plan {
                publish,
                subscribe,
                rate_per_s: rate,
                seconds,
                warmup: rate,
                sources,
                padding_bytes,
            };
            println!("{plan:?}");
            for seen in latency::run(&plan)? {
                let at = |q: f64| seen.latency_ns.value_at_quantile(q) as f64 / 1e6;
                println!(
                    "{}: p50 {:.3} ms, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3}; {} counted, {} missing",
                    seen.http,
                    at(0.5),
                    at(0.9),
                    at(0.99),
                    at(0.999),
                    at(1.0),
                    seen.latency_ns.len(),
                    seen.missing
                );
            }
        }
        Command::Fill { to, count, batch, prefix, padding_bytes } => {
            fill::run(&to, &prefix, count, batch.max(1), padding_bytes)?
        }
        Command::Idle { to, connections, pid, seconds } => {
            let before = pid.map(idle::resident_bytes).transpose()?;
            let idle = idle::Idle::open(&to, connections)?;
            std::thread::sleep(Duration::from_secs(seconds));
            if let (Some(pid), Some(before)) = (pid, before) {
                let each = idle::resident_bytes(pid)?.saturating_sub(before) / idle.len().max(1) as u64;
                println!("{} connections, {each} resident bytes each", idle.len());
            }
        }
    }
    Ok(())
}
