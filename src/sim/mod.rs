//! A virtual world: many of the very machines that the server drives, with virtual time.
//!
//! Everything that chance decides (delays, losses, what machines choose) comes from one seed, so a run
//! can be repeated to the byte; [`World::digest`] is a hash over all that was delivered. A failure
//! prints the seed, and the seed brings the failure back.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `world` | time: what happens next, and to whom |
//! | `queue` | what will happen |
//! | `nodes` | starting, stopping, pausing nodes, and what they accept |
//! | `process` | what a node does when something comes in |
//! | `ahead` | nodes called ahead of time, side by side |
//! | `streams` | TCP between them |
//! | `network`, `conditions` | what happens to bytes on their way |
//! | `replica` | a small replicated map |
//! | `awaited` | answers that wait for all members |
//! | `deliveries`, `histogram`, `accounts` | what arrived where and when, and what it cost |
//! | [`baseline`] | what others do, in the same network |
//!
//! [`scenario`] says what is done to a world, and does it; [`report`] shows what came of
//! it; [`table`] is what is wanted of it all.
//!
//! Rejected: threads or an executor per node (their order cannot be repeated; [`Hands`] may be many, since
//! what comes of their work is put in order); simulated sockets below the server's own loops (what is of
//! interest is the protocol, and ten thousand nodes must fit).

mod accepted;
mod accounts;
mod act;
mod ahead;
mod applying;
mod awaited;
pub mod baseline;
mod conditions;
mod deliveries;
mod distribution;
mod network;
mod nodes;
mod place;
mod process;
mod queue;
mod replica;
pub mod report;
pub mod scenario;
mod streams;
pub mod table;
#[cfg(test)]
mod tests;
mod time;
mod world;

pub use accepted::Rule;
pub use accounts::Account;
pub use ahead::{Hands, NodeShare};
pub use conditions::{Conditions, Delay};
pub use deliveries::{Deliveries, Publication, Violation};
pub use distribution::Distribution;
pub use network::{Arrivals, Network, Traffic};
pub use nodes::{Keeps, Start, Submission};
pub use place::NodeId;
pub use replica::SimReplica;
pub use world::World;
