//! A file that is written, rotated, truncated and followed in any order, and followers that are restarted anywhere.

use std::fs::{File, OpenOptions, rename};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::FileStart;
use super::follower::Follower;
use super::position::{BatchMark, FilePosition};

/// Something that happens to the file or to its follower.
#[derive(Clone, Debug)]
enum Happening {
    /// Some lines are written, the last of them with or without its end.
    Write(u8, bool),
    /// The file is renamed, and a new one begun.
    Rename,
    /// The file is emptied after all of it was read.
    Truncate,
    /// The follower reads all that there is.
    Read,
    /// The follower ends after a batch was published, and another one goes on.
    Restart,
    /// The follower ends after a batch was begun, and another one goes on.
    Crash,
}

struct Scene {
    folder: tempfile::TempDir,
    follower: Follower,
    /// The position that a follower would find after a restart.
    kept: Option<FilePosition>,
    now_us: u64,
    /// The next number that is written.
    next: u32,
    has_half_line: bool,
    rotations: u32,
    read: Vec<u32>,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.log");
        std::fs::write(&path, "").expect("written");
        let follower = Follower::new(&path.display().to_string(), FileStart::Start, 100, None);
        Scene {
            folder,
            follower,
            kept: None,
            now_us: 0,
            next: 0,
            has_half_line: false,
            rotations: 0,
            read: Vec::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("x.log")
    }

    fn append(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path()).expect("the file");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Reads once. With `is_crash`, the batch is published and the follower ends before it notes so.
    fn read_once(&mut self, is_crash: bool) -> bool {
        self.now_us += 1_500_000;
        let batch = self.follower.read(self.now_us).expect("readable");
        let Some(start) = batch.start.clone().filter(|_| !batch.is_empty()) else {
            self.kept = self.follower.position();
            return batch.is_more;
        };
        let is_repeated = start.batch.is_some();
        let numbers: Vec<u32> =
            batch.lines.iter().map(|line| String::from_utf8_lossy(line).parse().expect("a number")).collect();
        if is_repeated {
            // The same lines as before the crash, which the timestamps show to be the same records.
            let known = self.read.split_off(self.read.len() - numbers.len());
            assert_eq!(known, numbers);
        }
        self.read.extend(numbers);
        self.kept = Some(start.with_batch(BatchMark { end: batch.end, ts: 1 }));
        if is_crash {
            self.restart();
        } else {
            self.kept = self.follower.is_done();
        }
        true
    }

    fn read_all(&mut self) {
        let mut idle = 0;
        // Each file that was renamed is left after it was idle for three reads, though nothing was written to it.
        while idle < 4 * (self.rotations + 1) {
            idle = if self.read_once(false) { 0 } else { idle + 1 };
        }
    }

    fn restart(&mut self) {
        let path = self.path().display().to_string();
        self.follower = Follower::new(&path, FileStart::Start, 100, self.kept.clone());
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Write(count, is_whole) => {
                let mut text = String::new();
                if std::mem::take(&mut self.has_half_line) {
                    text.push('\n');
                }
                for at in 0..*count {
                    text.push_str(&self.next.to_string());
                    self.next += 1;
                    match at + 1 < *count || *is_whole {
                        true => text.push('\n'),
                        false => self.has_half_line = true,
                    }
                }
                self.append(&text);
            }
            Happening::Rename => {
                self.has_half_line = false;
                self.rotations += 1;
                // Times of files tell which was written first.
                let written = SystemTime::UNIX_EPOCH + Duration::from_secs(self.rotations.into());
                let file = File::options().append(true).open(self.path()).expect("the file");
                file.set_modified(written).expect("a time");
                let to = self.folder.path().join(format!("x.log.{}", self.rotations));
                rename(self.path(), to).expect("renamed");
                self.append("");
            }
            Happening::Truncate => {
                if std::mem::take(&mut self.has_half_line) {
                    self.append("\n");
                }
                self.read_all();
                std::fs::write(self.path(), "").expect("truncated");
                // A file that is longer again and begins as before could not be told apart.
                self.read_once(false);
            }
            Happening::Read => self.read_all(),
            Happening::Restart => self.restart(),
            Happening::Crash => drop(self.read_once(true)),
        }
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (1u8..6, any::<bool>()).prop_map(|(count, is_whole)| Happening::Write(count, is_whole)),
        1 => Just(Happening::Rename),
        1 => Just(Happening::Truncate),
        2 => Just(Happening::Read),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Crash),
    ];
    prop::collection::vec(one, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Every line is read once and in order, whatever happens to the file and to those who follow it.
    #[test]
    fn every_line_is_read_once_and_in_order(all in happenings()) {
        let mut scene = Scene::new();
        // The first read, before which nothing is known of the file.
        scene.read_once(false);
        all.iter().for_each(|happening| scene.happens(happening));
        if scene.has_half_line {
            scene.append("\n");
        }
        scene.read_all();
        let expected: Vec<u32> = (0..scene.next).collect();
        prop_assert_eq!(&scene.read, &expected);
    }
}
