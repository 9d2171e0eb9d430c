//! What the handlers of all paths share: what they are given, and how they answer.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::NodeService;

/// Publishes whose body is read or held at a time; with `--max-frame-bytes` it bounds their memory.
const BODIES_MAX: usize = 64;

/// What every handler is given.
#[derive(Clone)]
pub(super) struct App {
    /// The node that is asked.
    pub(super) node: Arc<dyn NodeService>,
    /// Largest body of a publish, in bytes.
    pub(super) body_bytes_max: usize,
    bodies: Arc<Semaphore>,
}

impl App {
    /// The same for all handlers of one control plane.
    pub(super) fn new(node: Arc<dyn NodeService>, body_bytes_max: usize) -> App {
        App { node, body_bytes_max, bodies: Arc::new(Semaphore::new(BODIES_MAX)) }
    }

    /// Waits until a body may be read. It may be held until what is returned is dropped.
    pub(super) async fn body_permit(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.bodies.acquire().await
    }
}

/// An answer of JSON that is written already.
pub(super) fn json(body: Vec<u8>) -> Response {
    typed("application/json", body)
}

/// An answer of JSON, written by serde.
pub(super) fn json_of(body: &impl Serialize) -> Response {
    // Of the types in this room none can fail to be written.
    json(serde_json::to_vec(body).unwrap_or_default())
}

/// An answer of the media type `kind`.
pub(super) fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
