//! The trait of a kind of store.
//!
//! A backend reads records and states whether one node or all nodes write them; a function opens it and
//! returns an [`OpenBackend`]. Everything else is the same for all kinds: the queue, the durable mark,
//! health, and the join of the records that wait with those that are written.

use std::path::PathBuf;
use std::sync::Arc;

use super::data_dir::DirLock;
use super::error::StoreError;
use super::open::NodeIdentity;
use super::placement::Sharing;
use super::rings::HistoryRings;
use super::write_path::WritePath;
use crate::record::{HistoryQuery, Record, Stamp};

/// The result of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Number of records shown.
    pub records: u64,
    /// Number of records skipped because their bytes or their checksum are wrong.
    pub damaged: u64,
    /// Whether there are more records, which cannot be read now and which a later load will show.
    pub is_partial: bool,
}

/// A place that keeps records, as all threads but the writer's use it. Calls may block for as long as a read
/// takes.
pub(super) trait Backend: Send + Sync {
    /// Passes the latest record of every source to `each`, after verifying its checksum.
    fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, StoreError>;

    /// Returns whether a load that was partial can be repeated now. Only a backend that may be away at
    /// the start owes one.
    fn is_load_owed(&self) -> bool {
        false
    }

    /// Reads the records of a source that the query selects, the newest first. `unwritten` has the
    /// ascending stamps of records that the backend has not been given yet: they take places of the
    /// source's ring, so as many of the oldest are left out.
    fn history(&self, query: &HistoryQuery, unwritten: &[Stamp]) -> Result<Vec<Record>, StoreError>;

    /// Greatest number of records that the history of a source shows, the latest included.
    fn history_len_max(&self) -> usize;

    /// Returns whether the records are one node's or all nodes'.
    fn sharing(&self) -> Sharing;
}

/// The body of the thread that empties the queue: runs until the store is told to stop.
pub(super) type WriterRun = Box<dyn FnOnce() + Send>;

/// The place that pushed records go to.
pub(super) enum Intake {
    /// Into the queue of the write path, which a thread with this body empties.
    Queue(WriterRun),
    /// Straight into memory, where records are kept at once and nothing waits.
    Memory(Arc<HistoryRings>),
}

/// A backend that was opened.
pub(super) struct OpenBackend {
    /// The identity of the node, as the store keeps it.
    pub(super) identity: NodeIdentity,
    /// The queue, the bell and the marks that the handles and the writer share.
    pub(super) path: Arc<WritePath>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) intake: Intake,
    /// File or directory that errors name.
    pub(super) place: PathBuf,
    /// Lock of the data directory, held for as long as the store is open.
    pub(super) lock: Option<DirLock>,
}
