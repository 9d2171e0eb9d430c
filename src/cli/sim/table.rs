//! `anode sim table`: the figures that are wanted, measured.

use super::{Arguments, memory, plots, runs};
use crate::cli::CliError;
use crate::server::clock;
use crate::sim::report::Columns;
use crate::sim::scenario::Outcome;
use crate::sim::table::{Finding, Row, Size, Table};

/// Measures them all and judges each. Fails if one is not met.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let since_us = clock::now().mono_us;
    let size = if arguments.quick { Size::Quick } else { Size::Full };
    let mut weighed: Vec<memory::Row> = memory::row().into_iter().collect();
    let table = Table::new(size);
    let sizes: Vec<usize> = table.cases.iter().map(|case| case.nodes()).collect();
    let done = runs::in_parallel(&sizes, arguments.jobs(), |at, step| {
        table.cases.get(at).map_or(Finding::Numbers(Default::default()), |case| case.run(step))
    });
    if size == Size::Full {
        weighed.extend(memory::peak_row());
    }
    let findings: Vec<Finding> = done.into_iter().map(|(finding, _)| finding).collect();
    let mut columns = Columns::new(&["WHAT", "WANTED", "MEASURED", "", "SAMPLE"], 5);
    let mut failed = 0;
    let judge =
        |row: &Row| (row.what.clone(), row.wanted.clone(), row.judge(&findings), row.sample(&findings));
    let judged = table.rows.iter().map(judge);
    let rest = weighed
        .iter()
        .map(|row| (row.what.clone(), row.wanted.clone(), row.verdict.clone(), row.sample.clone()));
    for (what, wanted, verdict, sample) in judged.chain(rest) {
        let sign = if verdict.has_passed { "PASS" } else { "FAIL" };
        failed += usize::from(!verdict.has_passed);
        columns.push(vec![what, wanted, verdict.measured, sign.into(), sample]);
    }
    print!("{columns}");
    let seconds = (clock::now().mono_us - since_us) / 1_000_000;
    let rows = table.rows.len() + weighed.len();
    println!("\n{} of {rows} met; {} runs in {seconds} s", rows - failed, findings.len());
    println!(
        "Of a row's seeds the worst counts. One-way delay 0.5 to 1.5 ms, 6 us of work a datagram at each end."
    );
    if size == Size::Quick {
        println!(
            "QUICK: smaller samples, fewer seeds, no world of 10,000 nodes; not what is to be published."
        );
    }
    if let Some(directory) = &arguments.plot {
        plots::write(directory, &outcomes(findings))?;
    }
    if failed > 0 { Err(CliError::Failed(format!("{failed} of {rows} figures are not met"))) } else { Ok(()) }
}

/// What the plots show: plain and lossy runs.
fn outcomes(findings: Vec<Finding>) -> Vec<Outcome> {
    let outcome = |finding| match finding {
        Finding::Outcome(outcome) if ["spread", "lossy"].contains(&outcome.scenario.as_str()) => {
            Some(*outcome)
        }
        _ => None,
    };
    findings.into_iter().filter_map(outcome).collect()
}
