//! The beginning of a node's life: what it is called and which number the life has.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::open::StoreOptions;
use crate::record::{NodeName, Now};

/// What a new life brings with it, from the flags, the wall clock and chance. A store that keeps a
/// name or the number of an earlier life decides between those and these.
pub(super) struct NewLife {
    /// Name that was asked for.
    pub(super) node_name: Option<NodeName>,
    /// Name for a node that has none.
    pub(super) made_up: NodeName,
    /// Least number of the life: the milliseconds since the Unix epoch.
    pub(super) boot_min: u64,
}

impl NewLife {
    /// A life that begins now.
    pub(super) fn begin(options: &StoreOptions) -> NewLife {
        let now = (options.clock)();
        NewLife {
            node_name: options.node_name.clone(),
            made_up: made_up_name(options.seed, now),
            boot_min: now.wall_us / 1000,
        }
    }
}

/// Makes up a name that no other node will think of.
fn made_up_name(seed: u64, now: Now) -> NodeName {
    let hash = xxh3_64_with_seed(&now.wall_us.to_le_bytes(), seed);
    let name = format!("node-{:012x}", hash & 0xffff_ffff_ffff);
    NodeName::parse(&name).unwrap_or_else(|_| unreachable!("letters, digits and a dash"))
}
