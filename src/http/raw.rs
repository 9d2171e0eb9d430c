//! Answers that are written without hyper: those of the event loops, and those that take the place of
//! hyper's own answers to heads that it cannot read.

use std::time::{Duration, UNIX_EPOCH};

use axum::http::StatusCode;

use super::problem::{CHALLENGE, PROBLEM_TYPE, Problem, retry_after};
use crate::limits::HANDSHAKE_US_MAX;
use crate::protocol::refusal::Refusal;

/// The media type of Server-Sent Events.
pub(super) const EVENT_STREAM_TYPE: &str = "text/event-stream";

/// The detail of the problem that a head did not come in time.
pub const HEAD_LATE: &str = "the head of the request did not come within 5 s";
const _: () = assert!(HANDSHAKE_US_MAX == 5_000_000);

/// An answer of HTTP/1.1 with its whole body.
#[derive(Clone, Copy, Debug)]
pub struct RawAnswer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub media_type: &'a str,
    /// The content of the answer, which its head counts even if it is left out.
    pub body: &'a [u8],
    /// Further lines of the head, each with its end; empty if there are none.
    pub further: &'a str,
    /// Time after which the request may succeed, in milliseconds, if it is known.
    pub retry_after_ms: Option<u64>,
    /// Whether the connection is closed behind the answer.
    pub closes: bool,
    /// Whether the answer is one to `HEAD`, which leaves the body out.
    pub is_head: bool,
}

impl RawAnswer<'_> {
    /// The bytes of the answer. `wall_us` is the time in microseconds since the Unix epoch.
    pub fn bytes(&self, wall_us: u64) -> Vec<u8> {
        let known = StatusCode::from_u16(self.status).ok();
        let title = known.and_then(|status| status.canonical_reason()).unwrap_or("Error");
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_micros(wall_us));
        let RawAnswer { status, media_type, further, body, .. } = *self;
        let length = body.len();
        let mut out = format!(
            "HTTP/1.1 {status} {title}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\
             date: {date}\r\n{further}"
        );
        if let Some(seconds) = retry_after(status, self.retry_after_ms) {
            out.push_str(&format!("retry-after: {seconds}\r\n"));
        }
        if status == 401 {
            out.push_str(&format!("www-authenticate: {CHALLENGE}\r\n"));
        }
        out.push_str(if self.closes { "connection: close\r\n\r\n" } else { "\r\n" });
        let mut out = out.into_bytes();
        if !self.is_head {
            out.extend_from_slice(body);
        }
        out
    }
}

/// The head of an answer that is a stream of Server-Sent Events, and ends with its connection. `further` has more lines of
/// the head, each with its end; `wall_us` is the time in microseconds since the Unix epoch.
pub fn stream_head(further: &str, wall_us: u64) -> Vec<u8> {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_micros(wall_us));
    // The last field tells nginx not to collect events before it passes them on.
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {EVENT_STREAM_TYPE}\r\ncache-control: no-store\r\ndate: {date}\r\n\
         {further}x-accel-buffering: no\r\nconnection: close\r\n\r\n"
    );
    head.into_bytes()
}

/// The bytes of an answer that is a problem and closes the connection.
pub fn raw_problem(status: u16, refusal: &Refusal, further: &str, wall_us: u64) -> Vec<u8> {
    let answer = RawAnswer {
        status,
        media_type: PROBLEM_TYPE,
        body: &Problem::of_refusal(status, refusal).body(),
        further,
        retry_after_ms: refusal.retry_after_ms,
        closes: true,
        is_head: false,
    };
    answer.bytes(wall_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::refusal::Code;

    #[test]
    fn a_refusal_is_a_problem() {
        let response = raw_problem(400, &Refusal::new(Code::BadRequest, "no \"x\""), "a: b\r\n", 0);
        let text = String::from_utf8(response).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(head.contains("date: Thu, 01 Jan 1970 00:00:00 GMT\r\na: b\r\n"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).expect(body);
        assert_eq!((&problem["code"], &problem["temporary"]), (&"bad_request".into(), &false.into()));
        let busy = raw_problem(503, &Refusal::new(Code::Overloaded, "full"), "", 0);
        assert!(String::from_utf8_lossy(&busy).contains("retry-after: 1\r\n"));
    }
}
