//! What of spreading's messages is believed.
//!
//! A part that no node would write is marked so and costs no other. By hand, as [`super::packet`] writes them:
//! what comes is taken apart where it lies, and the bytes of a batch are copied once, since a batch that is
//! kept must not hold all of its datagram.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::{Announced, BatchId, line_hash};
use super::seqs::from_runs;
use super::span::Span;
use super::tally::Tally;
use super::tree::WITHOUT_MAX;
use crate::cluster::outbox::Awaited;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::record::Stamp;
use crate::record::fields::{Fields, Malformed, Value};

/// Most bytes of one encoded packet: a datagram less its fixed header and what wraps the message.
pub const SPREAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 64;
/// Most bytes of a part's header but zone and `without`, and of what stands around one part that is
/// alone in its packet: the sum of all tags, longest varints and fixed fields.
pub(super) const PART_HEADER_BYTES: usize = 116;
/// Longest name of a zone taken from a peer, in bytes.
pub(super) const ZONE_BYTES_MAX: usize = 255;
/// More hand-overs than any tree has.
const HOPS_MAX: u32 = 64;

const _: () = assert!(PART_HEADER_BYTES + ZONE_BYTES_MAX + 8 * WITHOUT_MAX + 256 < SPREAD_BYTES_MAX);

/// A packet taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// All smaller numbers are settled for the peer.
    pub(super) floor: u64,
    /// What came the other way.
    pub(super) receipt: Option<Receipt>,
    /// In any order.
    pub(super) parts: Vec<OpenedPart>,
    /// Gaps the peer wants filled: the line, and ranges of it.
    pub(super) wants: Vec<(u64, Vec<(u64, u64)>)>,
    /// Lines of the gaps it was asked to fill and cannot.
    pub(super) lacks: Vec<u64>,
    /// What the peer asks whether it is held.
    pub(super) inquiries: Vec<Inquiry>,
    /// The peer's life, and which inquiries it answers with yes.
    pub(super) holding: Option<(u64, Vec<u64>)>,
    /// Numbers of parts whose tallies the peer misses.
    pub(super) uncounted: Vec<u64>,
}

impl Opened {
    /// As it would come from a node that wrote this.
    #[cfg(test)]
    pub(super) fn of(message: &crate::proto::gossip::Spread) -> Opened {
        Opened::read(&prost::Message::encode_to_vec(message)).expect("what was written is read")
    }

    /// Takes the bytes of a `Spread` message apart.
    pub(in crate::cluster) fn read(message: &[u8]) -> Result<Opened, Malformed> {
        let mut opened = Opened::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => opened.floor = value.number()?,
                (2, value) => opened.parts.push(OpenedPart::read(value)?),
                (3, value) => opened.receipt = Receipt::read(value)?,
                (4, value) => {
                    let (line, runs) = read_list(value, |runs, out| runs.append_numbers(out))?;
                    opened.wants.push((line, from_runs(0, &runs).unwrap_or_default()));
                }
                (5, value) => opened.lacks.push(read_list(value, |_, _| Ok(()))?.0),
                (6, value) => opened.inquiries.extend(Inquiry::read(value)?),
                (7, value) => opened.holding = Some(read_list(value, |ids, out| ids.append_fixed64(out))?),
                (8, value) => value.append_numbers(&mut opened.uncounted)?,
                _ => {}
            }
        }
        Ok(opened)
    }
}

/// What stands in a message of eight bytes that say whose it is, and a list of numbers.
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

#[cfg(test)]
impl super::Packet {
    /// As the generated code reads it.
    pub(super) fn to_proto(&self) -> crate::proto::gossip::Spread {
        let mut out = Vec::new();
        self.write(&mut out);
        prost::Message::decode(&out[..]).expect("what was written is read")
    }
}

/// What stands for a life of a node in receipts: few bits, since it only tells one life from the next.
pub(super) fn life_tag(boot: u64) -> u32 {
    (xxh3_64(&boot.to_le_bytes()) & 0x3FFF) as u32
}

/// Which parts were taken into custody.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Receipt {
    /// Which life of the addressee it is about.
    pub life: u32,
    /// All parts with smaller numbers are settled.
    pub below: u64,
    /// First and last number of each further run.
    pub ranges: Vec<(u64, u64)>,
    /// Parts asked about that are not here.
    pub wanted: Vec<u64>,
    /// Members that the holder of a part does not know, by number of the part.
    pub unserved: Vec<(u64, u64)>,
    /// Parts whose bodies are being pulled.
    pub pulling: Vec<u64>,
    /// Who holds the batches of parts that are counted, by number of the part.
    pub tallies: Vec<(u64, Tally)>,
}

impl Receipt {
    /// `None`: no node would write it.
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
                    receipt.unserved.push((number, member));
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

/// What is said of one part: two varints, of which there may be one, and eight bytes.
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

/// Whether what is held of a source is as new as this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// Chosen by who asks.
    pub id: u64,
    /// Of which source; as it came, which may be no source's name.
    pub source: Arc<str>,
    /// As new as what.
    pub stamp: Stamp,
    /// Where the record was born: hash of origin and boot, and sequence number.
    pub line: u64,
    /// Its number there.
    pub seq: u64,
}

impl Inquiry {
    /// About an awaited record.
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

    /// `None`: no node would write it.
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

/// A part as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenedPart {
    /// Counts what the peer handed over.
    pub number: u64,
    /// What is asked of the receiver; `None`: no node would ask it.
    pub header: Option<PartHeader>,
    /// What came with it.
    pub content: Content,
}

/// What a part carries.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// A batch.
    Whole(Bytes),
    /// One of several pieces of a batch.
    Fragment {
        /// Which, from 0.
        index: u32,
        /// Of how many.
        count: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// A batch to be pulled.
    Announced(Announced),
    /// Whether this batch is here.
    Question(BatchId),
}

/// What is asked of the receiver of a part. Of fragments the first has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PartHeader {
    /// The range to answer for.
    pub span: Span,
    /// Members of this zone alone.
    pub zone: String,
    /// Places in it that are served already.
    pub without: Vec<u64>,
    /// Whose place is taken after a failure.
    pub instead_of: Option<u64>,
    /// Hand-overs so far.
    pub hops: u32,
    /// Age of the batch when it was sent, in microseconds.
    pub age_us: u32,
    /// Whether somebody above was found silent.
    pub is_hurried: bool,
    /// In a part of two: the other one.
    pub other: Option<u64>,
    /// An answer to a want: nothing is to be passed on.
    pub is_repair: bool,
    /// Under which number the tally of the range is to be reported, if at all.
    pub counted: Option<u64>,
}

impl OpenedPart {
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
