//! The cluster's UDP socket: many datagrams a system call, in both directions.
//!
//! Receiving takes a batch at a time, in which the kernel may have joined datagrams of one sender (GRO).
//! Sending joins datagrams that go to the same receiver and have the same size (GSO). For that they are
//! reordered between two flushes, as a network might do, too. Datagrams that the socket does not take wait,
//! bounded in bytes. Those that do not fit are dropped and counted, as a network would drop them, and the
//! cluster machine makes up for them by its retries.
//!
//! The poll is asked about writing only while something waits for it: a UDP socket is reported writable
//! anew each time a datagram has left it, so every send would cost a turn of the loop.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::limits::DATAGRAM_BYTES_CEILING;

/// Number of buffers that one system call receives into.
const RECEIVE_BUFFERS: usize = 8;
/// Size of a receive buffer in bytes: room for datagrams that the kernel has joined.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Size of the socket's buffer that the kernel is asked for, in bytes for each direction; it may give less.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that may wait to be sent.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest number of bytes that are joined into one transmission: what fits a datagram's length field.
const JOINED_BYTES_MAX: usize = 60_000;

/// The socket and what waits to be sent on it.
pub struct DatagramSocket {
    socket: UdpSocket,
    registry: Registry,
    token: Token,
    state: UdpSocketState,
    /// Whether the socket is bound to an IPv6 address.
    is_ipv6: bool,
    /// Whether more may have arrived.
    is_readable: bool,
    /// Whether the socket takes datagrams; if not, the poll is asked about it.
    is_writable: bool,
    /// The receive buffers, one after the other.
    received: Vec<u8>,
    /// Buffer in which datagrams are joined for a transmission.
    joined: Vec<u8>,
    /// Datagrams that wait, with their receivers.
    queue: VecDeque<(SocketAddr, Bytes)>,
    /// Bytes of the datagrams that wait.
    queued_bytes: usize,
    /// Number of datagrams that were dropped because the queue was full.
    dropped: u64,
}

impl DatagramSocket {
    /// Takes a bound, nonblocking socket, and registers it under this token.
    pub fn new(mut socket: UdpSocket, registry: Registry, token: Token) -> io::Result<DatagramSocket> {
        registry.register(&mut socket, token, Interest::READABLE)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        for set in [UdpSocketState::set_send_buffer_size, UdpSocketState::set_recv_buffer_size] {
            if let Err(error) = set(&state, UdpSockRef::from(&socket), SOCKET_BYTES) {
                tracing::debug!(%error, "the UDP socket's buffers stay as they are");
            }
        }
        Ok(DatagramSocket {
            socket,
            registry,
            token,
            state,
            is_ipv6,
            is_readable: true,
            is_writable: true,
            received: vec![0; RECEIVE_BUFFERS * RECEIVE_BYTES],
            joined: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            dropped: 0,
        })
    }

    /// Notes that the poll has reported the socket as readable or writable.
    pub fn set_ready(&mut self, is_readable: bool, is_writable: bool) {
        self.is_readable |= is_readable;
        if is_writable && !self.is_writable {
            self.set_writable(true);
        }
    }

    /// Asks the poll about writing only while the socket takes nothing.
    fn set_writable(&mut self, is_writable: bool) {
        self.is_writable = is_writable;
        let interest = if is_writable { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        if let Err(error) = self.registry.reregister(&mut self.socket, self.token, interest) {
            // The next flush then tries again by itself.
            self.is_writable = true;
            tracing::warn!(%error, "the poll does not take the UDP socket");
        }
    }

    /// Returns whether more may have arrived.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Bytes of the datagrams that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Number of datagrams that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Receives one batch, and calls `each` with the sender and the bytes of every datagram in it.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, &[u8])) {
        let mut metas = [RecvMeta::default(); RECEIVE_BUFFERS];
        let mut slices = self.received.chunks_mut(RECEIVE_BYTES).map(IoSliceMut::new);
        let mut buffers: [IoSliceMut<'_>; RECEIVE_BUFFERS] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut metas) {
            Ok(count) => {
                // Fewer datagrams than asked for were all: the poll reports those that come from now on.
                self.is_readable = count == RECEIVE_BUFFERS;
                count
            }
            Err(error) => {
                // Other errors are about an earlier datagram, such as one whose port is closed, and say
                // nothing about what has arrived.
                self.is_readable = error.kind() != io::ErrorKind::WouldBlock;
                return;
            }
        };
        for (buffer, meta) in buffers.iter().zip(&metas).take(count) {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let bytes = buffer.get(..meta.len).unwrap_or_default();
            for datagram in bytes.chunks(meta.stride.max(1)) {
                each(from, datagram);
            }
        }
    }

