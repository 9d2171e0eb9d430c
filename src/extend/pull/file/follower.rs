//! Reads the lines of a file as they are written, through rotation by rename and by truncation. Every method may wait
//! for the disk, so it is called on a thread for such work.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::FileStart;
use super::batch::{FileBatch, cut};
use super::position::{FileId, FilePosition};

/// Bytes that are read at a time, unless a line is longer.
const FILE_READ_BYTES: usize = 256 * 1024;
/// Time for which a file that was renamed is read on, in microseconds, since its writer may not have opened the new one
/// so far.
const FILE_ROTATED_US: u64 = 2_000_000;
/// Endings of compressed files, which are copies of what was read before.
const COMPRESSED_ENDINGS: &[&str] = &["gz", "zst", "bz2", "xz", "lz4", "zip"];

/// A file that is followed.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    from: FileStart,
    line_bytes_max: usize,
    current: Option<CurrentFile>,
    /// Where a former life has stopped.
    resume: Option<FilePosition>,
}

#[derive(Debug)]
struct CurrentFile {
    file: File,
    position: FilePosition,
    /// Monotonic time at which another file was first seen at the path with nothing more in this one, in microseconds.
    left_us: Option<u64>,
}

impl Follower {
    /// Follows the file at `path`, from where a former life has stopped, or else from where `from` says.
    pub fn new(path: &str, from: FileStart, line_bytes_max: usize, resume: Option<FilePosition>) -> Follower {
        Follower { path: path.into(), from, line_bytes_max, current: None, resume }
    }

