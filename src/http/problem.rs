//! Errors as RFC 9457 problems: `{"type","title","status","detail","code"}`, and further members where more
//! is known.
//!
//! `type` is `about:blank`, which says that `title` is no more than the HTTP status in words. Programs
//! read `code`.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::protocol::json::{ProblemFields, write_problem, write_record, write_refusal_facts};
use crate::protocol::refusal::Refusal;
use crate::record::Record;

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Members of the JSON object beyond those of the standard, as text that begins with a comma.
    extra: Vec<u8>,
}

impl Problem {
    /// A problem with a request. Refused records become problems by `From<Refusal>`.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), extra: Vec::new() }
    }

    /// 404 for a source that is deleted, with the fields of the deletion beside the problem. So a client can
    /// distinguish a source that was deleted at this `ts` from one that never existed.
    pub fn deleted(record: &Record) -> Problem {
        let detail = format!("source {:?} is deleted", record.source.as_str());
        let mut object = Vec::new();
        write_record(&mut object, record, true);
        let members = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(&[]);
        let extra = [b",", members].concat();
        Problem { status: StatusCode::NOT_FOUND, code: "not_found", detail, extra }
    }

    /// The JSON object of the problem.
    fn body(&self) -> Vec<u8> {
        let fields = ProblemFields {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
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
        let status = StatusCode::from_u16(refusal.code.http_status());
        let mut extra = Vec::new();
        write_refusal_facts(&mut extra, &refusal);
        Problem {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: refusal.code.as_str(),
            detail: refusal.message,
            extra,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
