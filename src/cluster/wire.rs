//! Writes and reads the messages that nodes send each other: the header of every message, and the body of a
//! datagram.
//!
//! Every datagram, and every stream between nodes, opens with a fixed header. It lets a node tell four things
//! apart before it decodes a byte of protobuf: noise of other programs, other clusters, another generation
//! of this program, and damaged bytes. Numbers are little-endian:
//!
//! | bytes | content |
//! | --- | --- |
//! | 0–1 | `aN` |
//! | 2 | version of what follows |
//! | 3 | kind: 0 for a datagram, else the [`Purpose`] of a stream |
//! | 4–11 | the field of the seal (see [`super::seal`]): a checksum of all other bytes |
//! | 12–15 | hash of the cluster's name |
//! | 16–23 | boot number of the sender |
//!
//! That is a plain message. One that is sealed with a key of the cluster has another mark and another header after the
//! kind, which `seal/header.rs` describes.
//!
//! The header of a datagram is followed by one protobuf `Datagram`, that of a stream by the frames of the
//! part of the machine that it is for. Neighbouring versions understand each other: the header stays as it
//! is, and a body that the older version does not know is skipped. So a cluster is upgraded one version at a
//! time.

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes};
use prost::Message as _;
use prost::encoding::encoded_len_varint;

use super::members::KeyStatus;
use super::purpose::Purpose;
use super::reconcile::Compare;
use super::seal::{
    CLUSTER_KEYS_MAX, KeyId, KeyPhase, PREFIX_BYTES, SENDER_BYTES, Seal, SealRefusal, Unsealed,
    body_bytes_max, cluster_hash, is_sealed,
};
use super::spread::Packet;
use super::swim::message::{SwimMessage, Update};
use super::swim::wire as members;
use crate::limits::{DATAGRAM_BYTES_CEILING, DATAGRAM_BYTES_MAX};
use crate::proto::gossip as proto;
use crate::record::fields::{Fields, Malformed, write_fixed64, write_message, write_number, write_varint};

/// Version of the header and of what follows it.
pub const VERSION: u8 = 1;

/// First two bytes of every message.
const MAGIC: [u8; 2] = *b"aN";
/// Kind byte of a datagram. All other kinds are purposes of streams.
const KIND_DATAGRAM: u8 = 0;
/// Number of the field of a `Datagram` that holds a message of spreading; it is read and written by hand.
const SPREAD_FIELD: u32 = 20;
/// Number of the field of a `Datagram` that holds heads; it is read and written by hand.
const HEADS_FIELD: u32 = 61;
/// Most bytes of one head with its tags and its length.
const ENCODED_HEAD_BYTES_MAX: usize = 3 + 9 + 11;
/// Number of heads that memory is set aside for when the first is read: few datagrams carry more.
const HEADS_USUAL: usize = 12;
/// First two bytes of the body of a datagram of spreading: tag of the field.
const SPREAD_TAG: [u8; 2] = [(SPREAD_FIELD as u8) << 3 | 2 | 0x80, (SPREAD_FIELD >> 4) as u8];

/// The content of a datagram that came.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body<'a> {
    /// A message of membership, and the updates about members that ride on it.
    Members(SwimMessage, Vec<Update>),
    /// Records on their way: the encoded message, to be read by
    /// [`Opened::read`](super::spread::Opened::read).
    Spread(Cow<'a, [u8]>),
    /// A comparison of two maps, or the answer to one.
    Compare(Compare),
    /// A content that only the next version knows. It is skipped, which is no error.
    Unknown,
}

/// The content of a datagram to be sent, other than one of spreading.
pub(super) enum Said {
    /// A message of membership, and the updates about members that ride on it.
    Members(SwimMessage, Vec<Update>),
    /// A comparison of two maps, or the answer to one.
    Compare(Compare),
}

/// A datagram that came, whose seal was verified and taken off.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenedDatagram<'a> {
    /// Boot number of the sender.
    pub boot: u64,
    /// Whether the sender knows this life of this node. If not, the datagram does no more than a stranger may do.
    pub is_fresh: bool,
    /// The message in it.
    pub body: Body<'a>,
    /// The heads that ride on it.
    pub heads: Digest,
    /// The keys of the sender, if it tells them.
    pub keys: Option<KeyStatus>,
}

/// What rides on a datagram of membership or reconciliation, as far as it fits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Riders<'a> {
    /// Heads of this node.
    pub heads: &'a [(u64, u64)],
    /// Whether the keys of this node are told, if it has any.
    pub with_keys: bool,
}

