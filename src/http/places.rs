//! The places of connections in the control plane, and the memory of the bodies that arrive on them.
//!
//! A connection has a place from when it is handed over until it ends. While the node waits for the client
//! (for its next request, for the rest of a body, or until it has read an answer), the connection lends its
//! place: if another connection needs one and none is free, the one that has waited for its client longest
//! is *cut*. So no number of idle or slow clients keeps others out, and a client that only takes the time
//! its request takes is not the one that has waited longest.
//!
//! The memory of bodies is bounded in the same way: when the bodies that are held need more than
//! [`Places::new`] was told, the one that has been arriving longest is cut.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::memory::{Budget, Lease};

/// The places of all connections of a control plane. The event loops take them, the connections give them
/// back.
#[derive(Debug)]
pub(super) struct Places {
    permits: Arc<Semaphore>,
    lent: Mutex<Lent>,
    connections_max: u32,
    body_bytes_max: usize,
    /// The memory of which the bodies are a part.
    memory: Arc<Budget>,
}

/// What connections lend while they wait for their clients. The numbers grow, so the first entry of a map
/// is the one that has waited longest.
#[derive(Debug, Default)]
struct Lent {
    next: u64,
    places: BTreeMap<u64, (OwnedSemaphorePermit, Arc<Seat>)>,
    bodies: BTreeMap<u64, (usize, Arc<Seat>)>,
    body_bytes: usize,
}

impl Lent {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The seat of one connection: its place, and whether it was cut.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    standing: Mutex<Standing>,
    is_cut: AtomicBool,
    cut: Notify,
    /// The socket of the client.
    client: OnceLock<Weak<TcpStream>>,
}

/// The place of a connection: with the connection itself, or lent under a number.
#[derive(Debug)]
enum Standing {
    Kept(OwnedSemaphorePermit),
    Lent(u64),
    /// The place went to another connection, or was given back.
    Gone,
}

impl Places {
    /// Makes free places for `connections_max` connections, whose bodies may take `body_bytes_max` bytes
    /// together, and no more than a quarter of the memory for clients.
    pub(super) fn new(connections_max: u32, body_bytes_max: usize, memory: Arc<Budget>) -> Places {
        let body_bytes_max = body_bytes_max.min(memory.limit() / 4);
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        Places { permits, lent: Mutex::default(), connections_max, body_bytes_max, memory }
    }

    /// Takes a place: a free one, or that of the connection that has waited for its client longest, which
    /// is cut. Returns `None` if every connection is being served.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        let (_, (permit, seat)) = self.lent.lock().places.pop_first()?;
        seat.set_cut();
        Some(permit)
    }

    /// Waits until no connection is left.
    pub(super) async fn wait_empty(&self) {
        // An error would mean that the semaphore was closed, which nobody does.
        let _ = self.permits.acquire_many(self.connections_max).await;
    }
}

impl Seat {
    /// The seat of a connection that has just been handed over with its place.
    pub(super) fn new(places: Arc<Places>, place: OwnedSemaphorePermit) -> Seat {
        let standing = Mutex::new(Standing::Kept(place));
        Seat { places, standing, is_cut: AtomicBool::new(false), cut: Notify::new(), client: OnceLock::new() }
    }

    /// Notes the socket of the client. To be called once.
    pub(super) fn set_client(&self, socket: &Arc<TcpStream>) {
        let is_first = self.client.set(Arc::downgrade(socket)).is_ok();
        debug_assert!(is_first, "a connection has one socket");
    }

