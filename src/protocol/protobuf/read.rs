//! Reads a frame with a single publish without copying from it. Most frames that a node receives are of this
//! kind.
//!
//! Frames that are rare or wrong are left to the generated reader, which gives the exact error. A frame that
//! is read here has the same meaning there. Rejected: the generated reader for all frames, because it copies
//! name and data.

use super::{Publish, PublishValue};
use crate::protocol::draft::RequestId;
use crate::record::fields::Fields;

/// Returns the publish that makes up the whole frame. `None` means that the frame is something else, or must
/// be read by the generated reader.
pub(super) fn publish_message(frame: &[u8]) -> Option<Publish<'_>> {
    let mut fields = Fields::of(frame);
    if fields.take_key()? != key(1, BYTES) {
        return None;
    }
    let publish = fields.delimited()?;
    if fields.take_key().is_none() { read_publish(Fields::of(publish)) } else { None }
}

/// Returns how many items the batches in a frame have together. A frame that is damaged has those before the
/// damage.
pub(super) fn count_batch_items(frame: &[u8]) -> usize {
    let batches = Fields::of(frame).map_while(Result::ok).filter(|(number, _)| *number == 2);
    let items = |batch: Fields<'_>| batch.map_while(Result::ok).filter(|(number, _)| *number == 1).count();
    batches.filter_map(|(_, batch)| batch.fields().ok()).map(items).sum()
}

/// Returns the id of the subscription that makes up the whole frame, and its number of patterns. `None` means
/// that the frame is something else, or must be read by the generated reader.
pub(super) fn subscribe_head(frame: &[u8]) -> Option<(Option<RequestId<'_>>, usize)> {
    let mut fields = Fields::of(frame);
    let (3, subscribe) = fields.next()?.ok()? else { return None };
    if fields.next().is_some() {
        return None;
    }
    let (mut id, mut patterns) = (None, 0);
    for field in subscribe.fields().ok()? {
        match field.ok()? {
            (1, given) => id = read_id(given.fields().ok()?)?,
            (2, _) => patterns += 1,
            _ => {}
        }
    }
    Some((id, patterns))
}

/// Wire type of numbers of variable length.
const VARINT: u8 = 0;
/// Wire type of texts, bytes and nested messages.
const BYTES: u8 = 2;

/// The key of a field, in the one byte that nearly every writer uses for it.
const fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

