//! The cluster's pure core: who is a member, how records reach all members, and how their maps become equal.
//!
//! One state machine ([`Machine`]) without sockets, threads, clock or global randomness. The server drives it
//! with mio; the simulator drives thousands of the very same machines.
//!
//! A *life* of a node lasts from one start of the node to the next, and has one boot number. A node whose
//! incarnation is beyond reason takes a new boot number while it runs (`swim/lives.rs`). For membership, that is a
//! new life, while its records keep the boot number of the start. The *origin* of
//! a record is the node that accepted it from a client; the records of one life of an origin are numbered
//! from 1. The *head* of such a life is the number up to which a node holds all of its records. A *peer* is
//! the node at the other end of an exchange.

mod by_key;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod machine;
pub(crate) mod members;
pub mod outbox;
mod parts;
mod purpose;
pub mod random;
pub(crate) mod reconcile;
pub(crate) mod ring;
mod routing;
pub mod seal;
mod spread;
pub(crate) mod stats;
mod strangers;
mod streams;
mod swim;
mod told_keys;
mod wire;

use std::net::SocketAddr;

use bytes::Bytes;

pub use self::machine::Machine;
pub use self::spread::{AppliedBatch, BatchOutcome, BatchTicket, ReceivedBatch};
pub(crate) use self::streams::{StreamEvent, StreamId, StreamOutput};
pub use self::swim::Known;
pub(crate) use self::swim::SeedInfo;
#[cfg(test)]
pub(crate) use self::swim::forgery_tests::forged_news;
pub use crate::config::Profile;
use crate::limits::SHARDS;
use crate::record::{NodeName, Now, SharedRecord, Stamp};

/// Something that the machine wants done. The driver takes effects with `poll_effect` after every `handle_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send one datagram.
    Datagram {
        /// Address of the receiver.
        to: SocketAddr,
        /// The whole datagram.
        bytes: Bytes,
    },
    /// Do something with a stream.
    Stream(StreamOutput),
    /// Publish the member list to its readers: it changed.
    MembersChanged,
    /// Stop this node: a member of the same name is alive at another address.
    NameTaken {
        /// Address of that member.
        by: SocketAddr,
    },
    /// Keep this boot number where boot numbers are kept, so that the next start takes a greater one. The machine
    /// has taken it for membership. The node's records go on with the boot number of its start.
    NewBoot {
        /// The boot number.
        boot: u64,
    },
    /// Give an answer that waited for all members to hold a record.
    Replicated(Replicated),
}

/// The result for a record that every live member was to hold ([`Machine::handle_awaited`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// Number that the caller gave to the answer.
    pub token: u64,
    /// Number of members known to hold the record or a newer one of its source, this node included.
    pub nodes: u32,
    /// Whether these are all members that were alive when the record was accepted and have not gone since. If
    /// not, the answer was given because [`crate::limits::REPLICATED_US_MAX`] had passed.
    pub is_whole: bool,
}

/// The way on which a record came from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Down the tree that the record's origin started.
    Tree {
        /// Number of hand-overs on the way, at least 1.
        hops: u32,
    },
    /// The record came in answer to a question of this node, to fill a gap.
    Repair,
    /// The record came in a session of reconciliation.
    Reconcile,
}

