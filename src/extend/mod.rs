//! What users add to a cluster: sources that it fetches from (pull), rules for records on their way in (middlewares),
//! copies outside the cluster (archives), and addresses that are sent records (webhooks).
//!
//! A definition is a record of the system's name ([`crate::protocol::extension`]), so it is spread, stored and healed
//! as all records are, and every node has all definitions ([`directory`]). One thread of every node looks after them
//! ([`supervisor`]). A definition of most kinds is run by one live member, which every node finds by itself from the
//! members that it sees and from what they say that they cannot run ([`election`], [`ability`]). So nobody has to be
//! asked, a definition whose runner dies goes on elsewhere as soon as the death is seen, and each side of a partition
//! has a runner.
//!
//! A kind is a folder here with a type that implements [`runner::Runner`], and a line of [`kinds`]. What it may ask of
//! the node is [`host::ExtendHost`], which the server implements.
//!
//! Rejected: leases in records, by which members would claim definitions. A claim that is won by the newest timestamp
//! is no lock either, and costs writes for as long as nothing happens.

mod ability;
#[cfg(not(any(test, fuzzing)))]
mod archive;
#[cfg(any(test, fuzzing))]
pub mod archive;
mod claim;
mod definition;
mod directory;
mod election;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hooks;
mod host;
mod http_client;
mod json;
mod kinds;
mod middleware;
mod outgoing;
pub(crate) mod pull;
mod put;
mod runner;
mod secret;
mod state;
mod subscription;
mod supervisor;
#[cfg(test)]
mod supervisor_tests;
mod system_record;
#[cfg(test)]
mod tests;
mod thread;
#[cfg(test)]
mod world_tests;

pub use archive::{begin_job, listed_archives};
pub use directory::list;
pub use host::{ExtendHost, SystemChanges};
pub use middleware::{MiddlewareAsked, hold_back};
pub use put::read_body;
pub use thread::Extend;
