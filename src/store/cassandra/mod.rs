//! The store in Apache Cassandra, shared by all nodes of the cluster.
//!
//! ```text
//! queue ──▶ writer ──▶ link ──▶ session ──▶ Cassandra          (as long as Cassandra is there)
//!              └────▶ spill (on the disk) ──▶ link, in order of age, when it is there again
//! ```
//! The node that accepted a record writes it. Its peers hold the record, too, and write it only if that node
//! is gone before it has published that the record is stored. Cassandra decides between records as aNode does
//! (`rows`), so it does not matter which node writes a record, how often, and how late.
//!
//! - `writer`: the turns of the thread, and what is durable; `reach`: whether Cassandra answers;
//! - `link`: writes groups, cut into `requests`, and reads records and histories; `session`: sends requests,
//!   over connections that `connect` makes, to the nodes that `placing` chooses; `schema`: makes the tables;
//! - `watch`: finds nodes of Cassandra that the session overlooks;
//! - `spill`: the records that wait on the disk while Cassandra is away;
//! - `reader`: how other threads read.
//!
//! One thread, named like the embedded store's writer, runs all of it on a tokio runtime of its own; the
//! event loops never wait for it. The identity of the node (name, boot number, marks, heads) stays in the
//! data directory, in the embedded store's file.
//!
//! Rejected: batches where not every node holds every row, since each source is a partition of its own, so
//! that a coordinator would have to take the batch apart again; counters and lightweight transactions, which
//! cost four round trips where the order of records needs none.

mod connect;
mod fault;
mod link;
mod listed;
mod placing;
mod reach;
mod reader;
mod requests;
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
use self::reader::CassandraBackend;
use self::spill::{Spill, SpillBounds, SpillError};
use self::writer::{CassandraWriter, WriterParts};
use super::backend::{Intake, OpenBackend};
use super::data_dir::take_dir;
use super::embedded::{Embedded, open_identity};
use super::engine::StoreEngine;
use super::error::StoreError;
use super::open::{OpenError, StoreOptions};
use super::queue::WriteGroup;
use crate::config::cassandra::Cassandra as Config;
use crate::record::{SharedRecord, Source};

/// Name of the file inside the data directory that holds the records that wait for Cassandra.
const SPILL_NAME: &str = "anode-spill.redb";
/// Number of questions of other threads that may wait.
const QUESTIONS_MAX: usize = 64;
/// Number of records moved at a time out of an embedded store that was used before.
const MOVED_RECORDS: usize = 4_096;

/// Opens the store's files in the data directory: the node's identity, and the records that wait for
/// Cassandra. Cassandra itself is connected to once the writer runs, so opening does not wait for it.
pub(super) fn open(config: &Config, dir: &Path, options: StoreOptions) -> Result<OpenBackend, OpenError> {
    let (dir, lock) = take_dir(dir)?;
    let (embedded, identity, path) = open_identity(&dir, options)?;
    let place = dir.join(SPILL_NAME);
    let failed = |error: SpillError| OpenError::Database { path: place.clone(), reason: error.into() };
    let spill = Arc::new(Spill::open(&place, SpillBounds::default()).map_err(failed)?);
    move_records(&embedded, &spill).map_err(|error| {
        let text = format!("records of the embedded store: {error}");
        OpenError::Write(error.with_text(text))
    })?;
    path.set_spilled(spill.records());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| OpenError::Io { path: place.clone(), source })?;
    let (asked, questions) = mpsc::channel(QUESTIONS_MAX);
    let (slot, bell) = (LinkSlot::default(), Arc::new(Notify::new()));
    let ringing = bell.clone();
    path.bell.set_listener(Box::new(move || ringing.notify_one()));
    let backend = Arc::new(CassandraBackend::new(asked, spill.clone(), slot.clone()));
    let parts = WriterParts {
        config: config.clone(),
        path: path.clone(),
        slot: slot.clone(),
        spill,
        identity: embedded,
        bell,
    };
    let writer = CassandraWriter::new(parts);
    let thread = StoreThread { writer, questions, slot, config: config.clone(), runtime };
    let intake = Intake::Queue(Box::new(|| thread.run()));
    Ok(OpenBackend { identity, path, backend, intake, place: dir, lock: Some(lock) })
}

/// Everything that runs on the store's thread.
struct StoreThread {
    writer: CassandraWriter,
    questions: mpsc::Receiver<reader::Question>,
    slot: LinkSlot,
    config: Config,
    runtime: tokio::runtime::Runtime,
}

impl StoreThread {
    /// Runs until the store is told to stop.
    fn run(self) {
        let StoreThread { writer, questions, slot, config, runtime } = self;
        runtime.block_on(async {
            let answering = tokio::spawn(reader::answer(questions, slot.clone()));
            let watching = tokio::spawn(watch::watch(config, slot));
            writer.run().await;
            answering.abort();
            watching.abort();
        });
        // A name server that does not answer must not keep the process.
        runtime.shutdown_background();
    }
}

/// Moves the records of an embedded store that this directory was used for before to the spill, from which
/// they are written to Cassandra.
fn move_records(identity: &Embedded, spill: &Spill) -> Result<(), StoreError> {
    let mut moved = 0;
    loop {
        // The names are read first: a source is removed only after its record is kept.
        let mut names = Vec::new();
        identity.sources(None, MOVED_RECORDS, &mut |name, stamp| names.push((name.to_owned(), stamp)))?;
        if names.is_empty() {
            break;
        }
        let mut records: Vec<SharedRecord> = Vec::new();
        for (name, _) in &names {
            records.extend(identity.latest(name)?.map(Into::into));
        }
        spill.put(&WriteGroup::of_records(&records))?;
        moved += records.len();
        let removals = names
            .into_iter()
            .filter_map(|(name, stamp)| Source::parse(&name).ok().map(|source| (source, stamp)));
        identity.commit(&WriteGroup::of_removals(removals.collect()), identity.marks()?)?;
    }
    if moved > 0 {
        tracing::info!(records = moved, "records of the embedded store are on their way to Cassandra");
    }
    Ok(())
}
