//! The figures that are wanted, as data: what to run, what must come out.
//!
//! A [`FigureTable`] is made of cases, each one world that can run by itself on any thread, and of rows,
//! each judging the findings of some of the cases. Cases are shared between rows. Percentiles are
//! taken over a run's single deliveries, and the worst of a row's seeds counts.
//!
//! By file: `rows` what is wanted, `experiments` worlds that are no scenario (who notices a death
//! when, what idling and healing cost), `comparison` what others do.

mod comparison;
mod experiments;
mod rows;

pub use comparison::Baseline;
pub use experiments::Numbers;

use super::baseline::BaselinePlan;
use super::scenario::{self, RunOutcome, Scenario};

/// One world to be run.
#[derive(Clone, Debug)]
pub enum Case {
    /// A scenario with a seed.
    Run(Box<Scenario>, u64),
    /// Nodes die one after the other: who notices when. Nodes, deaths, seed.
    Deaths(usize, usize, u64),
    /// 4 % of the nodes at a time stand still: who is called dead. Nodes, seconds, seed.
    Pauses(usize, u64, u64),
    /// Nothing happens. Nodes, seconds, seed.
    Idle(usize, u64, u64),
    /// Two maps become equal. Records, how many of them differ, seed.
    Healing(usize, usize, u64),
    /// What others do.
    Baseline(Baseline, BaselinePlan),
}

impl Case {
    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        match self {
            Case::Run(scenario, _) => scenario.nodes,
            Case::Deaths(nodes, ..) | Case::Pauses(nodes, ..) | Case::Idle(nodes, ..) => *nodes,
            // As much memory as a large world's.
            Case::Healing(records, ..) => records / 100,
            Case::Baseline(_, plan) => plan.nodes,
        }
    }

    /// Runs it; `progress` is told how far it is, 0 to 1.
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

/// What came of a case.
#[derive(Clone, Debug)]
pub enum Finding {
    /// Of a scenario.
    Outcome(Box<RunOutcome>),
    /// Of another experiment: what it measured, by name.
    Numbers(Numbers),
}

/// What a row came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What was measured.
    pub measured: String,
    /// Whether it is as wanted.
    pub has_passed: bool,
}

type Judge = Box<dyn Fn(&[&Finding]) -> Judgement>;

/// One figure that is wanted.
pub struct FigureRow {
    /// What.
    pub what: String,
    /// How much; empty: nothing, it is there for comparison.
    pub wanted: String,
    cases: Vec<usize>,
    /// What its runs are made of, if not of deliveries.
    more: String,
    judge: Judge,
}

impl FigureRow {
    /// Judges it by the findings of all cases, in the table's order.
    pub fn judge(&self, findings: &[Finding]) -> Judgement {
        (self.judge)(&self.own(findings))
    }

    /// Whether something is wanted of it.
    pub fn is_bounded(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// How much was measured for it.
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

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As much as the percentiles need.
    Full,
    /// Less, and nothing of ten thousand nodes: a look, not a proof.
    Quick,
}

/// Cases and rows.
pub struct FigureTable {
    /// What is to be run.
    pub cases: Vec<Case>,
    /// What is wanted of it.
    pub rows: Vec<FigureRow>,
    size: Size,
}

impl FigureTable {
    /// All that is wanted.
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

    /// This number, or fewer in a quick table.
    fn many(&self, full: usize) -> usize {
        match self.size {
            Size::Full => full,
            Size::Quick => full.div_ceil(5),
        }
    }

    /// Adds a case for every seed; their numbers.
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
