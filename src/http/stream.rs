//! A client's connection, on its way from an event loop to hyper.
//!
//! A connection is handed over as a socket and a layer ([`ClientSocket`]). The layer stands between the
//! socket and the plain bytes, as encryption does, with all its state of the connection. It never waits and
//! does not own the socket ([`SocketLayer`]), so it can work on the event loop's socket first, and on tokio's
//! afterwards. The bytes that the event loop has read already are returned before any others.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::NodeService;
use super::buffers::{ConnectionMemory, READ_BYTES_MAX};
use super::exchange::Exchanges;
use super::pace::Pace;
use super::places::Seat;
use super::raw::{HEAD_LATE, raw_problem};
use crate::limits::{HANDSHAKE_US_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};
use crate::protocol::refusal::{Code, Refusal};

/// Bytes that the kernel takes of an answer before the client has room for them. With more, a client that
/// reads slowly would seem to stand still for long times.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;

/// Bytes up to which several pieces of an answer are written as one, as its head and a short body are.
const JOINED_BYTES_MAX: usize = 8 * 1024;

/// A layer between the socket of a client and the plain bytes that the client sends and receives.
///
/// Every call fails with [`WouldBlock`](io::ErrorKind::WouldBlock) where it would have to wait, and only
/// after `socket` said so itself. The socket may be another one at each call, as long as it leads to the
/// same client.
pub trait SocketLayer: Send + Unpin + 'static {
    /// Reads plain bytes. Returns their number; 0 when the client has ended its side.
    fn read(&mut self, socket: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize>;
    /// Takes plain bytes to be sent, and returns their number. The layer may keep them until
    /// [`SocketLayer::flush`].
    fn write(&mut self, socket: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<usize>;
    /// Sends the bytes that the layer has kept.
    fn flush(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()>;
    /// Notes that nothing more will be written, and sends the layer's own end, if it has one. The caller ends
    /// the socket's writing side afterwards.
    fn end(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()>;
    /// Most memory that the layer needs of a connection that was handed over, in bytes.
    fn bytes_max(&self) -> usize;
}

/// A connection that is handed over: a nonblocking socket that no poll knows of, and its layer.
#[derive(Debug)]
pub struct ClientSocket<L> {
    /// The connected socket of the client.
    pub socket: TcpStream,
    /// The layer above the socket.
    pub layer: L,
}

/// The connection as hyper sees it. It first returns the bytes that were read already. Writes fail when the
/// client reads slower than the least rate, and when the connection was cut. A head that has begun must come
/// in time. The answers that hyper makes by
/// itself, which have no body, are replaced by problems.
pub(super) struct ClientStream<L> {
    /// The bytes that the event loop has read and hyper has not taken yet.
    read: Bytes,
    socket: Arc<tokio::net::TcpStream>,
    layer: L,
    node: Arc<dyn NodeService>,
    seat: Arc<Seat>,
    exchanges: Arc<Exchanges>,
    /// The count of what the connection holds in memory.
    memory: ConnectionMemory,
    /// Whether a part of a head has come.
    has_begun: bool,
    /// The time by which a head that has begun must have come; set while the rest of it is waited for.
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// The rate at which the client reads, while an answer waits for it.
    reader: Option<Pace>,
    /// The problem that is sent instead of an answer of hyper's own, as far as it has not been sent.
    problem: Bytes,
}

/// Tokio's socket as a layer uses it: it returns `WouldBlock` instead of waiting.
struct Nonblocking<'a> {
    socket: &'a tokio::net::TcpStream,
    /// Whether the system is asked and not tokio, which says `WouldBlock` of every socket that it has not been told
    /// about so far.
    is_direct: bool,
}

impl Read for Nonblocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.is_direct {
            true => (&*SockRef::from(self.socket)).read(buffer),
            false => self.socket.try_read(buffer),
        }
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.is_direct {
            true => (&*SockRef::from(self.socket)).write(bytes),
            false => self.socket.try_write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.is_direct {
            true => (&*SockRef::from(self.socket)).write_vectored(pieces),
            false => self.socket.try_write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A direction of a socket.
#[derive(Clone, Copy)]
enum Direction {
    Reading,
    Writing,
}

impl<L: SocketLayer> ClientStream<L> {
    /// Takes over a connection from which `read` was read already. To be called on the thread of the runtime
    /// that serves it.
    pub(super) fn new(
        from: ClientSocket<L>,
        read: Vec<u8>,
        node: Arc<dyn NodeService>,
        seat: Arc<Seat>,
        exchanges: Arc<Exchanges>,
    ) -> io::Result<ClientStream<L>> {
        if let Err(error) = SockRef::from(&from.socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
            tracing::trace!(%error, "no TCP_NOTSENT_LOWAT");
        }
        let socket = Arc::new(tokio::net::TcpStream::from_std(from.socket)?);
        seat.set_client(&socket);
        let memory = ConnectionMemory::new(node.memory().lease(), read.capacity(), from.layer.bytes_max());
        Ok(ClientStream {
            read: read.into(),
            socket,
            layer: from.layer,
            node,
            seat,
            exchanges,
            memory,
            has_begun: false,
            head_deadline: None,
            reader: None,
            problem: Bytes::new(),
        })
    }

    /// Lets the layer do `work` as soon as it need not wait for the socket. The work is tried before the
    /// socket is asked, because the layer may have bytes, or take some, without the socket.
    fn poll_layer<T>(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut work: impl FnMut(&mut L, &mut Nonblocking<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match work(&mut self.layer, &mut Nonblocking { socket: &self.socket, is_direct: false }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A layer gives up after some vain work, so that others have their turn.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                done => return Poll::Ready(done),
            }
            let ready = match direction {
                Direction::Reading => self.socket.poll_read_ready(cx),
                Direction::Writing => self.socket.poll_write_ready(cx),
            };
            match ready {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Counts bytes that hyper is given. Bodies are counted where they are put together.
    fn count_read(&mut self, bytes: usize) {
        if self.exchanges.are_settled() {
            self.memory.handle_head(bytes);
        }
    }

    /// Becomes ready when a head that has begun did not come in time. To be polled while the client is waited
    /// for.
    fn poll_head_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun || !self.exchanges.are_settled() {
            return Poll::Pending;
        }
        let time = Duration::from_micros(HANDSHAKE_US_MAX);
        self.head_deadline.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx)
    }

    /// Writes as [`ClientStream::poll_layer`] does. Fails if the client has not taken enough for too long, or
    /// if the connection was cut and the client has no room.
    fn poll_written<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut work: impl FnMut(&mut L, &mut Nonblocking<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let polled = self.poll_layer(cx, Direction::Writing, &mut work);
        if polled.is_ready() {
            return polled;
        }
        if self.reader.is_none() {
            self.seat.begin_waiting();
        }
        if self.seat.is_cut() {
            // A connection may be cut before tokio was told of its socket for the first time.
            return match work(&mut self.layer, &mut Nonblocking { socket: &self.socket, is_direct: true }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                done => Poll::Ready(done),
            };
        }
        let reader = self.reader.get_or_insert_with(Pace::start);
        if reader.poll_too_slow(cx).is_ready() {
            self.node.metrics().http_cuts.slow_reader.increment();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Writes the problem that stands for an answer of hyper's own.
    fn poll_problem(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.problem.is_empty() {
            let problem = self.problem.clone();
            let count = ready!(self.poll_written(cx, |layer, socket| layer.write(socket, &problem)))?;
            self.node.metrics().clients.sent_bytes.add(count as u64);
            self.problem = problem.slice(count.min(problem.len())..);
        }
        Poll::Ready(Ok(()))
    }

    /// The problem that says what `answer`, an answer of hyper's own, says by its status alone.
    fn problem_for(&self, answer: &[u8]) -> Vec<u8> {
        let digits = answer.get(9..12).and_then(|digits| str::from_utf8(digits).ok());
        let status = digits.and_then(|digits| digits.parse().ok()).unwrap_or(400);
        let (code, detail) = match status {
            414 | 431 => {
                let bounds = format!("{REQUEST_HEAD_BYTES_MAX} bytes or {REQUEST_HEADERS_MAX} fields");
                (Code::TooLarge, format!("the head of the request has more than {bounds}"))
            }
            _ => (Code::BadRequest, "the head of the request is not one of HTTP/1.1".to_owned()),
        };
        raw_problem(status, &Refusal::new(code, detail), "", self.node.now().wall_us)
    }
}

impl<L: SocketLayer> AsyncRead for ClientStream<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buffer.remaining()).min(READ_BYTES_MAX);
            buffer.put_slice(&self.read.split_to(count));
            self.count_read(count);
            if self.read.is_empty() {
                // Even an empty part would keep the memory of the whole.
                self.read = Bytes::new();
                self.memory.handle_handed_taken();
            }
            return Poll::Ready(Ok(()));
        }
        let unfilled = buffer.initialize_unfilled_to(buffer.remaining().min(READ_BYTES_MAX));
        match self.poll_layer(cx, Direction::Reading, |layer, socket| layer.read(socket, unfilled)) {
            Poll::Ready(read) => {
                let read = read?;
                buffer.advance(read);
                self.node.metrics().clients.received_bytes.add(read as u64);
                self.count_read(read);
                self.has_begun = true;
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.poll_head_late(cx).is_ready() => {
                let wall_us = self.node.now().wall_us;
                self.problem = raw_problem(408, &Refusal::new(Code::Timeout, HEAD_LATE), "", wall_us).into();
                // What the socket does not take at once is not worth waiting for.
                let _ = self.poll_problem(cx)?;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<L: SocketLayer> AsyncWrite for ClientStream<L> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_problem(cx))?;
        if self.exchanges.are_settled() {
            self.problem = self.problem_for(bytes).into();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(self.poll_written(cx, |layer, socket| layer.write(socket, bytes)))?;
        self.node.metrics().clients.sent_bytes.add(written as u64);
        if let Some(reader) = &mut self.reader {
            reader.handle_moved(written);
        }
        Poll::Ready(Ok(written))
    }

    /// hyper hands over the head of an answer and its body as they are, and keeps no copy of them.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        let first: &[u8] = filled.next().map_or(&[], |first| first);
        if first.len() >= JOINED_BYTES_MAX || filled.next().is_none() {
            return self.poll_write(cx, first);
        }
        let mut joined = [0; JOINED_BYTES_MAX];
        let mut room = joined.as_mut_slice();
        for piece in pieces {
            // A full slice takes nothing more, and a slice never fails.
            let _ = room.write(piece);
        }
        let count = JOINED_BYTES_MAX - room.len();
        self.poll_write(cx, joined.get(..count).unwrap_or_default())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_problem(cx))?;
        ready!(self.poll_written(cx, |layer, socket| layer.flush(socket)))?;
        let was_waiting = self.reader.take().is_some();
        if self.exchanges.handle_flushed() {
            self.memory.handle_answered();
            (self.has_begun, self.head_deadline) = (false, None);
            self.seat.begin_waiting();
        } else if was_waiting {
            self.seat.end_waiting();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_problem(cx))?;
        ready!(self.poll_written(cx, |layer, socket| layer.end(socket)))?;
        Poll::Ready(SockRef::from(&*self.socket).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;

    use tokio::io::AsyncWrite;

    use super::super::exchange::Exchanges;
    use super::super::places::{Places, Seat};
    use super::super::tests::{Few, Held};
    use super::*;

    /// A connection whose client has just connected, and what stands around it.
    struct CutConnection {
        client: std::net::TcpStream,
        stream: Pin<Box<ClientStream<Held>>>,
        seat: Arc<Seat>,
        places: Arc<Places>,
    }

    /// Makes a connection that has the only place of a control plane.
    fn connection(node: &Arc<Few>) -> CutConnection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        let (socket, _) = listener.accept().expect("accepts");
        socket.set_nonblocking(true).expect("nonblocking");
        let places = Arc::new(Places::new(1, 1 << 20, node.memory().clone()));
        let seat = Arc::new(Seat::new(places.clone(), places.take().expect("a place")));
        let exchanges = Arc::new(Exchanges::default());
        exchanges.handle_asked();
        let socket = ClientSocket { socket, layer: Held::default() };
        let stream = ClientStream::new(socket, Vec::new(), node.clone(), seat.clone(), exchanges);
        CutConnection { client, stream: Box::pin(stream.expect("taken over")), seat, places }
    }

    /// A connection that lost its place before tokio had been told of its socket ended without an answer.
    #[test]
    fn a_connection_that_is_cut_at_once_is_answered_all_the_same() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let CutConnection { mut client, mut stream, seat, places } =
                connection(&Arc::new(Few::default()));
            seat.begin_waiting();
            assert!(places.take().is_some() && seat.is_cut(), "another connection has the place");
            let mut cx = Context::from_waker(Waker::noop());
            // The runtime has not looked for events between taking over the socket and this.
            let written = stream.as_mut().poll_write(&mut cx, b"an answer");
            assert!(matches!(written, Poll::Ready(Ok(9))), "{written:?}");
            assert!(matches!(stream.as_mut().poll_flush(&mut cx), Poll::Ready(Ok(()))));
            assert!(matches!(stream.as_mut().poll_shutdown(&mut cx), Poll::Ready(Ok(()))));
            let mut read = String::new();
            client.read_to_string(&mut read).expect("read");
            assert_eq!(read, "an answer");
        });
    }

    #[test]
    fn a_connection_that_is_cut_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let CutConnection { client: _client, mut stream, seat, places } =
                connection(&Arc::new(Few::default()));
            seat.begin_waiting();
            assert!(places.take().is_some(), "another connection has the place");
            let mut cx = Context::from_waker(Waker::noop());
            let piece = [0; 64 * 1024];
            let ended = loop {
                match stream.as_mut().poll_write(&mut cx, &piece) {
                    Poll::Ready(Ok(_)) => {}
                    other => break other,
                }
            };
            let Poll::Ready(Err(error)) = ended else { panic!("it waits") };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        });
    }
}
