//! The payload of a message: a JSON string that begins with a header of fixed length.
//!
//! ```text
//! "~00000198c0ffee000000000a00000007UvkL0…"
//!   └─ due ──────────┘└source┘└ seq ┘└ filling
//! ```
//! `due` is the nanosecond since the Unix epoch at which the message was to be sent, `source` an index,
//! `seq` the number of the message among those of its source, all in hexadecimal. The filling is a slice
//! of a block of random text; where it begins and how long it is follows from seed, source and sequence.
//! So whoever receives a message knows every byte that it must have without remembering anything.
//!
//! The same bytes go to every target. A replayed record is wrapped: `["~…",DATA]`.

use std::sync::Arc;

use memchr::memchr;

use crate::random::{Random, mix, to_unit};

/// Length of a header with the `~`, in bytes.
pub const HEADER_BYTES: usize = 33;
/// The shortest payload in bytes: a header in quotes.
pub const PAYLOAD_BYTES_MIN: usize = HEADER_BYTES + 2;
/// The longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Number of places in the block at which a filling may begin.
const BLOCK_STARTS: usize = 64 * 1024;
/// Characters of fillings: none that JSON escapes, and not `~`, with which a header begins.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The header with which every payload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the message was to be sent, in nanoseconds since the Unix epoch.
    pub due_ns: u64,
    /// Index of the source.
    pub source: u32,
    /// Number of the message among those of its source, from 0.
    pub seq: u32,
}

impl Header {
    /// Appends the header to a payload.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut text = [b'~'; HEADER_BYTES];
        text[1..17].copy_from_slice(&to_hex(self.due_ns));
        text[17..].copy_from_slice(&to_hex((u64::from(self.source) << 32) | u64::from(self.seq)));
        out.extend_from_slice(&text);
    }

    /// Reads a header from the beginning of `bytes`; `None` if they are not one.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let (head, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        if head[0] != b'~' {
            return None;
        }
        let due_ns = from_hex(head[1..17].try_into().ok()?)?;
        let key = from_hex(head[17..].try_into().ok()?)?;
        Some(Header { due_ns, source: (key >> 32) as u32, seq: key as u32 })
    }

    /// Finds the first header in `bytes`, and where it begins. The place `guess` is tried first: in the frames
    /// of one connection the header is nearly always at the same place.
    #[inline]
    pub fn find(bytes: &[u8], guess: usize) -> Option<(usize, Header)> {
        if let Some(header) = bytes.get(guess..).and_then(Header::read) {
            return Some((guess, header));
        }
        let mut at = 0;
        loop {
            // A length or a tag of the protocol may look like `~`, but then no digits follow.
            at += memchr(b'~', bytes.get(at..)?)?;
            if let Some(header) = Header::read(&bytes[at..]) {
                return Some((at, header));
            }
            at += 1;
        }
    }
}

fn to_hex(value: u64) -> [u8; 16] {
    spread(value as u32 as u64, spread((value >> 32) as u32 as u64, [0; 16], 0), 8)
}

