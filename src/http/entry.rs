//! What every request passes before its handler: the door of the node, and the rules for answers to web pages (CORS).

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HOST,
    HeaderValue, ORIGIN, VARY,
};
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::authority::check_host;
use super::graphql::{asks_for_socket, wants_page};
use super::problem::{ClientRefusal, Problem};
use super::web::accepts_html;
use crate::auth::{Access, Caller, PageOrigin, Peer, Resource, Right, SessionEntry};
use crate::protocol::refusal::{Code, Refusal};

/// Methods that pages which may connect may use.
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
/// Header fields that pages may send.
const ALLOWED_FIELDS: &str = "authorization, content-type, if-match, if-none-match, last-event-id";
/// Header fields that pages may read besides those that every page may.
const EXPOSED_FIELDS: &str = "etag, retry-after, www-authenticate, allow";
/// Seconds for which a browser may remember the answer to a preflight.
const PREFLIGHT_SECONDS: &str = "600";

/// Who sends a request, for its handler; `None` if the node has no file of rights.
#[derive(Clone)]
pub(super) struct Sender(pub(super) Option<Access>);

impl Sender {
    /// Refuses to read a source that the sender may not read.
    pub(super) fn check_readable(&self, source: &str) -> Result<(), Refusal> {
        let Some(access) = self.0.as_ref().filter(|access| !access.rights().may_read(source)) else {
            return Ok(());
        };
        if access.is_anonymous() {
            return Err(Refusal::new(Code::Unauthorized, format!("source {source:?} needs a token")));
        }
        Err(Refusal::new(Code::Forbidden, format!("{} may not read source {source:?}", access.name())))
    }
}

/// Lets a request in, or answers why not. A request whose header `Host` is missing, repeated or malformed is refused. Web
/// pages may read answers, and send requests that change something, if their origin is allowed. The clients of a node
/// that is stopping are told that their connections end, so that they send the next request to another node. One layer
/// does all of this, because each costs every request some memory and time.
pub(super) async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
    let caller = caller_of(request.headers());
    let is_page_allowed = app.node.door().page_of(&caller) == PageOrigin::Allowed;
    let origin = request.headers().get(ORIGIN).filter(|_| is_page_allowed).cloned();
    let address = request.extensions().get::<Arc<Peer>>().map(|peer| peer.address);
    let mut response = match check(&app, &caller, &request) {
        Ok(_) if is_preflight(&request) => preflight(),
        Ok(admitted) => {
            let response = answer(request, admitted, next).await;
            // Handlers refuse what depends on more than the path: a source beyond the rights, or a rate.
            if let (Some(ClientRefusal(refusal)), Some(address)) = (response.extensions().get(), address) {
                app.node.refused(response.status().as_u16(), refusal, address);
            }
            response
        }
        Err(problem) => {
            if let Some(address) = address {
                app.node.refused(problem.status(), &problem.refusal(), address);
            }
            problem.into_response()
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_FIELDS));
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if app.node.is_stopping() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn caller_of(headers: &HeaderMap) -> Caller {
    Caller::read(|name| headers.get_all(name).iter().map(HeaderValue::as_bytes))
}

/// A request by which a browser asks whether a page may send another one.
fn is_preflight(request: &Request) -> bool {
    let headers = request.headers();
    *request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// A request that was let in.
struct Admitted {
    /// What the request asks for; `None` if there is nothing at its path.
    resource: Option<Resource>,
    sender: Sender,
    /// How a session begins, if the request asks for one.
    session: Option<SessionEntry>,
}

/// Returns what a request asks for, and who sends it, or why it is refused.
fn check(app: &App, caller: &Caller, request: &Request) -> Result<Admitted, Problem> {
    let hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    check_host(request.version() >= Version::HTTP_11, hosts)
        .map_err(|detail| Problem::new(Code::BadRequest, detail))?;
    // For programs there is nothing at the path of the page.
    let is_there = |resource: &Resource| *resource != Resource::WebPage || accepts_html(request.headers());
    let resource = Resource::of(request.uri().path()).filter(is_there);
    let right = match resource {
        // The page itself tells nothing of the node.
        Some(Resource::Graphql) if wants_page(request.method(), request.uri(), request.headers()) => {
            Right::Public
        }
        Some(resource) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            resource.right_to_read(request.uri().path(), request.uri().query().unwrap_or_default())
        }
        Some(resource) => resource.right_for(request.method().as_str()),
        None => Right::Known,
    };
    let door = app.node.door();
    if !resource.is_some_and(Resource::is_for_any_host) {
        door.check_host(caller)?;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        door.check_page(caller)?;
    }
    // A preflight carries no token.
    if is_preflight(request) {
        return Ok(Admitted { resource, sender: Sender(None), session: None });
    }
    let Some(peer) = request.extensions().get::<Arc<Peer>>() else {
        return Err(Problem::new(Code::Internal, "the address of the client is not known"));
    };
    let now = app.node.now();
    let is_socket = resource == Some(Resource::Graphql)
        && asks_for_socket(request.method(), request.version(), request.headers());
    if is_socket {
        let session = Some(door.admit_session(caller, peer, right, now)?);
        return Ok(Admitted { resource, sender: Sender(None), session });
    }
    let access = door.admit(caller, peer, right, now)?;
    Ok(Admitted { resource, sender: Sender(access), session: None })
}

/// Answers a request that was let in. What is not in the table of all paths reaches no handler.
async fn answer(mut request: Request, admitted: Admitted, next: Next) -> Response {
    let Admitted { resource, sender, session } = admitted;
    match resource {
        None => unknown(request.uri().clone()).await.into_response(),
        Some(_) => {
            request.extensions_mut().insert(sender);
            if let Some(session) = session {
                request.extensions_mut().insert(session);
            }
            next.run(request).await
        }
    }
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_FIELDS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    response
}

/// Answers a request for a path at which there is nothing.
pub(super) async fn unknown(uri: Uri) -> Problem {
    let mut detail = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(detail, "there is nothing at {:.100}", uri.path());
    Problem::new(Code::NotFound, detail)
}
