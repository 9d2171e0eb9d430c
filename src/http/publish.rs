//! `POST /v1/publish`: one frame as on the WebSocket is the body of a request.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Reply;
use super::app::App;
use super::leased::{lease, leased_json};
use super::params::Query;
use super::problem::Problem;
use crate::memory::MemoryUse;
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
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&app, &rejection))?;
    let level = Query::parse(query.as_deref(), &["ack"])?.ack()?;
    let refuse = |code, message: &str| {
        app.node.metrics().refused(code);
        Problem::from(Refusal::new(code, message))
    };
    let text = std::str::from_utf8(&body).map_err(|error| refuse(Code::BadJson, &error.to_string()))?;
    let frame = publish_frame(text).map_err(|error| refuse(Code::BadJson, &error.to_string()))?;
    // What the answers need is leased before anything is published: afterwards it could not be refused.
    let _lease = lease(&app, MemoryUse::Answers, frame.items.len() * ANSWER_BYTES)?;
    let (reply, receiver) = Reply::channel();
    app.node.publish(&frame, level, reply);
    let Ok(reply) = receiver.await else {
        return Err(refuse(
            Code::Overloaded,
            "the node is going; whether the record was applied is not known",
        ));
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

/// The problem of a body that did not come, or that is larger than it may be.
fn unreadable(app: &App, rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body has more than {} bytes", app.body_bytes_max);
            app.node.metrics().refused(Code::TooLarge);
            Refusal::new(Code::TooLarge, message).into()
        }
        _ => Refusal::new(Code::BadRequest, rejection.body_text()).into(),
    }
}
