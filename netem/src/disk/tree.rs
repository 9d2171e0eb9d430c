//! Numbers for the files and directories under the real directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Number of the root directory.
pub(super) const ROOT: u64 = 1;
/// Number of the file through which faults are switched.
pub(super) const CONTROL: u64 = 2;

/// The paths that the kernel knows by number. Paths are relative to the root.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    next: u64,
}

impl Tree {
    /// Begins with the root alone.
    pub(super) fn new(root: PathBuf) -> Tree {
        let paths = HashMap::from([(ROOT, PathBuf::new())]);
        let numbers = HashMap::from([(PathBuf::new(), ROOT)]);
        Tree { root, paths, numbers, next: CONTROL + 1 }
    }

    /// The real path with a number; `None` if it was removed.
    pub(super) fn real(&self, number: u64) -> Option<PathBuf> {
        self.paths.get(&number).map(|path| self.root.join(path))
    }

    /// The path of a name in a directory, relative to the root.
    pub(super) fn child(&self, parent: u64, name: &OsStr) -> Option<PathBuf> {
        self.paths.get(&parent).map(|path| path.join(name))
    }

    /// The real path of a path that is relative to the root.
    pub(super) fn real_of(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// The number of a path, which gets one if it has none.
    pub(super) fn number(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.paths.insert(number, path.to_owned());
        self.numbers.insert(path.to_owned(), number);
        number
    }

    /// Forgets a path that was removed. Its number is never given again. Returns it.
    pub(super) fn remove(&mut self, path: &Path) -> Option<u64> {
        let number = self.numbers.remove(path)?;
        self.paths.remove(&number);
        Some(number)
    }

    /// Gives a path and everything beneath it another name. Returns the number of the file that was there before.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Option<u64> {
        let replaced = self.remove(to);
        let moved: Vec<PathBuf> =
            self.numbers.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let Ok(rest) = path.strip_prefix(from) else { continue };
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            if let Some(number) = self.numbers.remove(&path) {
                self.paths.insert(number, target.clone());
                self.numbers.insert(target, number);
            }
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_files_keep_their_numbers() {
        let mut tree = Tree::new(PathBuf::from("/real"));
        let (dir, file, other) =
            (tree.number(Path::new("d")), tree.number(Path::new("d/f")), tree.number(Path::new("e")));
        assert_eq!(tree.rename(Path::new("d"), Path::new("e")), Some(other));
        assert_eq!((tree.number(Path::new("e")), tree.number(Path::new("e/f"))), (dir, file));
        assert_eq!(tree.real(file), Some(PathBuf::from("/real/e/f")));
        assert_eq!(tree.real(other), None);
        assert_eq!(tree.remove(Path::new("e/f")), Some(file));
        assert_ne!(tree.number(Path::new("e/f")), file, "a number names one file for ever");
    }
}
