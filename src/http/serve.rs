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
use axum::body::HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::NodeService;
use super::app::HttpOptions;
use super::buffers::connections_max;
use super::exchange::{AnswerBody, Exchanges};
use super::places::{Places, Seat};
use super::routes::router;
use super::stream::{ClientSocket, ClientStream, SocketLayer};
use super::upgrade::ProtocolChange;
use crate::auth::{AddressPlace, Peer};
use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};

/// Bytes of memory that the bodies of publishes may take together, however small they may be each.
const BODIES_BYTES: usize = 64 * 1024 * 1024;
/// Number of the largest bodies that may be held at a time.
const LARGEST_BODIES: usize = 8;
/// The part of all places that WebSockets of GraphQL may have, which keep theirs: a quarter.
const SOCKETS_PART: usize = 4;
/// Number of threads for work that may take long.
const BLOCKING_THREADS: usize = 2;
/// Time for the head of a request to come, from the end of the exchange before it.
pub const IDLE: Duration = Duration::from_secs(30);
/// Number of bytes that hyper may buffer of the requests of one connection, which a head as long as it may be must fit
/// into, and from which on it asks for no more of an answer.
const BUFFER_BYTES_MAX: usize = 2 * REQUEST_HEAD_BYTES_MAX;
/// Time that requests under way have to finish when the node shuts down, in microseconds.
pub const GRACE_US: u64 = 2_000_000;

/// A connection that an event loop has handed over, with the bytes that the loop has read already.
struct Handed<L> {
    socket: ClientSocket<L>,
    read: Vec<u8>,
    client: HandedClient,
    place: OwnedSemaphorePermit,
}

/// The client of a connection that is handed over: what is known of it, and its place among the connections of its
/// address.
pub type HandedClient = (Peer, Option<AddressPlace>);

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
    places: Arc<Places>,
}

/// A place in the control plane that is reserved for one connection. If it is dropped unused, it is free
/// again.
pub struct Reservation<L> {
    sender: mpsc::OwnedPermit<Handed<L>>,
    place: OwnedSemaphorePermit,
}

impl<L: SocketLayer> HandOver<L> {
    /// Reserves a place for a connection: if no place is free, that of the connection that has waited for
    /// its client longest. Returns `None` if as many requests as possible are being worked on, or if the
    /// node is shutting down.
    pub fn reserve(&self) -> Option<Reservation<L>> {
        let sender = self.sender.clone().try_reserve_owned().ok()?;
        let place = self.places.take()?;
        Some(Reservation { sender, place })
    }
}

impl<L> Clone for HandOver<L> {
    fn clone(&self) -> HandOver<L> {
        HandOver { sender: self.sender.clone(), places: self.places.clone() }
    }
}

impl<L: SocketLayer> Reservation<L> {
    /// Hands over a connection from which `read` was read already. Its socket must not be registered with the
    /// poll of an event loop any longer.
    pub fn take_over(self, socket: ClientSocket<L>, read: Vec<u8>, client: HandedClient) {
        self.sender.send(Handed { socket, read, client, place: self.place });
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
        // The channel has room for as many connections as there are places.
        let connections_max = connections_max(node.memory(), options.layer_bytes_max);
        let (sender, receiver) = mpsc::channel(connections_max as usize);
        let body_bytes_max = BODIES_BYTES.max(LARGEST_BODIES * options.body_bytes_max);
        let places = Arc::new(Places::new(connections_max, body_bytes_max, node.memory().clone()));
        let (phase, watched) = watch::channel(ServePhase::Serving);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(IDLE)
            .build()?;
        let sockets_max = connections_max as usize / SOCKETS_PART;
        let router = router(node.clone(), options, sockets_max);
        let served = Served { node, router, watched, places: places.clone() };
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(serve_all(served, receiver));
            runtime.shutdown_background();
        })?;
        let hand_over = HandOver { sender, places };
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

/// The node, the router and the settings that all connections of the control plane share.
#[derive(Clone)]
struct Served {
    node: Arc<dyn NodeService>,
    router: Router,
    watched: watch::Receiver<ServePhase>,
    places: Arc<Places>,
}

/// Serves every connection that is handed over, until the control plane is to end.
async fn serve_all<L: SocketLayer>(served: Served, mut receiver: mpsc::Receiver<Handed<L>>) {
    let mut phase = served.watched.clone();
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
                tokio::spawn(serve_one(served.clone(), handed));
            }
            Err(phase) => break phase,
        }
    };
    receiver.close();
    if ended_by == ServePhase::Draining {
        // A connection that was handed over before the end holds a request, which is answered.
        while let Ok(handed) = receiver.try_recv() {
            tokio::spawn(serve_one(served.clone(), handed));
        }
        // Connections that are left after the grace are cut.
        let _ = tokio::time::timeout(Duration::from_micros(GRACE_US), served.places.wait_empty()).await;
    }
}

