//! What a client is told about a publish: result or refusal.

use std::borrow::Cow;

use super::AckLevel;

/// Why something was refused, as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The text is no JSON, too deep, or has a lone surrogate.
    BadJson,
    /// A field is unknown, missing or contradictory.
    BadRequest,
    /// The name is no name of a source.
    BadSource,
    /// The text is no pattern.
    BadPattern,
    /// `ts` is no integer in its range.
    BadTimestamp,
    /// `ts` is too far ahead.
    FutureTimestamp,
    /// More bytes than a record may have.
    TooLarge,
    /// The name is the system's.
    Forbidden,
    /// There is nothing of that name (HTTP only).
    NotFound,
    /// A queue or the map is full.
    Overloaded,
    /// The publisher is over its rate.
    RateLimited,
    /// The store does not take it at the moment.
    StoreUnavailable,
    /// The level was not reached in time.
    Timeout,
    /// This node's clock is off its peers'.
    ClockSkew,
}

impl Code {
    /// The code's name in the contract.
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

    /// Whether the same request may succeed later, unchanged.
    pub fn is_temporary(self) -> bool {
        use Code::*;
        matches!(self, Overloaded | RateLimited | StoreUnavailable | Timeout | ClockSkew)
    }

    /// The HTTP status that says the same.
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

/// A refusal: what, why, and whether the record was applied all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// Why, with field, value and what is allowed.
    pub message: String,
    /// The record's `ts`, if it was applied before the error came: a retry with that `ts` is a
    /// duplicate and waits for the level.
    pub applied_ts: Option<u64>,
    /// With `timeout` of the level `replicated`: members that hold it.
    pub nodes: Option<u32>,
}

impl Refusal {
    /// A refusal of something that changed nothing.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), applied_ts: None, nodes: None }
    }

    /// The same, of a record that was applied with `ts`.
    pub fn after_applying(mut self, ts: u64) -> Refusal {
        self.applied_ts = Some(ts);
        self
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the latest now.
    Applied,
    /// This very record was there.
    Duplicate,
    /// The source has a newer one, of this `ts`.
    Stale {
        /// The newer record's.
        current_ts: u64,
    },
}

/// A publish that reached its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The record's stamp: the publisher's, or the node's.
    pub ts: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The level reached.
    pub level: AckLevel,
    /// With `replicated`: members that hold it.
    pub nodes: Option<u32>,
}

/// The text of a value as a message quotes it: cut after at most 64 bytes, so that a client cannot make
/// messages long.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= 64 {
        return Cow::Borrowed(text);
    }
    let cut = (0..=61).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..cut]))
}
