//! One source: its latest record is read, waited for, replaced and deleted.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH,
    IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::app::{App, HandlerResult};
use super::body;
use super::entry::Sender;
use super::history::history;
use super::leased::leased_json;
use super::params::{Query, Target};
use super::places::Seat;
use super::problem::Problem;
use super::publish::{PublishRequest, publish_one, published};
use super::wait::{WAIT_MS_MAX, wait_for};
use super::waiting::PageWait;
use crate::auth::Resource;
use crate::limits::TTL_MS_MAX;
use crate::protocol::answer::{Outcome, Published};
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::etag::{EntityTag, Precondition, TagList};
use crate::protocol::json::scan::single_value;
use crate::protocol::json::{write_published, write_record};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Stamp;

/// Answers with the latest record of a source or with its history.
pub(super) async fn source(
    State(app): State<App>,
    Extension(seat): Extension<Arc<Seat>>,
    Extension(sender): Extension<Sender>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> HandlerResult {
    match target(&uri)? {
        Target::History(source) => {
            sender.check_readable(&source)?;
            let wait = PageWait::begin(&app, seat);
            history(app, wait, source, query).await
        }
        Target::Latest(source) => {
            sender.check_readable(&source)?;
            latest(&app, &seat, &source, query.as_deref(), &headers).await
        }
    }
}

/// The source in the path, which is not decoded yet, since `%2Fhistory` must be distinguished from `/history`.
fn target(uri: &Uri) -> Result<Target, Refusal> {
    Target::parse(uri.path().strip_prefix(Resource::Source.path()).unwrap_or_default())
}

async fn latest(
    app: &App,
    seat: &Arc<Seat>,
    source: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> HandlerResult {
    let wait_ms = Query::parse(query, &["wait_ms"])?.number("wait_ms", 0, WAIT_MS_MAX)?.unwrap_or(0);
    let known = tags(headers, &IF_NONE_MATCH)?;
    let found = match wait_ms {
        0 => app.node.get(source),
        _ => wait_for(app, seat, source, known.as_ref(), wait_ms).await?,
    };
    let Some(record) = found else {
        return Err(Refusal::new(Code::NotFound, format!("no record of source {source:?}")).into());
    };
    let wall_us = app.node.now().wall_us;
    let tag = EntityTag::of(&record, wall_us);
    if !record.is_visible(wall_us) {
        return Ok(with_tag(Problem::deleted(&record).into_response(), tag));
    }
    Precondition { if_match: tags(headers, &IF_MATCH)?, if_none_match: None }
        .check(Some(&record), wall_us)?;
    // Who has waited has what it knows confirmed even if this node has an older version still.
    let is_known = known.is_some_and(|known| known.names(tag) || wait_ms > 0 && known.covers(tag));
    if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(with_tag(response, tag));
    }
    let mut out = Vec::new();
    write_record(&mut out, &record, false);
    Ok(with_tag(leased_json(app, out)?, tag))
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<TagList>, Refusal> {
    TagList::read(name.as_str(), headers.get_all(name).iter().map(HeaderValue::as_bytes))
}

/// Adds the tag to a response, and says that what was kept is to be asked for again before it is used.
fn with_tag(mut response: Response, tag: EntityTag) -> Response {
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag.to_string()) {
        headers.insert(ETAG, tag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Publishes the body as the latest record of the source.
pub(super) async fn put_source(
    State(app): State<App>,
    Extension(seat): Extension<Arc<Seat>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Response {
    let uri = request.uri().clone();
    let changed = async move {
        let source = only_latest(&request)?;
        let query = Query::parse(request.uri().query(), &["ack", "ts", "ttl_ms"])?;
        let ttl_ms = query.number("ttl_ms", 1, TTL_MS_MAX)?.unwrap_or(0);
        let (ack, ts) = (query.ack()?, query.ts_if_given("ts")?);
        let condition = condition(request.headers())?;
        let is_json = is_json(request.headers())?;
        let held = body::read(&app, &seat, request.into_body()).await?;
        let payload = match is_json {
            true => DraftPayload::Json(json_value(held.bytes()).inspect_err(|refusal| {
                app.node.metrics().refused(refusal.code);
            })?),
            false => DraftPayload::Binary(Cow::Borrowed(held.bytes())),
        };
        let stamp = Stamp::of_data(0, payload.bytes());
        let name = source.clone();
        let draft = Draft { source: Cow::Owned(source), ts, payload, ttl_ms, ack: None };
        let asked = PublishRequest { draft, level: ack, condition };
        let pending = publish_one(&app, asked, sender)?;
        // The answer may take seconds, and the node has what it needs of the body.
        drop(held);
        let published = published(&app, pending).await?;
        // A middleware may have changed the data, so the tag is that of the record which is held.
        let held = app.node.get(&name).map(|record| record.stamp).filter(|held| held.ts == published.ts);
        let tag = EntityTag::of_value(held.unwrap_or(Stamp { ts: published.ts, ..stamp }));
        Ok(match published.outcome {
            Outcome::Applied | Outcome::Duplicate => with_tag(told(&app, &published)?, tag),
            Outcome::Stale { .. } | Outcome::Dropped => told(&app, &published)?,
        })
    };
    answered(changed.await, &uri)
}

/// Publishes a deletion of the source.
pub(super) async fn delete_source(
    State(app): State<App>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Response {
    let uri = request.uri().clone();
    let changed = async move {
        let source = only_latest(&request)?;
        let query = Query::parse(request.uri().query(), &["ack", "ts"])?;
        let (ack, ts) = (query.ack()?, query.ts_if_given("ts")?);
        let condition = condition(request.headers())?;
        let draft =
            Draft { source: Cow::Owned(source), ts, payload: DraftPayload::Deleted, ttl_ms: 0, ack: None };
        let pending = publish_one(&app, PublishRequest { draft, level: ack, condition }, sender)?;
        let published = published(&app, pending).await?;
        told(&app, &published)
    };
    answered(changed.await, &uri)
}

fn told(app: &App, published: &Published) -> HandlerResult {
    let mut out = Vec::new();
    write_published(&mut out, published);
    leased_json(app, out)
}

/// Turns a refused change into its answer. That of a path at which nothing can be changed names the methods that it
/// knows.
fn answered(changed: HandlerResult, uri: &Uri) -> Response {
    let is_history = matches!(target(uri), Ok(Target::History(_)));
    let mut response = changed.unwrap_or_else(IntoResponse::into_response);
    if is_history {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    }
    response
}

/// The source that a request asks to change. A history cannot be changed.
fn only_latest(request: &Request) -> Result<String, Problem> {
    match target(request.uri())? {
        Target::Latest(source) => Ok(source),
        Target::History(_) => {
            let detail = format!("{} is not for a history; see the header Allow", request.method());
            Err(Problem::new(Code::MethodNotAllowed, detail))
        }
    }
}

fn condition(headers: &HeaderMap) -> Result<Precondition, Refusal> {
    Ok(Precondition { if_match: tags(headers, &IF_MATCH)?, if_none_match: tags(headers, &IF_NONE_MATCH)? })
}

/// Returns whether the body is JSON, which is kept as it is written. A body of any other type is kept as bytes.
fn is_json(headers: &HeaderMap) -> Result<bool, Refusal> {
    for refused in [CONTENT_RANGE, CONTENT_ENCODING] {
        let value = headers.get(&refused).filter(|value| value.as_bytes() != b"identity");
        if value.is_some() {
            let message =
                format!("the header {refused} is not allowed: a body is published whole and as it is");
            return Err(Refusal::new(Code::BadRequest, message));
        }
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind);
    Ok(kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The one JSON value that the body must be, without the white space around it.
fn json_value(body: &[u8]) -> Result<&[u8], Refusal> {
    let bad_json = |message: String| Refusal::new(Code::BadJson, message);
    std::str::from_utf8(body).map_err(|error| bad_json(error.to_string()))?;
    match single_value(body).map_err(|error| bad_json(error.to_string()))? {
        (value, None) => Ok(value),
        (_, Some(flaw)) => Err(bad_json(flaw.to_string())),
    }
}
