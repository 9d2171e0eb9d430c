//! One function a path.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HeaderValue, UPGRADE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use super::Node;
use super::params::{Query, Target};
use super::problem::Problem;
use super::publish::publish;
use crate::limits::TS_MAX;
use crate::protocol::answer::{Code, Refusal};
use crate::protocol::json::{write_record, write_string};
use crate::record::{HistoryCursor, HistoryQuery, Record};

/// Bytes after which a page ends, whatever its limit: one request must not cost a node more.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of history taken from the store at a time, so that the bound above is seen in time.
const HISTORY_CHUNK: usize = 64;
/// Publishes whose body is read or held at a time; with `--max-frame-bytes` it bounds their memory.
const BODIES_MAX: usize = 64;

/// The whole of a publish over HTTP: its turn, its body, and the level it waits for.
const PUBLISH_MAX: Duration = Duration::from_secs(30);

/// What every handler is given.
#[derive(Clone)]
pub(super) struct App {
    pub(super) node: Arc<dyn Node>,
    pub(super) body_bytes_max: usize,
    bodies: Arc<Semaphore>,
}

/// All paths of the contract.
pub(super) fn router(node: Arc<dyn Node>, body_bytes_max: usize) -> Router {
    let app = App { node, body_bytes_max, bodies: Arc::new(Semaphore::new(BODIES_MAX)) };
    let publish = post(publish)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(app.clone(), one_of_few_bodies));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/members", get(members))
        .route("/v1/sources", get(list))
        .route("/v1/sources/", get(source))
        .route("/v1/sources/{*source}", get(source))
        .route("/v1/publish", publish)
        .route("/publish", get(not_upgraded))
        .route("/subscribe", get(not_upgraded))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(from_fn(readable_by_any_page))
        .with_state(app)
}

/// An answer of JSON.
pub(super) fn json(body: Vec<u8>) -> Response {
    typed("application/json", body)
}

fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Handlers name refusals with `?`.
type Answered = Result<Response, Problem>;

async fn healthz(State(app): State<App>) -> Answered {
    match app.node.is_turning() {
        true => Ok(typed("text/plain; charset=utf-8", "ok\n")),
        false => Err(unavailable("stuck", "an event loop has not turned for seconds".into())),
    }
}

async fn readyz(State(app): State<App>) -> Answered {
    match app.node.readiness() {
        Ok(()) => Ok(typed("text/plain; charset=utf-8", "ready\n")),
        Err(reason) => Err(unavailable("not_ready", reason)),
    }
}

fn unavailable(code: &'static str, reason: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, reason)
}

async fn metrics(State(app): State<App>) -> Response {
    let mut text = String::with_capacity(8 * 1024);
    app.node.metrics().write(&mut text);
    typed("text/plain; version=0.0.4; charset=utf-8", text)
}

async fn members(State(app): State<App>, RawQuery(query): RawQuery) -> Answered {
    Query::parse(query.as_deref(), &[])?;
    let mut out = b"{\"members\":[".to_vec();
    for (at, member) in app.node.members().iter().enumerate() {
        let identity = &member.identity;
        out.extend_from_slice(if at == 0 { b"{\"id\":" } else { b",{\"id\":" });
        write_string(&mut out, identity.name.as_str());
        let (state, gossip) = (member.state.as_str(), identity.gossip());
        out.extend_from_slice(format!(",\"state\":\"{state}\",\"http\":").as_bytes());
        write_string(&mut out, &identity.http());
        out.extend_from_slice(format!(",\"gossip\":\"{gossip}\",\"zone\":").as_bytes());
        write_string(&mut out, identity.zone());
        let mut numbers = format!(",\"incarnation\":{},\"boot\":{}", member.incarnation, identity.boot);
        numbers.push_str(",\"version\":");
        out.extend_from_slice(numbers.as_bytes());
        write_string(&mut out, identity.version());
        let rtt = member.rtt_us.map_or("null".to_owned(), |us| us.to_string());
        out.extend_from_slice(format!(",\"rtt_us\":{rtt}}}").as_bytes());
    }
    out.extend_from_slice(b"]}");
    Ok(json(out))
}

async fn source(State(app): State<App>, uri: Uri, RawQuery(query): RawQuery) -> Answered {
    // The path as it came: decoded, `%2Fhistory` could not be told from `/history`.
    match Target::parse(uri.path().strip_prefix("/v1/sources/").unwrap_or_default())? {
        Target::History(source) => history(app, source, query).await,
        Target::Latest(source) => {
            Query::parse(query.as_deref(), &[])?;
            let Some(record) = app.node.get(&source) else {
                return Err(Refusal::new(Code::NotFound, format!("no record of source {source:?}")).into());
            };
            if !record.is_visible(app.node.now().wall_us) {
                return Err(Problem::deleted(&record));
            }
            let mut out = Vec::new();
            write_record(&mut out, &record, false);
            Ok(json(out))
        }
    }
}

