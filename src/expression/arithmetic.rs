//! Sums, differences, products, quotients and remainders.
//!
//! Whole numbers are computed exactly, and a result that is out of range is an error. As soon as one number is a
//! double, both are, because JSON does not tell whether a sensor that says 21 might say 21.5 next.

use std::sync::Arc;

use super::budget::WorkBudget;
use super::error::{Failure, Stop};
use super::node::BinaryOperator;
use super::value::{CelBytes, CelText, CelValue};

/// Two numbers of the same kind.
enum Pair {
    Ints(i64, i64),
    UInts(u64, u64),
    Doubles(f64, f64),
}

/// Brings two numbers to the same kind; `None` if one of them is no number.
fn pair(a: &CelValue<'_>, b: &CelValue<'_>) -> Option<Pair> {
    Some(match (a, b) {
        (CelValue::Int(a), CelValue::Int(b)) => Pair::Ints(*a, *b),
        (CelValue::UInt(a), CelValue::UInt(b)) => Pair::UInts(*a, *b),
        (CelValue::Int(a), CelValue::UInt(b)) => match i64::try_from(*b) {
            Ok(b) => Pair::Ints(*a, b),
            Err(_) => Pair::Doubles(*a as f64, *b as f64),
        },
        (CelValue::UInt(a), CelValue::Int(b)) => match i64::try_from(*a) {
            Ok(a) => Pair::Ints(a, *b),
            Err(_) => Pair::Doubles(*a as f64, *b as f64),
        },
        _ => Pair::Doubles(double(a)?, double(b)?),
    })
}

/// Returns a number as a double.
pub(super) fn double(value: &CelValue<'_>) -> Option<f64> {
    match value {
        CelValue::Int(number) => Some(*number as f64),
        CelValue::UInt(number) => Some(*number as f64),
        CelValue::Double(number) => Some(*number),
        _ => None,
    }
}

/// Computes an operator of arithmetic.
pub(super) fn compute<'v>(
    operator: BinaryOperator,
    a: &CelValue<'v>,
    b: &CelValue<'v>,
    budget: &mut WorkBudget,
) -> Result<CelValue<'v>, Stop<'v>> {
    if let Some(pair) = pair(a, b) {
        return Ok(of_numbers(operator, &pair)?);
    }
    match operator {
        BinaryOperator::Add => add(a, b, budget),
        BinaryOperator::Subtract => Ok(subtract(a, b)?),
        _ => Err(no_overload(operator, a, b).into()),
    }
}

fn no_overload<'v>(operator: BinaryOperator, a: &CelValue<'_>, b: &CelValue<'_>) -> Failure<'v> {
    Failure::NoOverloads(operator.sign(), a.kind().word(), b.kind().word())
}

fn of_numbers<'v>(operator: BinaryOperator, pair: &Pair) -> Result<CelValue<'v>, Failure<'v>> {
    let is_division = matches!(operator, BinaryOperator::Divide | BinaryOperator::Remainder);
    if is_division && matches!(pair, Pair::Ints(_, 0) | Pair::UInts(_, 0)) {
        return Err(Failure::DivisionByZero);
    }
    let result = match *pair {
        Pair::Ints(a, b) => match operator {
            BinaryOperator::Add => a.checked_add(b),
            BinaryOperator::Subtract => a.checked_sub(b),
            BinaryOperator::Multiply => a.checked_mul(b),
            BinaryOperator::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        }
        .map(CelValue::Int),
        Pair::UInts(a, b) => match operator {
            BinaryOperator::Add => a.checked_add(b),
            BinaryOperator::Subtract => a.checked_sub(b),
            BinaryOperator::Multiply => a.checked_mul(b),
            BinaryOperator::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        }
        .map(CelValue::UInt),
        Pair::Doubles(a, b) => match operator {
            BinaryOperator::Add => Some(a + b),
            BinaryOperator::Subtract => Some(a - b),
            BinaryOperator::Multiply => Some(a * b),
            BinaryOperator::Divide => Some(a / b),
            _ => return Err(Failure::NoOverloads("%", "double", "double")),
        }
        .map(CelValue::Double),
    };
    result.ok_or(Failure::Overflow(operator.sign()))
}

/// Joins texts, sequences of bytes and lists, and adds spans of time.
fn add<'v>(a: &CelValue<'v>, b: &CelValue<'v>, budget: &mut WorkBudget) -> Result<CelValue<'v>, Stop<'v>> {
    let overflow = Failure::Overflow("+");
    Ok(match (a, b) {
        (CelValue::Text(a), CelValue::Text(b)) => {
            budget.charge_bytes(a.as_str().len() + b.as_str().len())?;
            let joined: Arc<str> = [a.as_str(), b.as_str()].concat().into();
            CelValue::Text(CelText::Made(joined))
        }
        (CelValue::Bytes(a), CelValue::Bytes(b)) => {
            budget.charge_bytes(a.as_slice().len() + b.as_slice().len())?;
            CelValue::Bytes(CelBytes::Made([a.as_slice(), b.as_slice()].concat().into()))
        }
        (CelValue::List(a), CelValue::List(b)) => {
            budget.charge(1 + a.len() + b.len())?;
            CelValue::list(a.iter().chain(b.iter()).cloned().collect())
        }
        (CelValue::Timestamp(a), CelValue::Duration(b)) | (CelValue::Duration(b), CelValue::Timestamp(a)) => {
            CelValue::Timestamp(a.checked_add(*b).ok_or(overflow)?)
        }
        (CelValue::Duration(a), CelValue::Duration(b)) => {
            CelValue::Duration(a.checked_add(*b).ok_or(overflow)?)
        }
        _ => return Err(no_overload(BinaryOperator::Add, a, b).into()),
    })
}

fn subtract<'v>(a: &CelValue<'v>, b: &CelValue<'v>) -> Result<CelValue<'v>, Failure<'v>> {
    let overflow = Failure::Overflow("-");
    Ok(match (a, b) {
        (CelValue::Timestamp(a), CelValue::Timestamp(b)) | (CelValue::Duration(a), CelValue::Duration(b)) => {
            CelValue::Duration(a.checked_sub(*b).ok_or(overflow)?)
        }
        (CelValue::Timestamp(a), CelValue::Duration(b)) => {
            CelValue::Timestamp(a.checked_sub(*b).ok_or(overflow)?)
        }
        _ => return Err(no_overload(BinaryOperator::Subtract, a, b)),
    })
}

/// Computes a number with the other sign.
pub(super) fn negate<'v>(value: &CelValue<'v>) -> Result<CelValue<'v>, Failure<'v>> {
    match value {
        CelValue::Int(number) => number.checked_neg().map(CelValue::Int).ok_or(Failure::Overflow("-")),
        CelValue::Double(number) => Ok(CelValue::Double(-number)),
        other => Err(Failure::NoOverload("-", other.kind().word())),
    }
}
