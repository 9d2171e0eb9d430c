//! Joins the fragments of batches that did not fit into one datagram.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::link::PartId;
use super::wire::PartHeader;
use crate::cluster::stats::QueueGauge;
use crate::limits::{RECORD_BYTES_CEILING, SPREAD_ASSEMBLY_BYTES_MAX};

/// Most fragments that one batch may have.
const FRAGMENTS_MAX: u32 = 8_192;
/// The fragments of a batch are dropped if no further one came for this long, in microseconds.
const ASSEMBLY_US_MAX: u64 = 10_000_000;

/// The fragments of one batch that is not complete.
#[derive(Debug)]
struct Assembly {
    /// The pieces by their index; `None` where one is missing.
    pieces: Vec<Option<Bytes>>,
    /// The header, which comes with the first piece.
    header: Option<PartHeader>,
    /// Number of bytes in the pieces that came.
    bytes: usize,
    /// Time at which the newest fragment of the batch arrived, in microseconds.
    touched_us: u64,
}

/// One piece of a batch, as it came.
pub(super) struct Fragment {
    /// Number of the fragment on its link: those of one batch have consecutive numbers.
    pub number: u64,
    /// The header that came with the fragment. Only the header of the first fragment of a batch counts.
    pub header: PartHeader,
    /// Index of this piece, from 0.
    pub index: u32,
    /// Number of pieces of the batch.
    pub count: u32,
    /// The bytes of this piece.
    pub bytes: Bytes,
}

/// Memory that is set aside for a piece before it comes, in bytes.
const PLACE_BYTES: usize = size_of::<Option<Bytes>>();

/// All batches that come in fragments and are not complete. Bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct Assemblies {
    /// The batches by their first fragments.
    open: BTreeMap<PartId, Assembly>,
    /// Bytes of all pieces that came, and of the memory that is set aside for pieces.
    bytes: usize,
}

impl Assemblies {
    /// Calls `visit` with the number of bytes of fragments that are kept, and its bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("bytes of fragments", self.bytes, SPREAD_ASSEMBLY_BYTES_MAX));
    }

    /// Drops the fragments of a link: it was closed, or its peer restarted.
    pub fn forget_link(&mut self, link: usize) {
        let (first, last) = (PartId { link, number: 0 }, PartId { link, number: u64::MAX });
        let keys: Vec<_> = self.open.range(first..=last).map(|open| *open.0).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// Number of batches that are not complete.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Drops the batches of which no fragment came for long.
    pub fn forget_old(&mut self, now_us: u64) {
        let is_old = |open: &Assembly| now_us.saturating_sub(open.touched_us) > ASSEMBLY_US_MAX;
        let keys: Vec<_> = self.open.iter().filter(|open| is_old(open.1)).map(|open| *open.0).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// Drops the fragments of one batch.
    pub fn close(&mut self, key: PartId) {
        if let Some(open) = self.open.remove(&key) {
            self.bytes -= open.bytes + open.pieces.len() * PLACE_BYTES;
        }
        debug_assert!(!self.open.is_empty() || self.bytes == 0, "{} bytes of no fragments", self.bytes);
    }

    /// Keeps a fragment; returns the key of its batch. `None`: there is no room, or no node would send it.
    pub fn put(&mut self, now_us: u64, link: usize, fragment: Fragment) -> Option<PartId> {
        let Fragment { number, header, index, count, bytes } = fragment;
        let len = bytes.len();
        let first = number.checked_sub(u64::from(index))?;
        if count > FRAGMENTS_MAX || index >= count || len == 0 {
            return None;
        }
        let key = PartId { link, number: first };
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
        debug_assert!(self.bytes <= SPREAD_ASSEMBLY_BYTES_MAX, "{} bytes", self.bytes);
        open.touched_us = now_us;
        if index == 0 {
            open.header = Some(header);
        }
        Some(key)
    }

    /// The header and the bytes of a batch, if all its pieces are there.
    pub fn whole(&self, key: PartId) -> Option<(PartHeader, Bytes)> {
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
    use super::*;

    fn fragment(number: u64, count: u32) -> Fragment {
        let header = PartHeader { hops: 1, ..PartHeader::default() };
        Fragment { number, header, index: 0, count, bytes: Bytes::from_static(b"x") }
    }

    /// Fragments of one byte that announced thousands more had memory set aside that no bound counted.
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
