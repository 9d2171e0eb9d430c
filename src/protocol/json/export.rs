//! The lines of an export: publish objects, which can be published again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::write::{number, write_string};
use crate::record::{Payload, Record};

/// Appends the line of a record as it is at the wall clock `wall_us`, in microseconds. `ttl_ms` is the time that is left
/// to the value, in milliseconds. A value whose time is over is written as a deletion, as readers see it.
///
/// A line has no line breaks in it, so those in the white space of JSON data are written as spaces. Everything else of
/// the data is as it was published.
pub fn write_export_line(out: &mut Vec<u8>, record: &Record, wall_us: u64) {
    out.extend_from_slice(b"{\"source\":");
    write_string(out, record.source.as_str());
    number(out, format_args!(",\"ts\":{}", record.stamp.ts));
    match &record.payload {
        _ if !record.is_visible(wall_us) => out.extend_from_slice(b",\"deleted\":true"),
        Payload::Json(data) => {
            out.extend_from_slice(b",\"data\":");
            // Inside of strings JSON has no line breaks.
            out.extend(data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        }
        Payload::Binary(data) => {
            out.extend_from_slice(b",\"data_b64\":\"");
            out.extend_from_slice(STANDARD.encode(data).as_bytes());
            out.push(b'"');
        }
        Payload::Deleted => out.extend_from_slice(b",\"deleted\":true"),
    }
    if let Some(expires_us) = record.expires_us().filter(|expires_us| *expires_us > wall_us) {
        number(out, format_args!(",\"ttl_ms\":{}", (expires_us - wall_us).div_ceil(1_000)));
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{Birth, NodeName, Source, Stamp};

    fn line(payload: Payload, ttl_ms: u64) -> String {
        let birth = Birth { origin: NodeName::parse("n").expect("name"), boot: 1, seq: 1 };
        let (source, stamp) =
            (Source::parse("a\"b").expect("source"), Stamp::of_data(7_000, payload.bytes()));
        let stamp = Stamp { deleted: matches!(payload, Payload::Deleted), ..stamp };
        let mut out = Vec::new();
        write_export_line(&mut out, &Record::new(source, stamp, payload, birth, 9_000, ttl_ms), 10_500);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn a_record_is_one_line_that_can_be_published() {
        let json = |text: &'static str| Payload::Json(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            line(json("{ \"x\":\r\n1.0 }"), 0),
            "{\"source\":\"a\\\"b\",\"ts\":7000,\"data\":{ \"x\":  1.0 }}\n"
        );
        assert_eq!(line(json("1"), 5), "{\"source\":\"a\\\"b\",\"ts\":7000,\"data\":1,\"ttl_ms\":2}\n");
        let deleted = "{\"source\":\"a\\\"b\",\"ts\":7000,\"deleted\":true}\n";
        assert_eq!(line(json("1"), 3), deleted, "its time is over");
        assert_eq!(line(Payload::Deleted, 0), deleted);
        let binary = Payload::Binary(Bytes::from_static(&[0, 255]));
        assert_eq!(line(binary, 0), "{\"source\":\"a\\\"b\",\"ts\":7000,\"data_b64\":\"AP8=\"}\n");
    }
}
