//! A page of records in the order of their names, found in bounded parts.
//!
//! Every shard has its names in order, so a page is merged from 256 sorted lists: the listing holds the next
//! record of each shard, takes the one with the least name, and looks for the next one in its shard. This costs
//! one lookup for each record and one for each shard, however many sources there are.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Cursor, Latest};
use crate::limits::SHARDS;
use crate::record::{Pattern, SharedRecord};

/// Tells whether a source may be shown to whoever asks.
pub type ShownSources = Box<dyn Fn(&str) -> bool + Send>;

/// A page that is being put together.
pub struct Listing {
    pattern: Pattern,
    limit: usize,
    /// Timestamp that those of the records must exceed, in microseconds, if there is one.
    updated_since: Option<u64>,
    /// Returns whether a source may be shown; `None` if all may.
    is_shown: Option<ShownSources>,
    /// For each shard, how far it was looked through.
    cursors: Vec<Cursor>,
    /// The next record of each shard that has one.
    heads: BinaryHeap<Reverse<ByName>>,
    /// Shards whose next record is not known yet.
    unknown: Vec<usize>,
    found: Vec<SharedRecord>,
}

impl Listing {
    /// Begins the page of the first `limit` visible records that match, after the name `after`.
    pub fn new(pattern: Pattern, after: Option<&str>, limit: usize) -> Listing {
        let after: Option<Arc<str>> = after.map(Arc::from);
        let cursor = after.map_or_else(Cursor::default, Cursor::after);
        Listing {
            pattern,
            limit,
            updated_since: None,
            is_shown: None,
            cursors: vec![cursor; SHARDS],
            heads: BinaryHeap::new(),
            unknown: (0..SHARDS).collect(),
            found: Vec::new(),
        }
    }

    /// Leaves out the records of all sources that may not be shown.
    pub fn only(self, is_shown: ShownSources) -> Listing {
        Listing { is_shown: Some(is_shown), ..self }
    }

    /// Leaves out the records whose timestamps do not exceed `ts`, in microseconds.
    pub fn updated_since(self, ts: u64) -> Listing {
        Listing { updated_since: Some(ts), ..self }
    }

    /// Goes on until the page is complete or `steps` are used up, which are counted as in [`Latest::scan`].
    /// Returns whether the page is complete.
    pub fn advance(&mut self, latest: &Latest, wall_us: u64, steps: &mut usize) -> bool {
        while self.found.len() < self.limit {
            if let Some(&shard) = self.unknown.last() {
                if *steps == 0 {
                    return false;
                }
                self.look_into(latest, shard, wall_us, steps);
            } else if let Some(Reverse(ByName { record, shard })) = self.heads.pop() {
                self.found.push(record);
                self.unknown.push(shard);
            } else {
                break;
            }
        }
        true
    }

    /// Looks for the next record of the shard that is last in the list of those to look into.
    fn look_into(&mut self, latest: &Latest, shard: usize, wall_us: u64, steps: &mut usize) {
        let Some(cursor) = self.cursors.get_mut(shard) else { return };
        let updated_since = self.updated_since;
        let is_new = |record: &SharedRecord| updated_since.is_none_or(|since| record.stamp.ts > since);
        let mut head: Option<SharedRecord> = None;
        latest.scan(shard, &self.pattern, cursor, steps, &mut |record, _| {
            if record.is_visible(wall_us) && is_new(record) {
                head = Some(record.clone());
            }
            head.is_none()
        });
        // Rights may be many patterns, so they are asked without the lock of the shard.
        if let (Some(record), Some(is_shown)) = (&head, &self.is_shown)
            && !is_shown(record.source.as_str())
        {
            head = None;
        }
        if head.is_some() || cursor.is_over() {
            self.unknown.pop();
            self.heads.extend(head.map(|record| Reverse(ByName { record, shard })));
        }
    }

    /// Returns the records found so far, in the order of their names.
    pub fn into_records(self) -> Vec<SharedRecord> {
        self.found
    }
}

/// A record that is ordered by the name of its source, and its shard.
struct ByName {
    record: SharedRecord,
    shard: usize,
}

impl PartialEq for ByName {
    fn eq(&self, other: &ByName) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &ByName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &ByName) -> Ordering {
        self.record.source.cmp(&other.record.source)
    }
}
