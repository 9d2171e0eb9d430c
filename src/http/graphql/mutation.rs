//! The mutations of the schema.

use async_graphql::{Context, MaybeUndefined, Object, Result};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::errors::refused;
use super::requester::Requester;
use super::types::{GraphqlAck, JsonText, PublishResult, RecordInput};
use crate::http::Reply;
use crate::limits::BATCH_ITEMS_MAX;
use crate::protocol::AckLevel;
use crate::protocol::json::publish_frame;
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::FrameReply;

/// Memory that a record needs until its publish is answered, in bytes, besides its data.
const PUBLISH_BYTES: usize = 1024;

/// What can be changed.
pub(super) struct MutationRoot;

/// What can be changed.
#[Object(name = "Mutation")]
impl MutationRoot {
    /// Publishes records. There is a result for each, in their order; a record that is refused leaves the others
    /// untouched.
    async fn publish(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The records.")] records: Vec<RecordInput>,
        #[graphql(
            desc = "How far each must have come before it is answered.",
            default_with = "Some(GraphqlAck::Accepted)"
        )]
        ack: Option<GraphqlAck>,
    ) -> Result<Vec<PublishResult>> {
        let requester = Requester::of(context)?;
        let level = ack.map_or(AckLevel::default(), AckLevel::from);
        let published = match hand_in(requester, &records, level) {
            Ok(receiver) => receiver.await.map_err(|_| {
                let message = "the node is going; whether the records were applied is not known";
                Refusal::new(Code::Overloaded, message)
            }),
            Err(refusal) => Err(refusal),
        };
        // Refused items are counted where they are refused.
        match published.map_err(|refusal| refused(requester.app(), refusal))? {
            FrameReply::Batch(items) => {
                Ok(items.iter().map(|item| PublishResult::from(&item.answer)).collect())
            }
            // The batch was refused as a whole.
            FrameReply::One(answer) => match answer {
                Ok(published) => Ok(vec![PublishResult::from(&Ok(published))]),
                Err(refusal) => Err(refusal.into()),
            },
        }
    }
}

/// A record as a frame of publishes has it. Every item has an id, so that every one is answered.
#[derive(Serialize)]
struct FrameItem<'a> {
    id: usize,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

/// Publishes the records as the batch that a client on `/publish` would send, so that they are checked and refused in
/// the same words. Returns the receiver on which the answer comes.
fn hand_in(
    requester: &Requester,
    records: &[RecordInput],
    level: AckLevel,
) -> Result<oneshot::Receiver<FrameReply>, Refusal> {
    if records.len() > BATCH_ITEMS_MAX {
        let message = format!("{} records; at most {BATCH_ITEMS_MAX} in one publish", records.len());
        return Err(Refusal::new(Code::BadRequest, message));
    }
    // It is counted before anything is published: afterwards it could not be refused.
    let data_bytes: usize = records.iter().map(data_bytes_of).sum();
    requester.charge(records.len() * PUBLISH_BYTES + 2 * data_bytes)?;
    let bad_json = |error: String| Refusal::new(Code::BadJson, error);
    let items: Vec<FrameItem<'_>> = records.iter().enumerate().map(|(id, record)| item(id, record)).collect();
    let text = serde_json::to_string(&items).map_err(|error| bad_json(error.to_string()))?;
    let frame = publish_frame(&text).map_err(|error| bad_json(error.to_string()))?;
    let (reply, receiver) = Reply::channel();
    requester.with_publisher(|rights| requester.app().node.publish(&frame, level, reply, rights));
    Ok(receiver)
}

fn data_bytes_of(record: &RecordInput) -> usize {
    let json = if let MaybeUndefined::Value(JsonText(text)) = &record.data { text.len() } else { 0 };
    json + record.data_b64.as_ref().map_or(0, String::len)
}

fn item(id: usize, record: &RecordInput) -> FrameItem<'_> {
    let data = match &record.data {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => RawValue::from_string("null".to_owned()).ok(),
        // The text was written from a value, so it is valid.
        MaybeUndefined::Value(JsonText(text)) => RawValue::from_string(text.clone()).ok(),
    };
    FrameItem {
        id,
        source: &record.source,
        data,
        data_b64: record.data_b64.as_deref(),
        deleted: record.deleted,
        ts: record.ts.map(|ts| ts.0),
        ttl_ms: record.ttl_ms,
    }
}
