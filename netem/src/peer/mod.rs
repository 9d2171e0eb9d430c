//! Runs of a profile with another system in place of aNode, to compare the two: nats-servers with a key-value bucket of
//! JetStream that has three replicas.
//!
//! The namespaces, the links, the faults and the load are those of every other run. [`Server`] says what runs on the
//! machines, [`Mapping`] which faults are left out, [`PeerLoad`] are the clients, and [`Accounting`] decides from what the
//! clients saw what became of the puts. Nothing here judges a promise: other systems promise other things.

mod accounting;
mod bucket;
mod config;
mod load;
mod mapping;
mod pace;
mod protocol;
mod publisher;
mod server;
mod socket;
mod summary;
#[cfg(test)]
mod tests;
mod watcher;

pub use accounting::{Account, Accounting, Lost};
pub use bucket::{Api, Contents, Replication, read_all, wait_made};
pub use load::PeerLoad;
pub use mapping::Mapping;
pub use pace::Back;
pub use server::{NODES_MIN, Server, sent_bytes};
pub use summary::{Comparison, Ending, HEAD};

/// Another system that runs can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// nats-server with a key-value bucket of JetStream
    Jetstream,
}

impl Peer {
    /// Returns the name by which the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Jetstream => "jetstream",
        }
    }
}
