//! How much memory a node holds after it has stored many records of few sources.

use std::path::Path;
use std::time::Duration;

use anode_loadgen::Outcome;
use anode_loadgen::args::{AckName, RunArgs};
use anode_loadgen::machine::resident_bytes;

use crate::node::Node;

/// Number of sources.
pub const SOURCES: u32 = 1_000;
/// How often each of them is written.
pub const WRITES: u32 = 300;
/// Size of each record's data, in bytes.
pub const DATA_BYTES: usize = 200;
/// Records per second.
const RATE: u32 = 20_000;
/// How long a node may take to start.
const DEADLINE: Duration = Duration::from_secs(60);

/// Puts the load on a fresh node in this folder. Returns its resident bytes once everything is stored.
pub fn run(anode: &Path, folder: &Path) -> Outcome<u64> {
    let node = Node::start(anode, folder, &["--store", "embedded", "--log-level", "warn"])?;
    node.wait_ready(DEADLINE)?;
    let mut args = RunArgs::parse(&["--threads", "1", "--drain", "60", "--warmup", "0"])?;
    (args.to, args.rate, args.ack) = (vec![node.http.clone()], RATE.to_string(), AckName::Stored);
    (args.publishers, args.subscribers, args.sources) = (1, 0, Some(SOURCES));
    (args.size, args.seconds) = (DATA_BYTES.to_string(), f64::from(SOURCES * WRITES) / f64::from(RATE));
    let report = crate::load::run(&args)?;
    match report.correctness.is_fine() {
        true => resident_bytes(&[node.pid()]),
        false => Err(format!("{:?}", report.correctness).into()),
    }
}
