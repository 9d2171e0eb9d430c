//! Records on their way into one message, for connections that asked for `batch=true`.
//!
//! The message and its frame are built where they will be sent from: room for the head is left in front, and
//! when the batch is closed the records move up to the head that it turned out to need. Rejected: collecting
//! the records elsewhere, which costs a buffer for each connection and one more copy.

use super::framing::message::Codec;
use super::framing::wrap::{self, Framing};
use crate::protocol::protobuf;

/// Number of bytes at which a batch is closed: large enough that the cost of heads does not count, small
/// enough that a client need not buffer much.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are left free in front: for the head of a frame, and for what begins a message of several
/// records, which is a bracket in JSON and a key with a length of up to 10 bytes in protobuf.
const BATCH_ROOM_BYTES: usize = wrap::ROOM_BYTES + 1 + 10;

/// A batch that is open at the end of a connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct RecordBatch {
    codec: Codec,
    /// Position in the buffer at which the room in front begins.
    start: usize,
    /// Number of records.
    count: usize,
}

impl RecordBatch {
    /// Opens a batch at the end of `out`.
    pub fn open(codec: Codec, out: &mut Vec<u8>) -> RecordBatch {
        let start = out.len();
        out.resize(start + BATCH_ROOM_BYTES, 0);
        RecordBatch { codec, start, count: 0 }
    }

    /// Adds the message of one record to the end of `out`, which must be as the last call left it. Returns
    /// whether the batch is large enough to be closed.
    pub fn push(&mut self, out: &mut Vec<u8>, message: &[u8]) -> bool {
        match self.codec {
            Codec::Json => {
                if self.count > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(message);
            }
            Codec::Protobuf => protobuf::append_to_batch(out, message),
        }
        self.count += 1;
        out.len() - self.start >= BATCH_BYTES_MAX
    }

    /// Closes the batch: makes a message of the records, and a frame of the message. In JSON a record alone
    /// is a message by itself, and no array.
    pub fn close(self, framing: Framing, out: &mut Vec<u8>) {
        debug_assert!(self.count > 0, "a batch is opened for a record");
        let items = self.start + BATCH_ROOM_BYTES..out.len();
        let mut prefix = Vec::new();
        match self.codec {
            Codec::Json if self.count == 1 => {}
            Codec::Json => {
                prefix.push(b'[');
                out.push(b']');
            }
            Codec::Protobuf => protobuf::write_batch_head(&mut prefix, items.len()),
        }
        let message_at = items.start - prefix.len();
        if let Some(room) = out.get_mut(message_at..items.start) {
            room.copy_from_slice(&prefix);
        }
        let frame_at = framing.wrap(self.codec, out, message_at);
        debug_assert!(frame_at >= self.start, "the frame fits its room");
        out.copy_within(frame_at.., self.start);
        out.truncate(self.start + out.len() - frame_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::framing::wrap::messages;
    use crate::server::outbound::Outbound;

    #[test]
    fn a_batch_is_one_frame_until_something_else_is_sent() {
        let mut out = Outbound::default();
        out.append(b"\x81\x01a");
        for message in ["1", "2"] {
            out.append_to_batch(Codec::Json, message.as_bytes());
        }
        out.append(b"\x81\x01b");
        out.append_to_batch(Codec::Json, b"3");
        let told: Vec<_> =
            messages(out.tail()).into_iter().map(String::from_utf8).map(Result::unwrap).collect();
        assert_eq!(told, ["a", "[1,2]", "b", "3"]);
    }

    /// The head of the frame may turn out to have any length.
    #[test]
    fn batches_of_every_size_are_whole() {
        for (count, bytes) in [(1, 10), (1, 70_000), (2, 10), (9, 13), (50, 60), (40, 1_600), (500, 300)] {
            let message = vec![b'x'; bytes];
            let mut out = Outbound::default();
            for _ in 0..count {
                out.append_to_batch(Codec::Json, &message);
            }
            let messages = messages(out.tail());
            assert!(messages.iter().all(|message| message.len() <= BATCH_BYTES_MAX.max(bytes) + bytes + 2));
            let items: usize = messages.iter().map(|message| message.split(|b| *b == b',').count()).sum();
            let told: usize =
                messages.iter().map(|message| message.iter().filter(|b| **b == b'x').count()).sum();
            assert_eq!((items, told), (count, count * bytes));
        }
    }

    #[test]
    fn batches_of_protobuf_are_messages() {
        use crate::proto::client::{ServerMessage, server_message::Message};
        use prost::Message as _;
        let record = ServerMessage { message: Some(Message::Record(Default::default())) }.encode_to_vec();
        for count in [1, 2, 5_000] {
            let mut out = Outbound::default();
            for _ in 0..count {
                out.append_to_batch(Codec::Protobuf, &record);
            }
            let [payload] = &messages(out.tail())[..] else { panic!("one frame") };
            let Some(Message::Records(batch)) = ServerMessage::decode(&payload[..]).expect("decodes").message
            else {
                panic!("a batch")
            };
            assert_eq!(batch.items.len(), count);
        }
    }
}
