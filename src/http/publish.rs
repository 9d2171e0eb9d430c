//! `POST /v1/publish`: the frames of the WebSocket, one a request.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::oneshot;

use super::Answer;
use super::app::{App, json};
use super::params::Query;
use super::problem::Problem;
use crate::protocol::AckLevel;
use crate::protocol::answer::{Code, Published, Refusal};
use crate::protocol::draft::{Draft, RequestId};
use crate::protocol::json::{publish_frame, write_publish_answer, write_published};

type Outcome = Result<Published, Refusal>;

/// One object → its result, or a problem; an array → 200 with the array that a WebSocket would be
/// sent: an entry for every item that has an id or failed.
pub(super) async fn publish(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&app, &rejection))?;
    let level = Query::parse(query.as_deref(), &["ack"])?.ack()?;
    let refuse = |message: String| {
        app.node.metrics().refused(Code::BadJson);
        Problem::from(Refusal::new(Code::BadJson, message))
    };
    let text = std::str::from_utf8(&body).map_err(|error| refuse(error.to_string()))?;
    let frame = publish_frame(text).map_err(|error| refuse(error.to_string()))?;
    if frame.items.is_empty() {
        return Err(Refusal::new(Code::BadRequest, "a batch has at least one record").into());
    }
    // All are on their way before the first is waited for.
    let waiting: Vec<(Option<RequestId<'_>>, Waiting)> =
        Vec::from(frame.items).into_iter().map(|item| (item.id, started(&app, item.draft, level))).collect();
    let mut out = Vec::new();
    if !frame.is_batch {
        for (_, waiting) in waiting {
            write_published(&mut out, &finished(&app, waiting).await?);
        }
        return Ok(json(out));
    }
    out.push(b'[');
    for (index, (id, waiting)) in waiting.into_iter().enumerate() {
        let outcome = finished(&app, waiting).await;
        if id.is_some() || outcome.is_err() {
            if out.len() > 1 {
                out.push(b',');
            }
            write_publish_answer(&mut out, id.as_ref(), Some(index), &outcome);
        }
    }
    out.push(b']');
    Ok(json(out))
}

/// A publish that was refused at once, or whose answer is still to come.
enum Waiting {
    Refused(Refusal),
    For(oneshot::Receiver<Outcome>),
}

fn started(app: &App, draft: Result<Draft<'_>, Refusal>, default: AckLevel) -> Waiting {
    match draft {
        Err(refusal) => Waiting::Refused(refusal),
        Ok(draft) => {
            let (sender, receiver) = oneshot::channel();
            app.node.publish(&draft, draft.ack.unwrap_or(default), Answer(sender));
            Waiting::For(receiver)
        }
    }
}

async fn finished(app: &App, waiting: Waiting) -> Outcome {
    let outcome = match waiting {
        Waiting::Refused(refusal) => Err(refusal),
        Waiting::For(receiver) => receiver.await.unwrap_or_else(|_| {
            let message = "the node is going; whether the record was applied is not known";
            Err(Refusal::new(Code::Overloaded, message))
        }),
    };
    if let Err(refusal) = &outcome {
        app.node.metrics().refused(refusal.code);
    }
    outcome
}

/// The body did not come, or is over its bound.
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
