//! Compares aNode with other protocols in the same network and on the same seeds. These rows have no bounds.

use super::rows::{millis, outcomes, plain, with_loss};
use super::{Case, FigureTable, Finding, Judgement, Numbers};
use crate::sim::Conditions;
use crate::sim::baseline::{self, BaselinePlan, Measures};
use crate::sim::scenario::Scenario;

/// Records per second that memberlist still carries at 1,000 nodes; at more its queues grow.
const RATE_PER_S: u64 = 9;
/// About the size of a record with 64 bytes of data on the wire.
const RECORD_BYTES: usize = 128;

/// A protocol to compare with, which spreads records in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Rumour mongering with memberlist's LAN defaults.
    Rumours,
    /// The origin sends every record to all nodes, once.
    Flooding,
}

/// Adds the rows, by number of nodes, then by loss, then by protocol.
pub(super) fn add(table: &mut FigureTable) {
    for (nodes, records) in [(10, 500), (100, 300), (1_000, 100)] {
        let records = table.many(records);
        for (loss_per_million, how) in [(0, "nothing lost"), (50_000, "5 % lost")] {
            let title = |who: &str| format!("compared, N = {nodes}, {how}: {who}");
            let scenario = with_loss(plain(nodes, records, RATE_PER_S as f64), loss_per_million, false);
            let cases = table.runs(&Scenario { name: "compared".into(), ..scenario });
            table.unbounded_row(title("aNode"), &cases, of_outcomes);
            let conditions = Conditions { loss_per_million, ..Conditions::figures() };
            for (who, baseline) in
                [("memberlist's rumours", Baseline::Rumours), ("flooding", Baseline::Flooding)]
            {
                let plan = |seed| BaselinePlan {
                    nodes,
                    records,
                    rate_per_s: RATE_PER_S,
                    record_bytes: RECORD_BYTES,
                    conditions,
                    seed,
                };
                let cases = table.cases(|seed| Case::Baseline(baseline, plan(seed)));
                table.unbounded_row(title(who), &cases, of_numbers);
            }
        }
    }
}

/// Runs a baseline. Returns the numbers of a row, each once.
pub(super) fn run(baseline: Baseline, plan: &BaselinePlan) -> Numbers {
    let measures: Measures = match baseline {
        Baseline::Rumours => baseline::rumours(plan),
        Baseline::Flooding => baseline::flooding(plan),
    };
    Numbers::from([
        ("p50_us", vec![measures.times.quantile(0.5) as f64]),
        ("p99_us", vec![measures.times.quantile(0.99) as f64]),
        ("max_us", vec![measures.times.max() as f64]),
        ("copies", vec![measures.copies_mean()]),
        ("deliveries", vec![measures.times.count() as f64]),
        ("missing", vec![measures.missing as f64]),
    ])
}

/// The figures of one run.
struct Figures {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    copies: f64,
    missing: f64,
}

fn of_outcomes(found: &[&Finding]) -> Judgement {
    told(outcomes(found).map(|outcome| Figures {
        p50_us: outcome.time_us.p50 as f64,
        p99_us: outcome.time_us.p99 as f64,
        max_us: outcome.time_us.max as f64,
        copies: outcome.copies_mean,
        missing: outcome.missing as f64,
    }))
}

fn of_numbers(found: &[&Finding]) -> Judgement {
    told(found.iter().filter_map(|finding| {
        let Finding::Numbers(numbers) = finding else { return None };
        let number = |name: &str| numbers.get(name).and_then(|all| all.first()).copied();
        Some(Figures {
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            max_us: number("max_us")?,
            copies: number("copies")?,
            missing: number("missing")?,
        })
    }))
}

/// Returns the worst of each figure over all runs, and the number of deliveries that they missed together.
fn told(runs: impl Iterator<Item = Figures>) -> Judgement {
    let worst = runs.reduce(|one, other| Figures {
        p50_us: one.p50_us.max(other.p50_us),
        p99_us: one.p99_us.max(other.p99_us),
        max_us: one.max_us.max(other.max_us),
        copies: one.copies.max(other.copies),
        missing: one.missing + other.missing,
    });
    let Some(worst) = worst else { return Judgement { measured: "nothing".into(), has_passed: false } };
    let Figures { p50_us, p99_us, max_us, copies, missing } = worst;
    let times = [p50_us, p99_us, max_us].map(millis);
    let measured = format!(
        "p50 {}, p99 {}, max {} ms; {copies:.3} copies, {missing} missing",
        times[0], times[1], times[2]
    );
    Judgement { measured, has_passed: true }
}
