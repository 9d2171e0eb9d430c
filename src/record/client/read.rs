//! A frame with one publish, read where it lies: most of what a node receives.
//!
//! What is seldom, or wrong, is left to the generated reader, which says what it is; what is read here
//! means the same there. Rejected: the generated reader for all, which copies name and data.

use prost::encoding::decode_varint;

use super::{Publish, Value};
use crate::record::draft::RequestId;

/// Key of a field of this number that is a varint.
const fn varint(field: u8) -> u8 {
    field << 3
}

/// Key of a field of this number that has a length.
const fn delimited(field: u8) -> u8 {
    field << 3 | 2
}

/// The publish that is all of a frame. `None`: the frame is something else, or is not to be read here.
pub(super) fn publish_message(mut frame: &[u8]) -> Option<Publish<'_>> {
    const PUBLISH: u8 = delimited(1);
    if take_byte(&mut frame)? != PUBLISH {
        return None;
    }
    let publish = take_piece(&mut frame)?;
    if frame.is_empty() { read_publish(publish) } else { None }
}

fn read_publish(mut fields: &[u8]) -> Option<Publish<'_>> {
    const ID: u8 = delimited(1);
    const SOURCE: u8 = delimited(2);
    const TS: u8 = varint(3);
    const DATA: u8 = delimited(4);
    const DATA_B64: u8 = delimited(5);
    const DELETED: u8 = varint(6);
    const TTL_MS: u8 = varint(7);
    const ACK: u8 = delimited(8);
    let (mut publish, mut has_id) = (Publish::default(), false);
    while !fields.is_empty() {
        match take_byte(&mut fields)? {
            // Two of them would have to be merged.
            ID if !std::mem::replace(&mut has_id, true) => publish.id = read_id(take_piece(&mut fields)?)?,
            SOURCE => publish.source = take_text(&mut fields)?,
            TS => publish.ts = Some(take_varint(&mut fields)?),
            DATA => publish.value = Some(Value::Data(take_text(&mut fields)?)),
            DATA_B64 => publish.value = Some(Value::Binary(take_piece(&mut fields)?)),
            DELETED => publish.value = Some(Value::Deleted(take_varint(&mut fields)? != 0)),
            TTL_MS => publish.ttl_ms = Some(take_varint(&mut fields)?),
            ACK => publish.ack = Some(take_text(&mut fields)?),
            _ => return None,
        }
    }
    Some(publish)
}

/// An id that is empty, or holds one text or number.
fn read_id(mut fields: &[u8]) -> Option<Option<RequestId<'_>>> {
    const TEXT: u8 = delimited(1);
    const NUMBER: u8 = varint(2);
    if fields.is_empty() {
        return Some(None);
    }
    let id = match take_byte(&mut fields)? {
        TEXT => RequestId::Text(take_text(&mut fields)?),
        NUMBER => {
            let zigzag = take_varint(&mut fields)?;
            RequestId::Number((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
        }
        _ => return None,
    };
    fields.is_empty().then_some(Some(id))
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    match take_byte(bytes)? {
        short @ 0..0x80 => Some(u64::from(short)),
        first => {
            let before = bytes.len();
            let rest = decode_varint(bytes).ok()?;
            // There are ten at most, of which the last holds one bit.
            let is_short = before - bytes.len() < 10 && rest >> 57 == 0;
            is_short.then_some(rest << 7 | u64::from(first & 0x7f))
        }
    }
}

fn take_piece<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(bytes)?).ok()?;
    let (piece, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(piece)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    str::from_utf8(take_piece(bytes)?).ok()
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
