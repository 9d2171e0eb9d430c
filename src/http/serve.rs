//! The thread of the control plane, and the connections on it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Sleep, sleep};

use super::Node;
use super::routes::router;
use crate::limits::HEAD_BYTES_MAX;

/// Connections of plain HTTP served at a time.
const CONNECTIONS_MAX: u32 = 1_024;
/// Silence, in both directions, after which a connection is closed: between requests, inside one,
/// and for a client that does not read its answer.
const IDLE: Duration = Duration::from_secs(30);
/// What one connection may buffer of its requests, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long requests under way may take to finish when the node goes, in microseconds.
pub const GRACE_US: u64 = 2_000_000;

/// A whole answer for those that [`HandOver::hand_over`] gives back.
pub const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 134\r\nConnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections\",\
    \"code\":\"overloaded\",\"temporary\":true}";

/// What the control plane is started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Largest body of a publish, in bytes.
    pub body_bytes_max: usize,
}

/// A connection whose first bytes were read elsewhere.
struct Handed {
    stream: TcpStream,
    head: Bytes,
    turn: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Killed,
}

/// The way into the control plane; one for every event loop.
#[derive(Clone, Debug)]
pub struct HandOver {
    sender: mpsc::Sender<Handed>,
    turns: Arc<Semaphore>,
}

impl HandOver {
    /// Takes over a connection of which `head` was read already. Gives it back when there are too
    /// many (answer it with [`BUSY`]) or the node is going.
    pub fn hand_over(&self, stream: TcpStream, head: Vec<u8>) -> Result<(), TcpStream> {
        let Ok(turn) = self.turns.clone().try_acquire_owned() else { return Err(stream) };
        let handed = Handed { stream, head: head.into(), turn };
        self.sender.try_send(handed).map_err(|error| match error {
            mpsc::error::TrySendError::Full(handed) | mpsc::error::TrySendError::Closed(handed) => {
                handed.stream
            }
        })
    }
}

/// The running control plane. Dropped without [`Http::stop`], it goes at once and cuts every
/// connection, as a killed process would.
#[derive(Debug)]
pub struct Http {
    hand_over: HandOver,
    phase: watch::Sender<Phase>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Starts the thread.
    pub fn start(node: Arc<dyn Node>, options: Options) -> io::Result<Http> {
        // One permit a connection, and room in the channel for each: sending never fails for want
        // of room.
        let (sender, receiver) = mpsc::channel(CONNECTIONS_MAX as usize);
        let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        let (phase, watched) = watch::channel(Phase::Serving);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .thread_keep_alive(IDLE)
            .build()?;
        let router = router(node.clone(), options.body_bytes_max);
        let all = turns.clone();
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(serve_all(node, router, receiver, watched, all));
            runtime.shutdown_background();
        })?;
        let hand_over = HandOver { sender, turns };
        Ok(Http { hand_over, phase, thread: Some(thread) })
    }

    /// The way in.
    pub fn hand_over(&self) -> HandOver {
        self.hand_over.clone()
    }

    /// Begins to end: no further connection is taken, and requests under way have [`GRACE_US`] to
    /// finish. Does not wait; [`Http::stop`] does.
    pub fn drain(&self) {
        let _ = self.phase.send(Phase::Draining);
    }

    /// Finishes the requests under way, for [`GRACE_US`] since [`Http::drain`] at most, and ends the
    /// thread.
    pub fn stop(mut self) {
        self.end(Phase::Draining);
    }

    fn end(&mut self, phase: Phase) {
        // An error means that the thread has ended already.
        let _ = self.phase.send(phase);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(Phase::Killed);
        }
    }
}

async fn serve_all(
    node: Arc<dyn Node>,
    router: Router,
    mut receiver: mpsc::Receiver<Handed>,
    watched: watch::Receiver<Phase>,
    turns: Arc<Semaphore>,
) {
    let mut phase = watched.clone();
    // A vanished owner is one that was killed.
    let mut ending = pin!(async move {
        phase.wait_for(|phase| *phase != Phase::Serving).await.map_or(Phase::Killed, |phase| *phase)
    });
    let ended_by = loop {
        let next = poll_fn(|cx| match ending.as_mut().poll(cx) {
            Poll::Ready(phase) => Poll::Ready(Err(phase)),
            Poll::Pending => receiver.poll_recv(cx).map(|handed| handed.ok_or(Phase::Draining)),
        });
        match next.await {
            Ok(handed) => {
                tokio::spawn(serve_one(node.clone(), router.clone(), handed, watched.clone()));
            }
            Err(phase) => break phase,
        }
    };
    receiver.close();
    drop(receiver);
    if ended_by == Phase::Draining {
        // All permits back: no connection is left. What is left after the grace is cut.
        let _ =
            tokio::time::timeout(Duration::from_micros(GRACE_US), turns.acquire_many(CONNECTIONS_MAX)).await;
    }
}

/// One connection, from the bytes that were read elsewhere to its end.
async fn serve_one(node: Arc<dyn Node>, router: Router, handed: Handed, mut watched: watch::Receiver<Phase>) {
    let Handed { stream, head, turn: _turn } = handed;
    let stream = match nonblocking(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection was lost when it was handed over"),
    };
    let open = &node.metrics().connections.http;
    open.add(1);
    let io = TokioIo::new(Replayed::new(head, stream));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(io, TowerToHyperService::new(router))
    );
    let mut ending = pin!(watched.wait_for(|phase| *phase != Phase::Serving));
    let mut is_ending = false;
    let ended = poll_fn(|cx| {
        if !is_ending && ending.as_mut().poll(cx).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        // The peer's doing: a malformed request (answered 400), a timeout, a reset.
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    open.add(-1);
}

fn nonblocking(stream: TcpStream) -> io::Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

/// A stream that first gives back what was read from it already, and that ends when nothing moves.
struct Replayed {
    head: Bytes,
    stream: tokio::net::TcpStream,
    /// Fires every [`IDLE`]; if nothing moved since the last time, that was too long.
    idle: Pin<Box<Sleep>>,
    has_moved: bool,
}

impl Replayed {
    fn new(head: Bytes, stream: tokio::net::TcpStream) -> Replayed {
        Replayed { head, stream, idle: Box::pin(sleep(IDLE)), has_moved: false }
    }

    /// Passes on what became of a read or write; a pending one fails when it is pending too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.has_moved = true;
            return polled;
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.has_moved) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.idle = Box::pin(sleep(IDLE));
        }
        Poll::Pending
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.head.is_empty() {
            let count = this.head.len().min(buffer.remaining());
            buffer.put_slice(&this.head.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.watch(cx, polled)
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
