//! The rows of the table: each figure that is wanted, with its bound.

use super::{Case, FigureTable, Finding, Judgement, Size};
use crate::sim::report::plot::hops_bound;
use crate::sim::scenario::named::{self, Knobs};
use crate::sim::scenario::{
    FaultKind, LinkConditions, Portion, Publishing, RunOutcome, Scenario, ScheduledFault,
};

/// Adds every row, and the cases that it needs.
pub(super) fn add(table: &mut FigureTable) {
    lossless(table);
    for is_bursty in [false, true] {
        lossy(table, is_bursty);
    }
    busy(table);
    zones(table);
    halved(table);
    views(table);
    missing(table);
    healing(table);
    membership(table);
}

/// Makes a scenario without faults.
pub(super) fn plain(nodes: usize, records: usize, rate: f64) -> Scenario {
    let publishing = Publishing { records, rate, ..Publishing::default() };
    Scenario { nodes, publishing, ..Scenario::default() }
}

/// Returns the scenario with datagrams that are lost.
pub(super) fn with_loss(scenario: Scenario, loss_per_million: u32, is_bursty: bool) -> Scenario {
    let links = LinkConditions { loss_per_million, is_bursty, ..scenario.links.clone() };
    Scenario { name: "lossy".into(), links, ..scenario }
}

/// Returns the numbers of nodes, and for each how many records at what rate make enough deliveries.
fn sizes(table: &FigureTable) -> Vec<(usize, usize, f64)> {
    let all = [(10, 2_000, 200.0), (100, 1_000, 100.0), (1_000, 300, 100.0), (10_000, 40, 40.0)];
    let few = if table.size == Size::Quick { 3 } else { 4 };
    all.into_iter().take(few).map(|(nodes, records, rate)| (nodes, table.many(records), rate)).collect()
}

/// Adds the rows of runs without losses.
fn lossless(table: &mut FigureTable) {
    let delay_us_max = LinkConditions::default().delay_us.1;
    for (nodes, records, rate) in sizes(table) {
        let cases = table.runs(&plain(nodes, records, rate));
        let hops = hops_bound(nodes);
        let most_us = hops * delay_us_max + 500;
        table.row(
            format!("hops to the last node, N = {nodes}"),
            format!("<= {hops}"),
            &cases,
            move |found| most(found, 1.0, hops as f64, "", |outcome| outcome.hops.max as f64),
        );
        table.row(
            format!("time to the last node, N = {nodes}"),
            format!("<= {} ms", millis(most_us as f64)),
            &cases,
            move |found| most(found, 1e3, most_us as f64, " ms", |outcome| outcome.time_us.max as f64),
        );
        table.row(format!("copies a node, N = {nodes}"), "<= 1.005", &cases, |found| copies(found, 1.005));
    }
}

/// Adds the rows of runs in which datagrams are lost, one by one or in bursts.
fn lossy(table: &mut FigureTable, is_bursty: bool) {
    let how = if is_bursty { "in bursts" } else { "one by one" };
    let copies_max = if is_bursty { [1.1, 1.2] } else { [1.05, 1.10] };
    let resent_max = [0.10, 0.20];
    for (at, loss_per_million) in [50_000, 100_000].into_iter().enumerate() {
        let percent = loss_per_million / 10_000;
        for (nodes, records, rate) in sizes(table) {
            // The 99.9th percentile of fewer than a hundred thousand deliveries says little.
            let (records, rate) = if nodes == 10 { (records * 6, 500.0) } else { (records, rate) };
            let is_timed = percent == 5;
            if nodes == 10_000 && !is_timed {
                continue;
            }
            let cases = table.runs(&with_loss(plain(nodes, records, rate), loss_per_million, is_bursty));
            let title = |what: &str| format!("{what}, {percent} % lost {how}, N = {nodes}");
            let (copies_max, resent_max) = (copies_max[at], resent_max[at]);
            let wanted = format!("<= {copies_max}");
            table.row(title("copies a node"), wanted, &cases, move |found| copies(found, copies_max));
            if !is_bursty {
                let wanted = format!("<= {} %", resent_max * 100.0);
                table.row(title("bytes sent again"), wanted, &cases, move |found| {
                    most(found, 0.01, resent_max, " %", |outcome| outcome.resent_share)
                });
            }
            if is_timed {
                tail(table, &title("p99.9 of times"), &cases, nodes, is_bursty);
            }
        }
    }
}

