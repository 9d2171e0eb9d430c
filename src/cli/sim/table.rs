//! `anode sim table`: measures the required figures.

use super::{Arguments, memory, plots, runs};
use crate::cli::CliError;
use crate::server::clock;
use crate::sim::report::Columns;
use crate::sim::scenario::RunOutcome;
use crate::sim::table::{FigureRow, FigureTable, Finding, Size};

/// Measures all figures and compares them with what is required. Returns an error if one is not met.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let since_us = clock::mono_us();
    let size = if arguments.quick { Size::Quick } else { Size::Full };
    let mut weighed = memory::rows();
    let table = FigureTable::new(size);
    let sizes: Vec<usize> = table.cases.iter().map(|case| case.nodes()).collect();
    let done = runs::in_parallel(&sizes, arguments.jobs(), |at, step| {
        table.cases.get(at).map_or(Finding::Numbers(Default::default()), |case| case.run(step))
    });
    if size == Size::Full {
        weighed.extend(memory::peak_row());
    }
    let findings: Vec<Finding> = done.into_iter().map(|(finding, _)| finding).collect();
    let mut columns = Columns::new(&["WHAT", "WANTED", "MEASURED", "", "SAMPLE"], 5);
    let (mut wanted, mut failed) = (0, 0);
    let judge = |row: &FigureRow| memory::Row {
        what: row.what.clone(),
        wanted: row.wanted.clone(),
        sample: row.sample(&findings),
        verdict: row.judge(&findings),
    };
    let (bounded, compared): (Vec<&FigureRow>, Vec<&FigureRow>) =
        table.rows.iter().partition(|row| row.is_bounded());
    for row in bounded.into_iter().map(judge).chain(weighed).chain(compared.into_iter().map(judge)) {
        let sign = match (row.wanted.is_empty(), row.verdict.has_passed) {
            (true, _) => "",
            (false, true) => "PASS",
            (false, false) => "FAIL",
        };
        wanted += usize::from(!row.wanted.is_empty());
        failed += usize::from(sign == "FAIL");
        columns.push(vec![row.what, row.wanted, row.verdict.measured, sign.into(), row.sample]);
    }
    print!("{columns}");
    let seconds = (clock::mono_us() - since_us) / 1_000_000;
    let met = wanted - failed;
    println!("\n{met} of {wanted} met; {} runs in {seconds} s", findings.len());
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
    if failed > 0 {
        Err(CliError::Failed(format!("{failed} of {wanted} figures are not met")))
    } else {
        Ok(())
    }
}

/// Returns the outcomes that plots show: those of `spread` and `lossy` with one zone in which all nodes know
/// each other.
fn outcomes(findings: Vec<Finding>) -> Vec<RunOutcome> {
    let is_shown = |outcome: &RunOutcome| {
        let is_plain = outcome.zones == 1 && outcome.unknown_share == 0.0;
        is_plain && ["spread", "lossy"].contains(&outcome.scenario.as_str())
    };
    let outcome = |finding| match finding {
        Finding::Outcome(outcome) => Some(*outcome).filter(is_shown),
        Finding::Numbers(_) => None,
    };
    findings.into_iter().filter_map(outcome).collect()
}
