//! Records on their way into one frame, for connections that asked for `batch=true`.
//!
//! The frame is built where it will be sent from: room for its head is left in front, and when it is
//! closed the records move up to the head that it turned out to need. Rejected: collecting the records
//! elsewhere, which costs a buffer a connection and a copy more.

use super::frame::{HEAD_BYTES_MAX, head};
use super::session::Codec;
use crate::protocol::protobuf;

/// A frame is closed when it has so many bytes: large enough that heads do not count, small enough
/// that a client need not buffer much.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// What is left in front: a frame's head, and a key and a length of protobuf's or a bracket.
const ROOM_BYTES: usize = HEAD_BYTES_MAX + 1 + 10;

/// The frame that is open at the end of a connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    codec: Codec,
    start: usize,
    count: usize,
}

impl Batch {
    /// Opens a frame at the end of `out`.
    pub fn open(codec: Codec, out: &mut Vec<u8>) -> Batch {
        let start = out.len();
        out.resize(start + ROOM_BYTES, 0);
        Batch { codec, start, count: 0 }
    }

    /// Adds the message of one record to `out`, which is as the last call left it. `true`: the frame is
    /// large enough to be closed.
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

    /// Closes the frame. One record alone is no array in JSON.
    pub fn close(self, out: &mut Vec<u8>) {
        let items = self.start + ROOM_BYTES..out.len();
        let mut prefix = Vec::new();
        match self.codec {
            Codec::Json if self.count == 1 => {}
            Codec::Json => {
                prefix.push(b'[');
                out.push(b']');
            }
            Codec::Protobuf => protobuf::write_batch_head(&mut prefix, items.len()),
        }
        let payload = out.len() - items.start + prefix.len();
        let (head, head_len) = head(self.codec.first_byte(), payload);
        let front = [head.get(..head_len).unwrap_or_default(), &prefix].concat();
        let place = items.start - front.len();
        if let Some(room) = out.get_mut(place..items.start) {
            room.copy_from_slice(&front);
        }
        out.copy_within(place.., self.start);
        out.truncate(self.start + out.len() - place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::frame::Head;
    use crate::server::outbound::Outbound;

    /// The payloads of the frames in `bytes`.
    fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while !bytes.is_empty() {
            let head = Head::read(bytes).expect("a head");
            let (frame, rest) = bytes.split_at(head.frame() as usize);
            payloads.push(frame[head.len..].to_vec());
            bytes = rest;
        }
        payloads
    }

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
            payloads(out.tail()).into_iter().map(String::from_utf8).map(Result::unwrap).collect();
        assert_eq!(told, ["a", "[1,2]", "b", "3"]);
    }

    /// Whatever length the head turns out to have.
    #[test]
    fn batches_of_every_size_are_whole() {
        for (count, bytes) in [(1, 10), (1, 70_000), (2, 10), (9, 13), (50, 60), (40, 1_600), (500, 300)] {
            let message = vec![b'x'; bytes];
            let mut out = Outbound::default();
            for _ in 0..count {
                out.append_to_batch(Codec::Json, &message);
            }
            let payloads = payloads(out.tail());
            assert!(payloads.iter().all(|payload| payload.len() <= BATCH_BYTES_MAX.max(bytes) + bytes + 2));
            let items: usize = payloads.iter().map(|payload| payload.split(|b| *b == b',').count()).sum();
            let told: usize =
                payloads.iter().map(|payload| payload.iter().filter(|b| **b == b'x').count()).sum();
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
            let [payload] = &payloads(out.tail())[..] else { panic!("one frame") };
            let Some(Message::Records(batch)) = ServerMessage::decode(&payload[..]).expect("decodes").message
            else {
                panic!("a batch")
            };
            assert_eq!(batch.items.len(), count);
        }
    }
}
