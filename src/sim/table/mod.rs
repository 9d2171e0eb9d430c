//! The table of figures, as data: which worlds to run, and which figures must come out.
//!
//! A [`FigureTable`] is made of cases, each one world that can run by itself on any thread, and of rows,
//! each judging the findings of some of the cases. Cases are shared between rows. Percentiles are
//! taken over a run's single deliveries, and the worst of a row's seeds counts.
//!
//! By file: `rows` has the figures that are wanted, `experiments` the worlds that are not scenarios (when a
//! death is noticed, what idling and healing cost), `comparison` what other protocols achieve.

mod comparison;
mod experiments;
mod rows;

pub use comparison::Baseline;
pub use experiments::Numbers;

use super::baseline::BaselinePlan;
use super::scenario::{self, RunOutcome, Scenario};

/// A world to be run for the table.
#[derive(Clone, Debug)]
pub enum Case {
    /// A scenario with a seed.
    Run(Box<Scenario>, u64),
    /// Nodes die one after the other: when do others notice? Number of nodes, number of deaths, seed.
    Deaths(usize, usize, u64),
    /// 4 % of the nodes at a time stand still: is any called dead? Number of nodes, seconds, seed.
    Pauses(usize, u64, u64),
    /// A world in which nothing happens, to count what is sent all the same. Number of nodes, seconds, seed.
    Idle(usize, u64, u64),
    /// Two maps become equal: what does it cost? Number of records, how many of them differ, seed.
    Healing(usize, usize, u64),
    /// A world in which records are spread by another protocol, to compare with.
    Baseline(Baseline, BaselinePlan),
}

impl Case {
    /// Returns the number of nodes, as a measure of the memory that it takes.
    pub fn nodes(&self) -> usize {
        match self {
            Case::Run(scenario, _) => scenario.nodes,
            Case::Deaths(nodes, ..) | Case::Pauses(nodes, ..) | Case::Idle(nodes, ..) => *nodes,
            // Two nodes with many records take as much memory as a large world.
            Case::Healing(records, ..) => records / 100,
            Case::Baseline(_, plan) => plan.nodes,
        }
    }

    /// Runs the case. `progress` is called now and then with the part that is done, 0 to 1.
    pub fn run(&self, progress: &mut dyn FnMut(f64)) -> Finding {
        match self {
            Case::Run(scenario, seed) => Finding::Outcome(Box::new(scenario::run(scenario, *seed, progress))),
            Case::Deaths(nodes, deaths, seed) => {
                Finding::Numbers(experiments::deaths(*nodes, *deaths, *seed, progress))
            }
            Case::Pauses(nodes, seconds, seed) => {
                Finding::Numbers(experiments::pauses(*nodes, *seconds, *seed, progress))
            }
            Case::Idle(nodes, seconds, seed) => {
                Finding::Numbers(experiments::idle(*nodes, *seconds, *seed, progress))
            }
            Case::Healing(records, different, seed) => {
                Finding::Numbers(experiments::healing(*records, *different, *seed))
            }
            Case::Baseline(baseline, plan) => Finding::Numbers(comparison::run(*baseline, plan)),
        }
    }
}

/// The finding of a case.
#[derive(Clone, Debug)]
pub enum Finding {
    /// The outcome of a scenario.
    Outcome(Box<RunOutcome>),
    /// The numbers that another experiment measured, by name.
    Numbers(Numbers),
}

/// The result of judging a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The figure that was measured, as text.
    pub measured: String,
    /// Whether the figure is as wanted.
    pub has_passed: bool,
}

/// Judges a row by the findings of its cases.
type Judge = Box<dyn Fn(&[&Finding]) -> Judgement>;

/// A row of the table: one figure that is wanted, or shown for comparison.
pub struct FigureRow {
    /// Description of the figure that is measured.
    pub what: String,
    /// The bound that is wanted; empty: none, the row is there for comparison.
    pub wanted: String,
    cases: Vec<usize>,
    /// Text about the sample, for runs that do not count deliveries.
    more: String,
    judge: Judge,
}

impl FigureRow {
    /// Judges the row by the findings of all cases, which are in the table's order.
    pub fn judge(&self, findings: &[Finding]) -> Judgement {
        (self.judge)(&self.own(findings))
    }

    /// Returns whether a bound is wanted.
    pub fn is_bounded(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Returns, as text, on how many runs and deliveries the row rests.
    pub fn sample(&self, findings: &[Finding]) -> String {
        let runs = self.cases.len();
        let deliveries = self.own(findings).into_iter().filter_map(|finding| match finding {
            Finding::Outcome(outcome) => Some(outcome.time_us.count),
            Finding::Numbers(numbers) => Some(*numbers.get("deliveries")?.first()? as u64),
        });
        match deliveries.reduce(|sum, more| sum + more) {
            Some(deliveries) => format!("{runs} runs, {deliveries} deliveries"),
            None => format!("{runs} runs{}", self.more),
        }
    }

    fn own<'a>(&self, findings: &'a [Finding]) -> Vec<&'a Finding> {
        self.cases.iter().filter_map(|case| findings.get(*case)).collect()
    }
}

