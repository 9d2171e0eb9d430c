//! The seal of everything that nodes send each other: what protects a message, and what it costs.
//!
//! A sealed message looks like this:
//!
//! | bytes | content | in the clear |
//! | --- | --- | --- |
//! | [`PREFIX_BYTES`] | program, version, kind of the message | yes |
//! | [`Seal::field_bytes`] | the seal's own field: a checksum; with a cipher a key id and a counter | yes |
//! | [`SENDER_BYTES`] | cluster and life (boot number) of the sender | yes |
//! | any | body | depends on the seal |
//! | any | what the seal appends: with a cipher the authentication tag | depends on the seal |
//!
//! A datagram is one such message. A stream between nodes begins with one, the *preamble*; what follows on
//! it is a sequence of bytes in each direction, which a [`StreamSeal`] protects.
//!
//! All budgets of bytes for datagrams are computed from [`Seal::overhead_bytes`] (see [`body_bytes_max`]), so
//! a seal that adds more bytes leaves smaller bodies and nothing else needs to change.
//!
//! A node without keys seals by a [`Checksum`], which keeps accidents out, not attackers. With keys of its cluster it
//! is a [`KeyedSeal`] that protects all messages, by a cipher that authenticates them. [`ClusterSeal`] is the one of
//! the two that a node was configured for.

mod cluster_seal;
mod derived;
#[cfg(any(test, fuzzing))]
pub(in crate::cluster) mod fuzzing;
mod header;
mod keyed;
mod lives;
mod peers;
mod stream;
mod window;

use std::fmt::Debug;
use std::net::SocketAddr;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use self::cluster_seal::{ClusterSeal, ClusterStream};
pub use self::derived::LifeSecret;
pub(in crate::cluster) use self::header::is_sealed;
pub use self::keyed::{KeyedSeal, SealKeys};
pub use self::stream::SealedStream;
use super::members::KeyStatus;
pub(in crate::cluster) use crate::config::cluster_key::CLUSTER_KEYS_MAX;
pub use crate::config::cluster_key::{ClusterKey, KeyId, KeyPhase, Keyring};
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::record::NodeName;

/// Bytes before the seal's field: two of the program's mark, one of version, one of kind.
pub(super) const PREFIX_BYTES: usize = 4;
/// Bytes after the seal's field: hash of the cluster's name, and the boot number of the sender.
pub(super) const SENDER_BYTES: usize = 12;
/// Greatest [`Seal::overhead_bytes`] that any seal may have. With it the largest member and the largest
/// header of a part still fit a datagram, which is asserted where these are defined.
pub const OVERHEAD_BYTES_MAX: usize = 64;
/// Bytes that are left for the body of a datagram whatever its seal is.
pub(super) const BODY_BYTES_MIN: usize = body_bytes_max(OVERHEAD_BYTES_MAX);

/// Datagrams shorter than this, in bytes, are hashed in a small buffer.
const SHORT_BYTES: usize = 256;
/// Bytes of the checksum.
pub(super) const CHECKSUM_BYTES: usize = 8;
/// Bytes of the whole header of a message that is sealed by [`Checksum`].
const CHECKED_HEADER_BYTES: usize = PREFIX_BYTES + CHECKSUM_BYTES + SENDER_BYTES;

/// Hash of the name of a cluster, as it stands in plain messages.
pub(super) fn cluster_hash(name: &str) -> u32 {
    xxh3_64(name.as_bytes()) as u32
}

/// Most bytes of the body of a datagram whose seal adds `overhead_bytes`.
pub(super) const fn body_bytes_max(overhead_bytes: usize) -> usize {
    DATAGRAM_BYTES_MAX - PREFIX_BYTES - SENDER_BYTES - overhead_bytes
}

/// The reason why a message was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealRefusal {
    /// The message is of another program, of another cluster, or of a version that is not understood.
    #[error("from another program, cluster or generation")]
    Foreign,
    /// The message was truncated or changed on its way, or has no known form.
    #[error("truncated or corrupt")]
    Corrupt,
    /// The message is plain, and this node takes nothing plain.
    #[error("without a seal")]
    Plain,
    /// The message is sealed with a key that this node does not have.
    #[error("sealed with an unknown key")]
    Key,
    /// The message has come before, or is too old to tell; or it is for another life of this node or for another node;
    /// or its sender has begun a newer life.
    #[error("sent before, or for another life")]
    Replay,
    /// The message does not open with the key that it names: it was damaged or made up.
    #[error("damaged or forged")]
    Forged,
}

