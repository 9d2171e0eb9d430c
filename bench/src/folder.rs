//! Where the nodes of a measurement keep their data.

use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;

/// A folder under `target/`, gone with the run.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it, with this process's id in its name.
    pub fn new() -> Outcome<Folder> {
        let path = std::env::current_dir()?.join(format!("target/bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leaving data behind is no failure of the measurement.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
