//! Encodes and decodes comparisons in datagrams and the frames of a reconciliation stream.
//!
//! A frame is a varint length and a protobuf message. Nothing is taken on trust: a length over the
//! bound ends the stream before a byte is set aside for it, memory grows only with bytes that have
//! come, and what may be repeated comes as raw bytes that are unpacked here, so that no small input
//! becomes a large value.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::riblt::{SetItem, Symbol};
use crate::cluster::Heads;
use crate::limits::{NODE_NAME_BYTES_MAX, SHARDS, STREAM_FRAME_BYTES_MAX};
use crate::proto::gossip as proto;
use crate::proto::gossip::reconcile::{self, Frame as ProtoFrame};
use crate::record::fields::{Malformed, take_delimited};
use crate::record::{NodeName, Record, wire};

/// A question to a member whether it holds the same map, or the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// Hash over the fingerprints of all shards.
    pub(super) root: u64,
    /// Number that the asking member chose, repeated in the answer.
    pub(super) nonce: u32,
    /// Whether this comparison is the answer to another one.
    pub(super) is_answer: bool,
    /// In an answer whose root differs from the asked one: 32 bits of each shard's fingerprint,
    /// little-endian. Empty otherwise.
    pub(super) shards: Bytes,
}

impl Compare {
    /// Reads the message as it came.
    pub(in crate::cluster) fn from_proto(message: proto::Compare) -> Compare {
        let proto::Compare { root, nonce, is_answer, shards } = message;
        Compare { root, nonce, is_answer, shards }
    }

    /// Returns the message as it is sent.
    pub(in crate::cluster) fn into_proto(self) -> proto::Compare {
        let Compare { root, nonce, is_answer, shards } = self;
        proto::Compare { root, nonce, is_answer, shards }
    }
}

/// Version of the protocol of sessions.
pub(super) const SESSION_VERSION: u32 = 1;
/// Bytes of the sum and the checksum of a symbol.
const SUM_BYTES: usize = 20;
/// Bytes of an item.
pub(super) const ITEM_BYTES: usize = 16;
/// Longest greeting, in bytes: the fingerprints of all shards, a name, and a few numbers.
pub(super) const HELLO_BYTES_MAX: usize = 8 * SHARDS + NODE_NAME_BYTES_MAX + 64;

