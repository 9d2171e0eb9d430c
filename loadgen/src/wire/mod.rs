//! What each target says on the wire, behind one trait.
//!
//! A wire knows one connection's protocol and neither sockets nor clocks: bytes come in by
//! [`Wire::read`], bytes to send are appended to a buffer, and what happened is told to a [`Sink`].

pub mod anode_json;
pub mod anode_proto;
pub mod mqtt;
pub mod nats;
pub mod redis;
pub mod tunnel;
pub mod websocket;

#[cfg(test)]
mod tests;

use crate::names::{Names, Pattern};

/// What happened on a connection.
pub trait Sink {
    /// The handshake is done; a subscriber's subscription is in force.
    fn ready(&mut self);
    /// Bytes that hold one delivered record or more.
    fn delivered(&mut self, bytes: &[u8]);
    /// The message with this id is answered.
    fn acked(&mut self, id: u64);
    /// A message was refused, with the id it had, if any.
    fn refused(&mut self, id: Option<u64>, code: &str);
}

/// A message to publish.
pub struct Message<'a> {
    /// Index of the source.
    pub source: u32,
    /// A JSON value.
    pub payload: &'a [u8],
    /// Counts from 0 on each connection; set if an answer is wanted.
    pub id: Option<u64>,
}

/// Why a connection is of no more use, in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    /// For this reason.
    pub fn because<T>(reason: impl Into<String>) -> Result<T, Broken> {
        Err(Broken(reason.into()))
    }
}

/// One connection's protocol. First [`Wire::hello`], then the others as bytes come and messages are due.
pub trait Wire: Send {
    /// Appends what the client says first.
    fn hello(&mut self, out: &mut Vec<u8>);
    /// Appends a message. It may wait for others until [`Wire::seal`].
    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>);
    /// Appends what still waits; called before the bytes are written to the socket.
    fn seal(&mut self, out: &mut Vec<u8>);
    /// Reads whole messages from the beginning of `bytes`, appends answers that the protocol asks for,
    /// and says how many bytes it is done with. The rest comes again, with more.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken>;
}

/// What a connection is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// It publishes.
    Publisher,
    /// It subscribes to these patterns.
    Subscriber(Vec<Pattern>),
}

/// When a publish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Never, but for refusals.
    None,
    /// aNode's level of this name; elsewhere: when the broker has taken the message.
    Accepted,
    /// aNode only.
    Stored,
    /// aNode only.
    Replicated,
}

impl Ack {
    /// As it is written in options and requests.
    pub fn name(self) -> &'static str {
        match self {
            Ack::None => "none",
            Ack::Accepted => "accepted",
            Ack::Stored => "stored",
            Ack::Replicated => "replicated",
        }
    }
}

/// What all wires of a run have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// The sources' names.
    pub names: Names,
    /// When publishes are answered.
    pub ack: Ack,
    /// aNode: `mode=latest` rather than `mode=all`.
    pub is_latest: bool,
    /// aNode: the snapshot before what is live.
    pub snapshot: bool,
    /// aNode: records a frame when publishing.
    pub publish_batch: usize,
    /// aNode: frames of several records when subscribing.
    pub subscribe_batch: bool,
}
