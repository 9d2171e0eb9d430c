//! Decodes the packets of peers, and checks what can be checked without knowing the cluster.
//!
//! A part that no node would write is marked so, and does not make the others of its packet invalid. Packets
//! are decoded by hand, as [`super::packet`] encodes them: they are read in place, and the bytes of a batch
//! are copied once, since a batch that is kept must not keep its whole datagram in memory.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::{Announced, BatchId, line_hash};
use super::seqs::{SeqRange, from_runs};
use super::span::Span;
use super::tally::Tally;
use super::tree::WITHOUT_MAX;
use crate::cluster::outbox::Awaited;
use crate::cluster::seal::BODY_BYTES_MIN;
use crate::record::Stamp;
use crate::record::fields::{FieldValue as Value, Fields, Malformed};

/// Bytes of a datagram's body that are kept free of the packet: tag and length of the message, two bytes each.
const AROUND_BYTES: usize = 4;
/// Most bytes of a part's header without `zone` and `without`, and of the encoding around a part that is
/// alone in its packet: the sum of all tags, longest numbers and fixed fields.
pub(super) const PART_HEADER_BYTES: usize = 116;
/// Longest name of a zone that is accepted from a peer, in bytes.
pub(super) const ZONE_BYTES_MAX: usize = 255;
/// Most hand-overs that a peer may state: more than any tree has.
const HOPS_MAX: u32 = 64;

const _: () = assert!(
    PART_HEADER_BYTES + ZONE_BYTES_MAX + 8 * WITHOUT_MAX + 256 < packet_bytes_max(BODY_BYTES_MIN),
    "a packet has room for records beside the largest header of a part, whatever the seal"
);

/// Most bytes of one encoded packet in a datagram whose body has at most `body_bytes_max`.
pub(super) const fn packet_bytes_max(body_bytes_max: usize) -> usize {
    body_bytes_max - AROUND_BYTES
}

/// Most bytes of one encoded packet where datagrams are sealed by a checksum alone.
#[cfg(test)]
pub const SPREAD_BYTES_MAX: usize =
    packet_bytes_max(crate::cluster::seal::body_bytes_max(crate::cluster::seal::CHECKSUM_BYTES));

/// A packet from a peer, decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// The peer will not send parts with smaller numbers any more.
    pub(super) floor: u64,
    /// The receipt for parts that this node sent to the peer.
    pub(super) receipt: Option<Receipt>,
    /// Parts that the peer hands over, in any order.
    pub(super) parts: Vec<OpenedPart>,
    /// Gaps that the peer wants filled.
    pub(super) wants: Vec<Want>,
    /// Hashes of the lines of gaps that the peer was asked to fill and cannot.
    pub(super) lacks: Vec<u64>,
    /// Records of which the peer asks whether they are held here.
    pub(super) inquiries: Vec<Inquiry>,
    /// Hash of the peer's life, and the inquiries that it answers with yes.
    pub(super) holding: Option<(u64, Vec<u64>)>,
    /// Numbers of the parts whose tallies the peer misses.
    pub(super) uncounted: Vec<u64>,
    /// The number of a probe, which is to be answered.
    pub(super) probe: Option<u64>,
    /// The number of a probe of this node that the peer got.
    pub(super) carried: Option<u64>,
}

impl Opened {
    /// Returns whether records come with the packet.
    pub fn brings_records(&self) -> bool {
        self.parts.iter().any(OpenedPart::brings_records)
    }

    /// Drops all that is not a record on its way. Records are taken from a node that this one does not know yet,
    /// because the two may have learned of each other at different times, and the receipt is smaller than the
    /// part. Everything else is for members alone.
    pub fn keep_records(&mut self) {
        self.parts.retain(OpenedPart::brings_records);
        let (floor, parts) = (self.floor, std::mem::take(&mut self.parts));
        *self = Opened { floor, parts, ..Opened::default() };
    }

    /// Decodes the packet of a node that wrote this message.
    #[cfg(test)]
    pub(super) fn of(message: &crate::proto::gossip::Spread) -> Opened {
        Opened::read(&prost::Message::encode_to_vec(message)).expect("what was written is read")
    }

    /// Decodes the bytes of a `Spread` message.
    pub(in crate::cluster) fn read(message: &[u8]) -> Result<Opened, Malformed> {
        let mut opened = Opened::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => opened.floor = value.number()?,
                (2, value) => opened.parts.push(OpenedPart::read(value)?),
                (3, value) => opened.receipt = Receipt::read(value)?,
                (4, value) => {
                    let (line, runs) = read_list(value, |runs, out| runs.append_numbers(out))?;
                    let ranges = from_runs(0, &runs).unwrap_or_default();
                    opened.wants.push(Want { line, ranges });
                }
                (5, value) => opened.lacks.push(read_list(value, |_, _| Ok(()))?.0),
                (6, value) => opened.inquiries.extend(Inquiry::read(value)?),
                (7, value) => opened.holding = Some(read_list(value, |ids, out| ids.append_fixed64(out))?),
                (8, value) => value.append_numbers(&mut opened.uncounted)?,
                (9, value) => opened.probe = Some(value.fixed64()?),
                (11, value) => opened.carried = Some(value.fixed64()?),
                _ => {}
            }
        }
        Ok(opened)
    }
}

