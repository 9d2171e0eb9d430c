//! Problems of RFC 9457, the JSON objects that tell an HTTP client why its request failed.

use super::write::write_string;

/// The members of a problem that every problem has, without `type`: it is always `about:blank`, which says
/// that `title` is no more than the HTTP status in words.
#[derive(Clone, Copy, Debug)]
pub struct ProblemFields<'a> {
    /// The HTTP status in words.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// The reason, for people.
    pub detail: &'a str,
    /// The code, for programs.
    pub code: &'a str,
    /// Whether the same request may succeed later without a change.
    pub is_temporary: bool,
}

/// Appends a problem. `further` holds the members beyond those of [`ProblemFields`] as text, each after a
/// comma.
pub fn write_problem(out: &mut Vec<u8>, fields: ProblemFields<'_>, further: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"about:blank\",\"title\":");
    write_string(out, fields.title);
    out.extend_from_slice(format!(",\"status\":{},\"detail\":", fields.status).as_bytes());
    write_string(out, fields.detail);
    out.extend_from_slice(b",\"code\":");
    write_string(out, fields.code);
    out.extend_from_slice(format!(",\"temporary\":{}", fields.is_temporary).as_bytes());
    out.extend_from_slice(further);
    out.push(b'}');
}