/// The map of the latest records, as the machine uses it.
pub trait Replica {
    /// Merges a record from a peer, and delivers and stores it if it is newer than what is held. Returns
    /// whether it is the latest of its source now.
    fn apply(&mut self, now: Now, record: SharedRecord, arrival: Arrival) -> bool;
    /// Takes a batch of records from a peer. Either applies it now, as [`ReceivedBatch::apply_to`] does, and
    /// returns the outcome. Or returns `None`, lets another thread apply it, and hands the outcome to
    /// [`Machine::handle_applied`] afterwards. A batch whose outcome is never handed over is sent again by the
    /// peers.
    fn take_batch(&mut self, now: Now, batch: ReceivedBatch) -> Option<BatchOutcome> {
        Some(batch.apply_to(now, self))
    }
    /// Removes a record that the cluster has forgotten while this node was away, if it is still
    /// the latest of its source.
    fn discard(&mut self, now: Now, record: &SharedRecord);
    /// Returns the latest record of a source, deletions and expired records included.
    fn get(&self, source: &str) -> Option<SharedRecord>;
    /// Returns whether a record of the source with this stamp or a greater one is the latest, or was until its
    /// time to live ended.
    fn holds(&self, source: &str, stamp: Stamp) -> bool {
        self.get(source).is_some_and(|record| record.stamp >= stamp)
    }
    /// Returns the fingerprint of every shard: the XOR of the mixed checksums of its records.
    fn fingerprints(&self) -> [u64; SHARDS];
    /// Calls `visit` with every record of a shard, deletions and expired records included, in any order.
    fn visit_shard(&self, shard: usize, visit: &mut dyn FnMut(&SharedRecord));
}

/// The settings of a machine.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Name of this node.
    pub name: NodeName,
    /// Number of this life of the node: greater at every start.
    pub boot: u64,
    /// Name of the cluster. Messages of other clusters are counted and ignored.
    pub cluster_name: String,
    /// Address at which other nodes reach this one, by UDP and by TCP.
    pub gossip: SocketAddr,
    /// Address of this node's HTTP port as `host:port`, told to other nodes and to clients.
    pub http: String,
    /// Name of this node's zone, within which round trips are short; empty if it has none.
    pub zone: String,
    /// Version of this program, told to other nodes.
    pub version: String,
    /// Set of intervals and timeouts.
    pub profile: Profile,
    /// Time for which deletions are kept, in microseconds.
    pub tombstones_us: u64,
    /// Wall clock, in microseconds, when this node last held the same as another member; `None` if it never
    /// did, or if it holds nothing.
    pub agreed_us: Option<u64>,
    /// Whether join targets were given. A node without any is complete by itself.
    pub has_seeds: bool,
    /// Seed of all random numbers in the machine.
    pub seed: u64,
    /// The keys with which messages are sealed; `None`: they have a checksum alone.
    pub keys: Option<seal::SealKeys>,
}

/// First bytes of a stream on which the life `boot` of a node of this cluster would exchange member lists. Nodes
/// of the cluster leave such a stream open for a while; nodes of other clusters close it.
///
/// With keys, the random bits among them must be those of no other life. A node of the cluster answers then, but the
/// stream cannot be used.
pub(crate) fn membership_preamble(
    cluster_name: &str,
    (name, boot): (&NodeName, u64),
    keys: Option<seal::SealKeys>,
) -> Bytes {
    let seal = seal::ClusterSeal::new(cluster_name, name, boot, keys);
    wire::Wire::new(cluster_name, boot, seal).connect(purpose::Purpose::Members).0
}

/// A datagram that asks any node of this cluster at `to` for an answer, as the life `boot` of a node would before it joins.
/// It introduces nobody, so the node that answers remembers nothing.
pub(crate) fn membership_ping(
    cluster_name: &str,
    (name, boot): (&NodeName, u64),
    keys: Option<seal::SealKeys>,
    to: SocketAddr,
) -> Bytes {
    use swim::message::{Ping, SwimMessage};
    let seal = seal::ClusterSeal::new(cluster_name, name, boot, keys);
    let sender = name.clone();
    // An answer to a stranger is not larger than the question.
    let padding = ASKING_PADDING_BYTES;
    let ping = Ping { sequence: 1, target: 0, sender, view: 0, introduction: None, padding };
    let said = wire::Said::Members(SwimMessage::Ping(ping), Vec::new());
    wire::Wire::new(cluster_name, boot, seal).datagram(to, said, wire::Riders::default())
}

/// Bytes without a meaning in a ping of somebody who only asks: as many as the largest answer has.
const ASKING_PADDING_BYTES: usize = 600;

/// The head of every known life of an origin, by its name and boot number: the greatest sequence number up to
/// which all records are held or known to be superseded. The map is ordered, because its order shows in
/// resume tokens.
pub type Heads = std::collections::BTreeMap<(NodeName, u64), u64>;