/// Writes eight digits at once: four bits go into each byte, which becomes `0`…`9` or `a`…`f`.
fn spread(value: u64, mut out: [u8; 16], at: usize) -> [u8; 16] {
    let value = ((value << 16) | value) & 0x0000_ffff_0000_ffff;
    let value = ((value << 8) | value) & 0x00ff_00ff_00ff_00ff;
    let value = ((value << 4) | value) & 0x0f0f_0f0f_0f0f_0f0f;
    // Adding 6 to four bits carries into bit 4 exactly if they are 10 or more.
    let letters = ((value + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let text = value + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10);
    out[at..at + 8].copy_from_slice(&text.to_be_bytes());
    out
}

fn from_hex(text: &[u8; 16]) -> Option<u64> {
    let (high, low) = text.split_at(8);
    Some((gather(high.try_into().ok()?)? << 32) | gather(low.try_into().ok()?)?)
}

/// Reads eight digits at once, as [`spread`] writes them: `None` unless all are `0`…`9` or `a`…`f`.
#[inline]
fn gather(text: [u8; 8]) -> Option<u64> {
    let text = u64::from_be_bytes(text);
    let letters = (text >> 6) & 0x0101_0101_0101_0101;
    let value = (text & 0x0f0f_0f0f_0f0f_0f0f) + letters * 9;
    let again = ((value + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let is_hex = value & 0xf0f0_f0f0_f0f0_f0f0 == 0
        && again == letters
        && value + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10) == text;
    let value = (value | (value >> 4)) & 0x00ff_00ff_00ff_00ff;
    let value = (value | (value >> 8)) & 0x0000_ffff_0000_ffff;
    let value = (value | (value >> 16)) & 0xffff_ffff;
    is_hex.then_some(value)
}

/// How long payloads are, in bytes with the quotes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// All payloads have this length.
    Fixed(usize),
    /// Any length between the two, both included, equally often.
    Uniform(usize, usize),
    /// One of these lengths, each drawn as often as its weight says.
    Choice(Vec<(usize, f64)>),
}

impl Sizes {
    /// Returns the longest length.
    pub fn max(&self) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform(_, high) => *high,
            Sizes::Choice(choices) => choices.iter().map(|(size, _)| *size).max().unwrap_or_default(),
        }
    }

    fn of(&self, hash: u64) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform(low, high) => low + (hash % (high - low + 1) as u64) as usize,
            Sizes::Choice(choices) => {
                let whole: f64 = choices.iter().map(|(_, weight)| weight).sum();
                let mut left = to_unit(hash) * whole;
                for (size, weight) in choices {
                    left -= weight;
                    if left <= 0.0 {
                        return *size;
                    }
                }
                self.max()
            }
        }
    }
}

/// Makes the payloads of a run, and checks received ones.
#[derive(Clone)]
pub struct Payloads {
    inner: Arc<Inner>,
}

enum Inner {
    Derived { seed: u64, sizes: Sizes, block: Vec<u8> },
    Recorded { text: Vec<u8>, spans: Vec<Vec<(usize, usize)>> },
}

impl Payloads {
    /// Makes payloads that are derived from a seed.
    pub fn derived(seed: u64, sizes: Sizes) -> Payloads {
        let mut random = Random::new(seed, 0x0070_6179_6c6f_6164);
        let block =
            (0..BLOCK_STARTS + sizes.max()).map(|_| ALPHABET[(random.next_u64() & 63) as usize]).collect();
        Payloads { inner: Arc::new(Inner::Derived { seed, sizes, block }) }
    }

    /// Makes payloads from recorded data: `spans[source][seq]` is the begin and end of a JSON value in `text`.
    pub fn recorded(text: Vec<u8>, spans: Vec<Vec<(usize, usize)>>) -> Payloads {
        Payloads { inner: Arc::new(Inner::Recorded { text, spans }) }
    }

    /// Appends the payload that belongs to a header.
    pub fn write(&self, header: Header, out: &mut Vec<u8>) {
        match &*self.inner {
            Inner::Derived { .. } => out.push(b'"'),
            Inner::Recorded { .. } => out.extend_from_slice(b"[\""),
        }
        header.write(out);
        for part in self.tail(header) {
            out.extend_from_slice(part);
        }
    }

    /// Returns whether `rest`, the bytes after a header, begins with what must follow that header.
    pub fn follows(&self, header: Header, mut rest: &[u8]) -> bool {
        for part in self.tail(header) {
            match rest.strip_prefix(part) {
                Some(further) => rest = further,
                None => return false,
            }
        }
        true
    }

