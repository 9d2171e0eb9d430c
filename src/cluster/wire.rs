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

use std::borrow::Cow;

use bytes::{BufMut, Bytes};
use prost::Message as _;
use prost::encoding::encoded_len_varint;
use xxhash_rust::xxh3::xxh3_64;

use super::purpose::Purpose;
use super::reconcile::Compare;
use super::spread::Packet;
use super::swim::message::{Message, Update};
use super::swim::wire as members;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::proto::gossip as proto;
use crate::record::fields::{Fields, Malformed, write_fixed64, write_message, write_number, write_varint};

/// Version of the header and of what follows it.
pub const VERSION: u8 = 1;
/// Length of the header.
pub const HEADER_BYTES: usize = 24;
/// Most bytes of protobuf in a datagram.
pub const BODY_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES;

const MAGIC: [u8; 2] = *b"aN";
const KIND_DATAGRAM: u8 = 0;
/// Datagrams that are shorter count as short.
const SHORT_BYTES: usize = 256;
/// Fields of a `Datagram`.
const SPREAD_FIELD: u32 = 20;
const HEADS_FIELD: u32 = 61;
/// Most bytes of a head with what frames it, and how many there often are.
const HEAD_BYTES_MAX: usize = 3 + 9 + 11;
const HEADS_USUAL: usize = 12;
/// What a datagram of spreading begins with.
const SPREAD_TAG: [u8; 2] = [(SPREAD_FIELD as u8) << 3 | 2 | 0x80, (SPREAD_FIELD >> 4) as u8];

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
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body<'a> {
    /// Membership, and what is to be known of members.
    Members(Message, Vec<Update>),
    /// Records on their way: the message, for [`Opened::read`](super::spread::Opened::read).
    Spread(Cow<'a, [u8]>),
    /// Whether two maps are equal.
    Compare(Compare),
    /// Something of the next version: skipped, not an error.
    Unknown,
}

/// What is said in datagrams but for spreading.
pub(super) enum Said {
    /// Membership, and what is to be known of members.
    Members(Message, Vec<Update>),
    /// Whether two maps are equal.
    Compare(Compare),
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

