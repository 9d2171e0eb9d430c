//! What spreading says on the wire, and what of it is believed.
//!
//! One [`Packet`] is what one datagram of a link carries. It is filled part by part, until nothing
//! more fits, and encoded once with the datagram around it; what comes is taken apart by moving. A
//! part that no node would write is marked so and costs no other; the bytes of a batch are shared
//! with the datagram they came in, and copied only where they are read.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::batch::{BatchId, line_hash};
use super::bodies::Announced;
use super::duty::Duty;
use super::link::Note;
use super::seqs::{from_runs, to_runs};
use super::span::Span;
use super::tally::Tally;
use super::tree::WITHOUT_MAX;
use crate::cluster::outbox::Awaited;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::proto::gossip as proto;
use crate::record::Stamp;

/// Most bytes of one encoded packet: a datagram less its fixed header and what wraps the message.
pub const SPREAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 64;
/// Most bytes of a part's header but zone and `without`, and of what stands around one part that is
/// alone in its packet: the sum of all tags, longest varints and fixed fields.
pub(super) const PART_HEADER_BYTES: usize = 116;
/// Longest name of a zone taken from a peer, in bytes.
pub(super) const ZONE_BYTES_MAX: usize = 255;
/// Bytes of the floor, with its tag.
const FLOOR_BYTES: usize = 11;
/// Bytes of tag and length around a part, and around a want.
const PART_FRAME_BYTES: usize = 3;
const NOTE_FRAME_BYTES: usize = 4;
/// More hand-overs than any tree has.
const HOPS_MAX: u32 = 64;

const _: () = assert!(PART_HEADER_BYTES + ZONE_BYTES_MAX + 8 * WITHOUT_MAX + 256 < SPREAD_BYTES_MAX);

/// What one datagram of a link carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packet {
    message: proto::Spread,
    /// What it takes of [`SPREAD_BYTES_MAX`], the floor included.
    bytes: usize,
}

impl Packet {
    /// A packet with nothing but a receipt in it, if there is one.
    pub(super) fn new(receipt: Option<Receipt>) -> Packet {
        let receipt = receipt.map(Receipt::into_proto);
        let message = proto::Spread { receipt, ..proto::Spread::default() };
        Packet { bytes: message.encoded_len() + FLOOR_BYTES, message }
    }

    /// Puts a note in; `false`: it does not fit.
    pub(super) fn push_note(&mut self, note: &Note) -> bool {
        let want = proto::Want { line: note.line, runs: to_runs(0, &note.ranges) };
        let bytes = self.bytes + want.encoded_len() + NOTE_FRAME_BYTES;
        if bytes > SPREAD_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        if note.is_want {
            self.message.wants.push(want)
        } else {
            self.message.lacks.push(want)
        }
        true
    }

    /// Puts in a fragment of a duty's batch, or the question whether it is there; returns its bytes.
    /// `None`: it does not fit.
    pub(super) fn push_part(
        &mut self,
        number: u64,
        fragment: u32,
        ask: bool,
        duty: &Duty,
        now_us: u64,
    ) -> Option<usize> {
        let part = part_to_proto(number, fragment, ask, duty, now_us);
        let len = part.encoded_len() + PART_FRAME_BYTES;
        if self.bytes + len > SPREAD_BYTES_MAX {
            return None;
        }
        self.bytes += len;
        self.message.parts.push(part);
        Some(len)
    }

    /// Puts a question in; `false`: it does not fit.
    pub(super) fn push_inquiry(&mut self, inquiry: &Inquiry) -> bool {
        let message = inquiry.to_proto();
        let bytes = self.bytes + message.encoded_len() + PART_FRAME_BYTES;
        if bytes > SPREAD_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.message.inquiries.push(message);
        true
    }

    /// Puts in that `member`, the sender, holds what it was asked about. As many answers fit as fit
    /// questions.
    pub(super) fn push_holding(&mut self, member: u64, id: u64) {
        let holding = self.message.holding.get_or_insert_default();
        holding.member = member;
        holding.ids.push(id);
    }

