//! The store in Apache Cassandra, shared by all nodes of the cluster.
//!
//! ```text
//! queue ──▶ writer ──▶ link ──▶ session ──▶ Cassandra          (as long as it is there)
//!              └────▶ spill (on the disk) ──▶ link, in order of age, when it is there again
//! ```
//! The node that accepted a record writes it; its peers hold the record and write it only if that
//! node is gone before it has said that it did. Cassandra decides between records as aNode does
//! (`rows`), so whoever writes what, how often and how late, changes nothing.
//!
//! - `writer`: the thread, its turns, what is durable;
//! - `link`: groups written, records and histories read, over a `session`, which
//!   `placing` leads to the right node, and the `schema`;
//! - `watch`: that no node of Cassandra is overlooked;
//! - `spill`: what waits while Cassandra is away;
//! - `reader`: how other threads ask.
//!
//! One thread, named like the embedded store's writer, runs all of it on a tokio runtime of its own;
//! the event loops never wait for it. Who the node is (name, boot, marks, heads) stays in the data
//! directory, in the embedded store's file.
//!
//! Rejected: writes in batches, which a coordinator would have to take apart again, since every
//! source is a partition of its own; counters and lightweight transactions, which cost four round
//! trips where the order of records needs none.

mod link;
mod placing;
mod reader;
mod rows;
mod schema;
mod session;
mod spill;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use self::link::LinkSlot;
pub(super) use self::reader::Cassandra;
use self::spill::{Bounds, Spill, SpillError};
use self::writer::{Parts, Writer};
use super::embedded::Embedded;
use super::engine::{Engine, EngineError};
use super::log::Group;
use super::open::OpenError;
use super::shared::Shared;
use crate::config::cassandra::Cassandra as Config;
use crate::record::SharedRecord;

/// The file of what waits, inside the data directory.
const SPILL_NAME: &str = "anode-spill.redb";
/// Questions of other threads that may wait.
const JOBS_MAX: usize = 64;
/// Records moved at a time out of an embedded store that was used before.
const MOVED_RECORDS: usize = 4_096;

/// What runs on the thread.
pub(super) struct Driver {
    writer: Writer,
    jobs: mpsc::Receiver<reader::Job>,
    slot: LinkSlot,
    config: Config,
    runtime: tokio::runtime::Runtime,
}

/// Opens the spill in `dir`; Cassandra is looked for once the driver runs. `identity` is the
/// embedded store of the same directory, `clock_floor_us` the stamps that its lives have issued.
pub(super) fn open(
    config: &Config,
    dir: &Path,
    identity: Embedded,
    shared: Arc<Shared>,
    clock_floor_us: u64,
) -> Result<(Cassandra, Driver), OpenError> {
    let path = dir.join(SPILL_NAME);
    let failed = |error: SpillError| OpenError::Database { path: path.clone(), reason: error.to_string() };
    let spill = Arc::new(Spill::open(&path, Bounds::default()).map_err(failed)?);
    move_records(&identity, &spill)
        .map_err(|error| OpenError::Write(format!("records of the embedded store: {error}")))?;
    shared.set_spilled(spill.records());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| OpenError::Io { path: path.clone(), source })?;
    let (asked, jobs) = mpsc::channel(JOBS_MAX);
    let (slot, bell) = (LinkSlot::default(), Arc::new(Notify::new()));
    let ringing = bell.clone();
    shared.set_bell(Box::new(move || ringing.notify_one()));
    let reader = Cassandra::new(asked, spill.clone(), slot.clone());
    let parts = Parts { config: config.clone(), shared, slot: slot.clone(), spill, identity, bell };
    let writer = Writer::new(parts, clock_floor_us);
    Ok((reader, Driver { writer, jobs, slot, config: config.clone(), runtime }))
}

impl Driver {
    /// Runs until the store is told to stop.
    pub(super) fn run(self) {
        let Driver { writer, jobs, slot, config, runtime } = self;
        runtime.block_on(async {
            let answering = tokio::spawn(reader::answer(jobs, slot.clone()));
            let watching = tokio::spawn(watch::watch(config, slot));
            writer.run().await;
            answering.abort();
            watching.abort();
        });
        // A name server that does not answer must not keep the process.
        runtime.shutdown_background();
    }
}

/// Records that an embedded store of this directory kept are on their way to Cassandra from now on.
fn move_records(identity: &Embedded, spill: &Spill) -> Result<(), EngineError> {
    let mut moved = 0;
    loop {
        // Names first: what is shown last is removed only after all of it is kept.
        let mut names = Vec::new();
        identity.sources(None, MOVED_RECORDS, &mut |name, stamp| names.push((name.to_owned(), stamp)))?;
        if names.is_empty() {
            break;
        }
        let mut records: Vec<SharedRecord> = Vec::new();
        for (name, _) in &names {
            records.extend(identity.latest(name)?.map(Into::into));
        }
        spill.put(&Group::of_records(&records)).map_err(|error| EngineError(error.to_string()))?;
        moved += records.len();
        let removals = names.into_iter().filter_map(|(name, stamp)| {
            crate::record::Source::parse(&name).ok().map(|source| (source, stamp))
        });
        identity.commit(&Group::of_removals(removals.collect()), identity.marks()?)?;
    }
    if moved > 0 {
        tracing::info!(records = moved, "records of the embedded store are on their way to Cassandra");
    }
    Ok(())
}
