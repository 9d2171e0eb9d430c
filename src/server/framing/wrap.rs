//! The way out: a message becomes a frame where it lies.
//!
//! Whoever writes a message leaves [`ROOM_BYTES`] free in front of it. The head of the frame is put at the
//! end of that room and its tail, if it has one, behind the message. So nothing is moved, and the frame is
//! one piece of memory, ready to be copied.

use super::event_stream;
use super::frame_head::{self, BINARY, FRAME_HEAD_BYTES_MAX, FrameHead, TEXT};
use super::message::Codec;

/// Bytes to leave free in front of a message: the longest head of a frame of any framing.
pub const ROOM_BYTES: usize = event_stream::RECORD_HEAD.len();
const _: () = assert!(ROOM_BYTES >= FRAME_HEAD_BYTES_MAX);

/// The framing of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// WebSocket (RFC 6455): the head of a frame says how long its message is.
    #[default]
    WebSocket,
    /// Server-Sent Events: an event ends with an empty line. The messages are those of JSON.
    EventStream,
}

impl Framing {
    /// Makes a frame of the message of a record, or of any message of a WebSocket, that begins at `message_at` and reaches to the end of `bytes`. There
    /// must be at least [`ROOM_BYTES`] before it. Returns where the frame begins; it reaches to the end.
    pub fn wrap(self, codec: Codec, bytes: &mut Vec<u8>, message_at: usize) -> usize {
        debug_assert!((ROOM_BYTES..=bytes.len()).contains(&message_at), "no room for the head of a frame");
        match self {
            Framing::WebSocket => {
                let kind = match codec {
                    Codec::Json => TEXT,
                    Codec::Protobuf => BINARY,
                };
                let (head, len) = frame_head::write(kind, bytes.len() - message_at);
                let start = message_at - len;
                bytes[start..message_at].copy_from_slice(&head[..len]);
                start
            }
            Framing::EventStream => event_stream::wrap(bytes, message_at),
        }
    }

    /// A whole frame that does nothing but show that the connection is there. The client of a WebSocket answers it.
    pub fn ping(self) -> &'static [u8] {
        match self {
            Framing::WebSocket => &[0x89, 0],
            Framing::EventStream => event_stream::COMMENT,
        }
    }

    /// The length in bytes of the frame at the beginning of `bytes`, if its head is there.
    pub fn frame_bytes(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Framing::WebSocket => {
                let head = FrameHead::read(bytes).ok()?;
                Some(usize::try_from(head.frame()).unwrap_or(usize::MAX))
            }
            Framing::EventStream => event_stream::event_bytes(bytes),
        }
    }
}

/// Empties `bytes` but for the room that [`Framing::wrap`] needs: a message is to be written behind it.
pub fn make_room(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(ROOM_BYTES, 0);
}

/// The messages of the whole frames in `bytes`, without the frames, for tests that read what was sent.
#[cfg(test)]
pub fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let head = FrameHead::read(bytes).expect("a head");
        let (frame, rest) = bytes.split_at(head.frame() as usize);
        messages.push(frame[head.len..].to_vec());
        bytes = rest;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_wrapped_where_it_lies() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            for codec in [Codec::Json, Codec::Protobuf] {
                let mut bytes = b"rest".to_vec();
                make_room(&mut bytes);
                bytes.extend(std::iter::repeat_n(b'x', size));
                let start = Framing::WebSocket.wrap(codec, &mut bytes, ROOM_BYTES);
                let frame = &bytes[start..];
                assert_eq!(Framing::WebSocket.frame_bytes(frame), Some(frame.len()));
                assert_eq!(frame[0], if codec == Codec::Json { 0x81 } else { 0x82 });
                assert_eq!(messages(frame), [vec![b'x'; size]]);
            }
        }
        assert_eq!(Framing::WebSocket.frame_bytes(&[0x81]), None);
        assert_eq!(Framing::WebSocket.frame_bytes(Framing::WebSocket.ping()), Some(2));
    }
}
