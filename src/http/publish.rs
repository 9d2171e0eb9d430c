//! `POST /v1/publish`: one frame as on the WebSocket is the body of a request.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use tokio::sync::oneshot;

use super::Reply;
use super::app::{App, json};
use super::body;
use super::params::Query;
use super::places::Seat;
use super::problem::Problem;
use crate::protocol::json::{publish_frame, write_publish_answers, write_published};
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::{FrameReply, ItemReply};

/// Publishes the body. One object is answered by its result or by a problem. An array is answered by 200
/// and the array that a WebSocket would be sent: an entry for every item that has an id or was refused.
pub(super) async fn publish(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body::read(&app, &seat, request.into_body()).await?;
    let receiver = hand_in(&app, query.as_deref(), body.bytes())?;
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
    Ok(json(out))
}

/// Publishes the items of a body. Returns the receiver on which the answer comes.
fn hand_in(app: &App, query: Option<&str>, body: &[u8]) -> Result<oneshot::Receiver<FrameReply>, Problem> {
    let level = Query::parse(query, &["ack"])?.ack()?;
    let bad_json = |message: String| refuse(app, Code::BadJson, &message);
    let text = std::str::from_utf8(body).map_err(|error| bad_json(error.to_string()))?;
    let frame = publish_frame(text).map_err(|error| bad_json(error.to_string()))?;
    let (reply, receiver) = Reply::channel();
    app.node.publish(&frame, level, reply);
    Ok(receiver)
}

/// The problem of a refused publish, which is counted.
fn refuse(app: &App, code: Code, message: &str) -> Problem {
    app.node.metrics().refused(code);
    Refusal::new(code, message).into()
}
