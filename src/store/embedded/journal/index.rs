//! The index in memory of the changes that wait in the journal: of every source the places of its records in
//! the journal's table, but not the records.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::row::{ChangeKind, ChangePlace, WrittenChange};
use crate::record::cost::{allocated, name_bytes};
use crate::record::{Source, Stamp};

/// Changes of one source that wait, summed up.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingSource {
    /// Stamp up to which records in the tables do not count any more, if there is one.
    removed: Option<Box<Stamp>>,
    /// Stamp of the record at the last place.
    newest: Option<Stamp>,
    /// Places of the records that wait, in ascending order of their stamps.
    places: VecDeque<ChangePlace>,
    /// Bytes that all changes of the source take in rows, those that are superseded included.
    row_bytes: usize,
}

impl WaitingSource {
    /// Stamp up to which records in the tables do not count any more, if there is one.
    pub(super) fn removed(&self) -> Option<Stamp> {
        self.removed.as_deref().copied()
    }

    /// Places of the records that wait, in ascending order of their stamps.
    pub(super) fn places(&self) -> &VecDeque<ChangePlace> {
        &self.places
    }

    /// Bytes that all changes of the source take in rows of the table.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    fn remove_upto(&mut self, stamp: Stamp) {
        // A removal removes all of a source or, if a newer record came before it, nothing.
        if self.newest.is_none_or(|newest| newest <= stamp) {
            self.removed = Some(Box::new(self.removed().map_or(stamp, |before| before.max(stamp))));
            self.newest = None;
            self.places.clear();
        }
    }

    fn add_record(&mut self, stamp: Stamp, place: ChangePlace, kept_max: usize) {
        match self.newest {
            Some(newest) if stamp < newest => return,
            Some(newest) if stamp == newest => drop(self.places.pop_back()),
            _ if self.places.len() >= kept_max => drop(self.places.pop_front()),
            _ => {}
        }
        self.newest = Some(stamp);
        self.places.push_back(place);
    }

    /// Memory that the source takes in the index, in bytes.
    fn cost_bytes(&self, source: &Source) -> usize {
        /// Memory of an entry of the tree, whose nodes are two thirds full.
        const ENTRY_BYTES: usize = size_of::<(Source, WaitingSource)>() * 3 / 2;
        let places = match self.places.capacity() {
            0 => 0,
            capacity => allocated(capacity * size_of::<ChangePlace>()),
        };
        let removed = self.removed.as_ref().map_or(0, |_| allocated(size_of::<Stamp>()));
        ENTRY_BYTES + name_bytes(source.as_str()) + places + removed
    }
}

/// The waiting changes of all sources.
#[derive(Debug)]
pub(super) struct JournalIndex {
    sources: BTreeMap<Source, WaitingSource>,
    /// Memory that the index takes.
    bytes: usize,
    /// Number of records of a source that are remembered. Older ones would leave its history at once.
    kept_max: usize,
}

impl JournalIndex {
    /// An empty index that remembers up to `kept_max` records of each source.
    pub(super) fn new(kept_max: usize) -> JournalIndex {
        JournalIndex { sources: BTreeMap::new(), bytes: 0, kept_max: kept_max.max(1) }
    }

    /// Memory that the index takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of sources of which changes wait.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Returns whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Adds a change that was made after all those of its source that are in the index.
    pub(super) fn add(&mut self, change: WrittenChange) {
        let WrittenChange { source, kind, row_bytes } = change;
        let mut entry = match self.sources.entry(source) {
            Entry::Vacant(entry) => entry.insert_entry(WaitingSource::default()),
            Entry::Occupied(entry) => {
                self.bytes -= entry.get().cost_bytes(entry.key());
                entry
            }
        };
        let waiting = entry.get_mut();
        waiting.row_bytes += row_bytes;
        match kind {
            ChangeKind::Removal(stamp) => waiting.remove_upto(stamp),
            ChangeKind::Record(stamp, place) => waiting.add_record(stamp, place, self.kept_max),
        }
        self.bytes += entry.get().cost_bytes(entry.key());
    }

    /// Forgets a source, because its changes are moved.
    pub(super) fn remove(&mut self, source: &Source) {
        if let Some((source, waiting)) = self.sources.remove_entry(source) {
            self.bytes -= waiting.cost_bytes(&source);
        }
        debug_assert_eq!(self.sources.is_empty(), self.bytes == 0, "bytes are those of what waits");
    }

    /// The waiting changes of a source.
    pub(super) fn get(&self, source: &str) -> Option<&WaitingSource> {
        self.sources.get(source)
    }

    /// Iterates over all sources in order of name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Source, &WaitingSource)> {
        self.sources.iter()
    }

    /// Iterates over all sources once in order of name, from the one that follows `after` round to `after`
    /// itself. With each comes whether it is past the end of the names.
    pub(super) fn round_after<'a>(
        &'a self,
        after: Option<&'a Source>,
    ) -> impl Iterator<Item = (bool, &'a Source, &'a WaitingSource)> {
        let (from, upto) = match after {
            Some(source) => (Excluded(source), Included(source)),
            None => (Unbounded, Unbounded),
        };
        let this = self.sources.range::<Source, _>((from, Unbounded));
        let next = self.sources.range::<Source, _>((Unbounded, upto)).filter(move |_| after.is_some());
        let this = this.map(|(source, waiting)| (false, source, waiting));
        this.chain(next.map(|(source, waiting)| (true, source, waiting)))
    }
}
