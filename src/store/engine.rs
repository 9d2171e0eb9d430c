//! The narrow door between the writer and whatever keeps the records.
//!
//! The writer thread calls [`Engine::commit`] with one [`Group`] at a time and retries the same group
//! until it succeeds; readers call [`Reader`] from any thread. A commit is idempotent: every write
//! compares stamps, so a group that was half written, or written without its answer having come
//! back, may be written again.

use super::history::HistoryQuery;
use super::log::Group;
use crate::cluster::Heads;
use crate::record::{Record, Stamp};

/// Small facts about the node that are kept with the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// No stamp over this was issued by any life of the node so far. 0: none was issued.
    pub clock_high_water_us: u64,
    /// When the node last agreed fully with the cluster. 0: never.
    pub agreed_us: u64,
}

/// Why the store could not do it. Nothing is lost by it: the writer keeps what it could not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub String);

/// What was read while loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Records shown.
    pub records: u64,
    /// Records skipped because their bytes or their checksum are wrong.
    pub damaged: u64,
    /// There is more that cannot be read now ([`super::StoreHandle::is_load_owed`]).
    pub is_partial: bool,
}

/// What other threads than the writer's ask.
pub trait Reader: Send + Sync {
    /// Shows the latest record of every source, the embedded store in order of name.
    fn load(&self, each: &mut dyn FnMut(Record)) -> Result<LoadReport, EngineError>;
    /// Records of a source, newest first, the latest included.
    fn history(&self, query: &HistoryQuery<'_>) -> Result<Vec<Record>, EngineError>;
}

/// A place that keeps the latest record of every source and the ring of those before it.
pub trait Engine: Reader {
    /// Writes a group and the marks; returns once they survive a power cut.
    fn commit(&self, group: &Group, marks: Marks) -> Result<(), EngineError>;
    /// Whether commits of empty groups would get something done that was put off.
    fn owes(&self) -> bool;
    /// Keeps the heads of what is written, for the next time it is opened, and for that time alone.
    fn keep_heads(&self, heads: &Heads) -> Result<(), EngineError>;
    /// Makes the engine usable again after an error, if that is possible.
    fn recover(&self) -> Result<(), EngineError>;
    /// Shows at most `limit` names, with the stamps of their latest records, that follow `after`.
    fn sources(
        &self,
        after: Option<&str>,
        limit: usize,
        each: &mut dyn FnMut(&str, Stamp),
    ) -> Result<(), EngineError>;
    /// Gives the files back, cleanly. What is asked afterwards is an error.
    fn close(&self);
}
