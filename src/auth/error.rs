//! The error of a file of rights that cannot be used.

use std::path::Path;

/// A mistake in the file of rights, or in a file that it names. Secrets never stand in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {field}: {value} cannot be used; allowed: {allowed}")]
pub struct AuthFileError {
    /// Path of the file of rights.
    pub file: String,
    /// Line of the mistake, counted from 1; 1 if the file cannot be read.
    pub line: usize,
    /// Column of the mistake in characters, counted from 1.
    pub column: usize,
    /// Name of the field, with the table that it is in: `token.rate`.
    pub field: String,
    /// The value, quoted and shortened; of a secret only what is wrong with it.
    pub value: String,
    /// A description of the allowed values.
    pub allowed: String,
}

/// Longest value that an error repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 64;

impl AuthFileError {
    /// Makes the error about the place `at` (in bytes) of the text of a file.
    pub(super) fn at(
        file: &Path,
        text: &str,
        at: usize,
        field: &str,
        value: &str,
        allowed: impl Into<String>,
    ) -> AuthFileError {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        AuthFileError {
            file: file.display().to_string(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            field: field.into(),
            value: value.into(),
            allowed: allowed.into(),
        }
    }
}

/// Quotes a value for an error, and shortens it.
pub(super) fn quoted(value: &str) -> String {
    if value.len() <= SHOWN_BYTES_MAX {
        return format!("{value:?}");
    }
    let cut = (0..SHOWN_BYTES_MAX).rev().find(|&at| value.is_char_boundary(at)).unwrap_or(0);
    format!("{:?}…", value.get(..cut).unwrap_or_default())
}
