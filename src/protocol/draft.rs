//! Publishes as clients send them: their form is checked, but they are not records yet.

use std::borrow::Cow;
use std::ops::Deref;

use bytes::Bytes;

use super::AckLevel;
use super::refusal::{Code, Refusal};
use crate::limits::BATCH_ITEMS_MAX;
use crate::record::Payload;

/// The `id` of a request. The answer repeats it unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId<'a> {
    /// From a JSON frame: the JSON text of the id, including the quotes of a string.
    Json(&'a str),
    /// From a protobuf frame: an id that is a text.
    Text(&'a str),
    /// From a protobuf frame: an id that is a number.
    Number(i64),
}

/// A [`RequestId`] that does not borrow from its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedRequestId {
    /// The owned form of [`RequestId::Json`].
    Json(Box<str>),
    /// The owned form of [`RequestId::Text`].
    Text(Box<str>),
    /// The owned form of [`RequestId::Number`].
    Number(i64),
}

impl RequestId<'_> {
    /// Makes a copy that does not borrow from the frame.
    pub fn to_owned(&self) -> OwnedRequestId {
        match self {
            RequestId::Json(text) => OwnedRequestId::Json((*text).into()),
            RequestId::Text(text) => OwnedRequestId::Text((*text).into()),
            RequestId::Number(number) => OwnedRequestId::Number(*number),
        }
    }
}

impl OwnedRequestId {
    /// Returns the id in the borrowed form.
    pub fn as_id(&self) -> RequestId<'_> {
        match self {
            OwnedRequestId::Json(text) => RequestId::Json(text),
            OwnedRequestId::Text(text) => RequestId::Text(text),
            OwnedRequestId::Number(number) => RequestId::Number(*number),
        }
    }

    /// Returns the number of heap bytes that the id occupies.
    pub fn heap_bytes(&self) -> usize {
        match self {
            OwnedRequestId::Json(text) | OwnedRequestId::Text(text) => text.len(),
            OwnedRequestId::Number(_) => 0,
        }
    }
}

/// The data of a draft, borrowed from the frame where possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftPayload<'a> {
    /// The text of one JSON value, verbatim.
    Json(&'a [u8]),
    /// Binary data, decoded from base64 if it came in JSON.
    Binary(Cow<'a, [u8]>),
    /// The client asks to delete the source.
    Deleted,
}

impl DraftPayload<'_> {
    /// Returns the bytes of the data; an empty slice for a deletion.
    pub fn bytes(&self) -> &[u8] {
        match self {
            DraftPayload::Json(bytes) => bytes,
            DraftPayload::Binary(bytes) => bytes,
            DraftPayload::Deleted => &[],
        }
    }

    /// Makes the payload of a record by copying the data.
    pub fn to_payload(&self) -> Payload {
        match self {
            DraftPayload::Json(bytes) => Payload::Json(Bytes::copy_from_slice(bytes)),
            DraftPayload::Binary(bytes) => Payload::Binary(Bytes::copy_from_slice(bytes)),
            DraftPayload::Deleted => Payload::Deleted,
        }
    }
}

/// A publish that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft<'a> {
    /// Name of the source, which has been checked.
    pub source: Cow<'a, str>,
    /// The publisher's timestamp in microseconds since the Unix epoch; `None` if the node is to give one.
    pub ts: Option<u64>,
    /// The data, or the request to delete the source.
    pub payload: DraftPayload<'a>,
    /// Time to live in milliseconds; 0 means for ever.
    pub ttl_ms: u64,
    /// The ack level; `None` means the default of the connection.
    pub ack: Option<AckLevel>,
}

/// One publish of a frame, or the reason why it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The id of the request, if there is a readable one.
    pub id: Option<RequestId<'a>>,
    /// The checked publish, or its refusal.
    pub draft: Result<Draft<'a>, Refusal>,
}

/// The publishes of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishFrame<'a> {
    /// The publishes in the order in which they are in the frame.
    pub items: Items<'a>,
    /// Whether the frame was a batch, which is answered by one batch of answers.
    pub is_batch: bool,
}

/// The publishes of a frame. The usual frame with a single one needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Items<'a> {
    /// A single publish.
    One(Item<'a>),
    /// Any number of publishes.
    Many(Vec<Item<'a>>),
}

impl Default for Items<'_> {
    fn default() -> Self {
        Items::Many(Vec::new())
    }
}

impl<'a> Deref for Items<'a> {
    type Target = [Item<'a>];

    fn deref(&self) -> &[Item<'a>] {
        match self {
            Items::One(item) => std::slice::from_ref(item),
            Items::Many(items) => items,
        }
    }
}

impl<'a> From<Items<'a>> for Vec<Item<'a>> {
    fn from(items: Items<'a>) -> Self {
        match items {
            Items::One(item) => vec![item],
            Items::Many(items) => items,
        }
    }
}

impl PublishFrame<'_> {
    /// Makes the frame that replaces a batch of too many items, `count` of them: one refusal of the batch as a
    /// whole.
    pub(super) fn too_long(count: usize) -> PublishFrame<'static> {
        let message = format!("a batch of {count} items; at most {BATCH_ITEMS_MAX}");
        let refusal = Refusal::new(Code::BadRequest, message);
        PublishFrame { items: Items::One(Item { id: None, draft: Err(refusal) }), is_batch: false }
    }
}
