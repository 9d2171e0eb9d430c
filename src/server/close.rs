//! The reasons for which a client's connection is closed: the code that the client is told, and what follows
//! from it.
//!
//! Clients are promised that the number alone says what to do next, so that they need not know every code: up
//! to 4099 the client must be mended, since it would be closed again; from 4100 to 4199 it should come back
//! later, and wait longer each time; from 4200 to 4299 it should come back at once, to this node or to another
//! one. A code also decides how the connection ends on this side.

/// A reason for which this node closes a connection, by the number that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The client broke the rules of its framing (RFC 6455: protocol error).
    ProtocolError = 1002,
    /// A message of a kind that this connection does not speak.
    UnsupportedKind = 1003,
    /// The client sent text that is not UTF-8.
    InvalidText = 1007,
    /// A message over the limit.
    TooLarge = 1009,
    /// The client has brought no token that is in force.
    Unauthorized = 4001,
    /// Protobuf that cannot be decoded.
    BadMessage = 4002,
    /// The client may no longer do what it does.
    Forbidden = 4003,
    /// The node has as many connections as it may have, or its clients hold as much memory as they may.
    OverCapacity = 4100,
    /// The client sends far more than its rate, and does not stop.
    OverRate = 4101,
    /// The node is shutting down.
    Draining = 4200,
    /// Nothing has come from the client for too long, not even a pong.
    NoPong = 4201,
    /// A subscriber to every record did not keep up, or this node could not hand it every record.
    TooSlow = 4202,
}

impl CloseCode {
    /// The number that is sent in the close frame.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Returns whether frames of which no byte was sent are dropped, so that the client is told at all: one
    /// that does not read would not see the close behind everything that waits for it.
    pub const fn drops_unsent(self) -> bool {
        matches!(self, CloseCode::NoPong | CloseCode::TooSlow | CloseCode::OverCapacity)
    }

    /// Returns whether the client's answer to the close is waited for. After a breach of the framing nothing
    /// that still arrives can be understood. And the frames of a client for which there is no room, or
    /// which sends too much, are not collected until the answer comes.
    pub const fn awaits_answer(self) -> bool {
        !matches!(
            self,
            CloseCode::ProtocolError
                | CloseCode::InvalidText
                | CloseCode::TooLarge
                | CloseCode::OverCapacity
                | CloseCode::OverRate
        )
    }
}

/// The reason why a connection is closed: a code, and the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The code, by which programs decide.
    pub code: CloseCode,
    /// The reason in words, for people.
    pub reason: String,
}

impl CloseReason {
    /// A code with its reason in words.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> CloseReason {
        CloseReason { code, reason: reason.into() }
    }
}
