//! Asks a server at an interval, or stays connected for as long as it sends.

use std::time::Duration;

use reqwest::header::{
    ACCEPT, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use tokio::time::{sleep, timeout};

use super::answer::{AnswerForm, form_of, map_whole, read_events, read_lines, read_whole};
use super::client::{client, told};
use super::event_stream::EventStreamReader;
use super::{HttpFormat, HttpMethod, HttpPull};
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::feed::Feed;
use crate::extend::pull::pace::PullBackoff;

/// Longest wait after failures, in microseconds, unless the interval is longer.
const POLL_BACKOFF_US_MAX: u64 = 60_000_000;
/// First bound of the waits after failures, in microseconds.
const POLL_BACKOFF_US_MIN: u64 = 1_000_000;
/// Longest time before the first poll, in microseconds. It is drawn, so that a thousand pull sources of a node that
/// starts do not ask at the same moment.
const FIRST_US_MAX: u64 = 1_000_000;
/// Wait before a stream of events is opened again that has ended in order, in microseconds, if the server says nothing.
const STREAM_REOPEN_US: u64 = 2_000_000;
/// Longest waits that a server may ask for, in milliseconds: an hour.
const ASKED_MS_MAX: u64 = 3_600_000;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What is known of a server from its last answers.
struct HttpPoll<'a> {
    definition: &'a PullDefinition,
    settings: &'a HttpPull,
    client: Client,
    headers: HeaderMap,
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
    events: EventStreamReader,
}

/// How an attempt ended.
enum PollEnd {
    /// All was read. The next poll is at its time.
    Done,
    /// A stream has ended in order. It is opened again after this many microseconds.
    Ended(u64),
}

/// Why an attempt failed.
struct PollError {
    why: String,
    /// The wait that the server asks for, in microseconds.
    wait_us: Option<u64>,
}

impl From<String> for PollError {
    fn from(why: String) -> PollError {
        PollError { why, wait_us: None }
    }
}

/// Runs a pull source over HTTP, for ever. With `is_once`, it ends after the first answer, or the first failure.
pub(in crate::extend::pull) async fn run(
    definition: &PullDefinition,
    settings: &HttpPull,
    feed: &Feed,
    is_once: bool,
) {
    let now = feed.target().now();
    let least_us = settings.every_us.clamp(POLL_BACKOFF_US_MIN, POLL_BACKOFF_US_MAX);
    let mut backoff =
        PullBackoff::new(least_us, settings.every_us.max(POLL_BACKOFF_US_MAX), now.mono_us ^ now.wall_us);
    let mut poll = loop {
        match HttpPoll::new(definition, settings).await {
            Ok(poll) => break poll,
            Err(why) => feed.fail(why),
        }
        if is_once {
            return;
        }
        sleep(Duration::from_micros(backoff.next_us())).await;
    };
    if !is_once {
        sleep(Duration::from_micros(backoff.spread_us(settings.every_us.min(FIRST_US_MAX)))).await;
    }
    let mut due_us = feed.target().now().mono_us;
    loop {
        let outcome = poll.attempt(feed).await;
        let now_us = feed.target().now().mono_us;
        let wait_us = match outcome {
            Ok(PollEnd::Done) => {
                backoff.reset();
                // Polls keep their rhythm; those that are missed are left out.
                let missed = now_us.saturating_sub(due_us) / settings.every_us;
                due_us += (missed + 1) * settings.every_us;
                due_us.saturating_sub(now_us)
            }
            Ok(PollEnd::Ended(wait_us)) => {
                backoff.reset();
                wait_us / 2 + backoff.spread_us(wait_us / 2)
            }
            Err(error) => {
                feed.fail(error.why);
                backoff.next_us().max(error.wait_us.unwrap_or(0))
            }
        };
        if is_once {
            return;
        }
        due_us = due_us.max(now_us);
        sleep(Duration::from_micros(wait_us)).await;
    }
}

