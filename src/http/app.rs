//! The state that the handlers of all paths share, and the helpers that build their responses.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::NodeService;

/// Number of publishes whose bodies are read or held at a time; with `--max-frame-bytes` it bounds their
/// memory.
const BODIES_MAX: usize = 64;

/// The state that every handler is given.
#[derive(Clone)]
pub(super) struct App {
    /// The node that answers the requests.
    pub(super) node: Arc<dyn NodeService>,
    /// Largest body of a publish, in bytes.
    pub(super) body_bytes_max: usize,
    bodies: Arc<Semaphore>,
    /// The right to look for a page, which one request has at a time.
    searches: Arc<Semaphore>,
}

impl App {
    /// Makes the state for the handlers of one control plane.
    pub(super) fn new(node: Arc<dyn NodeService>, body_bytes_max: usize) -> App {
        let (bodies, searches) = (Semaphore::new(BODIES_MAX), Semaphore::new(1));
        App { node, body_bytes_max, bodies: Arc::new(bodies), searches: Arc::new(searches) }
    }

    /// Waits until it is this request's turn to look for a page, for about a millisecond. Requests get their turns in
    /// the order in which they ask, so that many of them together take the time of one processor at most, and a
    /// short search does not wait for long ones to be complete.
    pub(super) async fn search_permit(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.searches.acquire().await
    }

    /// Waits until the body of a publish may be read. It may be held until the permit that is returned is
    /// dropped.
    pub(super) async fn body_permit(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.bodies.acquire().await
    }
}

/// A response of the media type `kind`.
pub(super) fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
