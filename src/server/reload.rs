//! Files that are read again while the node runs: when they change, and when the operator asks for it with
//! SIGHUP.
//!
//! A part of the node that depends on files implements [`Reloadable`] and keeps them as [`WatchedFiles`]. The
//! loading thread looks at all parts about once a second, and at once after SIGHUP ([`Reloader`]). Rejected:
//! notifications of the file system, which miss changes of mounted and linked directories, such as the secrets
//! of Kubernetes.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_128;

use crate::record::Now;

/// Time between two looks at the files, in microseconds. A change is noticed within this time.
const LOOK_US: u64 = 1_000_000;
/// Largest file that is read, in bytes. Certificates, keys and lists of rights are much smaller; a larger file is
/// most likely another one than was meant.
const WATCHED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Age of a file, in seconds, from which its times alone tell that it was not changed since it was read. A file
/// that was changed shortly before it was read may change again without another time.
const SETTLED_S: u64 = 2;

/// Something that depends on files, and can take a new state of them while the node runs.
pub trait Reloadable: Send {
    /// Reads the files if they have changed, or in any case if `is_asked`, and uses what they say. If that cannot
    /// be used, logs an error and goes on with what was used so far.
    fn look(&mut self, now: Now, is_asked: bool);
}

/// The flag by which an operator asks that all files be read again. The handler of the signal sets it.
#[derive(Clone, Debug, Default)]
pub struct ReloadFlag(Arc<AtomicBool>);

impl ReloadFlag {
    /// Makes SIGHUP set this flag. Without this, SIGHUP ends the process.
    pub fn watch_signal(&self) -> io::Result<()> {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, self.0.clone()).map(drop)
    }

    fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// All parts of a node that depend on files.
#[derive(Default)]
pub struct Reloader {
    flag: ReloadFlag,
    parts: Vec<Box<dyn Reloadable>>,
    /// Monotonic time of the next look, in microseconds.
    next_us: u64,
}

impl Reloader {
    /// A reloader without parts, which the operator asks through `flag`.
    pub fn new(flag: ReloadFlag) -> Reloader {
        Reloader { flag, ..Reloader::default() }
    }

    /// Adds a part, which is looked at from now on.
    pub fn add(&mut self, part: impl Reloadable + 'static) {
        self.parts.push(Box::new(part));
    }

    /// Lets all parts look at their files, if they are due or the operator asks for it. May be called as often as
    /// one likes.
    pub fn handle_turn(&mut self, now: Now) {
        let is_asked = self.flag.take();
        if is_asked {
            tracing::info!("reading certificates, keys and rights again, as SIGHUP asks for");
        }
        if is_asked || now.mono_us >= self.next_us {
            self.next_us = now.mono_us + LOOK_US;
            self.parts.iter_mut().for_each(|part| part.look(now, is_asked));
        }
    }
}

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
#[derive(Debug)]
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
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::server::clock;

    /// A time at which a file that was just written is settled, or not.
    fn at(seconds: u64) -> Now {
        let now = clock::now();
        Now { wall_us: now.wall_us + seconds * 1_000_000, ..now }
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

    #[test]
    fn parts_look_once_a_second_and_when_asked() {
        #[derive(Clone, Default)]
        struct Counts(Arc<AtomicUsize>, Arc<AtomicUsize>);
        impl Reloadable for Counts {
            fn look(&mut self, _: Now, is_asked: bool) {
                if is_asked { &self.1 } else { &self.0 }.fetch_add(1, Relaxed);
            }
        }
        let (flag, counts) = (ReloadFlag::default(), Counts::default());
        let mut reloader = Reloader::new(flag.clone());
        reloader.add(counts.clone());
        for mono_us in (0..3_000_000).step_by(50_000) {
            reloader.handle_turn(Now { mono_us, wall_us: 0 });
        }
        flag.0.store(true, Relaxed);
        reloader.handle_turn(Now { mono_us: 3_000_000, wall_us: 0 });
        reloader.handle_turn(Now { mono_us: 3_050_000, wall_us: 0 });
        assert_eq!((counts.0.load(Relaxed), counts.1.load(Relaxed)), (3, 1));
    }
}
