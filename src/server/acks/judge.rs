//! How a publish frame becomes answers; the same for a session and for a request over HTTP.
//!
//! Every refusal is counted once: here for items that are refused at once, and when their condition is
//! settled for items that are refused later.

use super::condition::{self, ByWhom, Condition, PublishHost};
use super::frame::PendingFrame;
use crate::protocol::AckLevel;
use crate::protocol::answer::Published;
use crate::protocol::draft::{Item, PublishFrame, RequestId};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// The outcome of a frame after its items were published.
pub(crate) enum Judged<'f> {
    /// The one answer of a frame that is no batch, or that is refused as a whole. Most frames are of
    /// this kind; nothing of them was copied.
    Whole {
        /// The id of the request, if it has one.
        id: Option<RequestId<'f>>,
        /// The result or the refusal.
        answer: Result<Published, Refusal>,
    },
    /// The items of any other frame. It waits in a room if it is open.
    Frame(PendingFrame),
}

impl Judged<'_> {
    /// Refuses a frame as a whole, and counts that.
    pub(crate) fn refused<H: PublishHost + ?Sized>(host: &H, refusal: Refusal) -> Judged<'static> {
        host.state().metrics().refused(refusal.code);
        Judged::Whole { id: None, answer: Err(refusal) }
    }
}

/// Publishes the items of a frame in their order. `default` is the ack level of items that name none.
pub(crate) fn judge_frame<'f, H: PublishHost + ?Sized>(
    host: &H,
    now: Now,
    frame: &'f PublishFrame<'_>,
    default: AckLevel,
    by: ByWhom<'_>,
) -> Judged<'f> {
    if frame.items.is_empty() {
        return Judged::refused(host, Refusal::new(Code::BadRequest, "a batch has at least one item"));
    }
    let mut pending = PendingFrame::new(frame.is_batch);
    for (index, item) in frame.items.iter().enumerate() {
        let (answer, condition) = judge_item(host, now, item, default, by);
        if condition.is_none() && !frame.is_batch {
            return Judged::Whole { id: item.id.clone(), answer };
        }
        if item.id.is_some() || answer.is_err() || condition.is_some() {
            pending.push(item.id.as_ref(), index, answer, condition);
        }
    }
    Judged::Frame(pending)
}

fn judge_item<H: PublishHost + ?Sized>(
    host: &H,
    now: Now,
    item: &Item<'_>,
    default: AckLevel,
    by: ByWhom<'_>,
) -> (Result<Published, Refusal>, Option<Condition>) {
    let judged = match &item.draft {
        Ok(draft) => condition::publish(host, now, draft, draft.ack.unwrap_or(default), by),
        Err(refusal) => Err(refusal.clone()),
    };
    match judged {
        Ok((published, condition)) => (Ok(published), condition),
        Err(refusal) => {
            host.state().metrics().refused(refusal.code);
            (Err(refusal), None)
        }
    }
}
