//! What users add to the cluster, each kind under a path of its own: `/v1/pull`, `/v1/middleware`, `/v1/archive`,
//! `/v1/hook`. Definitions are listed, put and taken away here; what they do is none of the control plane's business.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Reply;
use super::app::{App, HandlerResult, apart};
use super::body;
use super::leased::{lease, leased_json};
use super::middleware;
use super::params::Query;
use super::places::Seat;
use super::problem::{CHANGE, Problem};
use super::publish::reply;
use super::system_record::tell;
use crate::auth::Resource;
use crate::memory::MemoryUse;
use crate::protocol::draft::{Draft, DraftPayload};
use crate::protocol::extension::{ExtensionKind, ExtensionName, ListedExtension};
use crate::protocol::query::decode_path;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Pattern;

/// Memory of the records that are looked at together when a definition is taken away, in bytes.
const END_BYTES: usize = 64 * 1024;
/// Memory of a trial, in bytes: an answer of the greatest usual size, and what is made of it.
const TRIAL_BYTES: usize = 24 * 1024 * 1024;
/// Largest body by which a definition is put, in bytes.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// Answers with all definitions of a kind.
pub(super) async fn list(
    kind: ExtensionKind,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    Query::parse(query.as_deref(), &[])?;
    let all = listed(kind, &app).await?;
    let objects: Vec<Value> = all.iter().map(object).collect();
    leased_json(&app, json!({kind.as_str(): objects}).to_string().into_bytes())
}

/// Answers with one definition.
pub(super) async fn one(
    kind: ExtensionKind,
    State(app): State<App>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    Query::parse(query.as_deref(), &[])?;
    let name = name_in(kind, &uri)?;
    let all = listed(kind, &app).await?;
    let found = all.iter().find(|one| one.name == name).ok_or_else(|| unknown(kind, &name))?;
    leased_json(&app, object(found).to_string().into_bytes())
}

/// Puts a definition, or another one in its place.
pub(super) async fn put(
    kind: ExtensionKind,
    State(app): State<App>,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
) -> HandlerResult {
    let name = name_in(kind, request.uri())?;
    Query::parse(request.uri().query(), &[])?;
    let is_toml = is_toml(request.headers())?;
    let body = body::read_up_to(&app, &seat, request.into_body(), DEFINITION_BYTES_MAX).await?;
    let text = app.node.read_extension(kind, body.bytes(), is_toml)?;
    drop(body);
    let published = tell(&app, kind.record_name(&name), DraftPayload::Json(&text)).await?;
    tracing::info!(kind = kind.as_str(), %name, "an admin puts a definition");
    changed(&app, &name, published.ts)
}

/// Tries the definition of a pull source, of which nothing is kept. A definition may have the name `test` all the same, since
/// it is put by another method.
pub(super) async fn test_pull(
    State(app): State<App>,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
) -> HandlerResult {
    let kind = ExtensionKind::Pull;
    if name_in(kind, request.uri())?.as_str() != "test" {
        return Err(Problem::wrong_method("POST is for /v1/pull/test", CHANGE));
    }
    Query::parse(request.uri().query(), &[])?;
    let is_toml = is_toml(request.headers())?;
    let body = body::read_up_to(&app, &seat, request.into_body(), DEFINITION_BYTES_MAX).await?;
    let text = app.node.read_extension(kind, body.bytes(), is_toml)?;
    drop(body);
    let lease = lease(&app, MemoryUse::Pages, TRIAL_BYTES.min(app.node.memory().holder_max()))?;
    tracing::info!("an admin tries a pull source");
    let node = app.node.clone();
    let told = apart(move || node.try_pull(&text)).await??;
    drop(lease);
    leased_json(&app, told)
}

