//! Which values are equal, and which is less.

use std::cmp::Ordering;

use super::budget::WorkBudget;
use super::error::Stop;
use super::value::CelValue;

/// The least double that is greater than every `i64`.
const ABOVE_I64: f64 = 9_223_372_036_854_775_808.0;
/// The least double that is greater than every `u64`.
const ABOVE_U64: f64 = 18_446_744_073_709_551_616.0;

/// Compares a whole number with a double exactly; `None` if the double is no number.
fn whole_with_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double >= ABOVE_U64 {
        return Some(Ordering::Less);
    }
    if double < -ABOVE_I64 {
        return Some(Ordering::Greater);
    }
    let truncated = double.trunc();
    let order = whole.cmp(&(truncated as i128));
    Some(order.then_with(|| 0.0.partial_cmp(&(double - truncated)).unwrap_or(Ordering::Equal)))
}

fn whole(value: &CelValue<'_>) -> Option<i128> {
    match value {
        CelValue::Int(number) => Some(i128::from(*number)),
        CelValue::UInt(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// Compares two values of kinds that have an order; `None` if these have none.
pub(super) fn order<'v>(
    a: &CelValue<'_>,
    b: &CelValue<'_>,
    budget: &mut WorkBudget,
) -> Result<Option<Ordering>, Stop<'v>> {
    Ok(match (a, b) {
        (CelValue::Int(a), CelValue::Int(b)) => Some(a.cmp(b)),
        (CelValue::Double(a), CelValue::Double(b)) => a.partial_cmp(b),
        (CelValue::Double(a), b) => whole(b).and_then(|b| whole_with_double(b, *a)).map(Ordering::reverse),
        (a, CelValue::Double(b)) => whole(a).and_then(|a| whole_with_double(a, *b)),
        (CelValue::Text(a), CelValue::Text(b)) => {
            let (a, b) = (a.as_str(), b.as_str());
            budget.charge_bytes(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (CelValue::Bytes(a), CelValue::Bytes(b)) => {
            let (a, b) = (a.as_slice(), b.as_slice());
            budget.charge_bytes(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (CelValue::Bool(a), CelValue::Bool(b)) => Some(a.cmp(b)),
        (CelValue::Timestamp(a), CelValue::Timestamp(b)) | (CelValue::Duration(a), CelValue::Duration(b)) => {
            Some(a.cmp(b))
        }
        (a, b) => whole(a).zip(whole(b)).map(|(a, b)| a.cmp(&b)),
    })
}

/// Returns whether two values can be compared by their order.
pub(super) fn have_order(a: &CelValue<'_>, b: &CelValue<'_>) -> bool {
    let is_number =
        |value: &CelValue<'_>| matches!(value, CelValue::Int(_) | CelValue::UInt(_) | CelValue::Double(_));
    match (a, b) {
        (CelValue::Text(_), CelValue::Text(_))
        | (CelValue::Bytes(_), CelValue::Bytes(_))
        | (CelValue::Bool(_), CelValue::Bool(_))
        | (CelValue::Timestamp(_), CelValue::Timestamp(_))
        | (CelValue::Duration(_), CelValue::Duration(_)) => true,
        (a, b) => is_number(a) && is_number(b),
    }
}

/// Returns whether two values are equal. Values of different kinds are not, but numbers may be.
pub(super) fn equal<'v>(
    a: &CelValue<'_>,
    b: &CelValue<'_>,
    budget: &mut WorkBudget,
) -> Result<bool, Stop<'v>> {
    budget.charge(1)?;
    Ok(match (a, b) {
        (CelValue::Null, CelValue::Null) => true,
        (CelValue::Type(a), CelValue::Type(b)) => a == b,
        (CelValue::Text(a), CelValue::Text(b)) if a.as_str().len() != b.as_str().len() => false,
        (CelValue::List(a), CelValue::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (CelValue::Map(a), CelValue::Map(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                let Some(other) = b.get(key, budget).map_err(|_| Stop::Exhausted)? else { return Ok(false) };
                if !equal(value, other, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (a, b) => order(a, b, budget)? == Some(Ordering::Equal),
    })
}
