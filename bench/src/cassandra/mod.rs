//! Measures the store in Cassandra, with a Cassandra that runs on this machine.
//!
//! By file: `bare` is the same driver without aNode, `throughput` compares the two, `kill` looks for lost
//! records, `pause` measures what a hung database delays, `load` how long a start takes. Figures are
//! printed; a lost record is an error.

mod bare;
mod kill;
mod load;
mod pause;
mod throughput;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anode_loadgen::Outcome;
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use crate::folder::Folder;
use crate::machine::Machine;
use crate::node::Node;
use bare::Bare;

/// Longest time that a node may take to be ready, and to see another one.
const READY: Duration = Duration::from_secs(120);
/// Most records that a publisher leaves unanswered.
const UNANSWERED: u64 = 4_096;

/// A figure that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// `ack=stored` through one node against a bare loop of the driver
    Throughput,
    /// Acknowledged as stored and missing in Cassandra, after kill -9 of the node
    Kill,
    /// Latency and what is lost while Cassandra hangs
    Pause,
    /// Start of an empty node from what Cassandra holds
    Load,
}

/// Options of this command.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The anode binary [default: the one next to this program, else it is built]
    #[arg(long)]
    anode: Option<PathBuf>,
    /// `IP:PORT` of Cassandra, which asks for no password
    #[arg(long, default_value = "127.0.0.1:9042")]
    cassandra: String,
    /// File with the process id of Cassandra, whose time is read and which is paused
    #[arg(long, default_value = "target/cassandra/node1/pid")]
    pid_file: PathBuf,
    /// Which figures
    #[arg(long, value_enum, value_delimiter = ',', default_value = "throughput,kill,pause,load")]
    only: Vec<Figure>,
    /// Throughput: records of a round, through aNode and bare each
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// Throughput: rounds that count; two more come before
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Kills
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Pause: its seconds, and those of the runs without one before and after it
    #[arg(long, default_value_t = 60)]
    pause_s: u32,
    /// Pause: records a second
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Load: sources that a node is started with
    #[arg(long, default_value_t = 1_000_000)]
    sources: u64,
}

/// The binary, options, runtime, bare session and folder that all measurements against Cassandra share.
struct Bench {
    anode: PathBuf,
    arguments: Arguments,
    runtime: Runtime,
    bare: Bare,
    folder: Folder,
}

/// Measures, and prints the results.
pub fn run(arguments: Arguments) -> Outcome<()> {
    let anode = crate::find_anode(arguments.anode.clone())?;
    println!("{}", Machine::look(&anode)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bare = runtime.block_on(Bare::connect(&arguments.cassandra))?;
    println!("Cassandra {}", runtime.block_on(bare.release())?);
    println!("parameters: {arguments:?}");
    let bench = Bench { anode, arguments, runtime, bare, folder: Folder::new()? };
    for figure in &bench.arguments.only {
        match figure {
            Figure::Throughput => throughput::measure(&bench)?,
            Figure::Kill => kill::measure(&bench)?,
            Figure::Pause => pause::measure(&bench)?,
            Figure::Load => load::measure(&bench)?,
        }
    }
    Ok(())
}

impl Bench {
    /// Returns the name of a keyspace that no earlier run has used.
    fn keyspace(&self, figure: &str) -> String {
        format!("bench_{figure}_{}", std::process::id())
    }

    /// Starts a node that stores into the keyspace, and waits until it is ready.
    fn start(&self, keyspace: &str, dir: &Path, join: Option<&Node>) -> Outcome<Node> {
        let cassandra = &self.arguments.cassandra;
        let mut flags = vec!["--store", "cassandra", "--cassandra", cassandra, "--keyspace", keyspace];
        flags.extend(["--profile", "local", "--log-level", "warn"]);
        if let Some(other) = join {
            flags.extend(["--join", &other.gossip]);
        }
        let node = Node::start(&self.anode, dir, &flags)?;
        node.wait_ready(READY)?;
        Ok(node)
    }

    /// Returns the process id of Cassandra.
    fn pid(&self) -> Outcome<u32> {
        let file = &self.arguments.pid_file;
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(text.trim().parse()?)
    }

    fn forget(&self, keyspace: &str) -> Outcome<()> {
        self.runtime.block_on(self.bare.forget(keyspace))
    }
}
