//! The disk behind the file system: its real directory, its faults, and what a power cut takes away.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::faults::{DiskFaults, DiskOrder, FsyncMode};
use super::tree::Tree;
use super::unsynced::UnsyncedFile;

/// An open file.
#[derive(Debug)]
struct OpenFile {
    number: u64,
    file: File,
    /// Number of power cuts before it was opened. After a cut it gives errors, as a disk does that is gone.
    cuts: u64,
}

/// Counts of what programs did to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Number of writes.
    pub writes: u64,
    /// Number of fsyncs, honest or not.
    pub fsyncs: u64,
    /// Number of fsyncs that were answered with an error.
    pub fsyncs_failed: u64,
    /// Number of fsyncs that were answered and not done.
    pub fsyncs_lied: u64,
    /// Number of writes that were refused because the disk was full.
    pub full: u64,
    /// Number of power cuts.
    pub cuts: u64,
    /// Number of pages that power cuts took back.
    pub pages_lost: u64,
}

/// The disk behind a mount.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) tree: Tree,
    faults: DiskFaults,
    counts: DiskCounts,
    files: HashMap<u64, UnsyncedFile>,
    open: HashMap<u64, OpenFile>,
    next_handle: u64,
}

impl Disk {
    /// A disk without faults over a real directory.
    pub(super) fn new(root: PathBuf) -> Disk {
        Disk {
            tree: Tree::new(root),
            faults: DiskFaults::default(),
            counts: DiskCounts::default(),
            files: HashMap::new(),
            open: HashMap::new(),
            next_handle: 1,
        }
    }

    /// The faults that are switched on.
    pub(super) fn faults(&self) -> DiskFaults {
        self.faults
    }

    /// Counts since the mount.
    pub(super) fn counts(&self) -> DiskCounts {
        self.counts
    }

    /// Carries out an order.
    pub(super) fn obey(&mut self, order: DiskOrder) -> io::Result<()> {
        if let DiskOrder::Cut(seed) = order {
            return self.cut(seed);
        }
        self.faults.obey(order);
        Ok(())
    }

