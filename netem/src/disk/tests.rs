//! Tests of the file system by real mounts. Where mounting is not permitted, they say so and check nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;

/// Runs a test in a mounted directory, which lies over an empty real one.
fn on_a_disk(test: impl FnOnce(&FaultyDisk, &Path)) {
    if let Some(refusal) = mount_refusal() {
        eprintln!("NOT TESTED: {refusal}");
        return;
    }
    let (real, at) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let disk = FaultyDisk::mount(real.path(), at.path()).expect("mounted");
    test(&disk, disk.path());
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("opened")
}

#[test]
fn without_faults_it_is_a_file_system_like_others() {
    on_a_disk(|_, root| {
        fs::create_dir(root.join("d")).expect("a directory");
        fs::write(root.join("d/a"), b"one").expect("written");
        fs::rename(root.join("d/a"), root.join("d/b")).expect("renamed");
        assert_eq!(fs::read(root.join("d/b")).expect("read"), b"one");
        let mut file = open(&root.join("d/b"));
        file.set_len(2).expect("shortened");
        file.write_at(b"!", 4).expect("written");
        assert_eq!(fs::read(root.join("d/b")).expect("read"), b"on\0\0!");
        assert!(file.try_lock().is_ok() && open(&root.join("d/b")).try_lock().is_err(), "locks work");
        file.flush().expect("flushed");
        let names: Vec<_> = fs::read_dir(root.join("d"))
            .expect("a list")
            .map(|entry| entry.expect("one").file_name())
            .collect();
        assert_eq!(names, ["b"]);
        fs::remove_file(root.join("d/b")).expect("removed");
        assert_eq!(fs::metadata(root.join("d/b")).expect_err("gone").kind(), ErrorKind::NotFound);
        file.write_at(b"x", 0).expect("a removed file can be written while it is open");
        fs::remove_dir(root.join("d")).expect("removed");
    });
}

#[test]
fn a_cut_takes_back_what_was_not_synced() {
    on_a_disk(|disk, root| {
        let file = open(&root.join("a"));
        file.write_at(b"synced", 0).expect("written");
        file.sync_all().expect("synced");
        file.write_at(b"SYN", 0).expect("written");
        file.write_at(&[7; 10_000], 6).expect("written");
        disk.order(DiskOrder::Cut(None)).expect("cut");
        assert_eq!(fs::read(root.join("a")).expect("read"), b"synced");
        assert_eq!(file.write_at(b"x", 0).expect_err("the disk is gone").raw_os_error(), Some(libc::EIO));
        assert!(disk.counts().pages_lost >= 3);
    });
}

#[test]
fn a_lie_shows_at_the_cut() {
    on_a_disk(|disk, root| {
        let file = open(&root.join("a"));
        file.write_at(b"first", 0).expect("written");
        file.sync_data().expect("synced");
        disk.order(DiskOrder::Fsync(FsyncMode::Lies)).expect("switched");
        file.write_at(b"other", 0).expect("written");
        file.sync_data().expect("it says so");
        assert_eq!(fs::read(root.join("a")).expect("read"), b"other");
        disk.order(DiskOrder::Cut(None)).expect("cut");
        assert_eq!(fs::read(root.join("a")).expect("read"), b"first");
        assert_eq!((disk.counts().fsyncs, disk.counts().fsyncs_lied), (2, 1));
    });
}

#[test]
fn failing_fsyncs_and_full_disks_are_errors() {
    on_a_disk(|disk, root| {
        let control = root.join(CONTROL_FILE);
        fs::write(&control, "fsync=fails\nfree=100").expect("orders");
        let file = open(&root.join("a"));
        file.write_at(&[1; 100], 0).expect("written");
        assert_eq!(file.sync_all().expect_err("it fails").raw_os_error(), Some(libc::EIO));
        assert_eq!(file.write_at(b"x", 100).expect_err("full").raw_os_error(), Some(libc::ENOSPC));
        file.write_at(b"x", 99).expect("what is there can be written again");
        file.set_len(50).expect("shortened");
        file.write_at(&[1; 50], 50).expect("there is room again");
        fs::write(&control, "fsync=honest\nfree=none").expect("orders");
        file.sync_all().expect("synced");
        file.write_at(b"x", 100).expect("written");
        assert_eq!(disk.faults(), DiskFaults::default());
        assert!(fs::write(&control, "fsync=perhaps").is_err());
        assert!(fs::read_to_string(&control).expect("a state").contains("fsyncs_failed: 1"));
        assert_eq!(fs::read_dir(root).expect("a list").count(), 1, "the control file is not listed");
    });
}

#[test]
fn a_slow_disk_is_slow() {
    on_a_disk(|disk, root| {
        let file = open(&root.join("a"));
        disk.order(DiskOrder::Delay(Duration::from_millis(50))).expect("switched");
        let began = Instant::now();
        file.write_at(b"x", 0).expect("written");
        assert!(began.elapsed() >= Duration::from_millis(50));
    });
}