    /// Queues a datagram, to be sent by the next [`DatagramSocket::flush`].
    pub fn push(&mut self, to: SocketAddr, bytes: Bytes) {
        if self.queued_bytes + bytes.len() > QUEUE_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.queued_bytes += bytes.len();
        self.queue.push_back((to, bytes));
    }

    /// Sends as many of the queued datagrams as the socket takes.
    pub fn flush(&mut self) {
        if self.is_writable {
            arrange(&mut self.queue);
        }
        while self.is_writable
            && let Some((to, first)) = self.queue.pop_front()
        {
            let size = first.len();
            self.joined.clear();
            self.joined.extend_from_slice(&first);
            let mut count = 1;
            while count < self.state.max_gso_segments()
                && let Some((_, next)) = self.queue.pop_front_if(|(next_to, next)| {
                    *next_to == to
                        && next.len() <= size
                        && self.joined.len() == count * size
                        && self.joined.len() + next.len() <= JOINED_BYTES_MAX
                })
            {
                self.joined.extend_from_slice(&next);
                count += 1;
            }
            self.transmit(to, size, count);
        }
        debug_assert!(!self.queue.is_empty() || self.queued_bytes == 0, "an empty queue has bytes");
    }

    fn transmit(&mut self, to: SocketAddr, size: usize, count: usize) {
        let destination = self.mapped(to);
        let contents = self.joined.as_slice();
        let segment_size = (count > 1).then_some(size);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                for datagram in contents.chunks(size.max(1)).rev() {
                    self.queue.push_front((to, Bytes::copy_from_slice(datagram)));
                }
                return self.set_writable(false);
            }
            Err(error) if count > 1 => {
                // The way to this receiver takes no joined datagrams, which quinn-udp has noted for later.
                tracing::debug!(%error, "datagrams are sent one by one");
                for datagram in contents.chunks(size.max(1)) {
                    let transmit = Transmit {
                        destination,
                        ecn: None,
                        contents: datagram,
                        segment_size: None,
                        src_ip: None,
                    };
                    let _ = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
                }
            }
            // The datagram is lost like one in a network: the machine tries again, or finds the peer dead.
            Err(error) => tracing::trace!(%error, %to, "datagram not sent"),
            Ok(()) => {}
        }
        self.queued_bytes = self.queued_bytes.saturating_sub(self.joined.len());
    }

    /// The address by which the socket reaches `to`: an IPv6 socket reaches IPv4 addresses in their mapped
    /// form.
    fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }
}

/// Brings together the datagrams that go to the same receiver, the larger first: of joined datagrams only
/// the last may be shorter. The machine deals its datagrams out to one peer after the other, so neighbours
/// in the queue are hardly ever for the same one.
fn arrange(queue: &mut VecDeque<(SocketAddr, Bytes)>) {
    let order = |a: &(SocketAddr, Bytes), b: &(SocketAddr, Bytes)| {
        a.0.cmp(&b.0).then_with(|| b.1.len().cmp(&a.1.len()))
    };
    queue.make_contiguous().sort_by(order);
}

