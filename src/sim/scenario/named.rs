//! The scenarios that have names.

use super::faults::{FaultKind, Portion, ScheduledFault};
use super::{Beginning, LinkConditions, Publishing, Scenario};
use crate::sim::time::SECOND_US;

/// All names, and a line about each.
pub const NAMES: &[(&str, &str)] = &[
    ("spread", "records reach everyone; nothing goes wrong"),
    ("lossy", "a share of the datagrams is lost (--loss, --burst)"),
    ("churn", "a share of the nodes restarts every second (--rate-of-nodes)"),
    ("kill", "a share of the nodes dies at once, just before the first record (--fraction)"),
    ("partition", "two halves do not hear each other for ten seconds"),
    ("pause", "a few nodes at a time stand still, up to a second each"),
    ("join-storm", "all nodes join through one at once, while records are published"),
    ("safety", "faults of all kinds by chance; what must always hold is looked at after every step"),
    ("liveness", "faults of all kinds by chance, which then stop: all must be equal in time"),
];

/// Options by which a named scenario can be changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knobs {
    /// `lossy`: part of the datagrams that is lost, 0 to 1.
    pub loss: f64,
    /// `lossy`: whether datagrams are lost in bursts.
    pub is_bursty: bool,
    /// `churn`: part of the nodes that restarts every second, 0 to 1.
    pub churn: f64,
    /// `kill`: part of the nodes that dies, 0 to 1.
    pub fraction: f64,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs { loss: 0.05, is_bursty: false, churn: 0.01, fraction: 0.5 }
    }
}

/// Makes the scenario of this name, with `nodes` nodes if a number is given; `None`: there is none.
pub fn scenario(name: &str, nodes: Option<usize>, knobs: Knobs) -> Option<Scenario> {
    let plain = Scenario { name: name.into(), nodes: nodes.unwrap_or(100), ..Scenario::default() };
    let over = |for_us, kind| vec![ScheduledFault { at_us: 0, for_us, kind }];
    let made = match name {
        "spread" => plain,
        "lossy" => {
            let loss_per_million = (knobs.loss * 1e6).round() as u32;
            let links =
                LinkConditions { loss_per_million, is_bursty: knobs.is_bursty, ..LinkConditions::default() };
            Scenario { links, ..plain }
        }
        "churn" => {
            let faults = over(plain.publishing_us(), FaultKind::Churn(knobs.churn));
            Scenario { faults, ..plain }
        }
        "kill" => Scenario { faults: over(0, FaultKind::Kill(Portion::Part(knobs.fraction))), ..plain },
        "partition" => {
            Scenario { faults: over(10 * SECOND_US, FaultKind::Partition(Portion::Part(0.5))), ..plain }
        }
        "pause" => {
            let faults = over(plain.publishing_us(), FaultKind::PauseInTurns(Portion::Part(0.04)));
            Scenario { faults, ..plain }
        }
        "join-storm" => Scenario { beginning: Beginning::Joining, warm_up_us: 0, ..plain },
        "safety" | "liveness" => random(name, nodes.unwrap_or(9)),
        _ => return None,
    };
    Some(made)
}

/// Makes a scenario of few nodes that all publish to few sources, over a network that duplicates and
/// reorders, with faults drawn by chance.
fn random(name: &str, nodes: usize) -> Scenario {
    let is_safety = name == "safety";
    Scenario {
        name: name.into(),
        nodes,
        links: LinkConditions {
            loss_per_million: 10_000,
            duplicates_per_million: 10_000,
            reordered_per_million: 10_000,
            ..LinkConditions::default()
        },
        publishing: Publishing {
            records: 300,
            rate: 30.0,
            sources: 40,
            deletions_per_million: 100_000,
            ..Publishing::default()
        },
        random_faults: true,
        // A long partition is healed by probes of dead members, of which each node sends one per second.
        settle_us: if is_safety { 120 * SECOND_US } else { 30 * SECOND_US },
        is_strict: is_safety,
        ..Scenario::default()
    }
}
