//! The figures that are wanted, as data: what to run, what must come out.
//!
//! A [`Table`] is made of cases, each one world that can run by itself on any thread, and of rows,
//! each judging the findings of some of the cases. Cases are shared between rows. Percentiles are
//! taken over a run's single deliveries, and the worst of a row's seeds counts.
//!
//! By file: `rows` what is wanted, `experiments` worlds that are no scenario (who notices a death
//! when, what idling and healing cost).

mod experiments;
mod rows;

pub use experiments::Numbers;

use super::scenario::{self, Outcome, Scenario};

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
}

impl Case {
    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        match self {
            Case::Run(scenario, _) => scenario.nodes,
            Case::Deaths(nodes, ..) | Case::Pauses(nodes, ..) | Case::Idle(nodes, ..) => *nodes,
            // As much memory as a large world's.
            Case::Healing(records, ..) => records / 100,
        }
    }

    /// About how much work it is, in deliveries.
    pub fn cost(&self) -> u64 {
        match self {
            Case::Run(scenario, _) => {
                let idle = scenario.nodes as u64 * (scenario.warm_up_us + scenario.publishing_us()) / 200_000;
                scenario.nodes as u64 * scenario.publishing.records as u64 + idle
            }
            Case::Deaths(nodes, deaths, _) => (nodes * deaths * 20) as u64,
            Case::Pauses(nodes, seconds, _) | Case::Idle(nodes, seconds, _) => *nodes as u64 * seconds * 5,
            Case::Healing(records, ..) => *records as u64,
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
        }
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub enum Finding {
    /// Of a scenario.
    Outcome(Box<Outcome>),
    /// Of another experiment: what it measured, by name.
    Numbers(Numbers),
}

/// What a row came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was measured.
    pub measured: String,
    /// Whether it is as wanted.
    pub has_passed: bool,
}

type Judge = Box<dyn Fn(&[&Finding]) -> Verdict>;

/// One figure that is wanted.
pub struct Row {
    /// What.
    pub what: String,
    /// How much.
    pub wanted: String,
    /// How much was measured for it.
    pub sample: String,
    cases: Vec<usize>,
    judge: Judge,
}

impl Row {
    /// Judges it by the findings of all cases, in the table's order.
    pub fn judge(&self, findings: &[Finding]) -> Verdict {
        let own: Vec<&Finding> = self.cases.iter().filter_map(|case| findings.get(*case)).collect();
        (self.judge)(&own)
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
pub struct Table {
    /// What is to be run.
    pub cases: Vec<Case>,
    /// What is wanted of it.
    pub rows: Vec<Row>,
    size: Size,
}

impl Table {
    /// All that is wanted.
    pub fn new(size: Size) -> Table {
        let mut table = Table { cases: Vec::new(), rows: Vec::new(), size };
        rows::add(&mut table);
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

    fn row(
        &mut self,
        what: impl Into<String>,
        wanted: impl Into<String>,
        cases: &[usize],
        judge: impl Fn(&[&Finding]) -> Verdict + 'static,
    ) {
        let deliveries: u64 = cases.iter().filter_map(|case| self.cases.get(*case)).map(Case::cost).sum();
        let sample = match cases.first().and_then(|case| self.cases.get(*case)) {
            Some(Case::Run(..)) => format!("{} runs, about {deliveries} deliveries", cases.len()),
            Some(Case::Deaths(_, deaths, _)) => {
                format!("{} runs, {} deaths", cases.len(), deaths * cases.len())
            }
            Some(Case::Pauses(_, seconds, _) | Case::Idle(_, seconds, _)) => {
                format!("{} runs of {seconds} s", cases.len())
            }
            Some(Case::Healing(..)) | None => format!("{} runs", cases.len()),
        };
        let (what, wanted) = (what.into(), wanted.into());
        self.rows.push(Row { what, wanted, sample, cases: cases.to_vec(), judge: Box::new(judge) });
    }
}
