//! The connection to a client, below all protocols that are spoken on it: a socket, and a layer between it
//! and the plain bytes.
//!
//! An event loop sees a connection through this type alone: it reads and writes plain bytes, and never asks
//! whether there is a layer such as encryption in between ([`Layer`]). What such a layer needs is part of the
//! calls:
//! - [`Transport::receive`] says whether more may be there although the poll will not say so again. A
//!   socket is known to be empty after a short read; a layer may still hold bytes of its own.
//! - Writing is two steps. `write` takes bytes, as many at a time as wait for a connection, so a layer
//!   works once a flush and not once a record. `flush` succeeds when all of it has left this process, and
//!   fails with [`WouldBlock`](io::ErrorKind::WouldBlock) while some of it has not. It is called at every
//!   flush of a connection, also where nothing was written: what a layer has to say by itself goes out
//!   then, and when the socket can be written to again.
//! - A layer may have to agree with the client on its terms first ([`Transport::is_handshaking`]). Reads fail with
//!   `WouldBlock` meanwhile.
//! - The layer is handed to the control plane with its socket, so its state goes along
//!   ([`Transport::into_client`]).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::tls::{LAYER_BYTES_MAX, TlsFault, TlsLayer};
use crate::http::{ClientSocket, SocketLayer};

/// A connection to a client. Nonblocking.
#[derive(Debug)]
pub struct Transport {
    socket: TcpStream,
    layer: Layer,
}

/// The layer between the socket of a client and the plain bytes.
#[derive(Debug)]
pub enum Layer {
    /// No layer: the plain bytes are those on the wire.
    Plain,
    /// The plain bytes are encrypted.
    Tls(Box<TlsLayer>),
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were put into the buffer; none means that the client has ended the connection.
    pub bytes: usize,
    /// Whether there may be more that no event of the poll will report.
    pub may_hold_more: bool,
}

impl Transport {
    /// A connection that was just accepted.
    pub fn new(socket: TcpStream, layer: Layer) -> Transport {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::trace!(%error, "no TCP_NODELAY");
        }
        Transport { socket, layer }
    }

    /// Lets the connection fail if the client does not confirm for this time, in microseconds, that it has what was sent.
    pub fn set_silence_max(&self, silence_us_max: u64) {
        let silence = Duration::from_micros(silence_us_max);
        if let Err(error) = SockRef::from(&self.socket).set_tcp_user_timeout(Some(silence)) {
            tracing::trace!(%error, "no TCP_USER_TIMEOUT");
        }
    }

    /// Registers the connection with an edge-triggered poll, for reading and writing.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Takes the connection out of the poll, before it is dropped or handed to another thread.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.socket)
    }

    /// Reads once, into the beginning of `buffer`, which must not be empty.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        debug_assert!(!buffer.is_empty(), "an empty read looks like the end of the connection");
        let bytes = self.layer.read(&mut self.socket, buffer)?;
        let may_hold_more = match &self.layer {
            // A short read has emptied the socket; another event comes with the next byte.
            Layer::Plain => bytes == buffer.len(),
            Layer::Tls(tls) => tls.may_hold_more(),
        };
        Ok(Received { bytes, may_hold_more })
    }

    /// Returns whether nothing can be read or written yet, because the layer has not agreed with the client on its
    /// terms. Reading goes on with that, which may take much more time than to read plain bytes does.
    pub fn is_handshaking(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Tls(tls) => tls.is_handshaking(),
        }
    }

    /// Returns whether there is a layer that may have something to say, or hold more, after any read.
    pub fn has_layer(&self) -> bool {
        !matches!(self.layer, Layer::Plain)
    }

    /// The name of the client, if it has shown a certificate that was verified: the first DNS name in it, else the
    /// common name.
    pub fn peer_name(&self) -> Option<&str> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(tls) => tls.peer_name(),
        }
    }

    /// Number of bytes that the layer holds of what has come from the client.
    pub fn received_bytes(&self) -> usize {
        match &self.layer {
            Layer::Plain => 0,
            Layer::Tls(tls) => tls.received_bytes(),
        }
    }

    /// Number of bytes that the layer holds of what was written.
    pub fn unsent_bytes(&self) -> usize {
        match &self.layer {
            Layer::Plain => 0,
            Layer::Tls(tls) => tls.unsent_bytes(),
        }
    }

    /// The reason why the layer has failed a read, if it was the layer.
    pub fn fault(&self) -> Option<TlsFault> {
        match &self.layer {
            Layer::Plain => None,
            Layer::Tls(tls) => tls.fault(),
        }
    }

    /// Goes on without a layer, after [`TlsFault::PlainText`]: nothing was sent or received yet.
    pub fn drop_layer(&mut self) {
        debug_assert_eq!(self.fault(), Some(TlsFault::PlainText));
        self.layer = Layer::Plain;
    }

    /// Tells the client the end of the layer before the connection is dropped, where there is a layer.
    pub fn say_end(&mut self) {
        if let Layer::Tls(tls) = &mut self.layer {
            // The connection ends in any case, and its client may be gone.
            let _ = tls.end(&mut self.socket);
        }
    }

    /// Tells the client that nothing more is sent to it. It may still send.
    pub fn end_writing(&mut self) -> io::Result<()> {
        self.layer.end(&mut self.socket)?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Returns the connection as it is handed to the control plane. It must have been taken out of the poll.
    pub fn into_client(mut self) -> ClientSocket<Layer> {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.limit_memory();
        }
        ClientSocket { socket: self.socket.into(), layer: self.layer }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.layer.write(&mut self.socket, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.layer.flush(&mut self.socket)
    }
}