/// Heads that ride on a datagram: pairs of the hash of a line (an origin's life) and its head.
pub(super) type Digest = Vec<(u64, u64)>;

/// Writes and reads the messages of one life of a node in one cluster.
#[derive(Debug)]
pub(super) struct Wire<S> {
    cluster: u32,
    boot: u64,
    seal: S,
}

impl<S: Seal> Wire<S> {
    /// The wire of the life `boot` of a node of the cluster of this name.
    pub fn new(cluster_name: &str, boot: u64, seal: S) -> Wire<S> {
        Wire { cluster: cluster_hash(cluster_name), boot, seal }
    }

    /// Sets the boot number that stands in the messages from now on.
    pub fn set_boot(&mut self, boot: u64) {
        self.boot = boot;
        self.seal.set_boot(boot);
    }

    /// The seal of all messages of this node.
    pub fn seal(&self) -> &S {
        &self.seal
    }

    /// The seal, to be changed.
    pub fn seal_mut(&mut self) -> &mut S {
        &mut self.seal
    }

    /// Most bytes of protobuf in a datagram.
    pub fn body_bytes_max(&self) -> usize {
        body_bytes_max(self.seal.overhead_bytes())
    }

    /// Builds a whole datagram of membership or of reconciliation, with as many of the riders as fit.
    pub fn datagram(&mut self, to: SocketAddr, body: Said, riders: Riders<'_>) -> Bytes {
        let mut message = match body {
            Said::Members(message, updates) => members::to_proto(&message, &updates),
            Said::Compare(compare) => wrap(proto::datagram::Body::Compare(compare.into_proto())),
        };
        if riders.with_keys
            && let Some(keys) = self.seal.key_status()
        {
            message.keys = Some(keys_to_proto(&keys));
            if message.encoded_len() > self.body_bytes_max() {
                message.keys = None;
            }
        }
        let len = message.encoded_len();
        let heads = heads_of(riders.heads, self.body_bytes_max().saturating_sub(len));
        let mut bytes = self.begin(KIND_DATAGRAM, len + heads.len());
        // A vector grows: encoding into it cannot fail.
        let _ = message.encode(&mut bytes);
        bytes.extend_from_slice(&heads);
        self.seal.seal(to, &mut bytes);
        bytes.into()
    }

    /// Builds a whole datagram of spreading. The packet leaves room for the heads.
    pub fn spread_datagram(&mut self, to: SocketAddr, packet: &Packet, heads: &[(u64, u64)]) -> Bytes {
        let (heads, len) = (heads_of(heads, DATAGRAM_BYTES_MAX), packet.encoded_len());
        let frame_bytes = SPREAD_TAG.len() + encoded_len_varint(len as u64);
        let mut bytes = self.begin(KIND_DATAGRAM, frame_bytes + len + heads.len());
        bytes.extend_from_slice(&SPREAD_TAG);
        write_varint(&mut bytes, len as u64);
        packet.write(&mut bytes);
        bytes.extend_from_slice(&heads);
        self.seal.seal(to, &mut bytes);
        bytes.into()
    }