    /// Reads the next lines. A batch without lines says that nothing has come.
    pub fn read(&mut self, now_us: u64) -> Result<FileBatch, String> {
        self.try_read(now_us).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn try_read(&mut self, now_us: u64) -> io::Result<FileBatch> {
        let mut note = None;
        if self.current.is_none() {
            note = self.open()?;
        }
        let Some(current) = &mut self.current else {
            return Err(io::Error::other("it cannot be opened"));
        };
        if !current.position.holds(&current.file)? {
            // It was truncated: what is in it now is new.
            current.position = FilePosition::at(&current.file, current.position.id, 0)?;
        }
        let mut batch = current.read(self.line_bytes_max)?;
        batch.note = note;
        if !batch.is_empty() || batch.is_more {
            current.left_us = None;
            return Ok(batch);
        }
        if self.is_left(now_us) {
            batch = self.leave()?;
        }
        Ok(batch)
    }

    /// The place up to which the file was read, as it stands.
    pub fn position(&self) -> Option<FilePosition> {
        self.current.as_ref().map(|current| current.position.clone())
    }

    /// Notes that the lines of the last batch were published.
    pub fn is_done(&mut self) -> Option<FilePosition> {
        let current = self.current.as_mut()?;
        current.position.batch = None;
        Some(current.position.clone())
    }

    /// Opens the file that is to be read first. Returns what is to be told of it.
    fn open(&mut self) -> io::Result<Option<String>> {
        let Some(resume) = self.resume.clone() else {
            let file = File::open(&self.path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            let offset = match self.from {
                FileStart::Start => 0,
                FileStart::End => end_of_last_line(&file, metadata.len())?,
            };
            self.from = FileStart::Start;
            self.current = Some(CurrentFile::new(file, FileId::of(&metadata), offset)?);
            return Ok(None);
        };
        for path in std::iter::once(self.path.clone()).chain(self.rotated()) {
            let Ok(file) = File::open(&path) else { continue };
            let metadata = file.metadata()?;
            if metadata.is_file() && FileId::of(&metadata) == resume.id && resume.holds(&file)? {
                self.current = Some(CurrentFile { file, position: resume, left_us: None });
                self.resume = None;
                return Ok(None);
            }
        }
        // It was truncated, or removed after a rotation. An open that fails keeps what is known for later.
        let file = File::open(&self.path)?;
        let id = FileId::of(&file.metadata()?);
        self.resume = None;
        self.current = Some(CurrentFile::new(file, id, 0)?);
        let note = "the file that was read before is gone, or was truncated; lines may have been lost";
        Ok((id != resume.id).then(|| note.to_owned()))
    }

    /// Returns whether there is another file at the path, and nobody writes to this one any more.
    fn is_left(&mut self, now_us: u64) -> bool {
        let Some(current) = &mut self.current else { return false };
        let is_other =
            std::fs::metadata(&self.path).is_ok_and(|there| FileId::of(&there) != current.position.id);
        if !is_other {
            current.left_us = None;
            return false;
        }
        now_us >= *current.left_us.get_or_insert(now_us) + FILE_ROTATED_US
    }

    /// Goes on to the file after this one. Returns the last line of this one, if it has no end.
    fn leave(&mut self) -> io::Result<FileBatch> {
        let Some(mut current) = self.current.take() else { return Ok(FileBatch::default()) };
        let batch = current.read_rest(self.line_bytes_max)?;
        if !batch.is_empty() {
            // The next call finds nothing more in it.
            self.current = Some(current);
            return Ok(batch);
        }
        let left = current.file.metadata()?;
        let next = self.rotated().into_iter().find(|path| {
            // A rotation that was missed: a file that was written after this one, and was moved away before now.
            std::fs::metadata(path).is_ok_and(|other| {
                FileId::of(&other) != FileId::of(&left) && changed_ns(&other) > changed_ns(&left)
            })
        });
        let file = File::open(next.as_ref().unwrap_or(&self.path))?;
        let id = FileId::of(&file.metadata()?);
        self.current = Some(CurrentFile::new(file, id, 0)?);
        Ok(FileBatch::default())
    }

    /// The files beside this one that it may have been renamed to, those that were written first before the others.
    fn rotated(&self) -> Vec<PathBuf> {
        let Some((folder, name)) =
            self.path.parent().zip(self.path.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<(i128, PathBuf)> = entries
            .filter_map(|entry| {
                let other = entry.file_name();
                let is_rotated = other.to_str()?.strip_prefix(name)?.starts_with(['.', '-']);
                let path = entry.path();
                let metadata = entry.metadata().ok()?;
                (is_rotated && metadata.is_file() && !is_compressed(&path))
                    .then(|| (changed_ns(&metadata), path))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }
}

impl CurrentFile {
    fn new(file: File, id: FileId, offset: u64) -> io::Result<CurrentFile> {
        let position = FilePosition::at(&file, id, offset)?;
        Ok(CurrentFile { file, position, left_us: None })
    }

    /// Reads whole lines from the position on. After a restart, the batch is the one that was begun.
    fn read(&mut self, line_bytes_max: usize) -> io::Result<FileBatch> {
        let until = self.position.batch.map(|batch| batch.end);
        let room = FILE_READ_BYTES.max(line_bytes_max + 2);
        let room = until.map_or(room, |end| {
            usize::try_from(end.saturating_sub(self.position.offset)).unwrap_or(usize::MAX).min(room)
        });
        let bytes = read_at(&self.file, self.position.offset, room)?;
        let batch = cut(&bytes, self.position.is_skipping, line_bytes_max);
        match batch.is_empty() {
            true => Ok(batch),
            false => self.take(batch, bytes.len() == room),
        }
    }

    /// Reads what is left, the last line without its end included.
    fn read_rest(&mut self, line_bytes_max: usize) -> io::Result<FileBatch> {
        let mut bytes = read_at(&self.file, self.position.offset, line_bytes_max + 1)?;
        if bytes.is_empty() {
            return Ok(FileBatch::default());
        }
        let length = bytes.len() as u64;
        bytes.push(b'\n');
        let mut batch = cut(&bytes, self.position.is_skipping, line_bytes_max);
        batch.read_bytes = length;
        batch.is_skipping = false;
        self.take(batch, false)
    }

    fn take(&mut self, mut batch: FileBatch, is_more: bool) -> io::Result<FileBatch> {
        batch.is_more = is_more;
        batch.start = Some(self.position.clone());
        let offset = self.position.offset + batch.read_bytes;
        batch.end = offset;
        self.position.advance(&self.file, offset)?;
        self.position.is_skipping = batch.is_skipping;
        self.position.batch = None;
        Ok(batch)
    }
}

/// Reads up to `room` bytes at a place.
fn read_at(file: &File, offset: u64, room: usize) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(room)];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// The place behind the last newline of a file of this length.
fn end_of_last_line(file: &File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(FILE_READ_BYTES as u64);
        let bytes = read_at(file, start, usize::try_from(end - start).unwrap_or_default())?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn is_compressed(path: &Path) -> bool {
    path.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| COMPRESSED_ENDINGS.contains(&ending))
}

/// When the content of a file was changed last, in nanoseconds since the Unix epoch.
fn changed_ns(metadata: &std::fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}
