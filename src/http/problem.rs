//! Errors as RFC 9457 problems: `{"type","title","status","detail","code"}` and what else is known.
//!
//! `type` is `about:blank`, which says that `title` is no more than the status in words; programs
//! read `code`.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::protocol::answer::Refusal;
use crate::protocol::json::{write_record, write_string};
use crate::record::Record;

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Members of the object beyond the standard's, as JSON text that begins with a comma.
    extra: Vec<u8>,
}

impl Problem {
    /// A problem that is none of the records' (see [`Refusal`] for those).
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), extra: Vec::new() }
    }

    /// 404, with the deletion itself beside the problem: who asks for a source can tell "was
    /// deleted, at this `ts`" from "never heard of it".
    pub fn deleted(record: &Record) -> Problem {
        let detail = format!("source {:?} is deleted", record.source.as_str());
        let mut object = Vec::new();
        write_record(&mut object, record, true);
        let members = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(&[]);
        let extra = [b",", members].concat();
        Problem { status: StatusCode::NOT_FOUND, code: "not_found", detail, extra }
    }

    /// The object.
    fn body(&self) -> Vec<u8> {
        let mut out = b"{\"type\":\"about:blank\",\"title\":".to_vec();
        write_string(&mut out, self.status.canonical_reason().unwrap_or("Error"));
        out.extend_from_slice(format!(",\"status\":{},\"detail\":", self.status.as_u16()).as_bytes());
        write_string(&mut out, &self.detail);
        out.extend_from_slice(b",\"code\":");
        write_string(&mut out, self.code);
        out.extend_from_slice(&self.extra);
        out.push(b'}');
        out
    }
}

/// A refused record. That it was applied all the same, and how far it got, stands beside.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let status = StatusCode::from_u16(refusal.code.http_status());
        let mut extra = format!(",\"temporary\":{}", refusal.code.is_temporary());
        if let Some(ts) = refusal.applied_ts {
            extra.push_str(&format!(",\"applied\":true,\"ts\":{ts}"));
        }
        if let Some(nodes) = refusal.nodes {
            extra.push_str(&format!(",\"nodes\":{nodes}"));
        }
        Problem {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: refusal.code.as_str(),
            detail: refusal.message,
            extra: extra.into_bytes(),
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
