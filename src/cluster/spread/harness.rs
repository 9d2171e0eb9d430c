//! A small world for tests: rings, records.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::cluster::members::{Identity, State};
use crate::cluster::ring::Ring;
use crate::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};

/// The `index`-th node's identity.
pub(super) fn identity(index: usize) -> Arc<Identity> {
    Arc::new(Identity {
        name: NodeName::parse(&format!("node-{index}")).expect("name"),
        boot: 1_763_800_000 + index as u64,
        gossip: address(index),
        http: String::new(),
        zone: String::new(),
        version: String::new(),
    })
}

/// The `index`-th node's address.
pub(super) fn address(index: usize) -> SocketAddr {
    let [_, a, b, c] = (index as u32).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 7946))
}

/// A ring of the first `count` nodes.
pub(super) fn ring_of(count: usize) -> Ring {
    let mut ring = Ring::default();
    (0..count).for_each(|index| ring.insert(identity(index), State::Alive));
    ring
}

/// A record with `len` bytes of data.
pub(super) fn record(origin: &NodeName, boot: u64, seq: u64, len: usize) -> SharedRecord {
    let source = Source::parse(&format!("sensors/{origin}/{seq}")).expect("source");
    let data = vec![seq as u8; len];
    let birth = Birth { origin: origin.clone(), boot, seq };
    let ts = 1_763_800_000_000_000 + seq;
    Arc::new(Record::new(source, Stamp::of_data(ts, &data), Payload::Binary(data.into()), birth, ts, 0))
}
