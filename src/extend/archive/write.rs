//! Writes one archive: the frames first, the manifest last, and the record that tells of it after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::chain::{ArchiveChain, ArchiveEntry};
use super::checkpoint::checkpoint;
use super::collect::Collector;
use super::definition::ArchiveDefinition;
use super::error::ArchiveError;
use super::manifest::{ARCHIVE_FRAMES_MAX, Manifest, ParentOf};
use super::records::{ArchiveCursor, ArchiveRecords};
use super::store::{ArchiveStore, WRITE_US_MAX, folder_name};
use crate::extend::host::ExtendHost;

/// The archives of one definition, as a node works on them.
pub struct ArchiveWork<'a> {
    /// The node that works on them.
    pub host: Arc<dyn ExtendHost>,
    /// Name of the definition.
    pub name: &'a str,
    /// What is kept, and where.
    pub definition: &'a ArchiveDefinition,
    /// The place where they are.
    pub store: &'a ArchiveStore,
}

impl ArchiveWork<'_> {
    /// The records of the archives.
    pub fn records(&self) -> ArchiveRecords<'_> {
        ArchiveRecords::of(&*self.host, self.name)
    }

    /// Compares what the cluster was told with what is in the store, and returns what is there. Removes what interrupted
    /// writers have left.
    pub async fn look(&self) -> Result<ArchiveChain, ArchiveError> {
        let survey = self.store.survey().await?;
        self.store.clean(&survey, self.host.name(), self.host.now().wall_us).await?;
        let mut chain = self.records().list();
        let told: Vec<String> = chain.newest_first().iter().map(|entry| entry.id.clone()).collect();
        for id in told.iter().filter(|id| !survey.whole.contains(id)) {
            tracing::warn!(archive = self.name, id, "an archive is no longer in its store");
            self.records().remove(id)?;
            chain.remove(id);
        }
        // The newest are told of first, as far as names say which these are.
        for id in survey.whole.iter().rev() {
            if chain.get(id).is_none() {
                match self.store.manifest(id).await {
                    Ok((manifest, sha256)) => {
                        let entry = ArchiveEntry::new(id, &manifest, sha256);
                        self.records().add(&entry)?;
                        chain.insert(entry);
                    }
                    // One that cannot be read is no reason not to write another one.
                    Err(error @ ArchiveError::Damaged { .. }) => {
                        tracing::warn!(archive = self.name, id, %error, "an archive in the store is left out");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(chain)
    }

    /// Writes an archive of what has changed since the newest one. Returns its entry; `None` if nothing has.
    pub async fn write(&self, chain: &mut ArchiveChain) -> Result<Option<ArchiveEntry>, ArchiveError> {
        let late = |_| ArchiveError::Node("the archive took too long to be written".into());
        timeout(Duration::from_micros(WRITE_US_MAX), self.write_next(chain)).await.map_err(late)?
    }

    async fn write_next(&self, chain: &mut ArchiveChain) -> Result<Option<ArchiveEntry>, ArchiveError> {
        let pattern = &self.definition.pattern;
        let newest = chain.newest().cloned();
        let parent = chain.parent_of_next(pattern.as_str(), self.definition.full_every).cloned();
        let (parent, before) = match parent {
            Some(parent) => self.continued(parent).await?,
            None => (None, None),
        };
        let found = checkpoint(&self.host, pattern, before.as_deref()).await?;
        // A node that cannot tell what has changed writes a full archive.
        let parent = parent.filter(|_| found.covered.is_some());
        // Clocks differ: an archive is never older than the one before.
        let at = newest.as_ref().map_or(found.at, |newest| found.at.max(newest.at + 1));
        let mut manifest = Manifest::new(self.name, self.host.name(), at, pattern.as_str());
        manifest.resume = Some(found.token.clone());
        if let Some(parent) = &parent {
            manifest.depth = parent.depth + 1;
            manifest.parent = Some(ParentOf { id: parent.id.clone(), sha256: parent.sha256.clone() });
        }
        let collector = Collector::new(self.host.walk(pattern.clone()), found.covered, at);
        let written = self.upload(collector, manifest).await?;
        let is_written = written.is_some();
        let head = match &written {
            Some(entry) => {
                self.records().add(entry)?;
                chain.insert(entry.clone());
                entry.id.clone()
            }
            None => parent.map(|parent| parent.id).unwrap_or_default(),
        };
        debug_assert!(
            is_written || !head.is_empty(),
            "only an archive with a parent may have nothing to say"
        );
        self.records().set_cursor(&ArchiveCursor { head, resume: found.token, checked: found.at })?;
        Ok(written)
    }

    /// The token from which an archive goes on that has this parent.
    async fn continued(
        &self,
        parent: ArchiveEntry,
    ) -> Result<(Option<ArchiveEntry>, Option<String>), ArchiveError> {
        if let Some(cursor) = self.records().cursor().filter(|cursor| cursor.head == parent.id) {
            return Ok((Some(parent), Some(cursor.resume)));
        }
        let (manifest, _) = self.store.manifest(&parent.id).await?;
        Ok((Some(parent), manifest.resume))
    }

    /// Writes the frames and the manifest. An archive with a parent is not written if it would be empty.
    async fn upload(
        &self,
        mut collector: Collector,
        mut manifest: Manifest,
    ) -> Result<Option<ArchiveEntry>, ArchiveError> {
        let mut upload = self.store.begin(folder_name(manifest.at, self.host.name()));
        loop {
            // A frame takes a fraction of a second to be gathered and compressed.
            let gathered =
                spawn_blocking(move || collector.next_frame().map(|frame| (collector, frame))).await;
            let (next, frame) = gathered.map_err(|error| ArchiveError::Node(error.to_string()))??;
            collector = next;
            let Some(frame) = frame else { break };
            if manifest.frames.len() >= ARCHIVE_FRAMES_MAX {
                let why = format!("there is more than fits into {ARCHIVE_FRAMES_MAX} frames; use a pattern");
                return Err(ArchiveError::Node(why));
            }
            upload.put(&frame.entry.name, frame.stored).await?;
            manifest.push(frame.entry);
        }
        if manifest.records == 0 && manifest.parent.is_some() {
            return Ok(None);
        }
        let (text, sha256) = manifest.encode()?;
        let id = upload.finish(text).await?;
        Ok(Some(ArchiveEntry::new(&id, &manifest, sha256)))
    }

    /// Removes archives that are superfluous, if the definition says how many are kept. Returns their number.
    pub async fn thin_out(&self, chain: &mut ArchiveChain) -> Result<u64, ArchiveError> {
        let Some(keep) = self.definition.keep else { return Ok(0) };
        let superfluous: Vec<String> = chain.superfluous(keep).iter().map(|entry| entry.id.clone()).collect();
        let mut count = 0;
        for id in superfluous {
            let manifest = match self.store.manifest(&id).await {
                Ok((manifest, _)) => manifest,
                Err(ArchiveError::Store(super::error::PlaceError::NotFound(_))) => {
                    self.records().remove(&id)?;
                    chain.remove(&id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.records().remove(&id)?;
            self.store.remove(&id, &manifest).await?;
            chain.remove(&id);
            count += 1;
        }
        Ok(count)
    }
}
