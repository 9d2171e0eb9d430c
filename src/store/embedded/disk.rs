//! The file under the tables, and what makes a failed sync harmless.
//!
//! When `fsync` fails, the kernel may mark the pages it could not write as clean: a later sync
//! succeeds without them, and what was acknowledged then is not on the disk (PostgreSQL, 2018). So every write is
//! kept in memory until a sync has succeeded; after an error the file is opened again, and the kept
//! writes are written and synced before anyone reads from it. They are at most the pages of one
//! group, which is bounded by the queue.
//!
//! Rejected: ending the process, as databases with a log do, since the map in memory is still good
//! and the cluster is served from it; trusting the second sync.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::FileBackend;

/// Where the file is, and how it is opened; again after an error.
pub(in crate::store) trait Medium: Send + Sync {
    /// Opens it, or makes it.
    fn open(&self) -> io::Result<Careful>;
    /// What it is called in messages.
    fn path(&self) -> PathBuf;
}

/// A file in a directory.
pub(in crate::store) struct FileMedium {
    path: PathBuf,
    unsynced: Unsynced,
}

impl FileMedium {
    pub(in crate::store) fn new(path: PathBuf) -> FileMedium {
        FileMedium { path, unsynced: Unsynced::default() }
    }
}

impl Medium for FileMedium {
    fn open(&self) -> io::Result<Careful> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        if let Some(dir) = self.path.parent() {
            sync_dir(dir)?;
        }
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Careful::new(Box::new(file), self.unsynced.clone())
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Makes a new file's name survive a power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    // Windows cannot open a directory; its file systems keep names in their log.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Writes since the last sync that succeeded, in order, and the length set last.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Unsynced(Arc<Mutex<Writes>>);

#[derive(Debug, Default)]
struct Writes {
    list: Vec<(u64, Box<[u8]>)>,
    /// A sync or a write failed: what is listed must be written again.
    failed: bool,
}

/// A file whose unsynced writes are kept until a sync succeeds.
#[derive(Debug)]
pub(in crate::store) struct Careful {
    file: Box<dyn StorageBackend>,
    unsynced: Unsynced,
}

impl Careful {
    /// Takes an opened file and first makes good what failed when it was open before.
    pub(in crate::store) fn new(file: Box<dyn StorageBackend>, unsynced: Unsynced) -> io::Result<Careful> {
        {
            let mut writes = unsynced.0.lock();
            if writes.failed {
                for (offset, bytes) in &writes.list {
                    if offset + bytes.len() as u64 <= file.len()? {
                        file.write(*offset, bytes)?;
                    }
                }
                file.sync_data()?;
            }
            *writes = Writes::default();
        }
        Ok(Careful { file, unsynced })
    }
}

impl StorageBackend for Careful {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut writes = self.unsynced.0.lock();
        let synced = self.file.sync_data();
        match synced {
            Ok(()) => writes.list.clear(),
            Err(_) => writes.failed = true,
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut writes = self.unsynced.0.lock();
        let written = self.file.write(offset, data);
        match written {
            Ok(()) => writes.list.push((offset, data.into())),
            Err(_) => writes.failed = true,
        }
        written
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
