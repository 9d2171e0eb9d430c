//! Writes plots to files.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::Path;

use crate::cli::CliError;
use crate::sim::report::plot;
use crate::sim::scenario::{LinkConditions, RunOutcome};

/// Draws all plots that these outcomes allow, writes them into `directory`, which is created if needed, and
/// prints the names of the files.
pub fn write(directory: &Path, outcomes: &[RunOutcome]) -> Result<(), CliError> {
    std::fs::create_dir_all(directory)?;
    let delay_us_max = LinkConditions::default().delay_us.1;
    let mut plots = vec![("deliveries.svg", plot::deliveries_over_time(&one_a_kind(outcomes)))];
    let calm = alike(outcomes, |outcome| (outcome.loss * 1e6) as u64);
    if varies(&calm, |outcome| outcome.nodes) {
        plots.push(("hops.svg", plot::hops_against_nodes(&calm)));
        plots.push(("time.svg", plot::time_against_nodes(&calm, delay_us_max)));
    }
    // The number of nodes for which there are the most different losses; of several such numbers, the
    // greatest.
    let losses_of = |nodes: usize| {
        let same_size = outcomes.iter().filter(|outcome| outcome.nodes == nodes);
        same_size.map(|outcome| (outcome.loss * 1e6) as u64).collect::<BTreeSet<_>>().len()
    };
    let richest = outcomes.iter().map(|outcome| outcome.nodes).max_by_key(|&nodes| (losses_of(nodes), nodes));
    if let Some(nodes) = richest.filter(|&nodes| losses_of(nodes) > 1) {
        let same_size = alike_to(outcomes, |outcome| outcome.nodes, nodes);
        plots.push(("copies.svg", plot::copies_against_loss(&same_size)));
    }
    for (name, drawn) in plots {
        let path = directory.join(name);
        let svg = drawn.map_err(|error| CliError::Failed(format!("{name}: {error}")))?;
        std::fs::write(&path, svg)?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// Returns the outcomes whose key is the least of all.
fn alike<K: Ord + Copy>(outcomes: &[RunOutcome], key: impl Fn(&RunOutcome) -> K) -> Vec<RunOutcome> {
    let least = outcomes.iter().map(&key).min();
    least.map(|least| alike_to(outcomes, key, least)).unwrap_or_default()
}

/// Returns the outcomes with this key.
fn alike_to<K: Eq>(outcomes: &[RunOutcome], key: impl Fn(&RunOutcome) -> K, wanted: K) -> Vec<RunOutcome> {
    outcomes.iter().filter(|outcome| key(outcome) == wanted).cloned().collect()
}

/// Returns whether there are different keys.
fn varies<K: Eq>(outcomes: &[RunOutcome], key: impl Fn(&RunOutcome) -> K) -> bool {
    outcomes.windows(2).any(|pair| key(&pair[0]) != key(&pair[1]))
}

/// Returns the first outcome of each kind, that is of those that differ in nothing but their seed. Runs
/// without loss come first, in the given order; then lossy ones, the largest first.
fn one_a_kind(outcomes: &[RunOutcome]) -> Vec<RunOutcome> {
    let mut kept: Vec<RunOutcome> = Vec::new();
    for outcome in outcomes {
        let is_like = |other: &RunOutcome| {
            (&other.scenario, other.nodes, other.is_bursty)
                == (&outcome.scenario, outcome.nodes, outcome.is_bursty)
                && other.loss == outcome.loss
        };
        if !kept.iter().any(is_like) {
            kept.push(outcome.clone());
        }
    }
    let (calm, mut lossy): (Vec<RunOutcome>, Vec<RunOutcome>) =
        kept.into_iter().partition(|outcome| outcome.loss == 0.0);
    lossy.sort_by_key(|outcome| Reverse(outcome.nodes));
    calm.into_iter().chain(lossy).collect()
}