    /// Whether it answers any question.
    pub(super) fn has_holding(&self) -> bool {
        self.message.holding.is_some()
    }

    /// Asks for the tally of the part of this number again.
    pub(super) fn push_uncounted(&mut self, number: u64) {
        self.message.uncounted.push(number);
    }

    /// Tells the peer that everything with a smaller number is settled.
    pub(super) fn set_floor(&mut self, floor: u64) {
        self.message.floor = floor;
    }

    /// Whether there is nothing in it but, perhaps, a receipt.
    pub(super) fn is_bare(&self) -> bool {
        self.message.parts.is_empty() && self.message.wants.is_empty() && self.message.lacks.is_empty()
    }

    pub(super) fn has_receipt(&self) -> bool {
        self.message.receipt.is_some()
    }

    /// Its length on the wire.
    pub(super) fn encoded_len(&self) -> usize {
        self.message.encoded_len()
    }

    /// What a peer sent.
    pub(in crate::cluster) fn from_proto(message: proto::Spread) -> Packet {
        Packet { message, bytes: 0 }
    }

    /// What is sent.
    pub(in crate::cluster) fn into_proto(self) -> proto::Spread {
        self.message
    }

    /// As it stands on the wire.
    #[cfg(test)]
    pub(super) fn as_proto(&self) -> &proto::Spread {
        &self.message
    }

    /// Takes it apart.
    pub(super) fn open(self) -> Opened {
        let proto::Spread { floor, parts, receipt, wants, lacks, inquiries, holding, uncounted } =
            self.message;
        let want = |want: proto::Want| (want.line, from_runs(0, &want.runs).unwrap_or_default());
        Opened {
            floor,
            receipt: receipt.and_then(Receipt::from_proto),
            parts: parts.into_iter().map(Part::from_proto).collect(),
            wants: wants.into_iter().map(want).collect(),
            lacks: lacks.into_iter().map(|lack| lack.line).collect(),
            inquiries: inquiries.into_iter().filter_map(Inquiry::from_proto).collect(),
            holding: holding.map(|holding| (holding.member, holding.ids)),
            uncounted,
        }
    }
}

/// A packet taken apart.
pub(super) struct Opened {
    /// All smaller numbers are settled for the peer.
    pub floor: u64,
    /// What came the other way.
    pub receipt: Option<Receipt>,
    /// In any order.
    pub parts: Vec<Part>,
    /// Gaps the peer wants filled: the line, and ranges of it.
    pub wants: Vec<(u64, Vec<(u64, u64)>)>,
    /// Lines of the gaps it was asked to fill and cannot.
    pub lacks: Vec<u64>,
    /// What the peer asks whether it is held.
    pub inquiries: Vec<Inquiry>,
    /// The peer's life, and which inquiries it answers with yes.
    pub holding: Option<(u64, Vec<u64>)>,
    /// Numbers of parts whose tallies the peer misses.
    pub uncounted: Vec<u64>,
}

/// Which parts were taken into custody.
#[derive(Debug)]
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
    fn into_proto(self) -> proto::Receipt {
        let unserved = self.unserved.into_iter();
        proto::Receipt {
            life: self.life,
            below: self.below,
            runs: to_runs(self.below, &self.ranges),
            wanted: self.wanted,
            unserved: unserved.map(|(number, member)| proto::Unserved { number, member }).collect(),
            pulling: self.pulling,
            tallies: self
                .tallies
                .into_iter()
                .map(|(number, Tally { count, members })| proto::Tally { number, count, members })
                .collect(),
        }
    }

    fn from_proto(receipt: proto::Receipt) -> Option<Receipt> {
        let unserved = receipt.unserved.into_iter();
        Some(Receipt {
            life: receipt.life,
            below: receipt.below,
            ranges: from_runs(receipt.below, &receipt.runs)?,
            wanted: receipt.wanted,
            unserved: unserved.map(|answer| (answer.number, answer.member)).collect(),
            pulling: receipt.pulling,
            tallies: receipt
                .tallies
                .into_iter()
                .map(|proto::Tally { number, count, members }| (number, Tally { count, members }))
                .collect(),
        })
    }
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

    fn to_proto(&self) -> proto::Inquiry {
        proto::Inquiry {
            id: self.id,
            source: self.source.as_ref().into(),
            ts: self.stamp.ts,
            deleted: self.stamp.deleted,
            hash: Bytes::copy_from_slice(&self.stamp.hash.to_le_bytes()),
            line: self.line,
            seq: self.seq,
        }
    }

    fn from_proto(inquiry: proto::Inquiry) -> Option<Inquiry> {
        let hash = u128::from_le_bytes(inquiry.hash.as_ref().try_into().ok()?);
        Some(Inquiry {
            id: inquiry.id,
            source: inquiry.source.into(),
            stamp: Stamp { ts: inquiry.ts, deleted: inquiry.deleted, hash },
            line: inquiry.line,
            seq: inquiry.seq,
        })
    }
}

