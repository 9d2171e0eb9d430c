//! How far a file has been read: kept in the state of the pull source, so that a restart neither loses a line nor
//! publishes one twice.
//!
//! Before the lines of a batch are published, the position tells where the batch begins and ends, and the timestamp from
//! which its records are stamped. After a restart the same lines are published once more with the same timestamps. Those
//! that had been published are known as duplicates everywhere, and have no effect.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes at the beginning of a file by which it is known again.
const HEAD_BYTES_MAX: u64 = 256;

/// Which file it is, whatever name it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    /// The file that the place is in.
    #[serde(flatten)]
    pub id: FileId,
    /// Bytes that have been read: the place where the next line begins.
    pub offset: u64,
    /// The place is within a line that was too long.
    #[serde(default)]
    pub is_skipping: bool,
    /// Number of bytes at the beginning of the file that `head_hash` is of.
    head_bytes: u64,
    /// A hash of the beginning. A file that was truncated and written anew has another beginning.
    head_hash: u64,
    /// The batch that begins here and may have been published in part.
    #[serde(default)]
    pub batch: Option<BatchMark>,
}

/// A batch of lines that is being published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchMark {
    /// Place behind its last line.
    pub end: u64,
    /// Timestamp of its first record, in microseconds, if the record has none of its own; each further one has one more.
    pub ts: u64,
}

impl FileId {
    /// The file that this is about.
    pub fn of(metadata: &Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl FilePosition {
    /// A place in a file that is open.
    pub fn at(file: &File, id: FileId, offset: u64) -> std::io::Result<FilePosition> {
        let head_bytes = offset.min(HEAD_BYTES_MAX);
        let head_hash = head_hash(file, head_bytes)?.unwrap_or_default();
        Ok(FilePosition { id, offset, is_skipping: false, head_bytes, head_hash, batch: None })
    }

    /// The same place, at which a batch begins.
    pub fn with_batch(mut self, mark: BatchMark) -> FilePosition {
        self.batch = Some(mark);
        self
    }

    /// Goes on to another place of the same file.
    pub fn advance(&mut self, file: &File, offset: u64) -> std::io::Result<()> {
        if self.head_bytes < HEAD_BYTES_MAX && offset > self.head_bytes {
            self.head_bytes = offset.min(HEAD_BYTES_MAX);
            self.head_hash = head_hash(file, self.head_bytes)?.unwrap_or_default();
        }
        self.offset = offset;
        Ok(())
    }

    /// Returns whether the file still has what was read of it: it is as long, and begins as it did.
    pub fn holds(&self, file: &File) -> std::io::Result<bool> {
        Ok(file.metadata()?.len() >= self.offset && head_hash(file, self.head_bytes)? == Some(self.head_hash))
    }
}

/// The hash of the first bytes of a file; `None` if it has fewer.
fn head_hash(file: &File, bytes: u64) -> std::io::Result<Option<u64>> {
    let mut head = vec![0; usize::try_from(bytes.min(HEAD_BYTES_MAX)).unwrap_or_default()];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => Ok(Some(xxh3_64(&head))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
