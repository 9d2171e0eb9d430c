//! The settings with which a store is opened, the identity of the node that it returns, and the errors of
//! opening.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::StoreError;
use crate::cluster::Heads;
use crate::config::cassandra::Cassandra;
use crate::limits::STORE_QUEUE_BYTES_MAX;
use crate::record::{NodeName, Now};

/// Reads the time. The store only measures with it and never waits by it.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Default memory for the pages of the file of records, in bytes. Pages that are not there are read from the page
/// cache of the system, which costs a microsecond; so this memory only has to hold the pages of a commit.
const DATABASE_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Default number of bytes of records that wait in the journal, as the file holds them.
pub(super) const JOURNAL_BYTES: usize = 16 * 1024 * 1024;

/// Kind of a store: where it keeps the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// Records are stored in one file of the data directory.
    #[default]
    Embedded,
    /// Records are stored in memory only: the data directory is not touched, and nothing survives the
    /// process.
    Memory,
    /// Records are stored in Cassandra. The data directory holds the records that wait for Cassandra, and the
    /// node's identity.
    Cassandra(Box<Cassandra>),
}

/// Settings with which a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Number of records kept of each source, the latest included. More: longer histories, a larger
    /// file, no slower start. 0: no history at all. Default 256.
    pub history: u32,
    /// Name of the node. It wins over the one that is kept, and is kept from then on. `None`: the kept
    /// name, else one made up from `seed`.
    pub node_name: Option<NodeName>,
    /// Randomness for a name that is made up.
    pub seed: u64,
    /// Clock that the store reads.
    pub clock: Clock,
    /// Memory for pages of the file, in bytes. More: fewer reads when writing to a large file.
    /// Default 16 MiB.
    pub cache_bytes: usize,
    /// Bytes of records that are durable and wait in the journal's part of the file for others of their source
    /// before they take their places; at most twice as many do. An eighth of it bounds in the same way the memory
    /// that remembers them. More: shorter commits under load, a larger file, a longer start after a kill.
    /// Default 16 MiB.
    pub journal_bytes: usize,
    /// Bytes of records that may wait or be in writing. From a quarter on, what waits is merged to
    /// the newest of each source. Default [`STORE_QUEUE_BYTES_MAX`], which it must not exceed.
    pub queue_bytes_max: usize,
}

impl StoreOptions {
    /// The defaults, with this clock and this seed for a name that is made up.
    pub fn new(clock: Clock, seed: u64) -> StoreOptions {
        StoreOptions {
            history: 256,
            node_name: None,
            seed,
            clock,
            cache_bytes: DATABASE_CACHE_BYTES,
            journal_bytes: JOURNAL_BYTES,
            queue_bytes_max: STORE_QUEUE_BYTES_MAX,
        }
    }
}

/// The identity of the node, from this start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Name of the node.
    pub node_name: NodeName,
    /// Boot number: greater than every one before, and durable before anyone is told of it.
    pub boot: u64,
    /// When the node last agreed fully with the cluster, in microseconds since the Unix epoch.
    pub agreed_us: Option<u64>,
    /// Heads of the records that the node held when it last ended in order; empty if it did not.
    pub heads: Heads,
}

/// The reason why a store cannot be opened. Nothing was changed, unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the data directory.
    #[error("data directory {0:?} is in use by another process")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{path:?}: {source}")]
    Io {
        /// File or directory that could not be opened.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The file is damaged, or is not a store.
    #[error("{path:?} cannot be opened: {reason}")]
    Database {
        /// File that could not be opened.
        path: PathBuf,
        /// Error of the database.
        reason: StoreError,
    },
    /// The file was written by another version of the program.
    #[error("the store has format {found}; this program knows format {known}")]
    Format {
        /// Format of the file.
        found: u64,
        /// Newest format that the program knows.
        known: u64,
    },
    /// The new boot number could not be written, or was written without that being known.
    #[error("the store cannot be written: {0}")]
    Write(StoreError),
}
