//! The way in: the messages of one connection, found in the bytes that arrive on it.

use super::event_stream;
use super::message::Unwrapped;
use super::websocket::WebSocket;
use super::wrap::Framing;
use crate::server::close::CloseReason;
use crate::server::outbound::Outbound;

/// The state that a connection keeps to read the frames that arrive on it.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all connections have the large one, and read it for every message"
)]
pub enum FrameReader {
    /// The state of a WebSocket whose handshake is done.
    WebSocket(WebSocket),
    /// A stream of events, on which the client says nothing.
    EventStream,
}

impl FrameReader {
    /// The reader of a connection that has just changed to `framing`. A message of more than
    /// `message_bytes_max` bytes breaks the rules.
    pub fn new(framing: Framing, message_bytes_max: usize) -> FrameReader {
        match framing {
            Framing::WebSocket => FrameReader::WebSocket(WebSocket::new(message_bytes_max)),
            Framing::EventStream => FrameReader::EventStream,
        }
    }

    /// Returns the next message in `input`, and cuts what was read off its front. To be called until the
    /// input is used up ([`Unwrapped::Starved`]). What the framing itself answers goes to `out`.
    pub fn read<'a, 'b: 'a>(&'a mut self, input: &mut &'b mut [u8], out: &mut Outbound) -> Unwrapped<'a> {
        match self {
            FrameReader::WebSocket(websocket) => websocket.read(input, out),
            // What comes behind the request belongs to no message.
            FrameReader::EventStream => {
                *input = &mut [];
                Unwrapped::Starved
            }
        }
    }

    /// Returns how many bytes are held of messages that have not come in full.
    pub fn held_bytes(&self) -> usize {
        match self {
            FrameReader::WebSocket(websocket) => websocket.held_bytes(),
            FrameReader::EventStream => 0,
        }
    }

    /// Returns whether the client answers a close.
    pub fn is_close_answered(&self) -> bool {
        matches!(self, FrameReader::WebSocket(_))
    }

    /// Returns whether a message has begun that goes on behind the bytes that were read.
    pub fn is_within_message(&self) -> bool {
        match self {
            FrameReader::WebSocket(websocket) => websocket.is_within_message(),
            FrameReader::EventStream => false,
        }
    }

    /// Tells the client, behind what waits in `out`, that the connection is closed and why.
    pub fn close(&mut self, close: &CloseReason, out: &mut Outbound) {
        match self {
            FrameReader::WebSocket(websocket) => websocket.close(close, out),
            FrameReader::EventStream => {
                let mut last = Vec::new();
                event_stream::write_close(&mut last, close);
                out.append(&last);
            }
        }
    }
}
