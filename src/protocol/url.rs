//! Reads the query in the URL of a WebSocket or a stream of events.
//!
//! Unknown and repeated parameters are refused, so that a mistyped one does not become a subscription to
//! something else.

use super::AckLevel;
use super::query::parameters;
use super::refusal::{Code, Refusal};
use super::request::{Mode, Subscribe, UrlRequest, filter};
use super::token::Token;
use crate::limits::PATTERNS_PER_SUBSCRIPTION_MAX;
use crate::record::Pattern;

fn bad_request<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(Code::BadRequest, message))
}

/// Reads the query (without `?`) of a WebSocket on `/publish`.
pub fn publish_url(query: &str) -> Result<UrlRequest, Refusal> {
    let mut ack = None;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        if name != "ack" {
            return bad_request(format!("unknown parameter {name:?}; known is ack"));
        }
        once(&mut ack, AckLevel::parse(&value)?, "ack")?;
    }
    Ok(UrlRequest::Publish(ack.unwrap_or_default()))
}

/// Reads the query (without `?`) of a stream of events.
pub fn stream_url(query: &str) -> Result<Subscribe, Refusal> {
    match read_subscribe(query, "source, mode, snapshot, resume, filter", |name| name != "batch")? {
        UrlRequest::Subscribe { first: Some(first), .. } => Ok(first),
        _ => bad_request("parameter source is missing; a stream needs at least one"),
    }
}

/// Reads the query (without `?`) of a WebSocket on `/subscribe`.
pub fn subscribe_url(query: &str) -> Result<UrlRequest, Refusal> {
    read_subscribe(query, "source, mode, snapshot, resume, batch, filter", |_| true)
}

/// Reads the query of a subscription. `known` names the parameters that may stand in it, of which `is_known` tells.
fn read_subscribe(query: &str, known: &str, is_known: impl Fn(&str) -> bool) -> Result<UrlRequest, Refusal> {
    let mut patterns = Vec::new();
    let (mut mode, mut snapshot, mut resume, mut batch) = (None, None, None, None);
    let mut wanted = None;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match name.as_str() {
            _ if !is_known(&name) => {
                return bad_request(format!("unknown parameter {name:?}; known are {known}"));
            }
            "source" if patterns.len() == PATTERNS_PER_SUBSCRIPTION_MAX => {
                return bad_request(format!("more than {PATTERNS_PER_SUBSCRIPTION_MAX} parameters source"));
            }
            "source" => patterns.push(
                Pattern::parse(&value).map_err(|error| Refusal::new(Code::BadPattern, error.to_string()))?,
            ),
            "mode" => match Mode::parse(&value) {
                Some(value) => once(&mut mode, value, "mode")?,
                None => return bad_request(format!("mode is {value:?}; allowed are latest, all")),
            },
            "snapshot" => once(&mut snapshot, flag("snapshot", &value)?, "snapshot")?,
            "filter" => once(&mut wanted, filter(&value)?, "filter")?,
            "batch" => once(&mut batch, flag("batch", &value)?, "batch")?,
            "resume" => match Token::decode(&value) {
                Ok(token) => once(&mut resume, token, "resume")?,
                Err(error) => return bad_request(error.to_string()),
            },
            _ => {
                return bad_request(format!("unknown parameter {name:?}; known are {known}"));
            }
        }
    }
    let batch = batch.unwrap_or(false);
    if !patterns.is_empty() {
        let first =
            Some(Subscribe { patterns, snapshot: snapshot.unwrap_or(true), mode, resume, filter: wanted });
        return Ok(UrlRequest::Subscribe { first, mode, batch });
    }
    if snapshot.is_some() || resume.is_some() || wanted.is_some() {
        return bad_request("snapshot, resume and filter are allowed with source only");
    }
    Ok(UrlRequest::Subscribe { first: None, mode, batch })
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => bad_request(format!("parameter {name:?} is there twice")),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => bad_request(format!("{name} is {other:?}; allowed are true and false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(query: &str) -> Subscribe {
        match subscribe_url(query) {
            Ok(UrlRequest::Subscribe { first: Some(first), .. }) => first,
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn publishes() {
        assert_eq!(publish_url(""), Ok(UrlRequest::Publish(AckLevel::Accepted)));
        assert_eq!(publish_url("ack=stored"), Ok(UrlRequest::Publish(AckLevel::Stored)));
        for bad in ["ack=best", "ack", "x=1", "ack=stored&ack=stored", "%zz=1", "ack=%ff"] {
            assert_eq!(publish_url(bad).expect_err(bad).code, Code::BadRequest, "{bad}");
        }
    }

    #[test]
    fn streams() {
        let subscribe = stream_url("source=a/*&mode=all&snapshot=false").expect("a stream");
        assert!(!subscribe.snapshot && subscribe.mode == Some(Mode::All) && subscribe.resume.is_none());
        for bad in ["", "snapshot=true", "source=a&batch=true", "filter=true", "source=a&resume=x"] {
            assert_eq!(stream_url(bad).expect_err(bad).code, Code::BadRequest, "{bad}");
        }
        let filtered = stream_url("source=a&filter=data.x+%3E+1").expect("a stream");
        assert_eq!(filtered.filter.expect("a filter").text(), "data.x > 1");
        let bad = stream_url("source=a&filter=data.x+%3E").expect_err("a filter");
        assert_eq!(bad.code, Code::BadFilter);
        assert_eq!(bad.message, "filter: line 1, column 9: the expression ends where a value is expected");
        assert_eq!(stream_url("source=a//b").expect_err("pattern").code, Code::BadPattern);
    }

    #[test]
    fn subscriptions() {
        let subscribe = first("source=sensors/**&source=weather%2F%2a&mode=all&snapshot=false");
        let patterns: Vec<_> = subscribe.patterns.iter().map(Pattern::as_str).collect();
        assert_eq!(patterns, ["sensors/**", "weather/*"]);
        assert!(!subscribe.snapshot && subscribe.mode == Some(Mode::All));
        assert_eq!(first("source=a+b").patterns[0].as_str(), "a b");
        assert_eq!(first("source=%c3%A4").patterns[0].as_str(), "ä");
        let token = Token { cluster: 1, issued_us: 2, patterns: vec![3], heads: [(4, 5)].into() };
        assert_eq!(first(&format!("source=a&resume={}", token.encode())).resume, Some(token));
        let empty = UrlRequest::Subscribe { first: None, mode: None, batch: true };
        assert_eq!(subscribe_url("batch=true"), Ok(empty));
        let many = "source=a&".repeat(257);
        for bad in [
            "source=a&mode=x",
            "mode=all&mode=all",
            "snapshot=1",
            "batch=",
            "resume=zz",
            "resume=",
            "x=1",
            &many,
        ] {
            assert_eq!(subscribe_url(bad).expect_err(bad).code, Code::BadRequest, "{bad}");
        }
        assert_eq!(subscribe_url("source=a//b").expect_err("pattern").code, Code::BadPattern);
        assert_eq!(subscribe_url("source=").expect_err("pattern").code, Code::BadPattern);
    }
}
