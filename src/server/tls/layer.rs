//! The layer of one connection: rustls, driven by what the socket has and takes.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use super::meter::RecordMeter;
use super::peer;
use crate::metrics::Metrics;

/// Bytes that are read from the socket at a time: about a record of the largest size.
const READ_BYTES: usize = 16 * 1024;
/// Number of reads of the socket after which a call returns although no plain bytes have come of them: a client
/// may send records in which there is nothing.
const READS_MAX: usize = 4;
/// Plain bytes that are encrypted at a time. They wait until the socket has taken them, and nothing else is
/// encrypted before. More would cost memory for each client that reads slowly, and less would cost more writes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Plain bytes that are encrypted at a time on a connection of the control plane, where the memory of all connections
/// is counted at its most.
const HANDED_CHUNK_BYTES: usize = 16 * 1024;
/// Most plain bytes in a record.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a record that rustls makes room for beyond the plain ones, and by which its buffer grows.
const RECORD_FURTHER_BYTES: usize = 2 * 1024 + 5 + 4 * 1024;
/// Most bytes that a record has more than the plain bytes in it: its head, the tag of its cipher, and a number or a type.
const RECORD_OVERHEAD_BYTES_MAX: usize = 5 + 16 + 8;
/// The keys of a connection, and the objects around them, in bytes.
const STATE_BYTES: usize = 8 * 1024;
/// Most memory of the layer of a connection of the control plane, in bytes: what is encrypted, with the heads of the
/// records, a record that is not whole, plain bytes that were not taken, and the state.
pub const LAYER_BYTES_MAX: usize =
    HANDED_CHUNK_BYTES + 1024 + RECORD_BYTES_MAX + RECORD_FURTHER_BYTES + RECORD_BYTES_MAX + STATE_BYTES;

/// The state of TLS on one connection.
pub struct TlsLayer {
    state: TlsState,
    meter: RecordMeter,
    /// Bytes that have come during the handshake. rustls keeps a part of them, of messages that are not whole.
    handshake_bytes: usize,
    /// Plain bytes that rustls holds.
    plain_bytes: usize,
    /// At least as many bytes as were encrypted and not taken by the socket.
    unsent_bytes: usize,
    /// Whether the last read of the socket got as much as it had room for.
    was_full: bool,
    /// Whether the client has ended its side. Reads return this behind all plain bytes.
    has_ended: bool,
    /// The name in the certificate that the client has shown.
    peer_name: Option<Box<str>>,
    metrics: Arc<Metrics>,
}

enum TlsState {
    /// Nothing has come from the client.
    Fresh(Arc<ServerConfig>),
    /// The handshake is under way.
    Handshake(Box<ServerConnection>),
    /// The handshake is done.
    Established(Box<ServerConnection>),
    /// The client broke the rules of TLS: it is told so, and nothing else is sent. What still comes is dropped.
    Failed(Box<ServerConnection>),
    /// The client does not speak TLS at all.
    PlainText,
}

/// The reason why a layer cannot be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The client does not speak TLS at all.
    PlainText,
    /// The client broke the rules of TLS, or none of what it offers is allowed. It is told so by an alert.
    Broken,
}

/// For the log: no keys.
impl std::fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsLayer").field("peer_name", &self.peer_name).finish_non_exhaustive()
    }
}

impl TlsLayer {
    /// The layer of a connection that was just accepted.
    pub fn new(config: Arc<ServerConfig>, metrics: Arc<Metrics>) -> TlsLayer {
        TlsLayer {
            state: TlsState::Fresh(config),
            meter: RecordMeter::default(),
            handshake_bytes: 0,
            plain_bytes: 0,
            unsent_bytes: 0,
            was_full: false,
            has_ended: false,
            peer_name: None,
            metrics,
        }
    }

