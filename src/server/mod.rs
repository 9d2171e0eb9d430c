//! The event loops: everything that has a socket, a thread or a clock.
//!
//! A node ([`node`]) has a number of workers ([`worker`]), each a thread with a poll and a listener of its
//! own on the same port. A worker accepts connections ([`acceptor`]), reads through their [`transport`] (with [`tls`]) the
//! head of a request ([`head`], and [`handshake`] of a WebSocket), finds messages in what follows ([`framing`]) and lets a [`session`] work
//! on them; its connections are in [`clients`]. Changes come to it through its [`mailbox`]. Worker 0 also
//! drives the cluster machine ([`gossip`]), over UDP ([`datagram`]) and TCP ([`stream`]), and shares the merging of
//! what comes with the other workers ([`merging`]).
//!
//! What the threads share is in [`shared`]: the map, the store, the phase of the node ([`lifecycle`]), what
//! it knows of its cluster ([`cluster_view`]), and the [`pressure`] on its queues. Only [`clock`] reads
//! clocks.
//!
//! All other requests on the HTTP port are handed to the control plane (`crate::http`), which sees the node
//! through [`control`].

mod acceptor;
mod account;
mod acks;
mod address;
mod affinity;
mod backend;
mod batch;
mod clients;
pub mod clock;
mod clock_watch;
mod close;
mod closing_streams;
mod cluster_view;
mod complaints;
mod connection;
mod control;
mod datagram;
#[cfg(test)]
mod echo_tests;
mod extend_host;
mod forgetting;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gossip;
mod guests;
mod handshake;
mod head;
mod headers;
mod host;
mod idle;
mod inbox;
mod join_targets;
mod key_file;
mod lanes;
mod lifecycle;
mod liveness;
mod loader;
mod log_limit;
mod mailbox;
mod map_walk;
mod merge_queue;
mod merging;
mod node;
mod outbound;
mod outlets;
pub mod peer_check;
mod pressure;
pub mod process;
mod reach;
pub mod reload;
mod resolver;
mod rest;
mod run;
mod session;
mod shared;
mod story;
mod stream;
mod takeover;
mod time_bound;
mod timer;
mod tls;
mod tokens;
mod traces;
mod transport;
mod warnings;
mod watches;
mod worker;

pub use node::{Node, NodeHandle, ServerError};
pub use run::run;

#[cfg(test)]
mod tests;
