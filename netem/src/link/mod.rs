//! The links between nodes: what happens to a packet on its way from one node to another.
//!
//! Where the kernel has `sch_netem`, [`tc`] gives a profile to it. Elsewhere the traffic of each node leaves its
//! namespace through a TUN device, and [`fabric`] carries the packets between the devices: [`path`] decides what
//! becomes of a packet by the [`shape`] of its pair of nodes, [`packet`] changes its bytes, and [`pump`] is the
//! thread of one device. Decisions come from a seeded generator for each direction of each pair, so that the same
//! sequence of packets meets the same fate.

pub mod counts;
pub mod fabric;
pub mod packet;
pub mod path;
pub mod pump;
pub mod shape;
mod shared;
pub mod tc;
pub mod tun;
