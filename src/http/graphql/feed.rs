//! The records of one subscription, as an event loop brings them.
//!
//! The event loop writes to a local socket what it would write to a WebSocket on `/subscribe`: the snapshot, its end,
//! and what is published afterwards. What waits is bounded there, by the rules of the mode that is asked for. Nothing is
//! read ahead here, so a client that does not read holds the event loop's frames back in the kernel, and then there.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::errors;
use super::record::{GraphqlRecord, RecordData};
use super::requester::Requester;
use super::types::GraphqlMode;
use crate::limits::PATTERNS_PER_SUBSCRIPTION_MAX;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Pattern;

/// Bytes that are read from the event loop at a time.
const FEED_READ_BYTES: usize = 4 * 1024;
/// Memory of a subscription in the control plane, in bytes: what was read, the task, and its operation. The message that
/// is being sent comes to it.
const FEED_BYTES: usize = 16 * 1024;

/// The records that a client has subscribed to over GraphQL, and how it wants to get them.
pub(super) struct FeedAsked {
    pub(super) patterns: Vec<String>,
    pub(super) snapshot: bool,
    pub(super) mode: GraphqlMode,
    pub(super) filter: Option<String>,
}

/// Something that a subscription brings.
#[derive(Clone, Debug)]
pub(super) enum FeedEvent {
    /// A record of the snapshot, or one that was published since.
    Record(GraphqlRecord),
    /// The snapshot is complete. Holds the token by which to resume.
    Eos(String),
}

/// A subscription at an event loop.
struct Feed {
    socket: WebSocketStream<UnixStream>,
    _permit: OwnedSemaphorePermit,
    _lease: Lease,
}

/// Opens a subscription. The stream ends with the first error. The subscription ends when the stream is dropped.
pub(super) async fn open(
    requester: &Requester,
    asked: FeedAsked,
) -> Result<impl Stream<Item = Result<FeedEvent, async_graphql::Error>> + use<>, Refusal> {
    let query = query_of(requester, &asked)?;
    let app = requester.app();
    let permit = requester.permits().feed().ok_or_else(|| {
        Refusal::new(Code::Overloaded, "this node has as many subscriptions over GraphQL as it may")
    })?;
    let mut lease = app.node.memory().lease();
    lease.set(FEED_BYTES).map_err(|over| {
        app.node.memory_refused(MemoryUse::Subscriptions);
        Refusal::new(Code::Overloaded, over.to_string())
    })?;
    let socket = app.node.subscribe(&query, requester.access().cloned(), requester.address())?;
    let lost = |error: std::io::Error| Refusal::new(Code::Internal, error.to_string());
    let socket = UnixStream::from_std(socket).map_err(lost)?;
    let mut config = WebSocketConfig::default().read_buffer_size(FEED_READ_BYTES).write_buffer_size(0);
    // The other end is this program.
    (config.max_message_size, config.max_frame_size) = (None, None);
    let socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await;
    let feed = Feed { socket, _permit: permit, _lease: lease };
    Ok(stream::unfold(Some(feed), |feed| async {
        let mut feed = feed?;
        let event = feed.next().await?;
        let goes_on = event.is_ok();
        Some((event, goes_on.then_some(feed)))
    }))
}

/// The query of the URL by which a client on `/subscribe` would ask for the same.
fn query_of(requester: &Requester, asked: &FeedAsked) -> Result<String, Refusal> {
    let FeedAsked { patterns, snapshot, mode, filter } = asked;
    if patterns.is_empty() || patterns.len() > PATTERNS_PER_SUBSCRIPTION_MAX {
        let count = patterns.len();
        let message = format!("{count} patterns; allowed are 1 to {PATTERNS_PER_SUBSCRIPTION_MAX}");
        return Err(Refusal::new(Code::BadRequest, message));
    }
    let parsed = patterns.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<Vec<_>, _>>();
    let parsed = parsed.map_err(|error| Refusal::new(Code::BadPattern, error.to_string()))?;
    requester.check_patterns(&parsed)?;
    let mut query = format!("mode={}&snapshot={snapshot}", mode.as_str());
    for pattern in patterns {
        query.push_str("&source=");
        query.extend(utf8_percent_encode(pattern, NON_ALPHANUMERIC));
    }
    if let Some(filter) = filter {
        query.push_str("&filter=");
        query.extend(utf8_percent_encode(filter, NON_ALPHANUMERIC));
    }
    Ok(query)
}

impl Feed {
    /// The next event; `None` if there will be none, because the node ends.
    async fn next(&mut self) -> Option<Result<FeedEvent, async_graphql::Error>> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => {
                    if let Some(event) = read(&text).transpose() {
                        return Some(event);
                    }
                }
                Ok(Message::Close(close)) => return Some(Err(ended_by(close))),
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return None,
                Err(error) => {
                    tracing::debug!(%error, "a subscription over GraphQL was lost");
                    return None;
                }
            }
        }
    }
}

/// The error with which an event loop ends a subscription.
fn ended_by(close: Option<CloseFrame>) -> async_graphql::Error {
    let (number, reason) =
        close.map_or((1006, String::new()), |close| (close.code.into(), close.reason.to_string()));
    let code = match number {
        4001 => Code::Unauthorized,
        4003 => Code::Forbidden,
        4201 | 4202 => Code::TooSlow,
        4100..=4299 => Code::Overloaded,
        _ => Code::Internal,
    };
    Refusal::new(code, reason).into()
}

/// The fields of all messages to a subscriber.
#[derive(Deserialize)]
struct FeedMessage<'a> {
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    ts: Option<u64>,
    #[serde(borrow)]
    origin: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_b64: Option<Cow<'a, str>>,
    #[serde(default)]
    gone: bool,
    eos: Option<EosFields>,
    error: Option<RefusalFields>,
}

#[derive(Deserialize)]
struct EosFields {
    resume: String,
}

#[derive(Deserialize)]
struct RefusalFields {
    code: String,
    message: String,
    temporary: bool,
}

/// Reads a value that may be `null`, which is not the same as none.
fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a message of the event loop. Returns `None` for one that says nothing to a client of GraphQL.
fn read(text: &Utf8Bytes) -> Result<Option<FeedEvent>, async_graphql::Error> {
    let unreadable = |error: serde_json::Error| Refusal::new(Code::Internal, error.to_string());
    let message: FeedMessage<'_> = serde_json::from_str(text.as_str()).map_err(unreadable)?;
    if let Some(RefusalFields { code, message, temporary }) = message.error {
        return Err(errors::error(&code, temporary, message, None));
    }
    if let Some(eos) = message.eos {
        return Ok(Some(FeedEvent::Eos(eos.resume)));
    }
    if let (true, Some(source), Some(ts)) = (message.gone, &message.source, message.ts) {
        let record = GraphqlRecord::new(source.to_string(), ts, String::new(), RecordData::Gone);
        return Ok(Some(FeedEvent::Record(record)));
    }
    let (Some(source), Some(ts), Some(origin)) = (message.source, message.ts, message.origin) else {
        return Ok(None);
    };
    let data = match (message.data, message.data_b64) {
        (Some(json), _) => RecordData::Json(Bytes::copy_from_slice(json.get().as_bytes())),
        (None, Some(text)) => RecordData::Base64(text.into_owned()),
        (None, None) => RecordData::Deleted,
    };
    Ok(Some(FeedEvent::Record(GraphqlRecord::new(source.into_owned(), ts, origin.into_owned(), data))))
}