impl SocketLayer for Layer {
    fn read(&mut self, socket: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Layer::Plain => socket.read(buffer),
            Layer::Tls(tls) => tls.read(socket, buffer),
        }
    }

    fn write(&mut self, socket: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<usize> {
        match self {
            Layer::Plain => socket.write(bytes),
            Layer::Tls(tls) => tls.write(socket, bytes),
        }
    }

    fn flush(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        match self {
            Layer::Plain => Ok(()),
            Layer::Tls(tls) => tls.flush(socket),
        }
    }

    fn end(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        match self {
            Layer::Plain => Ok(()),
            Layer::Tls(tls) => tls.end(socket),
        }
    }

    fn bytes_max(&self) -> usize {
        match self {
            Layer::Plain => 0,
            Layer::Tls(_) => LAYER_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::tokens;

    /// Waits until the poll says something.
    fn wait(poll: &mut mio::Poll) {
        let mut events = mio::Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5))).expect("poll");
        assert!(!events.is_empty(), "nothing came");
    }

    #[test]
    fn a_full_buffer_may_not_have_been_all() {
        let mut poll = mio::Poll::new().expect("poll");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut client =
            std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
        let (accepted, _) = listener.accept().expect("accepted");
        accepted.set_nonblocking(true).expect("nonblocking");
        let mut transport = Transport::new(TcpStream::from_std(accepted), Layer::Plain);
        transport.register(poll.registry(), tokens::of_connection(0)).expect("registered");
        wait(&mut poll);
        client.write_all(b"hello").expect("sent");
        wait(&mut poll);
        let mut buffer = [0; 4];
        assert_eq!(transport.receive(&mut buffer).expect("read"), Received { bytes: 4, may_hold_more: true });
        assert_eq!(
            transport.receive(&mut buffer).expect("read"),
            Received { bytes: 1, may_hold_more: false }
        );
        let blocked = transport.receive(&mut buffer).expect_err("empty");
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(transport.write(b"bye").expect("written"), 3);
        transport.flush().expect("flushed");
        transport.end_writing().expect("ended");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("read");
        assert_eq!(said, "bye");
        drop(client);
        wait(&mut poll);
        assert_eq!(transport.receive(&mut buffer).expect("read").bytes, 0);
        transport.deregister(poll.registry()).expect("deregistered");
    }
}
