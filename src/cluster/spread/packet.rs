//! A packet: the content of one datagram of a link, filled part by part until nothing more fits.
//!
//! It is encoded by hand into the form of a `Spread` message. Most bytes of a datagram that brings records
//! are those of one batch, which are copied once this way; all else is a few numbers.

use prost::encoding::encoded_len_varint;

use super::batch::Announced;
use super::codec::BATCH_BYTES_MAX;
use super::duty::{Duty, RangeTask};
use super::link::Note;
use super::seqs::to_runs;
use super::tree::WITHOUT_MAX;
use super::unsettled::UnsettledPart;
use super::wire::{Inquiry, PART_HEADER_BYTES, Receipt, ZONE_BYTES_MAX, packet_bytes_max};
use crate::cluster::seal::BODY_BYTES_MIN;
use crate::record::fields::{
    write_bytes, write_field, write_fixed64, write_fixed64s, write_message, write_message_of, write_number,
    write_numbers, write_some_fixed64,
};

/// Most bytes of the floor, with its tag.
const FLOOR_BYTES: usize = 11;
/// Bytes of tag and length around a part.
const PART_FRAME_BYTES: usize = 3;
/// Bytes of a place of the ring, with its tag.
const RING_PLACE_BYTES: usize = 9;
/// Most bytes of the fields of a part beside the bytes of its batch, the places, `zone` and `without`: the
/// number, the hops, the age, the index and number of fragments, the three flags, and the tags and lengths of
/// `batch`, `zone` and `without`.
const PART_NUMBERS_BYTES: usize = 11 + 2 + 6 + 2 * 3 + (2 + 3 + 3) + 3 * 3;
/// Most bytes of a packet around the bytes of a batch, for a part without `zone`, `without` and `instead_of`. Its
/// places are the two ends of its span, and `other`.
const PART_BYTES: usize = FLOOR_BYTES + PART_FRAME_BYTES + PART_NUMBERS_BYTES + 3 * RING_PLACE_BYTES;

const _: () = assert!(
    PART_BYTES + RING_PLACE_BYTES <= PART_HEADER_BYTES,
    "whatever the part asks for, its header takes no more than a part is said to take"
);
const _: () = assert!(
    BATCH_BYTES_MAX + PART_BYTES <= packet_bytes_max(BODY_BYTES_MIN),
    "a batch of several records fits into one packet, whatever the seal"
);
/// Most bytes of a probe beside its padding, the floor included.
const PROBE_FRAME_BYTES: usize = FLOOR_BYTES + 9 + 3;
/// Bytes of the answer to a probe.
const CARRIED_BYTES: usize = 9;
/// Bytes of tag and length around a want or a lack.
const NOTE_FRAME_BYTES: usize = 4;

/// Number of bytes of a batch that fit into one packet of `packet_bytes_max` bytes beside the header of a
/// part.
pub(super) fn batch_room(packet_bytes_max: usize, part: &RangeTask) -> usize {
    let zone = part.zone.len().min(ZONE_BYTES_MAX);
    let instead_of = if part.instead_of.is_some() { RING_PLACE_BYTES } else { 0 };
    packet_bytes_max - PART_BYTES - zone - instead_of - 8 * part.without.len().min(WITHOUT_MAX)
}

/// The content of one datagram of a link, in its encoded form.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    /// The least number of a part that is not settled for the peer.
    floor: u64,
    /// The parts, encoded.
    parts: Vec<u8>,
    /// Encoded receipt, wants, lacks and inquiries.
    rest: Vec<u8>,
    /// Hash of the sender's life, and the inquiries that it answers with yes.
    holding: Option<(u64, Vec<u64>)>,
    /// Numbers of the peer's parts whose tallies are missing.
    uncounted: Vec<u64>,
    /// The number of a probe, and the bytes of padding that make the packet as large as is to be tried.
    probe: Option<(u64, usize)>,
    has_receipt: bool,
    has_notes: bool,
    /// Most bytes that the content takes, the floor included.
    bytes: usize,
    /// Most bytes that the encoded packet may have.
    bytes_max: usize,
}

