//! A virtual world: many of the same machines that the server drives, in virtual time.
//!
//! Everything that chance decides (delays, losses, what machines choose) comes from one seed, so a run
//! can be repeated to the byte; [`World::digest`] is a hash over all that was delivered. A failure
//! prints the seed, and the seed brings the failure back.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `world` | the world: which event is next, and which node is called with it |
//! | `queue` | the events that will happen |
//! | `time`, `place` | virtual time; nodes and their addresses |
//! | `nodes` | starting, stopping and pausing nodes, and what they accept from clients |
//! | `process`, `act` | a node as a process, and the consequences of a call outside of it |
//! | `ahead` | calling nodes ahead of time, side by side on several threads |
//! | `streams` | TCP connections between nodes |
//! | `network`, `conditions` | delay, loss and rate of the links |
//! | `replica`, `applying` | a node's map, and the checks of every record that arrives |
//! | `awaited` | answers that wait for all members |
//! | `accepted`, `deliveries`, `distribution`, `accounts` | what arrived where and when, and its cost |
//! | [`baseline`] | other ways to spread records, in the same network |
//!
//! [`scenario`] describes and runs what is done to a world; [`report`] shows the outcome; [`table`] holds the
//! figures that must come out.
//!
//! Rejected: threads or an executor per node (their order cannot be repeated; [`Hands`] may be many, since
//! what their work leads to is put in order); simulated sockets below the server's own loops (the protocol
//! is what is tested, and ten thousand nodes must fit).

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
mod later;
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

pub use accounts::Account;
pub use ahead::{Hands, NodeShare};
pub use conditions::{Conditions, Delay};
pub use distribution::Distribution;
pub use network::Network;
pub use nodes::{Keeps, Start, Submission};
pub use place::NodeId;
#[cfg(any(test, fuzzing))]
pub use replica::SimReplica;
pub use world::World;
