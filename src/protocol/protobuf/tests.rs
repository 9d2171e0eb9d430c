use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::record::{Birth, NodeName, Stamp};

fn message(asked: Asked) -> ClientMessage<'static> {
    let bytes = proto::ClientMessage { message: Some(asked) }.encode_to_vec();
    ClientMessage::decode(bytes.leak()).expect("decodes")
}

fn publish(value: proto::publish::Value) -> proto::Publish {
    let id = Some(proto::Id { id: Some(proto::id::Id::Number(-7)) });
    proto::Publish { id, source: "a/b".into(), value: Some(value), ..Default::default() }
}

fn data(text: &str) -> proto::Publish {
    publish(proto::publish::Value::Data(text.into()))
}

fn code(publish: proto::Publish) -> Code {
    let message = message(Asked::Publish(publish));
    let frame = message.publish_frame();
    frame.items[0].draft.as_ref().expect_err("refused").code
}

#[test]
fn publishes() {
    let told = message(Asked::Publish(data(" {\"x\": 1.0} ")));
    let frame = told.publish_frame();
    assert!(!frame.is_batch);
    assert_eq!(frame.items[0].id, Some(RequestId::Number(-7)));
    assert_eq!(frame.items[0].draft.as_ref().expect("draft").payload.bytes(), b"{\"x\": 1.0}");
    let binary = publish(proto::publish::Value::DataB64(Bytes::from_static(&[0, 255])));
    let batch = message(Asked::Batch(proto::PublishBatch { items: vec![binary, data("tru")] }));
    let frame = batch.publish_frame();
    assert!(frame.is_batch);
    assert_eq!(frame.items[0].draft.as_ref().expect("draft").payload.bytes(), [0, 255]);
    assert_eq!(frame.items[1].draft.as_ref().expect_err("refused").code, Code::BadJson);
}

#[test]
fn refusals_name_the_code() {
    use proto::publish::Value::Deleted;
    assert_eq!(code(data("[1,]")), Code::BadJson);
    assert_eq!(code(data(&("[".repeat(65) + &"]".repeat(65)))), Code::BadJson);
    assert_eq!(code(proto::Publish { source: "a//b".into(), ..data("1") }), Code::BadSource);
    assert_eq!(code(proto::Publish { ts: Some(1 << 53), ..data("1") }), Code::BadTimestamp);
    assert_eq!(code(proto::Publish { value: None, ..data("1") }), Code::BadRequest);
    assert_eq!(code(publish(Deleted(false))), Code::BadRequest);
    assert_eq!(code(proto::Publish { ttl_ms: Some(1), ..publish(Deleted(true)) }), Code::BadRequest);
    assert_eq!(code(proto::Publish { ttl_ms: Some(0), ..data("1") }), Code::BadRequest);
    assert_eq!(code(proto::Publish { ack: Some("best".into()), ..data("1") }), Code::BadRequest);
    let id = Some(proto::Id { id: Some(proto::id::Id::Text("x".repeat(65))) });
    assert_eq!(code(proto::Publish { id, ..data("1") }), Code::BadRequest);
    let wrong = message(Asked::Unsubscribe(proto::Unsubscribe { id: None, subscription: 1 }));
    assert_eq!(wrong.publish_frame().items[0].draft.as_ref().expect_err("refused").code, Code::BadRequest);
    let wrong = message(Asked::Publish(data("1")));
    assert_eq!(wrong.subscribe_frame().id, Some(RequestId::Number(-7)));
    assert_eq!(wrong.subscribe_frame().request.expect_err("refused").code, Code::BadRequest);
}

