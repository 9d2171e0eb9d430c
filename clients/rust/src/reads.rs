//! Reading over HTTP: the latest record of a source, lists and histories, page by page.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use http_body_util::{BodyExt, Empty};
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::address::NodeAddress;
use crate::dialer::Shared;
use crate::error::{AnodeError, Refusal};
use crate::options::{OPEN_MAX, end_of};
use crate::record::{Record, RecordBody};
use crate::roster::jitter;

/// Records of a page.
const PAGE: usize = 1_000;
/// The bound of the first wait before a request is sent again.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
/// The bound of the longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// The characters of a name that a URL does not change.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns a name or pattern as a part of a URL.
pub(crate) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

#[derive(Deserialize)]
struct PageBody<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
    after: Option<String>,
}

/// Reads a record from a body.
fn record(text: &str) -> Result<Record, AnodeError> {
    let body: RecordBody<'_> = serde_json::from_str(text)
        .map_err(|error| AnodeError::new("protocol", format!("the node sent no record: {error}")))?;
    body.record(false)
}

/// Returns the latest record of a source; `None` if there is none.
pub(crate) async fn get(shared: &Shared, source: &str) -> Result<Option<Record>, AnodeError> {
    match fetch(shared, &format!("/v1/sources/{}", encoded(source))).await {
        Ok(text) => record(&text).map(Some),
        Err(error) if error.code == "not_found" => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a request to the node of the client's connection first, and to others if that does not answer. Temporary
/// failures are tried again in bounded time.
async fn fetch(shared: &Shared, path: &str) -> Result<String, AnodeError> {
    let deadline = end_of(shared.options.read_timeout);
    let mut nodes = VecDeque::new();
    let (mut attempt, mut has_renewed) = (0, false);
    loop {
        if nodes.is_empty() {
            let current = shared.roster.current();
            nodes = shared.roster.candidates(current.as_ref());
            if current.is_some() {
                nodes.rotate_right(1);
            }
        }
        let node = nodes
            .pop_front()
            .ok_or_else(|| AnodeError::new("bad_url", "no node is named; allowed: one URL or more"))?;
        let token = shared.access.token().await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = timeout(left.min(OPEN_MAX), exchange(shared, &node, path, token.as_deref())).await;
        let error = match answer {
            Ok(Ok((StatusCode::OK, body))) => return text(body),
            Ok(Ok((status, body))) => problem(status, &body),
            Ok(Err(error)) => AnodeError::unavailable(format!("no answer from {node}: {error}")),
            Err(_) => AnodeError::unavailable(format!("no answer from {node} in time")),
        };
        if error.code == "unauthorized" && shared.access.renews() && !has_renewed {
            has_renewed = true;
            shared.access.renew(token.as_deref()).await?;
            nodes.push_front(node);
            continue;
        }
        let wait = jitter(AGAIN_FIRST, attempt, AGAIN_MAX);
        let wait = wait.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
        if !error.temporary || Instant::now() + wait >= deadline {
            return Err(error);
        }
        attempt += 1;
        shared.options.report(&error);
        tokio::time::sleep(wait).await;
    }
}

fn text(body: Bytes) -> Result<String, AnodeError> {
    String::from_utf8(body.into())
        .map_err(|error| AnodeError::new("protocol", format!("the node sent no text: {error}")))
}

fn problem(status: StatusCode, body: &[u8]) -> AnodeError {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.into(),
        Err(_) => AnodeError {
            temporary: status.is_server_error(),
            ..AnodeError::unavailable(format!("the node answered with status {status}"))
        },
    }
}

type ExchangeError = Box<dyn std::error::Error + Send + Sync>;

/// Sends one request on a connection of its own, and reads the answer.
async fn exchange(
    shared: &Shared,
    node: &NodeAddress,
    path: &str,
    token: Option<&str>,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let transport = shared.opener.open(node).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(transport)).await?;
    let mut request = Request::get(node.path(path))
        .header(HOST, node.authority())
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let answering = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        // The connection may end before its last bytes are taken.
        _ = &mut connection => answering.await,
    }
}

type PageFuture = Pin<Box<dyn Future<Output = Result<String, AnodeError>> + Send>>;

/// Records of a list or history, as a stream or by [`Pages::next`]. Pages are requested as they are needed.
pub struct Pages {
    shared: Shared,
    path: String,
    records: VecDeque<Record>,
    /// The end of the last page; `None` before the first.
    after: Option<String>,
    is_last: bool,
    asking: Option<PageFuture>,
}

impl Pages {
    /// Starts at the first page. `path` has a query already.
    pub(crate) fn new(shared: Shared, path: String) -> Pages {
        Pages { shared, path, records: VecDeque::new(), after: None, is_last: false, asking: None }
    }

    /// Returns the next record; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Record, AnodeError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Returns all records that are left.
    pub async fn all(mut self) -> Result<Vec<Record>, AnodeError> {
        let mut records = Vec::new();
        while let Some(record) = self.next().await {
            records.push(record?);
        }
        Ok(records)
    }

    fn ask(&self) -> PageFuture {
        let mut path = format!("{}&limit={PAGE}", self.path);
        if let Some(after) = &self.after {
            path.push_str(&format!("&after={}", encoded(after)));
        }
        let shared = self.shared.clone();
        Box::pin(async move { fetch(&shared, &path).await })
    }

    fn handle_page(&mut self, body: &str) -> Result<(), AnodeError> {
        let page: PageBody<'_> = serde_json::from_str(body)
            .map_err(|error| AnodeError::new("protocol", format!("the node sent no page: {error}")))?;
        for raw in page.records {
            self.records.push_back(record(raw.get())?);
        }
        self.is_last = page.after.is_none();
        self.after = page.after;
        Ok(())
    }
}

impl Stream for Pages {
    type Item = Result<Record, AnodeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Poll::Ready(Some(Ok(record)));
            }
            if self.is_last {
                return Poll::Ready(None);
            }
            let mut asking = self.asking.take().unwrap_or_else(|| self.ask());
            let Poll::Ready(answer) = asking.as_mut().poll(context) else {
                self.asking = Some(asking);
                return Poll::Pending;
            };
            if let Err(error) = answer.and_then(|body| self.handle_page(&body)) {
                self.is_last = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_urls() {
        assert_eq!(encoded("a/history"), "a%2Fhistory");
        assert_eq!(encoded("ä +*"), "%C3%A4%20%2B%2A");
    }

    #[test]
    fn problems() {
        let error =
            problem(StatusCode::NOT_FOUND, br#"{"code":"not_found","detail":"no record","temporary":false}"#);
        assert_eq!((error.code.as_str(), error.message.as_str()), ("not_found", "no record"));
        assert!(problem(StatusCode::BAD_GATEWAY, b"<html>").temporary);
    }
}
