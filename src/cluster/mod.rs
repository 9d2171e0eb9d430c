//! The cluster's pure core: who is a member, and how records reach them all.
//!
//! One state machine ([`Machine`]) without sockets, threads, clock or global randomness. The server
//! drives it with mio; the simulator drives thousands of the very same machines.

mod frames;
mod machine;
pub(crate) mod members;
pub mod outbox;
mod purpose;
pub mod random;
pub(crate) mod reconcile;
pub(crate) mod ring;
mod routing;
pub mod seal;
mod spread;
pub(crate) mod stats;
mod streams;
mod swim;
mod wire;

use std::net::SocketAddr;

use bytes::Bytes;

pub(crate) use self::machine::Machine;
pub(crate) use self::streams::{StreamEvent, StreamId, StreamOutput};
pub(crate) use self::swim::Known;
pub(crate) use crate::config::Profile;
use crate::limits::SHARDS;
use crate::record::{NodeName, Now, SharedRecord};

/// What the machine wants done. Drained with `poll_effect` after every `handle_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send one datagram.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// All of it.
        bytes: Bytes,
    },
    /// Do something with a stream.
    Stream(StreamOutput),
    /// The member list changed: publish it to readers.
    MembersChanged,
    /// This node's name is alive at another address: it must not go on.
    NameTaken {
        /// Where the other one is.
        by: SocketAddr,
    },
    /// An answer need not wait any longer.
    Replicated(Replicated),
}

/// What became of a record that every member was to hold ([`Machine::handle_awaited`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// The caller's.
    pub token: u64,
    /// Members known to hold it or a newer one, this node included.
    pub nodes: u32,
    /// Whether these are all that were alive when it was accepted and have not gone since; if not,
    /// [`crate::limits::REPLICATED_US_MAX`] is over.
    pub is_whole: bool,
}

/// By which way a record came from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Down the tree that its origin started.
    Tree {
        /// How often it was handed over on its way, at least once.
        hops: u32,
    },
    /// Asked for, to fill a gap.
    Repair,
    /// By reconciliation.
    Reconcile,
}

/// The replicated map as the machine sees it.
pub trait Replica {
    /// Merges a record from a peer; delivers and stores it if it was newer.
    /// `true`: it is the latest now.
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool;
    /// Takes a record out that the cluster has forgotten while this node was away, if it is still
    /// the latest of its source.
    fn discard(&mut self, record: &SharedRecord);
    /// The latest record of a source, deletions and expired ones included.
    fn get(&self, source: &str) -> Option<SharedRecord>;
    /// The fingerprint of every shard: XOR of the checksums of its records, through a mixing step.
    fn fingerprints(&self) -> [u64; SHARDS];
    /// Shows every record of a shard, deletions and expired ones included, in no stated order.
    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord));
}

/// What a machine is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub name: NodeName,
    /// This life's number: greater at every start.
    pub boot: u64,
    /// Datagrams of other clusters are counted and ignored.
    pub cluster_name: String,
    /// The address others reach this node's UDP and TCP at.
    pub gossip: SocketAddr,
    /// `host:port` of this node's HTTP port, told to others and to clients.
    pub http: String,
    /// Where links are short.
    pub zone: String,
    /// This program's version, told to others.
    pub version: String,
    /// Intervals.
    pub profile: Profile,
    /// How long deletions are kept, in microseconds.
    pub tombstones_us: u64,
    /// When this node last agreed fully with the cluster (wall clock, microseconds); `None`: never,
    /// or nothing is held.
    pub agreed_us: Option<u64>,
    /// Whether join targets were given: without any, a node is complete by itself.
    pub has_seeds: bool,
    /// Seed of all randomness in the machine.
    pub seed: u64,
}

/// Up to which sequence number, without a hole, records of an origin's life are held or known to be
/// superseded. Ordered, since its order can be seen in tokens.
pub type Heads = std::collections::BTreeMap<(NodeName, u64), u64>;
