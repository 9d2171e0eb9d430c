//! A virtual world: many of the very machines that the server drives, on one thread, with virtual time.
//!
//! Everything that chance decides (delays, losses, what machines choose) comes from one seed, so a run
//! can be repeated to the byte; [`World::digest`] is a hash over all that was delivered. A failure
//! prints the seed, and the seed brings the failure back.
//!
//! By file: `network` what happens between nodes, `queue` what will happen, `replica` a small replicated map, `world` time, nodes
//! and streams.
//!
//! Rejected: threads or an executor per node (their order cannot be repeated); simulated sockets
//! below the server's own loops (what is of interest is the protocol, and ten thousand nodes must fit).

mod network;
mod queue;
mod replica;
#[cfg(test)]
mod tests;
mod world;

pub use network::{Conditions, Network};
pub use replica::SimReplica;
pub use world::{NodeId, Start, World};
