//! One WebSocket to one node: greeting, tokens, and whether the node is still there.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::access::Access;
use crate::address::NodeAddress;
use crate::error::{AnodeError, Lost, Refusal, Retry};
use crate::options::{Options, PING_MS_DEFAULT, PING_MS_MAX, SERVED};
use crate::transport::Transport;

/// A WebSocket over any connection.
pub(crate) type Socket = WebSocketStream<Box<dyn Transport>>;

/// The id of frames that bring a token. Publishes have numbers as ids.
const AUTH_ID: &str = "\"auth\"";
/// A token is renewed when this part of its life is left, or [`RENEW_BEFORE`] if that is less.
const RENEW_PART: f64 = 0.2;
/// A token is renewed no earlier than this before its end.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// The shortest time between two attempts to renew a token.
const RENEW_WAIT_MIN: Duration = Duration::from_secs(1);
/// Frames that wait for the socket.
const UNSENT_FRAMES_MAX: usize = 64;
/// How long a connection may take to close in good order.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The parts of a greeting that the client uses.
#[derive(Debug, Deserialize)]
pub(crate) struct Greeting {
    ping_ms: Option<u64>,
    pub(crate) max_frame_bytes: Option<usize>,
    #[serde(default)]
    members: Vec<GreetedMember>,
}

#[derive(Debug, Deserialize)]
struct GreetedMember {
    http: String,
}

impl Greeting {
    /// Returns the addresses of the members.
    pub(crate) fn members(&self) -> Vec<String> {
        self.members.iter().map(|member| member.http.clone()).collect()
    }
}

/// The parts of a frame that tell what it is about.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a serde_json::value::RawValue>,
    connected: Option<Greeting>,
    error: Option<Refusal>,
    result: Option<AuthResult>,
}

#[derive(Debug, Deserialize)]
struct AuthResult {
    expires: Option<u64>,
}

/// An open connection.
///
/// First [`Link::begin`], then [`Link::receive`] again and again. While the program is too slow to take what comes,
/// [`Link::keep_alive`] is called in its place.
pub(crate) struct Link {
    reader: SplitStream<Socket>,
    writer: mpsc::Sender<Message>,
    writing: JoinHandle<()>,
    node: NodeAddress,
    access: Arc<Access>,
    options: Options,
    token: Option<String>,
    /// The error that the node has sent about the connection as a whole.
    refused: Option<AnodeError>,
    opened: Instant,
    heard: Instant,
    pinged: Instant,
    ping: Duration,
    renew_at: Option<Instant>,
    renewal: Option<JoinHandle<Result<Option<String>, AnodeError>>>,
}

impl Link {
    /// Takes a connection after its handshake.
    pub(crate) fn new(
        socket: Socket,
        node: NodeAddress,
        token: Option<String>,
        access: Arc<Access>,
        options: Options,
    ) -> Link {
        let (sink, reader) = socket.split();
        let (writer, frames) = mpsc::channel(UNSENT_FRAMES_MAX);
        let writing = tokio::spawn(write(sink, frames));
        let now = Instant::now();
        let ping = Duration::from_millis(PING_MS_DEFAULT);
        Link {
            reader,
            writer,
            writing,
            node,
            access,
            options,
            token,
            refused: None,
            opened: now,
            heard: now,
            pinged: now,
            ping,
            renew_at: None,
            renewal: None,
        }
    }

    /// Waits for the greeting.
    pub(crate) async fn begin(&mut self) -> Result<Greeting, Lost> {
        let frame = self.receive().await?;
        let envelope: Option<Envelope<'_>> = serde_json::from_str(&frame).ok();
        let Some(greeting) = envelope.and_then(|envelope| envelope.connected) else {
            let message = format!("{} does not greet as a node does", self.node);
            return Err(Lost::new(AnodeError::new("protocol", message), Retry::BackOff));
        };
        self.ping = Duration::from_millis(greeting.ping_ms.unwrap_or(PING_MS_DEFAULT).clamp(1, PING_MS_MAX));
        if self.access.renews() {
            // The answer tells when the token ends.
            self.bring_token();
        }
        Ok(greeting)
    }

    /// Whether the connection has lived for a while.
    pub(crate) fn has_served(&self) -> bool {
        self.opened.elapsed() >= SERVED
    }

    /// The token that the node knows.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The way to send frames, with room for a bounded number of them.
    pub(crate) fn writer(&self) -> &mpsc::Sender<Message> {
        &self.writer
    }

