//! The fixed header that every datagram, and every stream between nodes, opens with.
//!
//! It lets a node tell four things apart before it decodes a byte of protobuf: noise of other
//! programs, other clusters, another generation of this program, and flipped bits. 24 bytes,
//! little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0–1 | `aN` |
//! | 2 | version of what follows |
//! | 3 | kind: 0 a datagram, else the [`Purpose`] of a stream |
//! | 4–11 | XXH3-64 of all other bytes |
//! | 12–15 | hash of the cluster's name |
//! | 16–23 | boot number of the sender |
//!
//! After it comes one protobuf `Datagram`, or on a stream the frames of the room it is for. Versions
//! that are neighbours understand each other: the header stays as it is, and a body that the older
//! does not know is skipped. So a cluster is upgraded one version at a time.
//!
//! A checksum is no authentication: it keeps accidents out, not attackers.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::purpose::Purpose;
use super::reconcile::Compare;
use super::spread::Packet;
use super::swim::message::{Message, Update};
use super::swim::wire as members;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::proto::gossip as proto;

/// Version of the header and of what follows it.
pub const VERSION: u8 = 1;
/// Length of the header.
pub const HEADER_BYTES: usize = 24;
/// Most bytes of protobuf in a datagram.
pub const BODY_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES;

const MAGIC: [u8; 2] = *b"aN";
const KIND_DATAGRAM: u8 = 0;

/// Why bytes were ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another program, another cluster, or a version too far away.
    #[error("from another program, cluster or generation")]
    Foreign,
    /// Cut off, or changed on the way, or of no known form.
    #[error("truncated or corrupt")]
    Corrupt,
}

/// What a datagram says.
// Most are packets, and live for a call: boxed, each would cost an allocation for a copy of 300 bytes.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// Membership, and what is to be known of members.
    Members(Message, Vec<Update>),
    /// Records on their way.
    Spread(Packet),
    /// Whether two maps are equal.
    Compare(Compare),
    /// Something of the next version: skipped, not an error.
    Unknown,
}

/// Heads as (hash of the line, head), which ride on what a datagram says.
pub(super) type Digest = Vec<(u64, u64)>;

/// Wraps and unwraps what one node of one cluster says.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    cluster: u32,
    boot: u64,
}

impl Wire {
    /// For this life of a node of the cluster of this name.
    pub fn new(cluster_name: &str, boot: u64) -> Wire {
        Wire { cluster: xxh3_64(cluster_name.as_bytes()) as u32, boot }
    }

    /// A whole datagram.
    pub(super) fn datagram(&self, body: Body, heads: &[(u64, u64)]) -> Bytes {
        let mut message = match body {
            Body::Members(message, updates) => members::to_proto(&message, &updates),
            Body::Spread(packet) => wrap(proto::datagram::Body::Spread(packet.into_proto())),
            Body::Compare(compare) => wrap(proto::datagram::Body::Compare(compare.into_proto())),
            Body::Unknown => proto::Datagram::default(),
        };
        message.heads = heads.iter().map(|&(line, seq)| proto::Head { line, seq }).collect();
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + message.encoded_len());
        self.put_header(&mut bytes, KIND_DATAGRAM);
        // A `BytesMut` grows: encoding into it cannot fail.
        let _ = message.encode(&mut bytes);
        seal(&mut bytes);
        bytes.freeze()
    }

    /// What a datagram says, the heads that ride on it, and its sender's boot number.
    pub(super) fn open(&self, datagram: &[u8]) -> Result<(u64, Body, Digest), WireError> {
        let (kind, boot, body) = self.open_header(datagram, datagram)?;
        if kind != KIND_DATAGRAM || datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(WireError::Corrupt);
        }
        // From a slice, so that byte fields are copied: a batch that is kept must not hold all of its
        // datagram.
        let message = proto::Datagram::decode(body).map_err(|_| WireError::Corrupt)?;
        let heads = message.heads.iter().map(|head| (head.line, head.seq)).collect();
        let body = match message.body {
            None => Body::Unknown,
            Some(proto::datagram::Body::Spread(spread)) => Body::Spread(Packet::from_proto(spread)),
            Some(proto::datagram::Body::Compare(compare)) => Body::Compare(Compare::from_proto(compare)),
            Some(body) => {
                let updates = message.updates.into_iter().map(members::update_from_proto);
                let updates = updates.collect::<Option<_>>().ok_or(WireError::Corrupt)?;
                Body::Members(members::message_from_proto(body).ok_or(WireError::Corrupt)?, updates)
            }
        };
        Ok((boot, body, heads))
    }

    /// What the side that connects writes first.
    pub fn preamble(&self, purpose: Purpose) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
        self.put_header(&mut bytes, purpose as u8);
        seal(&mut bytes);
        bytes.freeze()
    }

    /// What a stream is for, by its first [`HEADER_BYTES`].
    pub fn open_preamble(&self, preamble: &[u8]) -> Result<Purpose, WireError> {
        let header = preamble.get(..HEADER_BYTES).ok_or(WireError::Corrupt)?;
        let (kind, _boot, _rest) = self.open_header(preamble, header)?;
        Purpose::from_kind(kind).ok_or(WireError::Corrupt)
    }

    fn put_header(&self, bytes: &mut BytesMut, kind: u8) {
        bytes.put_slice(&MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_u64_le(0);
        bytes.put_u32_le(self.cluster);
        bytes.put_u64_le(self.boot);
    }

    /// Kind, boot and what follows the header; `sealed` is what the checksum covers.
    fn open_header<'a>(&self, bytes: &'a [u8], sealed: &[u8]) -> Result<(u8, u64, &'a [u8]), WireError> {
        let (magic, rest) = bytes.split_first_chunk::<2>().ok_or(WireError::Corrupt)?;
        if *magic != MAGIC {
            return Err(WireError::Foreign);
        }
        let (&[version, kind], rest) = rest.split_first_chunk::<2>().ok_or(WireError::Corrupt)?;
        let (checksum, rest) = rest.split_first_chunk::<8>().ok_or(WireError::Corrupt)?;
        let (cluster, rest) = rest.split_first_chunk::<4>().ok_or(WireError::Corrupt)?;
        let (boot, rest) = rest.split_first_chunk::<8>().ok_or(WireError::Corrupt)?;
        if u64::from_le_bytes(*checksum) != checksum_of(sealed) {
            return Err(WireError::Corrupt);
        }
        if version.abs_diff(VERSION) > 1 || u32::from_le_bytes(*cluster) != self.cluster {
            return Err(WireError::Foreign);
        }
        Ok((kind, u64::from_le_bytes(*boot), rest))
    }
}

