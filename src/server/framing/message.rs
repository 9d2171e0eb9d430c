//! What sessions and framings exchange: messages, and the form in which their content is written.

use crate::server::close::CloseReason;

/// The form in which the content of messages is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// JSON, as text.
    Json,
    /// Protobuf, as bytes.
    Protobuf,
}

/// All codecs, each at its [`Codec::index`].
pub const CODECS: [Codec; 2] = [Codec::Json, Codec::Protobuf];

impl Codec {
    /// The codec's place in [`CODECS`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name of the WebSocket subprotocol whose messages are written in this codec.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Codec::Json => "anode.v1.json",
            Codec::Protobuf => "anode.v1.protobuf",
        }
    }
}

/// A whole message of a client, free of its frame.
#[derive(Clone, Copy, Debug)]
pub enum IncomingMessage<'a> {
    /// A message that was sent as text.
    Text(&'a str),
    /// A message that was sent as bytes.
    Binary(&'a [u8]),
}

/// The result of looking for a message in the bytes that a framing was offered.
#[derive(Debug)]
pub enum Unwrapped<'a> {
    /// The next message.
    Message(IncomingMessage<'a>),
    /// The input is used up, and no message is complete.
    Starved,
    /// Both sides have closed the framing: the connection ends once everything is sent.
    Ended,
    /// The client broke the rules of the framing: the connection is to be closed for this reason, and
    /// nothing more is to be read from it.
    Broken(CloseReason),
}
