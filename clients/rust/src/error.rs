//! The one error that the client returns, and the loss of a connection, which it handles by itself.

use serde::Deserialize;

/// A request that failed, or a subscription or client that cannot go on.
///
/// `code` is one of the error codes of `docs/protocol.md`, or one of the client's own: `unavailable` (no node could
/// be reached in time), `timeout` (no answer in time), `unanswered` (the connection was lost, and the record may not be
/// sent again), `closed` (the client or subscription was closed), `bad_url`, `protocol` (the other side does not speak
/// as a node does).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct AnodeError {
    /// The kind of the error.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub temporary: bool,
    /// Whether the node applied the record all the same; `None` if the client cannot know.
    pub applied: Option<bool>,
    /// The timestamp of the record, with which it can be published again.
    pub ts: Option<u64>,
    /// How many members hold the record, if the level `replicated` was not reached.
    pub nodes: Option<u64>,
    /// The time after which the node wants to be asked again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl AnodeError {
    /// Returns a lasting error of a record that was not applied.
    pub(crate) fn new(code: &str, message: impl Into<String>) -> AnodeError {
        AnodeError {
            code: code.to_owned(),
            message: message.into(),
            temporary: false,
            applied: Some(false),
            ts: None,
            nodes: None,
            retry_after_ms: None,
        }
    }

    /// Returns the same error as one that may pass.
    pub(crate) fn temporary(self) -> AnodeError {
        AnodeError { temporary: true, ..self }
    }

    /// Returns the error about a node that cannot be reached.
    pub(crate) fn unavailable(message: impl Into<String>) -> AnodeError {
        AnodeError::new("unavailable", message).temporary()
    }
}

/// The longest wait that a node may ask for, in milliseconds. Longer ones are cut to it.
pub(crate) const RETRY_AFTER_MS_MAX: u64 = 600_000;

/// An error as a node sends it, in a frame or as a problem over HTTP.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    code: String,
    #[serde(default, alias = "detail")]
    message: String,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    applied: bool,
    ts: Option<u64>,
    nodes: Option<u64>,
    retry_after_ms: Option<u64>,
}

impl From<Refusal> for AnodeError {
    fn from(refusal: Refusal) -> AnodeError {
        AnodeError {
            code: refusal.code,
            message: refusal.message,
            temporary: refusal.temporary,
            applied: Some(refusal.applied),
            ts: refusal.ts,
            nodes: refusal.nodes,
            retry_after_ms: refusal.retry_after_ms.map(|millis| millis.min(RETRY_AFTER_MS_MAX)),
        }
    }
}

/// When to connect again after a connection was lost or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would be refused again.
    Never,
    /// The node asks for growing waits.
    BackOff,
    /// After a short random wait.
    Soon,
    /// At once, unless it has just failed.
    Now,
}

/// A connection that was lost or could not be opened.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) error: AnodeError,
    pub(crate) retry: Retry,
}

impl Lost {
    /// Returns a loss with the reason.
    pub(crate) fn new(error: AnodeError, retry: Retry) -> Lost {
        Lost { error, retry }
    }

    /// Returns the loss for a close code. `last` is the error that the node sent before it closed.
    pub(crate) fn closed(code: u16, reason: &str, last: Option<AnodeError>) -> Lost {
        // The codes 1002 to 1009 say that the client broke the protocol. It would do so again.
        if matches!(code, 4000..4100 | 1002 | 1003 | 1007 | 1009) {
            let name = match code {
                4001 => "unauthorized",
                4003 => "forbidden",
                1009 => "too_large",
                _ => "protocol",
            };
            let message = match reason {
                "" => format!("the node closed the connection with {code}"),
                reason => reason.to_owned(),
            };
            return Lost::new(last.unwrap_or_else(|| AnodeError::new(name, message)), Retry::Never);
        }
        let message = format!("the connection was closed with {code} {reason}");
        let retry = match code {
            4100..4200 => Retry::BackOff,
            4200..4300 => Retry::Now,
            _ => Retry::Soon,
        };
        Lost::new(AnodeError::unavailable(message.trim_end()), retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_say_when_to_come_back() {
        for (code, retry) in [
            (1000, Retry::Soon),
            (1001, Retry::Soon),
            (1006, Retry::Soon),
            (1002, Retry::Never),
            (1003, Retry::Never),
            (1007, Retry::Never),
            (1009, Retry::Never),
            (4000, Retry::Never),
            (4001, Retry::Never),
            (4003, Retry::Never),
            (4099, Retry::Never),
            (4100, Retry::BackOff),
            (4199, Retry::BackOff),
            (4200, Retry::Now),
            (4299, Retry::Now),
            (4300, Retry::Soon),
        ] {
            assert_eq!(Lost::closed(code, "", None).retry, retry, "{code}");
        }
        let told = AnodeError::new("unauthorized", "the token has expired");
        assert_eq!(Lost::closed(4001, "x", Some(told.clone())).error, told);
        assert_eq!(Lost::closed(4003, "gone", None).error.to_string(), "forbidden: gone");
    }
}