/// Decodes a message of two fields: eight bytes that name a line or a life, and a list of numbers.
fn read_list(
    value: Value,
    append: impl Fn(Value, &mut Vec<u64>) -> Result<(), Malformed>,
) -> Result<(u64, Vec<u64>), Malformed> {
    let (mut whose, mut numbers) = (0, Vec::new());
    for field in value.fields()? {
        match field? {
            (1, value) => whose = value.fixed64()?,
            (2, value) => append(value, &mut numbers)?,
            _ => {}
        }
    }
    Ok((whose, numbers))
}

/// A gap that a peer wants filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Hash of the line with the gap.
    pub line: u64,
    /// Ranges of its sequence numbers.
    pub ranges: Vec<SeqRange>,
}

/// A part of two members, of which the holder does not know the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unserved {
    /// The part's number.
    pub number: u64,
    /// Place of the member that is not known.
    pub member: u64,
}

/// Stands for one life of a node in receipts. It has few bits, since it need only distinguish one life from
/// the next.
pub(super) fn life_tag(boot: u64) -> u32 {
    (xxh3_64(&boot.to_le_bytes()) & 0x3FFF) as u32
}

/// A receipt: the parts of its addressee that were taken, and answers about single ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Receipt {
    /// The addressee's life that the numbers are of, as a [`life_tag`].
    pub life: u32,
    /// All parts with smaller numbers are settled.
    pub below: u64,
    /// Further ranges of the numbers of parts that were taken.
    pub ranges: Vec<SeqRange>,
    /// Numbers of parts that the addressee only asked about, and that the sender does not hold.
    pub wanted: Vec<u64>,
    /// Parts of two members of which the sender does not know one.
    pub unserved: Vec<Unserved>,
    /// Numbers of parts whose bodies are being pulled.
    pub pulling: Vec<u64>,
    /// Numbers of parts that are counted, each with the members that hold its batch.
    pub tallies: Vec<(u64, Tally)>,
}

impl Receipt {
    /// Decodes a receipt. `None`: no node would write it.
    fn read(value: Value) -> Result<Option<Receipt>, Malformed> {
        let (mut receipt, mut runs) = (Receipt::default(), Vec::new());
        for field in value.fields()? {
            match field? {
                (1, value) => receipt.life = value.small()?,
                (2, value) => receipt.below = value.number()?,
                (3, value) => value.append_numbers(&mut runs)?,
                (4, value) => value.append_numbers(&mut receipt.wanted)?,
                (5, value) => {
                    let [number, _, member] = read_numbered(value)?;
                    receipt.unserved.push(Unserved { number, member });
                }
                (6, value) => value.append_numbers(&mut receipt.pulling)?,
                (7, value) => {
                    let [number, count, members] = read_numbered(value)?;
                    receipt.tallies.push((number, Tally { count: count as u32, members }));
                }
                _ => {}
            }
        }
        let Some(ranges) = from_runs(receipt.below, &runs) else { return Ok(None) };
        receipt.ranges = ranges;
        Ok(Some(receipt))
    }
}

/// Decodes an answer about one part: its number, a second number that may be missing, and eight bytes.
fn read_numbered(value: Value) -> Result<[u64; 3], Malformed> {
    let mut numbers = [0; 3];
    for field in value.fields()? {
        match field? {
            (1, value) => numbers[0] = value.number()?,
            (2, Value::Number(number)) => numbers[1] = number,
            (2 | 3, value) => numbers[2] = value.fixed64()?,
            _ => {}
        }
    }
    Ok(numbers)
}

/// The question whether a peer holds a record of a source that is at least as new as this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// Number of the question, which the asking node chooses.
    pub id: u64,
    /// The name of the source, as received; it may be invalid.
    pub source: Arc<str>,
    /// The stamp of the record. The answer is yes if the receiver holds this stamp or a greater one.
    pub stamp: Stamp,
    /// Hash of the line that the record was born in.
    pub line: u64,
    /// The record's sequence number in that line.
    pub seq: u64,
}

impl Inquiry {
    /// The question for an awaited record.
    pub fn new(id: u64, awaited: &Awaited) -> Inquiry {
        let birth = &awaited.birth;
        Inquiry {
            id,
            source: awaited.source.as_str().into(),
            stamp: awaited.stamp,
            line: line_hash(&birth.origin, birth.boot),
            seq: birth.seq,
        }
    }

