//! The client's half of RFC 6455 (WebSocket): sends masked frames, and reads the server's frames without
//! copying them.

use std::fmt::Write;

use base64::Engine;

use super::Broken;
use crate::random::Random;

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 2;
/// Opcode of the frame that closes a connection.
pub const CLOSE: u8 = 8;
/// Opcode of the frame that asks the other side for a pong.
pub const PING: u8 = 9;
/// Opcode of the answer to a ping.
pub const PONG: u8 = 10;

/// Length of the longest head of a client's frame whose payload is under 64 KiB, in bytes.
const SHORT_HEAD: usize = 8;
/// Most bytes of a server's answer to the handshake.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Appends the request that opens a connection to the `path` of a `host`, with a token if the host wants one.
pub fn write_request(
    (host, path, token): (&str, &str, Option<&str>),
    protocol: Option<&str>,
    random: &mut Random,
    out: &mut Vec<u8>,
) {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&random.next_u64().to_be_bytes());
    nonce[8..].copy_from_slice(&random.next_u64().to_be_bytes());
    let key = base64::engine::general_purpose::STANDARD.encode(nonce);
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    if let Some(protocol) = protocol {
        // Writing into a string cannot fail.
        let _ = write!(text, "Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    if let Some(token) = token {
        let _ = write!(text, "Authorization: Bearer {token}\r\n");
    }
    text.push_str("\r\n");
    out.extend_from_slice(text.as_bytes());
}

/// Whether the handshake is done: frames come only after the server's answer.
#[derive(Debug, Default)]
pub struct Opening {
    is_open: bool,
}

impl Opening {
    /// Returns whether the answer has arrived.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns where frames begin in the received bytes; `None`: the answer is not whole yet.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        if self.is_open {
            return Ok(Some(0));
        }
        let length = read_answer(bytes)?;
        self.is_open = length.is_some();
        Ok(length)
    }
}

/// Reads the answer to the request. Returns the length of it once it is whole; fails if it is a refusal.
fn read_answer(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Broken::because("the answer to the handshake has no end");
        }
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 101") {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let body = bytes.get(end + 4..).unwrap_or_default();
        let (line, body) = (String::from_utf8_lossy(line), String::from_utf8_lossy(body));
        return Broken::because(format!("handshake refused: {line} {}", body.trim()));
    }
    Ok(Some(end + 4))
}

/// Makes room for the head of a frame, and returns the place. Append the payload next, then call
/// [`end_frame`].
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; SHORT_HEAD]);
    start
}

/// Writes the head of the frame that began at `start`, and masks the payload.
pub fn end_frame(out: &mut Vec<u8>, start: usize, opcode: u8, random: &mut Random) {
    let payload = start + SHORT_HEAD;
    let length = out.len() - payload;
    let key = (random.next_u64() as u32).to_be_bytes();
    mask(&mut out[payload..], key);
    let mut head = [0; 14];
    head[0] = 0x80 | opcode;
    let short = match length {
        0..126 => {
            head[1] = 0x80 | length as u8;
            2
        }
        126..0x1_0000 => {
            head[1] = 0x80 | 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 0x80 | 127;
            head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    head[short..short + 4].copy_from_slice(&key);
    let head = &head[..short + 4];
    if head.len() == SHORT_HEAD {
        out[start..payload].copy_from_slice(head);
    } else {
        out.splice(start..payload, head.iter().copied());
    }
}

/// Appends a whole frame.
pub fn write_frame(opcode: u8, payload: &[u8], random: &mut Random, out: &mut Vec<u8>) {
    let start = begin_frame(out);
    out.extend_from_slice(payload);
    end_frame(out, start, opcode, random);
}

/// XORs a payload with the masking key, eight bytes at a time.
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A frame of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind of frame; 0 continues the one before.
    pub opcode: u8,
    /// Whether the frame is the last one of its message.
    pub is_last: bool,
    /// The bytes that the frame carries.
    pub payload: &'a [u8],
    /// Length of the frame with the head, in bytes.
    pub bytes: usize,
}

impl<'a> Frame<'a> {
    /// Reads the frame at the beginning of `bytes`; `None` until it is whole.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Option<Frame<'a>>, Broken> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Broken::because("a frame with reserved bits or a mask");
        }
        let (head, length): (usize, usize) = match second {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (4, usize::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (10, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
                None => return Ok(None),
            },
            length => (2, usize::from(*length)),
        };
        let Some(end) = head.checked_add(length) else { return Broken::because("an endless frame") };
        let Some(payload) = bytes.get(head..end) else { return Ok(None) };
        Ok(Some(Frame { opcode: first & 15, is_last: first & 0x80 != 0, payload, bytes: end }))
    }

    /// Answers a ping. Fails if the frame closes the connection; the close code is the reason.
    pub fn control(&self, random: &mut Random, out: &mut Vec<u8>) -> Result<(), Broken> {
        match self.opcode {
            PING => write_frame(PONG, self.payload, random, out),
            CLOSE => {
                let code = self.payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
                return Broken::because(format!("closed {code}"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a client's frame as a server must. Returns the opcode and the payload.
    fn unmask(bytes: &[u8]) -> (u8, Vec<u8>) {
        assert_ne!(bytes[1] & 0x80, 0, "a client's frame is masked");
        let (at, length) = match bytes[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().expect("eight")) as usize),
            length => (2, usize::from(length)),
        };
        let payload = &bytes[at + 4..];
        assert_eq!(payload.len(), length);
        let plain = payload.iter().enumerate().map(|(n, byte)| byte ^ bytes[at + n % 4]).collect();
        (bytes[0] & 15, plain)
    }

    #[test]
    fn a_frame_of_any_length_is_unmasked_to_what_it_was() {
        let mut random = Random::new(1, 2);
        for length in [0, 1, 7, 8, 9, 125, 126, 127, 1_000, 65_535, 65_536, 100_001] {
            let payload: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
            let mut out = b"before".to_vec();
            write_frame(BINARY, &payload, &mut random, &mut out);
            assert_eq!(unmask(&out[6..]), (BINARY, payload));
            assert_eq!(&out[..6], b"before");
        }
    }

    proptest! {
        #[test]
        fn servers_frames_are_read_whole_or_not_at_all(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = vec![0x82];
            match payload.len() {
                short @ 0..126 => bytes.push(short as u8),
                long => {
                    bytes.push(126);
                    bytes.extend_from_slice(&(long as u16).to_be_bytes());
                }
            }
            bytes.extend_from_slice(&payload);
            for cut in 0..bytes.len() {
                prop_assert_eq!(Frame::read(&bytes[..cut]), Ok(None));
            }
            let length = bytes.len();
            bytes.push(0x81);
            let frame = Frame::read(&bytes).expect("fine").expect("whole");
            prop_assert_eq!((frame.opcode, frame.payload, frame.bytes), (BINARY, &payload[..], length));
        }

        #[test]
        fn nothing_that_comes_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Frame::read(&bytes);
            let _ = read_answer(&bytes);
        }
    }

    #[test]
    fn a_refused_handshake_says_why() {
        let Err(Broken(reason)) = read_answer(b"HTTP/1.1 400 Bad Request\r\n\r\nno such mode") else {
            panic!("taken for an upgrade")
        };
        assert_eq!(reason, "handshake refused: HTTP/1.1 400 Bad Request no such mode");
    }
}
