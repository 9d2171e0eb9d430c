//! Reads the manifests of an archive and of all archives that it goes on from.

use super::error::ArchiveError;
use super::manifest::Manifest;
use super::store::ArchiveStore;

/// An archive with its manifest.
#[derive(Clone, Debug)]
pub struct ReadArchive {
    /// Id of the archive.
    pub id: String,
    /// What the archive has, and what it goes on from.
    pub manifest: Manifest,
}

/// Reads the manifests from the archive `id` down to a full one, the newest first. Every manifest must have the hash
/// that the one above it says. `expected` is the hash of the first, if it is known.
pub async fn read_lineage(
    store: &ArchiveStore,
    id: &str,
    expected: Option<&str>,
) -> Result<Vec<ReadArchive>, ArchiveError> {
    let mut all: Vec<ReadArchive> = Vec::new();
    let (mut id, mut expected) = (id.to_owned(), expected.map(str::to_owned));
    loop {
        let (manifest, sha256) = store.manifest(&id).await?;
        if expected.is_some_and(|expected| expected != sha256) {
            return Err(ArchiveError::damaged(
                format!("{id}/manifest.json"),
                "it is not the one that was written",
            ));
        }
        if all.last().is_some_and(|above| above.manifest.depth != manifest.depth + 1) {
            return Err(ArchiveError::damaged(id, "its depth is not that of the archive above it less one"));
        }
        let parent = manifest.parent.clone();
        all.push(ReadArchive { id, manifest });
        match parent {
            Some(parent) => (id, expected) = (parent.id, Some(parent.sha256)),
            None => return Ok(all),
        }
    }
}
