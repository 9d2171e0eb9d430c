//! The values that requests and answers are made of: numbers with the greatest byte first, and texts, bytes and lists with
//! their length before them.

/// Bytes are no answer of Kafka, or the answer ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotKafka;

impl From<NotKafka> for String {
    fn from(_: NotKafka) -> String {
        "the broker sends no Kafka, or an answer that is cut off".into()
    }
}

/// The values of a request, one behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueWriter(pub Vec<u8>);

impl ValueWriter {
    pub fn i8(mut self, value: i8) -> ValueWriter {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i16(mut self, value: i16) -> ValueWriter {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i32(mut self, value: i32) -> ValueWriter {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i64(mut self, value: i64) -> ValueWriter {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A text of at most 32,767 bytes, which all texts here are.
    pub fn text(self, text: &str) -> ValueWriter {
        let mut written = self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        written.0.extend_from_slice(text.as_bytes());
        written
    }

    pub fn bytes(self, bytes: &[u8]) -> ValueWriter {
        let mut written = self.i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        written.0.extend_from_slice(bytes);
        written
    }

    /// A list: its length, and what `write` adds for each item.
    pub fn list<T>(self, items: &[T], write: impl Fn(ValueWriter, &T) -> ValueWriter) -> ValueWriter {
        items.iter().fold(self.i32(i32::try_from(items.len()).unwrap_or(i32::MAX)), write)
    }
}

/// Reads values one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueReader<'a>(pub &'a [u8]);

impl<'a> ValueReader<'a> {
    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], NotKafka> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(NotKafka)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotKafka> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(NotKafka)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn i8(&mut self) -> Result<i8, NotKafka> {
        self.array().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, NotKafka> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, NotKafka> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, NotKafka> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, NotKafka> {
        self.array().map(i64::from_be_bytes)
    }

    /// A text, which may be missing.
    pub fn text_if_any(&mut self) -> Result<Option<&'a str>, NotKafka> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Ok(None) };
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| NotKafka)
    }

    pub fn text(&mut self) -> Result<&'a str, NotKafka> {
        self.text_if_any()?.ok_or(NotKafka)
    }

    /// Bytes; none if they are missing.
    pub fn bytes(&mut self) -> Result<&'a [u8], NotKafka> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.take(length),
            Err(_) => Ok(&[]),
        }
    }

    /// A list of what `read` reads. A length that the bytes cannot hold ends with an error when they run out, and no room is
    /// set aside by it.
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut ValueReader<'a>) -> Result<T, NotKafka>,
    ) -> Result<Vec<T>, NotKafka> {
        let mut items = Vec::new();
        for _ in 0..self.i32()?.max(0) {
            if self.0.is_empty() {
                return Err(NotKafka);
            }
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// A whole number of variable length, in which small numbers of both signs are short.
    pub fn varint(&mut self) -> Result<i64, NotKafka> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.array::<1>()?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The lowest bit is the sign.
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(NotKafka)
    }

    /// Bytes with a length of variable length; `None` if they are missing.
    pub fn short_bytes(&mut self) -> Result<Option<&'a [u8]>, NotKafka> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let written = ValueWriter::default()
            .i8(-1)
            .i16(2)
            .i32(-3)
            .i64(4)
            .text("a\u{e4}")
            .bytes(b"xy")
            .list(&[7, 8], |written, item| written.i32(*item));
        let mut reader = ValueReader(&written.0);
        assert_eq!((reader.i8(), reader.i16(), reader.i32(), reader.i64()), (Ok(-1), Ok(2), Ok(-3), Ok(4)));
        assert_eq!((reader.text(), reader.bytes()), (Ok("a\u{e4}"), Ok(b"xy".as_slice())));
        assert_eq!(reader.list(ValueReader::i32), Ok(vec![7, 8]));
        assert!(reader.0.is_empty());
        assert_eq!(reader.i8(), Err(NotKafka));
        assert_eq!(ValueReader(&[0xff, 0xff]).text_if_any(), Ok(None));
        assert_eq!(ValueReader(&[0x7f, 0xff, 0xff, 0xff, 1]).list(ValueReader::i8), Err(NotKafka));
    }

    #[test]
    fn short_numbers_have_both_signs() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0xac, 0x02], 150),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MIN),
        ] {
            assert_eq!(ValueReader(bytes).varint(), Ok(value));
        }
        assert_eq!(ValueReader(&[0x80]).varint(), Err(NotKafka));
        assert_eq!(ValueReader(&[0xff; 11]).varint(), Err(NotKafka));
        assert_eq!(ValueReader(&[4, b'a', b'b']).short_bytes(), Ok(Some(b"ab".as_slice())));
        assert_eq!(ValueReader(&[1]).short_bytes(), Ok(None));
    }
}
