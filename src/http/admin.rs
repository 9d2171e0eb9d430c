//! Requests by which an operator changes how a node works.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri};
use tokio::time::sleep;

use super::ForgetError;
use super::app::{App, HandlerResult};
use super::leased::leased_json;
use super::params::Query;
use crate::auth::Resource;
use crate::protocol::query::decode_path;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::NodeName;

/// Number of times that a request to forget a member looks whether this node has done so.
const FORGET_LOOKS: u32 = 150;
/// Time between two such looks, in milliseconds. A node looks once a second which members it is to forget.
const FORGET_LOOK_MS: u64 = 20;

/// Lets the node leave the cluster in good order.
pub(super) async fn drain(State(app): State<App>, RawQuery(query): RawQuery) -> HandlerResult {
    Query::parse(query.as_deref(), &[])?;
    tracing::info!("an admin asks this node to leave");
    app.node.drain();
    let mut response = leased_json(&app, b"{\"draining\":true}".to_vec())?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Lets the cluster forget a member that will not come back.
pub(super) async fn forget(State(app): State<App>, uri: Uri, RawQuery(query): RawQuery) -> HandlerResult {
    Query::parse(query.as_deref(), &[])?;
    let raw = uri.path().strip_prefix(Resource::Forget.path()).unwrap_or_default();
    let bad_request = |message: String| Refusal::new(Code::BadRequest, message);
    let name = decode_path(raw).map_err(|error| bad_request(error.to_string()))?;
    let name = NodeName::parse(&name).map_err(|error| bad_request(format!("member: {error}")))?;
    let refused = |code, message: String| Refusal::new(code, message);
    let boot = app.node.forget(name.as_str()).map_err(|error| match error {
        ForgetError::Unknown => refused(Code::NotFound, format!("this node knows no member {name}")),
        ForgetError::Alive => {
            let message =
                format!("member {name} is not gone; only members that are dead or left are forgotten");
            refused(Code::BadRequest, message)
        }
        ForgetError::Untold => {
            refused(Code::Overloaded, format!("the cluster cannot be told to forget {name} at the moment"))
        }
    })?;
    tracing::info!(member = %name, boot, "an admin asks the cluster to forget a member");
    let is_known = || app.node.members().iter().any(|member| member.identity.name == name);
    for _ in 0..FORGET_LOOKS {
        if !is_known() {
            break;
        }
        sleep(Duration::from_millis(FORGET_LOOK_MS)).await;
    }
    leased_json(&app, format!("{{\"forgotten\":\"{name}\",\"boot\":{boot}}}").into_bytes())
}
