//! What a power cut takes away from one file.
//!
//! Writes go to the real file at once, so that readers see them. Of every page that is changed for the first time since
//! the last honest fsync, the old content is kept in memory; a power cut writes it back. So the memory needed is at most
//! the size that the file had at that fsync.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes whose old content is kept together.
const PAGE_BYTES: u64 = 4_096;
/// Bytes that a disk writes as a whole: after a cut with a seed, a sector is either old or new.
const SECTOR_BYTES: usize = 512;

/// A file, and what was written to it since it was last synced.
#[derive(Debug)]
pub(super) struct UnsyncedFile {
    file: File,
    /// Length that survives a power cut.
    synced_len: u64,
    /// Old content of the pages that were changed since, by their number. It ends where the file ended.
    old: BTreeMap<u64, Vec<u8>>,
    /// Old content of pages whose fsync failed and that are taken for clean: no later fsync covers them.
    forgotten: BTreeMap<u64, Vec<u8>>,
}

impl UnsyncedFile {
    /// Begins with a file that is synced as it is. It must be open for reading and writing.
    pub(super) fn new(file: File) -> io::Result<UnsyncedFile> {
        let synced_len = file.metadata()?.len();
        Ok(UnsyncedFile { file, synced_len, old: BTreeMap::new(), forgotten: BTreeMap::new() })
    }

    /// The length of the file now.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes bytes, after keeping what they replace.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.keep_old(offset, offset.saturating_add(data.len() as u64))?;
        self.file.write_all_at(data, offset)
    }

    /// Sets the length, after keeping what is cut off.
    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let before = self.len()?;
        if len < before {
            self.keep_old(len, before)?;
        }
        self.file.set_len(len)
    }

    /// Makes everything that was written survive a power cut, but for pages that a failed fsync has forgotten.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced_len = self.len()?;
        self.old.clear();
        Ok(())
    }

    /// Takes everything that was written for clean, although it does not survive a power cut.
    pub(super) fn forget(&mut self) {
        self.forgotten.append(&mut self.old);
    }

    /// Number of pages that a power cut would take back.
    pub(super) fn pages(&self) -> usize {
        self.old.len() + self.forgotten.len()
    }

    /// Makes the file what it is after a power cut. `keeps` decides for each sector that was not synced, and for the
    /// length, whether the new state had reached the disk.
    pub(super) fn cut(&mut self, mut keeps: impl FnMut() -> bool) -> io::Result<()> {
        let len = self.len()?;
        let end = if len == self.synced_len || keeps() { len } else { self.synced_len };
        self.forget();
        for (page, old) in std::mem::take(&mut self.forgotten) {
            let from = page * PAGE_BYTES;
            let mut whole = old;
            whole.resize(PAGE_BYTES as usize, 0);
            for (index, sector) in whole.chunks(SECTOR_BYTES).enumerate() {
                let at = from + (index * SECTOR_BYTES) as u64;
                if !keeps() {
                    self.file.write_all_at(sector, at)?;
                }
            }
        }
        self.file.set_len(end)?;
        self.synced_len = end;
        Ok(())
    }

    fn keep_old(&mut self, from: u64, to: u64) -> io::Result<()> {
        for page in from / PAGE_BYTES..to.div_ceil(PAGE_BYTES) {
            if self.old.contains_key(&page) {
                continue;
            }
            let old = match self.forgotten.remove(&page) {
                Some(old) => old,
                None => self.read_page(page)?,
            };
            self.old.insert(page, old);
        }
        Ok(())
    }

    fn read_page(&self, page: u64) -> io::Result<Vec<u8>> {
        let mut content = vec![0; PAGE_BYTES as usize];
        let mut filled = 0;
        while filled < content.len() {
            match self.file.read_at(&mut content[filled..], page * PAGE_BYTES + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        content.truncate(filled);
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(file: &UnsyncedFile) -> Vec<u8> {
        let mut all = vec![0; file.len().expect("a length") as usize];
        file.file.read_exact_at(&mut all, 0).expect("a content");
        all
    }

    fn empty() -> UnsyncedFile {
        UnsyncedFile::new(tempfile::tempfile().expect("a file")).expect("a file")
    }

    #[test]
    fn forgotten_pages_are_lost_although_a_later_sync_succeeds() {
        let mut file = empty();
        file.write(0, &[1; 10_000]).expect("written");
        file.sync().expect("synced");
        file.write(0, &[2; 10]).expect("written");
        file.write(5_000, &[2; 10]).expect("written");
        file.forget();
        file.write(5_005, &[3; 10]).expect("written");
        file.sync().expect("synced");
        file.cut(|| false).expect("cut");
        let found = content(&file);
        assert_eq!(found[..10], [1; 10], "the page was not written again");
        assert_eq!(found[5_000..5_015], [2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3], "this page was");
    }

    #[derive(Clone, Debug)]
    enum Act {
        Write(u16, u16, u8),
        SetLen(u16),
        Sync,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0u16..20_000, 1u16..9_000, any::<u8>()).prop_map(|(at, len, byte)| Act::Write(at, len, byte)),
            1 => (0u16..25_000).prop_map(Act::SetLen),
            1 => Just(Act::Sync),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// After a cut the file is what it was at the last sync; and where sectors are kept at random, each is either
        /// as it was at the last sync or as it was before the cut.
        #[test]
        fn a_cut_goes_back_to_the_last_sync(acts in proptest::collection::vec(act(), 1..20), seed in any::<u64>()) {
            let mut file = empty();
            let mut synced = Vec::new();
            for act in acts {
                match act {
                    Act::Write(at, len, byte) => file.write(u64::from(at), &vec![byte; usize::from(len)])?,
                    Act::SetLen(len) => file.set_len(u64::from(len))?,
                    Act::Sync => {
                        file.sync()?;
                        synced = content(&file);
                    }
                }
            }
            let newest = content(&file);
            let mut random = seed | 1;
            let is_random = seed % 2 == 0;
            file.cut(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                is_random && random % 2 == 0
            })?;
            let found = content(&file);
            if !is_random {
                prop_assert!(found == synced);
            }
            for (index, sector) in found.chunks(SECTOR_BYTES).enumerate() {
                let at = index * SECTOR_BYTES;
                let of = |whole: &[u8]| -> Vec<u8> {
                    (at..at + sector.len()).map(|at| whole.get(at).copied().unwrap_or(0)).collect()
                };
                prop_assert!(sector == of(&synced) || sector == of(&newest), "sector {index}");
            }
            prop_assert!(found.len() == synced.len() || found.len() == newest.len());
        }
    }
}
