//! Frames, ready to be copied into connections' buffers.

use super::{Codec, Turn};
use crate::ingest::Change;
use crate::record::{Record, client, json};

/// Final text frame, final binary frame (RFC 6455, 5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// Longest header of a frame that is not masked.
const HEADER_BYTES_MAX: usize = 10;

/// The header of an unmasked, final frame, and how long it is.
fn header(codec: Codec, payload: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = match codec {
        Codec::Json => TEXT,
        Codec::Protobuf => BINARY,
    };
    let len = match payload {
        0..126 => {
            header[1] = payload as u8;
            2
        }
        126..65536 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (header, len)
}

/// Appends a frame whose payload is the pieces in a row.
pub(super) fn append_frame_of(out: &mut Vec<u8>, codec: Codec, pieces: &[&[u8]]) {
    let payload = pieces.iter().map(|piece| piece.len()).sum();
    let (header, len) = header(codec, payload);
    out.reserve(len + payload);
    out.extend_from_slice(&header[..len]);
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// Appends a frame.
pub(super) fn append_frame(out: &mut Vec<u8>, codec: Codec, payload: &[u8]) {
    append_frame_of(out, codec, &[payload]);
}

/// Appends the message of one record, without a frame.
pub(super) fn write_record(out: &mut Vec<u8>, codec: Codec, record: &Record, as_deleted: bool) {
    match codec {
        Codec::Json => json::write_record(out, record, as_deleted),
        Codec::Protobuf => client::write_record(out, record, as_deleted),
    }
}

/// A change as it is sent: encoded when the first connection of a codec wants it, and then copied.
///
/// The worker keeps one and [starts](EncodedChange::start) it for each change, so that its memory is
/// used again.
#[derive(Debug, Default)]
pub struct EncodedChange {
    json: Encoded,
    protobuf: Encoded,
}

#[derive(Debug, Default)]
struct Encoded {
    /// The payload, behind room for a header.
    bytes: Vec<u8>,
    /// Where the frame begins; the payload begins at [`HEADER_BYTES_MAX`].
    start: usize,
}

/// Memory kept from one change to the next, in bytes.
const KEPT_BYTES_MAX: usize = 128 * 1024;

impl EncodedChange {
    /// Forgets the change before.
    pub fn start(&mut self) {
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
            encoded.bytes.resize(HEADER_BYTES_MAX, 0);
            write_record(&mut encoded.bytes, codec, &change.record, change.is_expiry);
            let (header, len) = header(codec, encoded.bytes.len() - HEADER_BYTES_MAX);
            encoded.start = HEADER_BYTES_MAX - len;
            encoded.bytes[encoded.start..HEADER_BYTES_MAX].copy_from_slice(&header[..len]);
        }
        encoded
    }

    /// The whole frame.
    pub(super) fn frame(&mut self, codec: Codec, change: &Change) -> &[u8] {
        let encoded = self.encoded(codec, change);
        &encoded.bytes[encoded.start..]
    }

    /// The message alone.
    pub(super) fn message(&mut self, codec: Codec, change: &Change) -> &[u8] {
        &self.encoded(codec, change).bytes[HEADER_BYTES_MAX..]
    }
}

impl Turn<'_> {
    /// Appends a frame of one record.
    pub(super) fn record_frame(&mut self, codec: Codec, record: &Record, as_deleted: bool) {
        self.frame(codec, |out| write_record(out, codec, record, as_deleted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_length() {
        for (len, want) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut out = Vec::new();
            append_frame(&mut out, Codec::Json, &vec![b'x'; len]);
            assert_eq!(out.len(), want + len);
            let mut input = std::io::Cursor::new(&out);
            let (header, payload) =
                tungstenite::protocol::frame::FrameHeader::parse(&mut input).expect("parses").expect("whole");
            assert!(header.is_final && header.mask.is_none());
            assert_eq!(payload, len as u64);
        }
    }
}
