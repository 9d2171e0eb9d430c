//! The file system as the kernel speaks to it: every operation waits as the disk is told to, and passes through.
//!
//! Names are not subject to power cuts: making, renaming and removing files takes effect at once and for good. Symbolic
//! links, hard links and extended attributes are not supported. Files are read and written past the page cache, so that
//! after a cut nobody sees what is gone.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::CONTROL_FILE;
use super::backing::Disk;
use super::faults::parse_orders;
use super::tree::{CONTROL, ROOT};

/// The kernel is not to keep attributes and names, because a power cut changes files behind its back.
const KEEP: Duration = Duration::ZERO;

/// Handle of the control file, which is always open.
const CONTROL_HANDLE: u64 = 0;

/// The file system over a disk that others may give orders to.
pub(super) struct FaultyFilesystem {
    disk: Arc<Mutex<Disk>>,
}

impl FaultyFilesystem {
    /// Serves this disk.
    pub(super) fn new(disk: Arc<Mutex<Disk>>) -> FaultyFilesystem {
        FaultyFilesystem { disk }
    }

    /// Waits as long as the disk takes, and locks it.
    fn slow(&self) -> parking_lot::MutexGuard<'_, Disk> {
        let delay = self.disk.lock().faults().delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        self.disk.lock()
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        if parent.0 == ROOT && name == CONTROL_FILE {
            return Ok(control_attributes());
        }
        let mut disk = self.slow();
        let path = disk.tree.child(parent.0, name).ok_or(ErrorKind::NotFound)?;
        let metadata = fs::symlink_metadata(disk.tree.real_of(&path))?;
        Ok(attributes(disk.tree.number(&path), &metadata))
    }

    fn make_dir(&self, parent: INodeNo, name: &OsStr, mode: u32) -> io::Result<FileAttr> {
        let mut disk = self.slow();
        let path = disk.tree.child(parent.0, name).ok_or(ErrorKind::NotFound)?;
        let real = disk.tree.real_of(&path);
        fs::DirBuilder::new().mode(mode & 0o7777).create(&real)?;
        let metadata = fs::symlink_metadata(&real)?;
        Ok(attributes(disk.tree.number(&path), &metadata))
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, is_dir: bool) -> io::Result<()> {
        let mut disk = self.slow();
        let path = disk.tree.child(parent.0, name).ok_or(ErrorKind::NotFound)?;
        let real = disk.tree.real_of(&path);
        if is_dir {
            fs::remove_dir(real)?
        } else {
            fs::remove_file(real)?
        }
        if let Some(number) = disk.tree.remove(&path) {
            disk.handle_removed(number);
        }
        Ok(())
    }

    fn move_name(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> io::Result<()> {
        let mut disk = self.slow();
        let old = disk.tree.child(from.0.0, from.1).ok_or(ErrorKind::NotFound)?;
        let new = disk.tree.child(to.0.0, to.1).ok_or(ErrorKind::NotFound)?;
        let (real_old, real_new) = (disk.tree.real_of(&old), disk.tree.real_of(&new));
        if !flags.is_empty() {
            // Only a rename that must not replace anything is understood.
            if flags != RenameFlags::RENAME_NOREPLACE {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            if real_new.symlink_metadata().is_ok() {
                return Err(ErrorKind::AlreadyExists.into());
            }
        }
        fs::rename(real_old, real_new)?;
        if let Some(replaced) = disk.tree.rename(&old, &new) {
            disk.handle_removed(replaced);
        }
        Ok(())
    }

    fn change(&self, number: u64, mode: Option<u32>, size: Option<u64>) -> io::Result<FileAttr> {
        if number == CONTROL {
            return Ok(control_attributes());
        }
        let mut disk = self.slow();
        if let Some(size) = size {
            disk.set_len(number, size)?;
        }
        if let (Some(mode), Some(path)) = (mode, disk.tree.real(number)) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
        }
        let metadata = disk.metadata(number)?;
        Ok(attributes(number, &metadata))
    }

    fn list(&self, number: u64) -> io::Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let mut disk = self.slow();
        let path = disk.tree.real(number).ok_or(ErrorKind::NotFound)?;
        let mut entries =
            vec![(number, FileType::Directory, ".".into()), (ROOT, FileType::Directory, "..".into())];
        let mut found: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        found.sort_unstable_by_key(std::fs::DirEntry::file_name);
        for entry in found {
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            let name = entry.file_name();
            let Some(child) = disk.tree.child(number, &name) else { continue };
            entries.push((disk.tree.number(&child), kind, name));
        }
        Ok(entries)
    }

    /// Carries out what was written to the control file.
    fn control(&self, data: &[u8]) -> io::Result<()> {
        let text = std::str::from_utf8(data).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let orders = parse_orders(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let mut disk = self.disk.lock();
        orders.into_iter().try_for_each(|order| disk.obey(order))
    }
}

fn control_attributes() -> FileAttr {
    FileAttr {
        ino: INodeNo(CONTROL),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0o600,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: metadata.accessed().unwrap_or(UNIX_EPOCH),
        mtime: metadata.modified().unwrap_or(UNIX_EPOCH),
        ctime: UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0)),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: u32::try_from(metadata.nlink()).unwrap_or(1),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}

impl Filesystem for FaultyFilesystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.entry(parent, name) {
            Ok(found) => reply.entry(&KEEP, &found, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.change(number.0, None, None) {
            Ok(found) => reply.attr(&KEEP, &found),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.change(number.0, mode, size) {
            Ok(found) => reply.attr(&KEEP, &found),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        match self.make_dir(parent, name, mode & !umask) {
            Ok(made) => reply.entry(&KEEP, &made, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.move_name((parent, name), (new_parent, new_name), flags));
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if number.0 == CONTROL {
            return reply.opened(FileHandle(CONTROL_HANDLE), FopenFlags::FOPEN_DIRECT_IO);
        }
        let opened = self.slow().open(number.0, flags.0);
        match opened {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.slow();
        let path = disk.tree.child(parent.0, name).ok_or(io::Error::from(ErrorKind::NotFound));
        match path.and_then(|path| disk.create(&path, mode & !umask, flags)) {
            Ok((number, handle, metadata)) => {
                let made = attributes(number, &metadata);
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&KEEP, &made, Generation(0), FileHandle(handle), flags);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if handle.0 == CONTROL_HANDLE {
            let disk = self.disk.lock();
            let text = format!("{:?}\n{:?}\n", disk.faults(), disk.counts());
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
            let to = from.saturating_add(size as usize).min(text.len());
            return reply.data(&text.as_bytes()[from..to]);
        }
        let read = self.slow().read(handle.0, offset, size);
        match read {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_control = handle.0 == CONTROL_HANDLE;
        let written = if is_control { self.control(data) } else { self.slow().write(handle.0, offset, data) };
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.disk.lock().close(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = if handle.0 == CONTROL_HANDLE { Ok(()) } else { self.slow().sync(handle.0) };
        answer(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        drop(self.slow());
        reply.ok();
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.list(number.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        let rest = entries.iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for (index, (child, kind, name)) in rest {
            if reply.add(INodeNo(*child), index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.slow().space();
        match space {
            Ok((block, blocks, free)) => {
                reply.statfs(blocks, free, free, 1 << 20, 1 << 20, block, 255, block)
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}

fn answer(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// The number of an error. Errors that no system call made are named by their kind.
fn errno(error: io::Error) -> Errno {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => Errno::from_i32(number),
        (None, ErrorKind::NotFound) => Errno::ENOENT,
        (None, ErrorKind::AlreadyExists) => Errno::EEXIST,
        (None, _) => Errno::EIO,
    }
}
