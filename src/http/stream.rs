//! A client's connection, on its way from an event loop to hyper.
//!
//! A connection is handed over as a socket and a layer ([`ClientSocket`]). The layer stands between the
//! socket and the plain bytes, as encryption does, with all its state of the connection. It never waits and
//! does not own the socket ([`SocketLayer`]), so it can work on the event loop's socket first, and on tokio's
//! afterwards. The bytes that the event loop has read already are returned before any others.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Time without a byte in either direction after which a connection is closed: between requests, inside one,
/// and for a client that does not read its answer. The close may come up to twice as late.
pub(super) const IDLE: Duration = Duration::from_secs(30);

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
}

/// A connection that is handed over: a nonblocking socket that no poll knows of, and its layer.
#[derive(Debug)]
pub struct ClientSocket<L> {
    /// The connected socket of the client.
    pub socket: TcpStream,
    /// The layer above the socket.
    pub layer: L,
}

/// The connection as hyper sees it. It first returns the bytes that were read already. Reads and writes fail
/// when nothing has moved in either direction for too long.
pub(super) struct ClientStream<L> {
    /// The bytes that the event loop has read and hyper has not taken yet.
    read: Bytes,
    socket: tokio::net::TcpStream,
    layer: L,
    /// Fires every [`IDLE`]. If nothing has moved since it fired last, the connection is idle.
    idle: Pin<Box<Sleep>>,
    /// Whether anything was read or written since `idle` fired last.
    has_moved: bool,
}

/// Tokio's socket as a layer uses it: it returns `WouldBlock` instead of waiting.
struct Nonblocking<'a>(&'a tokio::net::TcpStream);

impl Read for Nonblocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
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
    pub(super) fn new(from: ClientSocket<L>, read: Vec<u8>) -> io::Result<ClientStream<L>> {
        let socket = tokio::net::TcpStream::from_std(from.socket)?;
        let idle = Box::pin(sleep(IDLE));
        Ok(ClientStream { read: read.into(), socket, layer: from.layer, idle, has_moved: false })
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
            match work(&mut self.layer, &mut Nonblocking(&self.socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => return Poll::Ready(done),
            }
            let ready = match direction {
                Direction::Reading => self.socket.poll_read_ready(cx),
                Direction::Writing => self.socket.poll_write_ready(cx),
            };
            match ready {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.poll_idle(cx),
            }
        }
    }

    /// Waits further, or fails when nothing has moved for too long.
    fn poll_idle<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        while self.idle.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.has_moved) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.idle = Box::pin(sleep(IDLE));
        }
        Poll::Pending
    }
}

impl<L: SocketLayer> AsyncRead for ClientStream<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let unfilled = buffer.initialize_unfilled();
        let polled = self.poll_layer(cx, Direction::Reading, |layer, socket| layer.read(socket, unfilled));
        let polled = ready!(polled);
        self.has_moved = true;
        buffer.advance(polled?);
        Poll::Ready(Ok(()))
    }
}

impl<L: SocketLayer> AsyncWrite for ClientStream<L> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.poll_layer(cx, Direction::Writing, |layer, socket| layer.write(socket, bytes));
        self.has_moved |= polled.is_ready();
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_layer(cx, Direction::Writing, |layer, socket| layer.flush(socket))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_layer(cx, Direction::Writing, |layer, socket| layer.end(socket)))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
