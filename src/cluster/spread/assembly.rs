//! Puts fragments together again.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::wire::Header;
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
    header: Option<Header>,
    bytes: usize,
    touched_us: u64,
}

/// One of the pieces of a batch, as it came.
pub(super) struct Fragment {
    /// Number of the part on its link.
    pub number: u64,
    /// What came with it; it counts with the first.
    pub header: Header,
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
    /// The piece.
    pub bytes: Bytes,
}

/// All unfinished ones, by link and number of the first fragment; bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct Assemblies {
    open: BTreeMap<(usize, u64), Assembly>,
    bytes: usize,
}

impl Assemblies {
    /// Drops those of a link that was closed, or whose peer has a new life.
    pub fn forget_link(&mut self, link: usize) {
        let keys: Vec<_> = self.open.range((link, 0)..=(link, u64::MAX)).map(|open| *open.0).collect();
        keys.into_iter().for_each(|key| self.close(key));
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
            self.bytes -= open.bytes;
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
        if self.bytes + len > SPREAD_ASSEMBLY_BYTES_MAX {
            return None;
        }
        let key = (link, first);
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
    pub fn whole(&self, key: (usize, u64)) -> Option<(Header, Bytes)> {
        let open = self.open.get(&key)?;
        let mut whole = BytesMut::with_capacity(open.bytes);
        for piece in &open.pieces {
            whole.extend_from_slice(piece.as_ref()?);
        }
        Some((open.header.clone()?, whole.freeze()))
    }
}
