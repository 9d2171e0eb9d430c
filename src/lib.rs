//! aNode: a decentralized real-time data-sharing server.
#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
pub mod config;
pub mod http;
pub mod ingest;
pub mod latest;
pub mod limits;
pub mod metrics;
pub mod protocol;
pub mod record;
pub mod server;
pub mod sim;
pub mod store;
pub mod subscriptions;

/// Generated from `proto/`. Used by the wire files alone; everyone else has types that cannot be
/// wrong.
mod proto {
    #![allow(missing_docs, dead_code, clippy::all)]
    /// Between nodes.
    pub mod gossip {
        include!(concat!(env!("OUT_DIR"), "/anode.gossip.v1.rs"));
    }
    /// Between clients and nodes.
    pub mod client {
        include!(concat!(env!("OUT_DIR"), "/anode.v1.rs"));
    }
}
