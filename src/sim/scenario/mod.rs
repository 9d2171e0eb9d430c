//! Scenarios: descriptions of what is done to a virtual world, and the code that runs them.
//!
//! A [`Scenario`] says how many nodes there are, how the links behave, what is published and what goes wrong
//! when. It is made by name ([`named`]) or read from TOML ([`file`]). [`run`] runs it with a seed and returns
//! a [`RunOutcome`]: the figures that were measured, and the checks that failed. The same scenario and seed
//! give the same outcome, to the byte of every datagram.
//!
//! By file: `faults` lists the kinds of faults, and draws faults by chance; `publisher` holds the clients;
//! `actions` applies faults to a world; `checks` checks what must be true; `measure` turns counts into an
//! outcome.
//!
//! Rejected: scenarios as code against the world (they could not be read from a file, listed, or
//! shown); shrinking a failed run (a seed and a small world are short enough to look at).

mod actions;
mod checks;
pub mod faults;
pub mod file;
mod measure;
pub mod named;
mod publisher;
mod run;
#[cfg(test)]
mod tests;

pub use faults::{FaultKind, Portion, ScheduledFault};
#[cfg(test)]
pub use measure::Quantiles;
pub use measure::RunOutcome;
pub use run::{run, run_and_keep};

/// Number of members that one hand-over is divided among: the core's fanout, which scenarios cannot change.
pub const SCENARIO_FANOUT: usize = 8;
/// Largest number of nodes in a world.
pub const NODES_MAX: usize = 100_000;

/// How the links and the nodes' processors behave.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConditions {
    /// Shortest and longest one-way delay between nodes of one zone, in microseconds.
    pub delay_us: (u64, u64),
    /// Shortest and longest one-way delay between nodes of different zones, in microseconds.
    pub zone_delay_us: (u64, u64),
    /// Probability that a datagram is lost, in parts per million.
    pub loss_per_million: u32,
    /// Whether losses come in bursts, in which half of what is sent on one direction of a link is lost for
    /// 10 ms, rather than one by one. The mean is the same.
    pub is_bursty: bool,
    /// Probability that a datagram arrives twice, in parts per million.
    pub duplicates_per_million: u32,
    /// Probability that a datagram is held up for long, in parts per million.
    pub reordered_per_million: u32,
    /// Most bytes that a node can send per second; 0: no limit.
    pub rate_bytes_per_s: u64,
    /// Processor time that a datagram takes at each end, in microseconds.
    pub cpu_us: u64,
}

impl Default for LinkConditions {
    /// A local network: delays of 0.5 to 1.5 ms, nothing lost, 6 µs of work per datagram, zones 40 ms apart.
    fn default() -> LinkConditions {
        LinkConditions {
            delay_us: (500, 1_500),
            zone_delay_us: (39_500, 40_500),
            loss_per_million: 0,
            is_bursty: false,
            duplicates_per_million: 0,
            reordered_per_million: 0,
            rate_bytes_per_s: 0,
            cpu_us: 6,
        }
    }
}

/// The records that clients publish during a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Publishing {
    /// Number of records in all.
    pub records: usize,
    /// Records per second, all nodes together, evenly spaced.
    pub rate: f64,
    /// Number of nodes at which clients publish, one drawn for each record; 0: all nodes.
    pub publishers: usize,
    /// Number of sources, one drawn for each record; 0: every record has a source of its own.
    pub sources: usize,
    /// Size of a record's data, in bytes.
    pub bytes: usize,
    /// Probability that a record is a deletion, in parts per million.
    pub deletions_per_million: u32,
}

impl Default for Publishing {
    fn default() -> Publishing {
        Publishing {
            records: 1_000,
            rate: 100.0,
            publishers: 0,
            sources: 0,
            bytes: 64,
            deletions_per_million: 0,
        }
    }
}

/// The way in which the nodes find each other at the beginning of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beginning {
    /// All nodes know each other from the beginning.
    #[default]
    Known,
    /// All nodes join through the first one at once, while records are published already.
    Joining,
}

/// The instructions for a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The scenario's name: one of [`named::NAMES`], or the file's.
    pub name: String,
    /// Number of nodes at the beginning.
    pub nodes: usize,
    /// Number of zones, to which nodes are dealt out in turn; 1: nodes have no zone.
    pub zones: usize,
    /// The way in which the nodes find each other.
    pub beginning: Beginning,
    /// Probability that a node does not know another one at first, in parts per million.
    pub unknown_per_million: u32,
    /// How long the world runs before the first record, in microseconds.
    pub warm_up_us: u64,
    /// How the links and the nodes' processors behave.
    pub links: LinkConditions,
    /// The records that clients publish.
    pub publishing: Publishing,
    /// The faults, each at a time since the first record.
    pub faults: Vec<ScheduledFault>,
    /// Whether further faults of all kinds are drawn from the seed.
    pub random_faults: bool,
    /// Time after the last record and the last fault within which all nodes must be equal, in microseconds.
    pub settle_us: u64,
    /// Whether the bounds of all queues are checked after every event, and not only now and then.
    pub is_strict: bool,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "spread".into(),
            nodes: 100,
            zones: 1,
            beginning: Beginning::Known,
            unknown_per_million: 0,
            warm_up_us: 2_000_000,
            links: LinkConditions::default(),
            publishing: Publishing::default(),
            faults: Vec::new(),
            random_faults: false,
            settle_us: 60_000_000,
            is_strict: false,
        }
    }
}

impl Scenario {
    /// Returns for how long records are published, in microseconds.
    pub fn publishing_us(&self) -> u64 {
        let Publishing { records, rate, .. } = self.publishing;
        (records as f64 * 1e6 / rate.max(1e-6)) as u64
    }
}

/// The error of a value that a scenario cannot have, as shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} cannot be used; allowed: {allowed}")]
pub struct ScenarioError {
    /// The field, as it is written in a file: `network.loss`.
    pub field: String,
    /// The value that was given.
    pub value: String,
    /// The values that are allowed.
    pub allowed: String,
}

impl ScenarioError {
    /// Makes an error about a field.
    pub fn new(field: impl Into<String>, value: impl ToString, allowed: impl Into<String>) -> ScenarioError {
        ScenarioError { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }
}
