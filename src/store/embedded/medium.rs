//! The place of the file: a real disk, or one that tests can break.

use std::path::PathBuf;

use redb::{Builder, Database, TableHandle};

use super::schema::NUMBERS;
use crate::store::private_file;

/// A place that holds the file of records. The file is opened at the start and again after an error.
pub(in crate::store) trait Medium: Send + Sync {
    /// Opens the file, or makes it if there is none.
    fn open(&self, builder: &Builder) -> Result<Database, redb::Error>;
    /// Opens the file again, which exists unless somebody removed it meanwhile.
    fn reopen(&self, builder: &Builder) -> Result<Database, redb::Error> {
        self.open(builder)
    }
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
    fn open(&self, builder: &Builder) -> Result<Database, redb::Error> {
        private_file::open_or_make(&self.path, builder, NUMBERS.name())
    }

    fn reopen(&self, builder: &Builder) -> Result<Database, redb::Error> {
        private_file::open(&self.path, builder, NUMBERS.name())
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}
