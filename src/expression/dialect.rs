//! Which variables and functions an expression may use, by what it is for, and their values.

use super::data::ExpressionData;

/// What an expression is for. This decides which variables and functions it may use, and how much it may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A filter of a subscription: `source`, `data`, `ts`, `deleted`.
    Filter,
    /// A middleware: also `now` and `token`, and the functions `drop()`, `reject("why")` and `latest("name")`.
    Middleware,
    /// What a pull source makes of an answer: `data`, `now`, and `topic` where the answer has one.
    Pull,
}

/// Work that a filter may do for a record, about 50 microseconds. Other connections wait for it.
const FILTER_WORK: u32 = 5_000;
/// Work that a middleware may do for a record, about a millisecond. Its publisher waits for it.
const MIDDLEWARE_WORK: u32 = 100_000;
/// Work that a pull source may do for an answer, about 100 milliseconds. It runs on a thread of its own.
const PULL_WORK: u32 = 10_000_000;

/// A variable of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Source,
    Data,
    Ts,
    Deleted,
    Now,
    Token,
    Topic,
}

/// All variables with their names.
const VARIABLES: [(&str, Variable); 7] = [
    ("source", Variable::Source),
    ("data", Variable::Data),
    ("ts", Variable::Ts),
    ("deleted", Variable::Deleted),
    ("now", Variable::Now),
    ("token", Variable::Token),
    ("topic", Variable::Topic),
];

impl Dialect {
    /// The work that an evaluation may do, in units of about ten nanoseconds.
    pub(super) fn work(self) -> u32 {
        match self {
            Dialect::Filter => FILTER_WORK,
            Dialect::Middleware => MIDDLEWARE_WORK,
            Dialect::Pull => PULL_WORK,
        }
    }

    fn has(self, variable: Variable) -> bool {
        match self {
            Dialect::Filter => {
                matches!(variable, Variable::Source | Variable::Data | Variable::Ts | Variable::Deleted)
            }
            Dialect::Middleware => variable != Variable::Topic,
            Dialect::Pull => matches!(variable, Variable::Data | Variable::Now | Variable::Topic),
        }
    }

    /// Returns the variable of this name, if expressions of this kind have it.
    pub(super) fn variable(self, name: &str) -> Option<Variable> {
        let (_, variable) = VARIABLES.iter().find(|(known, _)| *known == name)?;
        self.has(*variable).then_some(*variable)
    }

    /// The names of the variables, for messages.
    pub(super) fn variable_names(self) -> String {
        let names = VARIABLES.iter().filter(|(_, variable)| self.has(*variable)).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// Returns whether an expression may call `drop()`, `reject()` and `latest()`.
    pub(super) fn decides(self) -> bool {
        self == Dialect::Middleware
    }
}

/// A way to look up the data of another source.
pub trait Latestness {
    /// Returns the data that this node holds of a source at the moment: JSON text, or `None` if there is none.
    fn latest(&self, source: &str) -> Option<String>;
}

/// The values of the variables, for one evaluation.
pub struct Variables<'v, 'd> {
    /// The name of the source.
    pub source: &'v str,
    /// The data, which is converted as far as the expression asks for it.
    pub data: &'v ExpressionData<'d>,
    /// The timestamp of the record, in microseconds.
    pub ts: u64,
    /// Whether the record is a deletion.
    pub deleted: bool,
    /// The wall clock, in microseconds.
    pub now: u64,
    /// The name of the token of the client; `None` where there is none.
    pub token: Option<&'v str>,
    /// The topic of a message that was pulled.
    pub topic: Option<&'v str>,
    /// Where `latest("name")` looks; it finds nothing without.
    pub records: Option<&'v dyn Latestness>,
}

impl std::fmt::Debug for Variables<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Variables { source, ts, deleted, now, token, topic, .. } = self;
        write!(f, "Variables({source:?}, {ts}, {deleted}, {now}, {token:?}, {topic:?})")
    }
}

impl<'v, 'd> Variables<'v, 'd> {
    /// The variables of a record. Those that are not of the record are to be set where they are needed.
    pub fn of_record(
        source: &'v str,
        data: &'v ExpressionData<'d>,
        ts: u64,
        deleted: bool,
    ) -> Variables<'v, 'd> {
        Variables { source, data, ts, deleted, now: 0, token: None, topic: None, records: None }
    }
}
