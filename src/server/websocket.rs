//! WebSocket framing without a socket: bytes in, messages out, control frames answered.
//!
//! tungstenite wants a stream that it can read from and write to. It gets a [`Pipe`] that exists for
//! one call: reading takes from what the worker just read (one buffer a worker, not a connection),
//! writing appends to the connection's [`Outbound`]. So nothing here ever blocks, and an idle
//! connection costs a small read buffer. Rejected: tungstenite over the socket itself, which would
//! keep a read buffer the size of a busy connection's for each idle one.

use std::io::{self, Read, Write};

use tungstenite::Message;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

use super::outbound::Outbound;

/// Read buffer of a connection, in bytes: allocated at once by tungstenite, so small.
const READ_BUFFER_BYTES: usize = 1024;
/// A connection that received a frame over this gives the memory back once it rests.
const KEPT_BYTES_MAX: usize = 4096;
/// Longest reason of a close frame, in bytes.
const REASON_BYTES_MAX: usize = 120;

/// A close code and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// As in the contract or RFC 6455.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl CloseReason {
    /// A code with its reason.
    pub fn new(code: u16, reason: impl Into<String>) -> CloseReason {
        CloseReason { code, reason: reason.into() }
    }
}

/// What came of reading.
#[derive(Debug)]
pub enum Incoming {
    /// A whole text message.
    Text(tungstenite::Utf8Bytes),
    /// A whole binary message.
    Binary(bytes::Bytes),
    /// The input is used up.
    Starved,
    /// The close handshake is done: send what waits, then drop the connection.
    Closed,
    /// The peer broke the protocol: close with this, and read nothing more.
    Broken(CloseReason),
}

/// The framing state of one connection.
#[derive(Debug)]
pub struct WebSocket {
    context: WebSocketContext,
    /// Bytes fed that no returned message accounts for: 0 only between messages.
    unaccounted: usize,
    largest: usize,
    frame_bytes_max: usize,
}

struct Pipe<'a, 'b> {
    input: &'a mut &'b [u8],
    /// Counts what is read.
    fed: &'a mut usize,
    out: &'a mut Outbound,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => {
                *self.fed += read;
                Ok(read)
            }
        }
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocket {
    /// The server's side of an accepted handshake.
    pub fn new(frame_bytes_max: usize) -> WebSocket {
        WebSocket { context: context(frame_bytes_max), unaccounted: 0, largest: 0, frame_bytes_max }
    }

    /// The next message in `input`, which is to be offered until it is `Starved`. Pongs and the answer
    /// to a close go to `out`.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Outbound) -> Incoming {
        loop {
            let mut pipe = Pipe { input, fed: &mut self.unaccounted, out };
            match self.context.read(&mut pipe) {
                Ok(Message::Text(text)) => {
                    self.account(text.len());
                    return Incoming::Text(text);
                }
                Ok(Message::Binary(data)) => {
                    self.account(data.len());
                    return Incoming::Binary(data);
                }
                Ok(Message::Ping(data) | Message::Pong(data)) => self.account(data.len()),
                Ok(Message::Close(_) | Message::Frame(_)) => {}
                Err(error) => return self.handle_error(error),
            }
        }
    }

    /// Begins the close handshake, or, after a close frame was sent, does nothing.
    pub fn close(&mut self, close: &CloseReason, out: &mut Outbound) {
        let mut end = close.reason.len().min(REASON_BYTES_MAX);
        while !close.reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = close.reason.get(..end).unwrap_or_default();
        let frame = CloseFrame { code: CloseCode::from(close.code), reason: reason.into() };
        // An error says that the handshake is over already: there is nothing left to send.
        let mut pipe = Pipe { input: &mut &[][..], fed: &mut 0, out };
        let _ = self.context.close(&mut pipe, Some(frame));
    }

    fn account(&mut self, payload: usize) {
        let extended = match payload {
            0..126 => 0,
            126..65536 => 2,
            _ => 8,
        };
        self.largest = self.largest.max(payload);
        // A fragmented message has more headers than this; then the count never comes to 0 again,
        // and the connection keeps its buffer.
        self.unaccounted = self.unaccounted.saturating_sub(2 + extended + 4 + payload);
    }

    fn handle_error(&mut self, error: Error) -> Incoming {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.rest();
                Incoming::Starved
            }
            Error::ConnectionClosed | Error::AlreadyClosed => Incoming::Closed,
            Error::Utf8(_) => broken(1007, "text that is not UTF-8"),
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                broken(1009, &format!("a frame of {size} bytes; at most {max_size}"))
            }
            Error::Capacity(_) => broken(1009, "a frame over the limit"),
            error => broken(1002, &error.to_string()),
        }
    }

    /// After a large frame the buffer is as large as it was. Between messages nothing is in it, and a
    /// new one does as well.
    fn rest(&mut self) {
        if self.largest > KEPT_BYTES_MAX && self.unaccounted == 0 && self.context.can_write() {
            self.context = context(self.frame_bytes_max);
            self.largest = 0;
        }
    }
}

fn broken(code: u16, reason: &str) -> Incoming {
    Incoming::Broken(CloseReason::new(code, reason))
}

fn context(frame_bytes_max: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(frame_bytes_max))
        .max_frame_size(Some(frame_bytes_max));
    WebSocketContext::new(Role::Server, Some(config))
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
