//! The members of the test world: their names and addresses, the records that they publish, and the state of
//! each node.

use std::net::SocketAddr;
use std::sync::Arc;

use super::arrivals::Arrivals;
use crate::cluster::members::{Identity, State};
use crate::cluster::ring::Ring;
use crate::cluster::seal::{Checksum, Seal, body_bytes_max};
use crate::cluster::spread::Spread;
use crate::cluster::spread::tree::mix;
use crate::cluster::{MachineConfig, Profile};
use crate::record::{Birth, NodeName, Now, Payload, Record, SharedRecord, Source, Stamp};

/// The `index`-th node's identity, in no zone.
pub(in crate::cluster::spread) fn identity(index: usize) -> Arc<Identity> {
    identity_in(index, "")
}

/// The `index`-th node's identity.
pub(in crate::cluster::spread) fn identity_in(index: usize, zone: &str) -> Arc<Identity> {
    let name = NodeName::parse(&format!("node-{index}")).expect("name");
    Arc::new(Identity::new(name, 1_763_800_000 + index as u64, address(index), "", zone, ""))
}

/// The `index`-th node's address.
pub(in crate::cluster::spread) fn address(index: usize) -> SocketAddr {
    let [_, a, b, c] = (index as u32).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 7946))
}

/// A ring of the first `count` nodes.
pub(in crate::cluster::spread) fn ring_of(count: usize) -> Ring {
    let mut ring = Ring::default();
    (0..count).for_each(|index| ring.insert(identity(index), State::Alive));
    ring
}

/// Most bytes of the body of a datagram, sealed as nodes seal them.
pub(in crate::cluster::spread) fn body_bytes() -> usize {
    body_bytes_max(Checksum.overhead_bytes())
}

/// A record with `len` bytes of data.
pub(in crate::cluster::spread) fn record(origin: &NodeName, boot: u64, seq: u64, len: usize) -> SharedRecord {
    let source = Source::parse(&format!("sensors/{origin}/{seq}")).expect("source");
    let data = vec![seq as u8; len];
    let birth = Birth { origin: origin.clone(), boot, seq };
    let ts = 1_763_800_000_000_000 + seq;
    Arc::new(Record::new(source, Stamp::of_data(ts, &data), Payload::Binary(data.into()), birth, ts, 0))
}

fn config(identity: &Identity, boot: u64, seed: u64) -> MachineConfig {
    MachineConfig {
        name: identity.name.clone(),
        boot,
        cluster_name: String::new(),
        gossip: identity.gossip(),
        http: String::new(),
        zone: identity.zone().into(),
        version: String::new(),
        profile: Profile::Lan,
        tombstones_us: 0,
        agreed_us: None,
        has_seeds: false,
        seed: mix(seed),
        keys: None,
    }
}

/// One node of the world.
pub(in crate::cluster::spread) struct Node {
    /// The node's part in spreading.
    pub spread: Spread,
    /// The members, as the node sees them.
    pub ring: Arc<Ring>,
    /// The records that arrived at the node.
    pub arrivals: Arrivals,
    /// Whether the node runs.
    pub is_up: bool,
    /// Bytes of the packets that the node sent.
    pub sent_bytes: usize,
    /// Number of parts with data that the node sent.
    pub parts_sent: usize,
    /// Boot number of the node's present life.
    pub(super) boot: u64,
    /// Sequence number of the next record that the node publishes.
    pub(super) next_seq: u64,
    /// Time at which the node is to be woken, in microseconds; `u64::MAX`: never.
    pub(super) wake_us: u64,
    /// Time until which the node stands still, in microseconds.
    pub(super) stalled_until_us: u64,
    /// Time until which the node is busy with earlier packets, in microseconds.
    pub(super) works_until_us: u64,
}

impl Node {
    /// Starts the `index`-th node of a world, in `zone`, with `ring` as its view of the members.
    pub(super) fn start(index: usize, zone: &str, ring: Arc<Ring>, seed: u64, now: Now) -> Node {
        let identity = identity_in(index, zone);
        let config = config(&identity, identity.boot, seed ^ index as u64);
        let mut spread = Spread::new(&config, now, body_bytes());
        // Round trips as membership measures them by probes.
        for probe in 0..20 {
            let rtt_us = 1_000 + mix(seed ^ probe ^ index as u64) % 2_001;
            spread.handle_rtt(address(index + 1), zone, rtt_us);
        }
        Node {
            spread,
            ring,
            arrivals: Arrivals::default(),
            is_up: true,
            sent_bytes: 0,
            parts_sent: 0,
            boot: identity.boot,
            next_seq: 1,
            wake_us: u64::MAX,
            stalled_until_us: 0,
            works_until_us: 0,
        }
    }

    /// Begins another life of the `index`-th node, which remembers nothing of the one before.
    pub(super) fn restart(&mut self, index: usize, seed: u64, now: Now) {
        self.boot += 1_000_000;
        self.next_seq = 1;
        self.arrivals = Arrivals::default();
        self.spread = Spread::new(&config(&identity(index), self.boot, seed), now, body_bytes());
        self.wake_us = u64::MAX;
    }
}