const _: () = assert!(DATAGRAM_BYTES_CEILING < RECEIVE_BYTES && DATAGRAM_BYTES_CEILING < JOINED_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bound() -> (mio::Poll, DatagramSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().expect("address")).expect("bound");
        let address = socket.local_addr().expect("address");
        let poll = mio::Poll::new().expect("poll");
        let registry = poll.registry().try_clone().expect("registry");
        let datagrams = DatagramSocket::new(socket, registry, Token(0)).expect("socket");
        (poll, datagrams, address)
    }

    #[test]
    fn datagrams_of_any_size_arrive_whole() {
        let (_poll, mut sender, from) = bound();
        let (mut poll, mut receiver, to) = bound();
        let sizes = [1200, 1200, 1200, 700, 1200, 1, 1200, 1200, 3];
        for (at, size) in sizes.into_iter().enumerate() {
            sender.push(to, Bytes::from(vec![at as u8; size]));
        }
        sender.flush();
        assert_eq!((sender.queue.len(), sender.queued_bytes), (0, 0));
        let mut arrived = std::collections::BTreeMap::new();
        let mut events = mio::Events::with_capacity(8);
        while arrived.len() < sizes.len() {
            poll.poll(&mut events, Some(Duration::from_secs(5))).expect("poll");
            assert!(!events.is_empty(), "lost on loopback: {arrived:?}");
            receiver.set_ready(true, false);
            while receiver.is_readable() {
                receiver.receive(|sender, datagram| {
                    assert_eq!(sender, from);
                    let at = usize::from(datagram[0]);
                    assert!(datagram.iter().all(|byte| usize::from(*byte) == at));
                    assert_eq!(arrived.insert(at, datagram.len()), None);
                });
            }
        }
        assert_eq!(arrived.into_values().collect::<Vec<_>>(), sizes);
    }

    /// A node that publishes has its batches for one peer after the other, so none had ever been joined: a
    /// system call each.
    #[test]
    fn what_goes_to_one_receiver_is_brought_together() {
        let to = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let sizes = [(1, 850), (2, 850), (1, 840), (2, 30), (1, 850), (2, 850)];
        let mut queue: VecDeque<_> =
            sizes.into_iter().map(|(port, size)| (to(port), Bytes::from(vec![0; size]))).collect();
        arrange(&mut queue);
        let arranged: Vec<_> = queue.iter().map(|(to, bytes)| (to.port(), bytes.len())).collect();
        assert_eq!(arranged, [(1, 850), (1, 850), (1, 840), (2, 850), (2, 850), (2, 30)]);
    }

    /// Every datagram sent had cost an event of its own, and every batch received a call more.
    #[test]
    fn a_datagram_that_has_left_is_no_event() {
        let (mut poll, mut sender, _) = bound();
        let (mut receiving, mut receiver, to) = bound();
        let mut events = mio::Events::with_capacity(8);
        sender.push(to, Bytes::from_static(b"x"));
        sender.flush();
        receiving.poll(&mut events, Some(Duration::from_secs(5))).expect("poll");
        receiver.set_ready(true, false);
        receiver.receive(|_, datagram| assert_eq!(datagram, b"x"));
        assert!(!receiver.is_readable(), "a batch that is not full was the last");
        poll.poll(&mut events, Some(Duration::ZERO)).expect("poll");
        assert!(events.is_empty(), "{events:?}");
    }

    #[test]
    fn a_sender_that_waits_is_woken() {
        let (mut poll, mut sender, _) = bound();
        let (_receiving, mut receiver, to) = bound();
        // As after a send that would have blocked; loopback takes everything at once.
        sender.set_writable(false);
        sender.push(to, Bytes::from_static(b"x"));
        sender.flush();
        assert_eq!(sender.queue.len(), 1);
        let mut events = mio::Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5))).expect("poll");
        assert!(events.iter().any(|event| event.is_writable()));
        sender.set_ready(false, true);
        sender.flush();
        assert_eq!((sender.queue.len(), sender.queued_bytes), (0, 0));
        receiver.receive(|_, datagram| assert_eq!(datagram, b"x"));
    }

    #[test]
    fn a_queue_that_cannot_be_sent_is_bounded() {
        let (_poll, mut sender, to) = bound();
        sender.is_writable = false;
        for _ in 0..10_000 {
            sender.push(to, Bytes::from_static(&[0; 1200]));
            sender.flush();
        }
        assert!(sender.queued_bytes <= QUEUE_BYTES_MAX && sender.dropped() > 0);
    }
}
