//! Rules that are expressions.

use std::sync::Arc;

use super::produced::{checked_data, shortened_reason};
use super::rule::{GivenDraft, MiddlewareRule, RecordReader, RuleFailure, Ruling};
use crate::expression::{Dialect, Evaluated, Expression, ExpressionData, Latestness, Variables};
use crate::protocol::draft::DraftPayload;
use crate::record::Payload;

/// An expression whose result is the new data.
pub struct CelRule(Expression);

/// A rule that is asked only about drafts for which an expression is true.
pub struct WhenRule {
    when: Expression,
    rule: Arc<dyn MiddlewareRule>,
}

/// The records that expressions may look up.
struct LookedUp<'a>(&'a dyn RecordReader);

impl Latestness for LookedUp<'_> {
    fn latest(&self, source: &str) -> Option<String> {
        match &self.0.latest(source)?.payload {
            Payload::Json(text) => Some(String::from_utf8_lossy(text).into_owned()),
            Payload::Binary(_) | Payload::Deleted => None,
        }
    }
}

impl CelRule {
    /// Compiles an expression. The error says what is wrong with it, and where.
    pub fn compile(text: &str) -> Result<CelRule, String> {
        compile(text).map(CelRule)
    }
}

impl WhenRule {
    /// Puts a condition before a rule. The error says what is wrong with the condition.
    pub fn new(when: &str, rule: Arc<dyn MiddlewareRule>) -> Result<WhenRule, String> {
        Ok(WhenRule { when: compile(when)?, rule })
    }
}

impl MiddlewareRule for CelRule {
    fn decide(&self, given: &GivenDraft<'_>, reader: &Arc<dyn RecordReader>) -> Result<Ruling, RuleFailure> {
        let evaluated = with_variables(given, &**reader, |variables| self.0.evaluate(variables));
        match evaluated.map_err(|error| RuleFailure(shortened_reason(&error.to_string())))? {
            Evaluated::Unchanged => Ok(Ruling::Pass),
            Evaluated::Json(text) => checked_data(Payload::Json(text.into())).map(Ruling::Data),
            Evaluated::Bytes(bytes) => Ok(Ruling::Data(Payload::Binary(bytes.into()))),
            Evaluated::Drop => Ok(Ruling::Drop),
            Evaluated::Reject(reason) => Ok(Ruling::Reject(shortened_reason(&reason))),
        }
    }
}

impl MiddlewareRule for WhenRule {
    fn decide(&self, given: &GivenDraft<'_>, reader: &Arc<dyn RecordReader>) -> Result<Ruling, RuleFailure> {
        // What the condition has no answer for, such as data without a field that it names, is not picked.
        let is_picked = with_variables(given, &**reader, |variables| self.when.is_true(variables));
        if is_picked == Ok(true) { self.rule.decide(given, reader) } else { Ok(Ruling::Pass) }
    }
}

fn compile(text: &str) -> Result<Expression, String> {
    Expression::compile(text, Dialect::Middleware).map_err(|bad| bad.to_string())
}

/// Evaluates something with the variables of a draft.
fn with_variables<R>(
    given: &GivenDraft<'_>,
    reader: &dyn RecordReader,
    evaluate: impl FnOnce(&Variables<'_, '_>) -> R,
) -> R {
    let draft = given.draft;
    let data = match &draft.payload {
        // The text was checked when it was read, so nothing is replaced.
        DraftPayload::Json(text) => ExpressionData::json(std::str::from_utf8(text).unwrap_or("null")),
        DraftPayload::Binary(bytes) => ExpressionData::bytes(bytes),
        DraftPayload::Deleted => ExpressionData::nothing(),
    };
    let ts = draft.ts.unwrap_or(given.now_us);
    let looked = LookedUp(reader);
    let mut variables = Variables::of_record(&draft.source, &data, ts, false);
    variables.now = given.now_us;
    variables.token = Some(given.token);
    variables.records = Some(&looked);
    evaluate(&variables)
}
