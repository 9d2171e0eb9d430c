//! Which archives belong together: from which one the next goes on, which are read for a restore, and which may go.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::manifest::Manifest;

/// An archive as it is listed, in the record `$archive/NAME/list/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveEntry {
    /// Id of the archive.
    pub id: String,
    /// Id of the archive from which it goes on; `None` if it is a full one.
    pub parent: Option<String>,
    /// Number of archives beneath it.
    pub depth: usize,
    /// Time up to which it has everything, in microseconds since the Unix epoch.
    pub at: u64,
    /// Pattern of the sources.
    pub pattern: String,
    /// Number of records in it, deletions included.
    pub records: u64,
    /// Number of deletions.
    pub deletions: u64,
    /// Bytes of the records as text.
    pub bytes: u64,
    /// Bytes of its frames, which are compressed.
    pub stored_bytes: u64,
    /// Name of the node that wrote it.
    pub node: String,
    /// SHA-256 of its manifest, in hexadecimal.
    pub sha256: String,
}

impl ArchiveEntry {
    /// The entry of an archive with this manifest.
    pub fn new(id: &str, manifest: &Manifest, sha256: String) -> ArchiveEntry {
        ArchiveEntry {
            id: id.into(),
            parent: manifest.parent.as_ref().map(|parent| parent.id.clone()),
            depth: manifest.depth,
            at: manifest.at,
            pattern: manifest.pattern.clone(),
            records: manifest.records,
            deletions: manifest.deletions,
            bytes: manifest.bytes,
            stored_bytes: manifest.stored_bytes,
            node: manifest.node.clone(),
            sha256,
        }
    }
}

/// The archives of one definition.
#[derive(Debug, Default)]
pub struct ArchiveChain {
    by_id: BTreeMap<String, ArchiveEntry>,
}

impl FromIterator<ArchiveEntry> for ArchiveChain {
    fn from_iter<T: IntoIterator<Item = ArchiveEntry>>(entries: T) -> Self {
        ArchiveChain { by_id: entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect() }
    }
}

impl ArchiveChain {
    /// Adds an archive.
    pub fn insert(&mut self, entry: ArchiveEntry) {
        self.by_id.insert(entry.id.clone(), entry);
    }

    /// Takes an archive away.
    pub fn remove(&mut self, id: &str) {
        self.by_id.remove(id);
    }

    /// The archive with this id.
    pub fn get(&self, id: &str) -> Option<&ArchiveEntry> {
        self.by_id.get(id)
    }

    /// All archives, the newest first.
    pub fn newest_first(&self) -> Vec<&ArchiveEntry> {
        let mut all: Vec<&ArchiveEntry> = self.by_id.values().collect();
        all.sort_by(|one, next| (next.at, &next.id).cmp(&(one.at, &one.id)));
        all
    }

    /// The newest archive, whatever its pattern.
    pub fn newest(&self) -> Option<&ArchiveEntry> {
        self.newest_first().into_iter().next()
    }

    /// The archive from which the next one goes on; `None` if that is to be a full one, because the pattern has changed,
    /// because the chain is as long as it may be, or because an archive of it is missing.
    pub fn parent_of_next(&self, pattern: &str, full_every: usize) -> Option<&ArchiveEntry> {
        let newest = self.newest()?;
        let goes_on = newest.pattern == pattern && newest.depth + 1 < full_every;
        (goes_on && self.lineage(&newest.id).is_ok()).then_some(newest)
    }

    /// The archives that a restore of this one reads: it first, and at last a full one.
    pub fn lineage(&self, id: &str) -> Result<Vec<&ArchiveEntry>, ArchiveError> {
        let lost = |id: &str| ArchiveError::Node(format!("there is no archive {id}, which is needed"));
        let mut entry = self.get(id).ok_or_else(|| lost(id))?;
        let mut lineage = vec![entry];
        while let Some(parent) = &entry.parent {
            let next = self.get(parent).ok_or_else(|| lost(parent))?;
            // Depths that grow the wrong way would never end.
            if next.depth + 1 != entry.depth {
                return Err(ArchiveError::damaged(&entry.id, "its depth is not that of its parent plus one"));
            }
            lineage.push(next);
            entry = next;
        }
        Ok(lineage)
    }