fn read_publish(mut fields: Fields<'_>) -> Option<Publish<'_>> {
    const ID: u8 = key(1, BYTES);
    const SOURCE: u8 = key(2, BYTES);
    const TS: u8 = key(3, VARINT);
    const DATA: u8 = key(4, BYTES);
    const BINARY: u8 = key(5, BYTES);
    const DELETED: u8 = key(6, VARINT);
    const TTL_MS: u8 = key(7, VARINT);
    const ACK: u8 = key(8, BYTES);
    let (mut publish, mut has_id) = (Publish::default(), false);
    while let Some(key) = fields.take_key() {
        match key {
            // Protobuf merges an id that occurs twice, which is left to the generated reader.
            ID if !std::mem::replace(&mut has_id, true) => {
                publish.id = read_id(Fields::of(fields.delimited()?))?;
            }
            SOURCE => publish.source = str::from_utf8(fields.delimited()?).ok()?,
            TS => publish.ts = Some(fields.varint()?),
            DATA => publish.value = Some(PublishValue::Data(text_bytes(fields.delimited()?)?)),
            BINARY => publish.value = Some(PublishValue::Binary(fields.delimited()?)),
            DELETED => publish.value = Some(PublishValue::Deleted(fields.varint()? != 0)),
            TTL_MS => publish.ttl_ms = Some(fields.varint()?),
            ACK => publish.ack = Some(str::from_utf8(fields.delimited()?).ok()?),
            _ => return None,
        }
    }
    Some(publish)
}

/// Returns `bytes` if they are UTF-8. Most data is ASCII, which is found out at a fraction of the cost.
fn text_bytes(bytes: &[u8]) -> Option<&[u8]> {
    (bytes.is_ascii() || str::from_utf8(bytes).is_ok()).then_some(bytes)
}

/// Reads an id. The outer `None` leaves the frame to the generated reader; the inner one means an id without
/// content.
fn read_id(mut fields: Fields<'_>) -> Option<Option<RequestId<'_>>> {
    const TEXT: u8 = key(1, BYTES);
    const NUMBER: u8 = key(2, VARINT);
    let Some(key) = fields.take_key() else { return Some(None) };
    let id = match key {
        TEXT => RequestId::Text(str::from_utf8(fields.delimited()?).ok()?),
        NUMBER => {
            let zigzag = fields.varint()?;
            RequestId::Number((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
        }
        _ => return None,
    };
    fields.take_key().is_none().then_some(Some(id))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prop::sample::Index;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::client as proto;
    use proto::client_message::Message as Asked;
    use proto::id::Id;
    use proto::publish::Value as Given;

    fn id() -> impl Strategy<Value = Option<proto::Id>> {
        let id = prop_oneof!["\\PC{0,9}".prop_map(Id::Text), any::<i64>().prop_map(Id::Number)];
        prop::option::of(prop::option::of(id).prop_map(|id| proto::Id { id }))
    }

    fn publish() -> impl Strategy<Value = proto::Publish> {
        let value = prop_oneof![
            "\\PC{0,200}".prop_map(Given::Data),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Given::DataB64(Bytes::from(bytes))),
            any::<bool>().prop_map(Given::Deleted),
        ];
        let numbers = (prop::option::of(any::<u64>()), prop::option::of(0u64..1000));
        (id(), "\\PC{0,30}", numbers, prop::option::of(value), prop::option::of("[a-z]{0,9}")).prop_map(
            |(id, source, (ts, ttl_ms), value, ack)| proto::Publish { id, source, ts, value, ttl_ms, ack },
        )
    }

    #[test]
    fn a_batch_is_counted_without_being_read() {
        let batch = |count| {
            let items = vec![proto::Publish::default(); count];
            let batch = proto::PublishBatch { items };
            proto::ClientMessage { message: Some(Asked::Batch(batch)) }.encode_to_vec()
        };
        assert_eq!(count_batch_items(&batch(12_345)), 12_345);
        // Protobuf merges a field that occurs twice.
        assert_eq!(count_batch_items(&[batch(3), batch(4)].concat()), 7);
        let mut cut = batch(5);
        cut.truncate(cut.len() - 1);
        assert!(count_batch_items(&cut) <= 5);
        assert_eq!(count_batch_items(b"\xff\xff"), 0);
    }

    #[test]
    fn the_patterns_of_a_subscription_are_counted_without_being_read() {
        let subscribe = |count| {
            let id = Some(proto::Id { id: Some(Id::Number(-7)) });
            let subscribe = proto::Subscribe { id, sources: vec!["a".into(); count], ..Default::default() };
            proto::ClientMessage { message: Some(Asked::Subscribe(subscribe)) }.encode_to_vec()
        };
        assert_eq!(subscribe_head(&subscribe(300)), Some((Some(RequestId::Number(-7)), 300)));
        assert_eq!(subscribe_head(&[subscribe(1), subscribe(2)].concat()), None);
        for count in [256, 257, 9_000] {
            let frame = subscribe(count);
            let message = super::super::ClientMessage::decode(&frame).expect("decodes");
            let asked = message.subscribe_frame();
            assert_eq!(asked.id, Some(RequestId::Number(-7)));
            let told = asked.request.map_err(|refusal| refusal.message);
            match count {
                256 => assert!(told.is_ok()),
                _ => assert_eq!(told, Err(format!("sources has {count} patterns; allowed are 1 to 256"))),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_here_means_the_same_there(publish in publish(), flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4)) {
            let message = proto::ClientMessage { message: Some(Asked::Publish(publish.clone())) };
            let mut bytes = message.encode_to_vec();
            prop_assert_eq!(publish_message(&bytes), Some(Publish::from(&publish)));
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(read) = publish_message(&bytes) {
                let theirs = proto::ClientMessage::decode(&bytes[..]).expect("decodes").message;
                let Some(Asked::Publish(theirs)) = theirs else { panic!("no publish") };
                prop_assert_eq!(read, Publish::from(&theirs));
            }
        }
    }
}
