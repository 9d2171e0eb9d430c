//! The paths of the control plane, and one function for each.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, HeaderValue, LOCATION, RETRY_AFTER, UPGRADE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use futures_util::stream;

use super::admin::{drain, forget};
use super::api::{asyncapi, openapi};
use super::app::{App, HandlerResult, apart, typed};
use super::entry::{Sender, around, unknown};
use super::export::export;
use super::graphql::{self, Engine};
use super::health::HealthPath;
use super::import::import;
use super::leased::{lease, leased_body, leased_json};
use super::middleware::{post_middleware, put_middleware};
use super::page::{MemberList, RecordPage};
use super::params::Query;
use super::places::Seat;
use super::problem::{Problem, retry_after};
use super::publish::publish;
use super::raw::EVENT_STREAM_TYPE;
use super::source::{delete_source, put_source, source};
use super::waiting::PageWait;
use super::{HttpOptions, NodeService, PageRequest, archives, extensions, web};
use crate::auth::Resource;
use crate::memory::MemoryUse;
use crate::protocol::extension::ExtensionKind;
use crate::protocol::refusal::Code;
use crate::protocol::url::stream_url;

/// Memory that a search for a page needs for its place in each shard of the map, in bytes.
const SEARCH_BYTES: usize = 14 * 1024;
/// Memory that a search needs for each record that it finds, besides the record, in bytes.
const FOUND_BYTES: usize = 2 * size_of::<usize>();

