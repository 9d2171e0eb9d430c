//! The checks of what clients send: JSON, protobuf and resume tokens.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use prost::Message as _;
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64;

use super::AckLevel;
use super::answer::{Outcome, Published};
use super::draft::{Draft, DraftPayload, PublishFrame};
use super::protobuf::ClientMessage;
use super::refusal::Refusal;
use super::reply::PublishAnswer;
use super::request::{Notice, Request, SubscribeFrame};
use super::token::Token;
use super::{json, protobuf};
use crate::limits::{BATCH_ITEMS_MAX, PATTERNS_PER_SUBSCRIPTION_MAX, TS_MAX, TTL_MS_MAX};
use crate::proto::client as proto;
use crate::record::{Birth, NodeName, Record, Source, Stamp};

/// Depth up to which the other reader of JSON follows.
const DEPTH_MAX: usize = 100;

/// The input is the text of a frame.
pub(crate) fn json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let publish = json::publish_frame(text);
    let subscribe = json::subscribe_frame(text);
    // Brackets in strings count, too: this is the most that the depth may be.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() < DEPTH_MAX {
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        assert_eq!(publish.is_ok(), is_json, "as a publish: {text:?}");
        assert_eq!(subscribe.is_ok(), is_json, "as a subscription: {text:?}");
    }
    if let Ok(frame) = &publish {
        frame_holds(frame);
        answers_hold(frame);
        for draft in frame.items.iter().filter_map(|item| item.draft.as_ref().ok()) {
            let written = as_json(draft);
            let again = json::publish_frame(&written).expect("what is written here is JSON");
            assert_eq!(again.items.first().map(|item| &item.draft), Some(&Ok(draft.clone())), "{text:?}");
        }
    }
    if let Ok(frame) = &subscribe {
        subscribe_holds(frame);
    }
}

/// What the node relies on when it is given a frame with publishes, in whatever form it came.
fn frame_holds(frame: &PublishFrame<'_>) {
    assert!(frame.items.len() <= BATCH_ITEMS_MAX && (frame.is_batch || frame.items.len() == 1));
    for item in frame.items.iter() {
        match &item.draft {
            Ok(draft) => draft_holds(draft),
            Err(refusal) => assert!(refusal.message.len() < 1024, "{refusal:?}"),
        }
    }
}

fn draft_holds(draft: &Draft<'_>) {
    assert!(Source::check(&draft.source).is_ok(), "{draft:?}");
    assert!(draft.ts.is_none_or(|ts| ts <= TS_MAX) && draft.ttl_ms <= TTL_MS_MAX, "{draft:?}");
    if let DraftPayload::Json(text) = draft.payload {
        let value: Result<serde_json::Value, _> = serde_json::from_slice(text);
        // Numbers may have any size, which not every reader takes.
        let is_number =
            value.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range"));
        assert!(value.is_ok() || is_number, "{draft:?}: {value:?}");
        assert_eq!(text, text.trim_ascii(), "{draft:?}");
    }
    record_holds(&record_of(draft));
}

fn record_of(draft: &Draft<'_>) -> Record {
    let ts = draft.ts.unwrap_or(1_700_000_000_000_000);
    let stamp = match &draft.payload {
        DraftPayload::Deleted => Stamp::of_deletion(ts),
        data => Stamp::of_data(ts, data.bytes()),
    };
    let birth = Birth { origin: NodeName::parse("n1").expect("name"), boot: 1, seq: 1 };
    let source = Source::parse(&draft.source).expect("a checked name");
    Record::new(source, stamp, draft.payload.to_payload(), birth, ts, draft.ttl_ms)
}

/// A record is told to subscribers in two forms, which can be read and mean the same.
fn record_holds(record: &Record) {
    let (mut text, mut bytes) = (Vec::new(), Vec::new());
    json::write_record(&mut text, record, false);
    protobuf::write_record(&mut bytes, record, false);
    assert!(serde_json::from_slice::<IgnoredAny>(&text).is_ok(), "{record:?}");
    let told = proto::ServerMessage::decode(&bytes[..]).expect("a message of the schema");
    assert_eq!(told.encode_to_vec(), bytes, "as the generated code writes it");
    let Some(proto::server_message::Message::Record(told)) = told.message else { panic!("{record:?}") };
    assert_eq!((told.source.as_str(), told.ts), (record.source.as_str(), record.stamp.ts));
}

