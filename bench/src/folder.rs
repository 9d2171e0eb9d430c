//! Folders in which the nodes of a measurement keep their data.

use std::path::{Path, PathBuf};

use anode_loadgen::Outcome;

/// A folder under `target/`, which is removed when this is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a folder, with the id of this process in its name.
    pub fn new() -> Outcome<Folder> {
        let path = std::env::current_dir()?.join(format!("target/bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    /// Returns a path in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If it cannot be removed, the measurement is right nevertheless.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
