//! The head of a WebSocket frame (RFC 6455, 5.2), read and written.

/// Longest head of a frame that is not masked, in bytes.
pub const HEAD_BYTES_MAX: usize = 10;
/// Final frame of text.
pub const TEXT: u8 = 0x81;
/// Final frame of bytes.
pub const BINARY: u8 = 0x82;

/// A frame's head as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Final bit, reserved bits, opcode.
    pub first: u8,
    /// With what the payload is masked, if it is.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the payload, as they are claimed.
    pub payload: u64,
    /// Bytes of the head itself.
    pub len: usize,
}

impl Head {
    /// The head at the beginning of `bytes`; an error tells how many bytes there must be at least for
    /// more to be known.
    pub fn read(bytes: &[u8]) -> Result<Head, usize> {
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
        Ok(Head { first, mask: mask.try_into().ok(), payload, len })
    }

    /// Bytes of the whole frame, as they are claimed.
    pub fn frame(&self) -> u64 {
        self.payload.saturating_add(self.len as u64)
    }
}

/// The head of an unmasked frame, and how long it is.
pub fn head(first: u8, payload: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [first; HEAD_BYTES_MAX];
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

/// Takes the mask off, or puts it on.
pub fn mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Four words at a time, of which the compiler makes vectors.
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
            let (bytes, len) = head(TEXT, payload);
            assert_eq!(len, want);
            let (header, claimed) =
                FrameHeader::parse(&mut std::io::Cursor::new(&bytes[..len])).expect("parses").expect("whole");
            assert!(header.is_final && header.mask.is_none());
            assert_eq!(claimed, payload as u64);
            let read = Head { first: TEXT, mask: None, payload: payload as u64, len };
            assert_eq!(Head::read(&bytes[..len]), Ok(read));
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
            let ours = Head::read(&bytes);
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