    /// Drops what was not synced. Files that are open give errors from now on.
    fn cut(&mut self, seed: Option<u64>) -> io::Result<()> {
        self.counts.cuts += 1;
        let mut random = seed.unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut keeps = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            seed.is_some() && random >> 63 == 1
        };
        // Files are handled in the order of their numbers, so that a seed gives the same cut again.
        let mut files: Vec<(&u64, &mut UnsyncedFile)> = self.files.iter_mut().collect();
        files.sort_unstable_by_key(|(number, _)| **number);
        for (_, file) in files {
            self.counts.pages_lost += file.pages() as u64;
            file.cut(&mut keeps)?;
        }
        Ok(())
    }

    /// Opens a file. Returns its handle.
    pub(super) fn open(&mut self, number: u64, flags: i32) -> io::Result<u64> {
        let path = self.tree.real(number).ok_or(ErrorKind::NotFound)?;
        let is_writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let file = OpenOptions::new().read(true).write(is_writable).open(&path)?;
        if is_writable {
            self.track(number, &path)?;
            if flags & libc::O_TRUNC != 0 {
                self.set_len(number, 0)?;
            }
        }
        Ok(self.add_handle(number, file))
    }

    /// Makes a file in a directory and opens it. Returns its number, its handle and its metadata.
    pub(super) fn create(&mut self, path: &Path, mode: u32, flags: i32) -> io::Result<(u64, u64, Metadata)> {
        let real = self.tree.real_of(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .create_new(flags & libc::O_EXCL != 0)
            .truncate(false)
            .mode(mode & 0o7777)
            .open(&real)?;
        let number = self.tree.number(path);
        self.track(number, &real)?;
        if flags & libc::O_TRUNC != 0 {
            self.set_len(number, 0)?;
        }
        let metadata = file.metadata()?;
        Ok((number, self.add_handle(number, file), metadata))
    }

    fn add_handle(&mut self, number: u64, file: File) -> u64 {
        let handle = self.next_handle;
        self.next_handle += 1;
        self.open.insert(handle, OpenFile { number, file, cuts: self.counts.cuts });
        handle
    }

    fn track(&mut self, number: u64, path: &Path) -> io::Result<()> {
        if let Entry::Vacant(place) = self.files.entry(number) {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            place.insert(UnsyncedFile::new(file)?);
        }
        Ok(())
    }

    /// The open file with a handle, unless the power was cut since.
    fn opened(&self, handle: u64) -> io::Result<&OpenFile> {
        let open = self.open.get(&handle).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        match open.cuts == self.counts.cuts {
            true => Ok(open),
            false => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    /// Closes a handle. Of a file that was removed, nothing is kept any more once nobody has it open.
    pub(super) fn close(&mut self, handle: u64) {
        let Some(closed) = self.open.remove(&handle) else { return };
        let is_removed = self.tree.real(closed.number).is_none();
        if is_removed && !self.open.values().any(|open| open.number == closed.number) {
            self.files.remove(&closed.number);
        }
    }

    /// Forgets a file that was removed, unless somebody has it open.
    pub(super) fn handle_removed(&mut self, number: u64) {
        if !self.open.values().any(|open| open.number == number) {
            self.files.remove(&number);
        }
    }

    /// Reads up to `size` bytes.
    pub(super) fn read(&self, handle: u64, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let open = self.opened(handle)?;
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            match open.file.read_at(&mut data[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    /// Writes bytes, if there is room.
    pub(super) fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        let number = self.opened(handle)?.number;
        self.counts.writes += 1;
        let file = self.files.get_mut(&number).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let grows = offset.saturating_add(data.len() as u64).saturating_sub(file.len()?);
        if let Some(free) = &mut self.faults.free_bytes {
            let Some(left) = free.checked_sub(grows) else {
                self.counts.full += 1;
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            };
            *free = left;
        }
        file.write(offset, data)
    }

    /// Sets the length of a file, if there is room. What is cut off is free again.
    pub(super) fn set_len(&mut self, number: u64, len: u64) -> io::Result<()> {
        let path = self.tree.real(number).ok_or(ErrorKind::NotFound)?;
        self.track(number, &path)?;
        let Some(file) = self.files.get_mut(&number) else { return Err(ErrorKind::NotFound.into()) };
        let before = file.len()?;
        if let Some(free) = &mut self.faults.free_bytes {
            let Some(left) = (*free + before.saturating_sub(len)).checked_sub(len.saturating_sub(before))
            else {
                self.counts.full += 1;
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            };
            *free = left;
        }
        file.set_len(len)
    }

    /// Answers an fsync as the disk is told to.
    pub(super) fn sync(&mut self, handle: u64) -> io::Result<()> {
        let number = self.opened(handle)?.number;
        self.counts.fsyncs += 1;
        let Some(file) = self.files.get_mut(&number) else { return Ok(()) };
        match self.faults.fsync {
            FsyncMode::Honest => return file.sync(),
            FsyncMode::Lies => {
                self.counts.fsyncs_lied += 1;
                return Ok(());
            }
            FsyncMode::Fails => {}
            FsyncMode::FailsAndForgets => file.forget(),
        }
        self.counts.fsyncs_failed += 1;
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// Bytes of a block, blocks and free blocks of the file system.
    pub(super) fn space(&self) -> io::Result<(u32, u64, u64)> {
        let root = self.tree.real_of(Path::new(""));
        let found = rustix::fs::statvfs(&root).map_err(io::Error::from)?;
        let block = found.f_frsize.max(1);
        let free = self.faults.free_bytes.map_or(found.f_bavail, |bytes| (bytes / block).min(found.f_bavail));
        Ok((u32::try_from(block).unwrap_or(4_096), found.f_blocks, free))
    }

    /// Metadata of a file or directory, by its handle if it was removed.
    pub(super) fn metadata(&self, number: u64) -> io::Result<Metadata> {
        match self.tree.real(number) {
            Some(path) => std::fs::symlink_metadata(path),
            None => match self.open.values().find(|open| open.number == number) {
                Some(open) => open.file.metadata(),
                None => Err(ErrorKind::NotFound.into()),
            },
        }
    }
}

/// The device of a directory, to see that it is another one than that of a mount point in it.
pub(super) fn device(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.dev())
}
