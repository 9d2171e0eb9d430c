//! Writes messages to clients as JSON, directly into the bytes of a frame.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::answer::{Outcome, Published};
use crate::protocol::draft::RequestId;
use crate::protocol::refusal::Refusal;
use crate::protocol::reply::PublishAnswer;
use crate::record::words::json_plain_len;
use crate::record::{Payload, Record};

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Nearly all texts need no escapes, and are copied as a whole.
    let mut from = 0;
    let escaped = if json_plain_len(text.as_bytes()) < text.len() { text.len() } else { 0 };
    for (at, byte) in text.bytes().enumerate().take(escaped) {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => number(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    out.push(b'"');
}

/// Most bytes that the message of one record needs apart from its names and its data: keys, quotes and the
/// timestamp.
const FIELDS_BYTES_MAX: usize = 80;

/// Appends a record as subscribers see it. With `as_deleted` it is written as a deletion, because its time to
/// live has ended.
pub fn write_record(out: &mut Vec<u8>, record: &Record, as_deleted: bool) {
    // This is the only allocation unless the name has escapes or the data is written as base64.
    let (source, origin) = (record.source.as_str().len(), record.birth.origin.as_bytes().len());
    out.reserve(FIELDS_BYTES_MAX + source + origin + record.payload.bytes().len());
    write_fields(out, record);
    match &record.payload {
        Payload::Json(bytes) if !as_deleted => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(bytes);
        }
        Payload::Binary(bytes) if !as_deleted => {
            out.extend_from_slice(b",\"data_b64\":\"");
            let start = out.len();
            out.resize(start + bytes.len().div_ceil(3) * 4, 0);
            let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
            out.truncate(start + written);
            out.push(b'"');
        }
        _ => out.extend_from_slice(b",\"deleted\":true"),
    }
    out.push(b'}');
}

/// Appends a record whose data is JSON, up to its data. The data is to follow, and a brace that ends the record.
pub fn write_up_to_data(out: &mut Vec<u8>, record: &Record) {
    debug_assert!(matches!(record.payload, Payload::Json(_)));
    write_fields(out, record);
    out.extend_from_slice(b",\"data\":");
}

/// Appends the fields of a record that are before its data.
#[inline(always)]
fn write_fields(out: &mut Vec<u8>, record: &Record) {
    let (source, origin) = (record.source.as_str(), record.birth.origin.as_bytes());
    out.extend_from_slice(b"{\"source\":");
    write_string(out, source);
    out.extend_from_slice(b",\"ts\":");
    decimal(out, record.stamp.ts);
    out.extend_from_slice(b",\"origin\":\"");
    // Names of nodes never contain a character that JSON escapes.
    out.extend_from_slice(origin);
    out.push(b'"');
}

/// Appends the message that a record is not shown any longer, because a filter is not true of it.
pub fn write_gone(out: &mut Vec<u8>, record: &Record) {
    out.extend_from_slice(b"{\"source\":");
    write_string(out, record.source.as_str());
    out.extend_from_slice(b",\"ts\":");
    decimal(out, record.stamp.ts);
    out.extend_from_slice(b",\"gone\":true}");
}

/// Appends the answers to one publish frame: an array for a batch, else the one answer as an object.
pub fn write_publish_answers<'a>(
    out: &mut Vec<u8>,
    answers: impl Iterator<Item = PublishAnswer<'a>>,
    is_batch: bool,
) {
    if is_batch {
        out.push(b'[');
    }
    for (at, answer) in answers.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_publish_answer(out, &answer);
    }
    if is_batch {
        out.push(b']');
    }
}

/// Appends the beginning of an answer: a brace, and the id of the request if the client gave one.
pub(super) fn open_answer(out: &mut Vec<u8>, id: Option<&RequestId<'_>>) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        write_id(out, id);
        out.push(b',');
    }
}