    /// Returns whether the handshake is not done.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, TlsState::Fresh(_) | TlsState::Handshake(_))
    }

    /// Returns the reason why the layer cannot be used any longer, if there is one.
    pub fn fault(&self) -> Option<TlsFault> {
        match self.state {
            TlsState::Failed(_) => Some(TlsFault::Broken),
            TlsState::PlainText => Some(TlsFault::PlainText),
            _ => None,
        }
    }

    /// The name in the certificate of the client: its first DNS name, else its common name. `None` if the client has
    /// shown no certificate.
    pub fn peer_name(&self) -> Option<&str> {
        self.peer_name.as_deref()
    }

    /// Returns whether there may be more to read although the poll will not say so again.
    pub fn may_hold_more(&self) -> bool {
        self.was_full || self.plain_bytes > 0 || self.has_ended
    }

    /// Number of bytes that have come from the client and were not taken yet: those of a record that is not whole,
    /// and plain ones.
    pub fn received_bytes(&self) -> usize {
        match &self.state {
            TlsState::Handshake(_) => self.handshake_bytes,
            TlsState::Established(_) => self.meter.partial_bytes() + self.plain_bytes,
            TlsState::Fresh(_) | TlsState::Failed(_) | TlsState::PlainText => 0,
        }
    }

    /// Number of bytes that were encrypted and not taken by the socket.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Reads plain bytes into the beginning of `buffer`, which must not be empty. Returns 0 once the client has ended
    /// its side as TLS demands; an end without that is an error.
    pub fn read(&mut self, socket: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(read) = self.read_held(buffer) {
            return read;
        }
        let mut scratch = [0; READ_BYTES];
        // No more than the buffer has room for, so that what is left over of it fits rustls' bound.
        let most = buffer.len().min(READ_BYTES);
        let room = scratch.get_mut(..most).unwrap_or_default();
        for _ in 0..READS_MAX {
            let count = socket.read(room)?;
            self.was_full = count == room.len();
            let is_running = matches!(self.state, TlsState::Handshake(_) | TlsState::Established(_));
            if count == 0 && !is_running {
                return Ok(0);
            }
            let taken = self.take(socket, room.get(..count).unwrap_or_default(), buffer)?;
            if taken > 0 {
                return Ok(taken);
            }
            if let Some(read) = self.read_held(buffer) {
                return read;
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Reads plain bytes that rustls holds already, or the end behind them. Returns `None` if there are none.
    fn read_held(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let (TlsState::Handshake(connection) | TlsState::Established(connection)) = &mut self.state else {
            return None;
        };
        let read = connection.reader().read(buffer);
        if let Ok(count) = read {
            self.plain_bytes = self.plain_bytes.saturating_sub(count);
        }
        let is_waiting = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        (!is_waiting).then_some(read)
    }

    /// Takes bytes that were read from the socket; none if the client has ended its side. Returns the number of plain
    /// bytes that came of them, up to as many as `buffer` has room for. rustls holds the others, and the end.
    fn take(&mut self, socket: &mut impl Write, mut bytes: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
        self.begin(bytes)?;
        let (TlsState::Handshake(connection) | TlsState::Established(connection)) = &mut self.state else {
            // What comes after a failure is read to its end, and dropped.
            return Ok(0);
        };
        if connection.is_handshaking() {
            self.handshake_bytes += bytes.len();
        }
        self.meter.handle_received(bytes);
        let mut taken = 0;
        loop {
            let handled = connection
                .read_tls(&mut bytes)
                .and_then(|_| connection.process_new_packets().map_err(io::Error::other));
            let has_closed = match handled {
                Ok(state) => {
                    self.plain_bytes = state.plaintext_bytes_to_read();
                    self.unsent_bytes = state.tls_bytes_to_write();
                    state.peer_has_closed()
                }
                Err(error) => return Err(self.fail(socket, error)),
            };
            // The rest, and the end, are found by the next read.
            if let Ok(count) = connection.reader().read(buffer.get_mut(taken..).unwrap_or_default()) {
                taken += count;
                self.plain_bytes = self.plain_bytes.saturating_sub(count);
            }
            // What stands behind the end of the client's side is ignored.
            self.has_ended |= has_closed;
            if bytes.is_empty() || has_closed {
                break;
            }
        }
        self.handle_progress();
        Ok(taken)
    }

    /// Begins the handshake with the first bytes of a connection, unless they show that the client does not speak TLS.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (TlsState::Fresh(config), Some(first)) = (&self.state, bytes.first()) else { return Ok(()) };
        if first.is_ascii_graphic() || first.is_ascii_whitespace() {
            self.state = TlsState::PlainText;
            self.metrics.tls.failed.increment();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        let mut connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(CHUNK_BYTES));
        self.state = TlsState::Handshake(Box::new(connection));
        Ok(())
    }

    /// Notes that a handshake may be done.
    fn handle_progress(&mut self) {
        let is_done = matches!(&self.state, TlsState::Handshake(connection) if !connection.is_handshaking());
        if !is_done {
            return;
        }
        // The other state is there for a moment only.
        if let TlsState::Handshake(connection) = std::mem::replace(&mut self.state, TlsState::PlainText) {
            let counters = &self.metrics.tls;
            match connection.handshake_kind() {
                Some(HandshakeKind::Resumed) => counters.resumed.increment(),
                _ => counters.full.increment(),
            }
            let certificate = connection.peer_certificates().and_then(<[_]>::first);
            self.peer_name = certificate.and_then(peer::name_in).map(String::into_boxed_str);
            self.state = TlsState::Established(connection);
        }
    }

    /// Ends the use of the layer after an error, of which the client is told.
    fn fail(&mut self, socket: &mut impl Write, error: io::Error) -> io::Error {
        if self.is_handshaking() {
            self.metrics.tls.failed.increment();
        }
        let state = std::mem::replace(&mut self.state, TlsState::PlainText);
        if let TlsState::Handshake(connection) | TlsState::Established(connection) = state {
            self.state = TlsState::Failed(connection);
        }
        // The caller does not flush a connection that it gives up. What does not leave now is tried once more if it
        // does.
        let _ = self.flush(socket);
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Takes plain bytes to be sent, once the socket has taken all that were encrypted before. Returns their number.
    pub fn write(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        match &mut self.state {
            TlsState::Established(connection) => {
                let taken = connection.writer().write(bytes)?;
                self.unsent_bytes += taken + taken.div_ceil(RECORD_BYTES_MAX) * RECORD_OVERHEAD_BYTES_MAX;
                Ok(taken)
            }
            // Nothing but the alert may be sent any longer. The caller ends the connection.
            TlsState::Failed(_) => Ok(bytes.len()),
            // To wait for the handshake would hold bytes for a client that may never finish it.
            TlsState::Fresh(_) | TlsState::Handshake(_) | TlsState::PlainText => {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    /// Sends what was encrypted and what TLS itself has to say.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        let (TlsState::Handshake(connection)
        | TlsState::Established(connection)
        | TlsState::Failed(connection)) = &mut self.state
        else {
            return Ok(());
        };
        while connection.wants_write() {
            match connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.unsent_bytes = self.unsent_bytes.saturating_sub(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent_bytes = 0;
        Ok(())
    }

    /// Tells the client that nothing more is sent to it, so that it can tell the end from a connection that was cut.
    pub fn end(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if let TlsState::Handshake(connection) | TlsState::Established(connection) = &mut self.state {
            connection.send_close_notify();
        }
        self.flush(socket)
    }

    /// Makes the layer hold fewer bytes, for a connection whose memory is counted by [`LAYER_BYTES_MAX`].
    pub fn limit_memory(&mut self) {
        if let TlsState::Established(connection) = &mut self.state {
            connection.set_buffer_limit(Some(HANDED_CHUNK_BYTES));
        }
    }
}
