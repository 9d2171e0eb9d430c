//! The check of what rules make: it must be records that a client could have published.

use super::bounds::TOLD_REASON_BYTES_MAX;
use super::rule::RuleFailure;
#[cfg(any(test, feature = "wasm"))]
use crate::ingest::RevisedDraft;
#[cfg(any(test, feature = "wasm"))]
use crate::limits::{TS_MAX, TTL_MS_MAX};
use crate::protocol::json::scan::single_value;
use crate::record::Payload;
#[cfg(any(test, feature = "wasm"))]
use crate::record::Source;

/// Returns a draft that a rule has made, if it is one. Otherwise the rule has failed.
#[cfg(any(test, feature = "wasm"))]
pub fn checked_draft(draft: RevisedDraft) -> Result<RevisedDraft, RuleFailure> {
    let source = &*draft.source;
    Source::parse(source).map_err(|error| RuleFailure(format!("it made a source that is none: {error}")))?;
    if Source::is_system(source) {
        return Err(RuleFailure(format!("it made a record of {source:?}, which is the system's")));
    }
    if let Some(ts) = draft.ts.filter(|&ts| ts > TS_MAX) {
        return Err(RuleFailure(format!("it made a record with ts {ts}; at most {TS_MAX}")));
    }
    if draft.ttl_ms > TTL_MS_MAX {
        return Err(RuleFailure(format!(
            "it made a record with ttl_ms {}; at most {TTL_MS_MAX}",
            draft.ttl_ms
        )));
    }
    Ok(RevisedDraft { payload: checked_data(draft.payload)?, ..draft })
}

/// Returns data that a rule has made, without white space around it, if it is what it says to be.
pub fn checked_data(payload: Payload) -> Result<Payload, RuleFailure> {
    let Payload::Json(text) = payload else { return Ok(payload) };
    let no_json = |told: String| RuleFailure(format!("it made data that is no JSON: {told}"));
    let (value, flaw) = single_value(&text).map_err(|error| no_json(error.to_string()))?;
    match flaw {
        Some(flaw) => Err(no_json(flaw.to_string())),
        None => Ok(Payload::Json(text.slice_ref(value))),
    }
}

/// A reason as publishers and operators are told it: without control characters, and not too long.
pub fn shortened_reason(reason: &str) -> String {
    let kept = &reason[..reason.floor_char_boundary(TOLD_REASON_BYTES_MAX)];
    let plain = kept.chars().map(|one| if one.is_control() { ' ' } else { one });
    let end = if kept.len() < reason.len() { "…" } else { "" };
    plain.chain(end.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(source: &str, ts: Option<u64>, text: &'static str) -> RevisedDraft {
        RevisedDraft { source: source.into(), ts, payload: Payload::Json(text.as_bytes().into()), ttl_ms: 0 }
    }

    #[test]
    fn only_what_a_client_could_publish_is_taken() {
        let good = checked_draft(draft("a/b", Some(TS_MAX), " {\"a\":1.50} ")).expect("good");
        assert_eq!(good.payload.bytes(), b"{\"a\":1.50}");
        for (source, ts, text) in [
            ("", None, "1"),
            ("a//b", None, "1"),
            ("$middleware/a", None, "1"),
            ("a", Some(TS_MAX + 1), "1"),
            ("a", None, ""),
            ("a", None, "{"),
            ("a", None, "1 2"),
            ("a", None, "\"\\ud800\""),
        ] {
            assert!(checked_draft(draft(source, ts, text)).is_err(), "{source} {text}");
        }
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert!(checked_data(Payload::Json(deep.into())).is_err());
        assert!(checked_data(Payload::Binary(vec![255].into())).is_ok());
    }

    #[test]
    fn reasons_are_short_and_plain() {
        assert_eq!(shortened_reason("a\nb"), "a b");
        let long = shortened_reason(&"ü".repeat(1_000));
        assert!(long.len() <= TOLD_REASON_BYTES_MAX + 3 && long.ends_with("ü…"), "{long}");
    }
}