    /// Returns the next frame. Answers about tokens are dealt with here. May be dropped at any time without loss.
    pub(crate) async fn receive(&mut self) -> Result<Utf8Bytes, Lost> {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                message = self.reader.next() => {
                    self.heard = Instant::now();
                    if let Some(text) = self.handle_message(message)? {
                        return Ok(text);
                    }
                }
                renewed = joined(&mut self.renewal) => self.handle_renewal(renewed),
                () = tokio::time::sleep_until(wake.into()) => self.handle_time()?,
            }
        }
    }

    /// Shows the node from time to time that this client lives. Never returns.
    pub(crate) async fn keep_alive(&mut self) {
        loop {
            self.heard = Instant::now();
            tokio::time::sleep(self.ping / 4).await;
            self.heard = Instant::now();
            // If there is no room, frames wait that show the same.
            let _ = self.writer.try_send(Message::Pong(Bytes::new()));
        }
    }

    /// Closes the connection in good order, within a bounded time.
    pub(crate) async fn close(mut self) {
        let _ = self.writer.try_send(Message::Close(None));
        let drain = async { while let Some(Ok(_)) = self.reader.next().await {} };
        let _ = tokio::time::timeout(CLOSE_MAX, drain).await;
    }

    fn next_wake(&self) -> Instant {
        let ping_at = self.heard.max(self.pinged) + self.ping / 2;
        let silent_at = self.heard + self.ping;
        let wake = ping_at.min(silent_at);
        self.renew_at.map_or(wake, |renew_at| wake.min(renew_at))
    }

    /// Sends a ping while nothing comes, and gives the connection up if nothing comes for the time of the greeting.
    fn handle_time(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        if now >= self.heard + self.ping {
            let message = format!("{} was silent for {} ms", self.node, self.ping.as_millis());
            return Err(Lost::new(AnodeError::unavailable(message), Retry::Now));
        }
        if now >= self.heard.max(self.pinged) + self.ping / 2 {
            self.pinged = now;
            let _ = self.writer.try_send(Message::Ping(Bytes::new()));
        }
        if self.renew_at.is_some_and(|renew_at| now >= renew_at) {
            self.renew_at = None;
            let (access, used) = (self.access.clone(), self.token.clone());
            self.renewal = Some(tokio::spawn(async move { access.renew(used.as_deref()).await }));
        }
        Ok(())
    }

    fn handle_renewal(&mut self, renewed: Result<Option<String>, AnodeError>) {
        self.renewal = None;
        match renewed {
            Ok(token) => {
                self.token = token;
                self.bring_token();
            }
            Err(error) => {
                self.options.report(&error);
                self.renew_at = Some(Instant::now() + RENEW_WAIT_MIN);
            }
        }
    }

    fn bring_token(&mut self) {
        let Some(token) = &self.token else { return };
        let frame = serde_json::json!({"id": "auth", "auth": {"token": token}}).to_string();
        if self.writer.try_send(Message::text(frame)).is_err() {
            self.renew_at = Some(Instant::now() + RENEW_WAIT_MIN);
        }
    }

    fn handle_message(&mut self, message: Option<Result<Message, Error>>) -> Result<Option<Utf8Bytes>, Lost> {
        match message {
            Some(Ok(Message::Text(text))) => {
                let is_told = self.handle_told(&text)?;
                Ok((!is_told).then_some(text))
            }
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                Err(Lost::closed(code.into(), &reason, self.refused.take()))
            }
            Some(Ok(Message::Close(None))) => Err(Lost::closed(1005, "", self.refused.take())),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(Lost::closed(1006, &error.to_string(), self.refused.take())),
            None => Err(Lost::closed(1006, "", self.refused.take())),
        }
    }

    /// Deals with a frame about the connection as a whole. Returns whether it was one.
    fn handle_told(&mut self, text: &str) -> Result<bool, Lost> {
        // Records are by far the most frequent frames.
        if text.starts_with("{\"source\"") || !(text.contains(AUTH_ID) || text.contains("\"error\"")) {
            return Ok(false);
        }
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return Ok(false) };
        let is_auth = envelope.id.is_some_and(|id| id.get() == AUTH_ID);
        if !is_auth && envelope.id.is_some() {
            return Ok(false);
        }
        match (envelope.error, envelope.result) {
            (Some(error), _) => {
                let error = AnodeError::from(error);
                self.options.report(&error);
                self.refused = Some(error);
                Ok(true)
            }
            (None, Some(AuthResult { expires })) if is_auth => {
                self.renew_at = expires.map(renewal_time);
                Ok(true)
            }
            _ => Ok(is_auth),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writing.abort();
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

/// Returns when to renew a token that ends at `expires_s`, in seconds since the Unix epoch.
fn renewal_time(expires_s: u64) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(expires_s).saturating_sub(now);
    let wait = left - left.mul_f64(RENEW_PART).min(RENEW_BEFORE);
    Instant::now() + wait.clamp(RENEW_WAIT_MIN, Duration::from_secs(86_400))
}

/// Waits for a task, or for ever if there is none.
async fn joined(
    task: &mut Option<JoinHandle<Result<Option<String>, AnodeError>>>,
) -> Result<Option<String>, AnodeError> {
    match task {
        None => std::future::pending().await,
        Some(task) => task.await.unwrap_or_else(|error| {
            Err(AnodeError::new("unauthorized", format!("no token could be had: {error}")).temporary())
        }),
    }
}

/// Writes frames to the socket as they come, and flushes it when there are no more. The reader notices its failures.
async fn write(mut sink: SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Message>) {
    while let Some(frame) = frames.recv().await {
        if sink.feed(frame).await.is_err() {
            return;
        }
        if frames.is_empty() && sink.flush().await.is_err() {
            return;
        }
    }
}
