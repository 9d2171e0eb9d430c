//! Expressions of CEL, the Common Expression Language, by which users say which records they want and how data is
//! to change: reading them, and evaluating them over a record.
//!
//! Expressions come from strangers and are evaluated by the threads that move records. So everything has a bound:
//!
//! - Reading one ([`Expression::compile`]) takes time and memory in proportion to its text, which has at most
//!   [`EXPRESSION_BYTES_MAX`] bytes, and little of the stack, because its nesting is bounded. It takes some ten
//!   microseconds, so an event loop may do it by itself.
//! - Evaluating one has a budget of work ([`Dialect::work`]), which every operation is charged to by its cost: each
//!   step of a list, each byte of a text that is made or searched. When the budget is used up, the evaluation ends
//!   with an error. Regular expressions are constants, compiled with the expression, and have bounds of their own.
//! - What only the data can say is looked up as late as possible: a path such as `data.room.temp` is found in the
//!   text of the data, and nothing else of it is converted ([`ExpressionData`]).
//!
//! Rejected: to evaluate with the crate `cel`. It has no bound for the steps of an evaluation, for the size of the
//! texts and lists that one makes, or for regular expressions, which it compiles anew for each match, and it wants all
//! data converted first. It is what the tests compare with ([`tests`]): both must agree on what is standard CEL.
//!
//! What differs from the standard is what JSON needs: whole numbers of the data are `int`s, and arithmetic may mix
//! kinds of numbers, so `data.temp * 1.8 + 32.0` holds for 21 as for 21.5.

mod arithmetic;
mod budget;
mod compare;
mod convert;
mod data;
mod dialect;
mod error;
mod evaluate;
mod function;
mod functions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod json;
mod lexer;
mod literals;
mod macros;
mod names;
mod node;
#[cfg(test)]
mod page_tests;
mod parser;
mod regexes;
mod shared;
mod strings;
#[cfg(test)]
mod tests;
mod time;
mod value;

use std::sync::Arc;

use self::budget::WorkBudget;
use self::evaluate::Evaluator;
use self::node::ExpressionNode;
use self::value::CelValue;

pub use self::data::{ConvertedData, ExpressionData};
pub use self::dialect::{Dialect, Latestness, Variables};
pub use self::error::{BadExpression, EvaluationError};
pub use self::evaluate::Evaluated;
pub use self::shared::SharedExpression;

/// Largest size of the text of an expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4 * 1024;

/// An expression that was read, to be evaluated any number of times, by any thread.
#[derive(Debug)]
pub struct Expression {
    text: Arc<str>,
    dialect: Dialect,
    root: ExpressionNode,
    parts: usize,
    is_intricate: bool,
    /// Number of values that the macros of the expression name at one time.
    locals: usize,
    held_bytes: usize,
}

impl Expression {
    /// Reads an expression. An error names the line and the column.
    pub fn compile(text: &str, dialect: Dialect) -> Result<Expression, BadExpression> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let message = format!("has {} bytes; at most {EXPRESSION_BYTES_MAX} are allowed", text.len());
            return Err(BadExpression::new(text, 0, message));
        }
        let parsed = parser::parse(text, dialect)?;
        let held_bytes = size_of::<Expression>() + text.len() + parsed.held_bytes;
        let parser::Parsed { root, parts, is_intricate, locals, .. } = parsed;
        Ok(Expression { text: text.into(), dialect, root, parts, is_intricate, locals, held_bytes })
    }

    /// The text of the expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Number of the parts of the expression: its work for a record is in proportion to it, unless it
    /// [is intricate](Expression::is_intricate).
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Returns whether the work for a record may grow with its data: the expression takes the items of a list in turn,
    /// or searches with a regular expression.
    pub fn is_intricate(&self) -> bool {
        self.is_intricate
    }

    /// Returns how many bytes of memory the expression holds, at most.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Returns whether the expression is true of these variables. A result that is no boolean is an error.
    pub fn is_true(&self, variables: &Variables<'_, '_>) -> Result<bool, EvaluationError> {
        let mut evaluator = Evaluator::new(variables, self.budget(), self.locals);
        match evaluator.evaluate(&self.root) {
            Ok(CelValue::Bool(is_true)) => Ok(is_true),
            Ok(other) => {
                Err(EvaluationError::new(format!("the result is {}, not bool", other.kind().word())))
            }
            Err(stop) => Err(stop.into_error()),
        }
    }

    /// Evaluates the expression to data.
    pub fn evaluate(&self, variables: &Variables<'_, '_>) -> Result<Evaluated, EvaluationError> {
        let mut evaluator = Evaluator::new(variables, self.budget(), self.locals);
        evaluator.evaluate_data(&self.root)
    }

    fn budget(&self) -> WorkBudget {
        WorkBudget::new(self.dialect.work())
    }
}

/// Expressions of the same kind with the same text are the same.
impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        (&self.text, self.dialect) == (&other.text, other.dialect)
    }
}

impl Eq for Expression {}
