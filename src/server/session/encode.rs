//! Encodes records as messages, and changes as frames that are ready to be copied into the buffers of
//! connections.

use std::ops::Range;

use super::names::name_key;
use crate::ingest::Change;
use crate::protocol::{json, protobuf};
use crate::record::Record;
use crate::server::framing::message::{CODECS, Codec};
use crate::server::framing::wrap::{self, Framing};

/// Appends the message of one record, without a frame.
pub(super) fn write_record(out: &mut Vec<u8>, codec: Codec, record: &Record, as_deleted: bool) {
    match codec {
        Codec::Json => json::write_record(out, record, as_deleted),
        Codec::Protobuf => protobuf::write_record(out, record, as_deleted),
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
    /// Forgets the change, and keeps a bounded part of the memory.
    pub fn clear(&mut self) {
        self.key = None;
        for encoded in self.encoded.iter_mut().filter(|encoded| !encoded.bytes.is_empty()) {
            encoded.bytes.clear();
            encoded.bytes.shrink_to(KEPT_CHANGE_BYTES_MAX);
        }
    }

    fn encoded(&mut self, framing: Framing, codec: Codec, change: &Change) -> &Encoded {
        let encoded = &mut self.encoded[form(framing, codec)];
        if encoded.bytes.is_empty() {
            wrap::make_room(&mut encoded.bytes);
            write_record(&mut encoded.bytes, codec, &change.record, change.is_expiry);
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