    fn tail(&self, header: Header) -> [&[u8]; 3] {
        match &*self.inner {
            Inner::Derived { seed, sizes, block } => {
                let key = (u64::from(header.source) << 32) | u64::from(header.seq);
                let hash = mix(seed ^ mix(key));
                let length = sizes.of(mix(hash)).saturating_sub(PAYLOAD_BYTES_MIN);
                let start = hash as usize % BLOCK_STARTS;
                [block.get(start..start + length).unwrap_or_default(), b"\"", b""]
            }
            Inner::Recorded { text, spans } => {
                let span = spans.get(header.source as usize).and_then(|of| of.get(header.seq as usize));
                let data = span.and_then(|&(start, end)| text.get(start..end)).unwrap_or_default();
                [b"\",", data, b"]"]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_is_found_wherever_it_stands(
            due_ns: u64, source: u32, seq: u32,
            before in prop::collection::vec(any::<u8>().prop_filter("", |b| *b != b'~'), 0..80),
            guess in 0usize..100,
        ) {
            let header = Header { due_ns, source, seq };
            let mut bytes = before.clone();
            // What looks like the beginning of one.
            bytes.extend_from_slice(b"~~0123~");
            let at = bytes.len();
            header.write(&mut bytes);
            prop_assert_eq!(bytes.len(), at + HEADER_BYTES);
            prop_assert_eq!(Header::find(&bytes, guess), Some((at, header)));
            prop_assert_eq!(Header::find(&bytes, at), Some((at, header)));
            prop_assert_eq!(Header::find(&bytes[..bytes.len() - 1], guess), None);
        }

        #[test]
        fn only_hexadecimal_is_read(text: [u8; 16]) {
            let wanted = std::str::from_utf8(&text).ok()
                .filter(|it| it.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
                .and_then(|it| u64::from_str_radix(it, 16).ok());
            prop_assert_eq!(from_hex(&text), wanted);
        }

        #[test]
        fn one_digit_is_read_only_if_it_is_one(at in 0usize..16, byte: u8) {
            let mut text = *b"0123456789abcdef";
            text[at] = byte;
            let is_hex = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            prop_assert_eq!(from_hex(&text).is_some(), is_hex);
        }

        #[test]
        fn a_payload_is_known_by_its_header(source: u32, seq: u32, seed: u64, flip in 35usize..300) {
            let payloads = Payloads::derived(seed, Sizes::Uniform(PAYLOAD_BYTES_MIN, 300));
            let header = Header { due_ns: 5, source, seq };
            let mut bytes = Vec::new();
            payloads.write(header, &mut bytes);
            prop_assert!((PAYLOAD_BYTES_MIN..=300).contains(&bytes.len()));
            prop_assert!(serde_json::from_slice::<String>(&bytes).is_ok());
            prop_assert!(payloads.follows(header, &bytes[HEADER_BYTES + 1..]));
            if flip < bytes.len() {
                bytes[flip] ^= 1;
                prop_assert!(!payloads.follows(header, &bytes[HEADER_BYTES + 1..]));
            }
        }
    }

    #[test]
    fn sizes_are_met() {
        for (sizes, mean) in [
            (Sizes::Fixed(128), 128.0),
            (Sizes::Uniform(100, 200), 150.0),
            (Sizes::Choice(vec![(100, 9.0), (1_000, 1.0)]), 190.0),
        ] {
            let payloads = Payloads::derived(1, sizes.clone());
            let mut bytes = Vec::new();
            for seq in 0..20_000 {
                payloads.write(Header { due_ns: 0, source: 1, seq }, &mut bytes);
            }
            let got = bytes.len() as f64 / 20_000.0;
            assert!((got - mean).abs() < mean * 0.03, "{sizes:?}: {got}");
        }
    }

    #[test]
    fn a_recorded_value_is_wrapped_and_known() {
        let text = br#"{"c":21.5}null"#.to_vec();
        let payloads = Payloads::recorded(text, vec![vec![(0, 10), (10, 14)]]);
        let header = Header { due_ns: 1, source: 0, seq: 1 };
        let mut bytes = Vec::new();
        payloads.write(header, &mut bytes);
        assert!(bytes.ends_with(b"\",null]"));
        let (at, found) = Header::find(&bytes, 0).expect("a header");
        assert!(payloads.follows(found, &bytes[at + HEADER_BYTES..]));
        assert!(!payloads.follows(Header { seq: 0, ..found }, &bytes[at + HEADER_BYTES..]));
    }
}
