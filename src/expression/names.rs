//! Which function a name and its arguments mean.

use super::function::Function;

/// A function as expressions name it.
struct Named {
    name: &'static str,
    /// Whether the name stands behind its first argument and a point: `text.startsWith("a")`.
    is_member: bool,
    /// The least and the greatest number of arguments, with the one before the point.
    arguments: (usize, usize),
    function: Function,
}

const fn global(name: &'static str, arguments: (usize, usize), function: Function) -> Named {
    Named { name, is_member: false, arguments, function }
}

const fn member(name: &'static str, arguments: (usize, usize), function: Function) -> Named {
    Named { name, is_member: true, arguments, function }
}

/// Arguments that `math.least` and `math.greatest` take at most.
const MANY: usize = 32;

const FUNCTIONS: &[Named] = &[
    global("size", (1, 1), Function::Size),
    member("size", (1, 1), Function::Size),
    global("int", (1, 1), Function::Int),
    global("uint", (1, 1), Function::UInt),
    global("double", (1, 1), Function::Double),
    global("string", (1, 1), Function::String),
    global("bool", (1, 1), Function::Bool),
    global("bytes", (1, 1), Function::Bytes),
    global("type", (1, 1), Function::Type),
    global("dyn", (1, 1), Function::Dyn),
    global("timestamp", (1, 1), Function::Timestamp),
    global("duration", (1, 1), Function::Duration),
    global("micros", (1, 1), Function::Micros),
    global("fromMicros", (1, 1), Function::FromMicros),
    member("contains", (2, 2), Function::Contains),
    member("startsWith", (2, 2), Function::StartsWith),
    member("endsWith", (2, 2), Function::EndsWith),
    member("lowerAscii", (1, 1), Function::LowerAscii),
    member("upperAscii", (1, 1), Function::UpperAscii),
    member("trim", (1, 1), Function::Trim),
    member("split", (2, 2), Function::Split),
    member("join", (1, 2), Function::Join),
    member("replace", (3, 3), Function::Replace),
    member("substring", (2, 3), Function::Substring),
    member("indexOf", (2, 2), Function::IndexOf),
    member("lastIndexOf", (2, 2), Function::LastIndexOf),
    member("charAt", (2, 2), Function::CharAt),
    member("getFullYear", (1, 1), Function::Year),
    member("getMonth", (1, 1), Function::Month),
    member("getDate", (1, 1), Function::Date),
    member("getDayOfMonth", (1, 1), Function::DayOfMonth),
    member("getDayOfWeek", (1, 1), Function::DayOfWeek),
    member("getDayOfYear", (1, 1), Function::DayOfYear),
    member("getHours", (1, 1), Function::Hours),
    member("getMinutes", (1, 1), Function::Minutes),
    member("getSeconds", (1, 1), Function::Seconds),
    member("getMilliseconds", (1, 1), Function::Milliseconds),
    global("math.abs", (1, 1), Function::Abs),
    global("math.ceil", (1, 1), Function::Ceil),
    global("math.floor", (1, 1), Function::Floor),
    global("math.round", (1, 1), Function::Round),
    global("math.trunc", (1, 1), Function::Trunc),
    global("math.sign", (1, 1), Function::SignOf),
    global("math.sqrt", (1, 1), Function::Sqrt),
    global("math.isNaN", (1, 1), Function::IsNan),
    global("math.isInf", (1, 1), Function::IsInf),
    global("math.least", (1, MANY), Function::Least),
    global("math.greatest", (1, MANY), Function::Greatest),
    global("base64.encode", (1, 1), Function::Encode),
    global("base64.decode", (1, 1), Function::Decode),
    global("latest", (1, 1), Function::Latest),
    global("reject", (1, 1), Function::Reject),
];

/// Names before a point that are no variables.
pub(super) const NAMESPACES: [&str; 2] = ["math", "base64"];

/// Functions that only expressions which decide about records have.
const DECIDING: [&str; 2] = ["latest", "reject"];

/// The names of all functions, for the check that they are documented.
#[cfg(test)]
pub(super) fn function_names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|named| named.name)
}

/// Returns the function, or what is wrong with the call. `arguments` counts the value before the point, if there is one.
pub(super) fn function(
    name: &str,
    is_member: bool,
    arguments: usize,
    decides: bool,
) -> Result<Function, String> {
    let written = if is_member { format!(".{name}()") } else { format!("{name}()") };
    let is_known = |named: &&Named| named.name == name && (decides || !DECIDING.contains(&named.name));
    let mut known = FUNCTIONS.iter().filter(is_known).peekable();
    if known.peek().is_none() {
        return Err(format!("there is no function {written} here"));
    }
    let Some(named) = known.find(|named| named.is_member == is_member) else {
        let right = if is_member { format!("{name}(value)") } else { format!("value.{name}()") };
        return Err(format!("write {right}"));
    };
    let (least, most) = named.arguments;
    if !(least..=most).contains(&arguments) {
        let own = usize::from(is_member);
        let takes = match (least - own, most - own) {
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        return Err(format!("{written} takes {takes} arguments, not {}", arguments - own));
    }
    Ok(named.function)
}
