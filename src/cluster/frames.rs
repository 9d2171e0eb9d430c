//! Cutting a stream's bytes into frames: four bytes of length, little-endian, then as many bytes.
//!
//! Nothing is allocated on the word of a length: the buffer grows with the bytes that really came,
//! and a length over the reader's bound ends the stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const LENGTH_BYTES: usize = 4;

/// A frame was announced that is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {announced} bytes; at most {bytes_max}")]
pub struct FrameTooLong {
    /// What the peer announced.
    pub announced: usize,
    /// What is allowed.
    pub bytes_max: usize,
}

/// Puts the frames of one stream together.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    bytes_max: usize,
}

impl FrameReader {
    /// Takes frames of at most `bytes_max`.
    pub fn new(bytes_max: usize) -> FrameReader {
        FrameReader { buffer: BytesMut::new(), bytes_max }
    }

    /// Adds what was received.
    pub fn push(&mut self, received: &[u8]) {
        self.buffer.extend_from_slice(received);
    }

    /// The next whole frame, if it is there.
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

/// A frame around `message`.
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
            let mut reader = FrameReader::new(3);
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
        let mut reader = FrameReader::new(1000);
        reader.push(&[0, 0, 0, 0x80]);
        assert_eq!(reader.next_frame(), Err(FrameTooLong { announced: 1 << 31, bytes_max: 1000 }));
    }
}