/// Takes a definition away, with its state.
pub(super) async fn delete(
    kind: ExtensionKind,
    State(app): State<App>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> HandlerResult {
    Query::parse(query.as_deref(), &[])?;
    let name = name_in(kind, &uri)?;
    let is_visible = |source: &str| {
        let wall_us = app.node.now().wall_us;
        app.node.get(source).is_some_and(|record| record.is_visible(wall_us))
    };
    if !is_visible(&kind.record_name(&name)) {
        return Err(unknown(kind, &name).into());
    }
    let published = tell(&app, kind.record_name(&name), DraftPayload::Deleted).await?;
    if is_visible(&kind.state_name(&name)) {
        tell(&app, kind.state_name(&name), DraftPayload::Deleted).await?;
    }
    end_the_rest(kind, &name, &app).await?;
    if kind == ExtensionKind::Middleware {
        middleware::clean(&app, &name).await?;
    }
    tracing::info!(kind = kind.as_str(), %name, "an admin takes a definition away");
    changed(&app, &name, published.ts)
}

/// Ends whatever else was told of a definition: how far a webhook came, or which archives there are. Archives themselves
/// stay, and are found again by a definition of the same place.
async fn end_the_rest(kind: ExtensionKind, name: &ExtensionName, app: &App) -> Result<(), Problem> {
    let pattern = Pattern::parse(&format!("{}/**", kind.record_name(name)));
    let pattern = pattern.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    let mut walk = app.node.walk(pattern, None);
    loop {
        let wall_us = app.node.now().wall_us;
        let part = apart(move || {
            let records = walk.next_part(END_BYTES);
            (walk, records)
        });
        let records;
        (walk, records) = part.await?;
        let mut receivers = Vec::new();
        for record in records.iter().filter(|record| record.is_visible(wall_us)) {
            let (answer, receiver) = Reply::channel();
            let source = Cow::Borrowed(record.source.as_str());
            let payload = DraftPayload::Deleted;
            app.node.tell(Draft { source, ts: None, payload, ttl_ms: 0, ack: None }, answer);
            receivers.push(receiver);
        }
        for receiver in receivers {
            reply(app, receiver).await?;
        }
        if walk.is_over() {
            return Ok(());
        }
    }
}

/// The answer to a change of a definition, whose record has the timestamp `ts`.
fn changed(app: &App, name: &ExtensionName, ts: u64) -> HandlerResult {
    leased_json(app, json!({"name": name.as_str(), "ts": ts}).to_string().into_bytes())
}

async fn listed(kind: ExtensionKind, app: &App) -> Result<Vec<ListedExtension>, Problem> {
    let node = app.node.clone();
    apart(move || node.extensions(kind)).await
}

/// A definition with what is known of it.
fn object(one: &ListedExtension) -> Value {
    let cannot: serde_json::Map<String, Value> =
        one.cannot.iter().map(|(member, reason)| (member.clone(), reason.as_str().into())).collect();
    json!({
        "name": one.name.as_str(),
        "ts": one.ts,
        "definition": parsed(&one.definition),
        "runner": one.runner,
        "cannot": cannot,
        "state": one.state.as_deref().map_or(Value::Null, parsed),
    })
}

/// The JSON value of a record of the system's; as a text if an admin published something else there.
fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice::<&RawValue>(text)
        .ok()
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_else(|| String::from_utf8_lossy(text).into())
}

/// The name of the definition that the path of a request names.
pub(super) fn name_in(kind: ExtensionKind, uri: &Uri) -> Result<ExtensionName, Refusal> {
    let raw = uri.path().strip_prefix(Resource::Extension(kind).path()).unwrap_or_default();
    let bad_request = |message: String| Refusal::new(Code::BadRequest, message);
    let name = decode_path(raw).map_err(|error| bad_request(error.to_string()))?;
    ExtensionName::parse(&name).map_err(|error| bad_request(error.to_string()))
}

fn unknown(kind: ExtensionKind, name: &ExtensionName) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no {} {name}", kind.as_str()))
}

/// Returns whether the body of a request is TOML; otherwise it is JSON.
fn is_toml(headers: &HeaderMap) -> Result<bool, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind).trim();
    if kind.eq_ignore_ascii_case("application/toml") {
        return Ok(true);
    }
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(false),
        false => {
            let message =
                format!("Content-Type is {kind:?}; allowed are application/json and application/toml");
            Err(Refusal::new(Code::BadRequest, message))
        }
    }
}
