//! The descriptions of what a node offers to clients, for people and for programs that are made from them: OpenAPI 3.1
//! of the requests over HTTP, and AsyncAPI 3 of the messages over WebSocket.
//!
//! The documents are written by hand. Tests hold them against the table of all paths and the table of all codes, and
//! execute every example in them.

use axum::extract::RawQuery;
use axum::response::Response;

use super::app::typed;
use super::params::Query;
use super::problem::Problem;

/// The description of the requests over HTTP.
const OPENAPI: &str = include_str!("api/openapi.json");
/// The description of the messages over WebSocket.
const ASYNCAPI: &str = include_str!("api/asyncapi.json");

/// Answers with the OpenAPI document.
pub(super) async fn openapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    document(query, OPENAPI)
}

/// Answers with the AsyncAPI document.
pub(super) async fn asyncapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    document(query, ASYNCAPI)
}

fn document(query: Option<String>, text: &'static str) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    Ok(typed("application/json", text))
}
