//! The store keeps what survives a restart: the latest record of every source, a ring of those before it, and
//! the node's identity.
//!
//! The map in memory is what everyone reads; the store is where it is loaded from after a restart, and what
//! an answer of level `stored` waits for. So the store is behind a queue: a push under a lock of the map is a
//! few memory writes, and one thread writes what waits as one group in one durable commit. The durable mark
//! is a [`Ticket`] that only rises.
//!
//! - `handle`: [`StoreHandle`], the only way by which the rest of the node uses the store;
//! - `queue`: the changes that wait, bounded and merged; `write_path`: the queue with the durable mark, and
//!   health;
//! - `placement`: the records that a node writes if the store is its own, and those if all nodes share it;
//! - `backend`: the trait of a kind of store. To add one is to write its file and a line in `handle`:
//!   - `embedded`: one redb file, behind `engine` and `writer` (group commit, retries, catching up);
//!   - `cassandra`: a store that all nodes share, with a writer of its own behind the same queue;
//!   - `memory`: histories without a file, for tests and caches.
//!
//! Rejected: writing before the map is changed, which puts a sync into the way of every record;
//! a log of our own beside the tables, which doubles what recovery has to prove.

mod backend;
mod cassandra;
mod data_dir;
mod embedded;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handle;
mod history;
mod life;
mod memory;
mod open;
mod placement;
mod private_file;
mod queue;
mod rings;
mod segments;
#[cfg(any(test, fuzzing))]
mod testing;
#[cfg(test)]
mod tests;
mod write_path;
mod writer;

pub use self::backend::LoadReport;
pub use self::error::StoreError;
pub use self::handle::StoreHandle;
pub use self::open::{BackendKind, Clock, NodeIdentity, OpenError, StoreOptions};
pub(crate) use self::placement::{MARK_TTL_MS, NodeLife, Survivor, Takeover};
pub use self::queue::Ticket;
pub use self::write_path::StoreStats;
pub(crate) use self::write_path::{LatestRecords, StoreHealth};