/// Appends the answer to one item: `{"id":…,"index":…,"result":{…}}`, or with `"error"` instead of
/// `"result"`.
fn write_publish_answer(out: &mut Vec<u8>, PublishAnswer { id, index, answer }: &PublishAnswer<'_>) {
    open_answer(out, id.as_ref());
    if let Some(index) = index {
        number(out, format_args!("\"index\":{index},"));
    }
    match answer {
        Ok(published) => {
            out.extend_from_slice(b"\"result\":");
            write_published(out, published);
        }
        Err(refusal) => {
            out.extend_from_slice(b"\"error\":");
            write_refusal(out, refusal);
        }
    }
    out.push(b'}');
}

/// Appends the id of a request exactly as the client wrote it.
fn write_id(out: &mut Vec<u8>, id: &RequestId<'_>) {
    match id {
        RequestId::Json(text) => out.extend_from_slice(text.as_bytes()),
        RequestId::Text(text) => write_string(out, text),
        RequestId::Number(value) => number(out, format_args!("{value}")),
    }
}

/// Appends the result of a publish: `{"ts":…,"outcome":…,"level":…}`, with `"current_ts"` and `"nodes"` where
/// they apply.
pub fn write_published(out: &mut Vec<u8>, published: &Published) {
    out.extend_from_slice(b"{\"ts\":");
    decimal(out, published.ts);
    out.extend_from_slice(b",\"outcome\":");
    match published.outcome {
        Outcome::Applied => out.extend_from_slice(b"\"applied\""),
        Outcome::Duplicate => out.extend_from_slice(b"\"duplicate\""),
        Outcome::Dropped => out.extend_from_slice(b"\"dropped\""),
        Outcome::Stale { current_ts } => number(out, format_args!("\"stale\",\"current_ts\":{current_ts}")),
    }
    out.extend_from_slice(b",\"level\":\"");
    out.extend_from_slice(published.level.as_str().as_bytes());
    out.push(b'"');
    if let Some(nodes) = published.nodes {
        number(out, format_args!(",\"nodes\":{nodes}"));
    }
    out.push(b'}');
}

/// Appends a refusal: `{"code":…,"message":…,"temporary":…}`, with `"applied"`, `"ts"` and `"nodes"` where
/// they apply.
pub fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    number(out, format_args!("{{\"code\":\"{}\",\"message\":", refusal.code.as_str()));
    write_string(out, &refusal.message);
    number(out, format_args!(",\"temporary\":{}", refusal.code.is_temporary()));
    write_refusal_facts(out, refusal);
    out.push(b'}');
}

/// Appends the facts of a refusal that not every one has, as members of an object that follow others: `ts` if
/// the record was applied all the same, how many members hold it, and after which time to try again.
pub fn write_refusal_facts(out: &mut Vec<u8>, refusal: &Refusal) {
    if let Some(ts) = refusal.applied_ts {
        number(out, format_args!(",\"applied\":true,\"ts\":{ts}"));
    }
    if let Some(nodes) = refusal.nodes {
        number(out, format_args!(",\"nodes\":{nodes}"));
    }
    if let Some(retry_after_ms) = refusal.retry_after_ms {
        number(out, format_args!(",\"retry_after_ms\":{retry_after_ms}"));
    }
}

/// The two decimal digits of every number from 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Returns the sixteen decimal digits of a number less than 10^16, with leading zeros. Each half of eight
/// digits is computed in one word, which is faster than a chain of divisions that wait for each other.
fn sixteen(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (place, part) in
        digits.as_chunks_mut::<8>().0.iter_mut().zip([number / 100_000_000, number % 100_000_000])
    {
        *place = eight(part as u32).to_le_bytes();
    }
    digits
}

/// Returns the eight decimal digits of a number less than 10^8, the first digit in the lowest byte.
fn eight(number: u32) -> u64 {
    let fours = u64::from(number / 10_000) | u64::from(number % 10_000) << 32;
    // Splits each half into hundreds and rest. The multiplication replaces a division and is exact for all
    // numbers less than 10,000.
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let pairs = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x0f_000f_000f_000f;
    (tens | (pairs - 10 * tens) << 8) | u64::from_le_bytes([b'0'; 8])
}

