//! A WebSocket of GraphQL, from the request for it to its close.
//!
//! One task reads the client's messages, runs its operations and sends their answers, one after the other. While an
//! answer waits for the client, nothing is read from it and no operation goes on; a client that takes less than the least
//! rate is cut ([`crate::http::pace`]).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::Value;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::errors::of_request;
use super::messages::{self, AckPayload, SocketClose, SocketMessage};
use super::operations::{OPERATIONS_MAX, OperationEvent, Operations};
use super::requester::Requester;
use super::schema::Engine;
use crate::auth::{ANONYMOUS, Access, Peer, SessionEntry};
use crate::http::app::App;
use crate::http::upgrade::Ending;
use crate::limits::{AUTH_FRAME_US_MAX, PING_US, PONG_US_MAX};
use crate::memory::Lease;
use crate::protocol::refusal::{Code, Refusal};

/// Largest message of a client, in bytes. Larger requests come by POST.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Bytes that are read from a client at a time.
const SOCKET_READ_BYTES: usize = 4 * 1024;
/// Memory of a WebSocket, in bytes: a message that is being read, and the buffers. Answers come to it.
pub(super) const SOCKET_BYTES: usize = MESSAGE_BYTES_MAX + 32 * 1024;
/// Time for which the client's answer to a close is waited for.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Longest reason of a close, in bytes (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;
/// Longest time between two looks at the end of an access, because the wall clock may be set.
const EXPIRY_LOOK: Duration = Duration::from_secs(60);

/// What a WebSocket begins with.
pub(super) struct SocketStart {
    pub(super) app: App,
    pub(super) engine: Arc<Engine>,
    pub(super) peer: Arc<Peer>,
    pub(super) entry: SessionEntry,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) lease: Lease,
}

/// One WebSocket of GraphQL.
struct GraphqlSocket {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    app: App,
    engine: Arc<Engine>,
    peer: Arc<Peer>,
    entry: SessionEntry,
    /// Who the client is, since the connection was acknowledged.
    requester: Option<Requester>,
    operations: Operations,
    /// The time by which the first message must have come, until it has.
    init: Option<Pin<Box<Sleep>>>,
    /// The time at which to look whether the access has ended.
    expiry: Option<Pin<Box<Sleep>>>,
    /// The time after which a silent client is pinged, or closed if it was pinged.
    silence: Pin<Box<Sleep>>,
    is_pinged: bool,
    _permit: OwnedSemaphorePermit,
    _lease: Lease,
}

/// The next thing that happens on a WebSocket.
enum SocketStep {
    Incoming(Option<Result<Message, Error>>),
    Answer(OperationEvent),
    Ending,
    InitLate,
    ExpiryDue,
    Silent,
}

/// How a WebSocket ends.
enum SocketEnd {
    /// The node closes it.
    Close(SocketClose),
    /// The client has closed it, or is gone.
    Gone,
}

impl From<SocketClose> for SocketEnd {
    fn from(close: SocketClose) -> SocketEnd {
        SocketEnd::Close(close)
    }
}

/// Counts a WebSocket as one of GraphQL instead of HTTP, until it is dropped.
struct CountedSocket(App);

impl CountedSocket {
    fn new(app: App) -> CountedSocket {
        let connections = &app.node.metrics().connections;
        connections.http.add(-1);
        connections.graphql.add(1);
        CountedSocket(app)
    }
}

impl Drop for CountedSocket {
    fn drop(&mut self) {
        let connections = &self.0.node.metrics().connections;
        connections.graphql.add(-1);
        connections.http.add(1);
    }
}

/// Speaks GraphQL on a connection that has changed to WebSocket, to its end. `ending` becomes ready when the node stops.
pub(super) async fn speak(upgraded: Upgraded, start: SocketStart, mut ending: Ending) {
    let _counted = CountedSocket::new(start.app.clone());
    let mut config = WebSocketConfig::default().read_buffer_size(SOCKET_READ_BYTES).write_buffer_size(0);
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    let io = TokioIo::new(upgraded);
    let SocketStart { app, engine, peer, entry, permit, lease } = start;
    let mut socket = GraphqlSocket {
        socket: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
        app,
        engine,
        peer,
        entry,
        requester: None,
        operations: Operations::default(),
        init: Some(Box::pin(sleep(Duration::from_micros(AUTH_FRAME_US_MAX)))),
        expiry: None,
        silence: Box::pin(sleep(Duration::from_micros(PING_US))),
        is_pinged: false,
        _permit: permit,
        _lease: lease,
    };
    let end = loop {
        let step = socket.next_step(&mut ending).await;
        if let Err(end) = socket.handle(step).await {
            break end;
        }
    };
    // The subscriptions end first, so that the event loops do not write to them any longer.
    socket.operations = Operations::default();
    // A client that is gone, or does not answer, is cut.
    let _ = tokio::time::timeout(CLOSE_WAIT, socket.end(end)).await;
}

