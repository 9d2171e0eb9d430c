//! Chooses the data directory of a process, and locks it against other processes.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use super::open::OpenError;
use super::private_file;
use crate::record::Now;

/// Name of the file of records inside the data directory.
pub(super) const FILE_NAME: &str = "anode.redb";
/// Name of the file that is locked for as long as a process uses the directory.
const LOCK_NAME: &str = "anode.lock";
/// The last part of a data directory's path that stands for a number; see [`take_dir`].
const ANY_NUMBER: &str = "*";
/// Greatest number of a numbered directory: far more nodes than share a volume.
const NUMBER_MAX: u32 = 10_000;

/// Time between two notes that a numbered directory is in use, in microseconds.
const NOTE_US: u64 = 1_000_000;

/// The lock on a data directory. It holds until it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    file: File,
    /// The directory was chosen among several.
    is_numbered: bool,
    /// Monotonic time at which its use was last noted, in microseconds.
    noted_us: AtomicU64,
}

impl DirLock {
    /// Notes in the time of the lock's file that a numbered directory is in use at this moment, if the last note is a
    /// second old. The store of a node with Cassandra is written at the start and at an end in order only, so it does not
    /// tell when a node was killed.
    pub fn note_use(&self, now: Now) {
        if !self.is_numbered || now.mono_us < self.noted_us.load(Relaxed) + NOTE_US {
            return;
        }
        self.noted_us.store(now.mono_us, Relaxed);
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(now.wall_us);
        if let Err(error) = self.file.set_modified(at) {
            tracing::debug!(%error, "the use of the data directory could not be noted");
        }
    }
}

/// Takes the data directory for this process: makes it if need be, locks it, and returns its path with
/// the lock, which holds until the file is dropped.
///
/// A last part `*` stands for a number: nodes that are given the same volume share no directory,
/// and a new node takes up what one before it left. Of those that nobody uses it is the one that was
/// used last, since the others may have been left long ago and lack what came after; only when
/// all are in use is one made.
pub(super) fn take_dir(dir: &Path) -> Result<(PathBuf, DirLock), OpenError> {
    let locked = |file, is_numbered| DirLock { file, is_numbered, noted_us: AtomicU64::new(0) };
    if dir.file_name().is_none_or(|last| last != ANY_NUMBER) {
        return lock_dir(dir).map(|file| (dir.to_owned(), locked(file, false)));
    }
    let volume = dir.parent().unwrap_or(Path::new(""));
    let left = numbered(volume)?;
    let known: BTreeSet<u32> = left.iter().map(|(_, number)| *number).collect();
    let new = (1..=NUMBER_MAX).filter(|number| !known.contains(number));
    for number in left.iter().rev().map(|(_, number)| *number).chain(new) {
        let dir = volume.join(number.to_string());
        match lock_dir(&dir) {
            Ok(file) => {
                tracing::info!(?dir, "the data directory");
                return Ok((dir, locked(file, true)));
            }
            Err(OpenError::InUse(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(OpenError::InUse(dir.to_owned()))
}

/// Lists the numbered directories of a volume, the one that was used last at the end.
fn numbered(volume: &Path) -> Result<Vec<(SystemTime, u32)>, OpenError> {
    let failed = |source| OpenError::Io { path: volume.to_owned(), source };
    let here = if volume.as_os_str().is_empty() { Path::new(".") } else { volume };
    let entries = match std::fs::read_dir(here) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let number =
            name.to_str().and_then(|name| name.parse().ok()).filter(|n| (1..=NUMBER_MAX).contains(n));
        // Another spelling of a number, such as 01, is not one of these directories.
        let Some(number) = number.filter(|number| name.to_str() == Some(number.to_string().as_str())) else {
            continue;
        };
        let time =
            |file: &str| std::fs::metadata(volume.join(&name).join(file)).and_then(|file| file.modified());
        let used = [FILE_NAME, LOCK_NAME].into_iter().filter_map(|file| time(file).ok()).max();
        found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), number));
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes the directory if need be and locks it for this process.
fn lock_dir(dir: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let is_new = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = dir.ancestors().take_while(is_new).collect();
    private_file::make_dir(dir).map_err(failed(dir))?;
    // The names of new directories must survive a power cut as well as what is in them.
    for name in made {
        let above = name.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above).and_then(|above| above.sync_all()).map_err(failed(above))?;
    }
    let path = dir.join(LOCK_NAME);
    let lock =
        private_file::private_options().create(true).append(true).open(&path).map_err(failed(&path))?;
    match lock.try_lock() {
        Ok(()) => {
            private_file::restrict_dir(dir);
            private_file::restrict(&path);
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with Cassandra that was killed took the directory, and so the name, of another one that had ended in order
    /// before: its own store was older, since it is written at an end in order only.
    #[test]
    fn of_the_directories_that_nobody_uses_the_one_that_was_used_last_is_taken() {
        let volume = tempfile::tempdir().expect("a directory");
        let any = volume.path().join("*");
        let at = |wall_us| Now { mono_us: wall_us, wall_us };
        let (killed, first) = take_dir(&any).expect("the first");
        let (ended, second) = take_dir(&any).expect("the second");
        for (dir, written_us) in [(&killed, 1_000_000), (&ended, 60_000_000)] {
            let file = File::create(dir.join(FILE_NAME)).expect("a file");
            file.set_modified(at_time(written_us)).expect("a time");
        }
        second.note_use(at(60_000_000));
        first.note_use(at(70_000_000));
        first.note_use(at(70_999_999));
        assert_eq!(
            first.file.metadata().and_then(|file| file.modified()).expect("a time"),
            at_time(70_000_000)
        );
        drop((first, second));
        assert_eq!(take_dir(&any).expect("one of them").0, killed);
    }

    /// An idle node does not write to its disk every second without need.
    #[test]
    fn the_use_of_a_directory_that_was_named_is_not_noted() {
        let volume = tempfile::tempdir().expect("a directory");
        let (_, lock) = take_dir(volume.path()).expect("a lock");
        let before = lock.file.metadata().and_then(|file| file.modified()).expect("a time");
        lock.note_use(Now { mono_us: 5_000_000, wall_us: 5_000_000 });
        assert_eq!(lock.file.metadata().and_then(|file| file.modified()).expect("a time"), before);
    }

    fn at_time(us: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(us)
    }
}
