//! The names of the functions that an expression may call.

/// A function of CEL, or of its usual extensions for texts, numbers and base64, or of aNode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Int,
    UInt,
    Double,
    String,
    Bool,
    Bytes,
    Type,
    Dyn,
    Timestamp,
    Duration,
    Micros,
    FromMicros,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Split,
    Join,
    Replace,
    Substring,
    IndexOf,
    LastIndexOf,
    CharAt,
    Year,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
    Abs,
    Ceil,
    Floor,
    Round,
    Trunc,
    SignOf,
    Sqrt,
    IsNan,
    IsInf,
    Least,
    Greatest,
    Encode,
    Decode,
    Latest,
    Reject,
}

impl Function {
    /// Returns whether the work of the function may grow much with its arguments.
    pub(super) fn is_intricate(self) -> bool {
        matches!(
            self,
            Function::Split | Function::Join | Function::Replace | Function::Encode | Function::Decode
        )
    }
}
