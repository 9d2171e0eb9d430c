//! The seal that a node was configured for: a checksum, or the keys of its cluster.

use std::net::SocketAddr;

use bytes::Bytes;

use super::header::is_sealed;
use super::keyed::{KeyedSeal, SEALED_PREAMBLE_BYTES, SealKeys};
use super::stream::SealedStream;
use super::{
    CHECKED_HEADER_BYTES, CHECKSUM_BYTES, Checksum, KeyId, KeyMismatch, Keyring, PREFIX_BYTES, Seal,
    SealRefusal, StreamSeal, Unsealed,
};
use crate::cluster::members::KeyStatus;
use crate::record::NodeName;

/// The seal of one life of a node.
#[derive(Debug)]
pub enum ClusterSeal {
    /// The node has no key: its messages have a checksum, and sealed ones are refused.
    Plain(PlainSeal),
    /// The node has keys.
    Keyed(Box<KeyedSeal>),
}

/// The seal of a node without a key.
#[derive(Debug, Default)]
pub struct PlainSeal {
    mismatch: Option<KeyMismatch>,
}

/// The seal of one stream of such a node.
#[derive(Debug)]
pub enum ClusterStream {
    /// Bytes go through as they are.
    Plain,
    /// All bytes are sealed.
    Sealed(Box<SealedStream>),
}

impl ClusterSeal {
    /// The seal of the life `boot` of a node. Without keys its messages have a checksum.
    pub fn new(cluster_name: &str, name: &NodeName, boot: u64, keys: Option<SealKeys>) -> ClusterSeal {
        match keys {
            None => ClusterSeal::Plain(PlainSeal::default()),
            Some(keys) => ClusterSeal::Keyed(Box::new(KeyedSeal::new(cluster_name, name, boot, keys))),
        }
    }

    /// Takes other keys, if the node has keys.
    pub fn set_keys(&mut self, keyring: &Keyring) {
        if let ClusterSeal::Keyed(seal) = self {
            seal.set_keys(keyring);
        }
    }

    /// Takes the last message that was refused since its sender and this node have no key in common.
    pub fn take_mismatch(&mut self) -> Option<KeyMismatch> {
        match self {
            ClusterSeal::Plain(seal) => seal.mismatch.take(),
            ClusterSeal::Keyed(seal) => seal.take_mismatch(),
        }
    }
}

impl PlainSeal {
    fn verify<'a>(&mut self, from: SocketAddr, message: &'a [u8]) -> Result<Unsealed<'a>, SealRefusal> {
        if is_sealed(message) {
            let key = message.get(PREFIX_BYTES..).and_then(|rest| rest.first_chunk()).map(|id| KeyId(*id));
            self.mismatch = Some(KeyMismatch { from, key });
            return Err(SealRefusal::Key);
        }
        Checksum::verify(message)
    }
}

impl Seal for ClusterSeal {
    type Stream = ClusterStream;

    fn overhead_bytes(&self) -> usize {
        match self {
            ClusterSeal::Plain(_) => CHECKSUM_BYTES,
            ClusterSeal::Keyed(seal) => seal.overhead_bytes(),
        }
    }

    #[inline]
    fn field_bytes(&self) -> usize {
        match self {
            ClusterSeal::Plain(_) => CHECKSUM_BYTES,
            ClusterSeal::Keyed(seal) => seal.field_bytes(),
        }
    }

    fn answer_excess_bytes(&self) -> usize {
        match self {
            ClusterSeal::Plain(_) => 0,
            ClusterSeal::Keyed(seal) => seal.answer_excess_bytes(),
        }
    }

    fn set_boot(&mut self, boot: u64) {
        if let ClusterSeal::Keyed(seal) = self {
            seal.begin_life(boot);
        }
    }

    fn key_status(&self) -> Option<KeyStatus> {
        let ClusterSeal::Keyed(seal) = self else { return None };
        let opens = seal.key_ids();
        let seals = opens.first().copied().filter(|_| seal.is_sealing());
        Some(KeyStatus { seals, opens, phase: seal.phase() })
    }

    fn note_members(&mut self, members: &mut dyn Iterator<Item = (&NodeName, u64, bool)>) {
        if let ClusterSeal::Keyed(seal) = self {
            seal.note_members(members);
        }
    }

    fn is_current(&self, stream: &ClusterStream) -> bool {
        match (self, stream) {
            (ClusterSeal::Keyed(seal), ClusterStream::Sealed(stream)) => seal.is_current(stream),
            _ => true,
        }
    }

    fn lives_kept(&self) -> (usize, usize) {
        match self {
            ClusterSeal::Plain(_) => (0, 0),
            ClusterSeal::Keyed(seal) => seal.lives_kept(),
        }
    }

    #[inline]
    fn seal(&mut self, to: SocketAddr, message: &mut Vec<u8>) {
        match self {
            ClusterSeal::Plain(_) => Checksum::fill(message),
            ClusterSeal::Keyed(seal) => seal.seal(to, message),
        }
    }

    #[inline]
    fn open<'a>(&'a mut self, from: SocketAddr, message: &'a [u8]) -> Result<Unsealed<'a>, SealRefusal> {
        match self {
            ClusterSeal::Plain(seal) => seal.verify(from, message),
            ClusterSeal::Keyed(seal) => seal.open(from, message),
        }
    }

    fn connect(&mut self, preamble: &mut Vec<u8>) -> ClusterStream {
        match self {
            ClusterSeal::Plain(_) => {
                Checksum::fill(preamble);
                ClusterStream::Plain
            }
            ClusterSeal::Keyed(seal) => ClusterStream::of(seal.connect(preamble)),
        }
    }

    fn preamble_bytes(&self, prefix: [u8; PREFIX_BYTES]) -> usize {
        match self {
            ClusterSeal::Keyed(_) if is_sealed(&prefix) => SEALED_PREAMBLE_BYTES,
            // A sealed preamble is refused by its mark and the id of its key, which come first.
            _ => CHECKED_HEADER_BYTES,
        }
    }

    fn accept<'a>(
        &'a mut self,
        from: SocketAddr,
        preamble: &'a [u8],
    ) -> Result<(Unsealed<'a>, ClusterStream), SealRefusal> {
        match self {
            ClusterSeal::Plain(seal) => Ok((seal.verify(from, preamble)?, ClusterStream::Plain)),
            ClusterSeal::Keyed(seal) => {
                let (unsealed, stream) = seal.accept(from, preamble)?;
                Ok((unsealed, ClusterStream::of(stream)))
            }
        }
    }
}

impl ClusterStream {
    fn of(sealed: Option<SealedStream>) -> ClusterStream {
        sealed.map_or(ClusterStream::Plain, |stream| ClusterStream::Sealed(Box::new(stream)))
    }
}

impl StreamSeal for ClusterStream {
    fn is_ready(&self) -> bool {
        match self {
            ClusterStream::Plain => true,
            ClusterStream::Sealed(stream) => stream.is_ready(),
        }
    }

    fn take_answer(&mut self) -> Bytes {
        match self {
            ClusterStream::Plain => Bytes::new(),
            ClusterStream::Sealed(stream) => stream.take_answer(),
        }
    }

    fn seal(&mut self, bytes: Bytes) -> Bytes {
        match self {
            ClusterStream::Plain => bytes,
            ClusterStream::Sealed(stream) => stream.seal(bytes),
        }
    }

    fn open(&mut self, received: Bytes) -> Result<Bytes, SealRefusal> {
        match self {
            ClusterStream::Plain => Ok(received),
            ClusterStream::Sealed(stream) => stream.open(received),
        }
    }
}
