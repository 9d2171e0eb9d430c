//! A connection: one socket with its protocol, and its part in the run.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::publisher::Publisher;
use super::subscriber::{Subscriber, Times};
use crate::measure::{Tally, note};
use crate::payload::Payloads;
use crate::tls::TlsClient;
use crate::wire::{Broken, Sink, Wire};

/// The part of a connection in the run, with its state.
pub enum Part {
    /// The connection publishes.
    Publisher(Publisher),
    /// The connection subscribes.
    Subscriber(Subscriber),
}

/// A connection to a server.
pub struct Connection {
    socket: TcpStream,
    /// The state of TLS, if the connection has it.
    tls: Option<TlsClient>,
    /// The protocol that is spoken on the connection.
    pub wire: Box<dyn Wire>,
    /// The part that the connection plays in the run.
    pub part: Part,
    /// Bytes to be written to the socket.
    pub out: Vec<u8>,
    /// How many bytes of `out` the socket has taken.
    written: usize,
    /// The beginning of a message that has not arrived completely yet.
    rest: Vec<u8>,
    /// Whether the handshake is done.
    pub is_ready: bool,
    /// Whether the socket takes no more at the moment: an event tells when it does again.
    pub is_choked: bool,
    /// Whether the connection is lost.
    pub is_broken: bool,
}

/// Opens a socket that connects in the background, from the address `local` if there is one.
pub fn open(to: SocketAddr, local: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// The error by which Linux tells that connecting goes on in the background.
const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// The state of a thread that reading uses besides the connection, borrowed for one call.
pub struct Reading<'a> {
    /// The read buffer of the thread.
    pub buffer: &'a mut Vec<u8>,
    /// The measurements of the thread.
    pub tally: &'a mut Tally,
    /// The payloads of the run, by which received ones are checked.
    pub payloads: &'a Payloads,
    /// The instants between which the run counts.
    pub times: Times,
}

/// Most bytes of a message from a server.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Connection {
    /// Makes a connection of a socket that is connecting; the client's first message waits in `out`.
    pub fn new(socket: TcpStream, tls: Option<TlsClient>, mut wire: Box<dyn Wire>, part: Part) -> Connection {
        let mut out = Vec::new();
        wire.hello(&mut out);
        Connection {
            socket,
            tls,
            wire,
            part,
            out,
            written: 0,
            rest: Vec::new(),
            is_ready: false,
            // The socket takes nothing until its first event tells that it is connected.
            is_choked: true,
            is_broken: false,
        }
    }

    /// Returns the socket, to be polled.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Returns whether bytes wait for the socket.
    pub fn has_unwritten(&self) -> bool {
        self.written < self.out.len()
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self) -> Result<(), Broken> {
        while !self.is_choked
            && (self.has_unwritten() || self.tls.as_ref().is_some_and(TlsClient::wants_write))
        {
            let rest = &self.out[self.written..];
            let written = match &mut self.tls {
                None => self.socket.write(rest),
                Some(tls) if tls.is_waiting() => break,
                Some(tls) => tls.write(&mut self.socket, rest),
            };
            match written {
                Ok(0) if self.tls.is_none() => return Broken::because("closed by the peer"),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_choked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Broken::because(error.to_string()),
            }
        }
        if !self.has_unwritten() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads until the socket is empty, and handles all whole messages.
    pub fn read(&mut self, reading: &mut Reading<'_>, mut now_ns: impl FnMut() -> u64) -> Result<(), Broken> {
        loop {
            let kept = self.rest.len();
            if reading.buffer.len() < kept * 2 {
                if kept > MESSAGE_BYTES_MAX {
                    return Broken::because("a message that is too long");
                }
                reading.buffer.resize(kept * 2, 0);
            }
            reading.buffer[..kept].copy_from_slice(&self.rest);
            let room = reading.buffer.len() - kept;
            let buffer = &mut reading.buffer[kept..];
            let read = match &mut self.tls {
                None => self.socket.read(buffer),
                Some(tls) => tls.read(&mut self.socket, buffer),
            };
            let bytes = match read {
                Ok(0) => return Broken::because("closed by the peer"),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Broken::because(error.to_string()),
            };
            reading.times.now_ns = now_ns();
            reading.tally.received_bytes += bytes as u64;
            self.handle(kept + bytes, reading)?;
            // Fewer bytes than there was room for: the socket is empty, and an event tells when it is not. Not so
            // with TLS, which gives the bytes of some of its records.
            if bytes < room && self.tls.is_none() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, length: usize, reading: &mut Reading<'_>) -> Result<(), Broken> {
        let bytes = &reading.buffer[..length];
        let mut inbox = Inbox {
            part: &mut self.part,
            is_ready: &mut self.is_ready,
            tally: reading.tally,
            payloads: reading.payloads,
            times: reading.times,
        };
        let done = self.wire.read(bytes, &mut self.out, &mut inbox)?;
        self.rest.clear();
        self.rest.extend_from_slice(bytes.get(done..).unwrap_or_default());
        Ok(())
    }
}

/// The receiver of what a wire reports about one connection.
struct Inbox<'a> {
    part: &'a mut Part,
    is_ready: &'a mut bool,
    tally: &'a mut Tally,
    payloads: &'a Payloads,
    times: Times,
}

impl Sink for Inbox<'_> {
    fn ready(&mut self) {
        *self.is_ready = true;
    }

    #[inline]
    fn delivered(&mut self, bytes: &[u8]) {
        if let Part::Subscriber(subscriber) = self.part {
            subscriber.take(bytes, self.times, self.payloads, self.tally);
        }
    }

    fn acked(&mut self, id: u64) {
        if let Part::Publisher(publisher) = self.part
            && let Some(due_ns) = publisher.answer(id)
        {
            self.tally.acked += 1;
            if due_ns >= self.times.counted_ns {
                note(&mut self.tally.ack_latency, self.times.now_ns.saturating_sub(due_ns));
            }
        }
    }

    fn refused(&mut self, id: Option<u64>, code: &str) {
        if let (Part::Publisher(publisher), Some(id)) = (&mut *self.part, id) {
            publisher.answer(id);
        }
        *self.tally.faults.refused.entry(code.to_owned()).or_default() += 1;
    }
}
