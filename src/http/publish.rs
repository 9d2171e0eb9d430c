//! `POST /v1/publish`: one frame as on the WebSocket is the body of a request.

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
use crate::protocol::json::{publish_frame, write_publish_answers, write_published};
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::{FrameReply, ItemReply};

/// Memory that an item of a frame needs until it is answered, in bytes: while it waits for its ack level, and for
/// the text of a refusal.
const ANSWER_BYTES: usize = 512;

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
    let Ok(reply) = receiver.await else {
        let message = "the node is going; whether the record was applied is not known";
        return Err(refuse(&app, Code::Overloaded, message));
    };
    let mut out = Vec::new();
    match reply {
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

/// The problem of a refused publish, which is counted.
fn refuse(app: &App, code: Code, message: &str) -> Problem {
    app.node.metrics().refused(code);
    Refusal::new(code, message).into()
}
