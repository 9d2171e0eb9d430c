//! A publish as a client sent it: checked in form, not yet a record.

use std::borrow::Cow;
use std::ops::Deref;

use bytes::Bytes;

use super::AckLevel;
use super::answer::{Code, Refusal};
use crate::limits::BATCH_ITEMS_MAX;
use crate::record::Payload;

/// The `id` of a request, echoed as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId<'a> {
    /// The JSON text of the id, quotes included.
    Json(&'a str),
    /// From a protobuf frame: text.
    Text(&'a str),
    /// From a protobuf frame: a number.
    Number(i64),
}

/// An id that outlives its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedRequestId {
    /// As [`RequestId::Json`].
    Json(Box<str>),
    /// As [`RequestId::Text`].
    Text(Box<str>),
    /// As [`RequestId::Number`].
    Number(i64),
}

impl RequestId<'_> {
    /// A copy of its own memory.
    pub fn to_owned(&self) -> OwnedRequestId {
        match self {
            RequestId::Json(text) => OwnedRequestId::Json((*text).into()),
            RequestId::Text(text) => OwnedRequestId::Text((*text).into()),
            RequestId::Number(number) => OwnedRequestId::Number(*number),
        }
    }
}

impl OwnedRequestId {
    /// The id as it came.
    pub fn as_id(&self) -> RequestId<'_> {
        match self {
            OwnedRequestId::Json(text) => RequestId::Json(text),
            OwnedRequestId::Text(text) => RequestId::Text(text),
            OwnedRequestId::Number(number) => RequestId::Number(*number),
        }
    }

    /// Memory it holds beside itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            OwnedRequestId::Json(text) | OwnedRequestId::Text(text) => text.len(),
            OwnedRequestId::Number(_) => 0,
        }
    }
}

/// The data of a draft, borrowed from the frame where it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftPayload<'a> {
    /// One JSON value, verbatim.
    Json(&'a [u8]),
    /// Decoded bytes.
    Binary(Cow<'a, [u8]>),
    /// `deleted: true`.
    Deleted,
}

impl DraftPayload<'_> {
    /// The data's bytes; none for a deletion.
    pub fn bytes(&self) -> &[u8] {
        match self {
            DraftPayload::Json(bytes) => bytes,
            DraftPayload::Binary(bytes) => bytes,
            DraftPayload::Deleted => &[],
        }
    }

    /// A payload of its own memory.
    pub fn to_payload(&self) -> Payload {
        match self {
            DraftPayload::Json(bytes) => Payload::Json(Bytes::copy_from_slice(bytes)),
            DraftPayload::Binary(bytes) => Payload::Binary(Bytes::copy_from_slice(bytes)),
            DraftPayload::Deleted => Payload::Deleted,
        }
    }
}

/// What a client asks to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft<'a> {
    /// The name, of checked form.
    pub source: Cow<'a, str>,
    /// The publisher's stamp; `None`: the node is to stamp it.
    pub ts: Option<u64>,
    /// The value.
    pub payload: DraftPayload<'a>,
    /// 0: for ever.
    pub ttl_ms: u64,
    /// `None`: the connection's default.
    pub ack: Option<AckLevel>,
}

/// One item of a frame: what it asks, or why it cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// As it came, if it came and could be read.
    pub id: Option<RequestId<'a>>,
    /// The draft, or the refusal.
    pub draft: Result<Draft<'a>, Refusal>,
}

/// The items of one publish frame, and whether they came as a batch (and are answered as one).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishFrame<'a> {
    /// In the frame's order.
    pub items: Items<'a>,
    /// Whether the frame was an array.
    pub is_batch: bool,
}

/// The items of a frame. One alone, as nearly every frame has it, costs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Items<'a> {
    /// One.
    One(Item<'a>),
    /// Any number.
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
    /// The frame in the place of a batch of too many items: refused as a whole.
    pub(super) fn too_long() -> PublishFrame<'static> {
        let refusal = Refusal::new(Code::BadRequest, format!("a batch has at most {BATCH_ITEMS_MAX} items"));
        PublishFrame { items: Items::One(Item { id: None, draft: Err(refusal) }), is_batch: false }
    }
}
