//! Files that are read again when they change. What they held is compared, and only where their times do not tell.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::record::Now;

/// Largest file that is read, in bytes. Certificates, keys and lists of rights are much smaller; a larger file is
/// most likely another one than was meant.
const WATCHED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Age of a file, in seconds, from which its times alone tell that it was not changed since it was read. A file
/// that was changed shortly before it was read may change again without another time.
const SETTLED_S: u64 = 2;

/// The error of a file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct UnreadableFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The reason why it cannot be read.
    pub source: io::Error,
}

/// Files that belong together, such as a certificate and its key, and what they held when they were read last.
#[derive(Debug, Default)]
pub struct WatchedFiles {
    files: Vec<WatchedFile>,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    /// The hash of what the file held; `None` if it could not be read.
    content: Option<u128>,
    /// The times of the file before it was read, if they are enough to tell whether it has changed since.
    times: Option<FileTimes>,
}

/// What changes when a file is written or replaced: when it was changed, as the file system has it, where it
/// is, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileTimes {
    modified: (i64, i64),
    changed: (i64, i64),
    place: (u64, u64),
    bytes: u64,
}

impl FileTimes {
    fn of(metadata: &Metadata) -> FileTimes {
        FileTimes {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            place: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
        }
    }

    /// Returns whether a change after `now` would give the file other times.
    fn is_settled(&self, now: Now) -> bool {
        let changed_s = u64::try_from(self.modified.0.max(self.changed.0)).unwrap_or(0);
        changed_s + SETTLED_S < now.wall_us / 1_000_000
    }
}

impl WatchedFile {
    fn is_unchanged(&self) -> bool {
        self.times.is_some_and(|times| {
            std::fs::metadata(&self.path).is_ok_and(|metadata| FileTimes::of(&metadata) == times)
        })
    }

    /// Reads the file, and remembers what it holds.
    fn read(&mut self, now: Now) -> Result<Vec<u8>, UnreadableFile> {
        let read = read_bounded(&self.path);
        self.content = read.as_ref().ok().map(|(bytes, _)| xxh3_128(bytes));
        self.times = read.as_ref().ok().map(|(_, times)| *times).filter(|times| times.is_settled(now));
        let path = &self.path;
        read.map(|(bytes, _)| bytes).map_err(|source| UnreadableFile { path: path.clone(), source })
    }
}

impl WatchedFiles {
    /// Files that were not read yet.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> WatchedFiles {
        let watched = |path| WatchedFile { path, content: None, times: None };
        WatchedFiles { files: paths.into_iter().map(watched).collect() }
    }

    /// Reads all files. Returns what each of them holds, in the order in which they were named.
    pub fn read(&mut self, now: Now) -> Result<Vec<Vec<u8>>, UnreadableFile> {
        // Each is read, even behind one that fails: a state is reported once.
        let read: Vec<_> = self.files.iter_mut().map(|file| file.read(now)).collect();
        read.into_iter().collect()
    }

    /// Reads all files as [`WatchedFiles::read`] does. Returns `None` if they hold what they held before, unless the
    /// caller wants them in any case, because of `is_asked`.
    pub fn read_changed(&mut self, now: Now, is_asked: bool) -> Option<Result<Vec<Vec<u8>>, UnreadableFile>> {
        if !is_asked && self.files.iter().all(WatchedFile::is_unchanged) {
            return None;
        }
        let contents = |files: &[WatchedFile]| files.iter().map(|file| file.content).collect::<Vec<_>>();
        let before = contents(&self.files);
        let read = self.read(now);
        (is_asked || contents(&self.files) != before).then_some(read)
    }
}

/// Reads a file, unless it is too large or no file that can be read more than once.
fn read_bounded(path: &Path) -> io::Result<(Vec<u8>, FileTimes)> {
    // To open a pipe would wait for somebody who writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let file = File::open(path)?;
    let times = FileTimes::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(WATCHED_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > WATCHED_BYTES_MAX {
        let reason = format!("it has more than {WATCHED_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok((bytes, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time at which a file that was just written is settled, or not.
    fn at(seconds: u64) -> Now {
        let written = tempfile::tempfile().and_then(|file| file.metadata()).expect("a file");
        let written_s = u64::try_from(written.mtime()).expect("after 1970");
        Now { mono_us: 0, wall_us: (written_s + seconds) * 1_000_000 }
    }

    #[test]
    fn a_file_is_read_again_when_its_content_changes() {
        for later_s in [0, 10] {
            let dir = tempfile::tempdir().expect("folder");
            let (one, other) = (dir.path().join("one"), dir.path().join("other"));
            std::fs::write(&one, "1").expect("written");
            std::fs::write(&other, "2").expect("written");
            let mut files = WatchedFiles::new([one.clone(), other.clone()]);
            let read = |bytes: Option<Result<Vec<Vec<u8>>, UnreadableFile>>| bytes.map(|read| read.ok());
            let held = |texts: [&str; 2]| Some(Some(texts.map(|text| text.as_bytes().to_vec()).to_vec()));
            assert_eq!(Some(files.read(at(later_s)).ok()), held(["1", "2"]));
            assert_eq!(read(files.read_changed(at(later_s), false)), None);
            assert_eq!(read(files.read_changed(at(later_s), true)), held(["1", "2"]), "asked for");
            // The same length, within the same tick of the file system's clock.
            std::fs::write(&other, "3").expect("written");
            if later_s == 0 {
                assert_eq!(read(files.read_changed(at(later_s), false)), held(["1", "3"]));
            }
            std::fs::remove_file(&other).expect("removed");
            assert_eq!(read(files.read_changed(at(later_s), false)), Some(None), "cannot be read");
            assert_eq!(read(files.read_changed(at(later_s), false)), None, "which is said once");
            std::fs::write(dir.path().join("new"), "44").expect("written");
            std::fs::rename(dir.path().join("new"), &other).expect("renamed");
            assert_eq!(read(files.read_changed(at(later_s), false)), held(["1", "44"]));
        }
    }

    #[test]
    fn what_is_no_file_of_a_sensible_size_is_an_error() {
        let dir = tempfile::tempdir().expect("folder");
        let error = |path: &Path| read_bounded(path).expect_err("no file").to_string();
        assert_eq!(error(dir.path()), "it is no regular file");
        let large = dir.path().join("large");
        File::create(&large).and_then(|file| file.set_len(WATCHED_BYTES_MAX + 1)).expect("written");
        assert!(error(&large).contains("more than"), "{}", error(&large));
        let missing = WatchedFiles::new([dir.path().join("missing")]).read(at(0)).expect_err("missing");
        assert!(missing.to_string().contains("missing: "), "{missing}");
    }
}
