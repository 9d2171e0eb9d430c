//! The order of a source's records, as clients are told it.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

/// The position of a record in the order of its source: records are ordered by their timestamp, then by whether
/// they are deletions, then by the hash of their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Version {
    /// The record's timestamp, in microseconds since the Unix epoch.
    pub ts: u64,
    /// Says that the record is a deletion.
    pub deleted: bool,
    /// XXH3-128 of the bytes of the data; 0 for a deletion.
    pub hash: u128,
}

impl Version {
    /// The version of a record with these bytes of data.
    pub fn of_data(ts: u64, data: &[u8]) -> Version {
        Version { ts, deleted: false, hash: xxh3_128(data) }
    }

    /// The version of a deletion.
    pub fn of_deletion(ts: u64) -> Version {
        Version { ts, deleted: true, hash: 0 }
    }

    /// The least version with a timestamp. It stands for a record of which only the timestamp is known.
    pub fn at_least(ts: u64) -> Version {
        Version { ts, deleted: false, hash: 0 }
    }
}