/// Gives up what a connection holds when it ends, however it ends.
struct Leaving {
    node: Arc<dyn NodeService>,
    seat: Arc<Seat>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.seat.leave();
        self.node.metrics().connections.http.add(-1);
    }
}

/// Becomes ready when the control plane is to end.
async fn ending_of(mut watched: watch::Receiver<ServePhase>) {
    // An error means that the node was killed.
    let _ = watched.wait_for(|phase| *phase != ServePhase::Serving).await;
}

/// Serves one connection, from the bytes that were read elsewhere to its end.
async fn serve_one<L: SocketLayer>(served: Served, handed: Handed<L>) {
    // To begin and to end a connection takes some hundred microseconds of this thread. Where there are few processors,
    // an event loop that has a record to pass on would wait for it until the system takes the processor away.
    std::thread::yield_now();
    let Served { node, router, watched, places } = served;
    let Handed { socket, read, client: (peer, _address_place), place } = handed;
    let seat = Arc::new(Seat::new(places, place));
    node.metrics().connections.http.add(1);
    let _leaving = Leaving { node: node.clone(), seat: seat.clone() };
    let exchanges = Arc::new(Exchanges::default());
    let stream = match ClientStream::new(socket, read, node.clone(), seat.clone(), exchanges.clone()) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection was lost when it was handed over"),
    };
    let change = Arc::new(ProtocolChange::default());
    let of_connection = (seat.clone(), Arc::new(peer), change.clone());
    let service = answering(router, of_connection, exchanges.clone());
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            // A client that has ended its side may still wait for its answer.
            .half_close(true)
            .max_headers(REQUEST_HEADERS_MAX)
            .max_header_size(REQUEST_HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut ending = pin!(ending_of(watched.clone()));
    let mut cut = pin!(seat.wait_cut());
    let (mut is_ending, mut is_cut) = (false, false);
    let ended = poll_fn(|cx| {
        loop {
            // First of all the request that came with the connection is read: otherwise the connection
            // would seem idle, and end without an answer.
            let served = connection.as_mut().poll(cx);
            if served.is_ready() {
                return served;
            }
            let is_cut_now = !is_cut && cut.as_mut().poll(cx).is_ready();
            let is_ending_now = !is_ending && ending.as_mut().poll(cx).is_ready();
            if is_cut_now {
                node.metrics().http_cuts.place.increment();
            }
            is_cut |= is_cut_now;
            is_ending |= is_ending_now;
            if !is_cut_now && !is_ending_now {
                return Poll::Pending;
            }
            connection.as_mut().graceful_shutdown();
        }
    });
    if let Err(error) = ended.await {
        // The client is the cause: a malformed request (answered 400), a timeout, a reset.
        return tracing::debug!(%error, "an HTTP connection ended early");
    }
    if let Some((upgrade, speak)) = change.take() {
        exchanges.handle_changed();
        // Nobody waits for the client of a connection that both sides write to.
        seat.end_waiting();
        match upgrade.await {
            Ok(upgraded) => speak(upgraded, Box::pin(ending_of(watched))).await,
            Err(error) => tracing::debug!(%error, "a connection was lost while it changed protocols"),
        }
    }
}

/// The service of one connection: passes requests on to the paths, and keeps account of the exchanges.
fn answering(
    router: Router,
    (seat, peer, change): (Arc<Seat>, Arc<Peer>, Arc<ProtocolChange>),
    exchanges: Arc<Exchanges>,
) -> impl Service<
    hyper::Request<Incoming>,
    Response = hyper::Response<AnswerBody>,
    Error = std::convert::Infallible,
    Future = impl Future<Output = Result<hyper::Response<AnswerBody>, std::convert::Infallible>> + Send,
> {
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: hyper::Request<Incoming>| {
        exchanges.handle_asked();
        // A client is waited for until its body has come.
        match request.body().is_end_stream() {
            true => seat.end_waiting(),
            false => seat.begin_waiting(),
        }
        request.extensions_mut().insert(seat.clone());
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(change.clone());
        let (answer, seat, exchanges) = (router.call(request), seat.clone(), exchanges.clone());
        async move {
            let response = answer.await?;
            seat.end_waiting();
            Ok(response.map(|body| AnswerBody::new(body, exchanges)))
        }
    })
}
