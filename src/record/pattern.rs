//! Patterns: source names in which `*` stands for one segment and a last `**` for one or more.

use std::fmt;
use std::sync::Arc;

use super::source::{SourceError, check_segments};
use crate::limits::{SOURCE_BYTES_MAX, SOURCE_SEGMENTS_MAX};

/// A checked pattern.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No byte, or more than a source could have.
    #[error("pattern has {0} bytes; allowed are 1 to {SOURCE_BYTES_MAX}")]
    Length(usize),
    /// More segments than a source could have.
    #[error("pattern has {0} segments; at most {SOURCE_SEGMENTS_MAX}")]
    Segments(usize),
    /// A segment is empty, `.` or `..`, or a character is not allowed.
    #[error("pattern {0:?} has a segment that is empty, \".\" or \"..\", or a control character")]
    Segment(String),
    /// `*` beside other characters, or `**` before the end.
    #[error("pattern {0:?}: \"*\" must be a whole segment, and \"**\" the last one")]
    Star(String),
}

/// One segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Exactly this text.
    Exact(&'a str),
    /// `*`: any one segment.
    One,
    /// `**`, always the last: one or more segments.
    Rest,
}

impl Pattern {
    /// Checks `text` and takes a copy of it.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() || text.len() > SOURCE_BYTES_MAX {
            return Err(PatternError::Length(text.len()));
        }
        match check_segments(text) {
            Err(SourceError::Segments(count)) => return Err(PatternError::Segments(count)),
            Err(_) => return Err(PatternError::Segment(text.into())),
            Ok(()) => {}
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Segment(text.into()));
        }
        let mut segments = text.split('/').peekable();
        while let Some(segment) = segments.next() {
            let misplaced = segment == "**" && segments.peek().is_some();
            let mixed = segment.contains('*') && !matches!(segment, "*" | "**");
            if misplaced || mixed {
                return Err(PatternError::Star(text.into()));
            }
        }
        Ok(Pattern(text.into()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, from the first.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0.split('/').map(|segment| match segment {
            "*" => Segment::One,
            "**" => Segment::Rest,
            exact => Segment::Exact(exact),
        })
    }

    /// Whether `source` matches. A wildcard never matches a segment that begins the name with `$`.
    pub fn matches(&self, source: &str) -> bool {
        if source.starts_with('$') && !self.0.starts_with('$') {
            return false;
        }
        let mut names = source.split('/');
        for segment in self.segments() {
            match (segment, names.next()) {
                (Segment::Rest, name) => return name.is_some(),
                (Segment::One, Some(_)) => {}
                (Segment::Exact(exact), Some(name)) if exact == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, source: &str) -> bool {
        Pattern::parse(pattern).expect(pattern).matches(source)
    }

    #[test]
    fn wildcards() {
        assert!(matches("a/*/c", "a/b/c"));
        assert!(!matches("a/*/c", "a/b/b/c"));
        assert!(!matches("a/*", "a"));
        assert!(matches("a/**", "a/b/c"));
        assert!(!matches("a/**", "a"));
        assert!(matches("**", "a/b"));
        assert!(matches("*", "a"));
        assert!(!matches("*", "$sys"));
        assert!(!matches("**", "$sys/a"));
        assert!(matches("$sys/*", "$sys/a"));
        assert!(!matches("a", "a/b"));
    }

    #[test]
    fn refused() {
        for bad in ["", "a*", "a/b*", "**/a", "a//b", "a/***", "a/./b", "a\n"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
