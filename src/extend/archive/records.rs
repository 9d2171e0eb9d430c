//! What the cluster is told of archives, as records of the system's names.
//!
//! `$archive/NAME/list/ID` is an archive that is whole. `$archive/NAME/cursor` says when it was last looked for changes,
//! and the resume token of then. Both say what the store says as well, so a cluster that has lost them finds its
//! archives again.

use serde::{Deserialize, Serialize};

use super::chain::{ArchiveChain, ArchiveEntry};
use super::error::ArchiveError;
use crate::extend::host::ExtendHost;
use crate::extend::system_record::{read_kept, tell_system};
use crate::protocol::draft::DraftPayload;
use crate::record::Pattern;

/// When it was last looked for changes, and from where the next archive goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveCursor {
    /// Id of the newest archive at that time.
    pub head: String,
    /// Resume token of that time. Nothing has changed between the archive and then.
    pub resume: String,
    /// That time, in microseconds since the Unix epoch.
    pub checked: u64,
}

/// The records of the archives of one definition.
pub struct ArchiveRecords<'a> {
    host: &'a dyn ExtendHost,
    name: &'a str,
}

impl<'a> ArchiveRecords<'a> {
    /// The records of this definition.
    pub fn of(host: &'a dyn ExtendHost, name: &'a str) -> ArchiveRecords<'a> {
        ArchiveRecords { host, name }
    }

    /// The archives that the cluster was told of.
    pub fn list(&self) -> ArchiveChain {
        let pattern = format!("$archive/{}/list/*", self.name);
        let records = Pattern::parse(&pattern).map(|pattern| self.host.list(&pattern)).unwrap_or_default();
        records.iter().filter_map(|record| read_kept(record)).collect()
    }

    /// Tells of an archive.
    pub fn add(&self, entry: &ArchiveEntry) -> Result<(), ArchiveError> {
        let text = serde_json::to_vec(entry).map_err(|error| ArchiveError::Node(error.to_string()))?;
        self.tell(&self.list_name(&entry.id), DraftPayload::Json(&text))
    }

    /// Tells that an archive is no more.
    pub fn remove(&self, id: &str) -> Result<(), ArchiveError> {
        self.tell(&self.list_name(id), DraftPayload::Deleted)
    }

    /// When it was last looked for changes.
    pub fn cursor(&self) -> Option<ArchiveCursor> {
        self.host.get(&self.cursor_name()).and_then(|record| read_kept(&record))
    }

    /// Tells when it was looked for changes.
    pub fn set_cursor(&self, cursor: &ArchiveCursor) -> Result<(), ArchiveError> {
        let text = serde_json::to_vec(cursor).map_err(|error| ArchiveError::Node(error.to_string()))?;
        self.tell(&self.cursor_name(), DraftPayload::Json(&text))
    }

    fn list_name(&self, id: &str) -> String {
        format!("$archive/{}/list/{id}", self.name)
    }

    fn cursor_name(&self) -> String {
        format!("$archive/{}/cursor", self.name)
    }

    fn tell(&self, source: &str, payload: DraftPayload<'_>) -> Result<(), ArchiveError> {
        let told = tell_system(self.host, source, payload);
        told.map_err(|refusal| ArchiveError::Node(refusal.to_string()))
    }
}
