//! What is wrong with an expression, and what went wrong while one was evaluated.

use std::borrow::Cow;
use std::fmt;

/// The reason why a text is not an expression, with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadExpression {
    /// The reason why the text is no expression, for people to read.
    pub message: String,
    /// Number of the line, from 1.
    pub line: u32,
    /// Number of the character in its line, from 1.
    pub column: u32,
}

impl BadExpression {
    /// Makes the error of a place in `text`, which is given by its offset in bytes.
    pub(super) fn new(text: &str, at: usize, message: impl Into<String>) -> BadExpression {
        let before = text.get(..at).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
        BadExpression { message: message.into(), line: number(line), column: number(column) }
    }
}

impl fmt::Display for BadExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for BadExpression {}

/// The reason why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationError(Cow<'static, str>);

impl EvaluationError {
    pub(super) fn new(message: impl Into<Cow<'static, str>>) -> EvaluationError {
        EvaluationError(message.into())
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EvaluationError {}

/// A text that stands in the program.
pub(super) type Words = &'static str;

/// The reason why an evaluation ended early.
#[derive(Debug)]
pub(super) enum Stop<'v> {
    /// An operation has no result. `&&`, `||`, `all` and `exists` may do without it.
    Failed(Failure<'v>),
    /// The budget of work is used up.
    Exhausted,
    /// The expression called `drop()`.
    Drop,
    /// The expression called `reject()` with this reason.
    Reject(String),
}

/// The reason why an operation has no result. Most are made and thrown away, so that making one costs next to nothing.
#[derive(Debug)]
pub(super) enum Failure<'v> {
    NoSuchField(&'v str),
    /// There is nothing at the end of this path of the data.
    NoSuchPath(&'v [Box<str>]),
    NoSuchKey,
    OutOfRange,
    NoOverload(&'static str, &'static str),
    NoOverloads(&'static str, &'static str, &'static str),
    Overflow(&'static str),
    DivisionByZero,
    NotBool(&'static str),
    BadData,
    RepeatedKey,
    NotConverted(&'static str, &'static str),
}

impl<'v> From<Failure<'v>> for Stop<'v> {
    fn from(failure: Failure<'v>) -> Stop<'v> {
        Stop::Failed(failure)
    }
}

impl Stop<'_> {
    /// Puts the reason in words.
    pub(super) fn into_error(self) -> EvaluationError {
        match self {
            Stop::Failed(failure) => EvaluationError::new(failure.to_string()),
            Stop::Exhausted => EvaluationError::new("takes more work than an expression may"),
            Stop::Drop => EvaluationError::new("drop() has no value"),
            Stop::Reject(_) => EvaluationError::new("reject() has no value"),
        }
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoSuchField(name) => write!(f, "there is no field {name:?}"),
            Failure::NoSuchPath(path) => write!(f, "there is no data.{}", path.join(".")),
            Failure::NoSuchKey => f.write_str("there is no such key"),
            Failure::OutOfRange => f.write_str("an index is out of range"),
            Failure::NoOverload(function, kind) => write!(f, "{function} does not take {kind}"),
            Failure::NoOverloads(function, left, right) => {
                write!(f, "{function} does not take {left} and {right}")
            }
            Failure::Overflow(function) => write!(f, "the result of {function} is out of range"),
            Failure::DivisionByZero => f.write_str("a number is divided by zero"),
            Failure::NotBool(kind) => write!(f, "a condition is {kind}, not bool"),
            Failure::BadData => f.write_str("the data is not JSON"),
            Failure::RepeatedKey => f.write_str("a key is repeated"),
            Failure::NotConverted(function, kind) => write!(f, "{function}() cannot convert this {kind}"),
        }
    }
}