async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answered {
    let query = Query::parse(query.as_deref(), &["pattern", "limit", "after"])?;
    let (pattern, limit) = (query.pattern()?, query.limit()?);
    apart(move || {
        // One more than asked for tells whether there is a next page.
        let mut records = app.node.list(&pattern, query.get("after"), limit + 1);
        let mut has_more = records.len() > limit;
        records.truncate(limit);
        let mut page = Page::new();
        for (at, record) in records.iter().enumerate() {
            page.push(|out| write_record(out, record, false));
            if page.is_full() {
                has_more |= at + 1 < records.len();
                records.truncate(at + 1);
                break;
            }
        }
        let last = records.last().filter(|_| has_more);
        Ok(json(page.finish(last.map(|record| record.source.as_str()))))
    })
    .await
}

async fn history(app: App, source: String, query: Option<String>) -> Answered {
    let query = Query::parse(query.as_deref(), &["from", "to", "limit", "after"])?;
    let (from_us, to_us, mut limit) = (query.ts("from", 0)?, query.ts("to", TS_MAX)?, query.limit()?);
    let after = query.get("after").map(history_cursor).transpose()?;
    apart(move || {
        let (mut page, wall_us) = (Page::new(), app.node.now().wall_us);
        let mut chunk = HistoryQuery { source, from_us, to_us, limit, after };
        while limit > 0 && !page.is_full() {
            chunk.limit = limit.min(HISTORY_CHUNK);
            let found = app.node.history(&chunk)?;
            // A value that is over is over for whoever reads what was, too; deletions are shown.
            let is_shown = |record: &&Record| record.stamp.deleted || record.is_visible(wall_us);
            for record in found.records.iter().filter(is_shown).take(limit) {
                page.push(|out| write_record(out, record, false));
                limit -= 1;
            }
            chunk.after = found.after;
            if chunk.after.is_none() || found.records.is_empty() {
                break;
            }
        }
        let after = chunk.after.map(|cursor| cursor.to_string());
        Ok(json(page.finish(after.as_deref())))
    })
    .await
}

/// Reads the cursor that a client sends back for the next page of a history.
fn history_cursor(text: &str) -> Result<HistoryCursor, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(Code::BadRequest, format!("after {text:?} is no cursor of a history")))
}

/// Runs what may take long on a thread of its own, so that `/healthz` need not wait for it.
async fn apart(work: impl FnOnce() -> Answered + Send + 'static) -> Answered {
    match tokio::task::spawn_blocking(work).await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::error!(%error, "a request failed");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the node failed to answer"))
        }
    }
}

/// `{"records":[…],"after":…}` while it is written.
struct Page {
    out: Vec<u8>,
    is_empty: bool,
}

impl Page {
    fn new() -> Page {
        Page { out: b"{\"records\":[".to_vec(), is_empty: true }
    }

    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        write(&mut self.out);
    }

    fn is_full(&self) -> bool {
        self.out.len() >= PAGE_BYTES_MAX
    }

    fn finish(mut self, after: Option<&str>) -> Vec<u8> {
        self.out.extend_from_slice(b"],\"after\":");
        match after {
            Some(cursor) => write_string(&mut self.out, cursor),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.push(b'}');
        self.out
    }
}

/// `/publish` and `/subscribe` speak WebSocket only.
async fn not_upgraded(uri: Uri) -> Response {
    let detail = format!("{} is a WebSocket: ask for an upgrade, or POST to /v1/publish", uri.path());
    let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}; see the header Allow", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

async fn unknown(uri: Uri) -> Problem {
    let mut detail = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(detail, "there is nothing at {:.100}", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn readable_by_any_page(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = next.run(request).await;
    if is_read {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

/// Waits for its turn before a body is read, and bounds how long a body may take.
async fn one_of_few_bodies(State(app): State<App>, request: Request, next: Next) -> Response {
    let turn = async {
        let _turn = app.bodies.acquire().await;
        next.run(request).await
    };
    tokio::time::timeout(PUBLISH_MAX, turn).await.unwrap_or_else(|_| {
        let detail = "the body did not come, or was not answered, in time";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail).into_response()
    })
}
