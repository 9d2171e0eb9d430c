//! Runs clusters of real nodes under the faults of real networks, disks and machines.
//!
//! Each node gets a network namespace of its own, and its traffic passes through a link with delay, loss, damage
//! and limits that a profile describes. While clients publish and subscribe, the runner injects faults. A checker
//! that sees only what clients see decides at the end whether every promise of the protocol was kept.
#![allow(clippy::disallowed_methods, reason = "a runner of real programs reads clocks and sleeps")]

pub mod arguments;
pub mod cassandra;
pub mod checker;
pub mod clock;
pub mod compose;
pub mod disk;
pub mod faults;
pub mod finals;
pub mod http;
pub mod kill_store;
pub mod link;
pub mod load;
pub mod local;
pub mod machine;
pub mod node;
pub mod peer;
pub mod processor;
pub mod profile;
pub mod run;
pub mod suite;
pub mod target;
pub mod testbed;
pub mod trial;
pub mod watch;
pub mod world;
