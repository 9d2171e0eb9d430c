//! A disk in memory that loses power, runs full and fails to sync when a test says so.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, Database, StorageBackend};

use super::super::medium::Medium;

/// Ways in which the disk fails.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Faults {
    /// Writes that would grow what is written beyond this fail, as on a full disk.
    pub(in crate::store) room_bytes: Option<usize>,
    /// Syncs fail, and the pages they should have written count as clean, as in Linux.
    pub(in crate::store) syncs_fail: bool,
    /// One sync fails in that way: the one after this number of syncs that succeed.
    pub(in crate::store) sync_fails_after: Option<u32>,
    /// Whether the power is off, so that no write reaches the disk.
    pub(in crate::store) off: bool,
}

/// Number of syncs that redb asks for in one durable commit.
pub(in crate::store) const SYNCS_A_COMMIT: usize = 2;

#[derive(Debug, Default)]
struct Disk {
    /// The content of the file as the process sees it, through the page cache.
    cache: Vec<u8>,
    /// The content of the file that a power cut leaves.
    platter: Vec<u8>,
    /// Ranges of the cache that the next sync has to write.
    dirty: Vec<(usize, usize)>,
    written_bytes: usize,
    /// Number of syncs that were asked for, failed ones included.
    syncs: usize,
    faults: Faults,
    /// The platter after every sync, and between: each with the first dirty writes, or all but them.
    images: Option<Vec<Vec<u8>>>,
}

impl Disk {
    fn sync(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        self.platter.resize(self.cache.len(), 0);
        if let Some(images) = &mut self.images {
            for cut in [0, dirty.len() / 3, dirty.len().saturating_sub(1)] {
                for part in [&dirty[..cut], &dirty[cut..]] {
                    let mut image = self.platter.clone();
                    copy(&self.cache, &mut image, part);
                    images.push(image);
                }
            }
        }
        copy(&self.cache, &mut self.platter, &dirty);
        if let Some(images) = &mut self.images {
            images.push(self.platter.clone());
        }
    }
}

fn copy(from: &[u8], to: &mut [u8], ranges: &[(usize, usize)]) {
    for &(start, end) in ranges {
        let end = end.min(from.len()).min(to.len());
        if start < end {
            to[start..end].copy_from_slice(&from[start..end]);
        }
    }
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct SimDisk {
    disk: Arc<Mutex<Disk>>,
}

impl SimDisk {
    /// The disk with this content, all of it written.
    pub(super) fn of_image(image: Vec<u8>) -> SimDisk {
        let disk = Disk { cache: image.clone(), platter: image, ..Disk::default() };
        SimDisk { disk: Arc::new(Mutex::new(disk)) }
    }

    pub(in crate::store) fn set(&self, faults: Faults) {
        self.disk.lock().faults = faults;
    }

    /// The disk as the next process finds it after a power cut.
    pub(in crate::store) fn after_power_cut(&self) -> SimDisk {
        SimDisk::of_image(self.platter())
    }

    /// Returns the content that a power cut leaves.
    pub(super) fn platter(&self) -> Vec<u8> {
        self.disk.lock().platter.clone()
    }

    /// Returns the number of bytes that were written so far, those that no sync has reached included.
    pub(super) fn written_bytes(&self) -> usize {
        self.disk.lock().written_bytes
    }

    /// Returns the number of syncs that were asked for so far, failed ones included.
    pub(in crate::store) fn syncs(&self) -> usize {
        self.disk.lock().syncs
    }

    /// Keeps what each sync leaves from here on, for [`SimDisk::images`].
    pub(super) fn keep_images(&self) {
        self.disk.lock().images = Some(Vec::new());
    }

    /// Returns what a power cut at any moment since [`SimDisk::keep_images`] could have left.
    pub(super) fn images(&self) -> Vec<Vec<u8>> {
        self.disk.lock().images.take().unwrap_or_default()
    }
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.lock();
        let from = disk.cache.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.faults.off {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        disk.cache.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.syncs += 1;
        if disk.faults.off {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let left = disk.faults.sync_fails_after;
        disk.faults.sync_fails_after = left.and_then(|left| left.checked_sub(1));
        if disk.faults.syncs_fail || left == Some(0) {
            disk.dirty.clear();
            return Err(io::Error::other("sync failed"));
        }
        disk.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.faults.off {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = disk.written_bytes + data.len();
        if disk.faults.room_bytes.is_some_and(|room| written > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.written_bytes = written;
        let (start, end) = (offset as usize, offset as usize + data.len());
        if end > disk.cache.len() {
            disk.cache.resize(end, 0);
        }
        disk.cache[start..end].copy_from_slice(data);
        disk.dirty.push((start, end));
        Ok(())
    }
}

impl Medium for SimDisk {
    fn open(&self, builder: &Builder) -> Result<Database, redb::Error> {
        Ok(builder.create_with_backend(self.clone())?)
    }

    fn path(&self) -> PathBuf {
        "simulated".into()
    }
}
