//! Routes every stream to the part of the machine that it is for, and keeps the seal of every stream.
//!
//! The purpose of a stream that this node asked for follows from its number, that of a stream that a peer
//! opened from its preamble. Until the preamble is complete, its bytes are kept here. The preamble also tells
//! the life of the peer, by which the machine decides whether the peer is a member. Until then, and for good
//! if it is none, the stream is one of a stranger (see [`super::strangers`]).
//!
//! The other parts of the machine neither see preambles nor seals: they are told that a stream is open or
//! accepted when bytes can be exchanged, and all that they read and write goes through the stream's seal.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

use super::purpose::Purpose;
use super::seal::{Seal, SealRefusal, StreamSeal};
use super::stats::QueueGauge;
use super::strangers::StrangerStreams;
use super::streams::StreamId;
use super::wire::Wire;
use crate::record::Now;

/// A stream whose preamble is not complete.
#[derive(Debug)]
struct Unknown {
    from: SocketAddr,
    preamble: Vec<u8>,
}

/// The peer that opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamPeer {
    /// Address of the peer's end. The port is not that of the peer's gossip address.
    pub address: SocketAddr,
    /// Boot number in the preamble.
    pub boot: u64,
}

/// A stream whose purpose is known.
#[derive(Debug)]
struct Routed<T> {
    purpose: Purpose,
    seal: T,
    /// Whether the part of the machine that it is for was told that it is open.
    is_told: bool,
}

/// All streams of a machine.
#[derive(Debug)]
pub(super) struct StreamRouting<S: Seal> {
    unknown: BTreeMap<StreamId, Unknown>,
    routed: BTreeMap<StreamId, Routed<S::Stream>>,
    strangers: StrangerStreams,
}

/// The consequences of an event of a stream: the bytes that are to be written at once, and then the events
/// that the part of the machine that the stream is for is to be handed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamStep {
    /// Purpose of the stream.
    pub purpose: Purpose,
    /// Bytes that the seal wants written, sealed already; empty if there are none.
    pub answer: Bytes,
    /// The peer, if it opened the stream and has just said what the stream is for.
    pub accepted_from: Option<StreamPeer>,
    /// Whether the stream, which this node asked for, has just become open.
    pub is_opened: bool,
    /// Bytes that can be read; empty if there are none.
    pub received: Bytes,
}

impl StreamStep {
    fn new(purpose: Purpose) -> StreamStep {
        StreamStep {
            purpose,
            answer: Bytes::new(),
            accepted_from: None,
            is_opened: false,
            received: Bytes::new(),
        }
    }
}

impl<S: Seal> StreamRouting<S> {
    /// The routing of a machine that has no streams.
    pub fn new() -> StreamRouting<S> {
        StreamRouting {
            unknown: BTreeMap::new(),
            routed: BTreeMap::new(),
            strangers: StrangerStreams::default(),
        }
    }

    /// Calls `visit` with the number of streams of strangers, and its bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        self.strangers.visit_gauges(visit);
    }

    /// Notes a stream that a peer opened. Returns the stream of a stranger that is to be closed, because there
    /// are too many.
    pub fn accepted(&mut self, now: Now, stream: StreamId, from: SocketAddr) -> Option<StreamId> {
        self.unknown.insert(stream, Unknown { from, preamble: Vec::new() });
        self.strangers.admit(now.mono_us, stream, from.ip())
    }

    /// Notes that the peer that opened a stream is a member.
    pub fn trust(&mut self, stream: StreamId) {
        self.strangers.remove(stream);
    }

    /// Notes that the first whole frame of a stranger has come.
    pub fn introduce(&mut self, stream: StreamId) {
        self.strangers.introduce(stream);
    }

    /// Begins a stream that this node asked for and that is open now.
    pub fn opened(&mut self, wire: &mut Wire<S>, stream: StreamId) -> Option<StreamStep> {
        let purpose = Purpose::of_connected(stream)?;
        let (preamble, seal) = wire.connect(purpose);
        let is_ready = seal.is_ready();
        self.routed.insert(stream, Routed { purpose, seal, is_told: is_ready });
        Some(StreamStep { answer: preamble, is_opened: is_ready, ..StreamStep::new(purpose) })
    }

    /// Returns the purpose of a stream; `None` if it is not known yet, or if there is no such stream.
    pub fn purpose(&self, stream: StreamId) -> Option<Purpose> {
        Purpose::of_connected(stream).or_else(|| self.routed.get(&stream).map(|routed| routed.purpose))
    }

    /// Takes in bytes of a stream. `None`: nothing follows from them so far.
    pub fn received(
        &mut self,
        now: Now,
        wire: &mut Wire<S>,
        stream: StreamId,
        bytes: Bytes,
    ) -> Result<Option<StreamStep>, SealRefusal> {
        self.strangers.hear(now.mono_us, stream);
        if let Some(routed) = self.routed.get_mut(&stream) {
            return routed.receive(bytes).map(Some);
        }
        let Some(unknown) = self.unknown.get_mut(&stream) else { return Ok(None) };
        let Some(rest) = unknown.receive(wire, bytes) else { return Ok(None) };
        let Some(Unknown { from, preamble, .. }) = self.unknown.remove(&stream) else { return Ok(None) };
        let (purpose, boot, seal) = wire.accept(from, &preamble)?;
        let mut routed = Routed { purpose, seal, is_told: true };
        let step = if rest.is_empty() { StreamStep::new(purpose) } else { routed.receive(rest)? };
        let answer = [routed.seal.take_answer(), step.answer].concat().into();
        self.routed.insert(stream, routed);
        Ok(Some(StreamStep { answer, accepted_from: Some(StreamPeer { address: from, boot }), ..step }))
    }

    /// Returns the purpose of a stream, if the part of the machine that it is for was told that it is open.
    /// `None` also while the seal still waits for the peer's contribution.
    pub fn told(&self, stream: StreamId) -> Option<Purpose> {
        self.routed.get(&stream).filter(|routed| routed.is_told).map(|routed| routed.purpose)
    }

    /// Seals bytes that are to be written on a stream. `None`: the stream has ended.
    pub fn seal(&mut self, stream: StreamId, bytes: Bytes) -> Option<Bytes> {
        self.routed.get_mut(&stream).map(|routed| routed.seal.seal(bytes))
    }

    /// Forgets a stream that has ended.
    pub fn closed(&mut self, stream: StreamId) {
        self.unknown.remove(&stream);
        self.routed.remove(&stream);
        self.strangers.remove(stream);
    }

    /// Returns the streams that began with a key which this node no longer has.
    pub fn outdated(&self, seal: &S) -> Vec<StreamId> {
        let outdated = self.routed.iter().filter(|(_, routed)| !seal.is_current(&routed.seal));
        outdated.map(|(&stream, _)| stream).collect()
    }

    /// When the next stream of a stranger is to be closed, on the monotonic clock in microseconds.
    pub fn due_us(&self) -> u64 {
        self.strangers.due_us()
    }

    /// Returns the streams that are to be closed, because strangers took too long to introduce themselves.
    pub fn take_overdue(&mut self, now: Now) -> Vec<StreamId> {
        self.strangers.take_overdue(now.mono_us)
    }
}

