//! What is done to a virtual world, as data; and doing it.
//!
//! A [`Scenario`] says how many nodes there are, how the links behave, what is published and what
//! goes wrong when. It is made by name ([`named`]) or read from TOML ([`file`]). [`run`] brings it to
//! life with a seed and gives back an [`RunOutcome`]: what was measured, and what did not hold. The same
//! scenario and seed give the same outcome, to the byte of every datagram.
//!
//! By file: `faults` what can go wrong, and draws of it by chance; `publisher` who publishes what;
//! `actions` does a fault to a world; `checks` what must hold; `measure` turns counts into an outcome.
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
pub use measure::{Quantiles, RunOutcome};
pub use run::{run, run_and_keep};

/// Members that one hand-over is cut into: the core's fanout, which scenarios cannot change.
pub const SCENARIO_FANOUT: usize = 8;
/// Most nodes of a world.
pub const NODES_MAX: usize = 100_000;

/// How the links behave.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConditions {
    /// Shortest and longest one-way delay between nodes of one zone, in microseconds.
    pub delay_us: (u64, u64),
    /// The same between nodes of two zones.
    pub zone_delay_us: (u64, u64),
    /// Datagrams that vanish, in parts of a million.
    pub loss_per_million: u32,
    /// Whether losses come in bursts that take half of what is sent for 10 ms, one direction of one
    /// link at a time, rather than one by one. The mean is the same.
    pub is_bursty: bool,
    /// Datagrams that arrive twice, in parts of a million.
    pub duplicates_per_million: u32,
    /// Datagrams that are held up for long, in parts of a million.
    pub reordered_per_million: u32,
    /// What a node can send, in bytes a second; 0: as much as it wants.
    pub rate_bytes_per_s: u64,
    /// What a datagram costs each end of the processor's time, in microseconds.
    pub cpu_us: u64,
}

impl Default for LinkConditions {
    /// A local network: 0.5 to 1.5 ms, nothing lost, 6 µs of work a datagram; zones 40 ms apart.
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

/// What clients publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Publishing {
    /// How many records in all.
    pub records: usize,
    /// Records a second, all nodes together, evenly spaced.
    pub rate: f64,
    /// Nodes that publish, chosen by chance for each record; 0: all of them.
    pub publishers: usize,
    /// Sources they publish to, chosen by chance; 0: every record has its own.
    pub sources: usize,
    /// Bytes of a record's data.
    pub bytes: usize,
    /// Records that are deletions, in parts of a million.
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

/// How the nodes find each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beginning {
    /// They know each other from the beginning.
    #[default]
    Known,
    /// They join through the first, all at once, and records are published from the beginning.
    Joining,
}

/// One run's instructions.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is called: a name of [`named::NAMES`], or the file's.
    pub name: String,
    /// How many nodes it begins with.
    pub nodes: usize,
    /// Zones, the nodes dealt out to them in turn; 1: none is named.
    pub zones: usize,
    /// How they find each other.
    pub beginning: Beginning,
    /// Members that each node does not know of at first, by chance, in parts of a million.
    pub unknown_per_million: u32,
    /// How long the world runs before the first record, in microseconds.
    pub warm_up_us: u64,
    /// How the links behave.
    pub links: LinkConditions,
    /// What is published.
    pub publishing: Publishing,
    /// What goes wrong, by time since the first record.
    pub faults: Vec<ScheduledFault>,
    /// Whether faults of all kinds are drawn from the seed as well.
    pub random_faults: bool,
    /// Until when, after the last record and the last fault, all must be equal, in microseconds.
    pub settle_us: u64,
    /// Whether the bounds of every queue are looked at after every step, and not only at times.
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
    /// How long records are published for, in microseconds.
    pub fn publishing_us(&self) -> u64 {
        let Publishing { records, rate, .. } = self.publishing;
        (records as f64 * 1e6 / rate.max(1e-6)) as u64
    }
}

/// A value that a scenario cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} cannot be used; allowed: {allowed}")]
pub struct ScenarioError {
    /// Which, as it is written in a file: `network.loss`.
    pub field: String,
    /// What it was given.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl ScenarioError {
    /// An error about a field.
    pub fn new(field: impl Into<String>, value: impl ToString, allowed: impl Into<String>) -> ScenarioError {
        ScenarioError { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }
}
