//! Refusals: their codes, and their content for clients.

use std::borrow::Cow;

/// The kind of a refusal. Clients decide by it what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The text is not JSON, is nested too deep, or has half of a surrogate pair.
    BadJson,
    /// A field or parameter is unknown, missing, or contradicts another one.
    BadRequest,
    /// The text is not a valid name of a source.
    BadSource,
    /// The text is not a valid pattern.
    BadPattern,
    /// The text is not a valid expression; the message has the line and the column.
    BadFilter,
    /// `ts` is not an integer in the allowed range.
    BadTimestamp,
    /// `ts` is too far ahead of the node's clock.
    FutureTimestamp,
    /// The data has more bytes than a record may have.
    TooLarge,
    /// The client may not do that: its rights do not allow it, or the name is the system's.
    Forbidden,
    /// The client must bring a token that is in force.
    Unauthorized,
    /// The thing that the URL names does not exist (HTTP only).
    NotFound,
    /// A queue or the map is full.
    Overloaded,
    /// The publisher sends more than its rate allows.
    RateLimited,
    /// The store does not accept records at the moment.
    StoreUnavailable,
    /// The ack level was not reached in time.
    Timeout,
    /// The node's clock differs too much from its peers' clocks.
    ClockSkew,
    /// A middleware has refused the record, and says why.
    Rejected,
    /// A middleware that had to decide about the record has failed.
    MiddlewareFailed,
    /// The path does not know the method of the request (HTTP only).
    MethodNotAllowed,
    /// The source is not in the version that the request makes its condition (HTTP only).
    PreconditionFailed,
    /// The path speaks WebSocket, and the request does not ask for it (HTTP only).
    UpgradeRequired,
    /// Clients should not be sent to this node at the moment (HTTP only).
    NotReady,
    /// An event loop of the node hangs (HTTP only).
    Stuck,
    /// A request, or the reader of an answer, is slower than the least rate (HTTP only).
    TooSlow,
    /// The node failed to answer because of a defect in it (HTTP only).
    Internal,
}

/// Every code that a node can send, for the check that the reference names it.
#[cfg(test)]
pub const ALL_CODES: [Code; 25] = [
    Code::BadJson,
    Code::BadRequest,
    Code::BadSource,
    Code::BadPattern,
    Code::BadFilter,
    Code::BadTimestamp,
    Code::FutureTimestamp,
    Code::TooLarge,
    Code::Forbidden,
    Code::Unauthorized,
    Code::NotFound,
    Code::Overloaded,
    Code::RateLimited,
    Code::StoreUnavailable,
    Code::Timeout,
    Code::ClockSkew,
    Code::Rejected,
    Code::MiddlewareFailed,
    Code::MethodNotAllowed,
    Code::PreconditionFailed,
    Code::UpgradeRequired,
    Code::NotReady,
    Code::Stuck,
    Code::TooSlow,
    Code::Internal,
];

impl Code {
    /// Returns the name of the code in answers to clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadJson => "bad_json",
            Code::BadRequest => "bad_request",
            Code::BadSource => "bad_source",
            Code::BadPattern => "bad_pattern",
            Code::BadFilter => "bad_filter",
            Code::BadTimestamp => "bad_timestamp",
            Code::FutureTimestamp => "future_timestamp",
            Code::TooLarge => "too_large",
            Code::Forbidden => "forbidden",
            Code::Unauthorized => "unauthorized",
            Code::NotFound => "not_found",
            Code::Overloaded => "overloaded",
            Code::RateLimited => "rate_limited",
            Code::StoreUnavailable => "store_unavailable",
            Code::Timeout => "timeout",
            Code::ClockSkew => "clock_skew",
            Code::Rejected => "rejected",
            Code::MiddlewareFailed => "middleware_failed",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::PreconditionFailed => "precondition_failed",
            Code::UpgradeRequired => "upgrade_required",
            Code::NotReady => "not_ready",
            Code::Stuck => "stuck",
            Code::TooSlow => "too_slow",
            Code::Internal => "internal",
        }
    }

    /// Returns whether the same request may succeed later without a change.
    pub fn is_temporary(self) -> bool {
        use Code::*;
        matches!(
            self,
            Overloaded | RateLimited | StoreUnavailable | Timeout | ClockSkew | NotReady | Stuck | TooSlow
        )
    }

    /// Returns the HTTP status with the same meaning.
    pub fn http_status(self) -> u16 {
        use Code::*;
        match self {
            BadJson | BadRequest | BadSource | BadPattern | BadFilter | BadTimestamp | FutureTimestamp => 400,
            Unauthorized => 401,
            Forbidden => 403,
            NotFound => 404,
            MethodNotAllowed => 405,
            TooSlow => 408,
            PreconditionFailed => 412,
            TooLarge => 413,
            Rejected => 422,
            UpgradeRequired => 426,
            RateLimited => 429,
            Internal | MiddlewareFailed => 500,
            Overloaded | StoreUnavailable | ClockSkew | NotReady | Stuck => 503,
            Timeout => 504,
        }
    }
}

/// The refusal of a request: its kind, its reason, and whether the record was applied all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// The kind of the refusal, for programs.
    pub code: Code,
    /// The reason, for people: the field, its value, and what is allowed.
    pub message: String,
    /// `ts` of the record, in microseconds, if the record was applied before the error happened. A retry with
    /// this `ts` is answered as a duplicate and waits for the ack level.
    pub applied_ts: Option<u64>,
    /// Number of members that hold the record. Present with the code `timeout` of the level `replicated`.
    pub nodes: Option<u32>,
    /// Time after which the same request may succeed, in milliseconds. Present with the code `rate_limited`.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// Makes the refusal of a request that changed nothing.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), applied_ts: None, nodes: None, retry_after_ms: None }
    }

    /// Makes this a refusal that says after how many milliseconds the request may succeed.
    pub fn retry_after_ms(self, retry_after_ms: u64) -> Refusal {
        Refusal { retry_after_ms: Some(retry_after_ms), ..self }
    }

    /// Makes this the refusal of a publish whose record was applied with the timestamp `ts`, in microseconds.
    pub fn after_applying(mut self, ts: u64) -> Refusal {
        self.applied_ts = Some(ts);
        self
    }
}

/// Returns `text` as error messages quote it: shortened to at most 64 bytes, so that a client cannot make
/// messages long.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= 64 {
        return Cow::Borrowed(text);
    }
    let cut = (0..=61).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client library that knows the table of the reference must know every code that a node can send.
    #[test]
    fn every_code_is_in_the_table_of_the_reference() {
        let reference = include_str!("../../docs/protocol.md");
        let (_, table) = reference.split_once("### Error codes").expect("the section");
        let (table, _) = table.split_once("\n## ").expect("another section");
        for code in ALL_CODES {
            let row = table.lines().find(|line| {
                line.starts_with('|')
                    && line
                        .split('|')
                        .nth(1)
                        .is_some_and(|names| names.contains(&format!("`{}`", code.as_str())))
            });
            let row = row.unwrap_or_else(|| panic!("{} is not in the table", code.as_str()));
            assert!(row.contains(&code.http_status().to_string()), "{row}");
            assert_eq!(row.contains('*'), code.is_temporary(), "{row}");
        }
    }
}
