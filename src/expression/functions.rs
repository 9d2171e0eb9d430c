//! The functions that an expression may call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::arithmetic::double;
use super::budget::WorkBudget;
use super::compare::{have_order, order};
use super::convert;
use super::dialect::Variables;
use super::error::{Failure, Stop};
use super::function::Function;
use super::json;
use super::strings;
use super::time;
use super::value::{CelBytes, CelValue, Value};

/// Calls a function. The number of arguments was checked when the expression was read.
pub(super) fn call<'v>(
    function: Function,
    mut values: Vec<CelValue<'v>>,
    variables: &'v Variables<'v, '_>,
    budget: &mut WorkBudget,
) -> Value<'v> {
    match (values.pop(), values.is_empty()) {
        (Some(only), true) => of_one(function, only, variables, budget),
        (last, _) => {
            values.extend(last);
            match function {
                Function::Least | Function::Greatest => extreme(function, values, budget),
                _ => strings::call(function, &values, budget),
            }
        }
    }
}

fn of_one<'v>(
    function: Function,
    value: CelValue<'v>,
    variables: &'v Variables<'v, '_>,
    budget: &mut WorkBudget,
) -> Value<'v> {
    match function {
        Function::Size => size(&value, budget),
        Function::Type => Ok(CelValue::Type(value.kind())),
        Function::Dyn => Ok(value),
        Function::Int
        | Function::UInt
        | Function::Double
        | Function::String
        | Function::Bool
        | Function::Bytes
        | Function::Timestamp
        | Function::Duration
        | Function::Micros
        | Function::FromMicros => convert::convert(function, value, budget),
        Function::Year
        | Function::Month
        | Function::Date
        | Function::DayOfMonth
        | Function::DayOfWeek
        | Function::DayOfYear
        | Function::Hours
        | Function::Minutes
        | Function::Seconds
        | Function::Milliseconds => Ok(time::part(function, &value)?),
        Function::Least | Function::Greatest => {
            let values = match &value {
                CelValue::List(values) => values.to_vec(),
                _ => vec![value],
            };
            extreme(function, values, budget)
        }
        Function::Encode => match &value {
            CelValue::Bytes(bytes) => {
                budget.charge_bytes(2 * bytes.as_slice().len())?;
                Ok(CelValue::text(&STANDARD.encode(bytes.as_slice())))
            }
            other => Err(Failure::NoOverload("base64.encode", other.kind().word()).into()),
        },
        Function::Decode => match &value {
            CelValue::Text(text) => {
                budget.charge_bytes(2 * text.as_str().len())?;
                let decoded = STANDARD.decode(text.as_str());
                let bytes = decoded.map_err(|_| Failure::NotConverted("base64.decode", "string"))?;
                Ok(CelValue::Bytes(CelBytes::Made(bytes.into())))
            }
            other => Err(Failure::NoOverload("base64.decode", other.kind().word()).into()),
        },
        Function::Latest => latest(&value, variables, budget),
        Function::Reject => match &value {
            CelValue::Text(reason) => Err(Stop::Reject(reason.as_str().to_owned())),
            other => Err(Failure::NoOverload("reject", other.kind().word()).into()),
        },
        Function::LowerAscii | Function::UpperAscii | Function::Trim | Function::Join => {
            strings::call(function, &[value], budget)
        }
        _ => Ok(number(function, &value)?),
    }
}

/// Returns how many characters, bytes, items or entries a value has.
fn size<'v>(value: &CelValue<'v>, budget: &mut WorkBudget) -> Value<'v> {
    let count = match value {
        CelValue::Text(text) => {
            budget.charge_bytes(text.as_str().len())?;
            text.as_str().chars().count()
        }
        CelValue::Bytes(bytes) => bytes.as_slice().len(),
        CelValue::List(values) => values.len(),
        CelValue::Map(map) => map.len(),
        other => return Err(Failure::NoOverload("size", other.kind().word()).into()),
    };
    Ok(CelValue::count(count as u64))
}