    /// Verifies a datagram and reads it. Nothing of it is read before its seal is verified.
    pub fn open<'a>(
        &'a mut self,
        from: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<OpenedDatagram<'a>, SealRefusal> {
        let prefix = open_prefix(datagram)?;
        let Unsealed { sender, body, is_fresh } = self.seal.open(from, datagram)?;
        let (kind, boot) = check_header(self.cluster, prefix, sender)?;
        if kind != KIND_DATAGRAM || datagram.len() > DATAGRAM_BYTES_CEILING {
            return Err(SealRefusal::Corrupt);
        }
        if body.starts_with(&SPREAD_TAG) {
            let (message, heads) = open_spread(body).map_err(|_| SealRefusal::Corrupt)?;
            let body = Body::Spread(message.into());
            return Ok(OpenedDatagram { boot, is_fresh, body, heads, keys: None });
        }
        let message = proto::Datagram::decode(body).map_err(|_| SealRefusal::Corrupt)?;
        let keys = message.keys.map(keys_from_proto);
        let heads = message.heads.iter().map(|head| (head.line, head.seq)).collect();
        let body = match message.body {
            None => Body::Unknown,
            // Another field comes first, which no node of this version would write.
            Some(proto::datagram::Body::Spread(spread)) => Body::Spread(spread.encode_to_vec().into()),
            Some(proto::datagram::Body::Compare(compare)) => Body::Compare(Compare::from_proto(compare)),
            Some(body) => {
                let updates = message.updates.into_iter().map(members::update_from_proto);
                let updates = updates.collect::<Option<_>>().ok_or(SealRefusal::Corrupt)?;
                Body::Members(members::message_from_proto(body).ok_or(SealRefusal::Corrupt)?, updates)
            }
        };
        Ok(OpenedDatagram { boot, is_fresh, body, heads, keys })
    }

    /// Builds the preamble of a stream that this node opened, and begins the stream's seal.
    pub fn connect(&mut self, purpose: Purpose) -> (Bytes, S::Stream) {
        let mut bytes = self.begin(purpose as u8, 0);
        let stream = self.seal.connect(&mut bytes);
        (bytes.into(), stream)
    }

    /// Returns the length of the preamble that begins with `received`, in bytes. While less than the prefix
    /// has been received, the result is the length of the prefix.
    pub fn preamble_bytes(&self, received: &[u8]) -> usize {
        match received.first_chunk::<PREFIX_BYTES>() {
            Some(prefix) => self.seal.preamble_bytes(*prefix),
            None => PREFIX_BYTES,
        }
    }

    /// Verifies the whole preamble of a stream that a peer opened. Returns the purpose of the stream, the boot
    /// number of the peer and the stream's seal.
    pub fn accept(
        &mut self,
        from: SocketAddr,
        preamble: &[u8],
    ) -> Result<(Purpose, u64, S::Stream), SealRefusal> {
        let prefix = open_prefix(preamble)?;
        let (Unsealed { sender, .. }, stream) = self.seal.accept(from, preamble)?;
        let (kind, boot) = check_header(self.cluster, prefix, sender)?;
        Ok((Purpose::from_kind(kind).ok_or(SealRefusal::Corrupt)?, boot, stream))
    }

    /// Begins a message with its header. Memory is set aside for exactly `body_bytes` and the seal: a second
    /// allocation would cost more than everything else here.
    fn begin(&self, kind: u8, body_bytes: usize) -> Vec<u8> {
        let overhead_bytes = self.seal.overhead_bytes();
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + SENDER_BYTES + overhead_bytes + body_bytes);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_bytes(0, self.seal.field_bytes());
        bytes.put_u32_le(self.cluster);
        bytes.put_u64_le(self.boot);
        bytes
    }
}

/// Version and kind of a message, which stand before its seal. It is not believed yet.
fn open_prefix(message: &[u8]) -> Result<(u8, u8), SealRefusal> {
    let (magic, rest) = message.split_first_chunk::<2>().ok_or(SealRefusal::Corrupt)?;
    if *magic != MAGIC && !is_sealed(message) {
        return Err(SealRefusal::Foreign);
    }
    let &[version, kind] = rest.first_chunk::<2>().ok_or(SealRefusal::Corrupt)?;
    Ok((version, kind))
}

/// Kind and boot number of a message whose seal was verified, if it is of this cluster and of a version that
/// is understood.
fn check_header(
    cluster: u32,
    (version, kind): (u8, u8),
    sender: [u8; SENDER_BYTES],
) -> Result<(u8, u64), SealRefusal> {
    let [c0, c1, c2, c3, boot @ ..] = sender;
    if version.abs_diff(VERSION) > 1 || u32::from_le_bytes([c0, c1, c2, c3]) != cluster {
        return Err(SealRefusal::Foreign);
    }
    Ok((kind, u64::from_le_bytes(boot)))
}

/// Splits the body of a datagram of spreading: the encoded `Spread` message, and the heads beside it.
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

/// Encodes as many of the heads, from the first on, as fit in `bytes_max`.
fn heads_of(heads: &[(u64, u64)], bytes_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(heads.len() * ENCODED_HEAD_BYTES_MAX);
    for &(line, seq) in heads {
        let before = out.len();
        write_message(&mut out, HEADS_FIELD, |out| {
            write_fixed64(out, 1, line);
            write_number(out, 2, seq);
        });
        if out.len() > bytes_max {
            out.truncate(before);
            break;
        }
    }
    out
}

fn keys_to_proto(keys: &KeyStatus) -> proto::Keys {
    let number = |id: &KeyId| u32::from_be_bytes(id.0);
    let phase = match keys.phase {
        KeyPhase::Accept => proto::KeyPhase::Accept,
        KeyPhase::Send => proto::KeyPhase::Send,
        KeyPhase::Require => proto::KeyPhase::Require,
    };
    proto::Keys {
        seals: keys.seals.as_ref().map(number),
        opens: keys.opens.iter().map(number).collect(),
        phase: phase.into(),
    }
}