impl<'a> HttpPoll<'a> {
    async fn new(definition: &'a PullDefinition, settings: &'a HttpPull) -> Result<HttpPoll<'a>, String> {
        let mut headers = HeaderMap::new();
        for (name, secret) in &settings.headers {
            let mut value = HeaderValue::from_str(&secret.value()?)
                .map_err(|_| format!("the value of the header {name} is none that HTTP allows"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let default = |name: HeaderName, value: &'static str, headers: &mut HeaderMap| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        match settings.format {
            HttpFormat::Sse => default(ACCEPT, "text/event-stream", &mut headers),
            HttpFormat::Ndjson => default(ACCEPT, "application/x-ndjson", &mut headers),
            HttpFormat::Json => default(ACCEPT, "application/json", &mut headers),
            HttpFormat::Auto | HttpFormat::Text => {}
        }
        if settings.method == HttpMethod::Post {
            default(reqwest::header::CONTENT_TYPE, "application/json", &mut headers);
        }
        let ca = settings.ca.clone();
        // The files of authorities are read apart.
        let made = tokio::task::spawn_blocking(move || client(ca.as_deref())).await;
        let client = made.map_err(|error| error.to_string())??;
        let events = EventStreamReader::new(definition.bytes_max);
        Ok(HttpPoll { definition, settings, client, headers, etag: None, last_modified: None, events })
    }

    /// Asks once, and has what is answered published.
    async fn attempt(&mut self, feed: &Feed) -> Result<PollEnd, PollError> {
        let limit = Duration::from_micros(self.definition.timeout_us);
        let timed_out = || PollError::from(format!("timed out after {} ms (timeout)", limit.as_millis()));
        let started_us = feed.target().now().mono_us;
        let sent = timeout(limit, self.request().send()).await.map_err(|_| timed_out())?;
        let response = sent.map_err(|error| told(&error))?;
        match response.status() {
            StatusCode::NOT_MODIFIED => {
                feed.succeed();
                return Ok(PollEnd::Done);
            }
            status if !status.is_success() => return Err(refused(&response, feed)),
            _ => {}
        }
        let [etag, last_modified] = [ETAG, LAST_MODIFIED].map(|name| response.headers().get(name).cloned());
        match form_of(self.settings.format, &response) {
            AnswerForm::Whole(format) => {
                let spent = Duration::from_micros(feed.target().now().mono_us.saturating_sub(started_us));
                let reading = read_whole(response, self.definition.bytes_max);
                let body = timeout(limit.saturating_sub(spent), reading).await.map_err(|_| timed_out())??;
                let mapped =
                    map_whole(&self.definition.mapping, format, body, feed.target().now().wall_us).await;
                if !feed.publish(mapped).await {
                    // What went wrong is to be told again at the next poll, and not that nothing has changed.
                    (self.etag, self.last_modified) = (None, None);
                    return Ok(PollEnd::Done);
                }
            }
            AnswerForm::Lines => {
                read_lines(response, &self.definition.mapping, self.definition.bytes_max, feed).await?;
            }
            AnswerForm::Events => {
                let read = read_events(response, &self.definition.mapping, &mut self.events, feed).await;
                self.events = self.events.again(self.definition.bytes_max);
                read?;
                let asked_us = self.events.retry_ms().map(|ms| ms.min(ASKED_MS_MAX) * 1_000);
                return Ok(PollEnd::Ended(asked_us.unwrap_or(STREAM_REOPEN_US)));
            }
        }
        // An answer counts as known only after all of it was published.
        (self.etag, self.last_modified) = (etag, last_modified);
        Ok(PollEnd::Done)
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let url = self.settings.url.clone();
        let mut request = match self.settings.method {
            HttpMethod::Get => self.client.get(url),
            HttpMethod::Post => self.client.post(url).body(self.settings.body.clone().unwrap_or_default()),
        };
        request = request.headers(self.headers.clone());
        let id = self.events.last_id().and_then(|id| HeaderValue::from_str(id).ok());
        let known = [
            (IF_NONE_MATCH, self.etag.clone()),
            (IF_MODIFIED_SINCE, self.last_modified.clone()),
            (LAST_EVENT_ID, id.filter(|id| !id.is_empty())),
        ];
        known.into_iter().fold(request, |request, (name, value)| match value {
            Some(value) => request.header(name, value),
            None => request,
        })
    }
}

/// The error of an answer that is no success, with the wait that it asks for.
fn refused(response: &Response, feed: &Feed) -> PollError {
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait_us = asked.and_then(|text| match text.trim().parse::<u64>() {
        Ok(seconds) => Some(seconds.saturating_mul(1_000_000)),
        Err(_) => {
            let until = httpdate::parse_http_date(text).ok()?;
            let until = until.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some((until.as_micros() as u64).saturating_sub(feed.target().now().wall_us))
        }
    });
    let why = format!("the server answers {}", response.status());
    PollError { why, wait_us: wait_us.map(|us| us.min(ASKED_MS_MAX * 1_000)) }
}
