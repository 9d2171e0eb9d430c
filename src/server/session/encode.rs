//! Encodes records as messages, and changes as frames that are ready to be copied into the buffers of
//! connections.

use std::ops::Range;

use super::names::name_key;
use crate::expression::ConvertedData;
use crate::ingest::Change;
use crate::protocol::{json, protobuf};
use crate::record::Record;
use crate::server::framing::message::{CODECS, Codec};
use crate::server::framing::wrap::{self, Framing};

/// The form in which a subscriber is told of a record. Of two forms of the same record, the later one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SentForm {
    /// The record with its data, or a record that is a deletion by itself.
    Whole,
    /// A filter is not true of the record, and was true of the one before.
    Gone,
    /// A deletion, because the time to live of the value has ended.
    Deleted,
}

/// Appends the message of one record, without a frame.
pub(super) fn write_record(out: &mut Vec<u8>, codec: Codec, record: &Record, form: SentForm) {
    match (codec, form) {
        (Codec::Json, SentForm::Gone) => json::write_gone(out, record),
        (Codec::Protobuf, SentForm::Gone) => protobuf::write_gone(out, record),
        (Codec::Json, form) => json::write_record(out, record, form == SentForm::Deleted),
        (Codec::Protobuf, form) => protobuf::write_record(out, record, form == SentForm::Deleted),
    }
}

/// A change as it is sent: encoded when the first connection of a codec and framing wants it, and then
/// copied.
///
/// The worker keeps a number of these, [clears](EncodedChange::clear) them after use, and uses them and their
/// memory again.
#[derive(Debug, Default)]
pub struct EncodedChange {
    /// [`name_key`] of the source, once it is asked for.
    key: Option<u64>,
    /// The encoded forms, each at its [`form`].
    encoded: [Encoded; FORMS],
    /// The place among those that the worker keeps.
    place: usize,
    /// What filters have asked for.
    filtered: FilteredChange,
}

/// The data of a change, for the filters that it is judged by.
#[derive(Debug, Default)]
struct FilteredChange {
    /// Number of the filters that have asked for the data.
    lookups: u32,
    /// The data as a value, once many filters have asked for it.
    converted: Option<Box<ConvertedData>>,
}

/// A message and its frame, in one piece of memory.
#[derive(Debug, Default)]
struct Encoded {
    /// The frame, behind what is left of the room for it. Empty until a connection wants it.
    bytes: Vec<u8>,
    /// Position in `bytes` at which the frame begins; it reaches to the end.
    frame_at: usize,
    /// The place of the message in `bytes`.
    message: Range<usize>,
}

/// Number of forms in which a change is sent: a WebSocket has messages of each codec, and a stream of events has JSON.
const FORMS: usize = CODECS.len() + 1;

/// The place of a form among all forms, below [`FORMS`].
fn form(framing: Framing, codec: Codec) -> usize {
    match framing {
        Framing::WebSocket => codec.index(),
        Framing::EventStream => CODECS.len(),
    }
}

/// Memory that each encoded form keeps from one change to the next, in bytes.
const KEPT_CHANGE_BYTES_MAX: usize = 1024;

impl EncodedChange {
    /// Makes the one that is at this place among those that a worker keeps.
    pub fn at(place: usize) -> EncodedChange {
        EncodedChange { place, ..EncodedChange::default() }
    }

    /// The place among those that the worker keeps.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Returns the data as a value, if more than `least` filters have asked for it. `json` is the text of the data.
    pub(super) fn converted(&mut self, json: &str, least: u32) -> Option<&ConvertedData> {
        self.filtered.lookups += 1;
        if self.filtered.lookups <= least {
            return None;
        }
        let converted = self.filtered.converted.get_or_insert_with(|| ConvertedData::of(json).into());
        Some(converted)
    }

    /// Forgets the change, and keeps a bounded part of the memory.
    pub fn clear(&mut self) {
        self.key = None;
        if self.filtered.lookups > 0 {
            self.filtered = FilteredChange::default();
        }
        for encoded in self.encoded.iter_mut().filter(|encoded| !encoded.bytes.is_empty()) {
            encoded.bytes.clear();
            encoded.bytes.shrink_to(KEPT_CHANGE_BYTES_MAX);
        }
    }

    fn encoded(&mut self, framing: Framing, codec: Codec, change: &Change) -> &Encoded {
        let encoded = &mut self.encoded[form(framing, codec)];
        if encoded.bytes.is_empty() {
            wrap::make_room(&mut encoded.bytes);
            let form = if change.is_expiry { SentForm::Deleted } else { SentForm::Whole };
            write_record(&mut encoded.bytes, codec, &change.record, form);
            encoded.message = wrap::ROOM_BYTES..encoded.bytes.len();
            encoded.frame_at = framing.wrap(codec, &mut encoded.bytes, wrap::ROOM_BYTES);
        }
        encoded
    }

    /// The hash of the source's name, by [`name_key`]. It is made once for all connections.
    pub(super) fn key(&mut self, change: &Change) -> u64 {
        *self.key.get_or_insert_with(|| name_key(change.record.source.as_str()))
    }

    /// The change as a whole frame.
    pub(super) fn frame(&mut self, framing: Framing, codec: Codec, change: &Change) -> &[u8] {
        let encoded = self.encoded(framing, codec, change);
        &encoded.bytes[encoded.frame_at..]
    }

    /// The change as a message, without a frame.
    pub(super) fn message(&mut self, framing: Framing, codec: Codec, change: &Change) -> &[u8] {
        let encoded = self.encoded(framing, codec, change);
        &encoded.bytes[encoded.message.clone()]
    }
}
