//! `POST /v1/publish`, whose body is one frame as on the WebSocket, and the publish of one record by other requests.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use tokio::sync::oneshot;

use super::Reply;
use super::app::App;
use super::body;
use super::entry::Sender;
use super::leased::{lease, leased_json};
use super::params::Query;
use super::places::Seat;
use super::problem::Problem;
use crate::auth::PublishRights;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::AckLevel;
use crate::protocol::answer::Published;
use crate::protocol::draft::{Draft, Item, Items, PublishFrame};
use crate::protocol::etag::Precondition;
use crate::protocol::json::{publish_frame, write_publish_answers, write_published};
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::{FrameReply, ItemReply};

/// Memory that an item of a frame needs until it is answered, in bytes: while it waits for its ack level, and for
/// the text of a refusal.
pub(super) const ANSWER_BYTES: usize = 512;

/// Publishes the body. One object is answered by its result or by a problem. An array is answered by 200
/// and the array that a WebSocket would be sent: an entry for every item that has an id or was refused.
pub(super) async fn publish(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    Extension(seat): Extension<Arc<Seat>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body::read(&app, &seat, request.into_body()).await?;
    // What the answers need is leased until they are sent.
    let (receiver, _lease) = hand_in(&app, query.as_deref(), body.bytes(), sender)?;
    // The answer may take seconds, and the node has what it needs of the body.
    drop(body);
    let mut out = Vec::new();
    match reply(&app, receiver).await? {
        FrameReply::One(answer) => write_published(&mut out, &answer?),
        FrameReply::Batch(items) => {
            write_publish_answers(&mut out, items.iter().map(ItemReply::as_answer), true);
        }
    }
    leased_json(&app, out)
}

/// Publishes the items of a body. Returns the receiver on which the answer comes, and the lease of the memory that
/// the answers need.
fn hand_in(
    app: &App,
    query: Option<&str>,
    body: &[u8],
    Sender(access): Sender,
) -> Result<(oneshot::Receiver<FrameReply>, Lease), Problem> {
    let level = Query::parse(query, &["ack"])?.ack()?;
    let bad_json = |message: String| refuse(app, Code::BadJson, &message);
    let text = std::str::from_utf8(body).map_err(|error| bad_json(error.to_string()))?;
    let frame = publish_frame(text).map_err(|error| bad_json(error.to_string()))?;
    // It is leased before anything is published: afterwards it could not be refused.
    let lease = lease(app, MemoryUse::Answers, frame.items.len() * ANSWER_BYTES)?;
    let (reply, receiver) = Reply::channel();
    let rights = access.map(PublishRights::new);
    app.node.publish(&frame, level, reply, rights.as_ref());
    Ok((receiver, lease))
}

/// Waits for the answers to a frame.
pub(super) async fn reply(app: &App, receiver: oneshot::Receiver<FrameReply>) -> Result<FrameReply, Problem> {
    receiver.await.map_err(|_| {
        let message = "the node is going; whether the record was applied is not known";
        refuse(app, Code::Overloaded, message)
    })
}

/// One record that a request asks to publish.
pub(super) struct PublishRequest<'a> {
    /// The record as the client asked for it, with its data.
    pub(super) draft: Draft<'a>,
    /// The ack level to wait for.
    pub(super) level: AckLevel,
    /// The condition on the version that the source has.
    pub(super) condition: Precondition,
}

/// Publishes one record. Returns the receiver on which the answer comes, and the lease of the memory that it needs.
pub(super) fn publish_one(
    app: &App,
    PublishRequest { draft, level, condition }: PublishRequest<'_>,
    Sender(access): Sender,
) -> Result<(oneshot::Receiver<FrameReply>, Lease), Problem> {
    let lease = lease(app, MemoryUse::Answers, ANSWER_BYTES)?;
    let (answer, receiver) = Reply::channel();
    let rights = access.map(PublishRights::new);
    let frame = PublishFrame { items: Items::One(Item { id: None, draft: Ok(draft) }), is_batch: false };
    match condition.is_empty() {
        true => app.node.publish(&frame, level, answer, rights.as_ref()),
        false => app.node.publish_if(&condition, &frame, level, answer, rights.as_ref()),
    }
    Ok((receiver, lease))
}

/// Waits for the answer to one record.
pub(super) async fn published(
    app: &App,
    (receiver, _lease): (oneshot::Receiver<FrameReply>, Lease),
) -> Result<Published, Problem> {
    match reply(app, receiver).await? {
        FrameReply::One(answer) => Ok(answer?),
        FrameReply::Batch(_) => Err(refuse(app, Code::Internal, "one record was answered as several")),
    }
}

/// The problem of a refused publish, which is counted.
fn refuse(app: &App, code: Code, message: &str) -> Problem {
    app.node.metrics().refused(code);
    Refusal::new(code, message).into()
}