/// The answers to a frame are JSON, and protobuf of the schema.
fn answers_hold(frame: &PublishFrame<'_>) {
    let published = Published { ts: 5, outcome: Outcome::Applied, level: AckLevel::Stored, nodes: Some(1) };
    let results: Vec<Result<Published, Refusal>> =
        frame.items.iter().map(|item| item.draft.clone().map(|_| published)).collect();
    let answers = || {
        frame.items.iter().zip(&results).enumerate().map(|(index, (item, answer))| {
            let index = frame.is_batch.then_some(index);
            PublishAnswer { id: item.id.clone(), index, answer }
        })
    };
    let (mut text, mut bytes) = (Vec::new(), Vec::new());
    json::write_publish_answers(&mut text, answers(), frame.is_batch);
    protobuf::write_publish_answers(&mut bytes, answers(), frame.is_batch);
    if text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() < DEPTH_MAX {
        assert!(serde_json::from_slice::<IgnoredAny>(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
    }
    assert!(proto::ServerMessage::decode(&bytes[..]).is_ok());
}

/// The frame that publishes the same.
fn as_json(draft: &Draft<'_>) -> String {
    let mut text = b"{\"source\":".to_vec();
    json::write_string(&mut text, &draft.source);
    let mut text = String::from_utf8(text).expect("text");
    match &draft.payload {
        DraftPayload::Json(data) => {
            text += &format!(",\"data\":{}", std::str::from_utf8(data).expect("JSON is text"));
        }
        DraftPayload::Binary(data) => text += &format!(",\"data_b64\":\"{}\"", STANDARD.encode(data)),
        DraftPayload::Deleted => text += ",\"deleted\":true",
    }
    if let Some(ts) = draft.ts {
        text += &format!(",\"ts\":{ts}");
    }
    if draft.ttl_ms > 0 {
        text += &format!(",\"ttl_ms\":{}", draft.ttl_ms);
    }
    if let Some(ack) = draft.ack {
        text += &format!(",\"ack\":\"{}\"", ack.as_str());
    }
    text + "}"
}

fn subscribe_holds(frame: &SubscribeFrame<'_>) {
    if let Ok(Request::Subscribe(subscribe)) = &frame.request {
        assert!((1..=PATTERNS_PER_SUBSCRIPTION_MAX).contains(&subscribe.patterns.len()));
    }
    if let Err(refusal) = &frame.request {
        let (mut text, mut bytes) = (Vec::new(), Vec::new());
        let notice = Notice::Refused { id: frame.id.clone(), refusal };
        json::write_notice(&mut text, &notice);
        protobuf::write_notice(&mut bytes, &notice);
        assert!(serde_json::from_slice::<IgnoredAny>(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
        assert!(proto::ServerMessage::decode(&bytes[..]).is_ok());
    }
}

pub(crate) fn json_seeds() -> Vec<Vec<u8>> {
    let seeds: [&str; 14] = [
        r#"{"id":7,"source":"a/b","data":{"b":1.0e0,"a":"\u0041"},"ts":9}"#,
        r#"{"source":"a","data_b64":"AAH/","ack":"stored","ttl_ms":5}"#,
        r#"{"id":"x","source":"a","deleted":true,"ack":"replicated"}"#,
        r#"[{"source":"a","data":1},{"id":"x","source":"a","data":"\udc00"},3]"#,
        r#" { "source" : "ä/ö" , "data" : [ null , true , -0.5E-3 , "\n\"\\\/" ] } "#,
        r#"{"source":"a//b","data":1,"x":2,"source":3}"#,
        r#"{"source":"a","data":"\ud83d\ude00"}"#,
        r#"{"id":1,"subscribe":{"sources":["sensors/**","*"],"mode":"all","snapshot":false}}"#,
        r#"{"id":"s","subscribe":{"sources":["a"],"resume":"AQ"}}"#,
        r#"{"unsubscribe":3}"#,
        r#"{"subscribe":{"sources":[],"mode":"x"},"unsubscribe":1}"#,
        "[[[[[[[[1]]]]]]]]",
        "\"a\\",
        "[]",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// The input is a frame.
pub(crate) fn protobuf(input: &[u8]) {
    let generated = proto::ClientMessage::decode(input);
    let Ok(message) = ClientMessage::decode(input) else {
        assert!(generated.is_err(), "the generated reader takes it");
        return;
    };
    let (publish, subscribe) = (message.publish_frame(), message.subscribe_frame());
    frame_holds(&publish);
    answers_hold(&publish);
    subscribe_holds(&subscribe);
    if let Ok(generated) = generated {
        let written = generated.encode_to_vec();
        let again = ClientMessage::decode(&written).expect("what the generated code writes is read");
        assert_eq!(again.publish_frame(), publish, "{generated:?}");
        assert_eq!(again.subscribe_frame(), subscribe, "{generated:?}");
    }
}

pub(crate) fn protobuf_seeds() -> Vec<Vec<u8>> {
    use proto::client_message::Message as Asked;
    use proto::publish::Value;
    let id = |id| Some(proto::Id { id: Some(id) });
    let data = proto::Publish {
        id: id(proto::id::Id::Number(-7)),
        source: "sensors/7".into(),
        ts: Some(1_700_000_000_000_000),
        value: Some(Value::Data("{\"a\":[1,2]}".into())),
        ttl_ms: Some(1000),
        ack: Some("stored".into()),
    };
    let binary = proto::Publish {
        source: "b".into(),
        value: Some(Value::DataB64(Bytes::from_static(b"\0\x01\xff"))),
        ..Default::default()
    };
    let deleted = proto::Publish {
        id: id(proto::id::Id::Text("x".into())),
        source: "a/b".into(),
        value: Some(Value::Deleted(true)),
        ..Default::default()
    };
    let subscribe = proto::Subscribe {
        id: id(proto::id::Id::Number(1)),
        sources: vec!["a/**".into(), "*".into()],
        snapshot: Some(false),
        mode: Some("all".into()),
        resume: Some(a_token().encode()),
        filter: Some("data.x > 1".into()),
    };
    let unsubscribe = proto::Unsubscribe { id: id(proto::id::Id::Number(2)), subscription: 3 };
    let batch = proto::PublishBatch { items: vec![data.clone(), binary.clone(), deleted.clone()] };
    let asked = [
        Asked::Publish(data),
        Asked::Publish(binary),
        Asked::Publish(deleted),
        Asked::Batch(batch),
        Asked::Subscribe(subscribe),
        Asked::Unsubscribe(unsubscribe),
    ];
    asked.into_iter().map(|asked| proto::ClientMessage { message: Some(asked) }.encode_to_vec()).collect()
}

/// The first byte tells whether the rest is the text of a token, or the content of one without its checksum.
pub(crate) fn token(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let text = match kind & 1 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => {
            let sum = (xxh3_64(rest) as u32).to_le_bytes();
            URL_SAFE_NO_PAD.encode([rest, &sum].concat())
        }
    };
    let Ok(token) = Token::decode(&text) else { return };
    // A pattern or a head takes at least eight bytes, so that a short text makes no large token.
    assert!(8 * (token.patterns.len() + token.heads.len()) <= text.len(), "{text:?}");
    assert_eq!(Token::decode(&token.encode()), Ok(token), "{text:?}");
}

/// A token as a node gives it out.
pub(crate) fn a_token() -> Token {
    let heads = [(3, 1), (5, 700), (u64::MAX, 1 << 40)];
    Token { cluster: 77, issued_us: 1_700_000_000_000_000, patterns: vec![1, 2], heads: heads.into() }
}

pub(crate) fn token_seeds() -> Vec<Vec<u8>> {
    let empty = Token { patterns: Vec::new(), heads: [].into(), ..a_token() };
    let mut seeds = Vec::new();
    for token in [a_token(), empty] {
        let text = token.encode();
        let bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
        seeds.push([b"\0", text.as_bytes()].concat());
        seeds.push([b"\x01", &bytes[..bytes.len() - 4]].concat());
    }
    seeds
}
