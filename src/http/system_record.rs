//! Records of the system's names that requests publish for an admin.

use std::borrow::Cow;

use super::Reply;
use super::app::App;
use super::problem::Problem;
use super::publish::reply;
use crate::protocol::answer::Published;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::refusal::Code;
use crate::protocol::reply::FrameReply;

/// Publishes a record of the system's names, and waits until it is stored.
pub(super) async fn tell(app: &App, source: String, payload: DraftPayload<'_>) -> Result<Published, Problem> {
    let (answer, receiver) = Reply::channel();
    app.node.tell(Draft { source: Cow::Owned(source), ts: None, payload, ttl_ms: 0, ack: None }, answer);
    match reply(app, receiver).await? {
        FrameReply::One(answer) => Ok(answer?),
        FrameReply::Batch(_) => Err(Problem::new(Code::Internal, "one record was answered as several")),
    }
}
