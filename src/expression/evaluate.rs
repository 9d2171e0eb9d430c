//! From the tree of an expression to a value.

use super::arithmetic::{compute, negate};
use super::budget::WorkBudget;
use super::compare::{equal, have_order, order};
use super::dialect::{Variable, Variables};
use super::error::{EvaluationError, Failure, Stop};
use super::functions;
use super::json;
use super::node::{BinaryOperator, Constant, ExpressionNode, Logic, LoopKind, LoopNode};
use super::value::{CelBytes, CelMap, CelText, CelValue, Value};

/// The result of an expression that says what becomes of data.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluated {
    /// The data as it is, to the last byte.
    Unchanged,
    /// Another value, as JSON text.
    Json(String),
    /// A sequence of bytes.
    Bytes(Vec<u8>),
    /// The expression called `drop()`.
    Drop,
    /// The expression called `reject("why")`.
    Reject(String),
}

/// One evaluation of an expression over the variables of one record.
pub(super) struct Evaluator<'v, 'd> {
    variables: &'v Variables<'v, 'd>,
    budget: WorkBudget,
    /// The values that the macros around the present place name.
    locals: Vec<CelValue<'v>>,
}

impl<'v, 'd: 'v> Evaluator<'v, 'd> {
    pub(super) fn new(
        variables: &'v Variables<'v, 'd>,
        budget: WorkBudget,
        locals: usize,
    ) -> Evaluator<'v, 'd> {
        Evaluator { variables, budget, locals: Vec::with_capacity(locals) }
    }

    /// Evaluates an expression whose result is data. Where that is the variable `data` itself, nothing is converted.
    pub(super) fn evaluate_data(&mut self, node: &'v ExpressionNode) -> Result<Evaluated, EvaluationError> {
        match self.data_of(node) {
            Ok(evaluated) => Ok(evaluated),
            Err(Stop::Drop) => Ok(Evaluated::Drop),
            Err(Stop::Reject(reason)) => Ok(Evaluated::Reject(reason)),
            Err(stop) => Err(stop.into_error()),
        }
    }

    fn data_of(&mut self, node: &'v ExpressionNode) -> Result<Evaluated, Stop<'v>> {
        self.budget.charge(1)?;
        match node {
            ExpressionNode::Variable(Variable::Data) => Ok(Evaluated::Unchanged),
            ExpressionNode::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                let chosen = if self.condition(condition)? { yes } else { no };
                self.data_of(chosen)
            }
            node => match self.evaluate(node)? {
                CelValue::Bytes(bytes) => {
                    self.budget.charge_bytes(bytes.as_slice().len())?;
                    Ok(Evaluated::Bytes(bytes.as_slice().to_vec()))
                }
                value => {
                    let mut text = String::new();
                    json::write(&value, &mut text, &mut self.budget)?;
                    Ok(Evaluated::Json(text))
                }
            },
        }
    }

    /// Evaluates a part of the expression.
    pub(super) fn evaluate(&mut self, node: &'v ExpressionNode) -> Value<'v> {
        self.budget.charge(1)?;
        match node {
            ExpressionNode::Constant(constant) => Ok(constant_value(constant)),
            ExpressionNode::Variable(variable) => self.variable(*variable),
            ExpressionNode::Path(path) => self.path(path),
            ExpressionNode::Local(place) => {
                self.locals.get(*place).cloned().ok_or(Failure::OutOfRange.into())
            }
            ExpressionNode::Field(value, name) => {
                let value = self.evaluate(value)?;
                self.field(&value, name)
            }
            ExpressionNode::Index(parts) => self.index(parts),
            ExpressionNode::Has(value, name) => match self.evaluate(value)? {
                CelValue::Map(map) => Ok(CelValue::Bool(map.field(name, &mut self.budget)?.is_some())),
                other => Err(Failure::NoOverload("has", other.kind().word()).into()),
            },
            ExpressionNode::HasPath(path) => self.has_path(path),
            ExpressionNode::Not(value) => Ok(CelValue::Bool(!self.condition(value)?)),
            ExpressionNode::Negate(value) => Ok(negate(&self.evaluate(value)?)?),
            ExpressionNode::Logic(parts, logic) => self.logic(parts, *logic),
            ExpressionNode::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                let chosen = if self.condition(condition)? { yes } else { no };
                self.evaluate(chosen)
            }
            ExpressionNode::Binary(operator, parts) => self.binary(*operator, parts),
            ExpressionNode::Call(function, arguments) => {
                let values: Result<Vec<_>, _> = arguments.iter().map(|node| self.evaluate(node)).collect();
                functions::call(*function, values?, self.variables, &mut self.budget)
            }
            ExpressionNode::Matches(text, regex) => match self.evaluate(text)? {
                CelValue::Text(text) => Ok(CelValue::Bool(regex.is_match(text.as_str(), &mut self.budget)?)),
                other => Err(Failure::NoOverload("matches", other.kind().word()).into()),
            },
            ExpressionNode::List(nodes) => {
                let values: Result<Vec<_>, _> = nodes.iter().map(|node| self.evaluate(node)).collect();
                Ok(CelValue::list(values?))
            }
            ExpressionNode::Map(entries) => self.map(entries),
            ExpressionNode::Loop(node) => self.loop_over(node),
            ExpressionNode::Drop => Err(Stop::Drop),
        }
    }

    fn variable(&self, variable: Variable) -> Value<'v> {
        let variables = self.variables;
        let text = |text: Option<&'v str>| {
            text.map_or(CelValue::Null, |text| CelValue::Text(CelText::Borrowed(text)))
        };
        Ok(match variable {
            Variable::Source => text(Some(variables.source)),
            Variable::Data => return variables.data.whole(),
            Variable::Ts => CelValue::count(variables.ts),
            Variable::Deleted => CelValue::Bool(variables.deleted),
            Variable::Now => CelValue::count(variables.now),
            Variable::Token => text(variables.token),
            Variable::Topic => text(variables.topic),
        })
    }

    /// Evaluates a path of the data.
    fn path(&mut self, path: &'v [Box<str>]) -> Value<'v> {
        if let Some(found) = self.variables.data.look_up(path)? {
            return found.ok_or(Failure::NoSuchPath(path).into());
        }
        let mut value = self.variables.data.whole()?;
        for name in path {
            let CelValue::Map(map) = &value else { return Err(Failure::NoSuchPath(path).into()) };
            let found = map.field(name, &mut self.budget)?.cloned();
            value = found.ok_or(Failure::NoSuchPath(path))?;
        }
        Ok(value)
    }

    fn has_path(&mut self, path: &'v [Box<str>]) -> Value<'v> {
        let Some((last, before)) = path.split_last() else { return Err(Failure::NoSuchKey.into()) };
        let value = if before.is_empty() { self.variables.data.whole()? } else { self.path(before)? };
        match value {
            CelValue::Map(map) => Ok(CelValue::Bool(map.field(last, &mut self.budget)?.is_some())),
            other => Err(Failure::NoOverload("has", other.kind().word()).into()),
        }
    }

    fn field(&mut self, value: &CelValue<'v>, name: &'v str) -> Value<'v> {
        match value {
            CelValue::Map(map) => {
                let found = map.field(name, &mut self.budget)?;
                found.cloned().ok_or(Failure::NoSuchField(name).into())
            }
            _ => Err(Failure::NoSuchField(name).into()),
        }
    }

    fn index(&mut self, parts: &'v [ExpressionNode; 2]) -> Value<'v> {
        let [value, index] = parts;
        let (value, index) = (self.evaluate(value)?, self.evaluate(index)?);
        match &value {
            CelValue::Map(map) => {
                let key = whole_key(&index);
                let found = map.get(key.as_ref().unwrap_or(&index), &mut self.budget)?;
                found.cloned().ok_or(Failure::NoSuchKey.into())
            }
            CelValue::List(values) => {
                let place = match whole_key(&index).as_ref().unwrap_or(&index) {
                    CelValue::Int(place) => usize::try_from(*place).ok(),
                    CelValue::UInt(place) => usize::try_from(*place).ok(),
                    other => return Err(Failure::NoOverload("[]", other.kind().word()).into()),
                };
                place.and_then(|place| values.get(place)).cloned().ok_or(Failure::OutOfRange.into())
            }
            other => Err(Failure::NoOverload("[]", other.kind().word()).into()),
        }
    }

    /// Evaluates a condition.
    fn condition(&mut self, node: &'v ExpressionNode) -> Result<bool, Stop<'v>> {
        match self.evaluate(node)? {
            CelValue::Bool(value) => Ok(value),
            other => Err(Failure::NotBool(other.kind().word()).into()),
        }
    }

    /// Evaluates conditions up to the one that decides. If one that decides is found, it does not matter that others
    /// have no value.
    fn logic(&mut self, parts: &'v [ExpressionNode], logic: Logic) -> Value<'v> {
        let deciding = logic == Logic::Or;
        let mut failed = None;
        for part in parts {
            match self.condition(part) {
                Ok(value) if value == deciding => return Ok(CelValue::Bool(deciding)),
                Ok(_) => {}
                Err(Stop::Failed(failure)) => failed = Some(failed.unwrap_or(failure)),
                Err(stop) => return Err(stop),
            }
        }
        failed.map_or(Ok(CelValue::Bool(!deciding)), |failure| Err(failure.into()))
    }

    fn binary(&mut self, operator: BinaryOperator, parts: &'v [ExpressionNode; 2]) -> Value<'v> {
        let [a, b] = parts;
        let (a, b) = (self.evaluate(a)?, self.evaluate(b)?);
        let budget = &mut self.budget;
        let is_true = match operator {
            BinaryOperator::Equal => equal(&a, &b, budget)?,
            BinaryOperator::NotEqual => !equal(&a, &b, budget)?,
            BinaryOperator::In => self.is_in(&a, &b)?,
            BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual => {
                if !have_order(&a, &b) {
                    let (a, b) = (a.kind().word(), b.kind().word());
                    return Err(Failure::NoOverloads(operator.sign(), a, b).into());
                }
                order(&a, &b, budget)?.is_some_and(|order| match operator {
                    BinaryOperator::Less => order.is_lt(),
                    BinaryOperator::LessOrEqual => order.is_le(),
                    BinaryOperator::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            _ => return compute(operator, &a, &b, budget),
        };
        Ok(CelValue::Bool(is_true))
    }

    fn is_in(&mut self, item: &CelValue<'v>, range: &CelValue<'v>) -> Result<bool, Stop<'v>> {
        match range {
            CelValue::List(values) => {
                for value in values.iter() {
                    if equal(item, value, &mut self.budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            CelValue::Map(map) => {
                let key = whole_key(item);
                Ok(map.get(key.as_ref().unwrap_or(item), &mut self.budget)?.is_some())
            }
            other => Err(Failure::NoOverload("in", other.kind().word()).into()),
        }
    }

    fn map(&mut self, entries: &'v [[ExpressionNode; 2]]) -> Value<'v> {
        let mut made = Vec::with_capacity(entries.len());
        for [key, value] in entries {
            let key = self.evaluate(key)?;
            if !matches!(key, CelValue::Text(_) | CelValue::Int(_) | CelValue::UInt(_) | CelValue::Bool(_)) {
                return Err(Failure::NoOverload("a key", key.kind().word()).into());
            }
            made.push((key, self.evaluate(value)?));
        }
        self.budget.charge(4 * made.len())?;
        Ok(CelValue::Map(CelMap::of_literal(made)?.into()))
    }

    /// Evaluates a macro that takes the items of a list, or the keys of a map, in turn.
    fn loop_over(&mut self, node: &'v LoopNode) -> Value<'v> {
        let range = self.evaluate(&node.range)?;
        debug_assert_eq!(
            self.locals.len(),
            node.local,
            "macros name their values in the order of their nesting"
        );
        let count = match &range {
            CelValue::List(values) => values.len(),
            CelValue::Map(map) => map.len(),
            other => return Err(Failure::NoOverload("a macro", other.kind().word()).into()),
        };
        let mut state = LoopState::default();
        for at in 0..count {
            let item = match &range {
                CelValue::List(values) => values.get(at).cloned(),
                CelValue::Map(map) => map.entries().get(at).map(|(key, _)| key.clone()),
                _ => None,
            };
            self.locals.push(item.unwrap_or(CelValue::Null));
            let step = self.loop_step(node, &mut state);
            self.locals.truncate(node.local);
            if step? {
                break;
            }
        }
        state.into_value(node.kind)
    }

    /// Evaluates a macro for the present item. Returns whether the result is settled.
    fn loop_step(&mut self, node: &'v LoopNode, state: &mut LoopState<'v>) -> Result<bool, Stop<'v>> {
        self.budget.charge(1)?;
        match node.kind {
            LoopKind::All | LoopKind::Exists => match self.condition(&node.body) {
                Ok(value) => {
                    let settles = value == (node.kind == LoopKind::Exists);
                    state.is_settled |= settles;
                    return Ok(settles);
                }
                Err(Stop::Failed(failure)) => {
                    state.failed.get_or_insert(failure);
                }
                Err(stop) => return Err(stop),
            },
            LoopKind::ExistsOne => state.count += usize::from(self.condition(&node.body)?),
            LoopKind::Filter => {
                if self.condition(&node.body)? {
                    state.values.extend(self.locals.last().cloned());
                }
            }
            LoopKind::Map => {
                let is_taken = match &node.condition {
                    Some(condition) => self.condition(condition)?,
                    None => true,
                };
                if is_taken {
                    let value = self.evaluate(&node.body)?;
                    state.values.push(value);
                }
            }
        }
        Ok(false)
    }
}

/// How far a macro is.
#[derive(Default)]
struct LoopState<'v> {
    values: Vec<CelValue<'v>>,
    /// Number of the items for which the condition is true.
    count: usize,
    is_settled: bool,
    failed: Option<Failure<'v>>,
}

impl<'v> LoopState<'v> {
    fn into_value(self, kind: LoopKind) -> Value<'v> {
        if !self.is_settled
            && let Some(failure) = self.failed
        {
            return Err(failure.into());
        }
        Ok(match kind {
            LoopKind::All => CelValue::Bool(!self.is_settled),
            LoopKind::Exists => CelValue::Bool(self.is_settled),
            LoopKind::ExistsOne => CelValue::Bool(self.count == 1),
            LoopKind::Map | LoopKind::Filter => CelValue::list(self.values),
        })
    }
}

/// Returns the whole number that a double equals, if it is one: such a double is the same key.
fn whole_key<'v>(key: &CelValue<'_>) -> Option<CelValue<'v>> {
    match key {
        CelValue::Double(number) if number.trunc() == *number && number.abs() < 9e15 => {
            Some(CelValue::Int(*number as i64))
        }
        _ => None,
    }
}

fn constant_value(constant: &Constant) -> CelValue<'_> {
    match constant {
        Constant::Null => CelValue::Null,
        Constant::Bool(value) => CelValue::Bool(*value),
        Constant::Int(value) => CelValue::Int(*value),
        Constant::UInt(value) => CelValue::UInt(*value),
        Constant::Double(value) => CelValue::Double(*value),
        Constant::Text(value) => CelValue::Text(CelText::Borrowed(value)),
        Constant::Bytes(value) => CelValue::Bytes(CelBytes::Borrowed(value)),
        Constant::Type(kind) => CelValue::Type(*kind),
    }
}
