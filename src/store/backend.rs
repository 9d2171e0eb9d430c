//! What a kind of store supplies: whoever can be read, pushed to and written belongs behind this door.
//!
//! A backend is opened by a function that returns an [`OpenBackend`]. Everything else about a store,
//! the queue, what is durable, health, the join of what waits with what is written, is the same for all.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::StoreError;
use super::open::NodeIdentity;
use super::placement::Sharing;
use super::rings::HistoryRings;
use super::write_path::WritePath;
use crate::record::{HistoryQuery, Record, Stamp};

/// What a load has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Number of records shown.
    pub records: u64,
    /// Number of records skipped because their bytes or their checksum are wrong.
    pub damaged: u64,
    /// Whether there is more that cannot be read now; see [`StoreHandle::is_load_owed`].
    ///
    /// [`StoreHandle::is_load_owed`]: super::StoreHandle::is_load_owed
    pub is_partial: bool,
}

/// A place of records, as every thread but the writer's sees it. Calls may block for as long as a read
/// takes.
pub(super) trait Backend: Send + Sync {
    /// Shows the latest record of every source, each with its checksum verified.
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

    /// Whether the records are one node's or all nodes'.
    fn sharing(&self) -> Sharing;
}

/// The body of the thread that empties the queue: runs until the store is told to stop.
pub(super) type WriterRun = Box<dyn FnOnce() + Send>;

/// Where a push goes.
pub(super) enum Intake {
    /// Into the queue of the write path, which a thread with this body empties.
    Queue(WriterRun),
    /// Straight into memory: it is kept at once, as far as it ever will be, and nothing waits.
    Memory(Arc<HistoryRings>),
}

/// A backend that was opened.
pub(super) struct OpenBackend {
    pub(super) identity: NodeIdentity,
    pub(super) path: Arc<WritePath>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) intake: Intake,
    /// File or directory that errors name.
    pub(super) place: PathBuf,
    /// Lock of the data directory, held for as long as the store is open.
    pub(super) lock: Option<File>,
}
