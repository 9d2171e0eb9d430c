//! Measures how long a node with an empty directory takes to start with the records in Cassandra.

use std::time::Instant;

use anode_loadgen::access::AccessArgs;
use anode_loadgen::{Outcome, fill};

use super::Bench;

/// The keyspace. It is kept from one run to the next, because filling it takes minutes.
const KEYSPACE: &str = "bench_load";

/// Measures, and prints the results.
pub fn measure(bench: &Bench) -> Outcome<()> {
    let node = bench.start(KEYSPACE, &bench.folder.join("fill"), None)?;
    if (node.metric("anode_sources")? as u64) < bench.arguments.sources {
        let sources = bench.arguments.sources;
        fill::run(&node.http, &AccessArgs::default(), "load", sources, 500, 20)?;
    }
    drop(node);
    let began = Instant::now();
    let node = bench.start(KEYSPACE, &bench.folder.join("empty"), None)?;
    let sources = node.metric("anode_sources")?;
    println!("load: {sources} sources, ready after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
