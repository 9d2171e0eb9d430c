//! Batches: what brokers store, and hand out as they are. A batch has a head with its offsets, a checksum, and messages that
//! may be compressed together.

use super::codec::KafkaCodec;
use super::crc::crc32c;
use super::wire::{NotKafka, ValueReader};

/// Bytes before those that the length of a batch counts: its first offset, and the length.
const BEFORE_LENGTH: usize = 12;
/// The form of batches that Kafka has had since 0.11.
const FORM: i8 = 2;
/// Bits of the attributes.
const TRANSACTIONAL_BATCH: i16 = 1 << 4;
const CONTROL_BATCH: i16 = 1 << 5;
/// The type of a control message that ends a transaction without effect.
const ABORT: i16 = 0;

/// A batch whose head was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct KafkaBatch<'a> {
    /// Offset of its first message.
    pub first: i64,
    /// Offset behind its last message.
    pub end: i64,
    /// Number of its messages, as the head tells.
    pub count: u64,
    /// The transaction of a producer that it belongs to, if it does.
    pub transaction_of: Option<i64>,
    /// It tells how a transaction ended, and has no messages for consumers.
    pub is_control: bool,
    body: BatchBody<'a>,
}

#[derive(Clone, Copy, Debug)]
enum BatchBody<'a> {
    /// Messages that may be compressed.
    Messages { attributes: i16, bytes: &'a [u8] },
    /// A batch that this node cannot read, with the reason. Its messages are left out, and that is told.
    Unusable(&'static str),
}

/// A message as it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredMessage<'a> {
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    /// `None` says that the key has no value any longer.
    pub value: Option<&'a [u8]>,
}

/// Takes the first batch from bytes; `None` if there is no whole one. A broker cuts its answers off anywhere.
pub(super) fn split<'a>(bytes: &mut &'a [u8]) -> Result<Option<KafkaBatch<'a>>, NotKafka> {
    let mut reader = ValueReader(bytes);
    let (Ok(first), Ok(length)) = (reader.i64(), reader.i32()) else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| NotKafka)?;
    let Some((whole, rest)) = bytes.split_at_checked(BEFORE_LENGTH.saturating_add(length)) else {
        return Ok(None);
    };
    let batch = head(first, &whole[BEFORE_LENGTH..])?;
    *bytes = rest;
    Ok(Some(batch))
}

fn head(first: i64, counted: &[u8]) -> Result<KafkaBatch<'_>, NotKafka> {
    let mut reader = ValueReader(counted);
    let _leader_epoch = reader.i32()?;
    if reader.i8()? != FORM {
        let body = BatchBody::Unusable("a message in a form from before Kafka 0.11");
        let end = first.checked_add(1).ok_or(NotKafka)?;
        return Ok(KafkaBatch { first, end, count: 1, transaction_of: None, is_control: false, body });
    }
    let crc = reader.u32()?;
    let is_whole = crc32c(reader.0) == crc;
    let attributes = reader.i16()?;
    let last_delta = reader.i32()?;
    let _times = (reader.i64()?, reader.i64()?);
    let producer = reader.i64()?;
    let _order = (reader.i16()?, reader.i32()?);
    let count = u64::try_from(reader.i32()?).map_err(|_| NotKafka)?;
    let end = first.checked_add(i64::from(last_delta)).and_then(|last| last.checked_add(1));
    let end = end.filter(|end| first >= 0 && *end > first).ok_or(NotKafka)?;
    let body = match is_whole {
        true => BatchBody::Messages { attributes, bytes: reader.0 },
        false => BatchBody::Unusable("a batch whose checksum is wrong"),
    };
    let transaction_of = (attributes & TRANSACTIONAL_BATCH != 0).then_some(producer);
    Ok(KafkaBatch { first, end, count, transaction_of, is_control: attributes & CONTROL_BATCH != 0, body })
}

impl<'a> KafkaBatch<'a> {
    /// The messages as they are stored, and how they are compressed.
    pub fn stored(&self) -> Result<(KafkaCodec, &'a [u8]), String> {
        match self.body {
            BatchBody::Messages { attributes, bytes } => Ok((KafkaCodec::of(attributes)?, bytes)),
            BatchBody::Unusable(why) => Err(why.to_owned()),
        }
    }

    /// The messages as they were before they were compressed. May take a tenth of a second.
    pub fn messages(&self) -> Result<Vec<u8>, String> {
        let (codec, bytes) = self.stored()?;
        codec.decompress(bytes)
    }

    /// Calls `take` for every message of the batch, whose [`KafkaBatch::messages`] are given.
    pub fn read<'m>(
        &self,
        messages: &'m [u8],
        mut take: impl FnMut(StoredMessage<'m>),
    ) -> Result<(), NotKafka> {
        let mut rest = ValueReader(messages);
        for _ in 0..self.count {
            let length = usize::try_from(rest.varint()?).map_err(|_| NotKafka)?;
            let mut reader = ValueReader(rest.take(length)?);
            let _attributes = reader.i8()?;
            let _time_delta = reader.varint()?;
            let offset = self.first.checked_add(reader.varint()?).ok_or(NotKafka)?;
            if !(self.first..self.end).contains(&offset) {
                return Err(NotKafka);
            }
            let (key, value) = (reader.short_bytes()?, reader.short_bytes()?);
            take(StoredMessage { offset, key, value });
        }
        Ok(())
    }

