//! Names of sources.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::words::{equal, not_ascii, position, under};
use crate::limits::{SOURCE_BYTES_MAX, SOURCE_SEGMENTS_MAX};

/// The checked name of a source, shared by all that hold it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Arc<str>);

/// Why a name is no name of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The name has no byte, or too many.
    #[error("source has {0} bytes; allowed are 1 to {SOURCE_BYTES_MAX}")]
    Length(usize),
    /// Too many segments.
    #[error("source has {0} segments; at most {SOURCE_SEGMENTS_MAX}")]
    Segments(usize),
    /// A segment is empty, `.` or `..`.
    #[error("source {0:?} has a segment that is empty, \".\" or \"..\"")]
    Segment(String),
    /// A control character, or `*`, which belongs to patterns.
    #[error("source {0:?} has a control character or \"*\"")]
    Character(String),
}

impl Source {
    /// Checks `name` and takes a copy of it.
    pub fn parse(name: &str) -> Result<Source, SourceError> {
        Source::check(name)?;
        Ok(Source(name.into()))
    }

    /// Checks `name` without taking a copy.
    pub fn check(name: &str) -> Result<(), SourceError> {
        if name.is_empty() || name.len() > SOURCE_BYTES_MAX {
            return Err(SourceError::Length(name.len()));
        }
        // Nearly every name is plain ASCII, and seen to be so without decoding it.
        let odd = |word| under(word, 0x20) | equal(word, 0x7f) | equal(word, b'*') | not_ascii(word);
        if position(name.as_bytes(), odd).is_some() && name.chars().any(|c| c == '*' || c.is_control()) {
            return Err(SourceError::Character(name.into()));
        }
        check_segments(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is the system's (`$…`), to which no client publishes.
    pub fn is_system(name: &str) -> bool {
        name.starts_with('$')
    }
}

/// What names and patterns share: the number of segments, none of them empty, `.` or `..`.
pub(super) fn check_segments(name: &str) -> Result<(), SourceError> {
    let mut count = 0;
    for segment in name.as_bytes().split(|byte| *byte == b'/') {
        if matches!(segment, b"" | b"." | b"..") {
            return Err(SourceError::Segment(name.into()));
        }
        count += 1;
    }
    if count > SOURCE_SEGMENTS_MAX {
        return Err(SourceError::Segments(count));
    }
    Ok(())
}

impl Borrow<str> for Source {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_names() {
        for good in ["a", "sensors/7/temp", "ä/ö", "a b", "$sys/x", "a/.../b"] {
            assert!(Source::check(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/../b", "a/*", "a\nb", "a\u{7f}"] {
            assert!(Source::check(bad).is_err(), "{bad:?}");
        }
        assert!(Source::check(&"x".repeat(255)).is_ok());
        assert!(Source::check(&"x".repeat(256)).is_err());
        assert!(Source::check(&vec!["a"; 16].join("/")).is_ok());
        assert!(Source::check(&vec!["a"; 17].join("/")).is_err());
    }
}
