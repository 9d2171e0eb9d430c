//! Which room a stream is for.
//!
//! A stream that this node asked for is told by its number; one that was accepted, by its preamble.
//! Until the preamble is whole, its bytes are kept here: 24 of them, and for five seconds at most.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

use super::StreamId;
use super::purpose::Purpose;
use super::stats::Gauge;
use super::wire::{HEADER_BYTES, Wire, WireError};
use crate::record::Now;

/// A peer that connects says at once what for.
const PREAMBLE_US_MAX: u64 = 5_000_000;
/// Streams that have not said so yet.
const UNKNOWN_MAX: usize = 64;

#[derive(Debug)]
struct Unknown {
    from: SocketAddr,
    preamble: Vec<u8>,
    due_us: u64,
}

/// Accepted streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    unknown: BTreeMap<StreamId, Unknown>,
    accepted: BTreeMap<StreamId, Purpose>,
}

/// An accepted stream said what it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Introduced {
    pub purpose: Purpose,
    pub from: SocketAddr,
    /// What followed the preamble.
    pub rest: Bytes,
}

impl Streams {
    /// How full it is.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::new("streams without a purpose", self.unknown.len(), UNKNOWN_MAX));
    }

    /// A peer connected; `false`: too many have without saying what for.
    pub fn accepted(&mut self, now: Now, stream: StreamId, from: SocketAddr) -> bool {
        if self.unknown.len() >= UNKNOWN_MAX {
            return false;
        }
        let due_us = now.mono_us + PREAMBLE_US_MAX;
        self.unknown.insert(stream, Unknown { from, preamble: Vec::with_capacity(HEADER_BYTES), due_us });
        true
    }

    /// The room of a stream; `None`: not known yet, or no stream at all.
    pub fn purpose(&self, stream: StreamId) -> Option<Purpose> {
        Purpose::of_connected(stream).or_else(|| self.accepted.get(&stream).copied())
    }

    /// Bytes of a stream that has no room yet.
    pub fn received(
        &mut self,
        wire: &Wire,
        stream: StreamId,
        bytes: Bytes,
    ) -> Result<Option<Introduced>, WireError> {
        let Some(unknown) = self.unknown.get_mut(&stream) else { return Ok(None) };
        let missing = HEADER_BYTES - unknown.preamble.len();
        let taken = missing.min(bytes.len());
        unknown.preamble.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if unknown.preamble.len() < HEADER_BYTES {
            return Ok(None);
        }
        let Some(Unknown { from, preamble, .. }) = self.unknown.remove(&stream) else { return Ok(None) };
        let purpose = wire.open_preamble(&preamble)?;
        self.accepted.insert(stream, purpose);
        Ok(Some(Introduced { purpose, from, rest: bytes.slice(taken..) }))
    }

    /// The stream is over.
    pub fn closed(&mut self, stream: StreamId) {
        self.unknown.remove(&stream);
        self.accepted.remove(&stream);
    }

    /// When the next of those without a room is to be closed.
    pub fn due_us(&self) -> u64 {
        self.unknown.values().map(|unknown| unknown.due_us).min().unwrap_or(u64::MAX)
    }

    /// Forgets, and returns, those that took too long to say what they are for.
    pub fn take_overdue(&mut self, now: Now) -> Vec<StreamId> {
        let overdue = self.unknown.iter().filter(|(_, unknown)| unknown.due_us <= now.mono_us);
        let overdue: Vec<StreamId> = overdue.map(|(&stream, _)| stream).collect();
        for stream in &overdue {
            self.unknown.remove(stream);
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_cut_anywhere_names_the_room() {
        let wire = Wire::new("c", 1);
        let bytes = [&wire.preamble(Purpose::Reconcile)[..], b"rest"].concat();
        let from = SocketAddr::from(([10, 0, 0, 1], 9));
        for cut in 0..HEADER_BYTES {
            let mut streams = Streams::default();
            assert!(streams.accepted(Now::default(), StreamId(2), from));
            let first = streams.received(&wire, StreamId(2), Bytes::copy_from_slice(&bytes[..cut]));
            assert_eq!(first, Ok(None));
            let second = streams.received(&wire, StreamId(2), Bytes::copy_from_slice(&bytes[cut..]));
            let rest = Bytes::from_static(b"rest");
            assert_eq!(second, Ok(Some(Introduced { purpose: Purpose::Reconcile, from, rest })));
            assert_eq!(streams.purpose(StreamId(2)), Some(Purpose::Reconcile));
        }
    }

    #[test]
    fn silence_and_noise_are_not_kept() {
        let wire = Wire::new("c", 1);
        let mut streams = Streams::default();
        let from = SocketAddr::from(([10, 0, 0, 1], 9));
        for stream in 0..2 * UNKNOWN_MAX as u64 {
            assert_eq!(
                streams.accepted(Now::default(), StreamId(2 * stream), from),
                stream < UNKNOWN_MAX as u64
            );
        }
        assert!(streams.received(&wire, StreamId(0), Bytes::from_static(&[7; 40])).is_err());
        assert_eq!(streams.due_us(), PREAMBLE_US_MAX);
        assert_eq!(streams.take_overdue(Now::default().plus_us(PREAMBLE_US_MAX)).len(), UNKNOWN_MAX - 1);
        assert_eq!(streams.due_us(), u64::MAX);
    }
}
