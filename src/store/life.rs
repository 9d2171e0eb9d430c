//! The beginning of a node's life, which is one run of the node from a start to its end: its name and boot
//! number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::open::StoreOptions;
use crate::record::{NodeName, Now};

/// The name and the numbers that a new life begins with, from the settings, the wall clock and the seed. A
/// store that has kept a name or a boot number from an earlier life decides between those and these.
pub(super) struct NewLife {
    /// Name that the user asked for; `None`: any.
    pub(super) node_name: Option<NodeName>,
    /// Made-up name for a node that was given none.
    pub(super) made_up: NodeName,
    /// Least boot number: the milliseconds since the Unix epoch.
    pub(super) boot_min: u64,
}

impl NewLife {
    /// Makes a life that begins now.
    pub(super) fn begin(options: &StoreOptions) -> NewLife {
        let now = (options.clock)();
        NewLife {
            node_name: options.node_name.clone(),
            made_up: made_up_name(options.seed, now),
            boot_min: now.wall_us / 1000,
        }
    }
}

/// Makes up a name that no other node will make up.
fn made_up_name(seed: u64, now: Now) -> NodeName {
    let hash = xxh3_64_with_seed(&now.wall_us.to_le_bytes(), seed);
    let name = format!("node-{:012x}", hash & 0xffff_ffff_ffff);
    NodeName::parse(&name).unwrap_or_else(|_| unreachable!("letters, digits and a dash"))
}
