//! The exchanges of requests and answers on one connection, as hyper makes them.
//!
//! hyper does not say when an answer has left, nor when it writes an answer of its own, to a head that it
//! cannot read. Both follow from two numbers: of the requests that hyper has passed on, and of the answers
//! whose bodies it has let go. An answer has left when its body was let go and everything was flushed. What
//! hyper writes while every request has its answer is its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// The exchanges of one connection.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// Number of requests that hyper has passed on.
    asked: AtomicU64,
    /// Number of answers whose bodies hyper has let go.
    ended: AtomicU64,
    /// Number of requests whose answers have left.
    settled: AtomicU64,
    /// Whether the connection speaks another protocol than HTTP by now.
    is_changed: AtomicBool,
}

impl Exchanges {
    /// Notes that hyper passes a request on.
    pub(super) fn handle_asked(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    /// Notes that the connection has changed to another protocol, which is no exchange that ends.
    pub(super) fn handle_changed(&self) {
        self.is_changed.store(true, Relaxed);
    }

    /// Notes that everything that hyper has written was sent. Returns whether an answer has left by that.
    pub(super) fn handle_flushed(&self) -> bool {
        let (asked, ended) = (self.asked.load(Relaxed), self.ended.load(Relaxed));
        !self.is_changed.load(Relaxed) && asked == ended && self.settled.swap(asked, Relaxed) != asked
    }

    /// Returns whether the answers to all requests have left: if hyper writes something now, it is an
    /// answer of its own.
    pub(super) fn are_settled(&self) -> bool {
        !self.is_changed.load(Relaxed) && self.asked.load(Relaxed) == self.settled.load(Relaxed)
    }
}

/// The body of an answer, which tells when hyper lets it go.
pub(super) struct AnswerBody {
    body: Body,
    exchanges: Arc<Exchanges>,
}

impl AnswerBody {
    /// The body of the answer to the request that was asked last.
    pub(super) fn new(body: Body, exchanges: Arc<Exchanges>) -> AnswerBody {
        AnswerBody { body, exchanges }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.exchanges.ended.fetch_add(1, Relaxed);
    }
}