/// Appends a number in decimal, without the formatter of the standard library, because every record has a
/// timestamp.
fn decimal(out: &mut Vec<u8>, number: u64) {
    // Timestamps in microseconds have sixteen digits from the year 2001 to 2286.
    if (1_000_000_000_000_000..10_000_000_000_000_000).contains(&number) {
        return out.extend_from_slice(&sixteen(number));
    }
    let (mut digits, mut used, mut rest) = ([[0; 2]; 10], 10, number);
    // Eight digits are split off at a time, because their pairs can then be computed independently of each
    // other.
    while rest >= 100_000_000 {
        let low = (rest % 100_000_000) as u32;
        rest /= 100_000_000;
        let (high, low) = (low / 10_000, low % 10_000);
        used -= 4;
        for (place, pair) in digits[used..].iter_mut().zip([high / 100, high % 100, low / 100, low % 100]) {
            *place = PAIRS[pair as usize];
        }
    }
    let mut rest = rest as u32;
    while used == 10 || rest > 0 {
        used -= 1;
        digits[used] = PAIRS[(rest % 100) as usize];
        rest /= 100;
    }
    let text = digits[used..].as_flattened();
    let is_padded = text.len() > 1 && text[0] == b'0';
    out.extend_from_slice(&text[usize::from(is_padded)..]);
}

/// Appends formatted text, such as a number. Writing to a `Vec` cannot fail, so there is no result.
pub(super) fn number(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::AckLevel;
    use crate::record::{Birth, NodeName, Source, Stamp};
    use bytes::Bytes;

    fn record(payload: Payload) -> Record {
        let stamp = match &payload {
            Payload::Deleted => Stamp::of_deletion(9),
            other => Stamp::of_data(9, other.bytes()),
        };
        let birth = Birth { origin: NodeName::parse("n1").expect("name"), boot: 1, seq: 1 };
        Record::new(Source::parse("a\"\\/b").expect("source"), stamp, payload, birth, 9, 0)
    }

    fn written(record: &Record, as_deleted: bool) -> String {
        let mut out = Vec::new();
        write_record(&mut out, record, as_deleted);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn records() {
        let json = record(Payload::Json(Bytes::from_static(b"{ \"x\": 1.0 }")));
        assert_eq!(written(&json, false), r#"{"source":"a\"\\/b","ts":9,"origin":"n1","data":{ "x": 1.0 }}"#);
        assert_eq!(written(&json, true), r#"{"source":"a\"\\/b","ts":9,"origin":"n1","deleted":true}"#);
        let binary = record(Payload::Binary(Bytes::from_static(&[0, 1, 255, 7])));
        assert_eq!(
            written(&binary, false),
            r#"{"source":"a\"\\/b","ts":9,"origin":"n1","data_b64":"AAH/Bw=="}"#
        );
        assert_eq!(
            written(&record(Payload::Deleted), false),
            r#"{"source":"a\"\\/b","ts":9,"origin":"n1","deleted":true}"#
        );
    }

    proptest::proptest! {
        #[test]
        fn numbers_are_written_as_they_are(bits in 0u32..64, number: u64, stamp in 0u64..10_000_000_000_000_000) {
            for number in [number >> bits, stamp, stamp / 10_000 * 10_000] {
                let mut out = Vec::new();
                decimal(&mut out, number);
                proptest::prop_assert_eq!(String::from_utf8(out).expect("digits"), number.to_string());
            }
        }
    }

    #[test]
    fn decimals() {
        for number in [0, 1, 9, 10, 99_999_999, 100_000_000, 1_000_000_001, 1_763_800_000_000_000, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).expect("utf-8"), number.to_string());
        }
    }

    #[test]
    fn answers() {
        let mut out = Vec::new();
        let stale = Published {
            ts: 1,
            outcome: Outcome::Stale { current_ts: 2 },
            level: AckLevel::Stored,
            nodes: None,
        };
        let id = Some(RequestId::Json("\"q\""));
        write_publish_answer(&mut out, &PublishAnswer { id, index: Some(3), answer: &Ok(stale) });
        assert_eq!(
            out,
            br#"{"id":"q","index":3,"result":{"ts":1,"outcome":"stale","current_ts":2,"level":"stored"}}"#
        );
    }
}
