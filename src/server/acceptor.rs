//! Listeners, and the port that clients connect to: one listener for each worker, all on the same port.
//!
//! With `SO_REUSEPORT` the kernel spreads connections over the workers' listeners, and no accepted
//! socket ever changes its thread. But such a listener does not notice that another program holds the
//! port. So the first one is bound and listens without it: that fails if anyone listens there. Then it
//! is opened to the others, which join it. Rejected: probing with a socket that is closed again, since
//! two nodes that start at the same moment could both pass.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

/// Number of connections that the kernel keeps until they are accepted, for each listener.
const CLIENT_BACKLOG: i32 = 4096;
/// Number of connections that a listener accepts in one turn, which takes some fifteen microseconds each.
const ACCEPTS_PER_TURN: usize = 16;
/// Pause in accepting after an error that would recur at once, such as a lack of file descriptors, in
/// microseconds.
const ACCEPT_PAUSE_US: u64 = 100_000;

/// Binds `count` listeners to one port. With port 0 the kernel chooses a free one.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.listen(CLIENT_BACKLOG)?;
    let taken = local_address(&first)?;
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let next = socket(taken)?;
        next.set_reuse_port(true)?;
        next.bind(&taken.into())?;
        next.listen(CLIENT_BACKLOG)?;
        sockets.push(next);
    }
    Ok(sockets.into_iter().map(|socket| TcpListener::from_std(socket.into())).collect())
}

/// A nonblocking TCP socket of the family of `address`, not bound yet.
pub fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The port can be bound although the kernel still remembers connections of an earlier process.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The address that the socket is bound to.
pub fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// A listener for clients or for peers, on one worker.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// Whether connections may wait that the poll will not tell of again.
    is_ready: bool,
    /// Monotonic time before which nothing is accepted, because of an error, in microseconds.
    paused_until_us: u64,
}

impl Acceptor {
    /// Accepts from `listener`, which must be registered with an edge-triggered poll.
    pub fn new(listener: TcpListener) -> Acceptor {
        // Clients or peers may have connected before the listener was registered.
        Acceptor { listener, is_ready: true, paused_until_us: 0 }
    }

    /// Notes that the poll has reported connections that wait.
    pub fn set_ready(&mut self) {
        self.is_ready = true;
    }

    /// Returns whether [`Acceptor::accept`] is to be called without waiting for the poll.
    pub fn is_ready(&self, now_us: u64) -> bool {
        self.is_ready && now_us >= self.paused_until_us
    }

    /// Monotonic time at which the pause after an error ends; `None` if there is no pause.
    pub fn resumes_us(&self, now_us: u64) -> Option<u64> {
        (self.is_ready && now_us < self.paused_until_us).then_some(self.paused_until_us)
    }

    /// Adds connections that wait to `accepted`, with the address of the other side: up to the number of one
    /// turn, and none during a pause. An error is returned after which accepting pauses, since it would only
    /// come again at once.
    pub fn accept(&mut self, now_us: u64, accepted: &mut Vec<(TcpStream, SocketAddr)>) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.is_ready(now_us) {
                break;
            }
            match self.listener.accept() {
                Ok(connection) => accepted.push(connection),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_ready = false,
                // The other side left while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.paused_until_us = now_us + ACCEPT_PAUSE_US;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The listener, to be registered with the poll.
    pub fn listener(&mut self) -> &mut TcpListener {
        &mut self.listener
    }
}

/// Raises the number of files that this process may open to the most that the system allows: every
/// connection takes one.
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it was");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_that_nobody_else_gets() {
        let address = "127.0.0.1:0".parse().expect("address");
        let listeners = bind(address, 3).expect("bound");
        let taken = listeners[0].local_addr().expect("address");
        assert!(listeners.iter().all(|listener| listener.local_addr().is_ok_and(|at| at == taken)));
        assert_eq!(bind(taken, 2).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert!(std::net::TcpListener::bind(taken).is_err());
        drop(listeners);
        assert!(bind(taken, 2).is_ok(), "free again");
    }

    #[test]
    fn one_turn_accepts_a_bounded_number() {
        let address = "127.0.0.1:0".parse().expect("address");
        let listener = bind(address, 1).expect("bound").remove(0);
        let address = listener.local_addr().expect("address");
        let mut acceptor = Acceptor::new(listener);
        let connect = |_| std::net::TcpStream::connect(address).expect("connected");
        let clients: Vec<_> = (0..ACCEPTS_PER_TURN + 1).map(connect).collect();
        let mut accepted = Vec::new();
        acceptor.accept(0, &mut accepted).expect("accepted");
        assert_eq!((accepted.len(), acceptor.is_ready(0)), (ACCEPTS_PER_TURN, true));
        acceptor.accept(0, &mut accepted).expect("accepted");
        assert_eq!((accepted.len(), acceptor.is_ready(0)), (clients.len(), false));
        assert!(
            accepted
                .iter()
                .zip(&clients)
                .all(|((_, from), client)| client.local_addr().is_ok_and(|at| at == *from))
        );
    }

    #[test]
    fn a_port_that_another_program_holds_is_taken() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = other.local_addr().expect("address");
        assert_eq!(bind(address, 2).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