impl Packet {
    /// An empty packet of at most `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Packet {
        Packet::default().begin(bytes_max, None)
    }

    /// Empties the packet without giving its memory back, and adds the receipt, if there is one. From now on
    /// the packet takes at most `bytes_max`.
    pub(super) fn begin(mut self, bytes_max: usize, receipt: Option<&Receipt>) -> Packet {
        self.parts.clear();
        self.rest.clear();
        if let Some(receipt) = receipt {
            write_message(&mut self.rest, 3, |out| write_receipt(out, receipt));
        }
        Packet {
            bytes: self.rest.len() + FLOOR_BYTES,
            bytes_max,
            has_receipt: receipt.is_some(),
            parts: self.parts,
            rest: self.rest,
            ..Packet::default()
        }
    }

    /// Adds a want or a lack; `false`: it does not fit.
    pub(super) fn push_note(&mut self, note: &Note) -> bool {
        let fits = self.push_rest(if note.is_want { 4 } else { 5 }, NOTE_FRAME_BYTES, |out| {
            write_fixed64(out, 1, note.line);
            write_numbers(out, 2, to_runs(0, &note.ranges));
        });
        self.has_notes |= fits;
        fits
    }

    /// Adds an inquiry; `false`: it does not fit.
    pub(super) fn push_inquiry(&mut self, inquiry: &Inquiry) -> bool {
        self.push_rest(6, PART_FRAME_BYTES, |out| {
            write_fixed64(out, 1, inquiry.id);
            write_bytes(out, 2, inquiry.source.as_bytes());
            write_number(out, 3, inquiry.stamp.ts);
            write_number(out, 4, u64::from(inquiry.stamp.deleted));
            write_field(out, 5, &inquiry.stamp.hash.to_le_bytes());
            write_fixed64(out, 6, inquiry.line);
            write_number(out, 7, inquiry.seq);
        })
    }

    /// Adds a message to `rest`; `false`: it does not fit.
    fn push_rest(&mut self, field: u32, frame_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.rest.len();
        let bytes = write_counted(&mut self.rest, field, 0, write) + frame_bytes;
        if self.bytes + bytes > self.bytes_max {
            self.rest.truncate(before);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Adds a fragment of a duty's batch, or the question whether the batch is there; returns the bytes that
    /// it takes. `None`: it does not fit.
    pub(super) fn push_part(
        &mut self,
        number: u64,
        sent: &UnsettledPart,
        duty: &Duty,
        now_us: u64,
    ) -> Option<usize> {
        let before = self.parts.len();
        let write = |out: &mut Vec<u8>| write_part(out, number, sent, duty, now_us);
        let bytes = write_counted(&mut self.parts, 2, sent.bytes as usize, write) + PART_FRAME_BYTES;
        if self.bytes + bytes > self.bytes_max {
            self.parts.truncate(before);
            return None;
        }
        self.bytes += bytes;
        Some(bytes)
    }

    /// Adds that `member`, which sends this packet, holds what the inquiry `id` asks about. All answers to
    /// the inquiries of one packet fit into one.
    pub(super) fn push_holding(&mut self, member: u64, id: u64) {
        let holding = self.holding.get_or_insert_default();
        holding.0 = member;
        holding.1.push(id);
    }

    /// Adds the question for the tally of the part of this number.
    pub(super) fn push_uncounted(&mut self, number: u64) {
        self.uncounted.push(number);
    }

    /// A packet of `bytes` that tries whether the path carries it, for the peer to answer with `number`.
    pub(super) fn of_probe(number: u64, bytes: usize) -> Packet {
        let mut packet = Packet::new(bytes);
        packet.probe = Some((number, bytes.saturating_sub(PROBE_FRAME_BYTES)));
        packet
    }

    /// Adds the answer to a probe of the peer; `false`: it does not fit.
    pub(super) fn push_carried(&mut self, number: u64) -> bool {
        if self.bytes + CARRIED_BYTES > self.bytes_max {
            return false;
        }
        write_fixed64(&mut self.rest, 11, number);
        self.bytes += CARRIED_BYTES;
        self.has_notes = true;
        true
    }

    /// Returns whether the packet may be larger than `bytes`.
    pub(super) fn is_large(&self, bytes: usize) -> bool {
        self.bytes > bytes
    }

    /// Sets the floor: the peer learns that all parts with smaller numbers are settled.
    pub(super) fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    /// Returns whether the packet contains neither parts nor wants nor lacks.
    pub(super) fn is_bare(&self) -> bool {
        self.parts.is_empty() && !self.has_notes
    }

    /// Returns whether the packet contains a receipt.
    pub(super) fn has_receipt(&self) -> bool {
        self.has_receipt
    }

    /// Number of bytes that are left in the packet.
    pub(super) fn room_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.encoded_len())
    }

    /// Length of the encoded message, in bytes.
    pub(in crate::cluster) fn encoded_len(&self) -> usize {
        let floor_bytes = if self.floor == 0 { 0 } else { 1 + encoded_len_varint(self.floor) };
        // Answers and questions of this kind are rare.
        let asides_bytes = match self.holding.is_none() && self.uncounted.is_empty() && self.probe.is_none() {
            true => 0,
            false => {
                let mut asides = Vec::new();
                self.write_asides(&mut asides);
                asides.len()
            }
        };
        floor_bytes + self.parts.len() + self.rest.len() + asides_bytes
    }

    /// Appends the packet as an encoded `Spread` message.
    pub(in crate::cluster) fn write(&self, out: &mut Vec<u8>) {
        write_number(out, 1, self.floor);
        out.extend_from_slice(&self.parts);
        out.extend_from_slice(&self.rest);
        self.write_asides(out);
    }

    /// Appends answers to inquiries, questions for tallies, and a probe.
    fn write_asides(&self, out: &mut Vec<u8>) {
        if let Some((member, ids)) = &self.holding {
            write_message(out, 7, |out| {
                write_fixed64(out, 1, *member);
                write_fixed64s(out, 2, ids);
            });
        }
        write_numbers(out, 8, self.uncounted.iter().copied());
        if let Some((number, padding)) = self.probe {
            write_fixed64(out, 9, number);
            write_bytes(out, 10, &vec![0; padding]);
        }
    }
}

