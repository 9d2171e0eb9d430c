//! Pull sources over HTTP: asked at an interval, or connected for as long as the server sends.

mod answer;
mod client;
mod event_stream;
mod poll;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::fields::COMMON_FIELDS;
use super::fields::PullFields;
use super::secret::PullSecret;
use crate::extend::definition::BadField;

#[cfg(any(test, fuzzing))]
pub(super) use event_stream::{EventStreamReader, StreamEvent};
pub(super) use poll::run;

/// PullFields of this kind alone.
const HTTP_FIELDS: &[&str] = &["every", "url", "headers", "method", "body", "ca"];
/// Interval between polls: default, least and most, in microseconds.
const POLL_EVERY_US: (u64, u64, u64) = (60_000_000, 100_000, 7 * 86_400_000_000);
/// Most headers of a definition.
const POLL_HEADERS_MAX: usize = 32;
/// Longest URL, in bytes.
const POLL_URL_BYTES_MAX: usize = 4_096;
/// Longest body of a request, in bytes.
const POLL_BODY_BYTES_MAX: usize = 64 * 1024;
/// Headers whose values are secrets, and so must not stand in a definition.
const POLL_SECRET_HEADERS: &[&str] =
    &["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"];
/// Headers that follow from the request and the connection.
const POLL_OWN_HEADERS: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "upgrade",
    "if-none-match",
    "if-modified-since",
    "last-event-id",
    "accept-encoding",
];

/// What is asked, and how its answers are read.
#[derive(Clone, Debug)]
pub(super) struct HttpPull {
    url: Url,
    every_us: u64,
    headers: Vec<(HeaderName, PullSecret)>,
    method: HttpMethod,
    body: Option<String>,
    format: HttpFormat,
    /// File with the authorities that may vouch for the server; those of the system if it is not given.
    ca: Option<String>,
}

/// The method of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpMethod {
    /// Without a body.
    Get,
    /// With a body, as interfaces for queries want it.
    Post,
}

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpFormat {
    /// As its `Content-Type` says.
    Auto,
    /// As one JSON value.
    Json,
    /// As JSON values, one a line, each as soon as it has come.
    Ndjson,
    /// As Server-Sent Events, for as long as the server sends.
    Sse,
    /// As one text.
    Text,
}

const HTTP_FORMATS: [(&str, HttpFormat); 5] = [
    ("auto", HttpFormat::Auto),
    ("json", HttpFormat::Json),
    ("ndjson", HttpFormat::Ndjson),
    ("sse", HttpFormat::Sse),
    ("text", HttpFormat::Text),
];

impl HttpPull {
    /// Reads the fields of this kind.
    pub fn read(fields: &PullFields<'_>) -> Result<HttpPull, BadField> {
        fields.only(&[COMMON_FIELDS, HTTP_FIELDS])?;
        let method = fields.choice("method", &[("GET", HttpMethod::Get), ("POST", HttpMethod::Post)])?;
        let body = fields.text("body")?;
        if body.is_some_and(|body| method == HttpMethod::Get || body.len() > POLL_BODY_BYTES_MAX) {
            return Err(fields
                .bad("body", format!("with method = \"POST\" only, at most {POLL_BODY_BYTES_MAX} bytes")));
        }
        let (every, least, most) = POLL_EVERY_US;
        Ok(HttpPull {
            url: url(fields)?,
            every_us: fields.duration_us("every", least..=most, every)?,
            headers: headers(fields)?,
            method,
            body: body.map(str::to_owned),
            format: fields.choice("format", &HTTP_FORMATS)?,
            ca: fields.text("ca")?.map(str::to_owned),
        })
    }

    /// Returns the reason why this node cannot ask, if there is one.
    pub fn cannot(&self) -> Option<String> {
        self.headers.iter().find_map(|(_, value)| value.value().err())
    }
}

fn url(fields: &PullFields<'_>) -> Result<Url, BadField> {
    let text = fields.required_text("url", "an http:// or https:// URL")?;
    let allowed = "an http:// or https:// URL of at most 4096 bytes, without a fragment";
    let url = Url::parse(text).map_err(|error| fields.bad("url", format!("{allowed} ({error})")))?;
    if !matches!(url.scheme(), "http" | "https")
        || text.len() > POLL_URL_BYTES_MAX
        || url.fragment().is_some()
    {
        return Err(fields.bad("url", allowed));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let allowed = "no name and password in the URL: a header Authorization = \"env:NAME\"";
        return Err(BadField::new(fields.name("url"), "a URL with a password", allowed));
    }
    Ok(url)
}

fn headers(fields: &PullFields<'_>) -> Result<Vec<(HeaderName, PullSecret)>, BadField> {
    let mut headers = Vec::new();
    for (name, value) in fields.pairs("headers", POLL_HEADERS_MAX)? {
        let field = format!("{}.{name}", fields.name("headers"));
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| BadField::new(&field, name, "a name that a header of HTTP can have"))?;
        if POLL_OWN_HEADERS.contains(&header.as_str()) {
            return Err(BadField::new(&field, value, "no header that aNode sets by itself"));
        }
        let secret = match POLL_SECRET_HEADERS.contains(&header.as_str()) {
            true => PullSecret::parse_hidden(&field, value)?,
            false => PullSecret::parse(&field, value)?,
        };
        if matches!(&secret, PullSecret::Plain(text) if HeaderValue::from_str(text).is_err()) {
            return Err(BadField::new(&field, value, "a value that a header of HTTP can have"));
        }
        headers.push((header, secret));
    }
    Ok(headers)
}
