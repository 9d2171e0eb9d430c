//! Errors as RFC 9457 problems: `{"type","title","status","detail","code","temporary"}`, and further members
//! where more is known.
//!
//! `type` is `about:blank`, which says that `title` is no more than the HTTP status in words. Programs
//! read `code`, and `temporary` where they do not know the code.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::protocol::json::{ProblemFields, write_problem, write_record, write_refusal_facts};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Record;

/// The methods of a path at which something can only be read, for [`Problem::wrong_method`].
pub(super) const READ: &str = "GET,HEAD";
/// The methods of a path at which a definition is read, put and taken away.
pub(super) const CHANGE: &str = "GET,HEAD,PUT,DELETE";
/// The media type of problems.
pub(super) const PROBLEM_TYPE: &str = "application/problem+json";
/// Seconds after which a client should try again if nothing more is known, in the header `Retry-After`.
const RETRY_AFTER_SECONDS: u64 = 1;
/// The value of the header `WWW-Authenticate` of answers with the status 401 (RFC 6750, 3).
pub(super) const CHALLENGE: &str = "Bearer";

/// Returns the value of the header `Retry-After` of an answer with this status, if it has that header. `known_ms` is
/// the time after which the request may succeed, in milliseconds.
pub(super) fn retry_after(status: u16, known_ms: Option<u64>) -> Option<u64> {
    let seconds = known_ms.map_or(RETRY_AFTER_SECONDS, |ms| ms.div_ceil(1_000).max(1));
    matches!(status, 429 | 503).then_some(seconds)
}

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    /// Time after which the request may succeed, in milliseconds, if it is known.
    retry_after_ms: Option<u64>,
    /// The methods that the path knows, for the header `Allow`.
    allow: Option<&'static str>,
    /// Members of the JSON object beyond those of the standard, as text that begins with a comma.
    extra: Vec<u8>,
}

impl Problem {
    /// A problem with a request, under the HTTP status of its code. Refused records become problems by
    /// `From<Refusal>`.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem::with_status(code.http_status(), code, detail)
    }

    /// A problem whose HTTP status is not the one of its code.
    pub fn with_status(status: u16, code: Code, detail: impl Into<String>) -> Problem {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem { status, code, detail: detail.into(), retry_after_ms: None, allow: None, extra: Vec::new() }
    }

    /// 405 for a method that the path does not know, with those that it knows.
    pub fn wrong_method(detail: impl Into<String>, allow: &'static str) -> Problem {
        Problem { allow: Some(allow), ..Problem::new(Code::MethodNotAllowed, detail) }
    }

    /// The problem of a refusal, under an HTTP status that may not be the one of its code.
    pub fn of_refusal(status: u16, refusal: &Refusal) -> Problem {
        let mut extra = Vec::new();
        write_refusal_facts(&mut extra, refusal);
        let retry_after_ms = refusal.retry_after_ms;
        let problem = Problem::with_status(status, refusal.code, refusal.message.clone());
        Problem { extra, retry_after_ms, ..problem }
    }

    /// 404 for a source that is deleted, with the fields of the deletion beside the problem. So a client can
    /// distinguish a source that was deleted at this `ts` from one that never existed.
    pub fn deleted(record: &Record) -> Problem {
        let detail = format!("source {:?} is deleted", record.source.as_str());
        let mut object = Vec::new();
        write_record(&mut object, record, true);
        let members = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(&[]);
        Problem { extra: [b",", members].concat(), ..Problem::new(Code::NotFound, detail) }
    }

    /// Adds members to the JSON object of the problem, written one after the other with commas between them.
    pub fn with_members(mut self, members: &[u8]) -> Problem {
        self.extra.push(b',');
        self.extra.extend_from_slice(members);
        self
    }

    /// The refusal that the problem tells.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::new(self.code, self.detail.clone())
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The JSON object of the problem.
    pub fn body(&self) -> Vec<u8> {
        let fields = ProblemFields {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            is_temporary: self.code.is_temporary(),
        };
        let mut out = Vec::new();
        write_problem(&mut out, fields, &self.extra);
        out
    }
}

/// The problem of a refused record. If the record was applied before it was refused, `applied` and `ts`
/// say so; `nodes` says how many members hold it.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem::of_refusal(refusal.code.http_status(), &refusal)
    }
}

/// Stands in the extensions of an answer that refuses a request because of who sent it, or for want of room. It is counted
/// and logged where every answer passes.
#[derive(Clone, Debug)]
pub(super) struct ClientRefusal(pub(super) Refusal);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        if matches!(self.code, Code::Unauthorized | Code::Forbidden | Code::RateLimited | Code::Overloaded) {
            response.extensions_mut().insert(ClientRefusal(self.refusal()));
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        if let Some(seconds) = retry_after(self.status.as_u16(), self.retry_after_ms) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        response
    }
}
