//! The protocols of all targets, behind one trait.
//!
//! A wire is the protocol of one connection, and knows neither sockets nor clocks: received bytes go into
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
use crate::token::Bearer;

/// An observer that is told what happens on a connection.
pub trait Sink {
    /// The handshake is done; a subscriber's subscription is in force.
    fn ready(&mut self);
    /// Records were delivered: `bytes` hold one or more.
    fn delivered(&mut self, bytes: &[u8]);
    /// The message with this id was answered.
    fn acked(&mut self, id: u64);
    /// A message was refused; the id is there if the server told it.
    fn refused(&mut self, id: Option<u64>, code: &str);
}

/// A message that is to be published.
pub struct Message<'a> {
    /// Index of the source.
    pub source: u32,
    /// The data: a JSON value.
    pub payload: &'a [u8],
    /// Number of the message on its connection, from 0; set if an answer is wanted.
    pub id: Option<u64>,
}

/// A connection is lost. The text says why.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    /// Makes the error for a reason.
    pub fn because<T>(reason: impl Into<String>) -> Result<T, Broken> {
        Err(Broken(reason.into()))
    }
}

/// The protocol of one connection. Call [`Wire::hello`] first, then the others as bytes arrive and messages
/// are due.
pub trait Wire: Send {
    /// Appends the first message of the client.
    fn hello(&mut self, out: &mut Vec<u8>);
    /// Appends a message. It may be kept in a batch until [`Wire::seal`].
    fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>);
    /// Completes an unfinished batch. It must be called before the bytes are written to the socket.
    fn seal(&mut self, out: &mut Vec<u8>);
    /// Reads whole messages from the beginning of `bytes`, and appends the answers that the protocol asks for.
    /// Returns the number of bytes that were used; the caller passes the rest again, with more behind.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<usize, Broken>;
}

/// The task of a connection: publishing or subscribing.
#[derive(Clone, Debug)]
pub enum Role {
    /// The connection publishes.
    Publisher,
    /// The connection subscribes to these patterns.
    Subscriber(Vec<Pattern>),
}

/// When a publish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Publishes are not answered, except that aNode tells refusals.
    None,
    /// A publish is answered when the broker has taken the message; with aNode, at the level of this name.
    Accepted,
    /// The level `stored`, of aNode only.
    Stored,
    /// The level `replicated`, of aNode only.
    Replicated,
}

impl Ack {
    /// Returns the name of the level in options and requests.
    pub fn name(self) -> &'static str {
        match self {
            Ack::None => "none",
            Ack::Accepted => "accepted",
            Ack::Stored => "stored",
            Ack::Replicated => "replicated",
        }
    }
}

/// The settings that all wires of a run have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// Names of the sources.
    pub names: Names,
    /// When publishes are answered.
    pub ack: Ack,
    /// For aNode: whether `mode=latest` is asked for rather than `mode=all`.
    pub is_latest: bool,
    /// For aNode: whether subscribers ask for the snapshot, too.
    pub snapshot: bool,
    /// For aNode: most records of a published frame.
    pub publish_batch: usize,
    /// For aNode: whether subscribers ask for frames of several records.
    pub subscribe_batch: bool,
    /// For aNode: the token that every connection brings, if the nodes want one.
    pub token: Option<Bearer>,
}
