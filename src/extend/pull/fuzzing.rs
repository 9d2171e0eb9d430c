//! Checks of the doors of pull sources: definitions, and what comes from outside.

use serde_json::{Value, json};

use super::definition::PullDefinition;
use super::document::take_document;
use super::http::{EventStreamReader, StreamEvent};
#[cfg(feature = "kafka")]
use super::kafka;
use super::lines::{CutLine, LineCutter};
use super::mapped::{MAPPED_BYTES_MAX, Mapped, RECORDS_PER_DOCUMENT_MAX};
use super::mqtt;
use super::template::Facts;
use crate::fuzzing::{Pieces, join};
use crate::record::Source;

/// Reads a definition, and what its rules make of a document, and asserts that all records have names and are bounded.
pub(crate) fn pull(input: &[u8]) {
    let mut pieces = Pieces(input);
    let (definition, document) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
    #[cfg(feature = "kafka")]
    kafka::check_batches(document);
    let Ok(body) = serde_json::from_slice::<Value>(definition) else { return };
    let read = match PullDefinition::read(&body) {
        Ok(read) => read,
        Err(bad) => return assert!(!bad.field.is_empty() && !bad.allowed.is_empty(), "{bad}"),
    };
    let facts = Facts { topic: Some("a/b"), event: Some("e"), key: Some("k"), file: Some("f"), now_us: 1 };
    let mut mapped = Mapped::default();
    take_document(&read.mapping, read.format, document, facts, &mut mapped);
    assert_eq!(mapped.failed > 0, mapped.failure.is_some());
    assert!(mapped.drafts.len() <= RECORDS_PER_DOCUMENT_MAX);
    let bytes: usize = mapped.drafts.iter().map(|draft| draft.data_bytes()).sum();
    assert!(bytes <= MAPPED_BYTES_MAX);
    for draft in &mapped.drafts {
        assert!(Source::check(&draft.source).is_ok(), "{draft:?}");
    }
}

