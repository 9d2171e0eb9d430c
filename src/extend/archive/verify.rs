//! Reads archives back as a whole, and checks every hash, every count and every line.

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::error::{ArchiveError, PlaceError};
use super::lineage::read_lineage;
use super::manifest::FrameOf;
use super::progress::JobProgress;
use super::records::ArchiveRecords;
use super::store::ArchiveStore;

/// What was read so far.
#[derive(Debug, Default)]
struct VerifiedCounts {
    archives: u64,
    frames: u64,
    records: u64,
    bytes: u64,
}

impl VerifiedCounts {
    fn to_json(&self) -> Value {
        json!({
            "archives": self.archives, "frames": self.frames, "records": self.records, "bytes": self.bytes,
        })
    }
}

/// Reads archives and everything that they need, each once. An error names the first thing that is not as it was written.
pub async fn verify(
    store: &ArchiveStore,
    records: &ArchiveRecords<'_>,
    ids: &[String],
    progress: &mut JobProgress,
) -> Result<Value, ArchiveError> {
    let chain = records.list();
    let mut counts = VerifiedCounts::default();
    let mut done: Vec<String> = Vec::new();
    for id in ids {
        let expected = chain.get(id).map(|entry| entry.sha256.as_str());
        let verified = verify_one(store, id, expected, (&mut done, &mut counts), progress).await;
        // An archive may be removed meanwhile, because newer ones are kept.
        let is_gone = matches!(verified, Err(ArchiveError::Store(PlaceError::NotFound(_))))
            && expected.is_some()
            && records.list().get(id).is_none();
        if !is_gone {
            verified?;
        }
    }
    Ok(counts.to_json())
}

/// Reads an archive and those that it goes on from, unless they are among those that are done.
async fn verify_one(
    store: &ArchiveStore,
    id: &str,
    expected: Option<&str>,
    (done, counts): (&mut Vec<String>, &mut VerifiedCounts),
    progress: &mut JobProgress,
) -> Result<(), ArchiveError> {
    for archive in read_lineage(store, id, expected).await? {
        if done.contains(&archive.id) {
            continue;
        }
        for entry in &archive.manifest.frames {
            verify_frame(store, &archive.id, entry).await?;
            counts.frames += 1;
            counts.records += entry.records;
            counts.bytes += entry.stored_bytes;
            progress.tell(|| counts.to_json()).await?;
        }
        counts.archives += 1;
        done.push(archive.id);
    }
    Ok(())
}

async fn verify_frame(store: &ArchiveStore, id: &str, entry: &FrameOf) -> Result<(), ArchiveError> {
    let frame = store.frame(id, entry).await?;
    let (what, entry) = (format!("{id}/{}", entry.name), entry.clone());
    let checked = spawn_blocking(move || {
        let (mut deletions, mut is_within) = (0, true);
        let records = frame.each(&what, |record| {
            let source: &str = &record.draft.source;
            deletions += u64::from(record.is_deletion());
            is_within &= (entry.ts.0..=entry.ts.1).contains(&record.ts)
                && source >= entry.sources.0.as_str()
                && source <= entry.sources.1.as_str();
        })?;
        match (records, deletions, is_within) == (entry.records, entry.deletions, true) {
            true => Ok(()),
            false => Err(ArchiveError::damaged(what, "its records are not those that the manifest says")),
        }
    });
    checked.await.map_err(|error| ArchiveError::Node(error.to_string()))?
}
