//! Middlewares over HTTP: putting them, going back to the version before, and trying them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use serde_json::json;

use super::app::{App, HandlerResult, apart};
use super::body;
use super::leased::leased_json;
use super::params::Query;
use super::places::Seat;
use super::problem::{CHANGE, Problem};
use super::system_record::tell;
use crate::auth::Resource;
use crate::protocol::draft::DraftPayload;
use crate::protocol::extension::{ExtensionKind, ExtensionName, MiddlewareBody};
use crate::protocol::query::decode_path;
use crate::protocol::refusal::{Code, Refusal};

/// Largest body by which a middleware is put, in bytes: a module of 16 MiB in base64, and the fields beside it.
const MIDDLEWARE_BODY_BYTES_MAX: usize = 23 * 1024 * 1024;
/// The fields beside a module that is the body itself, as parameters.
const PARAMETERS: [&str; 4] = ["on", "order", "when", "on_failure"];
/// Kind of all that is asked for here.
const KIND: ExtensionKind = ExtensionKind::Middleware;

/// Puts a middleware, or another version in its place.
pub(super) async fn put_middleware(
    State(app): State<App>,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
) -> HandlerResult {
    let (name, action) = target(request.uri())?;
    if action.is_some() {
        return Err(unknown_path(request.uri()));
    }
    let media_type = media_type(&request)?;
    let known: &[&str] = if media_type == MediaType::Wasm { &PARAMETERS } else { &[] };
    let query = Query::parse(request.uri().query(), known)?;
    let fields = PARAMETERS.iter().filter_map(|name| Some(((*name).to_owned(), query.get(name)?.to_owned())));
    let fields: Vec<(String, String)> = fields.collect();
    let held = body::read_up_to(&app, &seat, request.into_body(), MIDDLEWARE_BODY_BYTES_MAX).await?;
    let (node, put_name) = (app.node.clone(), name.clone());
    let definition = apart(move || {
        let body = match media_type {
            MediaType::Json => MiddlewareBody::Json(held.bytes()),
            MediaType::Toml => MiddlewareBody::Toml(held.bytes()),
            MediaType::Wasm => MiddlewareBody::Module { module: held.bytes(), fields },
        };
        node.prepare_middleware(&put_name, &body)
    });
    let definition = definition.await??;
    put_in_force(&app, &name, &definition, "an admin puts a middleware").await
}

/// Does what the last part of the path says: `rollback` or `test`.
pub(super) async fn post_middleware(
    State(app): State<App>,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
) -> HandlerResult {
    let (name, action) = target(request.uri())?;
    Query::parse(request.uri().query(), &[])?;
    let node = app.node.clone();
    match action.as_deref() {
        Some("rollback") => {
            let held = name.clone();
            let definition = apart(move || node.roll_back_middleware(&held)).await??;
            put_in_force(
                &app,
                &name,
                &definition,
                "an admin puts the version before of a middleware in force",
            )
            .await
        }
        Some("test") => {
            let held = body::read(&app, &seat, request.into_body()).await?;
            let told = apart(move || node.try_middleware(&name, held.bytes())).await??;
            leased_json(&app, told)
        }
        _ => Err(unknown_path(request.uri())),
    }
}

/// Publishes a definition, and takes away what is not needed any more.
async fn put_in_force(app: &App, name: &ExtensionName, definition: &[u8], told: &str) -> HandlerResult {
    let published = tell(app, KIND.record_name(name), DraftPayload::Json(definition)).await?;
    if app.node.get(&KIND.state_name(name)).is_some_and(|state| state.is_visible(app.node.now().wall_us)) {
        tell(app, KIND.state_name(name), DraftPayload::Deleted).await?;
    }
    let (node, cleaned) = (app.node.clone(), name.clone());
    apart(move || node.clean_middleware(&cleaned)).await?;
    let version = serde_json::from_slice::<serde_json::Value>(definition)
        .ok()
        .and_then(|definition| definition.get("version")?.as_u64());
    tracing::info!(%name, version, "{told}");
    let answer = json!({"name": name.as_str(), "ts": published.ts, "version": version});
    leased_json(app, answer.to_string().into_bytes())
}

/// Takes the parts of the modules of a middleware away, after its definition.
pub(super) async fn clean(app: &App, name: &ExtensionName) -> Result<(), Problem> {
    let (node, name) = (app.node.clone(), name.clone());
    apart(move || node.clean_middleware(&name)).await
}

/// The form of a body by which a middleware is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MediaType {
    Json,
    Toml,
    Wasm,
}

fn media_type(request: &Request) -> Result<MediaType, Refusal> {
    let header = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let told = header.unwrap_or("application/json");
    let kind = told.split_once(';').map_or(told, |(kind, _)| kind).trim();
    for (name, media_type) in [
        ("application/json", MediaType::Json),
        ("application/toml", MediaType::Toml),
        ("application/wasm", MediaType::Wasm),
    ] {
        if kind.eq_ignore_ascii_case(name) {
            return Ok(media_type);
        }
    }
    let message = format!(
        "Content-Type is {kind:?}; allowed are application/json, application/toml and application/wasm"
    );
    Err(Refusal::new(Code::BadRequest, message))
}

/// The name that a path names, and what is asked of it.
fn target(uri: &Uri) -> Result<(ExtensionName, Option<String>), Refusal> {
    let bad_request = |message: String| Refusal::new(Code::BadRequest, message);
    let raw = uri.path().strip_prefix(Resource::Extension(KIND).path()).unwrap_or_default();
    let (name, action) = match raw.split_once('/') {
        Some((name, action)) => (name, Some(action.to_owned())),
        None => (raw, None),
    };
    let name = decode_path(name).map_err(|error| bad_request(error.to_string()))?;
    let name = ExtensionName::parse(&name).map_err(|error| bad_request(error.to_string()))?;
    Ok((name, action))
}

/// The problem with something that cannot be asked of a middleware.
fn unknown_path(uri: &Uri) -> Problem {
    let rest = uri.path().strip_prefix(Resource::Extension(KIND).path()).unwrap_or_default();
    if !rest.contains('/') {
        return Problem::wrong_method("POST is for /rollback and /test beneath a middleware", CHANGE);
    }
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
}
