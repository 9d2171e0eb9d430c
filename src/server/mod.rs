//! The event loops: everything that has a socket, a thread or a clock.
//!
//! A node ([`node`]) is W workers ([`worker`]), each a thread with a poll and a listener of its own on
//! the same port. A worker accepts ([`acceptor`]), reads the head of each connection ([`head`]), frames
//! WebSockets ([`websocket`]) and lets [`session`]s work ([`clients`]). Changes come to it through its
//! mailbox ([`mailbox`]). Worker 0 also drives the cluster machine ([`gossip`]) over UDP ([`datagram`])
//! and TCP ([`stream`]). What all share is in [`shared`]; only [`clock`] reads clocks.
//!
//! Everything else on the HTTP port is handed to the control plane (`crate::http`), which sees the node
//! through [`control`].

mod acceptor;
mod acks;
mod address;
mod batch;
mod clients;
pub mod clock;
mod connection;
mod control;
mod datagram;
mod frame;
mod gossip;
mod head;
mod host;
mod idle;
mod inbox;
mod liveness;
mod loader;
mod mailbox;
mod node;
mod outbound;
mod outlets;
mod resolver;
mod run;
mod session;
mod shared;
mod stream;
mod takeover;
mod timer;
mod websocket;
mod worker;

pub use address::AddressError;
pub use node::{Node, NodeHandle, ServerError};
pub use run::run;
pub use shared::Fatal;

#[cfg(test)]
mod tests;
