//! The place of one source in its shard, under the shard's lock.

use super::Change;
use super::guards::Guard;
use super::shard::Shard;
use crate::record::merge::{Verdict, judge, order};
use crate::record::{Record, SharedRecord, Source};

/// The place of one source in its shard, under the shard's lock. The source is looked up only once.
pub struct Slot<'a> {
    shard: &'a mut Shard,
    hash: u64,
    source: &'a str,
    index: u16,
    /// The place in the table, if the source is there.
    position: Option<usize>,
}

impl<'a> Slot<'a> {
    #[inline]
    pub(super) fn new(shard: &'a mut Shard, hash: u64, source: &'a str, index: u16) -> Slot<'a> {
        let position = shard.position(hash, source);
        Slot { shard, hash, source, index, position }
    }

    /// Returns the record that is held now, if any.
    #[inline]
    pub fn current(&self) -> Option<&SharedRecord> {
        self.shard.at(self.position?)
    }

    /// Returns what is left of an expired value, if nothing else is held of the source.
    #[inline]
    pub fn guard(&self) -> Option<Guard> {
        match self.position {
            Some(_) => None,
            None => self.shard.find_guard(self.hash),
        }
    }

    /// Judges a record against what is held of its source: the latest record, or what guards against older ones.
    #[inline]
    pub fn judge(&self, record: &Record) -> Verdict {
        match (self.current(), self.guard()) {
            (None, Some(guard)) => guard.judge(&record.stamp),
            (current, _) => judge(current, record),
        }
    }

    /// Returns the map's own copy of the source's name, to be shared, if the source is held.
    pub fn shared_name(&self) -> Option<Source> {
        self.shard.shared_name(self.position?)
    }

    /// Makes `record` the latest of its source, and returns the change that subscribers are to be told. A
    /// record that has expired already counts as a deletion there.
    #[inline]
    pub fn replace(&mut self, record: SharedRecord, wall_us: u64, tombstones_us: u64) -> Change {
        let is_expiry = !record.stamp.deleted && !record.is_visible(wall_us);
        self.put(&record, wall_us, tombstones_us, true);
        Change { record, is_expiry, shard: self.index, version: self.shard.version }
    }

    /// Makes `record` the latest of its source without a change that subscribers are told: the versions stay.
    pub fn replace_silently(&mut self, record: &SharedRecord, wall_us: u64, tombstones_us: u64) {
        self.put(record, wall_us, tombstones_us, false);
    }

    /// Takes the source out of the map, if `record` is still its latest. Returns whether it was.
    pub fn remove(&mut self, record: &SharedRecord) -> bool {
        let Some(at) = self.position else { return false };
        if self.shard.at(at).is_none_or(|held| held.checksum != record.checksum) {
            return false;
        }
        self.position = None;
        self.shard.take_out(at).is_some()
    }

    #[inline]
    fn put(&mut self, record: &SharedRecord, wall_us: u64, tombstones_us: u64, is_told: bool) {
        debug_assert_eq!(record.source.as_str(), self.source);
        debug_assert!(self.current().is_none_or(|held| order(record, held).is_ge()), "a source goes back");
        let place = (self.position, self.hash);
        self.position = Some(self.shard.replace(place, record, (wall_us, tombstones_us), is_told));
    }
}