#[test]
fn subscriptions() {
    let asked =
        proto::Subscribe { sources: vec!["a/*".into()], mode: Some("all".into()), ..Default::default() };
    let subscribed = message(Asked::Subscribe(asked.clone()));
    let Ok(Request::Subscribe(subscribe)) = subscribed.subscribe_frame().request else { panic!("refused") };
    assert!(subscribe.snapshot && subscribe.mode == Some(Mode::All) && subscribe.resume.is_none());
    for (wrong, want) in [
        (proto::Subscribe { sources: vec![], ..asked.clone() }, Code::BadRequest),
        (proto::Subscribe { sources: vec!["a".into(); 257], ..asked.clone() }, Code::BadRequest),
        (proto::Subscribe { sources: vec!["a//b".into()], ..asked.clone() }, Code::BadPattern),
        (proto::Subscribe { mode: Some("some".into()), ..asked.clone() }, Code::BadRequest),
        (proto::Subscribe { resume: Some("zz".into()), ..asked.clone() }, Code::BadRequest),
    ] {
        assert_eq!(
            message(Asked::Subscribe(wrong)).subscribe_frame().request.expect_err("refused").code,
            want
        );
    }
}

fn record(payload: Payload, ts: u64) -> Record {
    let stamp = match &payload {
        Payload::Deleted => Stamp::of_deletion(ts),
        other => Stamp::of_data(ts, other.bytes()),
    };
    let birth = Birth { origin: NodeName::parse("n-1").expect("name"), boot: 7, seq: 42 };
    Record::new(Source::parse("a/b").expect("source"), stamp, payload, birth, 5, 0)
}

proptest! {
    #[test]
    fn records_are_what_the_schema_says(data in "[a-z0-9]{0,300}", ts in 0u64..1 << 53, kind in 0..4) {
        use proto::record::Value;
        let bytes = Bytes::from(data.clone().into_bytes());
        let (payload, value) = match kind {
            0 => (Payload::Binary(bytes.clone()), Value::DataB64(bytes)),
            1 => (Payload::Json(bytes), Value::Data(data)),
            2 => (Payload::Deleted, Value::Deleted(true)),
            _ => (Payload::Json(bytes), Value::Deleted(true)),
        };
        let mut single = Vec::new();
        write_record(&mut single, &record(payload, ts), kind == 3);
        let expected =
            proto::Record { source: "a/b".into(), ts, origin: "n-1".into(), value: Some(value) };
        let told = proto::ServerMessage::decode(&*single).expect("decodes").message;
        prop_assert_eq!(told, Some(Told::Record(expected.clone())));

        let mut items = Vec::new();
        append_to_batch(&mut items, &single);
        append_to_batch(&mut items, &single);
        let mut batch = Vec::new();
        write_batch_head(&mut batch, items.len());
        batch.extend_from_slice(&items);
        let told = proto::ServerMessage::decode(&*batch).expect("decodes").message;
        let items = vec![expected.clone(), expected];
        prop_assert_eq!(told, Some(Told::Records(proto::RecordBatch { items })));
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = ClientMessage::decode(&bytes) {
            let _ = (message.publish_frame(), message.subscribe_frame());
        }
    }
}

#[test]
fn answers() {
    let result = Ok(Published {
        ts: 5,
        outcome: Outcome::Stale { current_ts: 6 },
        level: AckLevel::Stored,
        nodes: None,
    });
    let refusal = Err(Refusal::new(Code::Timeout, "late").after_applying(9));
    let mut out = Vec::new();
    let answers = [
        PublishAnswer { id: Some(RequestId::Text("q")), index: Some(0), answer: &result },
        PublishAnswer { id: None, index: Some(3), answer: &refusal },
    ];
    write_publish_answers(&mut out, answers.into_iter(), true);
    let Some(Told::Answers(told)) = proto::ServerMessage::decode(&*out).expect("decodes").message else {
        panic!("no answers")
    };
    let Some(proto::answer::Answer::Result(first)) = &told.items[0].answer else { panic!("no result") };
    assert_eq!(
        (first.outcome.as_str(), first.current_ts, first.level.as_str()),
        ("stale", Some(6), "stored")
    );
    let Some(proto::answer::Answer::Error(second)) = &told.items[1].answer else { panic!("no error") };
    assert_eq!(
        (second.code.as_str(), second.applied, second.ts, second.temporary),
        ("timeout", true, Some(9), true)
    );
    assert_eq!(told.items[1].index, Some(3));
}
