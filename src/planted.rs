//! Bugs that are built into a node on purpose, to see that the checks of whole clusters find them.
//!
//! They exist only in the program `anode-planted`, which is built with the feature `planted-bugs`; without the feature
//! nothing of this file is compiled. The variable `ANODE_PLANTED_BUG` chooses one bug for the life of a process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::SHARDS;

/// Name of the variable that chooses a bug.
const VARIABLE: &str = "ANODE_PLANTED_BUG";
/// One record of this many is lost.
const LOST_OF: u64 = 1_000;
/// The shard of the map that is dropped when maps are reconciled.
const DROPPED_SHARD: usize = 7;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlantedBug {
    /// Every 1,000th record of clients is answered and not kept.
    LosesRecords,
    /// Deletions that come from other nodes are ignored.
    IgnoresTombstones,
    /// `stored` is answered before the record is durable.
    StoredBeforeFsync,
    /// Records of one shard that come by reconciliation are dropped.
    DropsShard,
}

/// The names by which bugs are chosen.
const NAMES: [(&str, PlantedBug); 4] = [
    ("loses-records", PlantedBug::LosesRecords),
    ("ignores-tombstones", PlantedBug::IgnoresTombstones),
    ("stored-before-fsync", PlantedBug::StoredBeforeFsync),
    ("drops-shard", PlantedBug::DropsShard),
];

static CHOSEN: OnceLock<Option<PlantedBug>> = OnceLock::new();
static PUBLISHES: AtomicU64 = AtomicU64::new(0);

/// Returns whether this bug was chosen. A name that no bug has ends the process with exit code 2, so that nobody believes
/// to test what is not there.
fn has(bug: PlantedBug) -> bool {
    *CHOSEN.get_or_init(choose) == Some(bug)
}

fn choose() -> Option<PlantedBug> {
    let value = std::env::var_os(VARIABLE)?;
    let found = NAMES.iter().find(|(name, _)| value == *name);
    if found.is_none() {
        let names = NAMES.map(|(name, _)| name).join(", ");
        tracing::error!("{VARIABLE} is {value:?}, and one of {names} is allowed");
        std::process::exit(2);
    }
    found.map(|(_, bug)| *bug)
}

/// Returns whether the next record of a client is to be lost.
pub(crate) fn loses_record() -> bool {
    has(PlantedBug::LosesRecords) && (PUBLISHES.fetch_add(1, Relaxed) + 1).is_multiple_of(LOST_OF)
}

/// Returns whether a record of another node is to be ignored because it is a deletion.
pub(crate) fn ignores(is_deletion: bool) -> bool {
    is_deletion && has(PlantedBug::IgnoresTombstones)
}

/// Returns whether everything is to be taken for durable at once.
pub(crate) fn believes_all_durable() -> bool {
    has(PlantedBug::StoredBeforeFsync)
}

/// Returns whether a record of this source that comes by reconciliation is to be dropped.
pub(crate) fn drops_reconciled(source: &str) -> bool {
    has(PlantedBug::DropsShard) && (xxh3_64(source.as_bytes()) >> 32) as usize % SHARDS == DROPPED_SHARD
}