    /// The archives that may go where `keep` are kept: those that are older, unless one that is kept needs them. Each
    /// comes before those that it needs, so that whoever is interrupted leaves none without its parent.
    pub fn superfluous(&self, keep: usize) -> Vec<&ArchiveEntry> {
        let all = self.newest_first();
        let mut needed = BTreeSet::new();
        for entry in all.iter().take(keep) {
            let mut next = Some(*entry);
            while let Some(entry) = next.filter(|entry| needed.insert(entry.id.as_str())) {
                next = entry.parent.as_ref().and_then(|parent| self.get(parent));
            }
        }
        let mut superfluous: Vec<&ArchiveEntry> =
            all.into_iter().filter(|entry| !needed.contains(entry.id.as_str())).collect();
        superfluous.sort_by_key(|entry| std::cmp::Reverse(entry.depth));
        superfluous
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: &str, parent: Option<&str>, depth: usize, at: u64) -> ArchiveEntry {
        let mut manifest = Manifest::new("x", "n", at, "**");
        manifest.depth = depth;
        ArchiveEntry { parent: parent.map(str::to_owned), ..ArchiveEntry::new(id, &manifest, String::new()) }
    }

    fn chain() -> ArchiveChain {
        [
            entry("a", None, 0, 1),
            entry("b", Some("a"), 1, 2),
            entry("c", Some("b"), 2, 3),
            entry("d", None, 0, 4),
            entry("e", Some("d"), 1, 5),
        ]
        .into_iter()
        .collect()
    }

    fn ids(entries: &[&ArchiveEntry]) -> String {
        entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn the_next_goes_on_from_the_newest_while_the_chain_may_grow() {
        let chain = chain();
        let parent =
            |pattern, full_every| chain.parent_of_next(pattern, full_every).map(|entry| entry.id.as_str());
        assert_eq!((parent("**", 3), parent("**", 2), parent("a", 3)), (Some("e"), None, None));
        let mut broken = self::chain();
        broken.remove("d");
        assert_eq!(broken.parent_of_next("**", 9), None, "its parent is lost");
        assert_eq!(ArchiveChain::default().parent_of_next("**", 9), None);
    }

    #[test]
    fn a_restore_reads_down_to_a_full_one() {
        let chain = chain();
        assert_eq!(chain.lineage("c").map(|all| ids(&all)), Ok("cba".into()));
        assert_eq!(chain.lineage("d").map(|all| ids(&all)), Ok("d".into()));
        assert!(chain.lineage("x").is_err());
        let circle: ArchiveChain =
            [entry("a", Some("b"), 1, 1), entry("b", Some("a"), 1, 2)].into_iter().collect();
        assert!(circle.lineage("a").is_err());
    }

    #[test]
    fn what_is_needed_stays() {
        let chain = chain();
        let gone = |keep| ids(&chain.superfluous(keep));
        assert_eq!((gone(9), gone(3), gone(2), gone(1)), ("".into(), "".into(), "cba".into(), "cba".into()));
    }

    proptest! {
        #[test]
        fn no_kept_archive_loses_a_parent(
            fulls in proptest::collection::vec(any::<bool>(), 1..40),
            keep in 1usize..10,
        ) {
            let mut chain = ArchiveChain::default();
            let mut depth = 0;
            for (at, is_full) in fulls.iter().enumerate() {
                let is_full = *is_full || at == 0;
                depth = if is_full { 0 } else { depth + 1 };
                let parent = (!is_full).then(|| (at - 1).to_string());
                chain.insert(entry(&at.to_string(), parent.as_deref(), depth, at as u64));
            }
            let gone: Vec<String> = chain.superfluous(keep).iter().map(|entry| entry.id.clone()).collect();
            // However few of them are removed, those that are left have their parents.
            for id in &gone {
                chain.remove(id);
                for entry in chain.newest_first() {
                    prop_assert!(chain.lineage(&entry.id).is_ok());
                }
            }
            prop_assert!(chain.newest_first().len() >= keep.min(fulls.len()));
            prop_assert!(chain.superfluous(keep).is_empty());
        }
    }
}
