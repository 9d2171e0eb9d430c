//! A file system that is slow, fails, is full, or lies about what it has written.
//!
//! [`FaultyDisk::mount`] shows a real directory at another place through the kernel's FUSE. A program that works there
//! meets the faults that are switched on by [`FaultyDisk::order`], or by lines that are written to the file
//! `.disk-faults` in its root. A power cut takes back what was not synced honestly.

mod backing;
mod faults;
mod filesystem;
#[cfg(test)]
mod tests;
mod tree;
mod unsynced;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use parking_lot::Mutex;

use self::backing::Disk;
use self::filesystem::FaultyFilesystem;

pub use self::backing::DiskCounts;
pub use self::faults::{BadOrder, DiskFaults, DiskOrder, FsyncMode};

/// Name of the file in the root through which faults are switched. No list shows it.
pub const CONTROL_FILE: &str = ".disk-faults";

/// A mounted disk. It is unmounted when this is dropped.
pub struct FaultyDisk {
    disk: Arc<Mutex<Disk>>,
    mount_point: PathBuf,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// Shows the directory `real` at `mount_point`, which must be an empty directory. Fails where mounting is not
    /// permitted.
    pub fn mount(real: &Path, mount_point: &Path) -> io::Result<FaultyDisk> {
        let real = real.canonicalize()?;
        let mount_point = mount_point.canonicalize()?;
        let disk = Arc::new(Mutex::new(Disk::new(real)));
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("anode-faulty-disk".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(FaultyFilesystem::new(disk.clone()), &mount_point, &config)?;
        Ok(FaultyDisk { disk, mount_point, session: Some(session) })
    }

    /// The directory in which programs meet the faults.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Switches a fault, or cuts the power. Before a cut, the programs that use the disk are to be killed.
    pub fn order(&self, order: DiskOrder) -> io::Result<()> {
        self.disk.lock().obey(order)
    }

    /// Counts since the mount.
    pub fn counts(&self) -> DiskCounts {
        self.disk.lock().counts()
    }

    /// The faults that are switched on.
    pub fn faults(&self) -> DiskFaults {
        self.disk.lock().faults()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("{} could not be unmounted: {error}", self.mount_point.display());
        }
    }
}

/// Says why file systems cannot be mounted here, if they cannot.
pub fn mount_refusal() -> Option<String> {
    let attempt = || -> io::Result<()> {
        let (real, at) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let disk = FaultyDisk::mount(real.path(), at.path())?;
        let is_mounted = backing::device(at.path())? != backing::device(real.path())?;
        drop(disk);
        match is_mounted {
            true => Ok(()),
            false => Err(io::Error::other("the directory is not a mount point afterwards")),
        }
    };
    attempt().err().map(|error| format!("file systems cannot be mounted here: {error}"))
}
