//! The header of a sealed message, which stands in the clear and is authenticated.
//!
//! Numbers are little-endian:
//!
//! | bytes | content |
//! | --- | --- |
//! | 0–1 | `aS`, or `as` if the header is short |
//! | 2 | version of what follows |
//! | 3 | kind: 0 for a datagram, else the purpose of a stream |
//! | 4–7 | id of the key |
//! | 8–15 | nonce of the sender's life: random bits, so that no two lives have the same |
//! | 16–21 | number of the message among those of the sender's life, from 1 |
//! | 22–25 | tag of the receiver's life: the low half of that life's nonce; 0: the sender does not know it |
//! | 26–31 | only in a long header: hash of the sender's name |
//! | 32–39 | only in a long header: boot number of the sender |
//!
//! A receiver that has opened a message of a life knows its name and boot number. So the header is short once the
//! receiver has shown that it knows the sender's life. That is shown by the tag in the receiver's own messages.
//!
//! Rejected: to leave out the nonce as well and to find the life by the address that a message comes from, since
//! that address is anybody's choice, and to look at several lives would let a stranger cause more work.

use xxhash_rust::xxh3::xxh3_64;

use super::{PREFIX_BYTES, SENDER_BYTES};
use crate::config::cluster_key::KeyId;
use crate::record::NodeName;

/// Bytes of the seal's field in a long header.
pub(super) const SEALED_FIELD_BYTES: usize = 24;
/// Bytes of a long header.
pub(super) const LONG_HEADER_BYTES: usize = PREFIX_BYTES + SEALED_FIELD_BYTES + SENDER_BYTES;
/// Bytes of a short header.
pub(super) const SHORT_HEADER_BYTES: usize = 26;
/// Greatest number of a message: what six bytes hold.
pub(super) const NUMBER_MAX: u64 = SIX_BYTES;

/// First two bytes of a message with a long header.
pub(super) const LONG_MARK: [u8; 2] = *b"aS";
/// First two bytes of a message with a short header.
pub(super) const SHORT_MARK: [u8; 2] = *b"as";

/// Returns whether a message is sealed with a key, as far as its first bytes tell.
pub(in crate::cluster) fn is_sealed(message: &[u8]) -> bool {
    message.starts_with(&LONG_MARK) || message.starts_with(&SHORT_MARK)
}

/// The bits of a hash that six bytes hold.
const SIX_BYTES: u64 = (1 << 48) - 1;

/// Hash of a node's name, as it stands in headers. It tells the nodes of one cluster apart. Whoever made up a name with
/// the hash of another one would need a key of the cluster, too.
pub(super) fn short_name_hash(name: &NodeName) -> u64 {
    xxh3_64(name.as_bytes()) & SIX_BYTES
}

/// One life of a node, as headers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LifeName {
    /// Random bits of the life.
    pub nonce: u64,
    /// Hash of the node's name, of six bytes.
    pub name: u64,
    /// Boot number of the life.
    pub boot: u64,
}

impl LifeName {
    /// The tag by which others mean this life.
    pub fn tag(&self) -> u32 {
        self.nonce as u32
    }
}

/// Whose life a header names: in full, or by its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SaidLife {
    /// The header is long.
    Full(LifeName),
    /// The header is short, and has the nonce alone.
    Nonce(u64),
}

/// The header of a sealed message after its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedHeader {
    /// The key that the message is sealed with.
    pub key: KeyId,
    /// Life of the sender.
    pub life: SaidLife,
    /// Number of the message in the sender's life.
    pub number: u64,
    /// Tag of the receiver's life; 0 if the sender does not know it.
    pub receiver: u32,
}

impl SealedHeader {
    /// Length of this header in bytes.
    pub fn bytes(&self) -> usize {
        match self.life {
            SaidLife::Full(_) => LONG_HEADER_BYTES,
            SaidLife::Nonce(_) => SHORT_HEADER_BYTES,
        }
    }

    /// Writes this header in front of the body of a message, which was begun with room for a long one. Version and
    /// kind stay as they are.
    pub fn write(&self, message: &mut Vec<u8>) {
        debug_assert!(message.len() >= LONG_HEADER_BYTES, "a message is begun with a long header");
        let (mark, nonce) = match self.life {
            SaidLife::Full(life) => (LONG_MARK, life.nonce),
            SaidLife::Nonce(nonce) => (SHORT_MARK, nonce),
        };
        if let SaidLife::Nonce(_) = self.life {
            let body_bytes = message.len() - LONG_HEADER_BYTES;
            message.copy_within(LONG_HEADER_BYTES.., SHORT_HEADER_BYTES);
            message.truncate(SHORT_HEADER_BYTES + body_bytes);
        }
        let Some(header) = message.first_chunk_mut::<SHORT_HEADER_BYTES>() else { return };
        header[..2].copy_from_slice(&mark);
        header[4..8].copy_from_slice(&self.key.0);
        header[8..16].copy_from_slice(&nonce.to_le_bytes());
        header[16..22].copy_from_slice(&self.number.to_le_bytes()[..6]);
        header[22..26].copy_from_slice(&self.receiver.to_le_bytes());
        if let SaidLife::Full(life) = self.life
            && let Some(header) = message.first_chunk_mut::<LONG_HEADER_BYTES>()
        {
            header[26..32].copy_from_slice(&life.name.to_le_bytes()[..6]);
            header[32..].copy_from_slice(&life.boot.to_le_bytes());
        }
    }

    /// Reads the header of a message; `None`: the message is not sealed, or shorter than its header.
    pub fn read(message: &[u8]) -> Option<SealedHeader> {
        let header = message.first_chunk::<SHORT_HEADER_BYTES>()?;
        let six = |bytes: &[u8]| {
            let mut eight = [0; 8];
            eight.iter_mut().zip(bytes.iter().take(6)).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(eight)
        };
        let eight = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let nonce = eight(&header[8..]);
        let life = match header.first_chunk() {
            Some(&SHORT_MARK) => SaidLife::Nonce(nonce),
            Some(&LONG_MARK) => {
                let header = message.first_chunk::<LONG_HEADER_BYTES>()?;
                SaidLife::Full(LifeName { nonce, name: six(&header[26..]), boot: eight(&header[32..]) })
            }
            _ => return None,
        };
        let key = KeyId(*header[4..].first_chunk()?);
        let receiver = u32::from_le_bytes(*header[22..].first_chunk()?);
        Some(SealedHeader { key, life, number: six(&header[16..]), receiver })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was_written(
            nonce: u64, name in 0..1u64 << 48, boot: u64, number in 0..=NUMBER_MAX, receiver: u32,
            key: [u8; 4], body in proptest::collection::vec(any::<u8>(), 0..50), is_long: bool,
        ) {
            let life = LifeName { nonce, name, boot };
            let life = if is_long { SaidLife::Full(life) } else { SaidLife::Nonce(nonce) };
            let header = SealedHeader { key: KeyId(key), life, number, receiver };
            let mut message = [&[0; LONG_HEADER_BYTES][..], &body].concat();
            message[2..4].copy_from_slice(&[1, 9]);
            header.write(&mut message);
            prop_assert_eq!(SealedHeader::read(&message), Some(header));
            prop_assert_eq!(&message[header.bytes()..], &body[..]);
            prop_assert_eq!(&message[2..4], &[1, 9]);
            prop_assert!(is_sealed(&message));
            for cut in 0..header.bytes() {
                prop_assert_eq!(SealedHeader::read(&message[..cut]), None);
            }
        }
    }
}