/// Makes definitions of every kind with documents for them.
pub(crate) fn pull_seeds() -> Vec<Vec<u8>> {
    let weather = json!({
        "kind": "http", "every": "5s", "url": "https://api.example/weather",
        "headers": {"Authorization": "env:WEATHER_KEY"},
        "records": [{"source": "weather/{/city}", "pointer": "/current", "ts": "/time"}]
    });
    let rates = json!({
        "kind": "http", "url": "http://h/", "records": [{"source": "r/{*}", "pointer": "/rates/*", "ttl": "1h"}]
    });
    let broker = json!({
        "kind": "mqtt", "url": "mqtts://b:8883", "topics": ["a/#", "+/b"], "qos": 1, "username": "u",
        "password": "env:P", "records": [{"source": "m/{topic/1}/{/id}", "ts": "/t", "ts_unit": "ms"}]
    });
    let topics = json!({"kind": "kafka", "brokers": ["k:9092"], "topics": ["a", "b.c"], "from": "end", "tls": true,
        "username": "u", "password": "env:P", "records": [{"source": "k/{topic}/{key}", "pointer": "/v"}]});
    let file = json!({"kind": "file", "path": "/var/log/x.log", "node": "a", "from": "end", "format": "text",
        "records": [{"source": "log/{file}"}]});
    let program =
        json!({"kind": "exec", "command": ["tool", "-x"], "env": {"K": "env:V"}, "max_silence": "1m"});
    let pairs: [(Value, &[u8]); 7] = [
        (weather.clone(), br#"{"city":"oslo","time":"2025-11-22T08:26:40Z","current":{"c":-1.50}}"#),
        (weather, br#"[{"city":"a","time":1763800000.5,"current":1},{"city":"b/c","time":1,"current":[]}]"#),
        (rates, br#"{"rates":{"EUR":1.0,"U/S":[1,{"a~b":2}]}}"#),
        (broker, b"\x32\x0a\0\x03a/b\0\x07{}"),
        (topics, br#"{"v":1}"#),
        (file, "a line \u{e4}".as_bytes()),
        (program, br#"{"source":"a/b","data":{"x":1},"ts":5,"ttl_ms":7}"#),
    ];
    pairs.iter().map(|(definition, document)| join([definition.to_string().as_bytes(), *document])).collect()
}

/// Most bytes of a line or an event in the check of streams.
const FUZZED_LINE_BYTES_MAX: usize = 64;

/// Has bytes read as packets of an MQTT broker.
pub(crate) fn mqtt(input: &[u8]) {
    mqtt::check_packets(input);
}

/// Packets of every kind that a broker sends, some of them behind each other.
pub(crate) fn mqtt_seeds() -> Vec<Vec<u8>> {
    [
        b"\x20\x02\0\0".as_slice(),
        b"\x90\x04\0\x01\x01\x80\xd0\0",
        b"\x31\x07\0\x03a/b21",
        b"\x32\x0a\0\x03a/b\0\x07{}\n\x30\x05\0\x01ahi",
        b"\x50\x02\0\x01",
        b"\x32\xff\x7f\0\x01a\0\x09",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Has bytes that come in pieces cut into lines and into events, and asserts that it makes no difference where the
/// pieces end. The first byte is the length of the pieces.
pub(crate) fn pull_stream(input: &[u8]) {
    let Some((length, bytes)) = input.split_first() else { return };
    let length = usize::from(*length).max(1);
    assert_eq!(cut_lines(bytes, length), cut_lines(bytes, bytes.len().max(1)));
    let (events, last) = read_events(bytes, length);
    assert_eq!((events, last), read_events(bytes, bytes.len().max(1)));
}

fn cut_lines(bytes: &[u8], length: usize) -> Vec<Option<Vec<u8>>> {
    let (mut cutter, mut lines) = (LineCutter::new(FUZZED_LINE_BYTES_MAX), Vec::new());
    let mut take = |line: CutLine<'_>| match line {
        CutLine::Whole(line) => {
            assert!(line.len() <= FUZZED_LINE_BYTES_MAX);
            lines.push(Some(line.to_vec()));
        }
        CutLine::TooLong => lines.push(None),
    };
    bytes.chunks(length).for_each(|piece| cutter.push(piece, &mut take));
    cutter.finish(&mut take);
    lines
}

/// The events that were read, `None` for one that was too long, and the last id and the wait in milliseconds.
type ReadEvents = (Vec<Option<(String, Vec<u8>)>>, (Option<String>, Option<u64>));

fn read_events(bytes: &[u8], length: usize) -> ReadEvents {
    let (mut reader, mut events) = (EventStreamReader::new(FUZZED_LINE_BYTES_MAX), Vec::new());
    for piece in bytes.chunks(length) {
        reader.push(piece, |event| match event {
            StreamEvent::Whole { kind, data } => {
                assert!(data.len() <= FUZZED_LINE_BYTES_MAX + 1, "with the newline between two lines");
                events.push(Some((kind.to_owned(), data.to_vec())));
            }
            StreamEvent::TooLong => events.push(None),
        });
    }
    let last = (reader.last_id().map(str::to_owned), reader.retry_ms());
    (events, last)
}

/// Streams as servers send them.
pub(crate) fn pull_stream_seeds() -> Vec<Vec<u8>> {
    [
        "\u{3}\u{feff}: comment\n\ndata: a\ndata:b\n\nevent: tick\r\nid: 7\r\ndata:  c\r\n\r\nretry: 250\rdata\r\r",
        "\u{1}{\"a\":1}\n{\"a\":2}\r\n\r\nlast",
        "\u{7}data: 0123456789012345678901234567890123456789012345678901234567890123456789\n\ndata: b\n\n",
        "\u{2}id: a\0b\nretry: 1x\nevent: only\n\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
