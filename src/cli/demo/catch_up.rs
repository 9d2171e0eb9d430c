//! Compares what two nodes hold, to tell when one that was away has caught up.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::cli::CliError;
use crate::cli::client::{NodeUrl, fetch_from};

/// Most sources that are compared: far more than the demo has.
const COMPARED_MAX: usize = 1_000;

/// How many sources of the first node the other one holds as new or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    held: usize,
    all: usize,
}

impl Held {
    /// Returns whether the other node holds all of them.
    pub(super) fn is_all(self) -> bool {
        self.held == self.all && self.all > 0
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} sources", self.held, self.all)
    }
}

#[derive(Deserialize)]
struct Stamps {
    records: Vec<StampOfSource>,
}

#[derive(Deserialize)]
struct StampOfSource {
    source: String,
    ts: u64,
}

/// Asks the first node for its sources, then the other one.
pub(super) fn compare(first: &NodeUrl, other: &NodeUrl) -> Result<Held, CliError> {
    let wanted = stamps(first)?;
    let there: BTreeMap<String, u64> = stamps(other)?.into_iter().collect();
    let is_held = |(source, ts): &&(String, u64)| there.get(source).is_some_and(|held| held >= ts);
    Ok(Held { held: wanted.iter().filter(is_held).count(), all: wanted.len() })
}

fn stamps(node: &NodeUrl) -> Result<Vec<(String, u64)>, CliError> {
    let body = fetch_from(node, &format!("/v1/sources?pattern=**&limit={COMPARED_MAX}"))?.ok()?;
    let Stamps { records } = serde_json::from_str(&body)
        .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))?;
    Ok(records.into_iter().map(|StampOfSource { source, ts }| (source, ts)).collect())
}
