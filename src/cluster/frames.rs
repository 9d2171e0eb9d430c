//! Cuts the bytes of a stream into frames: four bytes of length, little-endian, then as many bytes.
//!
//! A length alone allocates nothing: the buffer grows with the bytes that really arrive,
//! and a length over the reader's bound is an error that ends the stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of the length in front of a frame.
const LENGTH_BYTES: usize = 4;

/// The error that a peer announced a frame longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {announced} bytes; at most {bytes_max}")]
pub struct FrameTooLong {
    /// Length that the peer announced, in bytes.
    pub announced: usize,
    /// Greatest length that is allowed, in bytes.
    pub bytes_max: usize,
}

/// Collects the bytes of one stream and gives out its frames.
#[derive(Debug)]
pub struct StreamFrameReader {
    buffer: BytesMut,
    bytes_max: usize,
}

impl StreamFrameReader {
    /// A reader of frames of at most `bytes_max`, without their length.
    pub fn new(bytes_max: usize) -> StreamFrameReader {
        StreamFrameReader { buffer: BytesMut::new(), bytes_max }
    }

    /// Adds bytes that were received.
    pub fn push(&mut self, received: &[u8]) {
        self.buffer.extend_from_slice(received);
    }

    /// Takes out the next frame, without its length; `None` until all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let announced = u32::from_le_bytes(*length) as usize;
        if announced > self.bytes_max {
            return Err(FrameTooLong { announced, bytes_max: self.bytes_max });
        }
        if self.buffer.len() < LENGTH_BYTES + announced {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(announced).freeze()))
    }
}

/// Encodes `message` as a frame, with its length in front.
pub fn frame(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + length);
    bytes.put_u32_le(length as u32);
    // A `BytesMut` grows: encoding into it cannot fail.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cut_anywhere() {
        let bytes = [&[3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0][..], &[1, 0, 0, 0, 9]].concat();
        for step in 1..bytes.len() {
            let mut reader = StreamFrameReader::new(3);
            let mut frames = Vec::new();
            for part in bytes.chunks(step) {
                reader.push(part);
                while let Some(frame) = reader.next_frame().expect("short enough") {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, [vec![1, 2, 3], vec![], vec![9]]);
        }
    }

    /// nats-server 2.2–2.11: a length with its top bit set panicked the frame parser.
    #[test]
    fn absurd_lengths_are_refused() {
        let mut reader = StreamFrameReader::new(1000);
        reader.push(&[0, 0, 0, 0x80]);
        assert_eq!(reader.next_frame(), Err(FrameTooLong { announced: 1 << 31, bytes_max: 1000 }));
    }
}
