//! How the store is opened, and who the node turns out to be.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::embedded::{Birth, Bounds};
use super::shared::CLOCK_LEASE_US;
use crate::cluster::Heads;
use crate::config::cassandra::Cassandra;
use crate::limits::STORE_QUEUE_BYTES_MAX;
use crate::record::{NodeName, Now};

/// How the store reads the time, which it only measures with and never waits by.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// The tables' file inside the data directory.
pub(super) const FILE_NAME: &str = "anode.redb";
/// Locked for as long as a process uses the directory.
const LOCK_NAME: &str = "anode.lock";
/// The last part of a data directory's path that stands for a number; see [`take_dir`].
const ANY_NUMBER: &str = "*";
/// Most numbered directories: far more nodes than share a volume.
const NUMBER_MAX: u32 = 10_000;

/// Where records are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// In one file of the data directory.
    #[default]
    Embedded,
    /// Nowhere: the data directory is not touched.
    Memory,
    /// In Cassandra; in the data directory what waits for it, and who the node is.
    Cassandra(Box<Cassandra>),
}

/// How the store is opened.
#[derive(Clone)]
pub struct Options {
    /// Records kept a source, the latest included. More: longer histories, a larger file, no
    /// slower start. 0: no history at all. Default 256.
    pub history: u32,
    /// The node's name. Wins over the one that is kept, and is kept from then on. `None`: the kept
    /// one, else one made up from `seed`.
    pub node_name: Option<NodeName>,
    /// Chance for a name that is made up.
    pub seed: u64,
    /// The time.
    pub clock: Clock,
    /// Memory for pages of the file, in bytes. More: fewer reads when writing to a large file.
    /// Default 128 MiB.
    pub cache_bytes: usize,
    /// Bytes of records that are durable and wait in memory for others of their source before they take their
    /// places in the file; at most twice as many do. More: shorter commits under load, a longer start after a
    /// kill. Default 16 MiB.
    pub journal_bytes: usize,
    /// Bytes of records that may wait or be in writing. From a quarter on, what waits is merged to
    /// the newest of each source. Default [`STORE_QUEUE_BYTES_MAX`], which it must not exceed.
    pub queue_bytes_max: usize,
}

impl Options {
    /// Defaults.
    pub fn new(clock: Clock, seed: u64) -> Options {
        Options {
            history: 256,
            node_name: None,
            seed,
            clock,
            cache_bytes: 128 * 1024 * 1024,
            journal_bytes: Bounds::default().waiting_bytes,
            queue_bytes_max: STORE_QUEUE_BYTES_MAX,
        }
    }
}

/// Who the node is in this life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub node_name: NodeName,
    /// This life's number: greater than every one before, kept before anyone is told.
    pub boot: u64,
    /// No earlier life issued a stamp over this.
    pub clock_high_water: u64,
    /// When the node last agreed fully with the cluster, in microseconds since the Unix epoch.
    pub agreed_us: Option<u64>,
    /// What was held of every origin's life when the life before ended in order; empty if it did not.
    pub heads: Heads,
}

/// Why the store cannot be opened. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("data directory {0:?} is in use by another process")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{path:?}: {source}")]
    Io {
        /// What could not be opened.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged, or no store.
    #[error("{path:?} cannot be opened: {reason}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file was written by another version of the program.
    #[error("the store has format {found}; this program knows format {known}")]
    Format {
        /// In the file.
        found: u64,
        /// In the program.
        known: u64,
    },
    /// The new life could not be counted; it may have been.
    #[error("the store cannot be written: {0}")]
    Write(String),
}

/// What the embedded store needs to count a life.
pub(super) fn birth(options: &Options) -> Birth {
    let now = (options.clock)();
    Birth {
        node_name: options.node_name.clone(),
        made_up: made_up_name(options.seed, now),
        boot_min: now.wall_us / 1000,
        clock_lease_us: now.wall_us.saturating_add(CLOCK_LEASE_US),
    }
}

/// A name that no other node will think of.
fn made_up_name(seed: u64, now: Now) -> NodeName {
    let hash = xxh3_64_with_seed(&now.wall_us.to_le_bytes(), seed);
    let name = format!("node-{:012x}", hash & 0xffff_ffff_ffff);
    NodeName::parse(&name).unwrap_or_else(|_| unreachable!("letters, digits and a dash"))
}

/// Takes the data directory for this process, and says which one it is.
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

/// The numbered directories of a volume, the one whose store was written last at the end.
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
        // Another spelling, such as 01, is not ours.
        let Some(number) = number.filter(|number| name.to_str() == Some(number.to_string().as_str())) else {
            continue;
        };
        let written = std::fs::metadata(volume.join(&name).join(FILE_NAME)).and_then(|file| file.modified());
        found.push((written.unwrap_or(SystemTime::UNIX_EPOCH), number));
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes the directory and takes it for this process.
fn lock_dir(dir: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let is_new = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = dir.ancestors().take_while(is_new).collect();
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    // Their names must survive a power cut as well as what is in them.
    for name in made {
        let above = name.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above).and_then(|above| above.sync_all()).map_err(failed(above))?;
    }
    let path = dir.join(LOCK_NAME);
    let lock = File::options().create(true).append(true).open(&path).map_err(failed(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}