    /// Decodes a question. `None`: no node would write it.
    fn read(value: Value) -> Result<Option<Inquiry>, Malformed> {
        let (mut id, mut source, mut line, mut seq) = (0, "", 0, 0);
        let (mut stamp, mut hash): (_, &[u8]) = (Stamp { ts: 0, deleted: false, hash: 0 }, &[]);
        for field in value.fields()? {
            match field? {
                (1, value) => id = value.fixed64()?,
                (2, value) => source = value.text()?,
                (3, value) => stamp.ts = value.number()?,
                (4, value) => stamp.deleted = value.flag()?,
                (5, value) => hash = value.bytes()?,
                (6, value) => line = value.fixed64()?,
                (7, value) => seq = value.number()?,
                _ => {}
            }
        }
        let Ok(hash) = hash.try_into() else { return Ok(None) };
        stamp.hash = u128::from_le_bytes(hash);
        Ok(Some(Inquiry { id, source: source.into(), stamp, line, seq }))
    }
}

/// A part from a peer, decoded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenedPart {
    /// The part's number on the link.
    pub number: u64,
    /// The request to the receiver; `None`: no node would make it.
    pub header: Option<PartHeader>,
    /// The content of the part.
    pub content: Content,
}

impl OpenedPart {
    /// Returns whether the part has bytes of a batch in it, and is no question and no announcement.
    fn brings_records(&self) -> bool {
        matches!(self.content, Content::Whole(_) | Content::Fragment { .. })
    }
}

/// The content of a part.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// The whole batch, encoded.
    Whole(Bytes),
    /// A fragment of a batch that does not fit into one datagram.
    Fragment {
        /// Index of the piece, from 0.
        index: u32,
        /// Number of pieces.
        count: u32,
        /// The bytes of the piece.
        bytes: Bytes,
    },
    /// Only the name, length and checksum of a batch, which is to be pulled.
    Announced(Announced),
    /// Only the name of a batch: the question whether the receiver holds it.
    Question(BatchId),
}

/// The request to the receiver of a part. If the batch comes in fragments, it stands in the first one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PartHeader {
    /// The range of the ring that the receiver is to answer for.
    pub span: Span,
    /// Only members of this zone are served.
    pub zone: String,
    /// Places of members in the range that are served already.
    pub without: Vec<u64>,
    /// Place of the member that the receiver stands in for, after that one did not answer.
    pub instead_of: Option<u64>,
    /// Number of hand-overs from the origin, this one included.
    pub hops: u32,
    /// Time from the packing of the batch to the sending of this part, in microseconds.
    pub age_us: u32,
    /// Whether a holder nearer to the origin was silent.
    pub is_hurried: bool,
    /// In a part of two members, the place of the member that the part was not handed to.
    pub other: Option<u64>,
    /// Whether the batch fills a gap: then nothing is to be passed on.
    pub is_repair: bool,
    /// Number under which the tally of the range is to be reported; `None`: it is not to be reported.
    pub counted: Option<u64>,
}

impl OpenedPart {
    /// Decodes a part; one that no node would write is marked so.
    fn read(value: Value) -> Result<OpenedPart, Malformed> {
        let (mut header, mut number, mut zone, mut is_counted) = (PartHeader::default(), 0, "", false);
        let (mut batch, mut index, mut count): (&[u8], _, _) = (&[], 0, 0);
        let (mut id, mut body_bytes, mut checksum) = (BatchId::default(), 0, 0);
        for field in value.fields()? {
            match field? {
                (1, value) => number = value.number()?,
                (2, value) => batch = value.bytes()?,
                (3, value) => header.span.from = value.fixed64()?,
                (4, value) => header.span.to = value.fixed64()?,
                (5, value) => zone = value.text()?,
                (6, value) => header.hops = value.small()?,
                (7, value) => header.age_us = value.small()?,
                (8, value) => value.append_fixed64(&mut header.without)?,
                (9, value) => header.instead_of = Some(value.fixed64()?),
                (10, value) => header.other = Some(value.fixed64()?),
                (11, value) => index = value.small()?,
                (12, value) => count = value.small()?,
                (13, value) => header.is_repair = value.flag()?,
                (14, value) => id.line = value.fixed64()?,
                (15, value) => id.first_seq = value.number()?,
                (16, value) => header.is_hurried = value.flag()?,
                (17, value) => body_bytes = value.small()?,
                (18, value) => checksum = value.fixed64()?,
                (19, value) => is_counted = value.flag()?,
                _ => {}
            }
        }
        let content = if count > 0 {
            Content::Fragment { index, count, bytes: Bytes::copy_from_slice(batch) }
        } else if batch.is_empty() && body_bytes > 0 {
            Content::Announced(Announced { batch: id, bytes: body_bytes as usize, checksum })
        } else if batch.is_empty() {
            Content::Question(id)
        } else {
            Content::Whole(Bytes::copy_from_slice(batch))
        };
        let is_sound =
            header.without.len() <= WITHOUT_MAX && zone.len() <= ZONE_BYTES_MAX && header.hops <= HOPS_MAX;
        header.zone = zone.into();
        header.counted = is_counted.then_some(number);
        Ok(OpenedPart { number, header: is_sound.then_some(header), content })
    }
}
