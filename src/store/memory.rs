//! The store that forgets: nothing survives the process, so everything is durable at once, as far
//! as it will ever be. It keeps histories, and nothing else, since the latest records are the map's.
//!
//! Histories are bounded in bytes over all sources: the oldest entry goes first, whosever it is.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::history::{HistoryPage, HistoryQuery, page};
use crate::record::{Record, SharedRecord, Source, Stamp};

/// Bytes of history kept in memory.
const HISTORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Records that have gone and are not freed yet, and their bytes.
const GONE_MAX: usize = 6;
const GONE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a cache line, and how many of a record's data are fetched.
const LINE_BYTES: usize = 64;
const LINES_MAX: usize = 8;

struct Ring {
    source: Source,
    /// Oldest first.
    records: VecDeque<Entry>,
}

struct Entry {
    /// In the order of all.
    number: u64,
    /// What the record counts as. It is asked for when the record goes, which nobody has read for long by then.
    cost_bytes: u32,
    record: SharedRecord,
}

/// Records that have gone, freed a few at a time: no cache holds them any more, and each would be waited for by
/// itself. Read side by side they come all at once.
#[derive(Default)]
struct Gone {
    records: Vec<SharedRecord>,
    bytes: usize,
}

impl Gone {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.cost_bytes as usize;
        self.records.push(entry.record);
        if self.records.len() >= GONE_MAX || self.bytes >= GONE_BYTES_MAX {
            self.records.iter().for_each(|record| {
                black_box(Arc::strong_count(record));
            });
            self.records.iter().for_each(|record| touch(record));
            self.records.clear();
            self.bytes = 0;
        }
    }
}

/// Reads something of each cache line that freeing a record gives to the next: who makes that one would wait
/// for them one by one.
fn touch(record: &Record) {
    black_box((record.stamp.ts, record.birth.seq, record.ttl_ms, record.checksum));
    record.payload.bytes().iter().step_by(LINE_BYTES).take(LINES_MAX).for_each(|byte| {
        black_box(*byte);
    });
}

#[derive(Default)]
struct Rings {
    of: HashTable<Ring>,
    /// Whose oldest record goes next: the hash of its source, and its number. May name records that
    /// have gone already.
    order: VecDeque<(u64, u64)>,
    numbered: u64,
    bytes: usize,
    gone: Gone,
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
        if entry.get().records.back().is_none_or(|newest| newest.record.stamp <= stamp) {
            let (ring, _) = entry.remove();
            rings.bytes -= ring.records.iter().map(|entry| entry.cost_bytes as usize).sum::<usize>();
        }
    }

    pub(super) fn history(&self, query: &HistoryQuery<'_>, limit: usize) -> HistoryPage {
        let rings = self.rings.lock();
        let ring = rings.of.find(hash_of(query.source), |ring| ring.source.as_str() == query.source);
        let all: Vec<_> =
            ring.into_iter().flat_map(|ring| &ring.records).map(|entry| entry.record.clone()).collect();
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
        // No record is larger than a few megabytes.
        let cost_bytes = u32::try_from(record.cost_bytes()).unwrap_or(u32::MAX);
        match records.back_mut() {
            Some(newest) if newest.record.stamp > record.stamp => return,
            Some(newest) if newest.record.stamp == record.stamp => {
                self.bytes = self.bytes - newest.cost_bytes as usize + cost_bytes as usize;
                *newest = Entry { number: newest.number, cost_bytes, record: record.clone() };
                return;
            }
            _ => {}
        }
        self.numbered += 1;
        self.order.push_back((hash, self.numbered));
        records.push_back(Entry { number: self.numbered, cost_bytes, record: record.clone() });
        self.bytes += cost_bytes as usize;
        if records.len() > history
            && let Some(oldest) = records.pop_front()
        {
            self.bytes -= oldest.cost_bytes as usize;
            // Where sources take turns it is the oldest of all.
            self.order.pop_front_if(|first| *first == (hash, oldest.number));
            self.gone.push(oldest);
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
                |ring: &Ring| ring.records.front().is_some_and(|first| first.number <= *number);
            of.iter_hash(*hash).any(is_oldest_or_later)
        });
    }

    /// Drops the record that is longest in its ring; `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some((hash, number)) = self.order.pop_front() else { return false };
        let is_it = |ring: &Ring| ring.records.front().is_some_and(|first| first.number == number);
        let Ok(mut entry) = self.of.find_entry(hash, is_it) else { return true };
        let records = &mut entry.get_mut().records;
        let oldest = records.pop_front();
        if records.is_empty() {
            entry.remove();
        }
        if let Some(oldest) = oldest {
            self.bytes -= oldest.cost_bytes as usize;
            self.gone.push(oldest);
        }
        true
    }
}

fn hash_of(source: &str) -> u64 {
    xxh3_64(source.as_bytes())
}