/// A message that was refused since its sender and this node have no key in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMismatch {
    /// The address that it came from.
    pub from: SocketAddr,
    /// The key that it is sealed with; `None`: it is plain.
    pub key: Option<KeyId>,
}

/// A message whose seal was verified and taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealed<'a> {
    /// Cluster and boot number, as the sender wrote them.
    pub sender: [u8; SENDER_BYTES],
    /// The body of the message, as its sender wrote it.
    pub body: &'a [u8],
    /// Whether the sender knows this life of this node, as far as the seal can tell. If not, the message may have been
    /// recorded earlier or elsewhere, and does no more than what a stranger may do.
    pub is_fresh: bool,
}

/// Protection of all messages of one life of a node. A machine has one seal, which keeps whatever state it
/// needs: keys, counters, what it has seen of each sender's life.
pub trait Seal: Debug + Sized {
    /// The protection of one stream after its preamble.
    type Stream: StreamSeal;

    /// Most bytes that the seal adds to a message: its field, and what it appends. It must not change
    /// while the machine lives, since parts of records are cut to what it leaves, and is at most
    /// [`OVERHEAD_BYTES_MAX`].
    fn overhead_bytes(&self) -> usize;

    /// Bytes of the seal's field in the messages that it seals now.
    fn field_bytes(&self) -> usize;

    /// By how many bytes the seal of an answer may be larger than the seal of the question, because the one who
    /// answers has gone over to another seal already.
    fn answer_excess_bytes(&self) -> usize {
        0
    }

    /// Takes another boot number of this node, which stands in its messages from now on.
    fn set_boot(&mut self, _boot: u64) {}

    /// The keys of this node, as it tells other members; `None`: it has none.
    fn key_status(&self) -> Option<KeyStatus> {
        None
    }

    /// Takes all members with their boot numbers, and whether each has answered at its own address. Called when they
    /// have changed.
    fn note_members(&mut self, _members: &mut dyn Iterator<Item = (&NodeName, u64, bool)>) {}

    /// Returns whether a stream may go on. It may not once the node has lost the key with which the stream began.
    fn is_current(&self, _stream: &Self::Stream) -> bool {
        true
    }

    /// Number of other nodes' lives that are kept, and its bound.
    fn lives_kept(&self) -> (usize, usize) {
        (0, 0)
    }

    /// Seals a message to `to`: it has all of its parts but for the seal's field, which is zero, and for
    /// what the seal appends.
    fn seal(&mut self, to: SocketAddr, message: &mut Vec<u8>);

    /// Verifies a message from `from` and takes the seal off. Nothing of the message may be believed before
    /// that.
    fn open<'a>(&'a mut self, from: SocketAddr, message: &'a [u8]) -> Result<Unsealed<'a>, SealRefusal>;

    /// Seals the preamble of a stream that this node opens, and begins the stream's seal. The preamble has
    /// all parts of a message and an empty body, to which the seal may add what it must tell the peer.
    fn connect(&mut self, preamble: &mut Vec<u8>) -> Self::Stream;

    /// Length of the preamble that begins with `prefix`, in bytes.
    fn preamble_bytes(&self, prefix: [u8; PREFIX_BYTES]) -> usize;

    /// Verifies the preamble of a stream that a peer at `from` opened, and begins the stream's seal.
    fn accept<'a>(
        &'a mut self,
        from: SocketAddr,
        preamble: &'a [u8],
    ) -> Result<(Unsealed<'a>, Self::Stream), SealRefusal>;
}

/// Protection of the bytes of one stream after its preamble, each direction by itself.
pub trait StreamSeal: Debug {
    /// Returns whether bytes may be sealed: where both sides contribute to a key, the side that connected has
    /// to wait for the other's contribution.
    fn is_ready(&self) -> bool;

    /// Takes what this side must write before anything else: its contribution to the key. Empty if there
    /// is nothing to write.
    fn take_answer(&mut self) -> Bytes;

    /// Seals bytes that follow those sealed before.
    fn seal(&mut self, bytes: Bytes) -> Bytes;

    /// Takes in bytes as they arrived, cut anywhere, and returns what can be read so far, which may be
    /// nothing.
    fn open(&mut self, received: Bytes) -> Result<Bytes, SealRefusal>;
}