/// Appends a message of about `usual_len` bytes as a field; returns its bytes without tag and length.
fn write_counted(out: &mut Vec<u8>, field: u32, usual_len: usize, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let mut bytes = 0;
    write_message_of(out, field, usual_len, |out| {
        let before = out.len();
        write(out);
        bytes = out.len() - before;
    });
    bytes
}

/// Appends the fields of a receipt.
fn write_receipt(out: &mut Vec<u8>, receipt: &Receipt) {
    write_number(out, 1, u64::from(receipt.life));
    write_number(out, 2, receipt.below);
    if !receipt.ranges.is_empty() {
        write_numbers(out, 3, to_runs(receipt.below, &receipt.ranges));
    }
    write_numbers(out, 4, receipt.wanted.iter().copied());
    for unserved in &receipt.unserved {
        write_message(out, 5, |out| {
            write_number(out, 1, unserved.number);
            write_fixed64(out, 2, unserved.member);
        });
    }
    write_numbers(out, 6, receipt.pulling.iter().copied());
    for (number, tally) in &receipt.tallies {
        write_message(out, 7, |out| {
            write_number(out, 1, *number);
            write_number(out, 2, u64::from(tally.count));
            write_fixed64(out, 3, tally.members);
        });
    }
}

/// Appends the fields of a part.
fn write_part(out: &mut Vec<u8>, number: u64, sent: &UnsettledPart, duty: &Duty, now_us: u64) {
    let UnsettledPart { fragment, ask, .. } = *sent;
    let announced = if ask { None } else { Announced::of(&duty.batch) };
    write_number(out, 1, number);
    if !ask && announced.is_none() {
        let encoded = &duty.batch.encoded;
        let from = (fragment as usize * duty.fragment_bytes).min(encoded.len());
        let to = (from + duty.fragment_bytes).min(encoded.len());
        write_bytes(out, 2, encoded.get(from..to).unwrap_or_default());
    }
    let (part, is_first) = (&duty.part, fragment == 0);
    if is_first {
        let age_us = part.age_us + now_us.saturating_sub(duty.since_us);
        write_fixed64(out, 3, part.span.from);
        write_fixed64(out, 4, part.span.to);
        write_bytes(out, 5, part.zone.as_bytes());
        write_number(out, 6, u64::from(part.hops));
        write_number(out, 7, age_us.min(u64::from(u32::MAX)));
        write_fixed64s(out, 8, &part.without);
        write_some_fixed64(out, 9, part.instead_of);
        write_some_fixed64(out, 10, duty.other);
    }
    if duty.fragments > 1 {
        write_number(out, 11, u64::from(fragment));
        write_number(out, 12, u64::from(duty.fragments));
    }
    write_number(out, 13, u64::from(duty.is_repair));
    if ask || announced.is_some() {
        write_fixed64(out, 14, duty.batch.id.line);
        write_number(out, 15, duty.batch.id.first_seq);
    }
    write_number(out, 16, u64::from(is_first && part.is_hurried));
    if let Some(Announced { bytes, checksum, .. }) = announced {
        write_number(out, 17, (bytes as u64).min(u64::from(u32::MAX)));
        write_fixed64(out, 18, checksum);
    }
    write_number(out, 19, u64::from(is_first && duty.counted.is_some()));
}