/// Computes a function of one number.
fn number<'v>(function: Function, value: &CelValue<'v>) -> Result<CelValue<'v>, Failure<'v>> {
    let (name, of_double): (_, fn(f64) -> f64) = match function {
        Function::Abs => ("math.abs", f64::abs),
        Function::Ceil => ("math.ceil", f64::ceil),
        Function::Floor => ("math.floor", f64::floor),
        Function::Round => ("math.round", f64::round),
        Function::Trunc => ("math.trunc", f64::trunc),
        Function::SignOf => ("math.sign", |number| if number == 0.0 { number } else { number.signum() }),
        Function::Sqrt => ("math.sqrt", f64::sqrt),
        Function::IsNan | Function::IsInf => {
            let number = double(value).ok_or(Failure::NoOverload("math.isNaN", value.kind().word()))?;
            let is_it = if function == Function::IsNan { number.is_nan() } else { number.is_infinite() };
            return Ok(CelValue::Bool(is_it));
        }
        _ => return Err(Failure::NoOverload("this function", value.kind().word())),
    };
    match (value, function) {
        (CelValue::Double(number), _) => Ok(CelValue::Double(of_double(*number))),
        (CelValue::Int(number), Function::Abs) => {
            number.checked_abs().map(CelValue::Int).ok_or(Failure::Overflow(name))
        }
        (CelValue::Int(number), Function::SignOf) => Ok(CelValue::Int(number.signum())),
        (CelValue::UInt(number), Function::SignOf) => Ok(CelValue::UInt(u64::from(*number > 0))),
        (CelValue::Int(_) | CelValue::UInt(_), Function::Sqrt) => {
            Ok(CelValue::Double(double(value).unwrap_or_default().sqrt()))
        }
        // A whole number is its own floor, so that an expression may treat 21 as it treats 21.5.
        (CelValue::Int(_) | CelValue::UInt(_), _) => Ok(value.clone()),
        (other, _) => Err(Failure::NoOverload(name, other.kind().word())),
    }
}

/// Returns the least or the greatest of these numbers.
fn extreme<'v>(function: Function, values: Vec<CelValue<'v>>, budget: &mut WorkBudget) -> Value<'v> {
    let name = if function == Function::Least { "math.least" } else { "math.greatest" };
    let mut values = values.into_iter();
    let mut best = values.next().ok_or(Failure::NoOverload(name, "an empty list"))?;
    if double(&best).is_none() {
        return Err(Failure::NoOverload(name, best.kind().word()).into());
    }
    for value in values {
        if double(&value).is_none() || !have_order(&value, &best) {
            return Err(Failure::NoOverload(name, value.kind().word()).into());
        }
        let found = order(&value, &best, budget)?;
        let is_better = found
            .is_some_and(|found| if function == Function::Least { found.is_lt() } else { found.is_gt() });
        budget.charge(1)?;
        if is_better {
            best = value;
        }
    }
    Ok(best)
}

/// Cost of a look at another source, in units of work.
const LATEST_UNITS: usize = 100;

/// Looks up the data of another source; null if there is none.
fn latest<'v>(name: &CelValue<'v>, variables: &'v Variables<'v, '_>, budget: &mut WorkBudget) -> Value<'v> {
    let CelValue::Text(name) = name else {
        return Err(Failure::NoOverload("latest", name.kind().word()).into());
    };
    budget.charge(LATEST_UNITS)?;
    let found = variables.records.and_then(|records| records.latest(name.as_str()));
    let Some(text) = found else { return Ok(CelValue::Null) };
    budget.charge_bytes(text.len())?;
    // The text ends with this call, so what is found is copied.
    let value = json::read(&text).ok_or(Failure::BadData)?;
    budget.charge_bytes(text.len())?;
    Ok(value.owned())
}
