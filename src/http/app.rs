//! The state that the handlers of all paths share, and the helpers that build their responses.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;

use super::NodeService;

/// The state that every handler is given.
#[derive(Clone)]
pub(super) struct App {
    /// The node that answers the requests.
    pub(super) node: Arc<dyn NodeService>,
    /// Largest body of a publish, in bytes.
    pub(super) body_bytes_max: usize,
}

/// A response whose body is JSON that is written already.
pub(super) fn json(body: Vec<u8>) -> Response {
    typed("application/json", body)
}

/// A response whose body is serialized as JSON.
pub(super) fn json_of(body: &impl Serialize) -> Response {
    // None of the types in this directory can fail to be serialized.
    json(serde_json::to_vec(body).unwrap_or_default())
}

/// A response of the media type `kind`.
pub(super) fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
