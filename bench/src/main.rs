//! `anode-bench`: measures, on this machine, the figures that docs/benchmarks.md states.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and sleeps")]

mod callgrind;
mod cassandra;
mod chart;
mod cluster;
mod document;
mod figures;
mod filters;
mod folder;
mod hostile;
mod instructions;
mod load;
mod machine;
mod map;
mod median;
mod middleware;
mod node;
mod peers;
mod propagation;
mod pull;
mod relay;
mod store;
mod subject;
mod tls;
mod workers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anode_loadgen::Outcome;
use clap::{Parser, Subcommand};

/// The allocator of the program `anode`, so that pieces measured in this process cost what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Instructions of each piece of a record's way, by valgrind, against the baseline
    Instructions(instructions::Arguments),
    /// One piece of a record's way, so many times: what `instructions` counts
    #[command(hide = true)]
    Work {
        /// The piece
        name: String,
        /// How often
        calls: u64,
    },
    /// The map of the latest records against dashmap, papaya and scc, all doing the same work
    Map(map::Arguments),
    /// Clusters of 1, 3, 5 and 8 nodes, of nats-servers and of memberlist: records a second, and what they cost
    Cluster(cluster::Arguments),
    /// aNode and its peers under the same load, in turns
    Peers(peers::Arguments),
    /// The least that a server can do: relays what is published to all subscribers, as it is
    Relay {
        /// Where it listens
        #[arg(long)]
        listen: std::net::SocketAddr,
        /// A write for every frame
        #[arg(long)]
        singly: bool,
    },
    /// Published at one node until received at all others, against the number of nodes; memberlist beside it
    Propagation(propagation::Arguments),
    /// The embedded store through a node against a bare loop into the same kind of file on the same disk
    Store(store::Arguments),
    /// What TLS costs: deliveries a second from one publisher to many subscribers, plain and with TLS, and memory
    Tls(tls::Arguments),
    /// What middlewares cost: records a second without one, with an expression, and with a module
    Middleware(middleware::Arguments),
    /// What filters cost: a record with thousands of subscribers, without a filter and with one
    Filters(filters::Arguments),
    /// What a record received from a peer costs on each thread of a node, for several numbers of workers
    Workers(workers::Arguments),
    /// A healthy publisher and subscriber while thousands of connections attack their node: latencies and verdicts
    Hostile(hostile::Arguments),
    /// The attackers of `hostile`
    #[command(hide = true)]
    Attack(hostile::AttackArguments),
    /// Pull sources: what a thousand cost a node, how soon they move when their member is killed, and the start
    Pull(pull::Arguments),
    /// The store in a real Cassandra (`scripts/cassandra start`): throughput, kills, a pause, a load
    StoreCassandra(cassandra::Arguments),
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
        Command::Instructions(arguments) => instructions::run(&arguments),
        Command::Work { name, calls } => instructions::work(&name, calls),
        Command::Map(arguments) => map::run(&arguments),
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::Peers(arguments) => peers::run(arguments),
        Command::Relay { listen, singly } => relay::run(listen, singly),
        Command::Propagation(arguments) => propagation::run(arguments),
        Command::Store(arguments) => store::run(&arguments),
        Command::Tls(arguments) => tls::run(&arguments),
        Command::Middleware(arguments) => middleware::run(&arguments),
        Command::Filters(arguments) => filters::run(&arguments),
        Command::Workers(arguments) => workers::run(&arguments),
        Command::Hostile(arguments) => hostile::run(&arguments),
        Command::Attack(arguments) => hostile::attack(&arguments),
        Command::Pull(arguments) => pull::run(&arguments),
        Command::StoreCassandra(arguments) => cassandra::run(arguments),
    }
}

/// Returns the anode binary: the given one, or the one next to this program, or one that is built now.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_page_are_understood() {
        let page = include_str!("../../docs/benchmarks.md");
        let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("anode-bench ")).collect();
        assert!(commands.len() >= 3, "{commands:?}");
        for command in commands {
            if let Err(error) = Arguments::try_parse_from(command.split_whitespace()) {
                panic!("{command}: {error}");
            }
        }
    }
}
