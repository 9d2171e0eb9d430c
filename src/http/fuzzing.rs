//! The check of URLs: queries of WebSockets and of HTTP, paths of sources, cursors, and the header `Host`.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::check_host;
use super::params::{LIMIT_MAX, Query, Target};
use crate::limits::{PATTERNS_PER_SUBSCRIPTION_MAX, TS_MAX};
use crate::protocol::etag::{Precondition, TagList};
use crate::protocol::query::parameters;
use crate::protocol::request::{Subscribe, UrlRequest};
use crate::protocol::url::{publish_url, stream_url, subscribe_url};
use crate::record::{HistoryCursor, Source};

/// The input is text: the part of a URL behind the path, a path, or a host.
pub(crate) fn url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(UrlRequest::Subscribe { first: Some(first), mode, batch }) = subscribe_url(&text) {
        assert!((1..=PATTERNS_PER_SUBSCRIPTION_MAX).contains(&first.patterns.len()), "{text:?}");
        let request = UrlRequest::Subscribe { first: Some(first.clone()), mode, batch };
        let written = written(&first, mode.is_some(), batch);
        assert_eq!(subscribe_url(&written), Ok(request), "{text:?} as {written:?}");
    }
    let _ = publish_url(&text);
    if let Ok(first) = stream_url(&text) {
        assert!((1..=PATTERNS_PER_SUBSCRIPTION_MAX).contains(&first.patterns.len()), "{text:?}");
    }
    tags(&text);
    all_parameters(&text);
    page(&text);
    if let Ok(target) = Target::parse(&text) {
        let (Target::Latest(name) | Target::History(name)) = &target;
        assert!(Source::check(name).is_ok(), "{text:?}");
        let history = if matches!(target, Target::History(_)) { "/history" } else { "" };
        let path = format!("{}{history}", encoded(name));
        assert_eq!(Target::parse(&path), Ok(target), "{text:?} as {path:?}");
    }
    if let Ok(cursor) = text.parse::<HistoryCursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor), "{text:?}");
    }
    let is_host = check_host(true, std::iter::once(input)).is_ok();
    assert!(!is_host || input.iter().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    assert!(check_host(true, [input, input].into_iter()).is_err());
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The query that asks for the same subscription.
fn written(first: &Subscribe, has_mode: bool, is_batch: bool) -> String {
    let mut query: Vec<String> =
        first.patterns.iter().map(|pattern| format!("source={}", encoded(pattern.as_str()))).collect();
    query.push(format!("snapshot={}&batch={is_batch}", first.snapshot));
    if let Some(mode) = first.mode.filter(|_| has_mode) {
        query.push(format!("mode={}", mode.as_str()));
    }
    if let Some(resume) = &first.resume {
        query.push(format!("resume={}", resume.encode()));
    }
    if let Some(filter) = &first.filter {
        query.push(format!("filter={}", encoded(filter.text())));
    }
    query.join("&")
}

/// The text as the value of a header with entity tags: a condition that is read can be checked.
fn tags(text: &str) {
    let Ok(list) = TagList::read("If-Match", std::iter::once(text.as_bytes())) else { return };
    assert!(list.is_some(), "{text:?}");
    let condition = Precondition { if_match: list, if_none_match: None };
    assert!(!condition.is_empty() && condition.check(None, 0).is_err(), "{text:?}");
}

/// Parameters that were read, written, and read again are the same.
fn all_parameters(text: &str) {
    let Ok(read) = parameters(text).collect::<Result<Vec<_>, _>>() else { return };
    let kept: Vec<_> = read.iter().filter(|(name, value)| !name.is_empty() || !value.is_empty()).collect();
    let written: Vec<String> =
        kept.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let again = parameters(&written.join("&")).collect::<Result<Vec<_>, _>>();
    let again = again.expect("what is written here is read");
    assert!(kept.into_iter().eq(again.iter()), "{text:?}");
}

fn page(text: &str) {
    let known = ["pattern", "limit", "after", "ack", "from", "to"];
    let Ok(query) = Query::parse(Some(text), &known) else { return };
    if let Ok(limit) = query.limit() {
        assert!((1..=LIMIT_MAX).contains(&limit), "{text:?}");
    }
    if let Ok(ts) = query.ts("from", 0) {
        assert!(ts <= TS_MAX, "{text:?}");
    }
    let _ = (query.pattern(), query.ack(), query.ts("to", TS_MAX));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&str; 14] = [
        "W/\"1763800000000000-000102030405060708090a0b0c0d0e0f\", \"5-deleted\"",
        "*",
        "source=sensors/**&source=weather%2F%2a&mode=all&snapshot=false",
        "source=a&batch=true&mode=latest",
        "ack=stored",
        "ack=replicated&&x",
        "pattern=a%2F*&limit=7&&after=x+y&from=5&to=9007199254740991",
        "a/b%2Fc/history",
        "%C3%A4+b%20c",
        "1700000000000000-0-000102030405060708090a0b0c0d0e0f",
        "example.org:7070",
        "[::1]:7070",
        "127.0.0.1",
        "=&=x&%=1&%zz&%ff",
    ];
    let mut seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let token = crate::protocol::fuzzing::a_token().encode();
    seeds.push(format!("source=a/*&resume={token}").into_bytes());
    seeds
}