/// Becomes ready at a time, if there is one.
async fn at(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.await,
        None => std::future::pending().await,
    }
}

impl GraphqlSocket {
    async fn next_step(&mut self, ending: &mut Ending) -> SocketStep {
        let has_operations = !self.operations.is_empty();
        tokio::select! {
            () = ending => SocketStep::Ending,
            () = at(&mut self.init) => SocketStep::InitLate,
            () = at(&mut self.expiry) => SocketStep::ExpiryDue,
            () = &mut self.silence => SocketStep::Silent,
            incoming = self.socket.next() => SocketStep::Incoming(incoming),
            Some(event) = self.operations.next(), if has_operations => SocketStep::Answer(event),
        }
    }

    async fn handle(&mut self, step: SocketStep) -> Result<(), SocketEnd> {
        match step {
            SocketStep::Ending => Err(SocketClose::draining().into()),
            SocketStep::InitLate => Err(SocketClose::init_late().into()),
            SocketStep::ExpiryDue => {
                let access = self.requester.as_ref().and_then(Requester::access).cloned();
                self.check_expiry(access.as_ref()).map_err(SocketEnd::Close)
            }
            SocketStep::Silent if self.is_pinged => Err(SocketClose::no_pong().into()),
            SocketStep::Silent => {
                self.is_pinged = true;
                self.silence = Box::pin(sleep(Duration::from_micros(PONG_US_MAX - PING_US)));
                self.send(Message::Ping(Bytes::new())).await
            }
            SocketStep::Answer(event) => self.handle_answer(event).await,
            SocketStep::Incoming(incoming) => {
                self.is_pinged = false;
                self.silence = Box::pin(sleep(Duration::from_micros(PING_US)));
                self.handle_incoming(incoming).await
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), SocketEnd> {
        self.socket.send(message).await.map_err(|error| {
            tracing::debug!(%error, "a client of GraphQL is gone");
            SocketEnd::Gone
        })
    }

    async fn send_text(&mut self, text: String) -> Result<(), SocketEnd> {
        self.send(Message::text(text)).await
    }

    async fn handle_incoming(&mut self, incoming: Option<Result<Message, Error>>) -> Result<(), SocketEnd> {
        let error = match incoming {
            None | Some(Ok(Message::Close(_))) => return Err(SocketEnd::Gone),
            Some(Ok(Message::Text(text))) => return self.handle_text(text.as_str()).await,
            Some(Ok(Message::Binary(_))) => {
                return Err(SocketClose::invalid("Invalid message: messages are text").into());
            }
            // tungstenite answers pings by itself.
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => error,
        };
        let (number, reason) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => (1009, "the message is too large"),
            Error::Utf8(_) => (1007, "the text is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Err(SocketEnd::Gone),
            Error::Protocol(_) => (1002, "the frame is not one of WebSocket"),
            _ => return Err(SocketEnd::Gone),
        };
        Err(SocketClose { number, reason: reason.into() }.into())
    }

    async fn handle_text(&mut self, text: &str) -> Result<(), SocketEnd> {
        match messages::read(text)? {
            SocketMessage::Init(_) if self.init.is_none() => Err(SocketClose::repeated_init().into()),
            SocketMessage::Init(token) => self.handle_init(token.as_deref()).await,
            SocketMessage::Ping(payload) => self.send_text(messages::pong(payload)).await,
            SocketMessage::Pong => Ok(()),
            SocketMessage::Complete(id) => {
                self.operations.stop(&id);
                Ok(())
            }
            SocketMessage::Subscribe(id, request) => self.handle_subscribe(&id, *request).await,
        }
    }

    async fn handle_init(&mut self, token: Option<&str>) -> Result<(), SocketEnd> {
        self.init = None;
        let access = self.identify(token).map_err(|refusal| {
            self.app.node.metrics().refused(refusal.code);
            SocketClose::forbidden(&refusal.message)
        })?;
        self.check_expiry(access.as_ref())?;
        let expires = access.as_ref().and_then(Access::expires_us).map(|expires_us| expires_us / 1_000_000);
        let name = access.as_ref().map_or(ANONYMOUS, Access::name);
        let ack = messages::connection_ack(AckPayload { node: self.app.node.name(), name, expires });
        let permits = self.engine.permits().clone();
        self.requester = Some(Requester::new(self.app.clone(), permits, access, self.peer.address));
        self.send_text(ack).await
    }

    /// Returns who the client is, by the token of its first message or what the request for the WebSocket brought.
    fn identify(&self, token: Option<&str>) -> Result<Option<Access>, Refusal> {
        let Some(auth) = self.app.node.door().auth() else { return Ok(None) };
        if let Some(token) = token {
            return auth.authenticate(token, self.peer.address, self.app.node.now()).map(Some);
        }
        match &self.entry {
            SessionEntry::Known(access) | SessionEntry::Unknown(Some(access)) => Ok(Some(access.clone())),
            SessionEntry::Open | SessionEntry::Unknown(None) => Err(Refusal::new(
                Code::Unauthorized,
                "this needs a token, in connection_init or at the upgrade",
            )),
        }
    }

    /// Closes the connection if the access has ended, or looks again when it may have.
    fn check_expiry(&mut self, access: Option<&Access>) -> Result<(), SocketClose> {
        let now = self.app.node.now();
        self.expiry = match access {
            Some(access) if access.is_over(now) => {
                self.app.node.metrics().refused(Code::Unauthorized);
                return Err(SocketClose::forbidden("the token has expired"));
            }
            Some(access) => access.expires_us().map(|expires_us| {
                let left = Duration::from_micros(expires_us.saturating_sub(now.wall_us));
                Box::pin(sleep(left.min(EXPIRY_LOOK)))
            }),
            None => None,
        };
        Ok(())
    }

    async fn handle_subscribe(&mut self, id: &str, request: async_graphql::Request) -> Result<(), SocketEnd> {
        self.judge_again()?;
        let Some(requester) = &self.requester else { return Err(SocketClose::unauthorized().into()) };
        if self.operations.contains(id) {
            return Err(SocketClose::duplicate(id).into());
        }
        let started = match self.operations.are_full() {
            true => {
                let message = format!("a connection has at most {OPERATIONS_MAX} operations at a time");
                Err(Refusal::new(Code::BadRequest, message))
            }
            false => {
                let requester = requester.for_request();
                self.engine.run(request, requester.clone()).map(|answers| (answers, requester))
            }
        };
        match started {
            Ok((answers, requester)) => {
                self.operations.start(id, answers, requester);
                Ok(())
            }
            Err(refusal) => {
                self.app.node.metrics().refused(refusal.code);
                self.send_text(messages::error(id, &[of_request(refusal)])).await
            }
        }
    }

    /// Judges the client by the file of rights as it is now, before it does something new.
    fn judge_again(&mut self) -> Result<(), SocketClose> {
        let (Some(auth), Some(requester)) = (self.app.node.door().auth(), &mut self.requester) else {
            return Ok(());
        };
        let Some(access) = requester.access() else { return Ok(()) };
        match auth.judge_again(access, self.app.node.now()) {
            Ok(access) => {
                requester.set_access(access);
                Ok(())
            }
            Err(refusal) => {
                self.app.node.metrics().refused(refusal.code);
                Err(SocketClose::forbidden(&refusal.message))
            }
        }
    }

    async fn handle_answer(&mut self, event: OperationEvent) -> Result<(), SocketEnd> {
        let OperationEvent { id, response } = event;
        let Some(mut response) = response else {
            self.operations.stop(&id);
            return self.send_text(messages::complete(&id)).await;
        };
        if self.requester.as_ref().is_some_and(Requester::is_flooding) {
            return Err(SocketClose::over_rate().into());
        }
        super::errors::give_codes(&mut response);
        let has_failed = !response.errors.is_empty() && response.data == Value::Null;
        let text = match has_failed {
            true => {
                self.operations.stop(&id);
                messages::error(&id, &response.errors)
            }
            false => messages::next(&id, &response),
        };
        if text.is_empty() {
            return Err(SocketClose::internal().into());
        }
        drop(response);
        self.send_text(text).await?;
        self.operations.handle_sent(&id);
        Ok(())
    }

    /// Tells the client why the connection is closed, or answers its own close, and waits for its end. What it still
    /// sends is read, because a socket that is closed with unread bytes resets the connection, and the close is lost.
    async fn end(&mut self, end: SocketEnd) -> Option<()> {
        if let SocketEnd::Close(close) = end {
            tracing::debug!(code = close.number, reason = %close.reason, "a client of GraphQL is closed");
            self.app.node.metrics().clients.closed(close.number);
            let mut reason = close.reason.into_owned();
            while reason.len() > REASON_BYTES_MAX {
                reason.pop();
            }
            let frame = CloseFrame { code: close.number.into(), reason: reason.into() };
            self.socket.send(Message::Close(Some(frame))).await.ok()?;
        }
        while let Some(Ok(_)) = self.socket.next().await {}
        let io = self.socket.get_mut();
        poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await.ok()?;
        let mut rest = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut rest);
            poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut buffer)).await.ok()?;
            if buffer.filled().is_empty() {
                return Some(());
            }
        }
    }
}
