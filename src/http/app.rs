//! The state that the handlers of all paths share, and the helpers that build their responses.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::NodeService;
use super::problem::Problem;
use crate::protocol::refusal::Code;

/// The settings of the control plane.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// Largest body of a publish, in bytes.
    pub body_bytes_max: usize,
    /// Largest data of a record, in bytes.
    pub record_bytes_max: usize,
    /// Most memory that the layer below a connection needs, in bytes; 0 if there is none.
    pub layer_bytes_max: usize,
}

/// The state that every handler is given.
#[derive(Clone)]
pub(super) struct App {
    /// The node that answers the requests.
    pub(super) node: Arc<dyn NodeService>,
    /// Largest body of a publish, in bytes.
    pub(super) body_bytes_max: usize,
    /// Largest data of a record, in bytes.
    pub(super) record_bytes_max: usize,
    /// The right to look for a page, which one request has at a time.
    searches: Arc<Semaphore>,
}

impl App {
    /// Makes the state for the handlers of one control plane.
    pub(super) fn new(node: Arc<dyn NodeService>, options: HttpOptions) -> App {
        let HttpOptions { body_bytes_max, record_bytes_max, .. } = options;
        App { node, body_bytes_max, record_bytes_max, searches: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until it is this request's turn to look for a page, for about a millisecond. Requests get their turns in
    /// the order in which they ask, so that many of them together take the time of one processor at most, and a
    /// short search does not wait for long ones to be complete.
    pub(super) async fn search_permit(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.searches.acquire().await
    }
}

/// A response of the media type `kind`.
pub(super) fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The result of a handler. The operator `?` turns a refusal into a problem.
pub(super) type HandlerResult = Result<Response, Problem>;

/// Runs work that may take long on a thread for blocking work, so that `/healthz` need not wait for it.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request failed");
        Problem::new(Code::Internal, "the node failed to answer")
    })
}
