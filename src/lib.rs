//! aNode: a decentralized real-time data-sharing server.
#![forbid(unsafe_code)]

pub(crate) mod auth;
pub mod cli;
pub mod cluster;
pub(crate) mod config;
pub mod expression;
pub(crate) mod extend;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub(crate) mod http;
pub mod ingest;
pub mod latest;
pub mod limits;
pub(crate) mod memory;
pub mod metrics;
#[cfg(feature = "planted-bugs")]
mod planted;
pub mod protocol;
pub mod record;
pub(crate) mod server;
pub(crate) mod sim;
pub mod store;
pub mod subscriptions;

/// Code generated from the schemas in `proto/`. Only the files that read and write messages use it. The rest
/// of the program has types that cannot hold invalid values.
mod proto {
    #![allow(missing_docs, dead_code, clippy::all)]
    /// Messages between nodes.
    pub mod gossip {
        include!(concat!(env!("OUT_DIR"), "/anode.gossip.v1.rs"));
    }
    /// Messages between clients and nodes.
    pub mod client {
        include!(concat!(env!("OUT_DIR"), "/anode.v1.rs"));
    }
}
