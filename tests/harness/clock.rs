//! A wall clock that a test can move: that of a program which the test starts, while the machine's stays right.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The wall clock of the programs that are started with it. It is removed with the last copy.
#[derive(Clone, Debug)]
pub struct ShiftedClock {
    dir: Arc<tempfile::TempDir>,
}

impl ShiftedClock {
    /// Makes a clock that differs by `seconds` from the machine's. It needs the C compiler that Rust links with.
    pub fn ahead_by(seconds: i64) -> ShiftedClock {
        let dir = match tempfile::tempdir() {
            Ok(dir) => Arc::new(dir),
            Err(error) => panic!("no temporary directory: {error}"),
        };
        let clock = ShiftedClock { dir };
        clock.set_ahead_by(seconds);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/shifted_clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(clock.library())
            .arg(source)
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc makes no library");
        clock
    }

    /// Moves the clock of running programs, too.
    pub fn set_ahead_by(&self, seconds: i64) {
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.difference())
            .and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0));
        assert!(written.is_ok(), "the clock cannot be set: {written:?}");
    }

    /// Gives the clock to a program that is to be started.
    pub fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.library()).env("ANODE_TEST_CLOCK", self.difference());
    }

    fn difference(&self) -> PathBuf {
        self.dir.path().join("difference")
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("shifted_clock.so")
    }
}
