//! Messages and frames, ready to be copied into the buffers of connections.

use super::Codec;
use super::names::name_key;
use crate::ingest::Change;
use crate::protocol::{json, protobuf};
use crate::record::Record;
use crate::server::frame::{HEAD_BYTES_MAX, head};

/// Appends a frame.
pub(super) fn append_frame(out: &mut Vec<u8>, codec: Codec, payload: &[u8]) {
    let (head, len) = head(codec.first_byte(), payload.len());
    out.reserve(len + payload.len());
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(payload);
}

/// Appends the message of one record, without a frame.
pub(super) fn write_record(out: &mut Vec<u8>, codec: Codec, record: &Record, as_deleted: bool) {
    match codec {
        Codec::Json => json::write_record(out, record, as_deleted),
        Codec::Protobuf => protobuf::write_record(out, record, as_deleted),
    }
}

/// A change as it is sent: encoded when the first connection of a codec wants it, and then copied.
///
/// The worker keeps some, [clears](EncodedChange::clear) them and uses them, and their memory, again.
#[derive(Debug, Default)]
pub struct EncodedChange {
    /// [`name_key`] of the source, once it is asked for.
    key: Option<u64>,
    json: Encoded,
    protobuf: Encoded,
}

#[derive(Debug, Default)]
struct Encoded {
    /// The payload, behind room for a head.
    bytes: Vec<u8>,
    /// Where the frame begins; the payload begins at [`HEAD_BYTES_MAX`].
    start: usize,
}

/// Memory kept from one change to the next, in bytes: a few hundred of them are kept.
const KEPT_BYTES_MAX: usize = 1024;

impl EncodedChange {
    /// Forgets the change.
    pub fn clear(&mut self) {
        self.key = None;
        for encoded in [&mut self.json, &mut self.protobuf] {
            encoded.bytes.clear();
            encoded.bytes.shrink_to(KEPT_BYTES_MAX);
        }
    }

    fn encoded(&mut self, codec: Codec, change: &Change) -> &Encoded {
        let encoded = match codec {
            Codec::Json => &mut self.json,
            Codec::Protobuf => &mut self.protobuf,
        };
        if encoded.bytes.is_empty() {
            encoded.bytes.resize(HEAD_BYTES_MAX, 0);
            write_record(&mut encoded.bytes, codec, &change.record, change.is_expiry);
            let (head, len) = head(codec.first_byte(), encoded.bytes.len() - HEAD_BYTES_MAX);
            encoded.start = HEAD_BYTES_MAX - len;
            encoded.bytes[encoded.start..HEAD_BYTES_MAX].copy_from_slice(&head[..len]);
        }
        encoded
    }

    /// The hash of the source's name, by [`name_key`]. It is made once for all connections.
    pub(super) fn key(&mut self, change: &Change) -> u64 {
        *self.key.get_or_insert_with(|| name_key(change.record.source.as_str()))
    }

    /// The whole frame.
    pub(super) fn frame(&mut self, codec: Codec, change: &Change) -> &[u8] {
        let encoded = self.encoded(codec, change);
        &encoded.bytes[encoded.start..]
    }

    /// The message alone.
    pub(super) fn message(&mut self, codec: Codec, change: &Change) -> &[u8] {
        &self.encoded(codec, change).bytes[HEAD_BYTES_MAX..]
    }
}
