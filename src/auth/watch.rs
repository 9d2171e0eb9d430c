//! Notices that files have changed, without reading them each time.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// A file that was changed so lately may be changed again without another look, because times in file systems are
/// coarse; in nanoseconds.
const UNSETTLED_NS: i64 = 2_000_000_000;

/// What a file looked like: its identity, its size, when it was last changed, and while that was lately, a hash of
/// its content. All of it is 0 for a file that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FileLook {
    identity: (u64, u64),
    bytes: u64,
    changed_ns: i64,
    content: u64,
}

impl FileLook {
    fn of(path: &Path, wall_us: u64) -> FileLook {
        let Ok(metadata) = std::fs::metadata(path) else { return FileLook::default() };
        let changed_ns = metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec());
        let wall_ns = i64::try_from(wall_us).unwrap_or(i64::MAX).saturating_mul(1_000);
        let is_settled = wall_ns.saturating_sub(changed_ns) > UNSETTLED_NS;
        let content = match is_settled {
            true => 0,
            false => std::fs::read(path).map_or(0, |content| xxh3_64(&content)),
        };
        FileLook { identity: (metadata.dev(), metadata.ino()), bytes: metadata.len(), changed_ns, content }
    }

    /// Returns whether this look and an earlier one differ. When a file has settled, its content is not compared.
    fn differs(&self, before: &FileLook) -> bool {
        let is_content = self.content != before.content && self.content != 0 && before.content != 0;
        let metadata = |look: &FileLook| (look.identity, look.bytes, look.changed_ns);
        metadata(self) != metadata(before) || is_content
    }
}

/// Files that are watched.
#[derive(Debug, Default)]
pub(super) struct FileWatch(BTreeMap<PathBuf, FileLook>);

impl FileWatch {
    /// Watches these files from now on, and no others.
    pub(super) fn set<'a>(&mut self, paths: impl Iterator<Item = &'a Path>, wall_us: u64) {
        self.0 = paths.map(|path| (path.to_owned(), FileLook::of(path, wall_us))).collect();
    }

    /// Returns whether any of the files has changed since the last call.
    pub(super) fn take_changed(&mut self, wall_us: u64) -> bool {
        let mut has_changed = false;
        for (path, before) in &mut self.0 {
            let now = FileLook::of(path, wall_us);
            has_changed |= now.differs(before);
            *before = now;
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the times of files are those of the machine")]
    fn changes_are_seen_once_even_right_after_each_other() {
        let wall_us = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "1").expect("written");
        let mut watch = FileWatch::default();
        watch.set([path.as_path()].into_iter(), wall_us());
        assert!(!watch.take_changed(wall_us()));
        for text in ["2", "3", "4"] {
            std::fs::write(&path, text).expect("written");
            assert!(watch.take_changed(wall_us()) && !watch.take_changed(wall_us()), "{text}");
        }
        assert!(!watch.take_changed(wall_us() + 10_000_000), "settled");
        std::fs::remove_file(&path).expect("removed");
        assert!(watch.take_changed(wall_us()) && !watch.take_changed(wall_us()));
    }
}