fn tail(table: &mut FigureTable, title: &str, cases: &[usize], nodes: usize, is_bursty: bool) {
    // A bound as a multiple of the median makes sense only where the median takes several hops.
    if nodes < 1_000 {
        table.row(title, "<= 17 ms", cases, |found| {
            let verdict = most(found, 1e3, 17_000.0, " ms", |outcome| outcome.time_us.p999 as f64);
            let times = most(found, 1.0, f64::INFINITY, " x p50", tail_over_median);
            Judgement { measured: format!("{} ({})", verdict.measured, times.measured), ..verdict }
        });
        return;
    }
    let times = if is_bursty { 7.0 } else { 4.5 };
    table.row(title, format!("<= {times} x p50"), cases, move |found| {
        most(found, 1.0, times, " x p50", tail_over_median)
    });
}

fn tail_over_median(outcome: &RunOutcome) -> f64 {
    outcome.time_us.p999 as f64 / outcome.time_us.p50.max(1) as f64
}

/// Adds the rows of a single busy origin.
fn busy(table: &mut FigureTable) {
    for nodes in [100, 1_000] {
        // It takes ten seconds in a quick table, too, because relays change with time.
        let mut scenario = plain(nodes, 1_000, 100.0);
        scenario.publishing.publishers = 1;
        let cases = table.runs(&scenario);
        let title = format!("one busy origin, N = {nodes}");
        table.row(format!("{title}: what it sends"), "<= 8 copies", &cases, |found| {
            most(found, 1.0, 8.0, " copies", |outcome| outcome.origin_copies)
        });
        table.row(format!("{title}: busiest other"), "<= 2 x mean", &cases, |found| {
            most(found, 1.0, 2.0, " x mean", |outcome| outcome.busiest_over_mean)
        });
    }
}

/// Adds rows of three zones of equal size with 40 ms between them: twice the longest delay is 81 ms.
fn zones(table: &mut FigureTable) {
    let most_us = 2 * LinkConditions::default().zone_delay_us.1;
    for (nodes, records) in [(99, 500), (999, 200)] {
        let scenario = Scenario { zones: 3, ..plain(nodes, table.many(records), 100.0) };
        let cases = table.runs(&scenario);
        let title = format!("three zones 40 ms apart, N = {nodes}");
        let wanted = format!("<= {} ms", millis(most_us as f64));
        table.row(format!("{title}: time to the last node"), wanted, &cases, move |found| {
            most(found, 1e3, most_us as f64, " ms", |outcome| outcome.time_us.max as f64)
        });
        // All nodes have all records in the end, so a mean of one copy means exactly one of each.
        table.row(format!("{title}: copies into each other zone"), "1", &cases, |found| {
            let off = outcomes(found).map(|outcome| (outcome.crossings_mean - 1.0).abs());
            let off = off.fold(f64::NEG_INFINITY, f64::max);
            let verdict = most(found, 1.0, f64::INFINITY, "", |outcome| outcome.crossings_mean);
            Judgement { has_passed: off == 0.0, ..verdict }
        });
    }
}

fn halved(table: &mut FigureTable) {
    let knobs = Knobs { fraction: 0.5, ..Knobs::default() };
    let Some(mut scenario) = named::scenario("kill", Some(1_000), knobs) else { return };
    scenario.publishing.records = 1;
    // There is only one first record in each run, so every seed gets several worlds.
    let per_seed = table.many(10) as u64;
    let mut cases = Vec::new();
    for again in 0..per_seed {
        cases.extend(table.cases(|seed| Case::Run(Box::new(scenario.clone()), 100 * again + seed)));
    }
    table.row("half of 1,000 killed, first record: p99", "<= 35 ms", &cases, |found| {
        most(found, 1e3, 35_000.0, " ms", |outcome| outcome.time_us.p99 as f64)
    });
}

