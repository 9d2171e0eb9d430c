//! A blocking connection to a node, plain or with TLS, which two threads may share: one reads and one writes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConnection;

/// How long a handshake of TLS, or a write, may make no progress.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// A connection, or one of the two halves of one. Every write is done as a whole under a lock, so that what two threads
/// write never gets between each other's bytes.
///
/// The state of TLS has a lock of its own, which is never held while the socket is waited for. Otherwise a thread that
/// waits until the node reads would keep the other one from reading, which the node may wait for in turn.
pub struct NodeStream {
    incoming: TcpStream,
    outgoing: Arc<Mutex<TcpStream>>,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

impl NodeStream {
    /// Makes a connection of a connected socket, and does the handshake of `tls`, if there is one.
    pub fn open(mut socket: TcpStream, tls: Option<ClientConnection>) -> io::Result<NodeStream> {
        socket.set_read_timeout(Some(STALL_MAX))?;
        socket.set_write_timeout(Some(STALL_MAX))?;
        let tls = match tls {
            None => None,
            Some(mut tls) => {
                while tls.is_handshaking() {
                    tls.complete_io(&mut socket)?;
                }
                Some(Arc::new(Mutex::new(tls)))
            }
        };
        Ok(NodeStream { outgoing: Arc::new(Mutex::new(socket.try_clone()?)), incoming: socket, tls })
    }

    /// Returns another half of the connection.
    pub fn try_clone(&self) -> io::Result<NodeStream> {
        let (outgoing, tls) = (self.outgoing.clone(), self.tls.clone());
        Ok(NodeStream { incoming: self.incoming.try_clone()?, outgoing, tls })
    }

    /// Sets how long a read may take. It then fails with `WouldBlock` or `TimedOut`, and may be tried again.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.incoming.set_read_timeout(timeout)
    }
}

impl Read for NodeStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.incoming.read(buffer) };
        loop {
            match tls.lock().reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            // Waits without the lock. Afterwards there is something, or the end, which is read at once.
            self.incoming.peek(&mut [0])?;
            let mut tls = tls.lock();
            tls.read_tls(&mut self.incoming)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for NodeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut outgoing = self.outgoing.lock();
        let Some(tls) = &self.tls else {
            outgoing.write_all(bytes)?;
            return Ok(bytes.len());
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut encrypted = Vec::new();
            {
                let mut tls = tls.lock();
                let taken = tls.writer().write(rest)?;
                rest = rest.get(taken..).unwrap_or_default();
                while tls.wants_write() {
                    tls.write_tls(&mut encrypted)?;
                }
            }
            outgoing.write_all(&encrypted)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