/// The router of all paths. At most `sockets_max` connections may become WebSockets of GraphQL at a time.
pub(super) fn router(node: Arc<dyn NodeService>, options: HttpOptions, sockets_max: usize) -> Router {
    let app = App::new(node, options);
    let engine = Arc::new(Engine::new(sockets_max));
    let mut router = Router::new();
    for resource in Resource::ALL {
        let path = resource.path();
        router = router.route(path, handler_of(resource, &engine));
        if resource.has_beneath() {
            router = router.route(&format!("{path}{{*beneath}}"), handler_of(resource, &engine));
        }
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// The function that answers requests for a resource.
fn handler_of(resource: Resource, engine: &Arc<Engine>) -> MethodRouter<App> {
    match resource {
        Resource::Live => get(|State(app): State<App>| health(app, HealthPath::Live)),
        Resource::Ready => get(|State(app): State<App>| health(app, HealthPath::Ready)),
        Resource::Metrics => get(|State(app): State<App>| health(app, HealthPath::Metrics)),
        Resource::Members => get(members),
        Resource::Sources => get(list),
        Resource::Source => get(source).put(put_source).delete(delete_source),
        Resource::Stream => get(streamed_elsewhere),
        Resource::Export => get(export),
        Resource::Import => post(import),
        Resource::Drain => post(drain),
        Resource::Forget => post(forget),
        Resource::Extension(kind @ ExtensionKind::Archive) => get(archives::get)
            .post(archives::post)
            .put(move |app, seat, request| extensions::put(kind, app, seat, request))
            .delete(move |app, uri, query| extensions::delete(kind, app, uri, query)),
        Resource::Extensions(kind) => get(move |app, query| extensions::list(kind, app, query)),
        Resource::Extension(kind @ ExtensionKind::Middleware) => {
            get(move |app, uri, query| extensions::one(kind, app, uri, query))
                .put(put_middleware)
                .post(post_middleware)
                .delete(move |app, uri, query| extensions::delete(kind, app, uri, query))
        }
        Resource::Extension(kind @ ExtensionKind::Pull) => {
            get(move |app, uri, query| extensions::one(kind, app, uri, query))
                .put(move |app, seat, request| extensions::put(kind, app, seat, request))
                .post(extensions::test_pull)
                .delete(move |app, uri, query| extensions::delete(kind, app, uri, query))
        }
        Resource::Extension(kind) => get(move |app, uri, query| extensions::one(kind, app, uri, query))
            .put(move |app, seat, request| extensions::put(kind, app, seat, request))
            .delete(move |app, uri, query| extensions::delete(kind, app, uri, query)),
        Resource::OpenApi => get(openapi),
        Resource::AsyncApi => get(asyncapi),
        Resource::Publish => post(publish),
        Resource::PublishSocket | Resource::SubscribeSocket => get(not_upgraded),
        Resource::Graphql => get(graphql::get).post(graphql::post).layer(Extension(engine.clone())),
        Resource::GraphqlPage => get(graphql::page_file),
        Resource::WebPage => get(web::page),
        Resource::WebAsset => get(web::asset),
    }
}

async fn health(app: App, path: HealthPath) -> Response {
    let answer = path.answer(&*app.node);
    let mut lease = app.node.memory().lease();
    // Whoever watches the node is told how it is, however much memory clients hold.
    let _ = lease.resize(answer.body.capacity(), 0);
    let mut response = typed(answer.media_type, leased_body(answer.body, lease));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = retry_after(answer.status, None) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn members(State(app): State<App>, RawQuery(query): RawQuery) -> HandlerResult {
    Query::parse(query.as_deref(), &[])?;
    let (members, reach) = (app.node.members(), app.node.tcp_reach());
    leased_json(&app, MemberList::new(&members).with_reach(&reach).to_json())
}

async fn list(
    State(app): State<App>,
    Extension(Sender(reader)): Extension<Sender>,
    Extension(seat): Extension<Arc<Seat>>,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    let wait = PageWait::begin(&app, seat);
    let query = Query::parse(query.as_deref(), &["pattern", "limit", "after", "updated_since"])?;
    let (mut pattern, limit) = (query.pattern()?, query.limit()?);
    let updated_since = query.ts_if_given("updated_since")?;
    if let Some(reader) = &reader {
        pattern = reader.rights().narrowed(pattern);
    }
    // The search needs this memory until its page is put together.
    let _search_lease = lease(&app, MemoryUse::Pages, SEARCH_BYTES + limit * FOUND_BYTES)?;
    // One more than asked for tells whether there is a next page.
    let wanted = PageRequest { pattern, after: query.get("after"), limit: limit + 1, updated_since, reader };
    let mut search = app.node.search(wanted);
    loop {
        let _turn = app.search_permit().await;
        wait.check(&app)?;
        let is_complete;
        (search, is_complete) = apart(move || {
            let is_complete = search.advance();
            (search, is_complete)
        })
        .await?;
        if is_complete {
            break;
        }
    }
    wait.check(&app)?;
    apart(move || {
        let mut records = search.into_records();
        let mut has_more = records.len() > limit;
        records.truncate(limit);
        let mut page = RecordPage::new(&app);
        for (at, record) in records.iter().enumerate() {
            page.push(&app, record)?;
            if page.is_full() {
                has_more |= at + 1 < records.len();
                records.truncate(at + 1);
                break;
            }
        }
        let last = records.last().filter(|_| has_more);
        page.finish(&app, last.map(|record| record.source.as_str()))
    })
    .await?
}

/// Sends a client that asks for a stream of records on a connection of the control plane to a new connection, on which
/// an event loop reads the request. Browsers and most other clients follow by themselves. `HEAD` is answered here, because
/// no event loop does: a client that follows would be sent back without end.
async fn streamed_elsewhere(method: Method, uri: Uri) -> HandlerResult {
    if method == Method::HEAD {
        stream_url(uri.query().unwrap_or_default())?;
        let mut response =
            typed(EVENT_STREAM_TYPE, Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    // A relative reference, because a program in front of the node may know it by another path.
    if let Ok(location) = HeaderValue::try_from(format!("stream{query}")) {
        headers.insert(LOCATION, location);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// Answers plain requests to `/publish` and `/subscribe`, which speak WebSocket only.
async fn not_upgraded(uri: Uri) -> Response {
    let instead = if uri.path() == "/subscribe" { "GET /v1/stream" } else { "POST to /v1/publish" };
    let detail = format!(
        "{} is a WebSocket: ask for an upgrade in the first request of a connection, or {instead}",
        uri.path()
    );
    let mut response = Problem::new(Code::UpgradeRequired, detail).into_response();
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}; see the header Allow", uri.path());
    Problem::new(Code::MethodNotAllowed, detail)
}
