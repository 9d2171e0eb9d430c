//! What the tests of membership share: times, addresses, names, and the configuration of a node.

use std::net::SocketAddr;

use crate::cluster::{MachineConfig, Profile};
use crate::record::{NodeName, Now};

/// A time at which both clocks are equal.
pub(super) fn at(mono_us: u64) -> Now {
    Now { mono_us, wall_us: mono_us }
}

/// The gossip address of the host with this last number.
pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7946))
}

pub(super) fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

/// The configuration of a node that is the host with this last number.
pub(super) fn config(own: &str, boot: u64, last: u8) -> MachineConfig {
    MachineConfig {
        name: name(own),
        boot,
        cluster_name: "c".into(),
        gossip: address(last),
        http: format!("10.0.0.{last}:7070"),
        zone: String::new(),
        version: "0.1.0".into(),
        profile: Profile::Lan,
        tombstones_us: 0,
        agreed_us: None,
        has_seeds: false,
        seed: 1,
        keys: None,
    }
}