/// A part as it came.
pub(super) struct Part {
    /// Counts what the peer handed over.
    pub number: u64,
    /// What is asked of the receiver; `None`: no node would ask it.
    pub header: Option<Header>,
    /// What came with it.
    pub content: Content,
}

/// What a part carries.
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
#[derive(Clone, Debug)]
pub(super) struct Header {
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

impl Part {
    fn from_proto(part: proto::Part) -> Part {
        let content = if part.fragments > 0 {
            Content::Fragment { index: part.fragment, count: part.fragments, bytes: part.batch }
        } else if part.batch.is_empty() && part.body_bytes > 0 {
            let (batch, bytes) = ((part.line, part.first_seq), part.body_bytes as usize);
            Content::Announced(Announced { batch, bytes, checksum: part.body_checksum })
        } else if part.batch.is_empty() {
            Content::Question((part.line, part.first_seq))
        } else {
            Content::Whole(part.batch)
        };
        let is_sound =
            part.without.len() <= WITHOUT_MAX && part.zone.len() <= ZONE_BYTES_MAX && part.hops <= HOPS_MAX;
        let header = is_sound.then_some(Header {
            span: Span { from: part.from, to: part.to },
            zone: part.zone,
            without: part.without,
            instead_of: part.instead_of,
            hops: part.hops,
            age_us: part.age_us,
            is_hurried: part.hurried,
            other: part.other,
            is_repair: part.repair,
            counted: part.counted.then_some(part.number),
        });
        Part { number: part.number, header, content }
    }
}

fn part_to_proto(number: u64, fragment: u32, ask: bool, duty: &Duty, now_us: u64) -> proto::Part {
    let mut message = proto::Part { number, repair: duty.is_repair, ..proto::Part::default() };
    if duty.fragments > 1 {
        message.fragment = fragment;
        message.fragments = duty.fragments;
    }
    if fragment == 0 {
        let part = &duty.part;
        let age_us = part.age_us + now_us.saturating_sub(duty.since_us);
        message.from = part.span.from;
        message.to = part.span.to;
        message.zone = part.zone.as_ref().into();
        message.hops = part.hops;
        message.age_us = u32::try_from(age_us).unwrap_or(u32::MAX);
        message.without.clone_from(&part.without);
        message.instead_of = part.instead_of;
        message.other = duty.other;
        message.hurried = part.is_hurried;
        message.counted = duty.counted.is_some();
    }
    if ask {
        (message.line, message.first_seq) = duty.batch.id;
    } else if let Some(announced) = Announced::of(&duty.batch) {
        (message.line, message.first_seq) = announced.batch;
        message.body_bytes = u32::try_from(announced.bytes).unwrap_or(u32::MAX);
        message.body_checksum = announced.checksum;
    } else {
        let encoded = &duty.batch.encoded;
        let from = (fragment as usize * duty.fragment_bytes).min(encoded.len());
        let to = (from + duty.fragment_bytes).min(encoded.len());
        message.batch = encoded.slice(from..to);
    }
    message
}