/// Adds the rows of nodes that do not know all members.
fn views(table: &mut FigureTable) {
    // Records are published before the nodes compare their views of the cluster and mend them.
    let scenario =
        Scenario { unknown_per_million: 20_000, warm_up_us: 100_000, ..plain(1_000, table.many(100), 500.0) };
    let cases = table.runs(&scenario);
    table.row(
        "2 % of members unknown to each, N = 1,000: missed by the tree",
        "<= 0.05 %",
        &cases,
        |found| {
            let verdict = most(found, 0.01, 0.000_5, " %", |outcome| {
                (outcome.repaired + outcome.reconciled) as f64 / outcome.time_us.count.max(1) as f64
            });
            let unknown = outcomes(found).map(|outcome| outcome.unknown_share).fold(f64::INFINITY, f64::min);
            let measured =
                format!("{} (at least {:.2} % unknown at the end)", verdict.measured, unknown * 100.0);
            Judgement { measured, ..verdict }
        },
    );
}

/// Adds the rows of records that are missing at the end of runs with losses, restarts, deaths or a partition.
fn missing(table: &mut FigureTable) {
    let mut rows = Vec::new();
    for (loss_per_million, is_bursty) in [
        (0, false),
        (20_000, false),
        (50_000, false),
        (100_000, false),
        (20_000, true),
        (50_000, true),
        (100_000, true),
    ] {
        let how = if is_bursty { " in bursts" } else { "" };
        let title = format!("{} % lost{how}", loss_per_million / 10_000);
        rows.push((title, with_loss(plain(100, table.many(300), 100.0), loss_per_million, is_bursty)));
    }
    if let Some(mut churn) = named::scenario("churn", Some(100), Knobs::default()) {
        churn.publishing = Publishing { records: table.many(500), rate: 25.0, ..Publishing::default() };
        churn.faults.iter_mut().for_each(|fault| fault.for_us = 20_000_000);
        rows.push(("1 %/s of the nodes restart".into(), churn));
    }
    for part in [0.1, 0.5, 0.8] {
        // They are killed while records are published, so some records die with the nodes that accepted them.
        let kill = ScheduledFault { at_us: 1_000_000, for_us: 0, kind: FaultKind::Kill(Portion::Part(part)) };
        let scenario =
            Scenario { name: "kill".into(), faults: vec![kill], ..plain(100, table.many(300), 100.0) };
        rows.push((format!("{} % killed at once", part * 100.0), scenario));
    }
    if let Some(partition) = named::scenario("partition", Some(100), Knobs::default()) {
        rows.push(("after a partition".into(), partition));
    }
    for (title, scenario) in rows {
        let cases = table.runs(&scenario);
        table.row(format!("missing in the end, {title}, N = 100"), "0", &cases, |found| {
            let sum: u64 = outcomes(found).map(|outcome| outcome.unexplained_missing).sum();
            let unequal = outcomes(found).find_map(RunOutcome::failure);
            let died: u64 =
                outcomes(found).map(|outcome| outcome.missing - outcome.unexplained_missing).sum();
            let mut measured = sum.to_string();
            if died > 0 {
                measured.push_str(&format!(" ({died} died with who accepted them)"));
            }
            measured.extend(unequal.iter().map(|why| format!(": {why}")));
            let is_measured = outcomes(found).next().is_some();
            Judgement { measured, has_passed: sum == 0 && unequal.is_none() && is_measured }
        });
    }
}

fn healing(table: &mut FigureTable) {
    let records = table.many(1_000_000);
    let cases = table.cases(|seed| Case::Healing(records, 1_000, seed));
    table.row(format!("1,000 of {records} records differ: bytes to heal"), "< 1 MB", &cases, |found| {
        most_number(found, "bytes", 1e6, 1e6 - 1.0, " MB")
    });
    table.row("the same, over the bytes of those records", "<= 3", &cases, |found| {
        most_number(found, "over_records", 1.0, 3.0, "")
    });
}

