//! Chooses the data directory of a process, and locks it against other processes.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::open::OpenError;
use super::private_file;

/// Name of the file of records inside the data directory.
pub(super) const FILE_NAME: &str = "anode.redb";
/// Name of the file that is locked for as long as a process uses the directory.
const LOCK_NAME: &str = "anode.lock";
/// The last part of a data directory's path that stands for a number; see [`take_dir`].
const ANY_NUMBER: &str = "*";
/// Greatest number of a numbered directory: far more nodes than share a volume.
const NUMBER_MAX: u32 = 10_000;

/// Takes the data directory for this process: makes it if need be, locks it, and returns its path with
/// the lock, which holds until the file is dropped.
///
/// A last part `*` stands for a number: nodes that are given the same volume share no directory,
/// and a new node takes up what one before it left. Of those that nobody uses it is the one that was
/// written last, since the others may have been left long ago and lack what came after; only when
/// all are in use is one made.
pub(super) fn take_dir(dir: &Path) -> Result<(PathBuf, File), OpenError> {
    if dir.file_name().is_none_or(|last| last != ANY_NUMBER) {
        return lock_dir(dir).map(|lock| (dir.to_owned(), lock));
    }
    let volume = dir.parent().unwrap_or(Path::new(""));
    let left = numbered(volume)?;
    let known: BTreeSet<u32> = left.iter().map(|(_, number)| *number).collect();
    let new = (1..=NUMBER_MAX).filter(|number| !known.contains(number));
    for number in left.iter().rev().map(|(_, number)| *number).chain(new) {
        let dir = volume.join(number.to_string());
        match lock_dir(&dir) {
            Ok(lock) => {
                tracing::info!(?dir, "the data directory");
                return Ok((dir, lock));
            }
            Err(OpenError::InUse(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(OpenError::InUse(dir.to_owned()))
}

/// Lists the numbered directories of a volume, the one whose store was written last at the end.
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
        let written = std::fs::metadata(volume.join(&name).join(FILE_NAME)).and_then(|file| file.modified());
        found.push((written.unwrap_or(SystemTime::UNIX_EPOCH), number));
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
