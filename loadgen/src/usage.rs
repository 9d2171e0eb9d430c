//! Errors of options that cannot be used.

/// Makes the error of an option with a value that is not allowed.
pub(crate) fn wrong<T>(option: &str, value: impl std::fmt::Display, allowed: &str) -> Result<T, String> {
    Err(format!("{option} {value}: must be {allowed}"))
}
