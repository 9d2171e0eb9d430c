//! Fields of protobuf messages, written and read by hand.
//!
//! Generated code costs a message of its own for whatever is read or written, filled and taken apart again, and
//! goes over it once for its length and once for its bytes. What every datagram and every record is made of is
//! written and read without; tests hold it against the generated code.

use prost::encoding::encoded_len_varint;

/// These bytes are no message of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("undecodable protobuf")]
pub struct Malformed;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint.
    Number(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A varint.
    pub fn number(self) -> Result<u64, Malformed> {
        if let Value::Number(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// A varint of 32 bits; what is over them is cut off, as everybody does.
    pub fn small(self) -> Result<u32, Malformed> {
        self.number().map(|number| number as u32)
    }

    /// Yes or no.
    pub fn flag(self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }

    /// Eight bytes.
    pub fn fixed64(self) -> Result<u64, Malformed> {
        if let Value::Fixed64(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// Four bytes.
    pub fn fixed32(self) -> Result<u32, Malformed> {
        if let Value::Fixed32(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// Bytes of any content.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    /// Text.
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// The fields of a message.
    pub fn fields(self) -> Result<Fields<'a>, Malformed> {
        self.bytes().map(Fields::of)
    }

    /// One or more of a repeated varint, packed or not.
    pub fn append_numbers(self, out: &mut Vec<u64>) -> Result<(), Malformed> {
        let Value::Bytes(bytes) = self else {
            out.push(self.number()?);
            return Ok(());
        };
        let mut fields = Fields::of(bytes);
        while !fields.0.is_empty() {
            out.push(fields.varint().ok_or(Malformed)?);
        }
        Ok(())
    }

    /// One or more of a repeated field of eight bytes, packed or not.
    pub fn append_fixed64(self, out: &mut Vec<u64>) -> Result<(), Malformed> {
        let Value::Bytes(bytes) = self else {
            out.push(self.fixed64()?);
            return Ok(());
        };
        let (whole, rest) = bytes.as_chunks::<8>();
        out.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        if rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// The fields of a message in the order in which they stand: number and value of each. After an error there is
/// nothing more. Who reads them skips those it does not know.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of these bytes.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    #[inline]
    fn read(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field != 0)?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take_chunk()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take_chunk()?)),
            // Groups are of another age.
            _ => return None,
        };
        Some((field, value))
    }

    fn take_chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            // The tenth has room for one bit.
            if at == 9 && *byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.0 = self.0.get(at + 1..)?;
                return Some(number);
            }
        }
        None
    }
}

/// Takes a message with its length in front off the beginning. `None`: there is none, and nothing is taken.
pub fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut fields = Fields::of(bytes);
    let len = usize::try_from(fields.varint()?).ok()?;
    let (message, rest) = fields.0.split_at_checked(len)?;
    *bytes = rest;
    Some(message)
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

/// Appends a varint. In one piece, since most here are stamps of eight bytes.
pub fn write_varint(out: &mut Vec<u8>, number: u64) {
    if number < 0x80 {
        return out.push(number as u8);
    }
    let (mut bytes, mut len, mut rest) = ([0u8; 10], 0, number);
    for byte in &mut bytes {
        *byte = rest as u8 | 0x80;
        len += 1;
        rest >>= 7;
        if rest == 0 {
            *byte &= 0x7f;
            break;
        }
    }
    out.extend_from_slice(bytes.get(..len).unwrap_or_default());
}

/// Appends a field of bytes, as in all proto3 unless there are none.
pub fn write_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        write_field(out, field, bytes);
    }
}

/// Appends a field of bytes.
pub fn write_field(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    write_tag(out, field, 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a varint field, unless the number is 0.
pub fn write_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        write_tag(out, field, 0);
        write_varint(out, number);
    }
}

/// Appends a field of eight bytes, unless the number is 0.
pub fn write_fixed64(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        write_some_fixed64(out, field, Some(number));
    }
}

/// Appends a field of eight bytes that may be there or not.
pub fn write_some_fixed64(out: &mut Vec<u8>, field: u32, number: Option<u64>) {
    if let Some(number) = number {
        write_tag(out, field, 1);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends a repeated varint field, packed.
pub fn write_numbers(out: &mut Vec<u8>, field: u32, numbers: impl IntoIterator<Item = u64>) {
    let mut numbers = numbers.into_iter().peekable();
    if numbers.peek().is_some() {
        write_message(out, field, |out| numbers.for_each(|number| write_varint(out, number)));
    }
}

/// Appends a repeated field of eight bytes each, packed.
pub fn write_fixed64s(out: &mut Vec<u8>, field: u32, numbers: &[u64]) {
    if !numbers.is_empty() {
        write_tag(out, field, 2);
        write_varint(out, 8 * numbers.len() as u64);
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }
}

/// Appends a message, or whatever else has its length in front.
pub fn write_message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    write_tag(out, field, 2);
    let at = out.len();
    // Most are shorter than 128 bytes; the others are moved by a byte or two.
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    let more = encoded_len_varint(len as u64) - 1;
    if more > 0 {
        out.splice(at..at, std::iter::repeat_n(0, more));
    }
    let mut rest = len;
    for (index, byte) in out.iter_mut().skip(at).take(more + 1).enumerate() {
        *byte = (rest & 0x7f) as u8 | if index < more { 0x80 } else { 0 };
        rest >>= 7;
    }
}

fn write_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    write_varint(out, u64::from(field << 3 | wire_type));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::{decode_varint, encode_varint};

    use super::*;

    proptest! {
        #[test]
        fn varints_are_read_as_prost_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..12), number: u64) {
            let (mut fields, mut rest) = (Fields::of(&bytes), &bytes[..]);
            let theirs = decode_varint(&mut rest).ok();
            prop_assert_eq!(fields.varint(), theirs);
            prop_assert!(theirs.is_none() || fields.0 == rest);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            write_varint(&mut ours, number >> (number % 64));
            encode_varint(number >> (number % 64), &mut theirs);
            prop_assert_eq!(ours, theirs);
        }

        /// nats-server 2.2–2.11: a length with its top bit set panicked the parser.
        #[test]
        fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let count = Fields::of(&bytes).take(100).count();
            prop_assert!(count <= bytes.len());
        }

        #[test]
        fn a_message_has_its_length_in_front(len in 0usize..40_000) {
            let mut out = b"before".to_vec();
            write_message(&mut out, 3, |out| out.resize(out.len() + len, 7));
            write_number(&mut out, 40, 5);
            let (fields, body) = (Fields::of(&out[6..]).collect::<Vec<_>>(), vec![7; len]);
            prop_assert_eq!(fields, vec![Ok((3, Value::Bytes(&body))), Ok((40, Value::Number(5)))]);
        }
    }

    #[test]
    fn lengths_beyond_the_end_are_errors() {
        for bytes in
            [&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], b"\x0a\x02a", b"\x09\x01", b"\x03"]
        {
            assert_eq!(Fields::of(bytes).collect::<Vec<_>>(), [Err(Malformed)]);
        }
        let mut numbers = Vec::new();
        assert_eq!(Value::Bytes(&[1, 0x80]).append_numbers(&mut numbers), Err(Malformed));
        assert_eq!(Value::Bytes(&[1; 9]).append_fixed64(&mut numbers), Err(Malformed));
    }
}
