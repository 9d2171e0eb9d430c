//! Conversions from one kind of value to another.

use super::budget::WorkBudget;
use super::error::{Failure, Stop};
use super::function::Function;
use super::time;
use super::value::{CelBytes, CelText, CelValue, Value};

/// Converts a value to the kind that a function makes.
pub(super) fn convert<'v>(function: Function, value: CelValue<'v>, budget: &mut WorkBudget) -> Value<'v> {
    if let CelValue::Text(text) = &value {
        budget.charge_bytes(text.as_str().len())?;
    }
    let kind = value.kind().word();
    let (name, converted) = match function {
        Function::Int => ("int", int(&value).map(CelValue::Int)),
        Function::UInt => ("uint", uint(&value).map(CelValue::UInt)),
        Function::Double => ("double", to_double(&value).map(CelValue::Double)),
        Function::Bool => ("bool", to_bool(&value).map(CelValue::Bool)),
        Function::String => ("string", string(value, budget)?),
        Function::Bytes => ("bytes", bytes(value, budget)?),
        Function::Timestamp => ("timestamp", timestamp(&value).map(CelValue::Timestamp)),
        Function::Duration => ("duration", duration(&value).map(CelValue::Duration)),
        Function::Micros => ("micros", micros(&value).map(CelValue::Int)),
        _ => ("fromMicros", from_micros(&value).map(CelValue::Timestamp)),
    };
    converted.ok_or(Failure::NotConverted(name, kind).into())
}

fn int(value: &CelValue<'_>) -> Option<i64> {
    match value {
        CelValue::Int(number) => Some(*number),
        CelValue::UInt(number) => i64::try_from(*number).ok(),
        // Both bounds are excluded, because a double cannot tell them from their neighbours.
        CelValue::Double(number) => (number.abs() < 9_223_372_036_854_775_808.0).then_some(*number as i64),
        CelValue::Text(text) => text.as_str().parse().ok(),
        CelValue::Timestamp(us) => Some(us.div_euclid(1_000_000)),
        _ => None,
    }
}

fn uint(value: &CelValue<'_>) -> Option<u64> {
    match value {
        CelValue::Int(number) => u64::try_from(*number).ok(),
        CelValue::UInt(number) => Some(*number),
        CelValue::Double(number) => {
            (*number > -1.0 && *number < 18_446_744_073_709_551_616.0).then_some(*number as u64)
        }
        CelValue::Text(text) => text.as_str().parse().ok(),
        _ => None,
    }
}

fn to_double(value: &CelValue<'_>) -> Option<f64> {
    match value {
        CelValue::Text(text) => text.as_str().parse().ok(),
        number => super::arithmetic::double(number),
    }
}

fn to_bool(value: &CelValue<'_>) -> Option<bool> {
    match value {
        CelValue::Bool(value) => Some(*value),
        CelValue::Text(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn string<'v>(value: CelValue<'v>, budget: &mut WorkBudget) -> Result<Option<CelValue<'v>>, Stop<'v>> {
    let text = match value {
        CelValue::Text(_) => return Ok(Some(value)),
        CelValue::Bool(value) => value.to_string(),
        CelValue::Int(number) => number.to_string(),
        CelValue::UInt(number) => number.to_string(),
        CelValue::Double(number) => number.to_string(),
        CelValue::Timestamp(us) => time::timestamp_text(us),
        CelValue::Duration(us) => time::duration_text(us),
        CelValue::Bytes(bytes) => {
            budget.charge_bytes(bytes.as_slice().len())?;
            let text = std::str::from_utf8(bytes.as_slice());
            return Ok(text.ok().map(|text| CelValue::Text(CelText::Made(text.into()))));
        }
        _ => return Ok(None),
    };
    Ok(Some(CelValue::text(&text)))
}

fn bytes<'v>(value: CelValue<'v>, budget: &mut WorkBudget) -> Result<Option<CelValue<'v>>, Stop<'v>> {
    Ok(match value {
        CelValue::Bytes(_) => Some(value),
        CelValue::Text(text) => {
            budget.charge_bytes(text.as_str().len())?;
            Some(CelValue::Bytes(CelBytes::Made(text.as_str().as_bytes().into())))
        }
        _ => None,
    })
}

fn timestamp(value: &CelValue<'_>) -> Option<i64> {
    match value {
        CelValue::Timestamp(us) => Some(*us),
        CelValue::Int(seconds) => time::in_range(seconds.checked_mul(1_000_000)?),
        CelValue::Text(text) => time::parse_timestamp(text.as_str()),
        _ => None,
    }
}

fn duration(value: &CelValue<'_>) -> Option<i64> {
    match value {
        CelValue::Duration(us) => Some(*us),
        CelValue::Text(text) => time::parse_duration(text.as_str()),
        _ => None,
    }
}

fn micros(value: &CelValue<'_>) -> Option<i64> {
    match value {
        CelValue::Timestamp(us) | CelValue::Duration(us) => Some(*us),
        _ => None,
    }
}

fn from_micros(value: &CelValue<'_>) -> Option<i64> {
    match value {
        CelValue::Int(us) => time::in_range(*us),
        _ => None,
    }
}