impl Unknown {
    /// Takes in bytes of the preamble. Once that is whole, returns the bytes that follow it.
    fn receive<S: Seal>(&mut self, wire: &Wire<S>, mut bytes: Bytes) -> Option<Bytes> {
        loop {
            let needed = wire.preamble_bytes(&self.preamble);
            let missing = needed.saturating_sub(self.preamble.len());
            if missing == 0 {
                return Some(bytes);
            }
            if bytes.is_empty() {
                return None;
            }
            self.preamble.extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
        }
    }
}

impl<T: StreamSeal> Routed<T> {
    /// Takes in bytes of the stream, and returns what follows from them.
    fn receive(&mut self, bytes: Bytes) -> Result<StreamStep, SealRefusal> {
        let received = self.seal.open(bytes)?;
        let is_opened = !self.is_told && self.seal.is_ready();
        self.is_told |= is_opened;
        Ok(StreamStep {
            answer: self.seal.take_answer(),
            is_opened,
            received,
            ..StreamStep::new(self.purpose)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::Checksum;
    use super::super::strangers::{INTRODUCTION_US_MAX, STREAMS_PER_HOST_MAX};
    use super::*;

    fn wire() -> Wire<Checksum> {
        Wire::new("c", 1, Checksum)
    }

    #[test]
    fn a_preamble_cut_anywhere_names_the_room() {
        let mut wire = wire();
        let (preamble, _) = wire.connect(Purpose::Reconcile);
        let bytes = [&preamble[..], b"rest"].concat();
        let from = SocketAddr::from(([10, 0, 0, 1], 9));
        for cut in 0..preamble.len() {
            let mut streams = StreamRouting::new();
            assert_eq!(streams.accepted(Now::default(), StreamId(2), from), None);
            let first = streams.received(
                Now::default(),
                &mut wire,
                StreamId(2),
                Bytes::copy_from_slice(&bytes[..cut]),
            );
            assert_eq!(first, Ok(None));
            let second = streams.received(
                Now::default(),
                &mut wire,
                StreamId(2),
                Bytes::copy_from_slice(&bytes[cut..]),
            );
            let received = Bytes::from_static(b"rest");
            let accepted_from = Some(StreamPeer { address: from, boot: 1 });
            let step = StreamStep { accepted_from, received, ..StreamStep::new(Purpose::Reconcile) };
            assert_eq!(second, Ok(Some(step)));
            assert_eq!(streams.purpose(StreamId(2)), Some(Purpose::Reconcile));
        }
    }

    #[test]
    fn silence_and_noise_are_not_kept() {
        let mut wire = wire();
        let mut streams = StreamRouting::new();
        let from = SocketAddr::from(([10, 0, 0, 1], 9));
        let now = Now::default();
        for stream in 0..2 * STREAMS_PER_HOST_MAX as u64 {
            if let Some(silent) = streams.accepted(now, StreamId(2 * stream), from) {
                assert_eq!(silent, StreamId(2 * (stream - STREAMS_PER_HOST_MAX as u64)));
                streams.closed(silent);
            }
        }
        let last = StreamId(4 * STREAMS_PER_HOST_MAX as u64 - 2);
        assert!(streams.received(now, &mut wire, last, Bytes::from_static(&[7; 40])).is_err());
        streams.closed(last);
        assert_eq!(streams.due_us(), INTRODUCTION_US_MAX);
        let overdue = streams.take_overdue(now.plus_us(INTRODUCTION_US_MAX));
        assert_eq!((overdue.len(), streams.due_us()), (STREAMS_PER_HOST_MAX - 1, u64::MAX));
        overdue.into_iter().for_each(|stream| streams.closed(stream));
        assert!(streams.unknown.is_empty() && streams.routed.is_empty());
    }

    #[test]
    fn nothing_is_written_on_a_stream_that_is_over() {
        let mut wire = wire();
        let mut streams = StreamRouting::new();
        let step = streams.opened(&mut wire, StreamId(1)).expect("a stream of membership");
        assert!(step.is_opened && !step.answer.is_empty());
        assert_eq!(streams.seal(StreamId(1), Bytes::from_static(b"x")), Some(Bytes::from_static(b"x")));
        streams.closed(StreamId(1));
        assert_eq!(streams.seal(StreamId(1), Bytes::from_static(b"x")), None);
    }
}
