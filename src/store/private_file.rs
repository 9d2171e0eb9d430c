//! Directories and files of the data directory, which belong to the user alone, and how a database is made in
//! such a file or opened from it.
//!
//! A store that is missing its records because its file was truncated or replaced must not start as a new
//! one. So a new database is made under another name and gets its own name only when it is complete: a file
//! under that name which is empty, or which another program wrote, is an error. What is left under the other
//! name was never complete, holds no records, and is removed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, TableHandle};

/// Added to the name of a file while it is being made.
const UNFINISHED: &str = ".new";
/// First bytes of every file of the database library.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Rights of everybody but the owner of a file or directory.
#[cfg(unix)]
const RIGHTS_OF_OTHERS: u32 = 0o077;
/// Beginnings of the names of all files that this program keeps in a data directory.
#[cfg(unix)]
const OWN_FILES: [&str; 3] = ["anode.redb", "anode.lock", "anode-spill.redb"];
/// Directory that some file systems keep at their root, which is often a data directory.
#[cfg(unix)]
const LOST_AND_FOUND: &str = "lost+found";

/// Opens the database in the file at `path`, or makes it there if there is no such file. Every complete
/// database of this kind has a table called `marker`.
pub(super) fn open_or_make(path: &Path, builder: &Builder, marker: &str) -> Result<Database, redb::Error> {
    match open(path, builder, marker) {
        Err(redb::Error::Io(error)) if error.kind() == ErrorKind::NotFound => make(path, builder),
        opened => opened,
    }
}

/// Opens the database in the file at `path`, which must exist.
pub(super) fn open(path: &Path, builder: &Builder, marker: &str) -> Result<Database, redb::Error> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut begin = Vec::new();
    (&file).take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    if begin.is_empty() {
        return Err(refused(
            "it is empty, and a new store is never made in its place. Restore it from a backup, or delete \
             it: the node then starts without records of its own, and gets those of its cluster",
        ));
    }
    if begin != MAGIC {
        return Err(refused(
            "it is not a store of aNode: another program wrote it, or its beginning is lost. Restore it \
             from a backup, move it away, or use another --data-dir",
        ));
    }
    restrict(path);
    let database = builder.create_with_backend(FileBackend::new(file)?)?;
    // A file without any table holds nothing: its first start was interrupted.
    let is_foreign = {
        let transaction = database.begin_read()?;
        let mut tables = transaction.list_tables()?.peekable();
        tables.peek().is_some() && !tables.any(|table| table.name() == marker)
    };
    if is_foreign {
        return Err(refused(
            "it is the database of another program. Move it away, or use another --data-dir",
        ));
    }
    Ok(database)
}

fn refused(text: &str) -> redb::Error {
    redb::Error::Io(io::Error::new(ErrorKind::InvalidData, text))
}

/// Makes a database, whose file gets its name once it is complete.
fn make(path: &Path, builder: &Builder) -> Result<Database, redb::Error> {
    let unfinished = unfinished(path);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = private_options().read(true).write(true).create_new(true).open(&unfinished)?;
    let database = builder.create_with_backend(FileBackend::new(file)?)?;
    std::fs::rename(&unfinished, path)?;
    if let Some(dir) = path.parent() {
        sync_dir(dir)?;
    }
    Ok(database)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(UNFINISHED);
    name.into()
}

/// Makes a new file's name survive a power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    // Windows cannot open a directory; its file systems keep names in their log.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Returns options with which a new file belongs to the user alone.
pub(super) fn private_options() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a directory that belongs to the user alone, and those above it if need be.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// Takes the rights of other users away from a file of this program. If that is not allowed, a warning
/// says so, and the file is used all the same.
#[cfg(unix)]
pub(super) fn restrict(path: &Path) {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    let Ok(mode) = std::fs::metadata(path).map(|found| found.permissions().mode()) else { return };
    if mode & RIGHTS_OF_OTHERS == 0 {
        return;
    }
    match std::fs::set_permissions(path, Permissions::from_mode(mode & !RIGHTS_OF_OTHERS)) {
        Ok(()) => tracing::info!(?path, "other users of this machine have no rights here any longer"),
        Err(error) => tracing::warn!(?path, %error, "other users of this machine have rights here"),
    }
}

