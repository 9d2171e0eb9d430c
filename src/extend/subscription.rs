//! A subscription as an extension reads it: the text frames that a client on `/subscribe` would get.

use std::sync::Arc;

use futures_util::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::host::ExtendHost;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Pattern;

/// Bytes that are read from the event loop at a time.
const SUBSCRIPTION_READ_BYTES: usize = 16 * 1024;
/// Close code for a subscriber that does not keep up.
const TOO_SLOW_CODE: u16 = 4202;

/// What is subscribed to.
#[derive(Debug)]
pub struct Subscribed<'a> {
    /// Patterns of the sources.
    pub patterns: &'a [Pattern],
    /// Whether every record is wanted, or the newest of each source while the reader is slow.
    pub is_all: bool,
    /// Whether the latest records come first.
    pub snapshot: bool,
    /// The token that it goes on from.
    pub resume: Option<&'a str>,
    /// A condition that records must meet.
    pub filter: Option<&'a str>,
}

/// A subscription at an event loop of this node. It ends when it is dropped.
pub struct ExtensionFeed {
    socket: WebSocketStream<UnixStream>,
}

/// A frame of a subscription, or its end.
#[derive(Debug)]
pub enum FeedFrame {
    /// The text of a frame.
    Text(String),
    /// The reader was too slow.
    TooSlow,
    /// The subscription is over for another reason, which is told.
    Over(String),
}

/// Opens a subscription.
pub async fn open_feed(host: &Arc<dyn ExtendHost>, asked: &Subscribed<'_>) -> Result<ExtensionFeed, Refusal> {
    let socket = host.subscribe(&query_of(asked))?;
    let lost = |error: std::io::Error| Refusal::new(Code::Internal, error.to_string());
    let socket = UnixStream::from_std(socket).map_err(lost)?;
    let mut config =
        WebSocketConfig::default().read_buffer_size(SUBSCRIPTION_READ_BYTES).write_buffer_size(0);
    // The other end is this program.
    (config.max_message_size, config.max_frame_size) = (None, None);
    let socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await;
    Ok(ExtensionFeed { socket })
}

/// The query of the URL by which a client on `/subscribe` would ask for the same.
fn query_of(asked: &Subscribed<'_>) -> String {
    let mode = if asked.is_all { "all" } else { "latest" };
    let mut query = format!("mode={mode}&snapshot={}&batch=true", asked.snapshot);
    let mut add = |name: &str, value: &str| {
        query.push('&');
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    };
    asked.patterns.iter().for_each(|pattern| add("source", pattern.as_str()));
    asked.resume.into_iter().for_each(|token| add("resume", token));
    asked.filter.into_iter().for_each(|filter| add("filter", filter));
    query
}

impl ExtensionFeed {
    /// The next frame. Pings are answered meanwhile.
    pub async fn next(&mut self) -> FeedFrame {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return FeedFrame::Text(text.as_str().to_owned()),
                Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == TOO_SLOW_CODE => {
                    return FeedFrame::TooSlow;
                }
                Some(Ok(Message::Close(close))) => {
                    let why = close.map(|close| format!("closed with {}: {}", close.code, close.reason));
                    return FeedFrame::Over(why.unwrap_or_else(|| "closed".into()));
                }
                Some(Ok(_)) => {}
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return FeedFrame::Over("closed".into());
                }
                Some(Err(error)) => return FeedFrame::Over(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_name_everything() {
        let patterns = ["a/*", "b"].map(|text| Pattern::parse(text).expect("a pattern"));
        let mut asked =
            Subscribed { patterns: &patterns, is_all: true, snapshot: false, resume: None, filter: None };
        assert_eq!(query_of(&asked), "mode=all&snapshot=false&batch=true&source=a%2F%2A&source=b");
        (asked.is_all, asked.snapshot, asked.resume, asked.filter) =
            (false, true, Some("x-y"), Some("data > 1"));
        let rest = "&resume=x%2Dy&filter=data%20%3E%201";
        assert_eq!(
            query_of(&asked),
            format!("mode=latest&snapshot=true&batch=true&source=a%2F%2A&source=b{rest}")
        );
    }
}
