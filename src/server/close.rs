//! The reasons for which a client's connection is closed: the code that the client is told, and what follows
//! from it.
//!
//! The number of a code says what the client should do next, so that a client need not know every code:
//! see [`Afterwards`]. A code also decides how the connection ends on this side.

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
    /// Protobuf that cannot be decoded.
    BadMessage = 4002,
    /// The node has as many connections as it may have.
    OverCapacity = 4100,
    /// The node is shutting down.
    Draining = 4200,
    /// Nothing has come from the client for too long, not even a pong.
    NoPong = 4201,
    /// A subscriber to every record did not keep up, or this node could not hand it every record.
    TooSlow = 4202,
}

/// The action that a client should take after its connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// The client must be mended: it would be closed again.
    Mend,
    /// The client should come back later, and wait longer each time.
    BackOff,
    /// The client should come back now, to this node or to another one.
    ComeBack,
}

/// All codes, for the check below that their numbers are those that clients are promised.
const CODES: [CloseCode; 9] = [
    CloseCode::ProtocolError,
    CloseCode::UnsupportedKind,
    CloseCode::InvalidText,
    CloseCode::TooLarge,
    CloseCode::BadMessage,
    CloseCode::OverCapacity,
    CloseCode::Draining,
    CloseCode::NoPong,
    CloseCode::TooSlow,
];

impl CloseCode {
    /// The number that is sent in the close frame.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Returns the action that the client should take next.
    pub const fn afterwards(self) -> Afterwards {
        match self {
            CloseCode::ProtocolError
            | CloseCode::UnsupportedKind
            | CloseCode::InvalidText
            | CloseCode::TooLarge
            | CloseCode::BadMessage => Afterwards::Mend,
            CloseCode::OverCapacity => Afterwards::BackOff,
            CloseCode::Draining | CloseCode::NoPong | CloseCode::TooSlow => Afterwards::ComeBack,
        }
    }

    /// Returns whether frames of which no byte was sent are dropped, so that the client is told at all: one
    /// that does not read would not see the close behind everything that waits for it.
    pub const fn drops_unsent(self) -> bool {
        matches!(self, CloseCode::NoPong | CloseCode::TooSlow)
    }

    /// Returns whether the client's answer to the close is waited for. After a breach of the framing nothing
    /// that still arrives can be understood.
    pub const fn awaits_answer(self) -> bool {
        !matches!(self, CloseCode::ProtocolError | CloseCode::InvalidText | CloseCode::TooLarge)
    }
}

// Clients are promised that the number alone says what to do next.
const _: () = {
    let mut at = 0;
    while at < CODES.len() {
        let code = CODES[at];
        let is_promised = match code.afterwards() {
            Afterwards::Mend => matches!(code.number(), 1000..=1015 | 4000..=4099),
            Afterwards::BackOff => matches!(code.number(), 4100..=4199),
            Afterwards::ComeBack => matches!(code.number(), 4200..=4299),
        };
        assert!(is_promised);
        at += 1;
    }
};

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
