//! Errors in answers of GraphQL: every one has the code of the public contract in its `extensions`.

use async_graphql::{Error, ErrorExtensionValues, ErrorExtensions, Response, ServerError};

use crate::http::app::App;
use crate::protocol::refusal::{Code, Refusal};

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        error(refusal.code.as_str(), refusal.code.is_temporary(), refusal.message, refusal.retry_after_ms)
    }
}

/// An error with a code of the contract. `retry_after_ms` is the time after which the same may succeed.
pub(super) fn error(code: &str, is_temporary: bool, message: String, retry_after_ms: Option<u64>) -> Error {
    Error::new(message).extend_with(|_, extensions| set(extensions, code, is_temporary, retry_after_ms))
}

fn set(extensions: &mut ErrorExtensionValues, code: &str, is_temporary: bool, retry_after_ms: Option<u64>) {
    extensions.set("code", code);
    extensions.set("temporary", is_temporary);
    if let Some(retry_after_ms) = retry_after_ms {
        extensions.set("retryAfterMs", retry_after_ms);
    }
}

/// Counts a refusal, and makes the error of a field of it.
pub(super) fn refused(app: &App, refusal: Refusal) -> Error {
    app.node.metrics().refused(refusal.code);
    refusal.into()
}

/// A refusal as the error of a whole request.
pub(super) fn of_request(refusal: Refusal) -> ServerError {
    let mut error = ServerError::new(refusal.message, None);
    let mut extensions = ErrorExtensionValues::default();
    set(&mut extensions, refusal.code.as_str(), refusal.code.is_temporary(), refusal.retry_after_ms);
    error.extensions = Some(extensions);
    error
}

/// Gives every error of an answer a code: those without are mistakes that the schema has found in the request.
pub(super) fn give_codes(response: &mut Response) {
    for error in &mut response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            set(extensions, Code::BadRequest.as_str(), false, None);
        }
    }
}
