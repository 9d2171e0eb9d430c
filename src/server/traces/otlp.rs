//! Spans as the JSON of OTLP, the protocol of OpenTelemetry (`ExportTraceServiceRequest`).
//!
//! JSON is one of the two forms that every receiver over HTTP takes. It needs neither the schema nor generated types,
//! and the few sampled records make few bytes.

use serde_json::{Value, json};

use super::span::TraceSpan;
use crate::record::NodeName;

/// Writes spans of the node with this name.
pub fn request(node: &NodeName, spans: &[TraceSpan]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        text("service.name", "anode"),
        text("service.instance.id", node.as_str()),
        text("service.version", version),
    ];
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{
            "scope": {"name": "anode", "version": version},
            "spans": spans.iter().map(span).collect::<Vec<Value>>(),
        }],
    }]});
    body.to_string().into_bytes()
}

fn span(span: &TraceSpan) -> Value {
    let TraceSpan { trace_id, id, parent_id, stage, source, ts, origin, start_us, end_us, handed } = span;
    let mut attributes = vec![
        text("anode.source", source.as_str()),
        number("anode.ts", *ts),
        text("anode.origin", origin.as_str()),
    ];
    if let Some((worker, subscribers)) = handed {
        attributes.push(number("anode.worker", *worker as u64));
        attributes.push(number("anode.subscribers", *subscribers as u64));
    }
    // OTLP writes 64-bit numbers as texts, and identifiers in hexadecimal.
    let mut value = json!({
        "traceId": format!("{trace_id:032x}"),
        "spanId": format!("{id:016x}"),
        "name": stage.as_str(),
        "kind": stage.kind(),
        "startTimeUnixNano": nanoseconds(*start_us),
        "endTimeUnixNano": nanoseconds(*end_us),
        "attributes": attributes,
    });
    if *parent_id != 0
        && let Some(members) = value.as_object_mut()
    {
        members.insert("parentSpanId".into(), format!("{parent_id:016x}").into());
    }
    value
}

fn nanoseconds(us: u64) -> String {
    us.saturating_mul(1_000).to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}
