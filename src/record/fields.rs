//! Reads and writes the fields of protobuf messages without generated code.
//!
//! Generated code fills a message struct for everything that is read or written, takes it apart again, and
//! goes over it once for its length and once for its bytes. Datagrams and records are too frequent for that,
//! so they are read and written with the functions here. Tests compare the result with that of the generated
//! code.

use prost::encoding::encoded_len_varint;

/// The error of bytes that are not a valid protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("undecodable protobuf")]
pub struct Malformed;

/// The value of one field, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// A number of variable length.
    Number(u64),
    /// Eight bytes, little-endian.
    Fixed64(u64),
    /// Four bytes, little-endian.
    Fixed32(u32),
    /// Length-delimited bytes: a text, bytes, a nested message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> FieldValue<'a> {
    /// Returns the number of a varint field.
    pub fn number(self) -> Result<u64, Malformed> {
        if let FieldValue::Number(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// Returns the low 32 bits of a varint field, as all protobuf readers do for fields of 32 bits.
    pub fn small(self) -> Result<u32, Malformed> {
        self.number().map(|number| number as u32)
    }

    /// Returns a varint field as a boolean: `true` for every number but 0.
    pub fn flag(self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }

    /// Returns the number of a fixed field of eight bytes.
    pub fn fixed64(self) -> Result<u64, Malformed> {
        if let FieldValue::Fixed64(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// Returns the number of a fixed field of four bytes.
    pub fn fixed32(self) -> Result<u32, Malformed> {
        if let FieldValue::Fixed32(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// Returns the content of a length-delimited field.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let FieldValue::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    /// Returns the content of a length-delimited field as UTF-8 text.
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Returns the fields of a nested message.
    pub fn fields(self) -> Result<Fields<'a>, Malformed> {
        self.bytes().map(Fields::of)
    }

    /// Appends the numbers of a repeated varint field to `out`. The field may be packed or hold a single
    /// number.
    pub fn append_numbers(self, out: &mut Vec<u64>) -> Result<(), Malformed> {
        let FieldValue::Bytes(bytes) = self else {
            out.push(self.number()?);
            return Ok(());
        };
        let mut fields = Fields::of(bytes);
        while !fields.0.is_empty() {
            out.push(fields.varint().ok_or(Malformed)?);
        }
        Ok(())
    }

    /// Appends the numbers of a repeated fixed field of eight bytes to `out`. The field may be packed or hold
    /// a single number.
    pub fn append_fixed64(self, out: &mut Vec<u64>) -> Result<(), Malformed> {
        let FieldValue::Bytes(bytes) = self else {
            out.push(self.fixed64()?);
            return Ok(());
        };
        let (whole, rest) = bytes.as_chunks::<8>();
        out.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        if rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Iterates over the fields of a message in the order in which they are encoded, and yields number and value
/// of each. It ends after the first error. The reader must skip fields that it does not know.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Makes the iterator over the fields of `message`.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    #[inline]
    fn read(&mut self) -> Option<(u32, FieldValue<'a>)> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field != 0)?;
        let value = match key & 7 {
            0 => FieldValue::Number(self.varint()?),
            1 => FieldValue::Fixed64(u64::from_le_bytes(self.take_chunk()?)),
            2 => FieldValue::Bytes(self.delimited()?),
            5 => FieldValue::Fixed32(u32::from_le_bytes(self.take_chunk()?)),
            // Groups (wire types 3 and 4) are deprecated in protobuf and not part of any schema here.
            _ => return None,
        };
        Some((field, value))
    }

    fn take_chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    /// Takes one byte: the key of a field whose number is less than 16. Returns `None` at the end.
    #[inline]
    pub fn take_key(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Takes the number of a varint field, behind its key.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        match *self.0 {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(byte))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.0 = rest;
                Some(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    /// Takes the content of a length-delimited field, behind its key.
    #[inline]
    pub fn delimited(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            // Nine bytes hold 63 bits, so the tenth may hold only the last one.
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

/// Splits a varint off the beginning of `bytes` and returns it. Returns `None` and leaves `bytes` alone if there
/// is no complete one.
#[inline]
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut fields = Fields::of(bytes);
    let number = fields.varint()?;
    *bytes = fields.0;
    Some(number)
}

/// Splits a message that is preceded by its length off the beginning of `bytes` and returns it. Returns
/// `None` and leaves `bytes` alone if there is no complete one.
pub fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut fields = Fields::of(bytes);
    let message = fields.delimited()?;
    *bytes = fields.0;
    Some(message)
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, FieldValue<'a>), Malformed>;

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

/// Appends a varint.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, number: u64) {
    if number < 0x80 {
        out.push(number as u8);
    } else {
        write_long_varint(out, number);
    }
}

/// Appends a varint of several bytes. They are written in one piece, because most of them here are
/// timestamps of eight bytes.
fn write_long_varint(out: &mut Vec<u8>, number: u64) {
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

/// Appends a field of bytes. As proto3 prescribes, an empty one is left out.
#[inline]
pub fn write_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        write_field(out, field, bytes);
    }
}

/// Appends a field of bytes, even an empty one.
#[inline]
pub fn write_field(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    write_tag(out, field, 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a varint field. As proto3 prescribes, the number 0 is left out.
#[inline]
pub fn write_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        write_tag(out, field, 0);
        write_varint(out, number);
    }
}

/// Appends a fixed field of eight bytes. As proto3 prescribes, the number 0 is left out.
#[inline]
pub fn write_fixed64(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        write_some_fixed64(out, field, Some(number));
    }
}

/// Appends an optional fixed field of eight bytes: `None` is left out, 0 is not.
#[inline]
pub fn write_some_fixed64(out: &mut Vec<u8>, field: u32, number: Option<u64>) {
    if let Some(number) = number {
        write_tag(out, field, 1);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends a repeated varint field in packed form. An empty one is left out.
pub fn write_numbers(out: &mut Vec<u8>, field: u32, numbers: impl IntoIterator<Item = u64>) {
    let mut numbers = numbers.into_iter().peekable();
    if numbers.peek().is_some() {
        write_message(out, field, |out| numbers.for_each(|number| write_varint(out, number)));
    }
}

/// Appends a repeated fixed field of eight bytes in packed form. An empty one is left out.
pub fn write_fixed64s(out: &mut Vec<u8>, field: u32, numbers: &[u64]) {
    if !numbers.is_empty() {
        write_tag(out, field, 2);
        write_varint(out, 8 * numbers.len() as u64);
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }
}

/// Appends a length-delimited field whose content is what `write` appends, such as a nested message.
pub fn write_message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    write_message_of(out, field, 0, write);
}

/// Does the same as [`write_message`] for content of about `usual_len` bytes: it is moved afterwards unless its
/// length takes as many bytes as that number.
pub fn write_message_of(out: &mut Vec<u8>, field: u32, usual_len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    write_tag(out, field, 2);
    let (at, reserved) = (out.len(), encoded_len_varint(usual_len as u64));
    out.resize(at + reserved, 0);
    write(out);
    let len = out.len() - at - reserved;
    let needed = encoded_len_varint(len as u64);
    if needed > reserved {
        out.splice(at..at, std::iter::repeat_n(0, needed - reserved));
    } else if needed < reserved {
        out.drain(at..at + reserved - needed);
    }
    let mut rest = len;
    for (index, byte) in out.iter_mut().skip(at).take(needed).enumerate() {
        *byte = (rest & 0x7f) as u8 | if index + 1 < needed { 0x80 } else { 0 };
        rest >>= 7;
    }
}

#[inline]
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

        /// The parser of nats-server 2.2–2.11 panicked on a length with its top bit set. Here random bytes
        /// give an error.
        #[test]
        fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let count = Fields::of(&bytes).take(100).count();
            prop_assert!(count <= bytes.len());
        }

        #[test]
        fn a_message_has_its_length_in_front(len in 0usize..40_000, usual_len in prop_oneof![0usize..300, 0usize..40_000]) {
            let mut out = b"before".to_vec();
            write_message_of(&mut out, 3, usual_len, |out| out.resize(out.len() + len, 7));
            write_number(&mut out, 40, 5);
            let (fields, body) = (Fields::of(&out[6..]).collect::<Vec<_>>(), vec![7; len]);
            prop_assert_eq!(fields, vec![Ok((3, FieldValue::Bytes(&body))), Ok((40, FieldValue::Number(5)))]);
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
        assert_eq!(FieldValue::Bytes(&[1, 0x80]).append_numbers(&mut numbers), Err(Malformed));
        assert_eq!(FieldValue::Bytes(&[1; 9]).append_fixed64(&mut numbers), Err(Malformed));
    }
}