/// Adds the rows of membership: how soon deaths are noticed, and the idle traffic.
fn membership(table: &mut FigureTable) {
    let deaths = table.many(20);
    let cases = table.cases(|seed| Case::Deaths(128, deaths, seed));
    for (title, name, part, wanted_s) in [
        ("a death is noticed by the first, N = 128: median", "first_s", 0.5, 1.5),
        ("the same: p99", "first_s", 0.99, 2.5),
        ("a death is noticed by all, N = 128: p99", "all_s", 0.99, 3.5),
    ] {
        table.row(title, format!("<= {wanted_s} s"), &cases, move |found| {
            let mut all = numbers(found, name);
            all.sort_by(f64::total_cmp);
            let rank = ((all.len() as f64 * part).ceil() as usize).max(1);
            let measured = all.get(rank - 1).copied().unwrap_or(f64::INFINITY);
            verdict(measured, 1.0, wanted_s, " s")
        });
    }
    let seconds = table.many(60) as u64;
    let cases = table.cases(|seed| Case::Pauses(128, seconds, seed));
    table.row("called dead while 4 % stand still in turns, N = 128", "0", &cases, |found| {
        most_number(found, "dead", 1.0, 0.0, "")
    });
    let sizes: &[usize] = if table.size == Size::Quick { &[128, 1_000] } else { &[128, 1_000, 10_000] };
    for &nodes in sizes {
        let seconds = if nodes > 1_000 { 5 } else { 20 };
        let cases = table.cases(|seed| Case::Idle(nodes, seconds, seed));
        table.row(format!("idle traffic a node sends, N = {nodes}"), "<= 1.5 KB/s", &cases, |found| {
            most_number(found, "bytes_per_s", 1e3, 1_500.0, " KB/s")
        });
    }
}

/// Returns the outcomes among the findings.
pub(super) fn outcomes<'a>(found: &'a [&Finding]) -> impl Iterator<Item = &'a RunOutcome> {
    found.iter().filter_map(|finding| match finding {
        Finding::Outcome(outcome) => Some(&**outcome),
        Finding::Numbers(_) => None,
    })
}

fn numbers(found: &[&Finding], name: &str) -> Vec<f64> {
    let of = |finding: &&Finding| match finding {
        Finding::Numbers(numbers) => numbers.get(name).cloned().unwrap_or_default(),
        Finding::Outcome(_) => Vec::new(),
    };
    found.iter().flat_map(of).collect()
}

/// Judges the worst number of all seeds by the allowed one. It is shown in units of `unit`.
fn most(
    found: &[&Finding],
    unit: f64,
    allowed: f64,
    name: &str,
    of: impl Fn(&RunOutcome) -> f64,
) -> Judgement {
    let worst = outcomes(found).map(of).fold(f64::NEG_INFINITY, f64::max);
    verdict(worst, unit, allowed, name)
}

fn most_number(found: &[&Finding], number: &str, unit: f64, allowed: f64, name: &str) -> Judgement {
    verdict(numbers(found, number).into_iter().fold(f64::NEG_INFINITY, f64::max), unit, allowed, name)
}

fn verdict(worst: f64, unit: f64, allowed: f64, name: &str) -> Judgement {
    // A row for which nothing was measured has not passed.
    let has_passed = worst.is_finite() && worst <= allowed;
    Judgement { measured: format!("{}{name}", short(worst / unit)), has_passed }
}

/// Judges the worst number of copies per node, and shows beside it what else was sent for each delivery:
/// receipts, questions, headers, and probes in the same time.
fn copies(found: &[&Finding], allowed: f64) -> Judgement {
    let worst = outcomes(found).map(|outcome| outcome.copies_mean).fold(f64::NEG_INFINITY, f64::max);
    let control =
        outcomes(found).map(|outcome| outcome.control_bytes_per_delivery).fold(f64::NEG_INFINITY, f64::max);
    let measured = format!("{worst:.4} ({control:.0} bytes of control a delivery)");
    Judgement { measured, has_passed: worst.is_finite() && worst <= allowed }
}

/// Writes microseconds as a number of milliseconds.
pub(super) fn millis(us: f64) -> String {
    short(us / 1e3)
}

/// Writes a number with up to three decimal places, without trailing zeros.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}
