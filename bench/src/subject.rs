//! Options of every comparison: which binary, how many runs, and where results are written.

use std::path::PathBuf;

use anode_loadgen::Outcome;
use clap::Args;

/// Options that all comparisons have in common.
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
    /// Returns the binary, which is built if there is none.
    pub fn binary(&self) -> Outcome<PathBuf> {
        crate::find_anode(self.anode.clone())
    }

    /// Returns the number of runs, at least one.
    pub fn runs(&self) -> usize {
        self.runs.max(1)
    }
}
