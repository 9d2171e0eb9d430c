//! The functions of texts. Places in a text are counted in characters.

use super::budget::WorkBudget;
use super::error::{Failure, Words};
use super::function::Function;
use super::value::{CelValue, Value};

/// Calls a function of texts.
pub(super) fn call<'v>(function: Function, values: &[CelValue<'v>], budget: &mut WorkBudget) -> Value<'v> {
    let bytes = values.iter().map(|value| match value {
        CelValue::Text(text) => text.as_str().len(),
        _ => 0,
    });
    budget.charge_bytes(bytes.sum())?;
    if function == Function::Join {
        return join(values, budget);
    }
    let wrong = || {
        let kind = |at: usize| values.get(at).map_or("nothing", |value| value.kind().word());
        match values.len() {
            1 => Failure::NoOverload(name(function), kind(0)),
            _ => Failure::NoOverloads(name(function), kind(0), kind(1)),
        }
    };
    let text = |at: usize| match values.get(at) {
        Some(CelValue::Text(text)) => Ok(text.as_str()),
        _ => Err(wrong()),
    };
    let place = |at: usize| match values.get(at) {
        Some(CelValue::Int(place)) => usize::try_from(*place).map_err(|_| Failure::OutOfRange),
        _ => Err(wrong()),
    };
    let subject = text(0)?;
    Ok(match function {
        Function::Contains => CelValue::Bool(subject.contains(text(1)?)),
        Function::StartsWith => CelValue::Bool(subject.starts_with(text(1)?)),
        Function::EndsWith => CelValue::Bool(subject.ends_with(text(1)?)),
        Function::LowerAscii => CelValue::text(&subject.to_ascii_lowercase()),
        Function::UpperAscii => CelValue::text(&subject.to_ascii_uppercase()),
        Function::Trim => CelValue::text(subject.trim()),
        Function::Split => {
            let parts: Vec<CelValue<'_>> = match text(1)? {
                "" => subject.chars().map(|c| CelValue::text(c.encode_utf8(&mut [0; 4]))).collect(),
                separator => subject.split(separator).map(CelValue::text).collect(),
            };
            budget.charge(4 * parts.len())?;
            CelValue::list(parts)
        }
        Function::Replace => replace(subject, text(1)?, text(2)?, budget)?,
        Function::Substring => {
            let start = place(1)?;
            let end = if values.len() > 2 { Some(place(2)?) } else { None };
            CelValue::text(substring(subject, start, end).ok_or(Failure::OutOfRange)?)
        }
        Function::IndexOf => found(subject, subject.find(text(1)?)),
        Function::LastIndexOf => found(subject, subject.rfind(text(1)?)),
        Function::CharAt => {
            let at = place(1)?;
            if at == subject.chars().count() {
                CelValue::text("")
            } else {
                CelValue::text(substring(subject, at, Some(at + 1)).ok_or(Failure::OutOfRange)?)
            }
        }
        _ => return Err(wrong().into()),
    })
}

/// The name by which a message names a function.
fn name(function: Function) -> Words {
    match function {
        Function::Contains => "contains",
        Function::StartsWith => "startsWith",
        Function::EndsWith => "endsWith",
        Function::LowerAscii => "lowerAscii",
        Function::UpperAscii => "upperAscii",
        Function::Trim => "trim",
        Function::Split => "split",
        Function::Join => "join",
        Function::Replace => "replace",
        Function::Substring => "substring",
        Function::IndexOf => "indexOf",
        Function::LastIndexOf => "lastIndexOf",
        _ => "charAt",
    }
}

fn join<'v>(values: &[CelValue<'v>], budget: &mut WorkBudget) -> Value<'v> {
    let (list, separator) = match values {
        [CelValue::List(list)] => (list, ""),
        [CelValue::List(list), CelValue::Text(separator)] => (list, separator.as_str()),
        _ => return Err(Failure::NoOverload("join", values.first().map_or("", |v| v.kind().word())).into()),
    };
    let mut joined = String::new();
    for (at, item) in list.iter().enumerate() {
        let CelValue::Text(text) = item else {
            return Err(Failure::NoOverload("join", item.kind().word()).into());
        };
        budget.charge_bytes(text.as_str().len() + separator.len())?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text.as_str());
    }
    Ok(CelValue::text(&joined))
}

/// Replaces a text wherever it occurs. What the result costs is charged before it is made.
fn replace<'v>(subject: &str, from: &str, to: &str, budget: &mut WorkBudget) -> Value<'v> {
    let count = subject.matches(from).count();
    budget.charge_bytes(subject.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(CelValue::text(&subject.replace(from, to)))
}

/// Returns the characters from one place up to another one, or up to the end.
fn substring(text: &str, start: usize, end: Option<usize>) -> Option<&str> {
    let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = places.nth(start)?;
    let to = match end {
        None => text.len(),
        Some(end) if end < start => return None,
        Some(end) if end == start => from,
        Some(end) => places.nth(end - start - 1)?,
    };
    text.get(from..to)
}

/// Returns an offset in bytes as a number of characters, -1 for none.
fn found<'v>(text: &str, at: Option<usize>) -> CelValue<'v> {
    let place = at.and_then(|at| text.get(..at)).map(|before| before.chars().count());
    CelValue::Int(place.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1))
}
