//! The paths of the control plane, and one function for each.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header::{HeaderValue, RETRY_AFTER, UPGRADE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};

use super::app::{App, typed};
use super::entry::{Sender, around, unknown};
use super::health::HealthPath;
use super::leased::{lease, leased_body, leased_json, resize};
use super::page::{MemberList, RecordPage};
use super::params::{Query, Target};
use super::places::Seat;
use super::problem::{Problem, retry_after};
use super::publish::publish;
use super::waiting::PageWait;
use super::{HttpOptions, NodeService};
use crate::auth::Resource;
use crate::limits::TS_MAX;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::json::write_record;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{HistoryCursor, HistoryQuery, Record};

/// Most records of a history that are read from the store at a time. After each such chunk the size of the page is
/// checked.
const HISTORY_CHUNK: usize = 64;
/// Most bytes of records of a history that are read at a time, if each is as large as it may be: they are counted only
/// when they are there. At least one record is read.
const HISTORY_CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// Memory that a search for a page needs for its place in each shard of the map, in bytes.
const SEARCH_BYTES: usize = 14 * 1024;
/// Memory that a search needs for each record that it finds, besides the record, in bytes.
const FOUND_BYTES: usize = 2 * size_of::<usize>();

/// The router of all paths.
pub(super) fn router(node: Arc<dyn NodeService>, options: HttpOptions) -> Router {
    let app = App::new(node, options);
    let mut router = Router::new();
    for resource in Resource::ALL {
        let path = resource.path();
        router = router.route(path, handler_of(resource));
        if path.ends_with('/') {
            router = router.route(&format!("{path}{{*beneath}}"), handler_of(resource));
        }
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// The function that answers requests for a resource.
fn handler_of(resource: Resource) -> MethodRouter<App> {
    match resource {
        Resource::Live => get(|State(app): State<App>| health(app, HealthPath::Live)),
        Resource::Ready => get(|State(app): State<App>| health(app, HealthPath::Ready)),
        Resource::Metrics => get(|State(app): State<App>| health(app, HealthPath::Metrics)),
        Resource::Members => get(members),
        Resource::Sources => get(list),
        Resource::Source => get(source),
        Resource::Publish => post(publish),
        Resource::PublishSocket | Resource::SubscribeSocket => get(not_upgraded),
    }
}

/// The result of a handler. The operator `?` turns a refusal into a problem.
type HandlerResult = Result<Response, Problem>;

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
    leased_json(&app, MemberList::new(&app.node.members()).to_json())
}

async fn source(
    State(app): State<App>,
    Extension(sender): Extension<Sender>,
    Extension(seat): Extension<Arc<Seat>>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    // The path is not decoded yet, since `%2Fhistory` must be distinguished from `/history`.
    match Target::parse(uri.path().strip_prefix(Resource::Source.path()).unwrap_or_default())? {
        Target::History(source) => {
            sender.check_readable(&source)?;
            let wait = PageWait::begin(&app, seat);
            history(app, wait, source, query).await
        }
        Target::Latest(source) => {
            sender.check_readable(&source)?;
            Query::parse(query.as_deref(), &[])?;
            let Some(record) = app.node.get(&source) else {
                return Err(Refusal::new(Code::NotFound, format!("no record of source {source:?}")).into());
            };
            if !record.is_visible(app.node.now().wall_us) {
                return Err(Problem::deleted(&record));
            }
            let mut out = Vec::new();
            write_record(&mut out, &record, false);
            leased_json(&app, out)
        }
    }
}

async fn list(
    State(app): State<App>,
    Extension(Sender(reader)): Extension<Sender>,
    Extension(seat): Extension<Arc<Seat>>,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    let wait = PageWait::begin(&app, seat);
    let query = Query::parse(query.as_deref(), &["pattern", "limit", "after"])?;
    let (mut pattern, limit) = (query.pattern()?, query.limit()?);
    if let Some(reader) = &reader {
        pattern = reader.rights().narrowed(pattern);
    }
    // The search needs this memory until its page is put together.
    let _search_lease = lease(&app, MemoryUse::Pages, SEARCH_BYTES + limit * FOUND_BYTES)?;
    // One more than asked for tells whether there is a next page.
    let mut search = app.node.list(pattern, query.get("after"), limit + 1, reader);
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

async fn history(app: App, wait: PageWait, source: String, query: Option<String>) -> HandlerResult {
    let query = Query::parse(query.as_deref(), &["from", "to", "limit", "after"])?;
    let (from_us, to_us, mut limit) = (query.ts("from", 0)?, query.ts("to", TS_MAX)?, query.limit()?);
    let after = query.get("after").map(history_cursor).transpose()?;
    let chunk_bytes_max = HISTORY_CHUNK_BYTES.min(app.node.memory().holder_max() / 2);
    let most = (chunk_bytes_max / app.record_bytes_max.max(1)).clamp(1, HISTORY_CHUNK);
    let mut page = RecordPage::new(&app);
    let mut chunk = HistoryQuery { source, from_us, to_us, limit, after };
    // Each chunk is a turn of its own on the threads for blocking work, so that long histories make room for others.
    while limit > 0 && !page.is_full() {
        wait.check(&app)?;
        let app = app.clone();
        let shown;
        let is_last;
        (page, chunk, shown, is_last) = apart(move || {
            let leased;
            (chunk.limit, leased) = lease_chunk(&app, limit.min(most))?;
            let found = app.node.history(&chunk)?;
            let shown = push_chunk(&app, &mut page, &found.records, limit, leased)?;
            chunk.after = found.after;
            let is_last = chunk.after.is_none() || found.records.is_empty();
            Ok::<_, Problem>((page, chunk, shown, is_last))
        })
        .await??;
        limit -= shown;
        if is_last {
            break;
        }
    }
    let after = chunk.after.map(|cursor| cursor.to_string());
    page.finish(&app, after.as_deref())
}

/// Leases the memory of up to `most` records of a history before they are read: fewer where memory is short, and at
/// least one. Returns their number and the lease.
fn lease_chunk(app: &App, most: usize) -> Result<(usize, Lease), Problem> {
    let mut records = most.max(1);
    loop {
        let mut leased = app.node.memory().lease();
        let bytes = records * app.record_bytes_max;
        match leased.set(bytes) {
            Ok(()) => return Ok((records, leased)),
            Err(_) if records > 1 => records /= 2,
            Err(_) => return Ok((1, lease(app, MemoryUse::Pages, bytes)?)),
        }
    }
}

/// Adds those of a chunk of a history to the page that are shown, at most `limit`. The chunk is in memory until all of
/// it is written, beside the page: `leased` is what was leased for it. Returns the number of records that were added.
fn push_chunk(
    app: &App,
    page: &mut RecordPage,
    chunk: &[Record],
    limit: usize,
    mut leased: Lease,
) -> Result<usize, Problem> {
    resize(app, MemoryUse::Pages, &mut leased, chunk.iter().map(Record::cost_bytes).sum())?;
    let wall_us = app.node.now().wall_us;
    // A value whose time to live has ended is not shown in a history either; deletions are.
    let is_shown = |record: &&Record| record.stamp.deleted || record.is_visible(wall_us);
    let mut shown = 0;
    for record in chunk.iter().filter(is_shown).take(limit) {
        page.push(app, record)?;
        shown += 1;
    }
    Ok(shown)
}

/// Reads the cursor that a client sends back for the next page of a history.
fn history_cursor(text: &str) -> Result<HistoryCursor, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(Code::BadRequest, format!("after {text:?} is no cursor of a history")))
}

/// Runs work that may take long on a thread for blocking work, so that `/healthz` need not wait for it.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request failed");
        Problem::new(Code::Internal, "the node failed to answer")
    })
}

/// Answers plain requests to `/publish` and `/subscribe`, which speak WebSocket only.
async fn not_upgraded(uri: Uri) -> Response {
    let detail = format!(
        "{} is a WebSocket: ask for an upgrade in the first request of a connection, or POST to /v1/publish",
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
