//! The answers to the items of one publish frame, before a codec writes them.

use super::answer::Published;
use super::draft::{OwnedRequestId, RequestId};
use super::refusal::Refusal;

/// The answer to one item of a publish frame, borrowed while it is written.
#[derive(Clone, Debug)]
pub struct PublishAnswer<'a> {
    /// The id of the request, if the client gave one.
    pub id: Option<RequestId<'a>>,
    /// Position of the item in its batch, from 0; `None` outside batches.
    pub index: Option<usize>,
    /// The result or the refusal.
    pub answer: &'a Result<Published, Refusal>,
}

/// The answer to one item of a batch, with memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemReply {
    /// The id of the request, if the client gave one.
    pub id: Option<OwnedRequestId>,
    /// Position of the item in its batch, from 0.
    pub index: usize,
    /// The result or the refusal.
    pub answer: Result<Published, Refusal>,
}

impl ItemReply {
    /// The answer as a codec takes it.
    pub fn as_answer(&self) -> PublishAnswer<'_> {
        let id = self.id.as_ref().map(OwnedRequestId::as_id);
        PublishAnswer { id, index: Some(self.index), answer: &self.answer }
    }
}

/// The answer to a whole publish frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameReply {
    /// The frame was one object, or was refused as a whole.
    One(Result<Published, Refusal>),
    /// The frame was a batch: an answer for each item that has an id or was refused, in the order of the
    /// batch.
    Batch(Vec<ItemReply>),
}
