//! The store that forgets: nothing survives the process, so everything is durable at once, as far
//! as it will ever be. It keeps histories, and nothing else, since the latest records are the map's.
//!
//! Histories are bounded in bytes over all sources: the oldest entry goes first, whosever it is.

use std::collections::VecDeque;

use hashbrown::HashTable;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::history::{HistoryPage, HistoryQuery, page};
use crate::record::{SharedRecord, Source, Stamp};

/// Bytes of history kept in memory.
const HISTORY_BYTES_MAX: usize = 256 * 1024 * 1024;

struct Ring {
    source: Source,
    /// Oldest first, each with its number in the order of all.
    records: VecDeque<(u64, SharedRecord)>,
}

#[derive(Default)]
struct Rings {
    of: HashTable<Ring>,
    /// Whose oldest record goes next: the hash of its source, and its number. May name records that
    /// have gone already.
    order: VecDeque<(u64, u64)>,
    numbered: u64,
    bytes: usize,
}

/// Histories in memory.
pub(super) struct Memory {
    rings: Mutex<Rings>,
    history: usize,
    bytes_max: usize,
}

impl Memory {
    pub(super) fn new(history: u32) -> Memory {
        Memory { rings: Mutex::default(), history: history as usize, bytes_max: HISTORY_BYTES_MAX }
    }

    pub(super) fn push(&self, record: &SharedRecord) {
        if self.history == 0 {
            return;
        }
        let mut rings = self.rings.lock();
        rings.push(record, self.history);
        while rings.bytes > self.bytes_max && rings.drop_oldest() {}
    }

    pub(super) fn remove(&self, source: &Source, stamp: Stamp) {
        let mut rings = self.rings.lock();
        let found = rings.of.find_entry(hash_of(source.as_str()), |ring| ring.source == *source);
        let Ok(entry) = found else { return };
        if entry.get().records.back().is_none_or(|(_, newest)| newest.stamp <= stamp) {
            let (ring, _) = entry.remove();
            rings.bytes -= ring.records.iter().map(|(_, record)| record.cost_bytes()).sum::<usize>();
        }
    }

    pub(super) fn history(&self, query: &HistoryQuery<'_>, limit: usize) -> HistoryPage {
        let rings = self.rings.lock();
        let ring = rings.of.find(hash_of(query.source), |ring| ring.source.as_str() == query.source);
        let all: Vec<_> =
            ring.into_iter().flat_map(|ring| &ring.records).map(|(_, record)| record.clone()).collect();
        drop(rings);
        page(query, &all, Vec::new(), limit)
    }

    #[cfg(test)]
    pub(super) fn with_bytes_max(history: u32, bytes_max: usize) -> Memory {
        Memory { bytes_max, ..Memory::new(history) }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.rings.lock().bytes
    }
}

impl Rings {
    fn push(&mut self, record: &SharedRecord, history: usize) {
        let hash = hash_of(record.source.as_str());
        let entry =
            self.of.entry(hash, |ring| ring.source == record.source, |ring| hash_of(ring.source.as_str()));
        let mut entry =
            entry.or_insert_with(|| Ring { source: record.source.clone(), records: VecDeque::new() });
        let records = &mut entry.get_mut().records;
        match records.back_mut() {
            Some((_, newest)) if newest.stamp > record.stamp => return,
            Some((_, newest)) if newest.stamp == record.stamp => {
                self.bytes = self.bytes - newest.cost_bytes() + record.cost_bytes();
                *newest = record.clone();
                return;
            }
            _ => {}
        }
        self.numbered += 1;
        self.order.push_back((hash, self.numbered));
        records.push_back((self.numbered, record.clone()));
        self.bytes += record.cost_bytes();
        if records.len() > history
            && let Some((number, oldest)) = records.pop_front()
        {
            self.bytes -= oldest.cost_bytes();
            // Where sources take turns it is the oldest of all.
            self.order.pop_front_if(|first| *first == (hash, number));
        }
        self.forget_gone();
    }

    /// Keeps the order as short as what it orders, within a small factor.
    fn forget_gone(&mut self) {
        let held: usize = self.bytes / size_of::<crate::record::Record>() + 1024;
        if self.order.len() <= 4 * held {
            return;
        }
        let of = &self.of;
        self.order.retain(|(hash, number)| {
            let is_oldest_or_later =
                |ring: &Ring| ring.records.front().is_some_and(|(first, _)| first <= number);
            of.iter_hash(*hash).any(is_oldest_or_later)
        });
    }

    /// Drops the record that is longest in its ring; `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some((hash, number)) = self.order.pop_front() else { return false };
        let is_it = |ring: &Ring| ring.records.front().is_some_and(|(first, _)| *first == number);
        let Ok(mut entry) = self.of.find_entry(hash, is_it) else { return true };
        let records = &mut entry.get_mut().records;
        if let Some((_, oldest)) = records.pop_front() {
            self.bytes -= oldest.cost_bytes();
        }
        if records.is_empty() {
            entry.remove();
        }
        true
    }
}

fn hash_of(source: &str) -> u64 {
    xxh3_64(source.as_bytes())
}
