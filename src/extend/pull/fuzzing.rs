//! Checks of the doors of pull sources: definitions, and what comes from outside.

use serde_json::{Value, json};

use super::definition::PullDefinition;
use super::document::take_document;
#[cfg(feature = "kafka")]
use super::kafka;
use super::mapped::{MAPPED_BYTES_MAX, Mapped, RECORDS_PER_DOCUMENT_MAX};
use super::mqtt;
use super::template::Facts;
use crate::fuzzing::{Pieces, join};
use crate::record::Source;

/// Reads a definition, and what its rules make of a document, and asserts that all records have names and are bounded.
pub(crate) fn pull(input: &[u8]) {
    let mut pieces = Pieces(input);
    let (definition, document) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
    mqtt::check_packets(document);
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
