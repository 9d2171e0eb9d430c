//! The place of the file: a real disk, or one that tests can break.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError};

/// A place that holds the file of records. The file is opened at the start and again after an error.
pub(in crate::store) trait Medium: Send + Sync {
    /// Opens the file, or makes it if there is none.
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError>;
    /// Path of the file, for messages.
    fn path(&self) -> PathBuf;
}

/// A file in a directory of the file system.
pub(in crate::store) struct FileMedium {
    path: PathBuf,
}

impl FileMedium {
    /// A file with this path, which need not exist yet.
    pub(in crate::store) fn new(path: PathBuf) -> FileMedium {
        FileMedium { path }
    }
}

impl Medium for FileMedium {
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        let database = builder.create(&self.path)?;
        if let Some(dir) = self.path.parent() {
            sync_dir(dir).map_err(redb::StorageError::from)?;
        }
        Ok(database)
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
