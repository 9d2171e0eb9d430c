//! The wall clock of a node, which can be ahead of or behind that of the machine, also while the node runs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anode_loadgen::Outcome;

/// A library that is loaded before the C library, and changes the wall clock of the program that loads it.
const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/harness/shifted_clock.c");

/// The wall clock of one node.
pub struct NodeClock {
    library: PathBuf,
    difference: PathBuf,
    file: File,
}

impl NodeClock {
    /// Makes a clock that is right, with its files in `dir`. It needs the C compiler that Rust links with.
    pub fn new(dir: &Path) -> Outcome<NodeClock> {
        let (library, difference) = (dir.join("clock.so"), dir.join("clock"));
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(LIBRARY).status();
        if !compiled.is_ok_and(|status| status.success()) {
            return Err(format!("cc makes no library of {LIBRARY}").into());
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&difference)?;
        let clock = NodeClock { library, difference, file };
        clock.set_ahead_by_us(0)?;
        Ok(clock)
    }

    /// Sets how many microseconds the clock is ahead of the machine's; negative: behind.
    pub fn set_ahead_by_us(&self, ahead_us: i64) -> Outcome<()> {
        let (seconds, us) = (ahead_us.div_euclid(1_000_000), ahead_us.rem_euclid(1_000_000));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seconds.to_ne_bytes());
        bytes[8..].copy_from_slice(&(us * 1_000).to_ne_bytes());
        self.file.write_all_at(&bytes, 0)?;
        Ok(())
    }

    /// Gives the clock to a program that is to be started.
    pub fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("ANODE_TEST_CLOCK", &self.difference);
    }
}