/// The amount that is measured for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The full table, with as many runs and records as the percentiles need.
    Full,
    /// Fewer runs and records, and no world of ten thousand nodes: the result is only an indication.
    Quick,
}

/// The cases to run, and the rows that judge them.
pub struct FigureTable {
    /// The worlds to be run.
    pub cases: Vec<Case>,
    /// The figures that are wanted of the cases.
    pub rows: Vec<FigureRow>,
    size: Size,
}

impl FigureTable {
    /// Makes the table of all figures.
    pub fn new(size: Size) -> FigureTable {
        let mut table = FigureTable { cases: Vec::new(), rows: Vec::new(), size };
        rows::add(&mut table);
        comparison::add(&mut table);
        table
    }

    fn seeds(&self) -> std::ops::RangeInclusive<u64> {
        match self.size {
            Size::Full => 1..=5,
            Size::Quick => 1..=2,
        }
    }

    /// Returns this number, or a fifth of it in a quick table.
    fn many(&self, full: usize) -> usize {
        match self.size {
            Size::Full => full,
            Size::Quick => full.div_ceil(5),
        }
    }

    /// Adds a case for every seed. Returns the numbers of the new cases.
    fn cases(&mut self, case: impl Fn(u64) -> Case) -> Vec<usize> {
        let first = self.cases.len();
        self.cases.extend(self.seeds().map(case));
        (first..self.cases.len()).collect()
    }

    fn runs(&mut self, scenario: &Scenario) -> Vec<usize> {
        self.cases(|seed| Case::Run(Box::new(scenario.clone()), seed))
    }

    fn unbounded_row(&mut self, what: String, cases: &[usize], judge: fn(&[&Finding]) -> Judgement) {
        self.row(what, "", cases, judge);
    }

    fn row(
        &mut self,
        what: impl Into<String>,
        wanted: impl Into<String>,
        cases: &[usize],
        judge: impl Fn(&[&Finding]) -> Judgement + 'static,
    ) {
        let more = match cases.first().and_then(|case| self.cases.get(*case)) {
            Some(Case::Deaths(_, deaths, _)) => format!(", {} deaths", deaths * cases.len()),
            Some(Case::Pauses(_, seconds, _) | Case::Idle(_, seconds, _)) => format!(" of {seconds} s"),
            _ => String::new(),
        };
        let (what, wanted) = (what.into(), wanted.into());
        self.rows.push(FigureRow { what, wanted, cases: cases.to_vec(), more, judge: Box::new(judge) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_judged_and_nothing_measured_is_no_success() {
        for size in [Size::Quick, Size::Full] {
            let table = FigureTable::new(size);
            let judged: std::collections::BTreeSet<usize> =
                table.rows.iter().flat_map(|row| row.cases.iter().copied()).collect();
            assert_eq!(judged, (0..table.cases.len()).collect());
            assert!(table.rows.iter().all(|row| row.cases.len() >= 2));
            let nothing: Vec<Finding> =
                table.cases.iter().map(|_| Finding::Numbers(Numbers::new())).collect();
            for row in &table.rows {
                assert!(!row.judge(&nothing).has_passed, "{}", row.what);
            }
        }
        assert!(FigureTable::new(Size::Full).rows.iter().all(|row| row.cases.len() >= 5));
    }

    #[test]
    fn what_others_do_is_shown_and_not_judged() {
        let table = FigureTable::new(Size::Quick);
        let compared: Vec<&FigureRow> = table.rows.iter().filter(|row| !row.is_bounded()).collect();
        assert_eq!(compared.len(), 3 * 2 * 3);
        let row = compared.iter().find(|row| row.what.ends_with("flooding")).expect("a row");
        let findings: Vec<Finding> = (0..table.cases.len())
            .map(|at| match row.cases.contains(&at) {
                true => table.cases[at].run(&mut |_| {}),
                false => Finding::Numbers(Numbers::new()),
            })
            .collect();
        let verdict = row.judge(&findings);
        assert!(verdict.has_passed && verdict.measured.contains("1.000 copies, 0 missing"), "{verdict:?}");
        assert_eq!(row.sample(&findings), "2 runs, 1800 deliveries");
    }

    #[test]
    fn two_maps_become_equal_at_the_cost_of_what_differs() {
        let finding = Case::Healing(5_000, 50, 1).run(&mut |_| {});
        let Finding::Numbers(numbers) = finding else { panic!("numbers") };
        assert!(numbers["seconds"][0] < 20.0 && numbers["bytes"][0] > 50.0 * 60.0, "{numbers:?}");
    }
}