#[cfg(not(unix))]
pub(super) fn restrict(_path: &Path) {}

/// Takes the rights of other users away from a data directory, if it holds nothing but files of this program.
/// A directory that holds other files may be shared on purpose, so a warning is logged instead.
#[cfg(unix)]
pub(super) fn restrict_dir(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let Ok(mode) = std::fs::metadata(here).map(|found| found.permissions().mode()) else { return };
    if mode & RIGHTS_OF_OTHERS == 0 {
        return;
    }
    if holds_only_own_files(here) {
        return restrict(here);
    }
    tracing::warn!(
        ?dir,
        "other users of this machine have rights in the data directory, which are not taken away because it \
         also holds files of other programs: use a directory of the node's own"
    );
}

#[cfg(not(unix))]
pub(super) fn restrict_dir(_dir: &Path) {}

#[cfg(unix)]
fn holds_only_own_files(dir: &Path) -> bool {
    let is_own = |name: &str| name == LOST_AND_FOUND || OWN_FILES.iter().any(|own| name.starts_with(own));
    std::fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_own)))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use redb::TableDefinition;

    use super::*;

    const MARKER: &str = "records";

    fn open_in(dir: &Path) -> Result<Database, redb::Error> {
        open_or_make(&dir.join("anode.redb"), &Builder::new(), MARKER)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set");
    }

    /// An empty file was once taken for a new store, so that all records of the node were lost without a
    /// word.
    #[test]
    fn an_empty_file_is_no_new_store() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("anode.redb");
        std::fs::write(&path, b"").expect("written");
        let error = open_in(dir.path()).expect_err("empty").to_string();
        assert!(error.contains("empty") && error.contains("backup") && error.contains("delete"), "{error}");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 0, "it is left as it was");
        std::fs::remove_file(&path).expect("deleted");
        drop(open_in(dir.path()).expect("a new store"));
    }

    #[test]
    fn files_of_other_programs_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        for bytes in [&b"x"[..], &[0; 8192], b"SQLite format 3\0"] {
            std::fs::write(dir.path().join("anode.redb"), bytes).expect("written");
            let error = open_in(dir.path()).expect_err("foreign").to_string();
            assert!(error.contains("not a store of aNode"), "{error}");
        }
        let path = dir.path().join("anode.redb");
        std::fs::remove_file(&path).expect("deleted");
        let database = Builder::new().create(&path).expect("made");
        let transaction = database.begin_write().expect("begun");
        drop(transaction.open_table(TableDefinition::<u64, u64>::new("invoices")).expect("table"));
        transaction.commit().expect("committed");
        drop(database);
        let error = open_in(dir.path()).expect_err("foreign").to_string();
        assert!(error.contains("database of another program"), "{error}");
    }

    #[test]
    fn a_first_start_that_was_interrupted_starts_again() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("anode.redb.new"), [0; 100]).expect("written");
        drop(open_in(dir.path()).expect("made"));
        assert!(!dir.path().join("anode.redb.new").exists());
        // The file is there, and nothing was written into it yet.
        drop(open_in(dir.path()).expect("opened"));
        // A file that vanished is not made again while a node uses it.
        std::fs::remove_file(dir.path().join("anode.redb")).expect("deleted");
        assert!(open(&dir.path().join("anode.redb"), &Builder::new(), MARKER).is_err());
    }

    #[test]
    fn files_and_directories_belong_to_the_user_alone() {
        let root = tempfile::tempdir().expect("dir");
        let dir = root.path().join("above/data");
        make_dir(&dir).expect("made");
        let path = dir.join("anode.redb");
        drop(open_in(&dir).expect("made"));
        assert_eq!((mode(&dir), mode(&path), mode(&root.path().join("above"))), (0o700, 0o600, 0o700));
        set_mode(&dir, 0o755);
        set_mode(&path, 0o644);
        restrict_dir(&dir);
        drop(open_in(&dir).expect("opened"));
        assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
        set_mode(&dir, 0o755);
        std::fs::write(dir.join("notes.txt"), "x").expect("written");
        restrict_dir(&dir);
        assert_eq!(mode(&dir), 0o755, "a directory with files of others is left as it is");
    }
}