    /// Returns whether the client has ended its side of the connection, or all of it: the two cannot be told apart
    /// until something is sent.
    pub(super) fn has_client_ended(&self) -> bool {
        let Some(socket) = self.client.get() else { return false };
        let Some(socket) = socket.upgrade() else { return true };
        let polled = pin!(socket.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Notes that the client is waited for from now on.
    pub(super) fn begin_waiting(self: &Arc<Seat>) {
        let mut standing = self.standing.lock();
        self.take_back(&mut standing);
        *standing = match std::mem::replace(&mut *standing, Standing::Gone) {
            Standing::Kept(place) => {
                let mut lent = self.places.lent.lock();
                let number = lent.number();
                lent.places.insert(number, (place, self.clone()));
                Standing::Lent(number)
            }
            gone => gone,
        };
    }

    /// Notes that the client is not waited for: its request is being worked on.
    pub(super) fn end_waiting(&self) {
        self.take_back(&mut self.standing.lock());
    }

    /// Gives the place back, at the end of the connection.
    pub(super) fn leave(&self) {
        let mut standing = self.standing.lock();
        self.take_back(&mut standing);
        *standing = Standing::Gone;
    }

    fn take_back(&self, standing: &mut Standing) {
        if let Standing::Lent(number) = *standing {
            *standing = match self.places.lent.lock().places.remove(&number) {
                Some((place, _)) => Standing::Kept(place),
                None => Standing::Gone,
            };
        }
    }

    /// Returns whether the connection is to end because its place or its memory was needed.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// Waits until the connection is cut.
    pub(super) async fn wait_cut(&self) {
        self.cut.notified().await;
    }

    fn set_cut(&self) {
        self.is_cut.store(true, Relaxed);
        self.cut.notify_one();
    }

    /// Begins to hold a body.
    pub(super) fn hold_body(self: &Arc<Seat>) -> HeldBody {
        let mut lent = self.places.lent.lock();
        let number = lent.number();
        lent.bodies.insert(number, (0, self.clone()));
        HeldBody { seat: self.clone(), number, bytes: Vec::new(), lease: self.places.memory.lease() }
    }
}

/// The body of a request, as far as it has arrived. Its memory is counted until it is dropped.
#[derive(Debug)]
pub(super) struct HeldBody {
    seat: Arc<Seat>,
    number: u64,
    bytes: Vec<u8>,
    lease: Lease,
}

impl HeldBody {
    /// The bytes that have arrived.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends bytes that have arrived. If bodies now need more memory than they may, those that have been
    /// arriving longest are cut.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let before = self.bytes.capacity();
        self.bytes.extend_from_slice(bytes);
        let more = self.bytes.capacity() - before;
        if more == 0 {
            return;
        }
        // Bodies make room for each other and are never refused. They are counted, so that others leave room.
        let _ = self.lease.resize(self.bytes.capacity(), 0);
        let places = &self.seat.places;
        let lent = &mut *places.lent.lock();
        // A body that was cut is not counted any longer.
        let Some((held, _)) = lent.bodies.get_mut(&self.number) else { return };
        *held += more;
        lent.body_bytes += more;
        while lent.body_bytes > places.body_bytes_max {
            let Some((_, (held, seat))) = lent.bodies.pop_first() else { break };
            lent.body_bytes -= held;
            seat.set_cut();
        }
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        let lent = &mut *self.seat.places.lent.lock();
        if let Some((held, _)) = lent.bodies.remove(&self.number) {
            lent.body_bytes -= held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<Budget> {
        Arc::new(Budget::new(1 << 20, 1 << 20))
    }

    fn seat(places: &Arc<Places>) -> Option<Arc<Seat>> {
        Some(Arc::new(Seat::new(places.clone(), places.take()?)))
    }

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let places = Arc::new(Places::new(2, 100, memory()));
        let (one, two) = (seat(&places).expect("free"), seat(&places).expect("free"));
        assert!(seat(&places).is_none(), "both are served");
        one.begin_waiting();
        two.begin_waiting();
        one.begin_waiting();
        let three = seat(&places).expect("lent");
        assert!(two.is_cut() && !one.is_cut());
        one.end_waiting();
        assert!(seat(&places).is_none(), "one is served again");
        two.end_waiting();
        two.begin_waiting();
        assert!(seat(&places).is_none(), "two has no place to lend");
        two.leave();
        assert!(seat(&places).is_none());
        three.leave();
        assert!(seat(&places).is_some());
        one.leave();
        assert!(places.lent.lock().places.is_empty());
    }

    #[test]
    fn the_body_that_has_been_arriving_longest_makes_room() {
        let places = Arc::new(Places::new(3, 100, memory()));
        let seats = [(); 3].map(|()| seat(&places).expect("free"));
        let [mut one, mut two, mut three] = seats.each_ref().map(Seat::hold_body);
        two.extend(&[0; 40]);
        one.extend(&[0; 40]);
        assert_eq!(places.lent.lock().body_bytes, 80);
        three.extend(&[0; 40]);
        assert_eq!(seats.each_ref().map(|seat| seat.is_cut()), [true, false, false]);
        one.extend(&[0; 1000]);
        assert_eq!(places.lent.lock().body_bytes, 80, "what was cut is not counted");
        drop((one, two));
        assert_eq!(places.lent.lock().body_bytes, 40);
        three.extend(&[0; 1000]);
        assert!(seats[2].is_cut(), "one body alone is over the bound");
        drop(three);
        let lent = places.lent.lock();
        assert_eq!((lent.body_bytes, lent.bodies.len()), (0, 0));
    }
}
