//! What every comparison may be asked for: of which binary, how often, and where it is written down.

use std::path::PathBuf;

use anode_loadgen::Outcome;
use clap::Args;

/// Arguments of a comparison.
#[derive(Args)]
pub struct Subject {
    /// The anode binary [default: the one next to this program, else it is built]
    #[arg(long)]
    anode: Option<PathBuf>,
    /// Runs of each; medians are told
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Write tables and charts into this folder's benchmarks.md and benchmarks/
    #[arg(long)]
    pub docs: Option<PathBuf>,
}

impl Subject {
    /// The binary, built if there is none.
    pub fn binary(&self) -> Outcome<PathBuf> {
        crate::find_anode(self.anode.clone())
    }

    /// How many runs: one at least.
    pub fn runs(&self) -> usize {
        self.runs.max(1)
    }
}
