//! The head of a WebSocket frame (RFC 6455, 5.2), read and written.

/// Longest head of a frame that is not masked, in bytes.
pub const FRAME_HEAD_BYTES_MAX: usize = 10;
/// First byte of a frame that is a whole message of text.
pub const TEXT: u8 = 0x81;
/// First byte of a frame that is a whole message of bytes.
pub const BINARY: u8 = 0x82;

/// The head of a frame that a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The first byte: the final bit, the reserved bits and the opcode.
    pub first: u8,
    /// The mask that lies over the payload, if there is one.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the payload, as the head claims them.
    pub payload: u64,
    /// Bytes of the head itself.
    pub len: usize,
}

impl FrameHead {
    /// Reads the head at the beginning of `bytes`. An error is the number of bytes that must be there at
    /// least before more can be said.
    pub fn read(bytes: &[u8]) -> Result<FrameHead, usize> {
        let &[first, second, ..] = bytes else { return Err(2) };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_at = 2 + length_bytes;
        let len = mask_at + if second & 0x80 == 0 { 0 } else { 4 };
        let Some(head) = bytes.get(..len) else { return Err(len) };
        let (length, mask) = head.split_at(mask_at);
        let payload = match length.get(2..) {
            Some([high, low]) => u64::from(u16::from_be_bytes([*high, *low])),
            Some(long @ [_, ..]) => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => u64::from(second & 0x7f),
        };
        Ok(FrameHead { first, mask: mask.try_into().ok(), payload, len })
    }

    /// Bytes of the whole frame, as its head claims them.
    pub fn frame(&self) -> u64 {
        self.payload.saturating_add(self.len as u64)
    }
}

/// Makes the head of an unmasked frame of `payload` bytes. Returns it with its length in bytes.
pub fn write(first: u8, payload: usize) -> ([u8; FRAME_HEAD_BYTES_MAX], usize) {
    let mut head = [first; FRAME_HEAD_BYTES_MAX];
    let len = match payload {
        0..126 => {
            head[1] = payload as u8;
            2
        }
        126..65536 => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (head, len)
}

/// Takes the mask off a payload, or puts it on: both are the same.
pub fn mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Four words at a time: the compiler makes vector instructions of them.
    let (pieces, rest) = payload.as_chunks_mut::<32>();
    for piece in pieces {
        for bytes in piece.as_chunks_mut::<8>().0 {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::FrameHeader;

    use super::*;

    #[test]
    fn heads_of_every_length() {
        for (payload, want) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let (bytes, len) = write(TEXT, payload);
            assert_eq!(len, want);
            let (header, claimed) =
                FrameHeader::parse(&mut std::io::Cursor::new(&bytes[..len])).expect("parses").expect("whole");
            assert!(header.is_final && header.mask.is_none());
            assert_eq!(claimed, payload as u64);
            let read = FrameHead { first: TEXT, mask: None, payload: payload as u64, len };
            assert_eq!(FrameHead::read(&bytes[..len]), Ok(read));
        }
    }

    proptest! {
        #[test]
        fn heads_are_read_as_tungstenite_reads_them(
            // Control frames and data frames, without the opcodes that nobody has.
            first in prop::sample::select(vec![0u8, 1, 2, 8, 9, 10]),
            bits in 0u8..16,
            second in any::<u8>(),
            rest in prop::collection::vec(any::<u8>(), 0..14),
        ) {
            let bytes = [&[bits << 4 | first, second][..], &rest].concat();
            let mut cursor = std::io::Cursor::new(&bytes);
            let theirs = FrameHeader::parse(&mut cursor).expect("an opcode of somebody");
            let ours = FrameHead::read(&bytes);
            let told = ours.ok().map(|head| (head.mask, head.payload, head.len as u64));
            prop_assert_eq!(told, theirs.map(|(head, payload)| (head.mask, payload, cursor.position())));
            if let Err(needed) = ours {
                prop_assert!(needed > bytes.len());
            }
        }

        #[test]
        fn masks_are_taken_off_as_the_standard_says(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            with in any::<[u8; 4]>(),
        ) {
            let mut masked = payload.clone();
            mask(&mut masked, with);
            let want: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ with[at % 4]).collect();
            prop_assert_eq!(masked, want);
        }
    }
}
