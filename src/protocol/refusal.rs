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
    /// `ts` is not an integer in the allowed range.
    BadTimestamp,
    /// `ts` is too far ahead of the node's clock.
    FutureTimestamp,
    /// The data has more bytes than a record may have.
    TooLarge,
    /// The name begins with `$`; clients cannot publish to such sources.
    Forbidden,
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
}

impl Code {
    /// Returns the name of the code in answers to clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadJson => "bad_json",
            Code::BadRequest => "bad_request",
            Code::BadSource => "bad_source",
            Code::BadPattern => "bad_pattern",
            Code::BadTimestamp => "bad_timestamp",
            Code::FutureTimestamp => "future_timestamp",
            Code::TooLarge => "too_large",
            Code::Forbidden => "forbidden",
            Code::NotFound => "not_found",
            Code::Overloaded => "overloaded",
            Code::RateLimited => "rate_limited",
            Code::StoreUnavailable => "store_unavailable",
            Code::Timeout => "timeout",
            Code::ClockSkew => "clock_skew",
        }
    }

    /// Returns whether the same request may succeed later without a change.
    pub fn is_temporary(self) -> bool {
        use Code::*;
        matches!(self, Overloaded | RateLimited | StoreUnavailable | Timeout | ClockSkew)
    }

    /// Returns the HTTP status with the same meaning.
    pub fn http_status(self) -> u16 {
        use Code::*;
        match self {
            BadJson | BadRequest | BadSource | BadPattern | BadTimestamp | FutureTimestamp => 400,
            Forbidden => 403,
            NotFound => 404,
            TooLarge => 413,
            RateLimited => 429,
            Overloaded | StoreUnavailable | ClockSkew => 503,
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
}

impl Refusal {
    /// Makes the refusal of a request that changed nothing.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), applied_ts: None, nodes: None }
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