    /// A whole datagram of membership, or of reconciliation.
    pub(super) fn datagram(&self, body: Said, heads: &[(u64, u64)]) -> Bytes {
        let message = match body {
            Said::Members(message, updates) => members::to_proto(&message, &updates),
            Said::Compare(compare) => wrap(proto::datagram::Body::Compare(compare.into_proto())),
        };
        let heads = heads_of(heads);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + message.encoded_len() + heads.len());
        self.put_header(&mut bytes, KIND_DATAGRAM);
        // A vector grows: encoding into it cannot fail.
        let _ = message.encode(&mut bytes);
        bytes.extend_from_slice(&heads);
        seal(&mut bytes);
        bytes.into()
    }

    /// A whole datagram of spreading.
    pub(super) fn spread_datagram(&self, packet: &Packet, heads: &[(u64, u64)]) -> Bytes {
        let (heads, len) = (heads_of(heads), packet.encoded_len());
        let frame_bytes = SPREAD_TAG.len() + encoded_len_varint(len as u64);
        // Not a byte more: what is over would cost a second allocation.
        let mut bytes = Vec::with_capacity(HEADER_BYTES + frame_bytes + len + heads.len());
        self.put_header(&mut bytes, KIND_DATAGRAM);
        bytes.extend_from_slice(&SPREAD_TAG);
        write_varint(&mut bytes, len as u64);
        packet.write(&mut bytes);
        bytes.extend_from_slice(&heads);
        seal(&mut bytes);
        bytes.into()
    }

    /// What a datagram says, the heads that ride on it, and its sender's boot number.
    pub(super) fn open<'a>(&self, datagram: &'a [u8]) -> Result<(u64, Body<'a>, Digest), WireError> {
        let (kind, boot, body) = self.open_header(datagram, datagram)?;
        if kind != KIND_DATAGRAM || datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(WireError::Corrupt);
        }
        if body.starts_with(&SPREAD_TAG) {
            let (message, heads) = open_spread(body).map_err(|_| WireError::Corrupt)?;
            return Ok((boot, Body::Spread(message.into()), heads));
        }
        let message = proto::Datagram::decode(body).map_err(|_| WireError::Corrupt)?;
        let heads = message.heads.iter().map(|head| (head.line, head.seq)).collect();
        let body = match message.body {
            None => Body::Unknown,
            // Something stands before it, which no node of this version would write.
            Some(proto::datagram::Body::Spread(spread)) => Body::Spread(spread.encode_to_vec().into()),
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
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        self.put_header(&mut bytes, purpose as u8);
        seal(&mut bytes);
        bytes.into()
    }

    /// What a stream is for, by its first [`HEADER_BYTES`].
    pub fn open_preamble(&self, preamble: &[u8]) -> Result<Purpose, WireError> {
        let header = preamble.get(..HEADER_BYTES).ok_or(WireError::Corrupt)?;
        let (kind, _boot, _rest) = self.open_header(preamble, header)?;
        Purpose::from_kind(kind).ok_or(WireError::Corrupt)
    }

    fn put_header(&self, bytes: &mut Vec<u8>, kind: u8) {
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

/// Over everything but the checksum itself: four bytes, and all from the thirteenth on. They are put side by
/// side, since to hash few bytes piece by piece costs three times as much.
fn checksum_of(bytes: &[u8]) -> u64 {
    let (head, rest) = (bytes.get(..4).unwrap_or_default(), bytes.get(12..).unwrap_or_default());
    match head.len() + rest.len() {
        // Nearly all: what brings one record, receipts, probes.
        0..SHORT_BYTES => joined_checksum(&mut [0; SHORT_BYTES], head, rest),
        _ => joined_checksum(&mut [0; DATAGRAM_BYTES_MAX], head, rest),
    }
}

fn joined_checksum(joined: &mut [u8], head: &[u8], rest: &[u8]) -> u64 {
    match joined.get_mut(..head.len() + rest.len()) {
        Some(joined) => {
            let (first, second) = joined.split_at_mut(head.len());
            first.copy_from_slice(head);
            second.copy_from_slice(rest);
            xxh3_64(joined)
        }
        // Longer than any datagram.
        None => xxh3_64(&[head, rest].concat()),
    }
}

/// A `Spread` message and the heads beside it.
fn open_spread(body: &[u8]) -> Result<(&[u8], Digest), Malformed> {
    let (mut message, mut heads): (&[u8], _) = (&[], Vec::new());
    for field in Fields::of(body) {
        match field? {
            (SPREAD_FIELD, value) => message = value.bytes()?,
            (HEADS_FIELD, value) => {
                let (mut line, mut seq) = (0, 0);
                for field in value.fields()? {
                    match field? {
                        (1, value) => line = value.fixed64()?,
                        (2, value) => seq = value.number()?,
                        _ => {}
                    }
                }
                if heads.is_empty() {
                    heads.reserve_exact(HEADS_USUAL);
                }
                heads.push((line, seq));
            }
            _ => {}
        }
    }
    Ok((message, heads))
}

fn heads_of(heads: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(heads.len() * HEAD_BYTES_MAX);
    for &(line, seq) in heads {
        write_message(&mut out, HEADS_FIELD, |out| {
            write_fixed64(out, 1, line);
            write_number(out, 2, seq);
        });
    }
    out
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

    fn body() -> Body<'static> {
        Body::Members(Message::Nack { sequence: 7 }, Vec::new())
    }

    fn datagram(wire: &Wire) -> Bytes {
        wire.datagram(Said::Members(Message::Nack { sequence: 7 }, Vec::new()), &[(3, 4)])
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
            let mut bytes = datagram(&wire).to_vec();
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
