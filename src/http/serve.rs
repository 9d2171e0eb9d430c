//! The thread of the control plane, and the connections on it.
//!
//! A connection comes with everything that belongs to it: see [`super::stream`].

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::NodeService;
use super::routes::router;
use super::stream::{ClientSocket, ClientStream, IDLE, SocketLayer};
use crate::limits::REQUEST_HEAD_BYTES_MAX;

/// Number of connections that are served at a time.
const CONNECTIONS_MAX: u32 = 1_024;
/// Number of bytes of its requests that one connection may buffer.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Time that requests under way have to finish when the node shuts down, in microseconds.
pub const GRACE_US: u64 = 2_000_000;

/// The settings of the control plane.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    /// Largest body of a publish, in bytes.
    pub body_bytes_max: usize,
}

/// A connection that an event loop has handed over, with the bytes that the loop has read already.
struct Handed<L> {
    socket: ClientSocket<L>,
    read: Vec<u8>,
    /// The connection's share of [`CONNECTIONS_MAX`], held until the connection ends.
    permit: OwnedSemaphorePermit,
}

/// The phase of the control plane: it serves, finishes the requests under way, or ends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServePhase {
    Serving,
    Draining,
    Killed,
}

/// The way by which an event loop hands connections to the control plane. Every event loop has one.
#[derive(Debug)]
pub struct HandOver<L> {
    sender: mpsc::Sender<Handed<L>>,
    permits: Arc<Semaphore>,
}

/// A place in the control plane that is reserved for one connection. If it is dropped unused, it is free
/// again.
pub struct Reservation<L> {
    sender: mpsc::OwnedPermit<Handed<L>>,
    permit: OwnedSemaphorePermit,
}

impl<L: SocketLayer> HandOver<L> {
    /// Reserves a place for a connection. Returns `None` if there are too many connections, or if the node is
    /// shutting down.
    pub fn reserve(&self) -> Option<Reservation<L>> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let sender = self.sender.clone().try_reserve_owned().ok()?;
        Some(Reservation { sender, permit })
    }
}

impl<L> Clone for HandOver<L> {
    fn clone(&self) -> HandOver<L> {
        HandOver { sender: self.sender.clone(), permits: self.permits.clone() }
    }
}

impl<L: SocketLayer> Reservation<L> {
    /// Hands over a connection from which `read` was read already. Its socket must not be registered with the
    /// poll of an event loop any longer.
    pub fn take_over(self, socket: ClientSocket<L>, read: Vec<u8>) {
        self.sender.send(Handed { socket, read, permit: self.permit });
    }
}

/// The running control plane. Dropped without [`Http::stop`], it ends at once and cuts every connection, as a
/// killed process would.
#[derive(Debug)]
pub struct Http<L> {
    hand_over: HandOver<L>,
    phase: watch::Sender<ServePhase>,
    thread: Option<JoinHandle<()>>,
}

impl<L: SocketLayer> Http<L> {
    /// Starts the thread.
    pub fn start(node: Arc<dyn NodeService>, options: HttpOptions) -> io::Result<Http<L>> {
        // The channel has room for as many connections as there are permits, so whoever has a permit finds
        // room.
        let (sender, receiver) = mpsc::channel(CONNECTIONS_MAX as usize);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        let (phase, watched) = watch::channel(ServePhase::Serving);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .thread_keep_alive(IDLE)
            .build()?;
        let router = router(node.clone(), options.body_bytes_max);
        let all = permits.clone();
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(serve_all(node, router, receiver, watched, all));
            runtime.shutdown_background();
        })?;
        let hand_over = HandOver { sender, permits };
        Ok(Http { hand_over, phase, thread: Some(thread) })
    }

    /// Returns a way into the control plane, for an event loop.
    pub fn hand_over(&self) -> HandOver<L> {
        self.hand_over.clone()
    }

    /// Begins the shutdown: no further connection is taken, and requests under way have [`GRACE_US`] to
    /// finish. Does not wait; [`Http::stop`] does.
    pub fn drain(&self) {
        let _ = self.phase.send(ServePhase::Draining);
    }

    /// Waits until the requests under way are finished, at most [`GRACE_US`] after [`Http::drain`], and ends
    /// the thread.
    pub fn stop(mut self) {
        self.end(ServePhase::Draining);
    }
}

impl<L> Http<L> {
    fn end(&mut self, phase: ServePhase) {
        // An error means that the thread has ended already.
        let _ = self.phase.send(phase);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

impl<L> Drop for Http<L> {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(ServePhase::Killed);
        }
    }
}

/// Serves every connection that is handed over, until the control plane is to end.
async fn serve_all<L: SocketLayer>(
    node: Arc<dyn NodeService>,
    router: Router,
    mut receiver: mpsc::Receiver<Handed<L>>,
    watched: watch::Receiver<ServePhase>,
    permits: Arc<Semaphore>,
) {
    let mut phase = watched.clone();
    // If the sender was dropped without a message, the node was killed.
    let mut ending = pin!(async move {
        phase.wait_for(|phase| *phase != ServePhase::Serving).await.map_or(ServePhase::Killed, |phase| *phase)
    });
    let ended_by = loop {
        let next = poll_fn(|cx| match ending.as_mut().poll(cx) {
            Poll::Ready(phase) => Poll::Ready(Err(phase)),
            Poll::Pending => receiver.poll_recv(cx).map(|handed| handed.ok_or(ServePhase::Draining)),
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
    if ended_by == ServePhase::Draining {
        // Once all permits are back, no connection is left. Those that are left after the grace are cut.
        let _ = tokio::time::timeout(Duration::from_micros(GRACE_US), permits.acquire_many(CONNECTIONS_MAX))
            .await;
    }
}

/// Serves one connection, from the bytes that were read elsewhere to its end.
async fn serve_one<L: SocketLayer>(
    node: Arc<dyn NodeService>,
    router: Router,
    handed: Handed<L>,
    mut watched: watch::Receiver<ServePhase>,
) {
    let Handed { socket, read, permit: _permit } = handed;
    let stream = match ClientStream::new(socket, read) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection was lost when it was handed over"),
    };
    let open = &node.metrics().connections.http;
    open.add(1);
    let io = TokioIo::new(stream);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_header_size(REQUEST_HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(io, TowerToHyperService::new(router))
    );
    let mut ending = pin!(watched.wait_for(|phase| *phase != ServePhase::Serving));
    let mut is_ending = false;
    let ended = poll_fn(|cx| {
        if !is_ending && ending.as_mut().poll(cx).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        // The client is the cause: a malformed request (answered 400), a timeout, a reset.
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    open.add(-1);
}
