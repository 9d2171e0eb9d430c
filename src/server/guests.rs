//! Subscribers that the control plane brings: sessions without a client of their own.
//!
//! A subscription of GraphQL is an ordinary subscriber of an event loop, at one end of a pair of local sockets. At the
//! other end, the control plane reads the WebSocket frames that a client on `/subscribe` would get, and makes events of
//! GraphQL of them. So the snapshot and its seam, the bounds of what waits, the rights and the budget of memory are the
//! same code for both, a record costs nothing more while there is no such subscriber, and the kernel holds the event
//! loop back when the control plane does not read.
//!
//! Rejected: a mailbox of the control plane, beside those of the workers. Every record would have to look at it, and all
//! that a subscriber is would exist twice.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use super::session::Session;

/// Bytes of frames that the kernel takes for the control plane, which the kernel doubles for its own needs. What waits
/// there cannot be replaced by newer values any more, so it is little.
const UNREAD_BYTES: usize = 16 * 1024;

/// A subscriber on its way to an event loop.
#[derive(Debug)]
pub struct Guest {
    /// The end of the pair of sockets that the event loop writes to. The type stands for any stream of bytes.
    pub socket: TcpStream,
    /// The session, which has been let in.
    pub session: Session,
    /// Address of the client behind the control plane.
    pub address: IpAddr,
}

/// The guests that wait for the workers.
#[derive(Debug)]
pub struct Guests {
    waiting: Vec<Waiting>,
    /// Number of guests that came so far, by which workers take turns.
    count: AtomicUsize,
}

/// The guests that wait for one worker.
#[derive(Debug, Default)]
struct Waiting {
    guests: Mutex<Vec<Guest>>,
    /// Copy of their number, to be read without the lock.
    len: AtomicUsize,
}

/// A pair of local sockets: the end for an event loop, and the one for the control plane. Neither blocks.
pub fn socket_pair() -> io::Result<(TcpStream, UnixStream)> {
    let (inner, outer) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    for socket in [&inner, &outer] {
        socket.set_nonblocking(true)?;
        socket.set_send_buffer_size(UNREAD_BYTES)?;
    }
    Ok((inner.into(), outer.into()))
}

impl Guests {
    /// No guests, for this number of workers.
    pub fn new(workers: usize) -> Guests {
        Guests { waiting: (0..workers).map(|_| Waiting::default()).collect(), count: AtomicUsize::new(0) }
    }

    /// A number that no guest had before, for the name of its session.
    pub fn number(&self) -> usize {
        self.count.fetch_add(1, Relaxed)
    }

    /// Lets a guest wait for the worker whose turn its number says. Returns the worker, which is to be woken.
    pub fn push(&self, number: usize, guest: Guest) -> usize {
        let worker = number % self.waiting.len().max(1);
        if let Some(waiting) = self.waiting.get(worker) {
            let mut guests = waiting.guests.lock();
            guests.push(guest);
            waiting.len.store(guests.len(), Relaxed);
        }
        worker
    }

    /// Takes the guests that wait for a worker. Whoever pushes one wakes the worker afterwards, so a worker that finds
    /// none takes another turn when one has come.
    pub fn take(&self, worker: usize) -> Vec<Guest> {
        match self.waiting.get(worker) {
            Some(waiting) if waiting.len.load(Relaxed) > 0 => {
                let mut guests = waiting.guests.lock();
                waiting.len.store(0, Relaxed);
                std::mem::take(&mut *guests)
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::server::framing::message::Codec;
    use crate::server::session::Endpoint;

    #[test]
    fn workers_get_guests_in_turns() {
        let guests = Guests::new(2);
        for expected in [0, 1, 0] {
            let (socket, _) = socket_pair().expect("a pair");
            let session =
                Session::open(Endpoint::Subscribe, Codec::Json, "source=a", "s".into()).expect("a session");
            let number = guests.number();
            let guest = Guest { socket, session, address: [127, 0, 0, 1].into() };
            assert_eq!(guests.push(number, guest), expected);
        }
        assert_eq!([0, 1, 1, 2].map(|worker| guests.take(worker).len()), [2, 1, 0, 0]);
    }

    #[test]
    fn the_kernel_takes_little_of_what_nobody_reads() {
        let (mut inner, mut outer) = socket_pair().expect("a pair");
        let mut taken = 0;
        while let Ok(bytes) = inner.write(&[7; 1024]) {
            taken += bytes;
        }
        assert!((1024..=4 * UNREAD_BYTES).contains(&taken), "{taken}");
        let mut buffer = [0; 1024];
        assert_eq!(outer.read(&mut buffer).expect("read"), 1024);
        drop(inner);
        outer.set_nonblocking(false).expect("blocking");
        let mut rest = Vec::new();
        outer.read_to_end(&mut rest).expect("read to the end");
        assert_eq!(rest.len() + 1024, taken);
    }
}