    /// Whether this control batch ends a transaction without effect.
    pub fn is_abort(&self) -> bool {
        let mut is_abort = false;
        if let Ok(messages) = self.messages() {
            let _ = self.read(&messages, |message| {
                let mut key = ValueReader(message.key.unwrap_or_default());
                is_abort |= key.i16().and_then(|_version| key.i16()) == Ok(ABORT);
            });
        }
        is_abort
    }
}

/// Has any bytes read as batches, and asserts what must hold whatever they are.
#[cfg(any(test, fuzzing))]
pub(in crate::extend::pull) fn check(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(batch)) = split(&mut rest) {
        assert!(batch.end > batch.first && rest.len() < bytes.len());
        let Ok(messages) = batch.messages() else { continue };
        let _ = batch.read(&messages, |message| {
            assert!((batch.first..batch.end).contains(&message.offset));
            let bytes = message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len);
            assert!(bytes <= messages.len());
        });
        batch.is_abort();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::wire::ValueWriter;
    use super::*;

    fn varint(value: i64) -> Vec<u8> {
        let mut rest = (value << 1 ^ value >> 63) as u64;
        let mut bytes = Vec::new();
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }

    fn short_bytes(bytes: Option<&[u8]>) -> Vec<u8> {
        let length = bytes.map_or(-1, |bytes| bytes.len() as i64);
        [varint(length), bytes.unwrap_or_default().to_vec()].concat()
    }

    /// The key and the value of a message.
    pub type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

    /// A batch with these keys and values, the first of which has the offset `first`.
    pub fn batch(first: i64, attributes: i16, pairs: &[Pair<'_>]) -> Vec<u8> {
        let messages = pairs.iter().enumerate().flat_map(|(at, (key, value))| {
            let parts =
                [vec![0], varint(0), varint(at as i64), short_bytes(*key), short_bytes(*value), varint(0)];
            let message = parts.concat();
            [varint(message.len() as i64), message].concat()
        });
        let messages: Vec<u8> = messages.collect();
        let messages = match attributes & 7 {
            4 => zstd::bulk::compress(&messages, 1).expect("compressed"),
            _ => messages,
        };
        let counted = ValueWriter::default().i16(attributes).i32(pairs.len() as i32 - 1).i64(5).i64(5);
        let counted = counted.i64(77).i16(0).i32(0).i32(pairs.len() as i32).0;
        let counted = [counted, messages].concat();
        let inner = ValueWriter::default().i32(0).i8(FORM).i32(crc32c(&counted) as i32).0;
        let inner = [inner, counted].concat();
        [ValueWriter::default().i64(first).i32(inner.len() as i32).0, inner].concat()
    }

    #[test]
    fn batches_are_read_one_behind_the_other() {
        let plain = batch(3, 0, &[(Some(b"k"), Some(b"v")), (None, Some(b"")), (Some(b"gone"), None)]);
        let packed = batch(9, 4, &[(None, Some(&[7; 3_000]))]);
        let bytes = [plain, packed.clone(), packed[..packed.len() - 1].to_vec()].concat();
        let mut rest = bytes.as_slice();
        let mut read = Vec::new();
        while let Some(batch) = split(&mut rest).expect("batches") {
            let messages = batch.messages().expect("messages");
            let take = |message: StoredMessage<'_>| {
                let value = message.value.map(<[u8]>::len);
                read.push((message.offset, message.key.map(<[u8]>::to_vec), value));
            };
            batch.read(&messages, take).expect("read");
        }
        let key = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(
            read,
            [(3, key("k"), Some(1)), (4, None, Some(0)), (5, key("gone"), None), (9, None, Some(3_000))]
        );
        assert_eq!(rest.len(), packed.len() - 1, "what is cut off is left");
    }

    #[test]
    fn what_cannot_be_read_is_told_and_passed() {
        let mut damaged = batch(3, 0, &[(None, Some(b"value"))]);
        let last = damaged.len() - 3;
        damaged[last] ^= 1;
        let mut rest = damaged.as_slice();
        let found = split(&mut rest).expect("a batch").expect("whole");
        assert_eq!((found.end, found.messages()), (4, Err("a batch whose checksum is wrong".into())));
        let mut old = batch(3, 0, &[(None, None)]);
        old[16] = 1;
        let found = split(&mut old.as_slice()).expect("a batch").expect("whole");
        assert!(found.end == 4 && found.messages().is_err());
        let unknown = batch(3, 5, &[(None, None)]);
        let found = split(&mut unknown.as_slice()).expect("a batch").expect("whole");
        assert!(found.messages().is_err_and(|why| why.contains("compression 5")));
    }

    #[test]
    fn ends_of_transactions_are_told_apart() {
        for (kind, is_abort) in [(0u8, true), (1, false)] {
            let bytes =
                batch(1, TRANSACTIONAL_BATCH | CONTROL_BATCH, &[(Some(&[0, 0, 0, kind]), Some(&[0; 6]))]);
            let found = split(&mut bytes.as_slice()).expect("a batch").expect("whole");
            assert!(found.is_control && found.transaction_of == Some(77));
            assert_eq!(found.is_abort(), is_abort);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200, to in any::<u8>()) {
            check(&bytes);
            let mut changed = batch(3, 0, &[(Some(b"key"), Some(b"value")), (None, None)]);
            let at = at % changed.len();
            changed[at] = to;
            // With the right checksum, so that what is behind it is read.
            let crc = crc32c(&changed[21..]).to_be_bytes();
            changed[17..21].copy_from_slice(&crc);
            check(&changed);
        }
    }
}
