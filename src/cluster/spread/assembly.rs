//! Puts fragments together again.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::wire::PartHeader;
use crate::cluster::stats::Gauge;
use crate::limits::{RECORD_BYTES_CEILING, SPREAD_ASSEMBLY_BYTES_MAX};

/// Most fragments of a batch.
const FRAGMENTS_MAX: u32 = 8_192;
/// Fragments of a batch that made no progress for so long are dropped, in microseconds.
const ASSEMBLY_US_MAX: u64 = 10_000_000;

/// Fragments of a batch that is not whole yet.
#[derive(Debug)]
struct Assembly {
    /// By index.
    pieces: Vec<Option<Bytes>>,
    header: Option<PartHeader>,
    bytes: usize,
    touched_us: u64,
}

/// One of the pieces of a batch, as it came.
pub(super) struct Fragment {
    /// Number of the part on its link.
    pub number: u64,
    /// What came with it; it counts with the first.
    pub header: PartHeader,
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
    /// The piece.
    pub bytes: Bytes,
}

/// What the place of a piece costs, filled or not.
const PLACE_BYTES: usize = size_of::<Option<Bytes>>();

/// All unfinished ones, by link and number of the first fragment; bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct Assemblies {
    open: BTreeMap<(usize, u64), Assembly>,
    bytes: usize,
}

impl Assemblies {
    /// How full it is.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::new("bytes of fragments", self.bytes, SPREAD_ASSEMBLY_BYTES_MAX));
    }

    /// Drops those of a link that was closed, or whose peer has a new life.
    pub fn forget_link(&mut self, link: usize) {
        let keys: Vec<_> = self.open.range((link, 0)..=(link, u64::MAX)).map(|open| *open.0).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// How many are unfinished.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Drops those that made no progress for long.
    pub fn forget_old(&mut self, now_us: u64) {
        let is_old = |open: &Assembly| now_us.saturating_sub(open.touched_us) > ASSEMBLY_US_MAX;
        let keys: Vec<_> = self.open.iter().filter(|open| is_old(open.1)).map(|open| *open.0).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// Drops one.
    pub fn close(&mut self, key: (usize, u64)) {
        if let Some(open) = self.open.remove(&key) {
            self.bytes -= open.bytes + open.pieces.len() * PLACE_BYTES;
        }
    }

    /// Puts a fragment in. `None`: there is no room, or it cannot be one.
    pub fn put(&mut self, now_us: u64, link: usize, fragment: Fragment) -> Option<(usize, u64)> {
        let Fragment { number, header, index, count, bytes } = fragment;
        let len = bytes.len();
        let first = number.checked_sub(u64::from(index))?;
        if count > FRAGMENTS_MAX || index >= count || len == 0 {
            return None;
        }
        let key = (link, first);
        let places = if self.open.contains_key(&key) { 0 } else { count as usize * PLACE_BYTES };
        if self.bytes + len + places > SPREAD_ASSEMBLY_BYTES_MAX {
            return None;
        }
        self.bytes += places;
        let open = self.open.entry(key).or_insert_with(|| Assembly {
            pieces: Vec::new(),
            header: None,
            bytes: 0,
            touched_us: now_us,
        });
        if open.pieces.is_empty() {
            open.pieces.resize(count as usize, None);
        }
        let slot = open.pieces.get_mut(index as usize)?;
        if slot.is_none() && open.bytes + len <= RECORD_BYTES_CEILING + 4096 {
            *slot = Some(bytes);
            open.bytes += len;
            self.bytes += len;
        }
        open.touched_us = now_us;
        if index == 0 {
            open.header = Some(header);
        }
        Some(key)
    }

    /// The whole, if all is there.
    pub fn whole(&self, key: (usize, u64)) -> Option<(PartHeader, Bytes)> {
        let open = self.open.get(&key)?;
        let mut whole = BytesMut::with_capacity(open.bytes);
        for piece in &open.pieces {
            whole.extend_from_slice(piece.as_ref()?);
        }
        Some((open.header.clone()?, whole.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::Span;
    use super::*;

    fn fragment(number: u64, count: u32) -> Fragment {
        let header = PartHeader {
            span: Span::whole_after(0),
            zone: String::new(),
            without: Vec::new(),
            instead_of: None,
            hops: 1,
            age_us: 0,
            is_hurried: false,
            other: None,
            is_repair: false,
            counted: None,
        };
        Fragment { number, header, index: 0, count, bytes: Bytes::from_static(b"x") }
    }

    /// Fragments of one byte that announce thousands more set memory aside that no bound counted.
    #[test]
    fn announced_pieces_count_before_they_come() {
        let mut assemblies = Assemblies::default();
        let taken =
            (0..100_000).filter(|n| assemblies.put(0, 1, fragment(n * 10_000, FRAGMENTS_MAX)).is_some());
        let places = taken.count() * FRAGMENTS_MAX as usize * PLACE_BYTES;
        assert!(places > 0 && places <= SPREAD_ASSEMBLY_BYTES_MAX, "{places}");
        assemblies.forget_link(1);
        assert_eq!(assemblies.bytes, 0);
    }
}