/// The seal that is a checksum: XXH3-64 over all bytes of a message but the checksum itself. Streams have it
/// on their preamble alone; TCP and the checksums of records protect what follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum;

impl Checksum {
    /// Writes the checksum of a message into the seal's field.
    #[inline]
    pub fn fill(message: &mut [u8]) {
        let checksum = checksum_of(message);
        if let Some(field) = message.get_mut(PREFIX_BYTES..PREFIX_BYTES + CHECKSUM_BYTES) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
    }

    fn verify(message: &[u8]) -> Result<Unsealed<'_>, SealRefusal> {
        let (_prefix, rest) = message.split_first_chunk::<PREFIX_BYTES>().ok_or(SealRefusal::Corrupt)?;
        let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(SealRefusal::Corrupt)?;
        let (sender, body) = rest.split_first_chunk::<SENDER_BYTES>().ok_or(SealRefusal::Corrupt)?;
        if u64::from_le_bytes(*checksum) != checksum_of(message) {
            return Err(SealRefusal::Corrupt);
        }
        Ok(Unsealed { sender: *sender, body, is_fresh: true })
    }
}

impl Seal for Checksum {
    type Stream = Unprotected;

    fn overhead_bytes(&self) -> usize {
        CHECKSUM_BYTES
    }

    fn field_bytes(&self) -> usize {
        CHECKSUM_BYTES
    }

    fn seal(&mut self, _to: SocketAddr, message: &mut Vec<u8>) {
        Checksum::fill(message);
    }

    fn open<'a>(&'a mut self, _from: SocketAddr, message: &'a [u8]) -> Result<Unsealed<'a>, SealRefusal> {
        Checksum::verify(message)
    }

    fn connect(&mut self, preamble: &mut Vec<u8>) -> Unprotected {
        Checksum::fill(preamble);
        Unprotected
    }

    fn preamble_bytes(&self, _prefix: [u8; PREFIX_BYTES]) -> usize {
        CHECKED_HEADER_BYTES
    }

    fn accept<'a>(
        &'a mut self,
        _from: SocketAddr,
        preamble: &'a [u8],
    ) -> Result<(Unsealed<'a>, Unprotected), SealRefusal> {
        Ok((Checksum::verify(preamble)?, Unprotected))
    }
}

/// The stream's part of [`Checksum`]: bytes go through as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unprotected;

impl StreamSeal for Unprotected {
    fn is_ready(&self) -> bool {
        true
    }

    fn take_answer(&mut self) -> Bytes {
        Bytes::new()
    }

    fn seal(&mut self, bytes: Bytes) -> Bytes {
        bytes
    }

    fn open(&mut self, received: Bytes) -> Result<Bytes, SealRefusal> {
        Ok(received)
    }
}

/// XXH3-64 of a message without its checksum: the prefix, and everything after the seal's field. The two are
/// copied side by side first, because hashing few bytes in pieces costs three times as much; of a large datagram, copying
/// costs more.
#[inline]
fn checksum_of(message: &[u8]) -> u64 {
    let prefix = message.get(..PREFIX_BYTES).unwrap_or_default();
    let rest = message.get(PREFIX_BYTES + CHECKSUM_BYTES..).unwrap_or_default();
    match prefix.len() + rest.len() {
        // Nearly all messages are this short: one record, receipts, probes.
        0..SHORT_BYTES => joined_checksum(&mut [0; SHORT_BYTES], prefix, rest),
        DATAGRAM_BYTES_MAX.. => {
            let mut hasher = Xxh3::new();
            hasher.update(prefix);
            hasher.update(rest);
            hasher.digest()
        }
        _ => joined_checksum(&mut [0; DATAGRAM_BYTES_MAX], prefix, rest),
    }
}

#[inline]
fn joined_checksum(joined: &mut [u8], prefix: &[u8], rest: &[u8]) -> u64 {
    match joined.get_mut(..prefix.len() + rest.len()) {
        Some(joined) => {
            let (first, second) = joined.split_at_mut(prefix.len());
            first.copy_from_slice(prefix);
            second.copy_from_slice(rest);
            xxh3_64(joined)
        }
        // The message is longer than any datagram.
        None => xxh3_64(&[prefix, rest].concat()),
    }
}

#[cfg(test)]
mod tests;
