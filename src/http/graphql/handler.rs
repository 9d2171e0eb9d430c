//! Requests for `/graphql` over HTTP: a query by GET, anything but a subscription by POST, and the change to WebSocket.

use std::sync::Arc;

use async_graphql::{Request as GraphqlRequest, Response as GraphqlResponse, Variables};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::response::{IntoResponse, Response};

use super::errors::of_request;
use super::graphiql;
use super::handshake::{SUBPROTOCOL, accept_key};
use super::requester::Requester;
use super::schema::{Engine, check_kind};
use super::socket::{SOCKET_BYTES, SocketStart, speak};
use crate::auth::{Peer, SessionEntry};
use crate::http::app::App;
use crate::http::body;
use crate::http::entry::Sender;
use crate::http::leased::{lease, leased_json};
use crate::http::params::Query;
use crate::http::places::Seat;
use crate::http::problem::Problem;
use crate::http::upgrade::ProtocolChange;
use crate::memory::MemoryUse;
use crate::protocol::refusal::{Code, Refusal};

/// The media type of answers by whose status a client sees whether the request was understood.
const RESPONSE_TYPE: &str = "application/graphql-response+json";

/// Answers a GET: a request for the WebSocket, for the page, or a query in the URL.
pub(in crate::http) async fn get(
    State(app): State<App>,
    Extension(engine): Extension<Arc<Engine>>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Result<Response, Problem> {
    if request.extensions().get::<SessionEntry>().is_some() {
        return change(app, engine, peer, request);
    }
    if graphiql::wants_page(request.method(), request.uri(), request.headers()) {
        return graphiql::page();
    }
    let asked = request_of_query(request.uri().query())?;
    let requester = Requester::new(app, engine.permits().clone(), sender.0, peer.address);
    answer(&engine, asked, requester, request.headers(), true).await
}

/// Answers a POST: a query or a mutation in the body.
pub(in crate::http) async fn post(
    State(app): State<App>,
    Extension(engine): Extension<Arc<Engine>>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(sender): Extension<Sender>,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    Query::parse(head.uri.query(), &[])?;
    let body = body::read(&app, &seat, body).await?;
    let requester = Requester::new(app, engine.permits().clone(), sender.0, peer.address);
    // What is read from the body takes as much again.
    requester.charge(body.bytes().len())?;
    let asked = request_of_body(body.bytes())?;
    drop(body);
    answer(&engine, asked, requester, &head.headers, false).await
}

/// Reads the request in the query of a URL.
fn request_of_query(query: Option<&str>) -> Result<GraphqlRequest, Refusal> {
    let query = Query::parse(query, &["query", "operationName", "variables", "extensions"])?;
    let Some(text) = query.get("query") else {
        return Err(Refusal::new(Code::BadRequest, "parameter query is missing"));
    };
    let mut request = GraphqlRequest::new(text);
    request.operation_name = query.get("operationName").filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(text) = query.get("variables").filter(|text| !text.is_empty()) {
        request.variables = variables_of(text)?;
    }
    Ok(request)
}

fn variables_of(text: &str) -> Result<Variables, Refusal> {
    serde_json::from_str(text)
        .map_err(|error| Refusal::new(Code::BadRequest, format!("variables is no JSON object: {error}")))
}

/// Reads the request in a body.
fn request_of_body(body: &[u8]) -> Result<GraphqlRequest, Refusal> {
    if body.trim_ascii_start().starts_with(b"[") {
        let message = "the body is an array; there are no batches: send one request, with several fields";
        return Err(Refusal::new(Code::BadRequest, message));
    }
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::BadRequest } else { Code::BadJson };
        Refusal::new(code, format!("the body is no request of GraphQL: {error}"))
    })
}

async fn answer(
    engine: &Engine,
    asked: GraphqlRequest,
    requester: Requester,
    headers: &HeaderMap,
    is_get: bool,
) -> Result<Response, Problem> {
    let app = requester.app().clone();
    let answered = engine.answer(asked, requester.clone(), |kind| check_kind(kind, is_get)).await;
    let response = match answered {
        Ok(response) => response,
        Err(refusal) if refusal.code == Code::MethodNotAllowed => {
            let mut response = Problem::from(refusal).into_response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        Err(refusal) => {
            app.node.metrics().refused(refusal.code);
            GraphqlResponse::from_errors(vec![of_request(refusal)])
        }
    };
    let is_refused = response.errors.iter().any(|error| error.path.is_empty());
    let body = serde_json::to_vec(&response).map_err(|error| {
        tracing::error!(%error, "an answer of GraphQL cannot be written");
        Problem::new(Code::Internal, "the node failed to answer")
    })?;
    drop(response);
    // From here on the answer is counted by its length.
    requester.release();
    let mut response = leased_json(&app, body)?;
    if accepts(headers, RESPONSE_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(RESPONSE_TYPE));
        if is_refused {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
    }
    Ok(response)
}

/// Returns whether a client names a media type among those that it accepts.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(media_type))
}

/// Agrees to change a connection to WebSocket, or refuses it.
fn change(app: App, engine: Arc<Engine>, peer: Arc<Peer>, mut request: Request) -> Result<Response, Problem> {
    let key = match accept_key(request.headers()) {
        Ok(key) => {
            HeaderValue::from_str(&key).map_err(|_| Problem::new(Code::Internal, "the handshake failed"))?
        }
        Err(message) => {
            let mut response = Problem::from(Refusal::new(Code::BadRequest, message)).into_response();
            // Tells a client of another version of WebSocket which one it should use (RFC 6455, 4.2.2).
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return Ok(response);
        }
    };
    if app.node.is_stopping() {
        let message = "this node is stopping; another node of the cluster serves";
        return Err(Refusal::new(Code::Overloaded, message).into());
    }
    let permit = engine.permits().socket().ok_or_else(|| {
        Refusal::new(Code::Overloaded, "this node has as many WebSockets of GraphQL as it may")
    })?;
    let lease = lease(&app, MemoryUse::Subscriptions, SOCKET_BYTES)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let extensions = request.extensions_mut();
    let (Some(entry), Some(change)) =
        (extensions.remove::<SessionEntry>(), extensions.remove::<Arc<ProtocolChange>>())
    else {
        return Err(Problem::new(Code::Internal, "the connection cannot change protocols"));
    };
    let start = SocketStart { app, engine, peer, entry, permit, lease };
    change.agree(upgrade, Box::new(move |upgraded, ending| Box::pin(speak(upgraded, start, ending))));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}