/// The reason why the bytes of a stream are not those of a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// A frame is announced that is longer than allowed.
    #[error("a frame of {0} bytes; at most {1}")]
    Length(u64, usize),
    /// A length takes more than ten bytes.
    #[error("a frame's length does not end")]
    Varint,
    /// A frame is not protobuf of this schema.
    #[error("undecodable frame: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A field has a value that no node would write.
    #[error("frame with a bad {0}")]
    Field(&'static str),
    /// A frame comes at a point of the session where it must not.
    #[error("frame out of turn: {0}")]
    OutOfTurn(&'static str),
}

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardSet([u64; SHARDS / 64]);

impl ShardSet {
    /// The set of all shards.
    pub fn all() -> ShardSet {
        ShardSet([u64::MAX; SHARDS / 64])
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: usize) {
        if let Some(word) = self.0.get_mut(shard / 64) {
            *word |= 1 << (shard % 64);
        }
    }

    /// Returns whether a shard is in the set.
    pub fn contains(&self, shard: usize) -> bool {
        self.0.get(shard / 64).is_some_and(|word| word >> (shard % 64) & 1 == 1)
    }

    /// Number of shards in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The shards in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..SHARDS).filter(|&shard| self.contains(shard))
    }

    /// Returns the shards that are in both sets.
    pub fn and(&self, other: &ShardSet) -> ShardSet {
        ShardSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

/// Collects the bytes of a stream, which come cut anywhere, and gives out its frames.
#[derive(Debug)]
pub(super) struct VarintFrameReader {
    /// Length up to which a frame is read, in bytes.
    pub bytes_max: usize,
    buffer: BytesMut,
}

impl Default for VarintFrameReader {
    fn default() -> VarintFrameReader {
        VarintFrameReader { bytes_max: STREAM_FRAME_BYTES_MAX, buffer: BytesMut::new() }
    }
}

impl VarintFrameReader {
    /// Adds bytes that were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes out the next frame, without its length; `None` until all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let mut length = 0u64;
        let mut digits = 0;
        loop {
            let Some(&byte) = self.buffer.get(digits) else { return Ok(None) };
            // The tenth digit has room for one bit: 7 × 9 + 1 = 64.
            if digits == 9 && byte > 1 {
                return Err(FrameError::Varint);
            }
            length |= u64::from(byte & 0x7f) << (7 * digits);
            digits += 1;
            if byte < 0x80 {
                break;
            }
        }
        let Some(size) = usize::try_from(length).ok().filter(|&size| size <= self.bytes_max) else {
            return Err(FrameError::Length(length, self.bytes_max));
        };
        if self.buffer.len() - digits < size {
            return Ok(None);
        }
        self.buffer.advance(digits);
        let frame = self.buffer.split_to(size).freeze();
        if self.buffer.is_empty() {
            // The memory of a large frame is freed with the frame.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

/// The content of a frame. Every `shard` is the number of a shard that exists. Wall clocks are in
/// microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ReconcileFrame {
    /// The initiator's greeting, with the fingerprints of all its shards and the seed of the session's
    /// hashes. Records accepted in the last `young_us` microseconds take no part.
    Hello {
        sender: NodeName,
        seed: u64,
        wall_us: u64,
        young_us: u64,
        is_reconciled: bool,
        fingerprints: Box<[u64; SHARDS]>,
    },
    /// The responder refuses the session.
    Busy,
    /// The responder's answer to the greeting, with the shards that differ. `clocks_us` are the earlier and the
    /// later one of the two wall clocks, in microseconds.
    Welcome { sender: NodeName, clocks_us: (u64, u64), is_reconciled: bool, differing: ShardSet },
    /// The initiator opens a shard in which `count` records take part; `fold` is the XOR of the checksums of
    /// its items.
    Open { shard: usize, count: u64, fold: u64 },
    /// The responder asks for the symbols of a shard up to `upto`, or for all ids.
    Ask { shard: usize, upto: usize },
    /// The next symbols of a shard.
    Symbols { shard: usize, symbols: Vec<Symbol> },
    /// Ids of a shard; `has_more` is set unless these are the last ones.
    Ids { shard: usize, ids: Vec<SetItem>, has_more: bool },
    /// A batch of records, each with its length in front.
    Records(Bytes),
    /// The responder has found the difference of a shard, `found` records, and wants the records of the
    /// sources with the hashes `wanted`, or all records of the shard.
    Settled { shard: usize, found: u64, wanted: Vec<u64>, wants_all: bool },
    /// The sender has sent all of its records. `is_complete` is set if it left nothing out; then `heads` are
    /// its heads.
    Finish { is_complete: bool, heads: Bytes },
}

impl ReconcileFrame {
    /// Appends the frame with its length in front.
    pub fn encode(self, out: &mut Vec<u8>) {
        let message = proto::Reconcile { frame: Some(self.into_proto()) };
        // A `Vec` takes whatever is written to it.
        let _ = message.encode_length_delimited(out);
    }

    /// Reads a frame, given without its length.
    pub fn decode(bytes: &[u8]) -> Result<ReconcileFrame, FrameError> {
        let frame = proto::Reconcile::decode(bytes)?.frame;
        ReconcileFrame::from_proto(frame.ok_or(FrameError::Field("kind"))?)
    }

    fn into_proto(self) -> ProtoFrame {
        match self {
            ReconcileFrame::Hello { sender, seed, wall_us, young_us, is_reconciled, fingerprints } => {
                let fingerprints = fingerprints.iter().flat_map(|print| print.to_le_bytes()).collect();
                let (version, sender) = (SESSION_VERSION, sender.as_str().into());
                let hello = reconcile::Hello {
                    version,
                    sender,
                    seed,
                    wall_us,
                    young_us,
                    is_reconciled,
                    fingerprints,
                };
                ProtoFrame::Hello(hello)
            }
            ReconcileFrame::Busy => ProtoFrame::Welcome(reconcile::Welcome {
                version: SESSION_VERSION,
                is_busy: true,
                ..Default::default()
            }),
            ReconcileFrame::Welcome { sender, clocks_us, is_reconciled, differing } => {
                let differing = differing.0.iter().flat_map(|word| word.to_le_bytes()).collect();
                let (version, sender, is_busy) = (SESSION_VERSION, sender.as_str().into(), false);
                ProtoFrame::Welcome(reconcile::Welcome {
                    version,
                    sender,
                    is_busy,
                    wall_us: clocks_us.1,
                    earliest_wall_us: clocks_us.0,
                    is_reconciled,
                    differing,
                })
            }
            ReconcileFrame::Open { shard, count, fold } => {
                ProtoFrame::Open(reconcile::Open { shard: shard as u32, count, fold })
            }
            ReconcileFrame::Ask { shard, upto } => {
                let upto = u32::try_from(upto).unwrap_or(u32::MAX);
                ProtoFrame::Ask(reconcile::Ask { shard: shard as u32, upto })
            }
            ReconcileFrame::Symbols { shard, symbols } => {
                let mut sums = Vec::with_capacity(symbols.len() * SUM_BYTES);
                for symbol in &symbols {
                    sums.extend_from_slice(&symbol.sum.to_le_bytes());
                    sums.extend_from_slice(&symbol.check.to_le_bytes());
                }
                let counts = symbols.iter().map(|symbol| symbol.count).collect();
                ProtoFrame::Symbols(reconcile::Symbols { shard: shard as u32, sums: sums.into(), counts })
            }
            ReconcileFrame::Ids { shard, ids, has_more } => {
                let ids = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                ProtoFrame::Ids(reconcile::Ids { shard: shard as u32, ids, has_more })
            }
            ReconcileFrame::Records(batch) => ProtoFrame::Records(reconcile::Records { batch }),
            ReconcileFrame::Settled { shard, found, wanted, wants_all } => {
                ProtoFrame::Settled(reconcile::Settled { shard: shard as u32, found, wanted, wants_all })
            }
            ReconcileFrame::Finish { is_complete, heads } => {
                ProtoFrame::Finish(reconcile::Finish { is_complete, heads })
            }
        }
    }

    fn from_proto(frame: ProtoFrame) -> Result<ReconcileFrame, FrameError> {
        Ok(match frame {
            ProtoFrame::Hello(hello) => {
                check_version(hello.version)?;
                let fingerprints = unpack(&hello.fingerprints, u64::from_le_bytes)
                    .and_then(|prints| Box::<[u64; SHARDS]>::try_from(prints.into_boxed_slice()).ok());
                ReconcileFrame::Hello {
                    sender: sender(&hello.sender)?,
                    seed: hello.seed,
                    wall_us: hello.wall_us,
                    young_us: hello.young_us,
                    is_reconciled: hello.is_reconciled,
                    fingerprints: fingerprints.ok_or(FrameError::Field("fingerprints"))?,
                }
            }
            ProtoFrame::Welcome(welcome) => {
                check_version(welcome.version)?;
                if welcome.is_busy {
                    return Ok(ReconcileFrame::Busy);
                }
                let differing = unpack(&welcome.differing, u64::from_le_bytes)
                    .and_then(|words| words.try_into().ok())
                    .map(ShardSet)
                    .ok_or(FrameError::Field("differing"))?;
                // Earlier versions do not tell the earlier clock.
                let earliest_us = match welcome.earliest_wall_us {
                    0 => welcome.wall_us,
                    us => us,
                };
                ReconcileFrame::Welcome {
                    sender: sender(&welcome.sender)?,
                    clocks_us: (earliest_us, welcome.wall_us),
                    is_reconciled: welcome.is_reconciled,
                    differing,
                }
            }
            ProtoFrame::Open(open) => {
                ReconcileFrame::Open { shard: shard(open.shard)?, count: open.count, fold: open.fold }
            }
            ProtoFrame::Ask(ask) => ReconcileFrame::Ask { shard: shard(ask.shard)?, upto: ask.upto as usize },
            ProtoFrame::Symbols(message) => symbols(message)?,
            ProtoFrame::Ids(message) => {
                let ids = unpack(&message.ids, SetItem::from_le_bytes).ok_or(FrameError::Field("ids"))?;
                ReconcileFrame::Ids { shard: shard(message.shard)?, ids, has_more: message.has_more }
            }
            ProtoFrame::Records(records) => ReconcileFrame::Records(records.batch),
            ProtoFrame::Settled(settled) => {
                let (shard, found) = (shard(settled.shard)?, settled.found);
                ReconcileFrame::Settled { shard, found, wanted: settled.wanted, wants_all: settled.wants_all }
            }
            ProtoFrame::Finish(finish) => {
                ReconcileFrame::Finish { is_complete: finish.is_complete, heads: finish.heads }
            }
        })
    }
}

fn check_version(version: u32) -> Result<(), FrameError> {
    // Versions after this one must be able to speak it: nodes of both live in one cluster while it
    // is upgraded.
    if version == 0 { Err(FrameError::Field("version")) } else { Ok(()) }
}

fn sender(name: &str) -> Result<NodeName, FrameError> {
    NodeName::parse(name).map_err(|_| FrameError::Field("sender"))
}

fn shard(number: u32) -> Result<usize, FrameError> {
    usize::try_from(number).ok().filter(|&shard| shard < SHARDS).ok_or(FrameError::Field("shard"))
}

/// Reads numbers of `N` bytes each; `None` if bytes are left over.
fn unpack<const N: usize, T>(bytes: &[u8], number: fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (numbers, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| numbers.iter().map(|&bytes| number(bytes)).collect())
}

fn symbols(message: reconcile::Symbols) -> Result<ReconcileFrame, FrameError> {
    let (sums, rest) = message.sums.as_chunks::<SUM_BYTES>();
    if !rest.is_empty() || sums.len() != message.counts.len() {
        return Err(FrameError::Field("symbols"));
    }
    let symbols = sums.iter().zip(&message.counts).map(|(bytes, &count)| {
        let (mut sum, mut check) = ([0; 16], [0; 4]);
        sum.copy_from_slice(&bytes[..16]);
        check.copy_from_slice(&bytes[16..]);
        Symbol { sum: u128::from_le_bytes(sum), check: u32::from_le_bytes(check), count }
    });
    Ok(ReconcileFrame::Symbols { shard: shard(message.shard)?, symbols: symbols.collect() })
}

/// Appends a record to a batch.
pub(super) fn push_record(batch: &mut Vec<u8>, record: &Record) {
    wire::write_delimited(batch, record);
}

/// Reads the records of a batch, one by one. A bad record is an error and does not affect the others; a
/// length that leads beyond the end ends the batch.
pub(super) fn records(mut batch: &[u8]) -> impl Iterator<Item = Result<Record, wire::WireError>> {
    std::iter::from_fn(move || {
        if batch.is_empty() {
            return None;
        }
        let Some(message) = take_delimited(&mut batch) else {
            batch = &[];
            return Some(Err(Malformed.into()));
        };
        // Payloads are copied: one that outlives its neighbours must not hold the memory of the whole batch.
        Some(wire::decode(message))
    })
}

/// Encodes as many heads as fit into a frame. The peer merely does not learn those that are left out.
pub(super) fn pack_heads(heads: &Heads) -> Bytes {
    let mut packed = Vec::new();
    for ((origin, boot), &seq) in heads {
        let head = proto::ReconcileHead { origin: origin.as_str().into(), boot: *boot, seq };
        if packed.len() + head.encoded_len() + 1024 > STREAM_FRAME_BYTES_MAX {
            break;
        }
        let _ = head.encode_length_delimited(&mut packed);
    }
    packed.into()
}

/// Decodes heads that [`pack_heads`] has encoded.
pub(super) fn unpack_heads(mut packed: &[u8]) -> Result<Heads, FrameError> {
    let mut heads = Heads::new();
    while !packed.is_empty() {
        let head = proto::ReconcileHead::decode_length_delimited(&mut packed)?;
        let origin = NodeName::parse(&head.origin).map_err(|_| FrameError::Field("head"))?;
        heads.insert((origin, head.boot), head.seq);
    }
    Ok(heads)
}

#[cfg(test)]
mod tests;