/// Over everything but the checksum itself.
fn checksum_of(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(bytes.get(..4).unwrap_or_default());
    hash.update(bytes.get(12..).unwrap_or_default());
    hash.digest()
}

fn wrap(body: proto::datagram::Body) -> proto::Datagram {
    proto::Datagram { body: Some(body), ..Default::default() }
}

/// Writes the checksum of a datagram, or of a stream's header, into its place.
pub fn seal(bytes: &mut [u8]) {
    let checksum = checksum_of(bytes);
    if let Some(place) = bytes.get_mut(4..12) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> Body {
        Body::Members(Message::Nack { sequence: 7 }, Vec::new())
    }

    fn datagram(wire: &Wire) -> Bytes {
        wire.datagram(body(), &[(3, 4)])
    }

    #[test]
    fn comes_back_as_it_went() {
        let (ours, theirs) = (Wire::new("c", 5), Wire::new("c", 9));
        assert_eq!(theirs.open(&datagram(&ours)), Ok((5, body(), vec![(3, 4)])));
        for purpose in [Purpose::Members, Purpose::Reconcile, Purpose::Bodies] {
            assert_eq!(theirs.open_preamble(&ours.preamble(purpose)), Ok(purpose));
        }
        assert_eq!(Wire::new("d", 9).open(&datagram(&ours)), Err(WireError::Foreign));
        assert_eq!(ours.open(b"GET / HTTP/1.1\r\n\r\n and so on"), Err(WireError::Foreign));
    }

    #[test]
    fn neighbouring_versions_understand_each_other() {
        let wire = Wire::new("c", 5);
        for (version, is_understood) in [(VERSION - 1, true), (VERSION + 1, true), (VERSION + 2, false)] {
            let mut bytes = BytesMut::from(&datagram(&wire)[..]);
            bytes[2] = version;
            seal(&mut bytes);
            assert_eq!(wire.open(&bytes).is_ok(), is_understood, "{version}");
        }
    }

    /// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster.
    #[test]
    fn a_flipped_bit_is_seen() {
        let wire = Wire::new("c", 5);
        let bytes = datagram(&wire);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(wire.open(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        /// memberlist#368, #369: short and truncated datagrams panicked the decoder.
        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..40) {
            let wire = Wire::new("c", 5);
            prop_assert!(wire.open(&bytes).is_err());
            prop_assert!(wire.open_preamble(&bytes).is_err());
            let good = datagram(&wire);
            prop_assert!(cut >= good.len() || wire.open(&good[..cut]).is_err());
        }
    }
}