/// Reads what a member tells of its keys. No more ids are kept than a node may have keys.
fn keys_from_proto(keys: proto::Keys) -> KeyStatus {
    let id = |number: u32| KeyId(number.to_be_bytes());
    let phase = match keys.phase() {
        proto::KeyPhase::Accept => KeyPhase::Accept,
        proto::KeyPhase::Send => KeyPhase::Send,
        proto::KeyPhase::Require => KeyPhase::Require,
    };
    let opens = keys.opens.iter().take(CLUSTER_KEYS_MAX).map(|&number| id(number)).collect();
    KeyStatus { seals: keys.seals.map(id), opens, phase }
}

fn wrap(body: proto::datagram::Body) -> proto::Datagram {
    proto::Datagram { body: Some(body), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::seal::Checksum;
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7946);

    fn wire(cluster: &str, boot: u64) -> Wire<Checksum> {
        Wire::new(cluster, boot, Checksum)
    }

    fn body() -> Body<'static> {
        Body::Members(SwimMessage::Nack { sequence: 7 }, Vec::new())
    }

    fn datagram(wire: &mut Wire<Checksum>) -> Bytes {
        let riders = Riders { heads: &[(3, 4)], with_keys: true };
        wire.datagram(PEER, Said::Members(SwimMessage::Nack { sequence: 7 }, Vec::new()), riders)
    }

    #[test]
    fn comes_back_as_it_went() {
        let (mut ours, mut theirs) = (wire("c", 5), wire("c", 9));
        let opened =
            OpenedDatagram { boot: 5, is_fresh: true, body: body(), heads: vec![(3, 4)], keys: None };
        assert_eq!(theirs.open(PEER, &datagram(&mut ours)), Ok(opened));
        for purpose in [Purpose::Members, Purpose::Reconcile, Purpose::Bodies] {
            let (preamble, _) = ours.connect(purpose);
            assert_eq!(theirs.preamble_bytes(&preamble), preamble.len());
            assert_eq!(theirs.accept(PEER, &preamble).map(|accepted| accepted.0), Ok(purpose));
        }
        assert_eq!(wire("d", 9).open(PEER, &datagram(&mut ours)), Err(SealRefusal::Foreign));
        assert_eq!(ours.open(PEER, b"GET / HTTP/1.1\r\n\r\n and so on"), Err(SealRefusal::Foreign));
    }

    #[test]
    fn neighbouring_versions_understand_each_other() {
        let mut wire = wire("c", 5);
        for (version, is_understood) in [(VERSION - 1, true), (VERSION + 1, true), (VERSION + 2, false)] {
            let mut bytes = datagram(&mut wire).to_vec();
            bytes[2] = version;
            Checksum::fill(&mut bytes);
            assert_eq!(wire.open(PEER, &bytes).is_ok(), is_understood, "{version}");
        }
    }

    /// S3, 2008-07-20: one flipped bit, unchecked, spread through the whole cluster.
    #[test]
    fn a_flipped_bit_is_seen() {
        let mut wire = wire("c", 5);
        let bytes = datagram(&mut wire);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(wire.open(PEER, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn heads_that_do_not_fit_are_left_out() {
        let heads: Vec<(u64, u64)> = (0..100).map(|line| (line, u64::MAX)).collect();
        let encoded = heads_of(&heads, 200);
        assert!(encoded.len() <= 200 && encoded.len() + ENCODED_HEAD_BYTES_MAX > 200);
        let mut wire = wire("c", 5);
        let said = Said::Members(SwimMessage::Gossip, Vec::new());
        let bytes = wire.datagram(PEER, said, Riders { heads: &heads, with_keys: false });
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        let told = wire.open(PEER, &bytes).expect("our own datagram").heads;
        assert_eq!(told, heads[..told.len()]);
    }

    proptest! {
        /// memberlist#368, #369: short and truncated datagrams panicked the decoder.
        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..40) {
            let mut wire = wire("c", 5);
            prop_assert!(wire.open(PEER, &bytes).is_err());
            prop_assert!(wire.accept(PEER, &bytes).is_err());
            let good = datagram(&mut wire);
            prop_assert!(cut >= good.len() || wire.open(PEER, &good[..cut]).is_err());
        }
    }
}
